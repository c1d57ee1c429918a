//! The role `inside`: everything that happens in the namespaces.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use meshgate_images::Tool;
use meshgate_net::{Netns, namespaces};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::{
    authority::Authority,
    backend::Backend,
    control_plane,
    measure::{Stage, Times, Visit},
    services::BACKEND_PORT,
    subject::Subject,
    world::{self, Cores, World},
};

/// What is to be measured, as JSON.
#[derive(clap::Args)]
pub(crate) struct Args {
    spec: String,
}

/// What is to be measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub subjects: Vec<Subject>,
    pub rounds: usize,
    pub times: Times,
    pub nft: Tool,
    /// The bundled proxy, to stand before the backend.
    pub inbound: Vec<PathBuf>,
    /// Where the rounds are written to, as JSON.
    pub results: PathBuf,
}

/// Enters the namespaces, goes round, and writes what was found out.
pub(crate) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    if !namespaces::enter()?.own_proc {
        bail!("/proc shows other processes than this namespace's, so CPU time and memory cannot be measured here");
    }
    namespaces::exit_when_stdin_closes();
    let spec: Spec = serde_json::from_str(&args.spec).context("the spec is not understood")?;
    allow_many_files()?;
    let cores = Cores::choose();
    if !cores.are_two() {
        eprintln!("there is only one core: proxy and load share it, and the numbers say little");
    }
    world::pin(cores.load).context("cannot choose a core")?;
    let world = World::make(spec.nft.clone())?;
    let listeners = Listeners::open(&world).context("cannot listen")?;
    // Sockets belong to the namespace of the thread that makes them: this one's are the client's.
    let rounds = world.sidecar.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(go_round(&spec, &world, cores, listeners)))
    })??;
    let json = serde_json::to_vec(&rounds).context("the results")?;
    std::fs::write(&spec.results, json).with_context(|| spec.results.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// The sockets of what clients and proxies talk to.
struct Listeners {
    backend: std::net::TcpListener,
    control_planes: [std::net::TcpListener; 2],
}

impl Listeners {
    fn open(world: &World) -> io::Result<Self> {
        let listen = |netns: &Netns, address: &str| {
            netns.run(|| {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                // With the backlog that the standard library does not let one choose.
                nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(4096)?)?;
                Ok(listener)
            })
        };
        Ok(Self {
            backend: listen(&world.node, &format!("0.0.0.0:{BACKEND_PORT}"))?,
            control_planes: [
                listen(&world.sidecar, control_plane::ADDRESS)?,
                listen(&world.node, control_plane::ADDRESS)?,
            ],
        })
    }
}

async fn go_round(spec: &Spec, world: &World, cores: Cores, listeners: Listeners) -> anyhow::Result<Vec<Vec<Visit>>> {
    let authority = Authority::new()?;
    for listener in listeners.control_planes {
        control_plane::start(TcpListener::from_std(listener)?, &authority);
    }
    let backend = Backend::start(TcpListener::from_std(listeners.backend)?);
    let folder = tempfile::tempdir().context("a folder for configurations and logs")?;
    let stage = Stage {
        world,
        cores,
        authority: &authority,
        backend: &backend,
        folder: folder.path(),
        times: spec.times,
        inbound: &spec.inbound,
    };
    let mut rounds = Vec::new();
    for round in 0..spec.rounds {
        let mut visits = Vec::new();
        // Each round begins with another subject.
        let start = round % spec.subjects.len().max(1);
        let (first, last) = spec.subjects.split_at(start);
        for subject in last.iter().chain(first) {
            eprintln!("round {} of {}: {}", round + 1, spec.rounds, subject.name);
            let visit = stage.visit(subject).await;
            if let Some(problem) = &visit.problem {
                eprintln!("  {problem}");
            }
            visits.push(visit);
        }
        rounds.push(visits);
    }
    Ok(rounds)
}

/// Proxies with a thousand connections have two thousand files.
fn allow_many_files() -> anyhow::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("the limit of open files")
}

/// The file beside the others that the rounds are handed over in.
pub(crate) fn rounds_file(out: &Path) -> PathBuf {
    out.join(".rounds.json")
}
