//! The commands that the page tells its readers to type, typed into the real kubectl.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, anyhow, bail};
use meshgate_apps::probe::Sockets;
use meshgate_clusters::Ability;
use meshgate_clusters::Kubectl;
use meshgate_fixtures::Mode;
use meshgate_harness::case::{Case, Evidence, Need, Stage};
use meshgate_harness::context::Context;
use meshgate_harness::plan::{Backend, NAMESPACE};
use meshgate_harness::probe::{Batch, Record, Request, outcome};
use meshgate_harness::verdict::{CaseResult, Outcome, check};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// The cases of this file.
pub const CASES: &[Case] = &[
    Case {
        id: "routing/external-ip-command",
        summary: "The page's kubectl command prints the external address where it still finds the Service, else with today's label, and the \
                  controller answers there",
        needs: &[Need::Cluster(Ability::OutsideClients), Need::OncePerController],
        claims: &[],
        stage: Stage::Shared,
        plan: |_| {},
        run: |context| Box::pin(external_ip(context)),
    },
    Case {
        id: "routing/describe-pod",
        summary: "kubectl describe shows the ingress annotation on the controller's pod in ingress mode, and on no other pod",
        needs: &[Need::Proxy, Need::OncePerController],
        claims: &[Evidence::Confirms("ingress.describe")],
        stage: Stage::Shared,
        plan: |_| {},
        run: |context| Box::pin(describe_pod(context)),
    },
];

async fn external_ip(context: Context) -> CaseResult {
    let world = &context.world;
    let page = &world.controller.external_ip;
    let columns = "custom-columns=EXTERNAL-IP:.status.loadBalancer.ingress[0].ip";
    // Other cases may have further instances of the controller, with the same label.
    let all: BTreeSet<String> =
        world.instances.values().chain([&world.ingress]).map(|entrance| entrance.ip.to_string()).collect();
    let by_page = (&page.selector, if page.found { all.clone() } else { BTreeSet::new() });
    // Also the control of a command that finds nothing: there is something to be found.
    let by_today = page.today.as_ref().map(|label| {
        let none = label.without_address.then(|| "<none>".to_owned());
        (&label.selector, all.into_iter().chain(none).collect())
    });
    for (selector, expected) in std::iter::once(by_page).chain(by_today) {
        let printed = kubectl(&context, &["get", "svc", "--all-namespaces", "-l", selector, "-o", columns]).await?;
        let mut lines = printed.lines().map(str::trim);
        check("the first line").equal(lines.next(), Some("EXTERNAL-IP"))?;
        let found: BTreeSet<String> = lines.map(str::to_owned).collect();
        check(format!("the addresses below, by the selector {selector}")).equal(&found, &expected)?;
    }

    // It knows no such host, and says so.
    let target = world.ingress.at(world.controller.ports.http).to_string();
    let record = context.send(Request::get(target, "/").host("nobody.test")).await;
    let answers = record.error.is_none() && record.status.is_some();
    check(format!("the controller at {}", world.ingress.ip)).that(answers, "an answer", outcome(&record))?;
    Ok(Outcome::Pass)
}

async fn describe_pod(context: Context) -> CaseResult {
    let world = &context.world;
    let controller = &world.controller;
    let labels = format!("app.kubernetes.io/instance={}", controller.workload);
    let pods = world.kubernetes.pods(&controller.namespace, &labels).await?;
    let pod = pods.into_iter().find_map(|pod| pod.metadata.name).context("the controller has no pod")?;
    let found = grep(&context, &controller.namespace, &pod).await?;
    check(format!("the annotation on {pod}")).equal(found, usize::from(world.cell.mode == Mode::Ingress))?;

    // The control: the same words are not on a pod that is injected for the default mode.
    let pods = context.pods_of(Backend::A.name()).await?;
    let (pod, _) = pods.first().ok_or_else(|| anyhow!("{} has no pod", Backend::A.name()))?;
    check(format!("the annotation on {pod}")).equal(grep(&context, NAMESPACE, pod).await?, 0)?;
    Ok(Outcome::Pass)
}

