//! What the API server asks of the node.

use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use crate::Status;

/// Options of `GET .../pods/NAME/log`.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Keep the stream open for new lines.
    pub follow: bool,
    /// Only the last N lines.
    pub tail_lines: Option<usize>,
    /// The previous instance of the container.
    pub previous: bool,
    /// Prefix each line with its RFC 3339 time.
    pub timestamps: bool,
    /// Only lines of the last N seconds.
    pub since_seconds: Option<u64>,
}

/// What to attach to an executed command.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attach {
    /// Give it the client's stdin.
    pub stdin: bool,
    /// A terminal (stdout and stderr joined).
    pub tty: bool,
}

/// A command running in a container.
pub struct Exec {
    /// Its stdin, when attached. Dropping it closes it.
    pub stdin: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    /// Its stdout.
    pub stdout: Pin<Box<dyn AsyncRead + Send>>,
    /// Its stderr.
    pub stderr: Pin<Box<dyn AsyncRead + Send>>,
    /// Its exit code, once it has one.
    pub exit: oneshot::Receiver<i32>,
}

/// A boxed future, so that the trait can be an object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The node, as the API server sees it. Implemented by `meshgate_node`.
pub trait PodAccess: Send + Sync {
    /// The log of a container in chunks (whole lines). Ends unless `follow`.
    fn logs<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
        container: &'a str,
        options: LogOptions,
    ) -> BoxFuture<'a, Result<mpsc::Receiver<Vec<u8>>, Status>>;

    /// Runs a command in a container.
    fn exec<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
        container: &'a str,
        command: Vec<String>,
        attach: Attach,
    ) -> BoxFuture<'a, Result<Exec, Status>>;

    /// Connects to a port on the pod's own loopback (as `kubectl port-forward` does).
    fn forward<'a>(&'a self, namespace: &'a str, pod: &'a str, port: u16) -> BoxFuture<'a, Result<TcpStream, Status>>;
}
