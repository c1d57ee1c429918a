//! HTTP/1, a connection at a time.
//!
//! One task does all for a request, the client's: it reads the head, asks the service, which writes to the application's connection
//! and reads from it in the same task, and writes the answer. Nothing is passed between tasks, and a connection that is idle is a
//! socket and a few words: what is read goes to a buffer of the thread first, and what is written comes from one.
//!
//! ```text
//!   client --> server: parse -> service -> client: encode --> application
//!                ^                            |
//!                 ------ encode <- body <- parse
//! ```
//!
//! hyper, which this proxy uses for HTTP/2, has a task per connection and four buffers per request that passes through; its server
//! and its client are what this replaces, with the same readings of what is malformed.

mod body;
mod client;
mod decode;
mod encode;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod outgoing;
mod parse;
mod server;
mod wire;

use std::{io, sync::Arc};

use http::Extensions;
use parking_lot::Mutex;
use tokio::sync::oneshot;

pub(crate) use body::Body;
pub(crate) use client::{Connection, Failure};
pub(super) use server::serve;

use crate::io::Io;

/// Why a message could not be read or written to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The kernel, or TLS, says so.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// It ended in the middle of a message, or before it.
    #[error("the connection ended early")]
    Incomplete,
    /// What came is not HTTP/1.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// The body to be sent is not as long as its length says.
    #[error("a body of another length than was said")]
    Length,
    /// The body to be sent broke.
    #[error("the body to be sent broke: {0}")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A connection that will be something else than HTTP once the message that has this among its extensions has been answered.
#[derive(Clone)]
struct OnUpgrade(Arc<Mutex<Option<oneshot::Receiver<Io>>>>);

impl OnUpgrade {
    fn new() -> (oneshot::Sender<Io>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(Arc::new(Mutex::new(Some(receiver)))))
    }
}

/// The connection of a message that asked for another protocol or agreed to one, when it is free for that.
pub(super) fn on_upgrade(extensions: &mut Extensions) -> Option<oneshot::Receiver<Io>> {
    extensions.remove::<OnUpgrade>()?.0.lock().take()
}
