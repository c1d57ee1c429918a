//! Traefik 3 itself: started, handed a file, asked whether it has taken it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::Instant;

use super::render::{DYNAMIC, HTTP, HTTPS, VERSION};
use crate::data_plane::{self, DataPlane, Files, Program};
use crate::flags::Flags;

/// The program's name, as the image brings it.
const TRAEFIK: &str = "traefik";

/// Its API, on the pod's loopback.
const API: u16 = 9180;

/// How long it may take to start, or to take a file.
const TAKES: Duration = Duration::from_secs(10);

/// Between the first two questions whether it has; each further pause is twice as long, up to the longest.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(160);

/// A header that a client's `Connection` names is removed by 1.7 when it forwards, by 3 when a request comes in, unless it is listed:
/// then a header that a frontend sets goes, too. There is no list of all; this one is what the mesh follows.
const REMOVED_LATE: &str = "l5d-dst-override";

/// The ports of `--entrypoints='Name:http Address::80'`, and that of `traefik`, which probes ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryPoints {
    http: u16,
    https: u16,
    pub(crate) health: u16,
}

impl EntryPoints {
    pub(crate) fn read(flags: &Flags) -> anyhow::Result<Self> {
        let mut points = Self { http: 80, https: 443, health: 8080 };
        for text in flags.all("entrypoints").chain(flags.all("entryPoints")) {
            let word = |key: &str| text.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix(':'));
            let address = word("Address").unwrap_or_default();
            let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
            let port = port.with_context(|| format!("--entrypoints={text}: expected Address::PORT"))?;
            match word("Name") {
                Some(HTTP) => points.http = port,
                Some(HTTPS) => points.https = port,
                Some("traefik") => points.health = port,
                _ => bail!("--entrypoints={text}: expected the Name http, https or traefik"),
            }
        }
        Ok(points)
    }
}

/// Traefik in a folder of its own.
pub(crate) struct Traefik {
    folder: TempDir,
    entry_points: EntryPoints,
    running: Option<Program>,
    api: Client<HttpConnector, Empty<&'static [u8]>>,
}

impl Traefik {
    pub(crate) fn new(entry_points: EntryPoints) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("a folder for Traefik")?;
        let api = Client::builder(TokioExecutor::new()).build_http();
        Ok(Self { folder, entry_points, running: None, api })
    }

    fn command(&self) -> Command {
        let EntryPoints { http, https, .. } = self.entry_points;
        let mut command = Command::new(TRAEFIK);
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command.args(["--global.checknewversion=false", "--global.sendanonymoususage=false", "--accesslog=true"]);
        command.args(["--log.level=WARN", "--api.insecure=true", "--providers.providersthrottleduration=0"]);
        command.arg(format!("--providers.file.filename={DYNAMIC}"));
        command.arg(format!("--entrypoints.traefik.address=127.0.0.1:{API}"));
        for (name, port) in [(HTTP, http), (HTTPS, https)] {
            command.arg(format!("--entrypoints.{name}.address=:{port}"));
            command.arg(format!("--entrypoints.{name}.forwardedheaders.connection={REMOVED_LATE}"));
        }
        command
    }

    /// Whether it serves a version.
    async fn serves(&self, version: &str) -> anyhow::Result<bool> {
        let uri = format!("http://127.0.0.1:{API}/api/http/services/{version}@file").parse()?;
        Ok(self.api.get(uri).await.context("Traefik's API")?.status().is_success())
    }
}

impl DataPlane for Traefik {
    async fn apply(&mut self, files: &Files) -> anyhow::Result<()> {
        data_plane::write(self.folder.path(), files)?;
        if self.running.is_none() {
            self.running = Some(Program::start(TRAEFIK, &mut self.command())?);
        }
        let version = files.get(Path::new(VERSION)).map(String::as_str).unwrap_or_default();
        let deadline = Instant::now() + TAKES;
        let mut pause = PAUSE;
        // While it starts nobody answers.
        while !self.serves(version).await.unwrap_or_default() {
            if Instant::now() >= deadline {
                bail!("Traefik has not taken {DYNAMIC} within {TAKES:?}, and says why in its log");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Ok(())
    }

    async fn ended(&mut self) -> anyhow::Error {
        data_plane::ended(&mut self.running).await
    }

    async fn stop(&mut self) {
        data_plane::stop(&mut self.running, Signal::SIGTERM).await;
    }
}
