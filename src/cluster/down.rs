//! `meshgate cluster down`.

use std::time::{Duration, Instant};

use anyhow::bail;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Name, keeper};
use crate::output;

/// Which cluster.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    name: Name,
}

/// Ends the keeper and waits until it is gone. A cluster that does not run is no error: what is asked for is so.
pub fn execute(args: &Args) -> anyhow::Result<()> {
    let dir = args.name.dir()?;
    let Some(pid) = keeper::running(&dir) else {
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        return output::print(&format!("no cluster \"{}\" is running\n", args.name.name));
    };
    kill(Pid::from_raw(pid), Signal::SIGTERM)?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while keeper::is_keeper(pid) {
        if Instant::now() >= deadline {
            bail!("the keeper (process {pid}) did not end; end it by force: kill -9 {pid}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    output::print(&format!("cluster \"{}\" is down\n", args.name.name))
}
