//! Commands of others, run so that none of them can hang a run.
//!
//! No shell is between: arguments are passed as they are. A command has a process group of its own, which is killed at its deadline and
//! when nobody waits for it any more, because what hangs is seldom the command itself and mostly what it started. Its output goes to
//! files, not pipes: a grandchild that lives on would hold a pipe open and whoever reads it with it. `KUBECONFIG` is taken away, so
//! that no command touches a cluster that it was not told.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use duct::Handle;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How many lines of standard error a message quotes; the last ones.
const QUOTED: usize = 50;

/// How long a command may take for which nothing else is said.
const USUAL: Duration = Duration::from_secs(60);

/// Why a command did not do what it was run for.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no such program.
    #[error("{program} is not there, and `{line}` needs it; {install}")]
    Missing {
        /// Its name or path.
        program: String,
        /// What was to be run.
        line: String,
        /// How to get it.
        install: &'static str,
    },
    /// It could not be started, or its output not kept.
    #[error("cannot run `{line}`: {cause}")]
    Io {
        /// What was to be run.
        line: String,
        /// Why not.
        cause: io::Error,
    },
    /// It said that it failed.
    #[error("`{line}` failed after {took:.1?} ({status}){}", quoted(stderr))]
    Failed {
        /// What was run.
        line: String,
        /// For how long.
        took: Duration,
        /// Its exit status.
        status: ExitStatus,
        /// What it wrote to standard output, all of it.
        stdout: String,
        /// What it wrote to standard error, all of it.
        stderr: String,
    },
    /// It did not come to an end.
    #[error("`{line}` did not end within {took:.1?} and was killed{}", quoted(stderr))]
    Deadline {
        /// What was run.
        line: String,
        /// For how long.
        took: Duration,
        /// What it had written to standard error by then, all of it.
        stderr: String,
    },
}

impl CommandError {
    /// What the command wrote to standard error, as far as it ran.
    pub fn stderr(&self) -> &str {
        match self {
            Self::Failed { stderr, .. } | Self::Deadline { stderr, .. } => stderr,
            Self::Missing { .. } | Self::Io { .. } => "",
        }
    }
}

/// The last lines of what a command said, as the end of a message.
fn quoted(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.trim_end().lines().collect();
    if lines.is_empty() {
        return "; it said nothing".to_owned();
    }
    let left_out = lines.len().saturating_sub(QUOTED);
    let head =
        if left_out > 0 { format!("; the last {QUOTED} lines of what it said:") } else { "; it said:".to_owned() };
    lines[left_out..].iter().fold(head, |text, line| text + "\n    " + line)
}

/// What a command that succeeded wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Standard output. What is no UTF-8 is replaced.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
    /// How long the command ran.
    pub took: Duration,
}

/// A command to run.
#[derive(Clone, Debug)]
pub struct Command {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    within: Duration,
    install: &'static str,
}

impl Command {
    /// A program by its path, or by a name to be found on PATH. `install` says how to get it, for when it is not there.
    pub fn new(program: impl AsRef<OsStr>, install: &'static str) -> Self {
        let program = program.as_ref().to_owned();
        Self { program, arguments: Vec::new(), environment: Vec::new(), within: USUAL, install }
    }

    /// With further arguments.
    pub fn args<T: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// With a further argument.
    pub fn arg(self, argument: impl AsRef<OsStr>) -> Self {
        self.args([argument])
    }

    /// With an environment variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// With a deadline other than a minute.
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// The command as a person would type it.
    pub fn line(&self) -> String {
        let words: Vec<_> =
            std::iter::once(&self.program).chain(&self.arguments).map(|word| word.to_string_lossy()).collect();
        let joined = shlex::try_join(words.iter().map(AsRef::as_ref));
        joined.unwrap_or_else(|_| words.join(" "))
    }

    /// Runs it to its end. A future that is dropped before takes the command's process group with it.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn run(&self) -> Result<Output, CommandError> {
        let running = Arc::new(self.start()?);
        let _guard = Guard(Arc::clone(&running));
        match tokio::task::spawn_blocking(move || running.wait()).await {
            Ok(result) => result,
            Err(error) => Err(self.failed(io::Error::other(error))),
        }
    }

    /// Runs it to its end on this thread, for where nothing can be awaited.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn run_blocking(&self) -> Result<Output, CommandError> {
        self.start()?.wait()
    }

    fn failed(&self, cause: io::Error) -> CommandError {
        CommandError::Io { line: self.line(), cause }
    }

    fn start(&self) -> Result<Running, CommandError> {
        let file = || -> io::Result<(File, File)> {
            let file = tempfile::tempfile()?;
            Ok((file.try_clone()?, file))
        };
        let (stdout, to_stdout) = file().map_err(|error| self.failed(error))?;
        let (stderr, to_stderr) = file().map_err(|error| self.failed(error))?;
        let mut expression = duct::cmd(&self.program, &self.arguments)
            .stdin_null()
            .stdout_file(to_stdout)
            .stderr_file(to_stderr)
            .env_remove("KUBECONFIG")
            .unchecked()
            .before_spawn(|command| {
                command.process_group(0);
                Ok(())
            });
        for (name, value) in &self.environment {
            expression = expression.env(name, value);
        }
        let begun = Instant::now();
        let handle = expression.start().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => CommandError::Missing {
                program: self.program.to_string_lossy().into_owned(),
                line: self.line(),
                install: self.install,
            },
            _ => self.failed(error),
        })?;
        let ended = AtomicBool::new(false);
        Ok(Running { handle, stdout, stderr, begun, ended, line: self.line(), within: self.within })
    }
}

