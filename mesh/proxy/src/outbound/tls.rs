//! TLS that is passed on as it is, where the policy has routes for it.

use std::{io, net::SocketAddr};

use bytes::BytesMut;
use tokio::time::Instant;
use tracing::debug;

use super::{Outbound, plan::TlsPlan};
use crate::{
    io::Io,
    metrics::PassedOn,
    tls::{HELLO_LIMIT, Hello, Progress},
};

impl Outbound {
    /// Passes TLS on by the name that the client asks for. As with Linkerd's proxy, a client that asks for none, or for one that has no
    /// route, gets nowhere; nor does one that says nothing for as long as detection waits.
    pub(super) async fn tls(&self, mut io: Io, original: SocketAddr, plan: &TlsPlan) {
        let name = match asked_for(&mut io, Instant::now() + self.detect_timeout).await {
            Ok(name) => name,
            Err(error) => {
                debug!(%original, %error, "a connection broke before it was known what it is for");
                let late = error.kind() == io::ErrorKind::TimedOut;
                return self.tcp_error(original, if late { "unexpected" } else { "i/o" });
            }
        };
        let Some((name, route)) = name.as_deref().and_then(|name| Some((name, plan.choose(name)?))) else {
            debug!(%original, ?name, "TLS that the policy has no route for");
            return self.tcp_error(original, "unexpected");
        };
        self.carry(io, original, PassedOn::Tls, &route.counted(name), &route.to).await;
    }
}

/// The name that a client asks for, if it speaks TLS and asks for one. What was read stays in front of the connection.
async fn asked_for(io: &mut Io, deadline: Instant) -> io::Result<Option<Box<str>>> {
    let mut hello = Hello::default();
    let mut read = BytesMut::with_capacity(1024);
    let name = loop {
        let before = read.len();
        let left = deadline.saturating_duration_since(Instant::now());
        if io.read_into(&mut read, HELLO_LIMIT, left).await? == 0 {
            break None;
        }
        match hello.push(&read[before..]) {
            Ok(Progress::Incomplete) => {}
            Ok(Progress::Read(name)) => break name,
            Ok(Progress::Other) | Err(_) => break None,
        }
    };
    io.unread(read.freeze());
    Ok(name)
}
