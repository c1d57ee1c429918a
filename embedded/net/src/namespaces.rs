//! Entering namespaces of one's own, without privileges and without anything left behind.
//!
//! [`enter`] is called first in `main`, and turns one process into three, each the same program with the same
//! arguments. Which of the three it is, a process knows by its `argv[0]`, so nothing leaks to its own children:
//!
//! 1. the *outer* one, which was started: makes the namespaces, starts the next one in them, passes signals on, waits,
//!    and ends with its exit code. It stays outside, and its PID is what the caller knows.
//! 2. the *first* one (PID 1 of the new PID namespace): dies with the outer one, mounts `/proc` and `/run`, starts the
//!    next one, buries orphans, and ends with its exit code; with it the kernel ends everything in the namespace.
//! 3. the *inside* one, in which `enter` returns. It sees an ordinary world: its children are its own to wait for.
//!
//! A program may not fork without `unsafe`, so the stages are fresh executions of `/proc/self/exe`. And a process with
//! several threads may not make a user namespace, hence "first in `main`".

mod check;
mod error;
mod maps;
mod mounts;
mod stages;

use std::io::{self, Read};
use std::thread;

pub use check::check;
pub use error::EnterError;
pub use stages::{Entered, enter};

/// Ends the process as soon as its stdin does, from a thread. A parent that holds the other end of a pipe takes the
/// process with it, however the parent dies. Not for a process whose stdin is `/dev/null`: it would end at once.
///
/// What arrives on stdin is thrown away.
///
/// # Panics
/// When no thread can be started.
pub fn exit_when_stdin_closes() {
    let watch = || {
        let mut buffer = [0; 256];
        loop {
            match io::stdin().lock().read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        tracing::debug!("stdin was closed, ending");
        std::process::exit(0);
    };
    thread::spawn(watch);
}
