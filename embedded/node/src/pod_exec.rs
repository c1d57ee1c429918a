//! The role `pod-exec`: turns a fresh, single-threaded process into a process of a container.
//!
//! It exists because a mount namespace can only be entered by a process with one thread, and because a program that
//! may not use `unsafe` cannot run code between fork and exec. The node spawns `meshgate pod-exec FILE` inside the
//! pod's network namespace with FILE holding a [`Launch`]; this process builds or joins the container's root and
//! executes the program in its own place, keeping its process id.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{AccessFlags, Gid, Uid, access, dup2_stdin, getgid, getuid, setgid, setgroups, setuid};

use crate::launch::{Launch, Place};
use crate::rootfs::{self, RootError};

/// Exit code when the program could not be started, as container runtimes use it.
const CANNOT_START: u8 = 128;
/// Exit code of an executed command that does not exist, as shells use it.
const NOT_FOUND: u8 = 127;

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
enum PodExecError {
    /// No or more than one argument.
    #[error(
        "the role pod-exec takes one argument, the file that says what to run; it is started by the node, not by hand"
    )]
    Usage,
    /// The file cannot be read or parsed.
    #[error("cannot read what to run from {path:?}: {cause}")]
    Spec { path: PathBuf, cause: io::Error },
    /// The new root failed.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The namespaces of the running container cannot be entered.
    #[error("cannot enter the container's {namespace} namespace (process {pid}): {cause}; is it still running?")]
    Join { namespace: &'static str, pid: i32, cause: io::Error },
    /// `workingDir` does not exist.
    #[error("cannot enter the working directory {path:?}: {cause}; create it or correct `workingDir`")]
    WorkingDir { path: String, cause: io::Error },
    /// The user could not be changed.
    #[error("cannot become user {user:?}, group {group:?}: {cause}")]
    User { user: Option<u32>, group: Option<u32>, cause: io::Error },
    /// The program is not there (the sentence of container runtimes).
    #[error("exec: \"{program}\": executable file not found in $PATH")]
    NotFound { program: String },
    /// Nothing to run.
    #[error("nothing to run: neither the image nor the container names a command")]
    NoCommand,
    /// Any other refusal of the kernel.
    #[error("exec: \"{program}\": {cause}")]
    Exec { program: String, cause: io::Error },
}

/// Runs the role `pod-exec` with the arguments after the role's name. Returns only when the program could not be
/// started; the reason has then been told to the node.
///
/// Stdin is the way to tell: for a new container it is a pipe to the node which closes when the program starts.
pub fn pod_exec_main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let (Some(path), None) = (arguments.next(), arguments.next()) else {
        return fail(&PodExecError::Usage, None, CANNOT_START);
    };
    let launch = match read(Path::new(&path)) {
        Ok(launch) => launch,
        Err(error) => return fail(&error, None, CANNOT_START),
    };
    let report = match &launch.place {
        Place::Root(_) => take_report(),
        Place::Join { .. } => None,
    };
    let Err(error) = run(&launch);
    let code = match (&launch.place, &error) {
        (Place::Join { .. }, PodExecError::NotFound { .. }) => NOT_FOUND,
        _ => CANNOT_START,
    };
    fail(&error, report, code)
}

fn fail(error: &PodExecError, report: Option<File>, code: u8) -> ExitCode {
    // The node may be gone; then nobody is left to be told.
    let _ = match report {
        Some(mut pipe) => write!(pipe, "{error}"),
        None => writeln!(io::stderr(), "{error}"),
    };
    ExitCode::from(code)
}

fn read(path: &Path) -> Result<Launch, PodExecError> {
    let launch = fs::read(path).and_then(|text| Ok(serde_json::from_slice(&text)?));
    launch.map_err(|cause| PodExecError::Spec { path: path.to_owned(), cause })
}

/// Moves the pipe to the node away from stdin, to a descriptor that closes on exec.
fn take_report() -> Option<File> {
    let pipe = io::stdin().as_fd().try_clone_to_owned().ok()?;
    let null = File::open("/dev/null").ok()?;
    dup2_stdin(null).ok()?;
    Some(pipe.into())
}

