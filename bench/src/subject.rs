//! What is measured: nothing at all, the bundled proxy and what speaks its language, and proxies that are configured by files.

mod mesh;
mod peers;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use meshgate_images::Program;
use serde::{Deserialize, Serialize};

use crate::{
    authority::Authority,
    load::Target,
    process::Running,
    services::Service,
    world::{Cores, OUTBOUND_HTTP2_PORT, OUTBOUND_PORT, World},
};

pub(crate) use mesh::{Role, inbound};

/// How long a proxy may take to serve.
const START: Duration = Duration::from_secs(10);

/// Something to measure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Subject {
    /// What it is called in tables and by `--only`.
    pub name: String,
    pub kind: Kind,
}

/// How it is run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// Nothing between client and backend.
    Direct,
    /// A proxy that takes Linkerd's environment.
    Mesh {
        /// The program, with the arguments that make it the proxy.
        command: Vec<PathBuf>,
        /// Whether each request says where it goes.
        ingress: bool,
    },
    /// A proxy with a configuration file.
    Peer { peer: Peer, program: Result<Program, String> },
}

/// A proxy that other meshes and ingress controllers are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Peer {
    Envoy,
    Nginx,
    Haproxy,
}

impl Peer {
    pub const ALL: [Self; 3] = [Self::Envoy, Self::Nginx, Self::Haproxy];

    pub fn name(self) -> &'static str {
        match self {
            Self::Envoy => "envoy",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }
}

impl Subject {
    /// Where its clients send requests for a Service.
    pub fn target(&self, service: &Service) -> Target {
        match &self.kind {
            Kind::Direct => Target::endpoint(service),
            Kind::Mesh { ingress: true, .. } => Target::service(service).overriding(),
            Kind::Mesh { .. } | Kind::Peer { .. } => Target::service(service),
        }
    }

    /// Whether it is told of routes, endpoints and identities, so that their cost can be measured.
    pub fn scales(&self) -> bool {
        matches!(self.kind, Kind::Mesh { ingress: false, .. })
    }

    /// Where it wants HTTP/2.
    pub fn http2_port(&self) -> u16 {
        match self.kind {
            Kind::Peer { peer: Peer::Haproxy, .. } => OUTBOUND_HTTP2_PORT,
            _ => OUTBOUND_PORT,
        }
    }

    /// Whether what it serves is written in its configuration, so that many endpoints take another one.
    pub fn is_configured(&self) -> bool {
        matches!(self.kind, Kind::Peer { .. })
    }

    /// Starts it beside the client; `None` if there is nothing to start. `folder` is its own. One with a configuration knows these
    /// Services besides the plain ones.
    pub fn start(
        &self,
        world: &World,
        cores: Cores,
        authority: &Authority,
        services: &[Service],
        folder: &Path,
    ) -> anyhow::Result<Option<Running>> {
        let mut command = match &self.kind {
            Kind::Direct => return Ok(None),
            Kind::Mesh { command, ingress } => {
                mesh::command(command, Role::Outbound { ingress: *ingress }, authority, folder)?
            }
            Kind::Peer { peer, program } => {
                let program = program.as_ref().map_err(|problem| anyhow!("{problem}"))?;
                peers::command(*peer, program, services, folder)?
            }
        };
        command.current_dir(folder);
        Ok(Some(Running::start(command, &world.sidecar, cores.proxy, &folder.join("log"))?))
    }
}

/// Waits until a proxy answers the way it will be asked.
pub(crate) async fn until_it_serves(running: &mut Running, target: &Target) -> anyhow::Result<()> {
    let deadline = Instant::now() + START;
    loop {
        let asked = tokio::time::timeout(Duration::from_secs(2), target.ask()).await;
        let problem = match asked {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer within 2 s".to_owned(),
        };
        if let Some(end) = running.ended() {
            bail!(end);
        }
        if Instant::now() >= deadline {
            bail!("it does not serve: {problem}; its log ends with:\n{}", running.log_tail());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An empty folder.
pub(crate) fn fresh(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

/// A program with arguments before its own.
fn program(command: &[PathBuf]) -> anyhow::Result<Command> {
    let (program, arguments) = command.split_first().context("a proxy without a program")?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}
