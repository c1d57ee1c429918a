//! The data plane: a process, mostly a child, and the files that it reads.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::{Context, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::objects::Kind;

/// Contents by path, below the data plane's folder.
pub(crate) type Files = BTreeMap<PathBuf, String>;

/// A program that serves the configuration it is given.
pub(crate) trait DataPlane {
    /// Serves these files from now on, beginning with the first call.
    ///
    /// # Errors
    /// The data plane's own reason why it does not take them; it goes on with the former ones. One that knows whose fault it is says so in
    /// a [`Refusal`].
    async fn apply(&mut self, files: &Files) -> anyhow::Result<()>;

    /// Whether it would serve these files, without serving them. One that takes what it can of a configuration and leaves out the rest has
    /// nothing to say here.
    ///
    /// # Errors
    /// The data plane's own reason why it would not.
    async fn test(&mut self, _files: &Files) -> anyhow::Result<()> {
        Ok(())
    }

    /// Waits until the program ends by itself. Never, before the first files were applied, or where its end is not this process's.
    async fn ended(&mut self) -> anyhow::Error;

    /// Ends it, what is in flight first.
    async fn stop(&mut self);
}

/// Objects for which a data plane refuses a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) Vec<RefusedObject>);

/// One of them, and what is said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RefusedObject {
    pub(crate) kind: Kind,
    /// `""` of one that is in no namespace.
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The reason of the event about it.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<String> = self.0.iter().map(RefusedObject::to_string).collect();
        f.write_str(&each.join("; "))
    }
}

impl fmt::Display for RefusedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name, message, .. } = self;
        write!(f, "{} {namespace}/{name}: {message}", kind.kind)
    }
}

impl std::error::Error for Refusal {}

/// The search for the first of so many things that a test fails with, after those before it. It says with how many of them to test next, and
/// is told how that went.
#[derive(Debug)]
pub(crate) struct Search {
    count: usize,
    passes: Option<usize>,
    fails: Option<(usize, anyhow::Error)>,
    over: bool,
}

impl Search {
    pub(crate) fn among(count: usize) -> Self {
        Self { count, passes: None, fails: None, over: false }
    }

    pub(crate) fn next(&self) -> Option<usize> {
        match (&self.fails, self.passes) {
            _ if self.over => None,
            (None, _) => Some(self.count),
            (Some(_), None) => Some(0),
            (Some((fails, _)), Some(passes)) => (fails - passes > 1).then(|| passes.midpoint(*fails)),
        }
    }

    pub(crate) fn told(&mut self, count: usize, result: anyhow::Result<()>) {
        match result {
            // With all of them.
            Ok(()) if self.fails.is_none() => self.over = true,
            Ok(()) => self.passes = Some(count),
            Err(error) if count == 0 => {
                tracing::error!("it is refused without any of them as well: {error:#}");
                self.over = true;
            }
            Err(error) => self.fails = Some((count, error)),
        }
    }

    /// Which it is, and how the test fails. None where it passes with all of them, or fails without any.
    pub(crate) fn found(self) -> Option<(usize, anyhow::Error)> {
        self.passes.zip(self.fails).map(|(first, (_, error))| (first, error))
    }
}

/// Writes files below a folder.
pub(crate) fn write(folder: &Path, files: &Files) -> anyhow::Result<()> {
    for (path, content) in files {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        // A reader never sees half of a file.
        let new = path.with_extension("new");
        std::fs::write(&new, content)
            .and_then(|()| std::fs::rename(&new, &path))
            .with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// What [`DataPlane::ended`] is of a program that may not have been started yet.
pub(crate) async fn ended(running: &mut Option<Program>) -> anyhow::Error {
    match running {
        Some(program) => program.ended().await,
        None => std::future::pending().await,
    }
}

/// What [`DataPlane::stop`] is of it.
pub(crate) async fn stop(running: &mut Option<Program>, signal: Signal) {
    if let Some(program) = running {
        program.stop(signal).await;
    }
}

/// A program that runs until it is told to end. It ends with this process.
pub(crate) struct Program {
    name: &'static str,
    child: Child,
}

impl Program {
    pub(crate) fn start(name: &'static str, command: &mut Command) -> anyhow::Result<Self> {
        let child = command.kill_on_drop(true).spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child })
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self.child.id().ok_or_else(|| anyhow!("{} has ended", self.name))?;
        kill(Pid::from_raw(i32::try_from(id)?), signal)
            .with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Waits until it ends. May be cancelled and called again.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        let how =
            self.child.wait().await.map_or_else(|error| error.to_string(), |status: ExitStatus| status.to_string());
        anyhow!("{} ended by itself: {how}", self.name)
    }

    /// Asks it to end and waits.
    pub(crate) async fn stop(&mut self, signal: Signal) {
        if self.signal(signal).is_ok() {
            // It has ended either way.
            let _ = self.child.wait().await;
        }
    }
}
