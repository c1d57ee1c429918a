//! A vantage point: a pod from which connections start, for a client that cannot reach the cluster's addresses itself.
//!
//! The harness reaches the pod through the API server (`port-forward`) and asks for each connection by a CONNECT in one HTTP/2
//! connection ([`tunnel`]). What goes through a tunnel is bytes: requests are still written by the harness, exactly as on a cluster
//! whose addresses it dials itself. A GET asks for the address of its authority, a name that may mean something only there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio_util::sync::CancellationToken;

use crate::serve::{self, Gate};

pub mod tunnel;

use tunnel::{ADDRESS, ERROR, Piped};

/// The port that a vantage point listens on.
pub const PORT: u16 = 7070;

/// Where it listens.
#[derive(clap::Args)]
pub struct Config {
    #[arg(long, env = "PORT", default_value_t = PORT)]
    port: u16,
}

/// A vantage point whose port is bound.
pub struct Vantage {
    listener: TcpListener,
}

impl Vantage {
    /// Binds the port.
    ///
    /// # Errors
    /// When it is taken.
    pub async fn bind(config: Config) -> io::Result<Self> {
        Ok(Self { listener: serve::bind(config.port).await? })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The socket's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`; tunnels end with the process.
    ///
    /// # Errors
    /// The socket's.
    pub async fn serve(self, shutdown: CancellationToken) -> io::Result<()> {
        serve::accept(self.listener, Gate::open(), shutdown, |stream, peer| {
            tokio::spawn(async move {
                if let Err(error) = tunnels(stream).await {
                    tracing::info!(%peer, %error, "a client is gone");
                }
            });
        })
        .await
    }
}

/// All tunnels of one client.
async fn tunnels(stream: TcpStream) -> Result<(), h2::Error> {
    let mut connection = h2::server::Builder::new()
        .initial_window_size(tunnel::STREAM_WINDOW)
        .initial_connection_window_size(tunnel::CONNECTION_WINDOW)
        .max_concurrent_streams(tunnel::STREAMS)
        .max_concurrent_reset_streams(tunnel::STREAMS as usize)
        .handshake(stream)
        .await?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        tokio::spawn(async move {
            if let Err(error) = carry(request, respond).await {
                tracing::debug!(%error, "a tunnel broke");
            }
        });
    }
    Ok(())
}

/// One tunnel, from the dial to the end of both directions.
async fn carry(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    if request.method() == http::Method::GET {
        let address = match request.uri().host() {
            Some(name) => look_up(name).await,
            None => Err(io::ErrorKind::InvalidInput.into()),
        };
        return match address {
            Ok(address) => tell(&mut respond, address),
            Err(error) => refuse(&mut respond, StatusCode::BAD_GATEWAY, error.kind()),
        };
    }
    let target = request.uri().authority().and_then(|authority| authority.as_str().parse::<SocketAddr>().ok());
    let (Some(target), &http::Method::CONNECT) = (target, request.method()) else {
        return refuse(&mut respond, StatusCode::BAD_REQUEST, io::ErrorKind::InvalidInput);
    };
    // A client that gives up ends the dial with it.
    let dialled = tokio::select! {
        dialled = TcpStream::connect(target) => dialled,
        _ = std::future::poll_fn(|context| respond.poll_reset(context)) => return Ok(()),
    };
    let mut connection = match dialled {
        Ok(connection) => connection,
        Err(error) => return refuse(&mut respond, StatusCode::BAD_GATEWAY, error.kind()),
    };
    // Without it small writes wait for each other; a client's own socket would have the same.
    let _ = connection.set_nodelay(true);
    let send = respond.send_response(Response::new(()), false)?;
    let mut tunnel = Piped::new(send, request.into_body());
    if copy_bidirectional(&mut connection, &mut tunnel).await.is_err() {
        tunnel.break_off();
    }
    Ok(())
}

/// The first IPv4 address of a name. That it has none and that nobody could say are one to the resolver, and here.
async fn look_up(name: &str) -> io::Result<Ipv4Addr> {
    let found = lookup_host((name, 0)).await.map_err(|_| io::ErrorKind::NotFound)?;
    let mut addresses = found.filter_map(|address| match address.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    addresses.next().ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn tell(respond: &mut h2::server::SendResponse<Bytes>, address: Ipv4Addr) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    let address = HeaderValue::try_from(address.to_string()).map_err(|_| h2::Reason::INTERNAL_ERROR)?;
    response.headers_mut().insert(ADDRESS, address);
    respond.send_response(response, true).map(drop)
}

fn refuse(
    respond: &mut h2::server::SendResponse<Bytes>,
    status: StatusCode,
    kind: io::ErrorKind,
) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response.headers_mut().insert(ERROR, tunnel::name(kind));
    respond.send_response(response, true).map(drop)
}

#[cfg(test)]
mod tests;
