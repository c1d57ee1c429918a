//! The probe: sends requests exactly as they are written and records what came back.
//!
//! ```text
//! Batch ──expand──> requests ──lanes──> Client (one per worker or named connection) ──> Record ──> Summary
//!                                         │ Connect: whose sockets
//!                                         └ HTTP/1 written by hand, so that spelling, order and duplicates
//!                                           of headers stay; HTTP/2 by hyper
//! ```
//!
//! A test must be able to send what no well-behaved client sends: a header twice, a spelling of its own, no Host, two
//! framings. So HTTP/1 heads are written as asked. Nothing is followed, retried or decoded.
//!
//! [`Connect`] decides where connections start: [`Sockets`] are this process's own, the harness brings sockets made in
//! another network namespace. [`raw`], [`tls`], [`websocket`] and [`grpc`] speak the protocols that are no single
//! request and answer.

use std::io;
use std::pin::Pin;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

mod client;
mod engine;
mod failure;
pub mod grpc;
mod http1;
mod http2;
mod model;
pub mod raw;
mod record;
pub mod role;
mod summary;
pub mod tls;
pub mod websocket;

#[cfg(test)]
pub(crate) mod tests;

pub use client::Client;
pub use engine::{run, send};
pub use failure::{ErrorKind, Failure};
pub use model::{Batch, Connection, Keep, Payload, Request, Scheme, Version};
pub(crate) use record::hexadecimal;
pub use record::{Record, Seen};
pub use summary::Summary;

/// A byte stream to talk over.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Any byte stream.
pub type Stream = Pin<Box<dyn Io>>;

/// Where connections start.
pub trait Connect: Send + Sync {
    /// Connects to `host:port`.
    fn connect<'a>(&'a self, target: &'a str) -> BoxFuture<'a, io::Result<Stream>>;
}

/// Plain sockets of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sockets;

impl Connect for Sockets {
    fn connect<'a>(&'a self, target: &'a str) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async move {
            // Resolving apart from connecting keeps "no such name" apart from "nobody there".
            let addresses: Vec<_> = tokio::net::lookup_host(target)
                .await
                .map_err(|error| io::Error::new(io::ErrorKind::NotFound, format!("cannot resolve {target}: {error}")))?
                .collect();
            let stream = TcpStream::connect(addresses.as_slice()).await?;
            stream.set_nodelay(true)?;
            Ok(Box::pin(stream) as Stream)
        })
    }
}
