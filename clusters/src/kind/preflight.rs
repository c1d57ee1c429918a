//! What kind needs on this machine, for `meshgate doctor`.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use meshgate_images::Check;
use nix::sys::statvfs::statvfs;

use super::{INSTALL, KindError, NodeImage, Tool};
use crate::command::CommandError;

/// How to get what runs the nodes.
pub(super) const INSTALL_RUNTIME: &str = "install Docker (https://docs.docker.com/engine/install/) or podman";

/// How long an answer may take that asks for no work: an engine that takes longer hangs.
pub(super) const ANSWERS: Duration = Duration::from_secs(10);

/// What is said of a command that is not there.
const MISSING: &str = "not on PATH";

/// Room for the node image, unpacked, and the images of a run, in GiB.
const DISK: u64 = 6;

/// What kind's documentation asks for where several clusters run; below it, pods fail with "too many open files".
const INOTIFY: [(&str, u64); 2] = [("max_user_watches", 524_288), ("max_user_instances", 512)];

/// The command that runs containers, as kind is told by `KIND_EXPERIMENTAL_PROVIDER`.
pub(super) fn provider(environment: &[(OsString, OsString)]) -> String {
    let variable = "KIND_EXPERIMENTAL_PROVIDER";
    let given = environment.iter().rev().find(|(name, _)| name == variable).map(|(_, value)| value.clone());
    let chosen = given.or_else(|| std::env::var_os(variable)).unwrap_or_default().to_string_lossy().into_owned();
    if chosen.is_empty() { "docker".to_owned() } else { chosen }
}

/// Looks whether a cluster of kind could be made, with this further environment of every command. Makes and changes nothing.
pub async fn preflight(environment: &[(OsString, OsString)]) -> Vec<Check> {
    let tool = Tool { environment: environment.to_vec() };
    let mut checks = vec![kind(&tool).await];
    let (runtime, root) = runtime(&tool).await;
    checks.push(runtime);
    checks.push(disk(root.as_deref().unwrap_or("/")));
    checks.extend(
        INOTIFY.map(|(name, wanted)| inotify(name, wanted, std::fs::read_to_string(limit(name)).ok().as_deref())),
    );
    checks
}

fn said(error: &CommandError) -> String {
    match error {
        CommandError::Missing { .. } => MISSING.to_owned(),
        error => error.to_string(),
    }
}

async fn kind(tool: &Tool) -> Check {
    let found = match tool.kind(&["version"]).within(ANSWERS).run().await {
        Ok(output) => version(output.stdout.trim()),
        Err(error) => Err(said(&error)),
    };
    Check { what: "kind".to_owned(), found, why: "makes the clusters of `--cluster kind`", remedy: INSTALL.to_owned() }
}

/// `kind v0.33.0 go1.26.0 linux/amd64`, judged by the releases that the node images were built for.
fn version(line: &str) -> Result<String, String> {
    let Some(release) = release(line) else { return Err(format!("expected a version, found {line:?}")) };
    let image = NodeImage::for_kind(release, None).map_err(|error| error.to_string())?;
    let newest = NodeImage::newest().map_err(|error| error.to_string())?;
    if image == newest {
        return Ok(line.to_owned());
    }
    Ok(format!(
        "{line}; it makes clusters of Kubernetes {}, kind {} those of {}",
        image.kubernetes, newest.kind, newest.kubernetes
    ))
}

/// The release in what `kind version` says.
fn release(line: &str) -> Option<&str> {
    line.split_whitespace().find_map(|word| word.strip_prefix('v'))
}

/// The newest node image that the kind of this machine runs, of a version of Kubernetes if one is given.
///
/// # Errors
/// No kind, [`KindError::Version`], [`KindError::Older`].
pub async fn node_image(
    kubernetes: Option<&str>,
    environment: &[(OsString, OsString)],
) -> Result<NodeImage, KindError> {
    let tool = Tool { environment: environment.to_vec() };
    let said = tool.kind(&["version"]).within(ANSWERS).run().await?.stdout;
    match (release(said.trim()), kubernetes) {
        (Some(release), _) => NodeImage::for_kind(release, kubernetes),
        // A kind that does not say its release is somebody's own build.
        (None, Some(version)) => NodeImage::of(version),
        (None, None) => NodeImage::newest(),
    }
}

