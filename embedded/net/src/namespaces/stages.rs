//! The three stages of entering.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{self, Command};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getgid, getuid};

use super::error::{EnterError, remedy};
use super::{maps, mounts};

/// `argv[0]` of the first process, followed by the outer one's PID.
const FIRST: &str = "meshgate-first:";
/// `argv[0]` of the inside process, followed by whether `/proc` is new.
const INSIDE: &str = "meshgate-inside:";

/// Signals the outer and the first process pass on.
const PASSED_ON: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// The process runs in namespaces of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    /// Whether `/proc` shows this PID namespace. Otherwise it shows the outer one, and PIDs in it mean others.
    pub own_proc: bool,
}

/// Enters fresh user, network, mount and PID namespaces (see the module). Call it first in `main`: code before it runs
/// three times. Returns only in the inside process.
///
/// Inside, the process has all capabilities over its namespaces and none outside; its user is root inside and the
/// caller outside. stdin, stdout and stderr are the caller's.
///
/// # Errors
/// When a step is refused, in the process where it was.
pub fn enter() -> Result<Entered, EnterError> {
    let own_name = std::env::args_os().next().unwrap_or_default();
    let own_name = own_name.to_string_lossy();
    if own_name == maps::HELPER {
        process::exit(maps::help().map_or(1, |()| 0));
    }
    if let Some(outer) = own_name.strip_prefix(FIRST) {
        return first(outer).map(|never| match never {});
    }
    if let Some(own_proc) = own_name.strip_prefix(INSIDE) {
        // The outer processes wait for signals, which takes blocking them; that is inherited.
        waited_for().thread_unblock().map_err(|errno| EnterError::Signals(errno.into()))?;
        return Ok(Entered { own_proc: own_proc == "true" });
    }
    outer().map(|never| match never {})
}

fn outer() -> Result<Infallible, EnterError> {
    let (uid, gid) = (getuid(), getgid());
    let helper = if uid.is_root() { Some(maps::Helper::start()?) } else { None };
    let flags =
        CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    unshare(flags).map_err(|errno| match errno {
        Errno::EINVAL => EnterError::Threads,
        errno => EnterError::Refused { cause: errno.into(), remedy: remedy() },
    })?;
    maps::write(uid, gid, helper)?;
    start(&format!("{FIRST}{}", own_pid().map_err(EnterError::Start)?))
}

fn first(outer: &str) -> Result<Infallible, EnterError> {
    // Its parent is in another PID namespace, from where even PID 1 can be killed.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| EnterError::Signals(errno.into()))?;
    if outer_pid().as_deref() != Some(outer) {
        return Err(EnterError::Orphaned);
    }
    let own_proc = mounts::prepare()?;
    start(&format!("{INSIDE}{own_proc}"))
}

/// This process' PID as `/proc` knows it.
fn own_pid() -> io::Result<String> {
    Ok(fs::read_link("/proc/self")?.to_string_lossy().into_owned())
}

/// The parent's PID as `/proc` of the outer process knows it; getppid(2) cannot name it from here.
fn outer_pid() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")).map(|pid| pid.trim().to_owned())
}

fn waited_for() -> SigSet {
    PASSED_ON.into_iter().chain([Signal::SIGCHLD]).collect()
}

/// Starts the next stage, and ends with it.
fn start(name: &str) -> Result<Infallible, EnterError> {
    let signals = waited_for();
    signals.thread_block().map_err(|errno| EnterError::Signals(errno.into()))?;
    let child = Command::new("/proc/self/exe")
        .arg0(name)
        .args(std::env::args_os().skip(1))
        .spawn()
        .map_err(EnterError::Start)?;
    let child =
        i32::try_from(child.id()).map(Pid::from_raw).map_err(|error| EnterError::Start(io::Error::other(error)))?;
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = bury(child) {
                    process::exit(code);
                }
            }
            // It may have ended just now.
            Ok(signal) => drop(kill(child, signal)),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(EnterError::Signals(errno.into())),
        }
    }
}

/// Takes note of all ended children; the exit code if `child` is one of them, by the shell's convention for signals.
fn bury(child: Pid) -> Option<i32> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, exit)) if pid == child => code = Some(exit),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => code = Some(128 + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(_) => return code,
            Ok(_) => {}
        }
    }
}
