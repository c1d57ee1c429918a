//! Starting a container: from its spec, its image and its pod to a running process.

use std::fs::{self, Permissions};
use std::io::{self, PipeReader, pipe};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::env::{self, EnvError, Sources};
use crate::images::Image;
use crate::kinds;
use crate::launch::{Bind, Launch, Place, Root};
use crate::logs::LogBuffer;
use crate::pod::PodContext;
use crate::pod_exec::mapped;
use crate::process::Group;
use crate::slot::Slot;
use crate::volumes::VolumeError;

/// Where links to an image's programs are, in every container.
const PROGRAMS: &str = "/.image/bin";
/// `terminationMessagePath` of a container that says nothing.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// Bytes of a termination message that are kept.
const TERMINATION_MESSAGE: usize = 4096;

/// Why a container could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// A variable has no value.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// A mount has no source.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// Neither the image nor the container names a program.
    #[error("no command specified: neither the image nor the container names one; set `command`")]
    NoCommand,
    /// The helper could not be started.
    #[error("cannot start the node's helper: {0}")]
    Spawn(#[from] io::Error),
    /// The program could not be executed, or its root not be built.
    #[error("{0}")]
    Exec(String),
}

impl StartError {
    /// `reason` of the waiting state, as the kubelet names it.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            StartError::Env(_) | StartError::Volume(_) => "CreateContainerConfigError",
            StartError::NoCommand => "CreateContainerError",
            StartError::Spawn(_) | StartError::Exec(_) => "RunContainerError",
        }
    }
}

/// A running container.
pub(crate) struct Instance {
    child: Child,
    group: Group,
    log: Arc<LogBuffer>,
    collector: JoinHandle<()>,
    termination_log: PathBuf,
    /// When its program was executed.
    pub since: Timestamp,
    /// `containerID`.
    pub id: String,
}

impl Instance {
    /// Its process, as seen by the node.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.group.leader().map(Pid::as_raw)
    }

    /// Asks the program to end.
    pub(crate) fn terminate(&self) {
        self.group.signal(Signal::SIGTERM);
    }

    /// Ends every process of the container.
    pub(crate) fn kill(&self) {
        self.group.kill();
    }

    /// Waits for the program: exit code, and signal if one ended it. May be cancelled and called again.
    pub(crate) async fn wait(&mut self) -> (i32, Option<i32>) {
        use std::os::unix::process::ExitStatusExt;
        match self.child.wait().await {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => (code, None),
                (None, signal) => (128 + signal.unwrap_or(0), signal),
            },
            Err(error) => {
                tracing::warn!(%error, "cannot wait for a container");
                (255, None)
            }
        }
    }

    /// After the end: takes leftover processes away and closes the log. Returns the termination message.
    pub(crate) async fn finish(mut self, container: &Container, failed: bool) -> Option<String> {
        self.group.kill();
        self.group.let_go();
        // A process that left the group may hold the pipe for ever.
        let drained = tokio::time::timeout(std::time::Duration::from_millis(500), &mut self.collector).await;
        if drained.is_err() {
            self.collector.abort();
        }
        self.log.close();
        let message = fs::read(&self.termination_log).unwrap_or_default();
        let start = message.len().saturating_sub(TERMINATION_MESSAGE);
        let message = String::from_utf8_lossy(&message[start..]).into_owned();
        let fall_back = container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError") && failed;
        let message = if message.is_empty() && fall_back { self.log.tail(2048) } else { message };
        Some(message).filter(|message| !message.is_empty())
    }
}

/// Starts a container and returns when its program has been executed.
pub(crate) async fn start(pod: &PodContext, slot: &Slot, image: &Image) -> Result<Instance, StartError> {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let id = format!("meshgate://{}-{}-{number}", pod.uid, slot.spec.name);
    let dir = pod.dir.join("containers").join(format!("{}-{number}", slot.spec.name));
    let base = dir.join("root");
    fs::create_dir_all(&base)?;
    let termination_log = dir.join("termination-log");
    fs::write(&termination_log, "")?;

    let object = pod.object();
    let launch = launch(pod, &object, &slot.spec, image, base, &termination_log)?;
    let spec = dir.join("launch.json");
    write_private(&spec, &launch)?;

    let (report, report_end) = pipe()?;
    let (output, output_end) = pipe()?;
    let mut command = helper(&pod.shared.helper, &spec);
    command.stdin(Stdio::from(OwnedFd::from(report_end)));
    command.stdout(Stdio::from(OwnedFd::from(output_end.try_clone()?)));
    command.stderr(Stdio::from(OwnedFd::from(output_end)));
    let child = pod.shared.spawner.spawn(command, pod.netns()?).await?;
    let group = Group::of(&child).ok_or_else(|| io::Error::other("the helper ended before it was seen"))?;
    let log = slot.new_log();
    let collector = tokio::spawn({
        let (log, output) = (log.clone(), receiver(output)?);
        async move { log.collect(output).await }
    });
    let mut instance = Instance { child, group, log, collector, termination_log, since: Timestamp::now(), id };

    // Ends when the program is executed, which closes the helper's end, or with the reason why it cannot be.
    let mut reason = String::new();
    let told = receiver(report)?.read_to_string(&mut reason).await;
    let _ = fs::remove_file(&spec);
    if told.is_err() || !reason.is_empty() {
        instance.wait().await;
        instance.finish(&slot.spec, true).await;
        return Err(StartError::Exec(reason));
    }
    instance.since = Timestamp::now();
    Ok(instance)
}

