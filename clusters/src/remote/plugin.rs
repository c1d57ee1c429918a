//! Commands that give credentials (`users[].user.exec` in a kubeconfig). They may take long, as when somebody logs in by them, or for ever.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use kube::client::{AuthError, Client};
use kube::config::AuthInfo;
use kube::{Config, Error};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, gettid};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::told;

/// After how long somebody is told that one is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long one may take: enough to log in.
pub(super) const ANSWERS: Duration = Duration::from_secs(120);

/// A client that has its credentials from a command.
pub(super) struct Asked<'a> {
    /// The command's name.
    pub command: &'a str,
    /// How to get it, as far as the kubeconfig says.
    hint: Option<&'a str>,
}

impl<'a> Asked<'a> {
    /// Whom a client with these credentials asks, if anybody.
    pub fn of(credentials: &'a AuthInfo) -> Option<Self> {
        if let Some(exec) = &credentials.exec {
            return Some(Self { command: exec.command.as_deref()?, hint: exec.install_hint.as_deref() });
        }
        let provider = credentials.auth_provider.as_ref()?;
        Some(Self { command: provider.config.get("cmd-path")?, hint: None })
    }

    /// Makes the client on a thread of its own, for kube waits there until the command has ended. Whoever drops this ends the command.
    ///
    /// # Errors
    /// For a person, why there is no client.
    pub async fn client(&self, config: Config, within: Duration) -> Result<Client, String> {
        let thread = Thread::default();
        let (number, runtime) = (Arc::clone(&thread.0), Handle::current());
        let (done, mut asked) = oneshot::channel();
        let work = move || {
            number.store(gettid().as_raw(), Ordering::Release);
            let _inside = runtime.enter();
            // Nobody may be waiting any more.
            let _ = done.send(Client::try_from(config));
        };
        let begun = std::thread::Builder::new().name("credentials".to_owned()).spawn(work);
        begun.map_err(|error| format!("a thread for it cannot be started: {error}"))?;
        let early = timeout(PATIENCE.min(within), &mut asked).await;
        let answer = match early {
            Ok(answer) => Ok(answer),
            Err(_) => {
                tracing::warn!(command = self.command, "waiting for the credentials of the kubeconfig");
                timeout(within.saturating_sub(PATIENCE), asked).await
            }
        };
        match answer {
            Ok(Ok(Ok(client))) => Ok(client),
            Ok(Ok(Err(error))) => Err(self.failed(&error)),
            Ok(Err(_)) => Err("its thread ended early".to_owned()),
            Err(_) => Err(format!("it did not answer within {} s, and was killed", within.as_secs())),
        }
    }

    fn failed(&self, error: &Error) -> String {
        let mut said = told(error);
        if let (Error::Auth(AuthError::AuthExecStart(_)), Some(hint)) = (error, self.hint) {
            let _ = write!(said, "; {}", hint.trim());
        }
        said
    }
}

/// The number of a thread, whose child processes end when this is dropped.
#[derive(Default)]
struct Thread(Arc<AtomicI32>);

impl Drop for Thread {
    fn drop(&mut self) {
        // One that has ended has no children.
        kill_children("self", &self.0.load(Ordering::Acquire).to_string());
    }
}

/// Kills what a thread of a process has started, and what that has.
fn kill_children(process: &str, thread: &str) {
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{thread}/children")).unwrap_or_default();
    for child in children.split_whitespace() {
        kill_children(child, child);
        if let Ok(pid) = child.parse() {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;
    use crate::IMAGE;
    use crate::remote::{By, Reach};

    fn exec(command: &str, script: &str) -> Value {
        json!({
            "apiVersion": "client.authentication.k8s.io/v1", "command": command, "args": ["-c", script],
            "interactiveMode": "Never", "installHint": "brew install it\n",
        })
    }

    fn config(exec: &Value) -> Config {
        let mut config = Config::new("https://127.0.0.1:1".parse().unwrap());
        config.auth_info = serde_json::from_value(json!({"exec": exec})).unwrap();
        let _ = crate::embedded::rustls_provider();
        config
    }

    async fn refused(exec: &Value, within: Duration) -> String {
        let config = config(exec);
        let credentials = config.auth_info.clone();
        Asked::of(&credentials).unwrap().client(config, within).await.err().unwrap()
    }

    /// Waits until a process has ended.
    async fn gone(pid: &str) {
        let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        while !stat().is_empty() && !stat().contains(") Z ") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn started(file: &Path) -> String {
        loop {
            let read = std::fs::read_to_string(file).unwrap_or_default();
            if read.ends_with('\n') {
                return read.trim().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn what_it_printed_is_not_told_and_what_it_complained_of_is() {
        let said = refused(&exec("sh", "echo tok3n; echo please log in >&2; exit 3"), ANSWERS).await;
        assert!(said.contains("failed (exit status: 3): please log in"), "{said}");
        let no_credential = refused(&exec("sh", "echo '[tok3n'"), ANSWERS).await;
        for said in [said, no_credential] {
            assert!(!said.contains("tok3n") && !said.contains("Output {") && !said.contains("KUBERNETES"), "{said}");
        }
    }

    #[tokio::test]
    async fn one_that_is_not_there_is_told_with_how_to_get_it() {
        let said = refused(&exec("no-such-plugin", ""), ANSWERS).await;
        assert!(said.contains("No such file") && said.ends_with("; brew install it"), "{said}");
        // With its name, by whoever has a whole kubeconfig.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "x", "cluster": {"server": "https://127.0.0.1:1"}}],
            "users": [{"name": "x", "user": {"exec": exec("no-such-plugin", "")}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        });
        std::fs::write(&path, config.to_string()).unwrap();
        let reach = Reach::existing(Some(&path), None, IMAGE, By::default()).unwrap();
        let said = reach.client().await.err().unwrap().to_string();
        assert!(said.contains("context \"x\"") && said.contains("`no-such-plugin`"), "{said}");
    }

    #[tokio::test]
    async fn one_that_hangs_is_ended_at_its_deadline_with_what_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let hangs = exec("sh", &format!("sleep 600 & echo $! >{}; wait", file.display()));
        let said = refused(&hangs, Duration::from_secs(1)).await;
        assert_eq!(said, "it did not answer within 1 s, and was killed");
        timeout(Duration::from_secs(10), gone(&started(&file).await)).await.unwrap();
    }

    #[tokio::test]
    async fn one_that_nobody_waits_for_any_more_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let hangs = exec("sh", &format!("echo $$ >{}; exec sleep 600", file.display()));
        let waits = tokio::spawn(async move { refused(&hangs, ANSWERS).await });
        let pid = timeout(Duration::from_secs(10), started(&file)).await.unwrap();
        waits.abort();
        timeout(Duration::from_secs(10), gone(&pid)).await.unwrap();
    }

    #[tokio::test]
    async fn one_that_answers_gives_a_client() {
        let answer = json!({
            "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "tok3n"},
        });
        let config = config(&exec("sh", &format!("echo '{answer}'")));
        let credentials = config.auth_info.clone();
        Asked::of(&credentials).unwrap().client(config, ANSWERS).await.unwrap();
        assert!(Asked::of(&AuthInfo::default()).is_none());
    }
}
