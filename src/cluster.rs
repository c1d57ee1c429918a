//! `meshgate cluster`: an embedded cluster for a person.
//!
//! Three processes: `up` waits until the cluster is ready and leaves; the *keeper* stays on the host, owns the loopback listeners
//! and relays their connections to Unix sockets; the cluster itself is inside its namespaces and listens on those.
//! `down` ends the keeper, and the kernel ends everything inside with it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;
use meshgate_clusters::lease::state_folder;

use crate::{fail, output};

mod down;
pub mod inside;
pub mod keeper;
mod up;

/// Which step.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a cluster and leave it running
    Up(up::Args),
    /// End a cluster and everything in it
    Down(down::Args),
    /// Print the path of a cluster's kubeconfig
    Kubeconfig(Name),
}

/// Which cluster.
#[derive(clap::Args, Clone)]
pub struct Name {
    /// The cluster's name
    #[arg(long, default_value = "default")]
    name: String,
}

impl Name {
    /// The folder of the cluster: kubeconfig, process id, log and sockets. Only its owner may look into it.
    fn dir(&self) -> anyhow::Result<PathBuf> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || !self.name.chars().all(plain) {
            bail!("--name {:?}: expected lower-case letters, digits and '-'", self.name);
        }
        Ok(state_folder()?.join(&self.name))
    }
}

/// Does the step.
pub fn main(args: Args) -> ExitCode {
    let result = match args.command {
        Command::Up(args) => up::execute(&args),
        Command::Down(args) => down::execute(&args),
        Command::Kubeconfig(name) => name.dir().and_then(|dir| {
            let path = dir.join("kubeconfig");
            if !path.exists() {
                bail!("there is no cluster \"{}\"; start one: meshgate cluster up --name {}", name.name, name.name);
            }
            output::print(&format!("{}\n", path.display()))
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(2, &error),
    }
}