/// How many lines `kubectl describe pod/POD | grep "linkerd.io/inject: ingress"` prints.
async fn grep(context: &Context, namespace: &str, pod: &str) -> anyhow::Result<usize> {
    let described = kubectl(context, &["describe", &format!("pod/{pod}"), "-n", namespace]).await?;
    Ok(described.lines().filter(|line| line.contains("linkerd.io/inject: ingress")).count())
}

/// What kubectl prints.
async fn kubectl(context: &Context, arguments: &[&str]) -> anyhow::Result<String> {
    let (_folder, mut command) = command(context, arguments)?;
    let output = command.output().await.context("cannot run kubectl")?;
    if !output.status.success() {
        bail!("kubectl {}: {}: {}", arguments.join(" "), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A kubectl that is to be run, and the folder of its files, which has to last as long as it.
fn command(context: &Context, arguments: &[&str]) -> anyhow::Result<(TempDir, Command)> {
    let Kubectl { program, kubeconfig } = context.world.cluster.kubectl().context(
        "expected a kubectl, found none: `meshgate doctor` says how to get it, MESHGATE_KUBECTL_BIN names one that is there",
    )?;
    let folder = tempfile::tempdir().context("a folder for kubectl")?;
    let config = folder.path().join("config");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&config)?;
    file.write_all(kubeconfig.as_bytes())?;
    let mut command = Command::new(&program);
    command.args(arguments).envs(environment(folder.path(), &config)).stdin(Stdio::null()).kill_on_drop(true);
    Ok((folder, command))
}

/// What keeps a person's settings and their cache of another cluster's kinds from mattering. Their home stays: what gives a cloud's
/// credentials (`users[].user.exec`) has its own there.
fn environment(folder: &Path, config: &Path) -> [(&'static str, OsString); 3] {
    [
        ("KUBECONFIG", config.into()),
        ("KUBECACHEDIR", folder.join("cache").into()),
        // Aliases and defaults (`~/.kube/kuberc`).
        ("KUBERC", "off".into()),
    ]
}

/// `kubectl port-forward` at work, from a loopback address beside the cases. It ends when dropped.
pub(super) struct PortForward {
    address: SocketAddr,
    /// kubectl tells of every connection, and would end if nobody were there to be told.
    _output: Lines<BufReader<ChildStdout>>,
    _kubectl: Child,
    _folder: TempDir,
}

impl PortForward {
    /// Forwards to a port of `svc/NAME` or `pod/NAME`, from a port that kubectl chooses.
    pub async fn start(context: &Context, to: &str, namespace: &str, port: u16) -> anyhow::Result<Self> {
        let mapping = format!(":{port}");
        let (folder, mut command) = command(context, &["port-forward", to, "-n", namespace, &mapping])?;
        let mut kubectl =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot run kubectl")?;
        let mut output = BufReader::new(kubectl.stdout.take().context("kubectl has no output")?).lines();
        // `Forwarding from 127.0.0.1:34567 -> 8080`
        let line = output.next_line().await?;
        let from = line.as_deref().and_then(|line| line.strip_prefix("Forwarding from "));
        match from.and_then(|from| from.split(' ').next()?.parse().ok()) {
            Some(address) => Ok(Self { address, _output: output, _kubectl: kubectl, _folder: folder }),
            None => {
                let mut said = line.unwrap_or_default();
                if let Some(mut stderr) = kubectl.stderr.take() {
                    kubectl.start_kill()?;
                    stderr.read_to_string(&mut said).await?;
                }
                bail!("kubectl port-forward {to} {mapping}: expected where it forwards from, found: {}", said.trim())
            }
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a batch through it.
    pub async fn send(&self, batch: &Batch) -> Vec<Record> {
        meshgate_apps::probe::run(batch, &Sockets).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_has_the_home_of_whoever_it_gets_credentials_for() {
        let of = environment(Path::new("/tmp/x"), Path::new("/tmp/x/config"));
        let names = of.each_ref().map(|(name, _)| *name);
        assert_eq!(names, ["KUBECONFIG", "KUBECACHEDIR", "KUBERC"], "no HOME, and no PATH");
    }
}
