//! Where a redirected connection was going before the kernel redirected it.

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
    Fixed(Arc<HashMap<IpAddr, SocketAddr>>),
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
            Self::Fixed(addresses) => {
                let peer = stream.peer_addr()?.ip();
                addresses
                    .get(&peer)
                    .copied()
                    .ok_or_else(|| io::Error::other(format!("no original destination is given for clients at {peer}")))
            }
        }
    }
}