/// What the helper has to do for a container.
fn launch(
    pod: &PodContext,
    object: &Pod,
    container: &Container,
    image: &Image,
    base: PathBuf,
    termination_log: &Path,
) -> Result<Launch, StartError> {
    let ip = pod.ip().map(|ip| ip.to_string()).unwrap_or_default();
    let sources = Sources { store: &pod.shared.store, pod: object, pod_ip: &ip, host_ip: kinds::NODE_IP };
    let own = Some(&pod.shared.own).filter(|_| image.own);
    let mut variables = env::build(container, &brought(pod, image), &sources)?;

    let expand = |words: &Option<Vec<String>>| -> Vec<String> {
        words.iter().flatten().map(|word| variables.expand(word)).collect()
    };
    let (command, arguments) = (expand(&container.command), expand(&container.args));
    let mut argv = match (command.is_empty(), arguments.is_empty()) {
        (false, _) => [command, arguments].concat(),
        (true, false) => [image.entrypoint.clone(), arguments].concat(),
        (true, true) => [image.entrypoint.clone(), image.arguments.clone()].concat(),
    };
    let program = argv.first_mut().ok_or(StartError::NoCommand)?;
    // A manifest may name a program by the path it has in the real image.
    let name = Path::new(program.as_str()).file_name().map(|name| name.to_string_lossy().into_owned());
    if let Some(index) = image.programs.iter().position(|(known, _)| Some(known) == name.as_ref()) {
        *program = image.programs[index].1.to_string_lossy().into_owned();
        if index == 0 {
            argv.splice(1..1, image.role.iter().cloned());
        }
    }

    let read_only = |path: &PathBuf| Bind { source: path.clone(), target: path.clone(), read_only: true };
    // A folder comes before a program in it, which is there then: the other way round the program alone would be.
    let folders = image.files.iter().chain(own.iter().flat_map(|own| &own.files));
    let mut binds: Vec<Bind> = folders.chain(image.programs.iter().map(|(_, path)| path)).map(read_only).collect();
    binds.extend(pod.volumes.binds(object, container, &variables)?);
    binds.push(Bind {
        source: termination_log.to_owned(),
        target: container.termination_message_path.clone().unwrap_or_else(|| TERMINATION_LOG.to_owned()).into(),
        read_only: false,
    });
    let links = image.programs.iter().map(|(name, path)| (Path::new(PROGRAMS).join(name), path.clone())).collect();
    let path = variables.expand("$(PATH)");
    variables.set("PATH", format!("{path}:{PROGRAMS}"));

    let security = container.security_context.clone().unwrap_or_default();
    let pod_security = object.spec.as_ref().and_then(|spec| spec.security_context.clone()).unwrap_or_default();
    let number = |id: Option<i64>| id.and_then(|id| u32::try_from(id).ok());
    let user = number(security.run_as_user.or(pod_security.run_as_user));
    let group = number(security.run_as_group.or(pod_security.run_as_group));
    if let Some(user) = user.filter(|user| !mapped("/proc/self/uid_map", *user)) {
        tracing::debug!(pod = pod.name, container = container.name, user, "runAsUser is not mapped here and ignored");
    }
    Ok(Launch {
        argv,
        working_dir: container.working_dir.clone().or_else(|| image.working_dir.clone()),
        user,
        group,
        env: variables.into_list(),
        place: Place::Root(Root {
            base,
            hostname: env::hostname(object),
            files: etc(object, &ip),
            links,
            binds,
            read_only: security.read_only_root_filesystem == Some(true),
        }),
    })
}

