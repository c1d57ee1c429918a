//! A proxy that runs: what it uses of the machine, and what it says.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Context;
use meshgate_net::Netns;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world;

/// `USER_HZ`, in which `/proc` counts: the same on every architecture that Linux has left.
const TICKS_PER_SECOND: u64 = 100;
/// How long a process that was killed may take to end.
const ENDS: Duration = Duration::from_secs(2);
/// How much of its log is shown when a proxy fails.
const TAIL_LINES: usize = 12;

/// How much of its core a program has had.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// The time it could have run, but something else did.
    pub waited: Duration,
}

/// A program with the processes that it started. They end when this is dropped.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts a program in a namespace and on a core. What it writes goes to a file.
    pub fn start(mut command: Command, netns: &Netns, core: usize, log: &Path) -> anyhow::Result<Self> {
        let file = File::create(log).with_context(|| log.display().to_string())?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let name = command.get_program().to_string_lossy().into_owned();
        let child = netns.run(|| {
            world::pin(core)?;
            command.spawn()
        });
        Ok(Self { child: child.with_context(|| format!("cannot start {name}"))?, log: log.to_owned() })
    }

    /// How it ended, if it did, with the end of its log.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(format!("it ended ({status}); its log ends with:\n{}", self.log_tail()))
    }

    /// The last lines it wrote.
    pub fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// What all its processes have had of their core so far, and what they have not.
    pub fn usage(&self) -> Usage {
        let pids = self.pids();
        let ticks = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|stat| ticks(&stat));
        let total: u64 = pids.iter().filter_map(ticks).sum();
        let threads = pids.iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten());
        let waited = threads.flatten().filter_map(|thread| waited(&thread.path())).sum();
        Usage { cpu: Duration::from_millis(total * 1000 / TICKS_PER_SECOND), waited }
    }

    /// Resident memory of all its processes, in KiB. What they share is counted for each.
    pub fn resident_kib(&self) -> u64 {
        let resident =
            |pid| fs::read_to_string(format!("/proc/{pid}/status")).ok().and_then(|status| resident(&status));
        self.pids().into_iter().filter_map(resident).sum()
    }

    /// Itself and its descendants.
    fn pids(&self) -> Vec<u32> {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let parents: BTreeMap<u32, u32> = processes
            .filter_map(|entry| {
                let pid = entry.file_name().to_str()?.parse().ok()?;
                let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
                Some((pid, parent(&stat)?))
            })
            .collect();
        descendants(self.child.id(), &parents)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pids = self.pids();
        for pid in &pids {
            // It may have ended already.
            let _ = i32::try_from(*pid).map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL));
        }
        let _ = self.child.wait();
        // nginx' workers outlive their master by a moment, with its ports, which the next proxy is to have.
        let deadline = Instant::now() + ENDS;
        let live = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| lives(&stat));
        while pids.iter().any(live) && Instant::now() < deadline {
            sleep(Duration::from_millis(1));
        }
    }
}

/// How long the calling thread could have run so far, but something else did.
pub(crate) fn own_waited() -> Duration {
    waited(Path::new("/proc/thread-self")).unwrap_or_default()
}

/// How long a thread has waited for its core; `None` where the kernel does not count that.
fn waited(thread: &Path) -> Option<Duration> {
    let schedule = fs::read_to_string(thread.join("schedstat")).ok()?;
    // Time on the core, time waiting for it, number of slices; in nanoseconds.
    Some(Duration::from_nanos(schedule.split_ascii_whitespace().nth(1)?.parse().ok()?))
}

/// A process and its descendants.
fn descendants(root: u32, parents: &BTreeMap<u32, u32>) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, other)| **other == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

/// The fields of `/proc/PID/stat` after the name, which is in parentheses and may contain anything.
fn fields(stat: &str) -> Option<impl Iterator<Item = &str>> {
    Some(stat.rsplit_once(')')?.1.split_ascii_whitespace())
}

/// Whether a process still has what it opened, which one that waits for its parent has not.
fn lives(stat: &str) -> bool {
    fields(stat).and_then(|mut fields| fields.next()).is_some_and(|state| state != "Z")
}

/// The parent in a `/proc/PID/stat`.
fn parent(stat: &str) -> Option<u32> {
    fields(stat)?.nth(1)?.parse().ok()
}

/// User and system time in a `/proc/PID/stat`, in ticks.
fn ticks(stat: &str) -> Option<u64> {
    let mut times = fields(stat)?.skip(11).map(str::parse::<u64>);
    Some(times.next()?.ok()? + times.next()?.ok()?)
}

/// `VmRSS` in a `/proc/PID/status`.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "4711 (a ) name) S 42 4711 42 34816 4711 4194304 100 0 0 0 123 45 6 7 20 0 3 0 99999 1 2";

    #[test]
    fn proc_is_understood() {
        assert_eq!(parent(STAT), Some(42));
        assert_eq!(ticks(STAT), Some(168));
        assert!(lives(STAT) && !lives(&STAT.replace(") S ", ") Z ")));
        assert_eq!(resident("Name:\tx\nVmHWM:\t  9 kB\nVmRSS:\t    5120 kB\n"), Some(5120));
        assert_eq!(resident("Name:\tkthread\n"), None);
    }

    #[test]
    fn a_program_is_all_its_processes() {
        let parents = [(2, 1), (3, 2), (4, 2), (5, 4), (6, 1)].into();
        assert_eq!(descendants(2, &parents), [2, 3, 4, 5]);
    }
}
