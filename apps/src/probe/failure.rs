//! Why there is no (whole) answer.

use std::error::Error;
use std::io;

use serde::{Deserialize, Serialize};

/// The cause, as far as a client can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The target's name has no address.
    Resolve,
    /// Nobody listens there.
    Refused,
    /// There is no route there.
    Unreachable,
    /// The peer broke the connection off, or the HTTP/2 stream.
    Reset,
    /// The connection ended before the answer did.
    Closed,
    /// The request's time was over.
    Timeout,
    /// No TLS session came about.
    Tls,
    /// The answer was not what the protocol allows.
    Protocol,
    /// The request cannot be put on the wire as written.
    Invalid,
    /// Anything else; the text says what.
    Other,
}

/// What rustls says to programmers, behind what happened.
const ADVICE: &str = ": https://docs.rs/rustls/";

/// A request that got no (whole) answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{kind:?}: {text}")]
pub struct Failure {
    /// The cause.
    pub kind: ErrorKind,
    /// What happened, for a person.
    pub text: String,
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        let mut text: String = text.into();
        if let Some(end) = text.find(ADVICE) {
            text.truncate(end);
        }
        Self { kind, text }
    }

    pub(super) fn timeout(milliseconds: u64) -> Self {
        Self::new(ErrorKind::Timeout, format!("no whole answer within {milliseconds} ms"))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::NotFound => ErrorKind::Resolve,
            Io::ConnectionRefused => ErrorKind::Refused,
            Io::HostUnreachable | Io::NetworkUnreachable => ErrorKind::Unreachable,
            Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe => ErrorKind::Reset,
            Io::UnexpectedEof => ErrorKind::Closed,
            Io::TimedOut => ErrorKind::Timeout,
            _ if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => ErrorKind::Tls,
            _ => ErrorKind::Other,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        let mut text = error.to_string();
        let mut kind = if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            ErrorKind::Closed
        } else {
            ErrorKind::Protocol
        };
        // The cause that names a kind lies somewhere down the chain.
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            if let Some(io) = cause.downcast_ref::<io::Error>() {
                kind = Self::from(io::Error::from(io.kind())).kind;
            } else if let Some(h2) = cause.downcast_ref::<h2::Error>() {
                kind = match h2.get_io() {
                    Some(io) => Self::from(io::Error::from(io.kind())).kind,
                    None if h2.is_reset() => ErrorKind::Reset,
                    None if h2.is_go_away() => ErrorKind::Closed,
                    None => kind,
                };
            }
            source = cause.source();
        }
        Self::new(kind, text)
    }
}
