//! What the node tells the role `pod-exec`: one JSON document per process to start.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One process: what to run, as whom, and in which root.
///
/// The network namespace is not in here: the node spawns the helper inside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// Program and arguments. A program without a slash is looked up in `PATH` of `env`.
    pub argv: Vec<String>,
    /// The whole environment, later entries win.
    pub env: Vec<(String, String)>,
    /// Directory to start in; `/` when `None`.
    pub working_dir: Option<String>,
    /// `runAsUser`; ignored when the user namespace does not map it.
    pub user: Option<u32>,
    /// `runAsGroup`; ignored when the user namespace does not map it.
    pub group: Option<u32>,
    /// Where.
    pub place: Place,
}

/// In which root a process runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Place {
    /// A new root, for a container.
    Root(Root),
    /// The namespaces of a process that runs already, for `exec`.
    Join {
        /// Its process id, as seen by the node.
        pid: i32,
        /// Give the command a terminal.
        tty: bool,
    },
}

/// The file tree of a container, above what every container gets (see `rootfs`).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Root {
    /// An empty directory of the host to build the root on.
    pub base: PathBuf,
    /// Host name.
    pub hostname: String,
    /// Small files with their content, absolute paths in the container.
    pub files: Vec<(PathBuf, String)>,
    /// Links: path in the container, target.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Mounts in the order given.
    pub binds: Vec<Bind>,
    /// `readOnlyRootFilesystem`.
    pub read_only: bool,
}

/// A file or directory of the host, seen in the container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Bind {
    /// On the host.
    pub source: PathBuf,
    /// In the container, absolute.
    pub target: PathBuf,
    /// Refuse writes.
    pub read_only: bool,
}
