//! Connections to the control plane, dialled as the proxy dials: with its mark, and with TLS where it is known who must be there.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time;
use tonic::body::Body;
use tracing::debug;

use super::channel::As;
use crate::{
    connect::{ConnectError, Connector},
    identity::LocalIdentity,
    io::Transport,
    tls::ServerIdentity,
};

const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A connection to the control plane. It lasts while somebody holds this or a call is under way.
pub(super) type Sender = http2::SendRequest<Body>;

/// Makes connections to one service.
pub(super) struct Dialer {
    pub(super) connector: Connector,
    /// Who must be there, if anybody in particular.
    pub(super) server: Option<ServerIdentity>,
    pub(super) identity: LocalIdentity,
    pub(super) speaker: As,
}

impl Dialer {
    /// Ends when the proxy can say who it is, if it has to.
    pub(super) async fn ready(&self) {
        if self.server.is_some() && self.speaker == As::Certified {
            self.identity.clone().certified().await;
        }
    }

    /// Connects to an address of the service.
    pub(super) async fn connect(self: Arc<Self>, address: SocketAddr) -> Result<Sender, ConnectError> {
        let transport = self.transport(address).await?;
        let mut client = http2::Builder::new(TokioExecutor::new());
        client.timer(TokioTimer::new()).keep_alive_interval(KEEP_ALIVE).keep_alive_while_idle(true);
        let (sender, connection) = client
            .handshake(TokioIo::new(transport))
            .await
            .map_err(|error| ConnectError::Handshake { address, message: error.to_string() })?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%address, %error, "a connection to the control plane ended");
            }
        });
        Ok(sender)
    }

    async fn transport(&self, address: SocketAddr) -> Result<Transport, ConnectError> {
        let stream = self.connector.connect(address).await?;
        let Some(server) = &self.server else { return Ok(Transport::Left(stream)) };
        let refused = |message| ConnectError::Tls { address, expected: Arc::clone(server.id()), message };
        let trust = self.identity.trust().ok_or_else(|| refused("without an identity nobody is trusted".to_owned()))?;
        let own = self.identity.credentials().filter(|own| self.speaker == As::Certified || own.is_valid());
        let timeout = self.connector.timeout();
        let shaken = time::timeout(timeout, async {
            match own {
                Some(own) => own.connect(stream, server, false).await,
                None => trust.connect(stream, server).await,
            }
        });
        let shaken = shaken.await.map_err(|_| ConnectError::TimedOut { address, timeout })?;
        let tls = shaken.map_err(|error| refused(error.to_string()))?;
        Ok(Transport::Right(Box::new(tls)))
    }
}
