//! Starting processes: one thread that lives as long as the node spawns them all.
//!
//! Two reasons for the thread. A child's parent-death signal follows the *thread* that made it (prctl(2)), so the
//! thread's end, by the node's drop or by `kill -9`, is the end of every container. And a thread may change its
//! network namespace on its own, so that children are born in the pod's.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, mpsc};
use std::thread;

use meshgate_net::Netns;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// A process group that dies with this handle, unless it is let go.
pub(crate) struct Group(Option<Pid>);

impl Group {
    /// The group that `child` leads. `None` when it has ended and been seen already.
    pub(crate) fn of(child: &Child) -> Option<Self> {
        let id = i32::try_from(child.id()?).ok()?;
        Some(Self(Some(Pid::from_raw(id))))
    }

    /// Its leader; `None` once it was let go.
    pub(crate) fn leader(&self) -> Option<Pid> {
        self.0
    }

    /// Sends a signal to the leader alone.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(leader) = self.0 {
            // Gone already is as good.
            let _ = kill(leader, signal);
        }
    }

    /// Ends every process of the group.
    pub(crate) fn kill(&self) {
        if let Some(leader) = self.0 {
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }

    /// Leaves what is left of the group alone from now on.
    pub(crate) fn let_go(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Job {
    command: Command,
    netns: Arc<Netns>,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// Spawns processes in network namespaces. All of them die when it is dropped.
pub(crate) struct Spawner {
    jobs: mpsc::Sender<Job>,
}

impl Spawner {
    /// Starts the thread; children are driven by the current tokio runtime.
    pub(crate) fn start() -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let runtime = Handle::current();
        thread::Builder::new().name("meshgate-spawner".into()).spawn(move || {
            let _guard = runtime.enter();
            for Job { mut command, netns, reply } in queue {
                let child = setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)
                    .map_err(io::Error::from)
                    .and_then(|()| command.spawn());
                // The requester may have gone; the child then dies with its handle.
                let _ = reply.send(child);
            }
        })?;
        Ok(Self { jobs })
    }

    /// Spawns `command` in a network namespace. Its pipes given as `Stdio` are closed on this side afterwards.
    pub(crate) async fn spawn(&self, mut command: Command, netns: Arc<Netns>) -> io::Result<Child> {
        command.kill_on_drop(true);
        let (reply, child) = oneshot::channel();
        let gone = || io::Error::other("the node is shutting down");
        self.jobs.send(Job { command, netns, reply }).map_err(|_| gone())?;
        child.await.map_err(|_| gone())?
    }
}