fn run(launch: &Launch) -> Result<Infallible, PodExecError> {
    let mut argv = launch.argv.clone();
    match &launch.place {
        Place::Root(root) => rootfs::enter(root)?,
        Place::Join { pid, tty } => {
            join(*pid)?;
            if *tty {
                argv = with_terminal(argv);
            }
        }
    }
    let directory = launch.working_dir.as_deref().unwrap_or("/");
    std::env::set_current_dir(directory)
        .map_err(|cause| PodExecError::WorkingDir { path: directory.to_owned(), cause })?;
    become_user(launch.user, launch.group)?;
    // After the change of user, which clears it. The node's death is the container's.
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);

    let (name, arguments) = argv.split_first().ok_or(PodExecError::NoCommand)?;
    let search = launch.env.iter().rev().find(|(key, _)| key == "PATH").map_or("", |(_, value)| value);
    let program = find(name, search).ok_or_else(|| PodExecError::NotFound { program: name.clone() })?;
    let cause = Command::new(program)
        .arg0(name)
        .args(arguments)
        .env_clear()
        .envs(launch.env.iter().map(|(k, v)| (k, v)))
        .exec();
    Err(PodExecError::Exec { program: name.clone(), cause })
}

fn join(pid: i32) -> Result<(), PodExecError> {
    let open = |namespace| {
        File::open(format!("/proc/{pid}/ns/{namespace}")).map_err(|cause| PodExecError::Join { namespace, pid, cause })
    };
    // Opened first: after entering the mount namespace /proc may be another one.
    let (uts, mnt) = (open("uts")?, open("mnt")?);
    for (namespace, file, flag) in [("uts", uts, CloneFlags::CLONE_NEWUTS), ("mnt", mnt, CloneFlags::CLONE_NEWNS)] {
        setns(file, flag).map_err(|cause| PodExecError::Join { namespace, pid, cause: cause.into() })?;
    }
    Ok(())
}

/// A terminal without `unsafe`: util-linux' `script` makes one. Without it the command runs on pipes.
fn with_terminal(argv: Vec<String>) -> Vec<String> {
    if !Path::new("/usr/bin/script").exists() {
        return argv;
    }
    let quoted: Vec<String> = argv.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    ["/usr/bin/script", "-q", "-e", "-f", "-c", &format!("exec {}", quoted.join(" ")), "/dev/null"]
        .map(str::to_owned)
        .to_vec()
}

/// Changes to the wanted user and group as far as the user namespace maps them; the node has noted the others.
fn become_user(user: Option<u32>, group: Option<u32>) -> Result<(), PodExecError> {
    let failed = |cause: nix::Error| PodExecError::User { user, group, cause: cause.into() };
    if let Some(gid) = group.filter(|gid| *gid != getgid().as_raw() && mapped("/proc/self/gid_map", *gid)) {
        // Refused where setgroups is denied (a rootless user namespace); there are no groups to drop then.
        let _ = setgroups(&[Gid::from_raw(gid)]);
        setgid(Gid::from_raw(gid)).map_err(failed)?;
    }
    if let Some(uid) = user.filter(|uid| *uid != getuid().as_raw() && mapped("/proc/self/uid_map", *uid)) {
        setuid(Uid::from_raw(uid)).map_err(failed)?;
    }
    Ok(())
}

/// Whether an id exists in this user namespace; `map` is `/proc/self/uid_map` or `gid_map`.
pub(crate) fn mapped(map: &str, id: u32) -> bool {
    fs::read_to_string(map).is_ok_and(|text| in_map(&text, id))
}

/// Lines of `first-inside first-outside count` (user_namespaces(7)).
fn in_map(text: &str, id: u32) -> bool {
    text.lines().any(|line| {
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        matches!(numbers[..], [first, _, count] if (first..first + count).contains(&id.into()))
    })
}

/// A program by name in a search path, or by path.
fn find(name: &str, search: &str) -> Option<PathBuf> {
    let runs = |path: &Path| {
        path.is_file()
            && CString::new(path.as_os_str().as_encoded_bytes())
                .is_ok_and(|path| access(path.as_c_str(), AccessFlags::X_OK).is_ok())
    };
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| path.exists());
    }
    search.split(':').map(|directory| Path::new(directory).join(name)).find(|path| runs(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_in_any_range_of_the_map() {
        let map = "         0       1000          1\n      2102       2102          1\n";
        assert!(in_map(map, 0));
        assert!(in_map(map, 2102));
        assert!(!in_map(map, 1));
        assert!(in_map("0 0 4294967295", 65532));
    }

    #[test]
    fn programs_are_found_in_the_search_path_only() {
        assert!(find("sh", "/nowhere:/bin").is_some());
        assert!(find("sh", "/nowhere").is_none());
        assert!(find("/bin/sh", "").is_some());
        assert!(find("/bin/absent", "/bin").is_none());
    }
}
