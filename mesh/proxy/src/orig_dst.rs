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
    /// The original destination of an accepted connection, of IPv4 if its client speaks that.
    pub(crate) fn of(&self, stream: &TcpStream) -> io::Result<SocketAddr> {
        let peer = canonical(stream.peer_addr()?);
        let original = match self {
            Self::Socket => {
                let socket = SockRef::from(stream);
                let address = match peer {
                    SocketAddr::V4(_) => socket.original_dst_v4()?,
                    SocketAddr::V6(_) => socket.original_dst_v6()?,
                };
                address.as_socket().ok_or_else(|| io::Error::other("SO_ORIGINAL_DST is not an IP address"))?
            }
            Self::Fixed(clients) => {
                let unknown =
                    || io::Error::other(format!("no original destination is given for clients at {}", peer.ip()));
                clients.get(&peer.ip()).ok_or_else(unknown)?.original
            }
        };
        Ok(canonical(original))
    }

    /// Who made an accepted connection.
    pub(crate) fn client(&self, stream: &TcpStream) -> io::Result<SocketAddr> {
        let peer = canonical(stream.peer_addr()?);
        let seen = match self {
            Self::Socket => None,
            Self::Fixed(clients) => clients.get(&peer.ip()).and_then(|fixed| fixed.client),
        };
        Ok(SocketAddr::new(seen.unwrap_or(peer.ip()), peer.port()))
    }
}

/// An address of IPv4 as one, and not as listeners of `[::]` see it (`::ffff:10.1.2.3`): the kernel knows the connection's original
/// destination only as one of IPv4, and so does everybody who is told of it.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_ipv4_is_one_wherever_it_is_seen() {
        for (seen, is) in [
            ("[::ffff:10.1.2.3]:80", "10.1.2.3:80"),
            ("10.1.2.3:80", "10.1.2.3:80"),
            ("[fd00::1]:80", "[fd00::1]:80"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(canonical(seen.parse().unwrap()), is.parse().unwrap(), "{seen}");
        }
    }
}
