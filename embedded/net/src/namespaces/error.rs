//! Why namespaces cannot be entered, and what to do about it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Why namespaces could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// The process has more than one thread already.
    #[error(
        "cannot make a user namespace: this process has several threads; `namespaces::enter` has to come first in `main`"
    )]
    Threads,
    /// The kernel refused the namespaces.
    #[error("cannot make user, network, mount and PID namespaces: {cause}. {remedy}")]
    Refused {
        /// What the kernel said.
        cause: io::Error,
        /// What to do.
        remedy: String,
    },
    /// The namespaces are there, but users could not be mapped into them.
    #[error("cannot write {file:?} of the new user namespace: {cause}. {remedy}")]
    Map {
        /// The file.
        file: PathBuf,
        /// What the kernel said.
        cause: io::Error,
        /// What to do.
        remedy: String,
    },
    /// A mount inside was refused.
    #[error("cannot mount {what} on {target:?} in the new mount namespace: {cause}. {remedy}")]
    Mount {
        /// What.
        what: &'static str,
        /// Where.
        target: &'static str,
        /// What the kernel said.
        cause: io::Error,
        /// What to do.
        remedy: String,
    },
    /// The program could not be started once more.
    #[error(
        "cannot start /proc/self/exe inside the new namespaces: {0}; is /proc mounted, and the program still there?"
    )]
    Start(#[source] io::Error),
    /// Signals could not be set up.
    #[error("cannot set up signals: {0}")]
    Signals(#[source] io::Error),
    /// The outer process ended meanwhile.
    #[error("the process that made the namespaces has ended")]
    Orphaned,
    /// `unshare(1)`, with which [`super::check`] tries, failed in another way.
    #[error("cannot try out namespaces with `unshare`: {message}. {remedy}")]
    Check {
        /// What it said.
        message: String,
        /// What to do.
        remedy: String,
    },
}

/// A switch of the kernel that forbids user namespaces: file, the value that forbids, command that allows.
const SWITCHES: [(&str, &str, &str); 4] = [
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
    ("/proc/sys/user/max_net_namespaces", "0", "sysctl -w user.max_net_namespaces=15000"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
];

const IN_CONTAINER: &str = "start the container with `docker run --security-opt seccomp=unconfined \
    --security-opt apparmor=unconfined --security-opt systempaths=unconfined`, or on Kubernetes with \
    `seccompProfile: {type: Unconfined}` and `procMount: Unmasked`";

/// What to do on this machine, as a sentence or two.
pub(super) fn remedy() -> String {
    remedy_for(|file| fs::read_to_string(file).ok(), in_container())
}

/// As [`remedy`], for a machine of which `read` reads the files.
pub(super) fn remedy_for(read: impl Fn(&str) -> Option<String>, in_container: bool) -> String {
    let forbidding: Vec<&str> = SWITCHES
        .iter()
        .filter(|(file, forbids, _)| read(file).is_some_and(|value| value.trim() == *forbids))
        .map(|(_, _, command)| *command)
        .collect();
    match (forbidding.is_empty(), in_container) {
        (false, _) => format!("The machine forbids it; as root: `{}`", forbidding.join("` and `")),
        (true, true) => format!("Containers forbid it by default: {IN_CONTAINER}"),
        (true, false) => {
            let all: Vec<&str> = SWITCHES.iter().map(|(_, _, command)| *command).collect();
            format!("None of the known switches is set against it ({}); in a container, {IN_CONTAINER}", all.join(", "))
        }
    }
}

fn in_container() -> bool {
    ["/.dockerenv", "/run/.containerenv"].iter().any(|file| Path::new(file).exists())
        || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_names_the_switch_that_is_set() {
        let ubuntu = |file: &str| file.ends_with("restrict_unprivileged_userns").then(|| "1\n".to_owned());
        let remedy = remedy_for(ubuntu, false);
        assert!(remedy.contains("kernel.apparmor_restrict_unprivileged_userns=0"), "{remedy}");
        assert!(!remedy.contains("max_user_namespaces"), "{remedy}");
        let hardened = |file: &str| Some(if file.ends_with("userns") { "0" } else { "1000" }.to_owned());
        assert!(remedy_for(hardened, true).contains("seccomp=unconfined"));
        let none = |file: &str| file.ends_with("max_user_namespaces").then(|| "0".to_owned());
        assert!(remedy_for(none, true).contains("user.max_user_namespaces="));
    }
}