/// A command that runs.
struct Running {
    handle: Handle,
    stdout: File,
    stderr: File,
    begun: Instant,
    /// Whether it was waited for, after which its process id may be another's.
    ended: AtomicBool,
    line: String,
    within: Duration,
}

impl Running {
    fn wait(&self) -> Result<Output, CommandError> {
        let failed = |cause| CommandError::Io { line: self.line.clone(), cause };
        let status = match self.handle.wait_deadline(self.begun + self.within).map_err(failed)? {
            Some(output) => Some(output.status),
            None => {
                self.kill();
                // What was killed with SIGKILL ends.
                self.handle.wait().map_err(failed)?;
                None
            }
        };
        self.ended.store(true, Ordering::Release);
        let took = self.begun.elapsed();
        let stderr = text(&self.stderr).map_err(failed)?;
        let line = self.line.clone();
        match status {
            None => Err(CommandError::Deadline { line, took, stderr }),
            Some(status) => {
                let stdout = text(&self.stdout).map_err(failed)?;
                if status.success() {
                    Ok(Output { stdout, stderr, took })
                } else {
                    Err(CommandError::Failed { line, took, status, stdout, stderr })
                }
            }
        }
    }

    /// Kills the command and what it started, as long as it has not ended.
    fn kill(&self) {
        if self.ended.load(Ordering::Acquire) {
            return;
        }
        for pid in self.handle.pids() {
            let group = Pid::from_raw(pid.cast_signed());
            if let Err(error) = killpg(group, Signal::SIGKILL) {
                tracing::debug!(line = self.line, %error, "killing the process group");
            }
        }
    }
}

/// Everything that was written so far. What lives on of a command writes on to the same file; nobody reads that.
fn text(mut file: &File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Kills a command that nobody waits for any more.
struct Guard(Arc<Running>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `sh` only ever stands for the program of somebody else here.
    fn sh(script: &str) -> Command {
        Command::new("sh", "install a shell").args(["-c", script])
    }

    /// Whether a process is there and not a zombie.
    fn alive(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
    }

    async fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < deadline, "not within 10 s");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn what_a_command_writes_is_returned() {
        let output = sh("echo out; echo err >&2; echo $GREETING").env("GREETING", "hello").run().await.unwrap();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\nhello\n", "err\n"));
    }

    #[tokio::test]
    async fn arguments_pass_through_no_shell() {
        let output = Command::new("printf", "").args(["%s|", "a b", "$HOME", "*", "'"]).run().await.unwrap();
        assert_eq!(output.stdout, "a b|$HOME|*|'|");
    }

    #[test]
    fn no_command_hears_of_a_kubeconfig_that_it_was_not_told() {
        // A test does not change its own environment, so it runs itself once more in another.
        if std::env::var_os("KUBECONFIG").is_some() {
            let output = sh("echo ${KUBECONFIG-none}").run_blocking().unwrap();
            assert_eq!(output.stdout, "none\n");
            return;
        }
        let this = "command::tests::no_command_hears_of_a_kubeconfig_that_it_was_not_told";
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let output = again.args([this, "--exact"]).env("KUBECONFIG", "/elsewhere").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the control: {output:?}");
    }

    #[tokio::test]
    async fn a_failure_tells_the_command_the_status_and_the_last_lines() {
        let error = sh("for i in $(seq 1 60); do echo line $i >&2; done; exit 3").run().await.unwrap_err();
        assert!(error.stderr().starts_with("line 1\n"));
        let message = error.to_string();
        assert!(message.starts_with("`sh -c 'for i in $(seq 1 60)"), "{message}");
        for part in ["exit status: 3", "the last 50 lines", "\n    line 11\n", "\n    line 60"] {
            assert!(message.contains(part), "{part:?} in {message}");
        }
        assert!(!message.contains("line 10\n"), "{message}");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named_with_how_to_get_it() {
        let error =
            Command::new("no-such-program", "fetch it from https://example.test").arg("x").run().await.unwrap_err();
        let expected =
            "no-such-program is not there, and `no-such-program x` needs it; fetch it from https://example.test";
        assert_eq!(error.to_string(), expected);
    }

    #[tokio::test]
    async fn a_grandchild_that_holds_the_output_blocks_nobody() {
        let begun = Instant::now();
        let output = sh("sleep 30 & echo $!").run().await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert!(alive(&output.stdout), "the control: it lives on");
        let _ = Command::new("kill", "").args(["-9", output.stdout.trim()]).run().await;
    }

    #[tokio::test]
    async fn at_the_deadline_the_grandchildren_go_too() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("echo waiting >&2; sleep 60 & echo $! >{}; wait", pid.display());
        let error = sh(&script).within(Duration::from_millis(500)).run().await.unwrap_err();
        assert!(matches!(error, CommandError::Deadline { .. }), "{error}");
        assert!(error.to_string().contains("was killed; it said:\n    waiting"), "{error}");
        let pid = std::fs::read_to_string(pid).unwrap();
        eventually(|| (!alive(&pid)).then_some(())).await;
    }

    #[tokio::test]
    async fn a_command_that_nobody_waits_for_is_killed_with_what_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let command = sh(&format!("sleep 60 & echo $! >{}; wait", path.display()));
        let task = tokio::spawn(async move { command.run().await });
        let pid = eventually(|| std::fs::read_to_string(&path).ok().filter(|pid| pid.ends_with('\n'))).await;
        assert!(alive(&pid), "the control");
        task.abort();
        eventually(|| (!alive(&pid)).then_some(())).await;
    }
}
