//! Connecting and listening from inside a network namespace.
//!
//! A socket belongs for ever to the namespace of the thread that makes it. One thread per namespace makes sockets on request;
//! connecting and everything after happens on the caller's runtime.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::{mpsc, oneshot};

use crate::Netns;

type Request = (Type, oneshot::Sender<io::Result<Socket>>);

/// Makes sockets in one namespace. Cheap to clone; the thread ends with the last clone.
#[derive(Clone, Debug)]
pub struct Dialer {
    requests: mpsc::UnboundedSender<Request>,
}

impl Dialer {
    /// For a namespace.
    ///
    /// # Errors
    /// When the thread cannot be started or may not enter.
    pub fn new(netns: Arc<Netns>) -> io::Result<Self> {
        let (requests, mut queue) = mpsc::unbounded_channel::<Request>();
        let (entered, result) = std::sync::mpsc::channel();
        std::thread::Builder::new().name("dialer".into()).stack_size(64 * 1024).spawn(move || {
            let inside = setns(&*netns, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
            let refused = inside.is_err();
            if entered.send(inside).is_err() || refused {
                return;
            }
            while let Some((kind, answer)) = queue.blocking_recv() {
                // A caller that gave up is no concern of this thread.
                let _ = answer.send(socket(kind));
            }
        })?;
        result.recv().map_err(|_| io::Error::other("the dialer's thread ended at once"))??;
        Ok(Self { requests })
    }

    /// Connects from inside the namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.connect_from(None, to).await
    }

    /// Connects from inside the namespace, from a given source address.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn connect_from(&self, from: Option<Ipv4Addr>, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.socket(Type::STREAM).await?;
        if let Some(from) = from {
            // Without this a bound source address would also claim one of its ports for itself.
            setsockopt(&socket, IpBindAddressNoPort, &true)?;
            socket.bind(&SocketAddr::from((from, 0)).into())?;
        }
        socket.set_tcp_nodelay(true)?;
        TcpSocket::from_std_stream(socket.into()).connect(to).await
    }

    /// Listens inside the namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn listen(&self, on: SocketAddr) -> io::Result<TcpListener> {
        let socket = self.socket(Type::STREAM).await?;
        socket.set_reuse_address(true)?;
        socket.bind(&on.into())?;
        socket.listen(4096)?;
        TcpListener::from_std(socket.into())
    }

    /// A UDP socket inside the namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn udp(&self, on: SocketAddr) -> io::Result<UdpSocket> {
        let socket = self.socket(Type::DGRAM).await?;
        socket.bind(&on.into())?;
        UdpSocket::from_std(socket.into())
    }

    async fn socket(&self, kind: Type) -> io::Result<Socket> {
        let gone = || io::Error::other("the dialer's thread is gone");
        let (answer, socket) = oneshot::channel();
        self.requests.send((kind, answer)).map_err(|_| gone())?;
        socket.await.map_err(|_| gone())?
    }
}

fn socket(kind: Type) -> io::Result<Socket> {
    let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
    let socket = Socket::new(Domain::IPV4, kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
