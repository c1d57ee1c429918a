//! Which users exist inside a user namespace.
//!
//! An ordinary user may map one: itself, as root inside. Root may map more, and maps the mesh proxy's as well, so that
//! rules can tell a proxy by its user. That takes a helper: with the namespace a process gives up its rights outside,
//! so one that stays outside has to write the map.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, parent_id};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::unistd::{Gid, Uid};

use super::error::{EnterError, remedy};

/// `argv[0]` of the helper.
pub(super) const HELPER: &str = "meshgate-maps";
/// The user Linkerd's proxy runs as.
const PROXY_USER: u32 = 2102;

/// Maps the caller as root inside. `helper` is there when the caller is root; if it fails, e.g. because this root lives
/// in a namespace without the proxy's user, the simple map is used.
pub(super) fn write(uid: Uid, gid: Gid, helper: Option<Helper>) -> Result<(), EnterError> {
    if helper.is_some_and(Helper::write) {
        return Ok(());
    }
    // Since Linux 3.19 the price of mapping a group without rights: no other groups can be dropped.
    file("/proc/self/setgroups", "deny")?;
    file("/proc/self/uid_map", &format!("0 {uid} 1"))?;
    file("/proc/self/gid_map", &format!("0 {gid} 1"))
}

fn file(path: &str, content: &str) -> Result<(), EnterError> {
    fs::write(path, content).map_err(|cause| EnterError::Map { file: PathBuf::from(path), cause, remedy: remedy() })
}

/// A process that stays outside and writes the maps.
pub(super) struct Helper {
    process: Child,
}

impl Helper {
    /// Starts it, before the namespace is made.
    pub(super) fn start() -> Result<Self, EnterError> {
        let process = Command::new("/proc/self/exe")
            .arg0(HELPER)
            .args(std::env::args_os().skip(1))
            .stdin(Stdio::piped())
            .spawn()
            .map_err(EnterError::Start)?;
        Ok(Self { process })
    }

    /// Lets it write; says whether it could.
    fn write(mut self) -> bool {
        let told = self.process.stdin.take().is_some_and(|mut pipe| pipe.write_all(b"!").is_ok());
        // The pipe is closed by now, so the process ends in any case.
        told && self.process.wait().is_ok_and(|status| status.success())
    }
}

/// The helper's work: waits for the namespace of its parent, and writes its maps.
pub(super) fn help() -> io::Result<()> {
    let mut word = String::new();
    io::stdin().read_to_string(&mut word)?;
    if word.is_empty() {
        return Err(io::Error::other("the namespace was not made"));
    }
    let parent = parent_id();
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{parent}/{map}"), format!("0 0 1\n{PROXY_USER} {PROXY_USER} 1\n"))?;
    }
    Ok(())
}
