//! A network namespace held by a descriptor: no name, no bind mount, nothing to clean up.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace. It goes when the last descriptor and the last process in it go.
#[derive(Debug)]
pub struct Netns(OwnedFd);

impl Netns {
    /// A fresh one.
    ///
    /// # Errors
    /// What the kernel says to `unshare(CLONE_NEWNET)`.
    pub fn create() -> io::Result<Self> {
        in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(Self(File::open("/proc/thread-self/ns/net")?.into()))
        })
    }

    /// The one this thread is in.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub fn current() -> io::Result<Self> {
        Ok(Self(File::open("/proc/thread-self/ns/net")?.into()))
    }

    /// Runs a closure inside, in a thread of its own: a thread that entered a namespace is not used for anything else.
    ///
    /// # Errors
    /// The closure's own, or what the kernel says to `setns`.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        in_thread(|| {
            setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET)?;
            inside()
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Runs a closure in a fresh thread, which may change its namespaces because it ends with the closure.
pub(crate) fn in_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, work)?
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread inside the namespace panicked")))
    })
}