/// The files below `/etc` that differ from pod to pod, and the few that programs cannot do without.
fn etc(pod: &Pod, ip: &str) -> Vec<(PathBuf, String)> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let hostname = env::hostname(pod);
    let mut hosts = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n".to_owned();
    let full = spec.subdomain.map(|subdomain| format!("{hostname}.{subdomain}.{namespace}.svc.cluster.local\t"));
    hosts.push_str(&format!("{ip}\t{}{hostname}\n", full.unwrap_or_default()));
    for alias in spec.host_aliases.iter().flatten() {
        hosts.push_str(&format!(
            "{}\t{}\n",
            alias.ip,
            alias.hostnames.iter().flatten().cloned().collect::<Vec<_>>().join("\t")
        ));
    }
    let given = spec.dns_config.unwrap_or_default();
    let own = spec.dns_policy.as_deref() == Some("None");
    let mut nameservers = given.nameservers.unwrap_or_default();
    let mut searches = given.searches.unwrap_or_default();
    let mut options: Vec<String> = given
        .options
        .iter()
        .flatten()
        .filter_map(|option| {
            let name = option.name.as_ref()?;
            Some(option.value.as_ref().map_or(name.clone(), |value| format!("{name}:{value}")))
        })
        .collect();
    if !own {
        nameservers.insert(0, "10.96.0.10".into());
        let cluster = [format!("{namespace}.svc.cluster.local"), "svc.cluster.local".into(), "cluster.local".into()];
        searches.splice(0..0, cluster);
        if !options.iter().any(|option| option.starts_with("ndots")) {
            options.push("ndots:5".into());
        }
    }
    let mut resolv = String::new();
    for server in nameservers {
        resolv.push_str(&format!("nameserver {server}\n"));
    }
    if !searches.is_empty() {
        resolv.push_str(&format!("search {}\n", searches.join(" ")));
    }
    if !options.is_empty() {
        resolv.push_str(&format!("options {}\n", options.join(" ")));
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nproxy:x:2102:2102:linkerd-proxy:/:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    [
        ("/etc/hostname", format!("{hostname}\n")),
        ("/etc/hosts", hosts),
        ("/etc/resolv.conf", resolv),
        ("/etc/passwd", passwd.into()),
        ("/etc/group", "root:x:0:\nproxy:x:2102:\nnogroup:x:65534:\n".into()),
        ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n".into()),
    ]
    .map(|(path, content)| (PathBuf::from(path), content))
    .to_vec()
}

/// The variables that come with an image.
fn brought(pod: &PodContext, image: &Image) -> Vec<(String, String)> {
    let own = Some(&pod.shared.own.env).filter(|_| image.own);
    image.env.iter().chain(own.into_iter().flatten()).cloned().collect()
}

/// A command to run inside the container whose process is `pid`.
pub(crate) fn join(
    pod: &PodContext,
    slot: &Slot,
    pid: i32,
    argv: Vec<String>,
    tty: bool,
) -> Result<Command, StartError> {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let object = pod.object();
    let ip = pod.ip().map(|ip| ip.to_string()).unwrap_or_default();
    let sources = Sources { store: &pod.shared.store, pod: &object, pod_ip: &ip, host_ip: kinds::NODE_IP };
    let mut variables =
        env::build(&slot.spec, &slot.image.get().map(|image| brought(pod, image)).unwrap_or_default(), &sources)?;
    let path = variables.expand("$(PATH)");
    variables.set("PATH", format!("{path}:{PROGRAMS}"));
    if tty {
        variables.set("TERM", "xterm");
    }
    let launch = Launch {
        argv,
        env: variables.into_list(),
        working_dir: slot.spec.working_dir.clone(),
        user: None,
        group: None,
        place: Place::Join { pid, tty },
    };
    let spec = pod.dir.join(format!("exec-{}.json", NUMBER.fetch_add(1, Ordering::Relaxed)));
    write_private(&spec, &launch)?;
    Ok(helper(&pod.shared.helper, &spec))
}

/// The helper with its one argument, in a process group of its own.
fn helper(words: &[std::ffi::OsString], spec: &Path) -> Command {
    let mut words = words.iter();
    let mut command = Command::new(words.next().map_or("/proc/self/exe".as_ref(), |word| word.as_os_str()));
    command.args(words).arg(spec).process_group(0);
    command
}

/// Writes what the helper reads; it may hold secrets.
fn write_private(path: &Path, launch: &Launch) -> io::Result<()> {
    fs::write(path, "")?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    fs::write(path, serde_json::to_vec(launch)?)
}

fn receiver(pipe: PipeReader) -> io::Result<Receiver> {
    Receiver::from_owned_fd(OwnedFd::from(pipe))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file(pod: &Pod, path: &str) -> String {
        etc(pod, "10.244.0.5").into_iter().find(|(name, _)| name == Path::new(path)).unwrap().1
    }

    #[test]
    fn names_resolve_as_in_a_cluster() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "shop"},
            "spec": {"containers": [], "subdomain": "web", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]},
        }))
        .unwrap();
        assert_eq!(
            file(&pod, "/etc/resolv.conf"),
            "nameserver 10.96.0.10\nsearch shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
        );
        let hosts = file(&pod, "/etc/hosts");
        assert!(hosts.contains("10.244.0.5\tweb-1.web.shop.svc.cluster.local\tweb-1\n"), "{hosts}");
        assert!(hosts.contains("1.2.3.4\ta\tb\n"), "{hosts}");
    }

    #[test]
    fn a_pod_may_bring_its_own_dns() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [], "dnsPolicy": "None", "dnsConfig": {
                "nameservers": ["9.9.9.9"], "options": [{"name": "ndots", "value": "1"}],
            }},
        }))
        .unwrap();
        assert_eq!(file(&pod, "/etc/resolv.conf"), "nameserver 9.9.9.9\noptions ndots:1\n");
    }
}