/// Whether a cluster could be made, as far as that is known at once; of a version of Kubernetes if one is given.
///
/// # Errors
/// Those of [`node_image`], [`KindError::Engine`].
pub async fn possible(kubernetes: Option<&str>, environment: &[(OsString, OsString)]) -> Result<(), KindError> {
    node_image(kubernetes, environment).await?;
    let (Check { what: engine, found, remedy, .. }, _) = runtime(&Tool { environment: environment.to_vec() }).await;
    // Where there is no docker, kind looks for these.
    let another = || ["podman", "nerdctl"].iter().any(|other| meshgate_images::on_path(other).is_some());
    match found {
        Err(problem) if problem != MISSING || !another() => Err(KindError::Engine { engine, problem, remedy }),
        _ => Ok(()),
    }
}

/// Whether containers can be run, and where they lie.
async fn runtime(tool: &Tool) -> (Check, Option<String>) {
    let provider = provider(&tool.environment);
    let format = if provider == "podman" { "{{.Store.GraphRoot}}" } else { "{{.DockerRootDir}}" };
    let info = tool.command(&provider, INSTALL_RUNTIME).args(["info", "--format", format]).within(ANSWERS).run().await;
    let root = info.as_ref().ok().map(|output| output.stdout.trim().to_owned()).filter(|root| Path::new(root).is_dir());
    let (found, remedy) = match info {
        Ok(output) => (Ok(format!("answers; it keeps its images in {}", output.stdout.trim())), String::new()),
        Err(error @ CommandError::Missing { .. }) => (Err(said(&error)), INSTALL_RUNTIME.to_owned()),
        Err(error) => {
            let start = if provider == "podman" {
                "podman info"
            } else {
                "sudo systemctl start docker, and sudo usermod -aG docker $USER"
            };
            (Err(said(&error)), start.to_owned())
        }
    };
    (Check { what: provider, found, why: "runs the nodes of kind's clusters", remedy }, root)
}

fn disk(path: &str) -> Check {
    let found = match statvfs(path) {
        Ok(stat) => {
            let free = (stat.blocks_available() * stat.fragment_size()) >> 30;
            let text = format!("{free} GiB free in {path}");
            if free < DISK { Err(format!("{text}, expected at least {DISK}")) } else { Ok(text) }
        }
        Err(error) => Err(format!("{path}: {error}")),
    };
    Check {
        what: "disk".to_owned(),
        found,
        why: "holds the node image and what is loaded into it",
        remedy: "docker system prune".to_owned(),
    }
}

fn limit(name: &str) -> String {
    format!("/proc/sys/fs/inotify/{name}")
}

fn inotify(name: &str, wanted: u64, content: Option<&str>) -> Check {
    let found = match content.and_then(|content| content.trim().parse::<u64>().ok()) {
        Some(found) if found >= wanted => Ok(found.to_string()),
        Some(found) => Err(format!("{found}, expected at least {wanted}")),
        None => Err(format!("{} cannot be read", limit(name))),
    };
    Check {
        what: format!("fs.inotify.{name}"),
        found,
        why: "is shared by the kubelets of all clusters on this machine, whose pods fail with \"too many open files\" when it is used up",
        remedy: format!("sudo sysctl fs.inotify.{name}={wanted}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_kind_may_not_be_able_to_run_the_newest_image_or_any() {
        for line in ["kind v0.33.0 go1.26.0 linux/amd64", "kind v0.40.1", "kind v0.34.0-alpha+abc go1.26.0 linux/amd64"]
        {
            assert_eq!(version(line).as_deref(), Ok(line));
        }
        let older = version("kind v0.31.0 go1.25.5 linux/amd64").unwrap();
        assert_eq!(
            older,
            "kind v0.31.0 go1.25.5 linux/amd64; it makes clusters of Kubernetes 1.35.0, kind 0.33.0 those of 1.37.0"
        );
        let error = version("kind v0.9.0 go1.15.2 linux/amd64").unwrap_err();
        assert!(error.contains("kind 0.9.0 is older than all known images"), "{error}");
        assert!(!error.contains("--kubernetes"), "no version helps: {error}");
        assert_eq!(version("?").unwrap_err(), "expected a version, found \"?\"");
    }

    #[test]
    fn limits_are_judged_by_what_kind_asks_for() {
        assert_eq!(inotify("max_user_instances", 512, Some("8192\n")).found, Ok("8192".to_owned()));
        let low = inotify("max_user_instances", 512, Some("128\n"));
        assert_eq!(low.found, Err("128, expected at least 512".to_owned()));
        assert_eq!(low.remedy, "sudo sysctl fs.inotify.max_user_instances=512");
        assert!(inotify("max_user_instances", 512, None).found.is_err());
    }

    #[test]
    fn the_provider_is_what_kind_is_told() {
        let of = |value: &str| provider(&[("KIND_EXPERIMENTAL_PROVIDER".into(), value.into())]);
        assert_eq!((of("podman"), of("")), ("podman".to_owned(), "docker".to_owned()));
    }
}
