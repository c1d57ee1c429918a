//! HAProxy itself: tested, started, reloaded, and told of its servers at run time.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Command;

use super::render::{FOLDER, MAIN, SERVERS_OF, SOCKET};
use super::slots::{SERVERS, Slots};
use super::snippets;
use crate::data_plane::{self, DataPlane, Files, Program};

/// The program's name, as the image brings it.
const HAPROXY: &str = "haproxy";

/// The link to the folder that HAProxy reads when it is told to.
const CURRENT: &str = "current";

/// How long HAProxy may take to start, or to start anew.
const START: Duration = Duration::from_secs(10);

/// HAProxy in a folder of its own.
pub(crate) struct Haproxy {
    folder: TempDir,
    running: Option<Program>,
    /// What it serves, without the servers.
    served: Files,
    slots: Slots,
    generation: usize,
    /// What was said of the snippets that are left out now, which is said once.
    said: BTreeSet<String>,
}

impl Haproxy {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("a folder for HAProxy")?;
        Ok(Self {
            folder,
            running: None,
            served: Files::new(),
            slots: Slots::default(),
            generation: 0,
            said: BTreeSet::new(),
        })
    }

    fn command(&self, configuration: &Path) -> Command {
        let mut command = Command::new(HAPROXY);
        command.arg("-f").arg(configuration).stdin(Stdio::null());
        command
    }

    /// Has HAProxy look at a configuration. Snippets that it does not take are left out, as the real one does
    /// (`CheckBackendConfigSnippetError` of `pkg/annotations/cfgSnippet.go`), and what is left is looked at again.
    async fn check(&mut self, name: &str, files: &Files, slots: &Slots) -> anyhow::Result<()> {
        let mut files = files.clone();
        if let Some(main) = files.get_mut(Path::new(MAIN)) {
            *main = with_servers(&main.replace(FOLDER, &self.folder.path().display().to_string()), slots);
        }
        let mut said = BTreeSet::new();
        while let Err(why) = self.look(name, &files).await? {
            let main = files.entry(MAIN.into()).or_default();
            let Some((rest, faults)) = snippets::without_faulty(main, &why) else { bail!("haproxy -c: {why}") };
            *main = rest;
            for fault in faults {
                if !self.said.contains(&fault) {
                    tracing::error!("unable to sync HAProxy's configuration: {fault}");
                }
                said.insert(fault);
            }
        }
        self.said = said;
        Ok(())
    }

    /// Puts a configuration into a folder of its own, so that one that is refused leaves nothing behind that HAProxy reads, and has
    /// HAProxy look at it: what it says where it does not take it.
    async fn look(&self, name: &str, files: &Files) -> anyhow::Result<Result<(), String>> {
        let folder = self.folder.path().join(name);
        // What a refused one left.
        if folder.exists() {
            std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        data_plane::write(&folder, files)?;
        let output = self.command(&folder.join(MAIN)).arg("-c").output().await.context("cannot start haproxy -c")?;
        if !output.status.success() {
            return Ok(Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        Ok(Ok(()))
    }

    /// Puts a configuration where HAProxy reads it when it starts anew.
    async fn put(&mut self, name: &str, files: &Files, slots: &Slots) -> anyhow::Result<()> {
        self.check(name, files, slots).await?;
        let next = self.folder.path().join("next");
        std::os::unix::fs::symlink(name, &next)
            .and_then(|()| std::fs::rename(&next, self.folder.path().join(CURRENT)))
            .context("the link to HAProxy's configuration")
    }

    /// Starts HAProxy, or has it start anew, and waits until the new one serves.
    async fn start(&mut self) -> anyhow::Result<()> {
        let former = match &self.running {
            Some(haproxy) => {
                let former = self.worker().await.ok();
                haproxy.signal(Signal::SIGUSR2)?;
                former
            }
            None => {
                // A master that stays in the foreground, and its worker.
                let mut command = self.command(&self.folder.path().join(CURRENT).join(MAIN));
                self.running = Some(Program::start(HAPROXY, command.args(["-W", "-db"]))?);
                None
            }
        };
        let started = async {
            loop {
                if let Ok(worker) = self.worker().await
                    && former.as_ref() != Some(&worker)
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(START, started).await.context("HAProxy does not come up")
    }

    /// The process that serves now.
    async fn worker(&self) -> anyhow::Result<String> {
        let info = self.tell("show info").await?;
        let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"));
        pid.map(|pid| pid.trim().to_owned()).context("no pid in HAProxy's info")
    }

    /// Changes servers at run time.
    async fn tell_all(&self, commands: &[String]) -> anyhow::Result<()> {
        for command in commands {
            let answer = self.tell(command).await?;
            // An address that is changed is told of; everything else that is said is a refusal.
            let expected = ["changed from", "no need to change"].iter().any(|part| answer.contains(part));
            if !answer.trim().is_empty() && !expected {
                bail!("{command}: {}", answer.trim());
            }
        }
        Ok(())
    }

    /// One line of the runtime API, and the answer.
    async fn tell(&self, line: &str) -> anyhow::Result<String> {
        let socket: PathBuf = self.folder.path().join(SOCKET);
        let mut stream = UnixStream::connect(&socket).await.with_context(|| socket.display().to_string())?;
        stream.write_all(format!("{line}\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}

/// The configuration with the servers of every backend.
fn with_servers(configuration: &str, slots: &Slots) -> String {
    let mut text = String::with_capacity(configuration.len() * 2);
    for line in configuration.lines() {
        match line.trim_start().strip_prefix(SERVERS_OF) {
            Some(backend) => text.extend(slots.lines(backend).map(|server| format!("  {server}\n"))),
            None => text.extend([line, "\n"]),
        }
    }
    text
}

impl DataPlane for Haproxy {
    async fn apply(&mut self, files: &Files) -> anyhow::Result<()> {
        let mut files = files.clone();
        let servers = files.remove(Path::new(SERVERS)).unwrap_or_default();
        let slots = self.slots.place(serde_json::from_str(&servers).context(SERVERS)?);
        let told = match self.slots.commands(&slots).filter(|_| files == self.served) {
            Some(commands) => {
                self.tell_all(&commands).await.inspect_err(|error| tracing::warn!("reloading: {error:#}")).is_ok()
            }
            None => false,
        };
        if !told {
            let generation = |number: usize| format!("generation-{number}");
            self.put(&generation(self.generation + 1), &files, &slots).await?;
            self.start().await?;
            let former = self.folder.path().join(generation(self.generation));
            self.generation += 1;
            if former.exists() {
                std::fs::remove_dir_all(&former).with_context(|| former.display().to_string())?;
            }
        }
        self.served = files;
        self.slots = slots;
        Ok(())
    }

    async fn test(&mut self, files: &Files) -> anyhow::Result<()> {
        let mut files = files.clone();
        let servers = files.remove(Path::new(SERVERS)).unwrap_or_default();
        let slots = self.slots.place(serde_json::from_str(&servers).context(SERVERS)?);
        self.check("tested", &files, &slots).await
    }

    async fn ended(&mut self) -> anyhow::Error {
        data_plane::ended(&mut self.running).await
    }

    async fn stop(&mut self) {
        // The worker serves what it has begun.
        data_plane::stop(&mut self.running, Signal::SIGUSR1).await;
    }
}
