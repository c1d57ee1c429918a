//! Where a redirected connection was going before the kernel redirected it, and who made it.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use socket2::SockRef;
use tokio::net::TcpStream;

/// The source of original destinations.
#[derive(Debug, Clone, Default)]
pub enum OriginalDst {
    /// `SO_ORIGINAL_DST`, which the kernel's connection tracking answers.
    #[default]
    Socket,
    /// For tests, which have no redirection: by the address that the client connects from.
    Fixed(Arc<HashMap<IpAddr, FixedDst>>),
}

/// What is known of the connections of one client.
#[derive(Debug, Clone, Copy)]
pub struct FixedDst {
    /// Where they were going.
    pub original: SocketAddr,
    /// As whom policies see the client, who otherwise is in the proxy's own pod like everybody on loopback.
    pub client: Option<IpAddr>,
}

impl OriginalDst {
    /// The original destination of an accepted connection.
    pub(crate) fn of(&self, stream: &TcpStream) -> io::Result<SocketAddr> {
        match self {
            Self::Socket => {
                let socket = SockRef::from(stream);
                let address = if stream.local_addr()?.is_ipv4() {
                    socket.original_dst_v4()?
                } else {
                    socket.original_dst_v6()?
                };
                address.as_socket().ok_or_else(|| io::Error::other("SO_ORIGINAL_DST is not an IP address"))
            }
            Self::Fixed(_) => Ok(self.fixed(stream)?.original),
        }
    }

    /// Who made an accepted connection.
    pub(crate) fn client(&self, stream: &TcpStream) -> io::Result<SocketAddr> {
        let peer = stream.peer_addr()?;
        match self {
            Self::Socket => Ok(peer),
            Self::Fixed(_) => Ok(SocketAddr::new(self.fixed(stream)?.client.unwrap_or(peer.ip()), peer.port())),
        }
    }

    fn fixed(&self, stream: &TcpStream) -> io::Result<FixedDst> {
        let peer = stream.peer_addr()?.ip();
        let found = match self {
            Self::Socket => None,
            Self::Fixed(clients) => clients.get(&peer).copied(),
        };
        found.ok_or_else(|| io::Error::other(format!("no original destination is given for clients at {peer}")))
    }
}
