//! Entering fresh namespaces, before any thread exists.
//!
//! The process that is asked to become a cell stays outside as a shell of itself (stage 1): it unshares, writes the
//! id maps and starts the same program again, which is PID 1 inside (stage 2). PID 1 prepares the mounts, starts the
//! program once more (stage 3, the one whose `main` continues) and from then on only reaps orphans. When any of the three
//! ends, the kernel takes everything below it: each stage is killed with its parent, and PID 1 takes the namespace with it.

use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, Uid, getgid, getppid, getuid};

/// Says which stage a process is.
const STAGE: &str = "MESHGATE_NAMESPACES";

/// The uid of the mesh proxy, mapped too where root may do so, so that a proxy that cannot mark its sockets can be told apart.
const PROXY_UID: u32 = 2102;

/// Why namespaces could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// The kernel or a sandbox refuses user namespaces.
    #[error("user namespaces are refused ({errno}), and the embedded cluster lives in them. Remedy: {remedy}")]
    Refused {
        /// What the kernel said.
        errno: nix::Error,
        /// The command that mends it on this machine, as far as it can be told.
        remedy: String,
    },
    /// One step of preparing the namespaces failed.
    #[error("{step} failed inside fresh namespaces: {source}")]
    Step {
        /// Which step.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
}

fn step<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> EnterError {
    move |source| EnterError::Step { step, source: source.into() }
}

/// Puts the rest of this process's `main` into fresh namespaces. Call it first, before any thread exists.
///
/// Returns in stage 3, inside. In the stages before, it does not return: they exit as what they started exits. What
/// it starts has the same arguments, environment and standard streams.
///
/// # Errors
/// [`EnterError::Refused`] outside, with the remedy; a failed step inside.
pub fn enter() -> Result<(), EnterError> {
    match std::env::var(STAGE).as_deref() {
        Err(_) => outside(),
        Ok("init") => init(),
        Ok(_) => {
            set_pdeathsig(Signal::SIGKILL).map_err(step("tying this process to its parent"))?;
            Ok(())
        }
    }
}

/// Whether [`enter`] would succeed, tried in a process of its own.
///
/// # Errors
/// As [`enter`].
pub fn check() -> Result<(), EnterError> {
    let output = Command::new("unshare").args(["--user", "--map-root-user", "--net", "--mount", "true"]).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(_) => Err(EnterError::Refused { errno: nix::Error::EPERM, remedy: remedy() }),
        // Without util-linux there is no cheap way to try; entering tells.
        Err(_) => Ok(()),
    }
}

/// Ends this process when its standard input reaches its end: a parent that is gone takes the cell with it.
pub fn exit_when_stdin_closes() {
    std::thread::spawn(|| {
        let mut buffer = [0; 256];
        let mut stdin = io::stdin().lock();
        while !matches!(stdin.read(&mut buffer), Ok(0) | Err(_)) {}
        std::process::exit(0);
    });
}

/// Stage 1: outside.
fn outside() -> Result<(), EnterError> {
    let (uid, gid) = (getuid(), getgid());
    // Only a process outside the new namespace may map more than one id, so root lets a helper write the map.
    let helper = if uid.is_root() { Some(map_helper()?) } else { None };
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)
        .map_err(|errno| EnterError::Refused { errno, remedy: remedy() })?;
    let wide = match helper {
        Some(helper) => finish_helper(helper),
        None => false,
    };
    if !wide {
        write("/proc/self/setgroups", "deny")?;
        write("/proc/self/uid_map", &format!("0 {uid} 1"))?;
        write("/proc/self/gid_map", &format!("0 {gid} 1"))?;
    }
    let status = again("init")?;
    leave_as(status)
}

/// Stage 2: PID 1.
fn init() -> Result<(), EnterError> {
    set_pdeathsig(Signal::SIGKILL).map_err(step("tying PID 1 to its parent"))?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(step("making mounts private"))?;
    // A container runtime may hide parts of /proc, and then refuses a new one; the old one shows the wrong processes but serves.
    let _ = mount(Some("proc"), "/proc", Some("proc"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, none);
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=0755"))
        .map_err(step("mounting /run"))?;
    let program = std::env::current_exe().map_err(step("finding this program"))?;
    let child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(STAGE, "inside")
        .spawn()
        .map_err(step("starting the cell"))?;
    let child = Pid::from_raw(child.id().cast_signed());
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => std::process::exit(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => std::process::exit(128 + signal as i32),
            Err(nix::Error::ECHILD) => std::process::exit(1),
            _ => {}
        }
    }
}

/// Starts this program again as the next stage and waits for it.
fn again(stage: &str) -> Result<ExitStatus, EnterError> {
    Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .env(STAGE, stage)
        .status()
        .map_err(step("starting PID 1"))
}

fn leave_as(status: ExitStatus) -> ! {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    std::process::exit(code)
}

/// A shell that waits for this process to be in a user namespace of its own and then maps its ids.
fn map_helper() -> Result<std::process::Child, EnterError> {
    const SCRIPT: &str = r#"
        own=$(readlink /proc/self/ns/user)
        until [ "$(readlink /proc/$1/ns/user)" != "$own" ]; do
            [ -e /proc/$1 ] || exit 1
            sleep 0.002
        done
        printf '0 0 1\n%s %s 1\n' $2 $2 >/proc/$1/gid_map && printf '0 0 1\n%s %s 1\n' $2 $2 >/proc/$1/uid_map"#;
    Command::new("sh")
        .args(["-c", SCRIPT, "map-ids", &std::process::id().to_string(), &PROXY_UID.to_string()])
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .map_err(step("starting the helper that maps ids"))
}

/// Whether the helper mapped both ids.
fn finish_helper(mut helper: std::process::Child) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        match helper.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => std::thread::sleep(Duration::from_millis(1)),
            Err(_) => return false,
        }
    }
    let _ = helper.kill();
    let _ = helper.wait();
    false
}

fn write(path: &str, text: &str) -> Result<(), EnterError> {
    std::fs::write(path, text).map_err(step("mapping user ids"))
}

/// What is known to refuse user namespaces, looked up on this machine.
fn remedy() -> String {
    let reads = |path: &str, value: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    if reads("/proc/sys/user/max_user_namespaces", "0") {
        return "sudo sysctl -w user.max_user_namespaces=65536".into();
    }
    if reads("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return "sudo sysctl -w kernel.unprivileged_userns_clone=1".into();
    }
    if reads("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        return "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0".into();
    }
    if Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists() {
        return "start the container with --security-opt seccomp=unconfined (or --cap-add SYS_ADMIN)".into();
    }
    let who = if Uid::effective().is_root() { "root" } else { "an ordinary user" };
    format!("a sandbox around this process (parent {}) forbids unshare(2) to {who}; run it outside of it", getppid())
}
