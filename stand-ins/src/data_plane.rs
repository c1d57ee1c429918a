//! The data plane: a process, mostly a child, and the files that it reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::{Context, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// Contents by path, below the data plane's folder.
pub(crate) type Files = BTreeMap<PathBuf, String>;

/// A program that serves the configuration it is given.
pub(crate) trait DataPlane {
    /// Serves these files from now on, beginning with the first call.
    ///
    /// # Errors
    /// The data plane's own reason why it does not take them; it goes on with the former ones.
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
