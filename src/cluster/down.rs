//! `meshgate cluster down`.

use std::time::{Duration, Instant};

use anyhow::bail;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Name, keeper};

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
        println!("no cluster \"{}\" is running", args.name.name);
        return Ok(());
    };
    kill(Pid::from_raw(pid), Signal::SIGTERM)?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while keeper::running(&dir).is_some() || std::path::Path::new(&format!("/proc/{pid}")).exists() {
        if Instant::now() >= deadline {
            bail!("the keeper (process {pid}) did not end; end it by force: kill -9 {pid}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("cluster \"{}\" is down", args.name.name);
    Ok(())
}
