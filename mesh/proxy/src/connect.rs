//! Dialling, with the mark that keeps the proxy's own connections from being redirected to the proxy.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::StatusCode;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    net::{TcpSocket, TcpStream, lookup_host},
    time,
};

/// Why no connection could be made. Nothing has been sent to anyone.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The kernel or the peer said no.
    #[error("{address}: {message}")]
    Io { address: SocketAddr, kind: io::ErrorKind, message: String },
    /// No answer in time.
    #[error("{address}: no connection within {timeout:?}")]
    TimedOut { address: SocketAddr, timeout: Duration },
    /// The peer accepted the connection and then did not speak the expected version of HTTP.
    #[error("{address}: {message}")]
    Handshake { address: SocketAddr, message: String },
    /// The peer is not who it should be, or there was no TLS with it.
    #[error("{address}: TLS with {expected}: {message}")]
    Tls { address: SocketAddr, expected: Arc<str>, message: String },
    /// The request asks for another peer (`l5d-require-id`).
    #[error("{address}: identity {required} is required, the endpoint's is {found}")]
    Identity { address: SocketAddr, required: String, found: String },
    /// The proxy there could not pass the request on to its application.
    #[error("{address}: its proxy answered {status}: the application could not be connected to")]
    Application {
        address: SocketAddr,
        status: StatusCode,
        /// Whether the client's connection ends for it.
        closes: bool,
    },
    /// The address is where the request comes from.
    #[error("{address}: loop: the request has come through there")]
    Itself { address: SocketAddr },
}

impl ConnectError {
    /// What clients are told: that there was no connection is all that Linkerd's proxy says. Why, the log has.
    pub(crate) fn told(&self) -> String {
        match self {
            Self::Io { address, .. } | Self::TimedOut { address, .. } => format!("{address}: client error (Connect)"),
            error => error.to_string(),
        }
    }
}

/// Dials connections of one direction.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    mark: Option<u32>,
    timeout: Duration,
    refuse_loopback: bool,
    keepalive: Option<Duration>,
    user_timeout: Option<Duration>,
}

impl Connector {
    /// `mark` is set as `SO_MARK` on every socket; connecting ends after `timeout`.
    pub(crate) fn new(mark: Option<u32>, timeout: Duration) -> Self {
        Self { mark, timeout, refuse_loopback: false, keepalive: None, user_timeout: None }
    }

    /// The kernel notices, whatever is spoken, that a peer has gone without a word: it asks one from which nothing has come for as long as
    /// `keepalive`, and gives up one that has acknowledged nothing, or has had no room for more, for as long as `user_timeout` (`tcp(7)`).
    pub(crate) fn noticing(self, keepalive: Option<Duration>, user_timeout: Option<Duration>) -> Self {
        // The kernel counts the former in seconds, no more than 32,767 of them, and the latter in milliseconds; it refuses larger ones.
        let keepalive = keepalive.map(|every| every.clamp(Duration::from_secs(1), Duration::from_secs(32_767)));
        let user_timeout = user_timeout.map(|it| it.min(Duration::from_millis(i32::MAX as u64)));
        Self { keepalive, user_timeout, ..self }
    }

    /// Linkerd's outbound proxy never dials loopback: a redirected connection never was for it, so such an address can
    /// only be a way around the proxy into the pod.
    pub(crate) fn refuse_loopback(self) -> Self {
        Self { refuse_loopback: true, ..self }
    }

    /// How long a connection may take until it can be used.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Connects, with Nagle's algorithm off.
    pub(crate) async fn connect(&self, address: SocketAddr) -> Result<TcpStream, ConnectError> {
        let io = |error: io::Error| ConnectError::Io { address, kind: error.kind(), message: error.to_string() };
        if self.refuse_loopback && is_loopback(address.ip()) {
            return Err(io(io::Error::new(
                io::ErrorKind::ConnectionRefused,
                "outbound connections to the loopback interface are refused",
            )));
        }
        let socket = self.socket(address).map_err(io)?;
        match time::timeout(self.timeout, socket.connect(address)).await {
            Ok(connected) => {
                let stream = connected.map_err(io)?;
                stream.set_nodelay(true).map_err(io)?;
                Ok(stream)
            }
            Err(_) => Err(ConnectError::TimedOut { address, timeout: self.timeout }),
        }
    }

    /// The addresses of `host:port`. A name is looked up anew each time, so a Service that came back at another address is found.
    pub(crate) async fn look_up(&self, authority: &str) -> io::Result<Vec<SocketAddr>> {
        Ok(time::timeout(self.timeout * 4, lookup_host(authority)).await??.collect())
    }

    fn socket(&self, address: SocketAddr) -> io::Result<TcpSocket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        if let Some(every) = self.keepalive {
            // It would go on asking every 75 s.
            socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(every).with_interval(every))?;
        }
        if self.user_timeout.is_some() {
            socket.set_tcp_user_timeout(self.user_timeout)?;
        }
        Ok(TcpSocket::from_std_stream(socket.into()))
    }
}

/// Whether this process may set `mark` on its sockets; the error says why not.
pub(crate) fn check_mark(mark: u32) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    SockRef::from(&socket).set_mark(mark)
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_kernel_notices_who_has_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (every, most) = (Duration::from_secs(10), Duration::from_secs(30));
        let plain = Connector::new(None, Duration::from_secs(1));
        let noticing = plain.clone().noticing(Some(every), Some(most));
        let stream = noticing.connect(address).await.unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!((socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap()), (every, every));
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(most));

        // The control: unless it is told to, it waits for hours.
        let stream = plain.connect(address).await.unwrap();
        let socket = SockRef::from(&stream);
        assert_eq!((socket.keepalive().unwrap(), socket.tcp_user_timeout().unwrap()), (false, None));
    }
}
