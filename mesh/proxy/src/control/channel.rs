//! A gRPC channel that dials as the proxy dials: with its mark, with the name looked up anew for each connection, and with TLS where it
//! is known who must be there.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::time;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::{
    ControlAddr,
    connect::{ConnectError, Connector},
    identity::LocalIdentity,
    io::Transport,
    metrics::Resolutions,
    tls::ServerIdentity,
};

const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// As whom the proxy speaks to a service of the control plane that proves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    /// As who it is: it waits for its certificate.
    Certified,
    /// As who it is if it has a certificate that is still valid, else as nobody: who has none can get one only so.
    Anybody,
}

/// A channel to a service. It connects when it is first used. `resolutions` counts how often its name is looked up.
pub(crate) fn lazy(
    service: &ControlAddr,
    connector: &Connector,
    identity: &LocalIdentity,
    speaker: As,
    resolutions: Resolutions,
) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{}", service.authority))?
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    let dialer = Arc::new(Dialer {
        connector: connector.clone(),
        server: service.name.as_ref().map(ServerIdentity::named),
        identity: identity.clone(),
        speaker,
        resolutions,
    });
    Ok(endpoint.connect_with_connector_lazy(service_fn(move |uri: Uri| {
        let dialer = Arc::clone(&dialer);
        async move {
            let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
            dialer.dial(authority).await.map(TokioIo::new)
        }
    })))
}

struct Dialer {
    connector: Connector,
    /// Who must be there, if anybody in particular.
    server: Option<ServerIdentity>,
    identity: LocalIdentity,
    speaker: As,
    resolutions: Resolutions,
}

impl Dialer {
    /// Connects to the first address that can be spoken to.
    async fn dial(&self, authority: &str) -> io::Result<Transport> {
        if self.server.is_some() && self.speaker == As::Certified {
            self.identity.clone().certified().await;
        }
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("`{authority}` has no address"));
        let found = self.connector.look_up(authority).await;
        self.resolutions.count(authority, &found);
        for address in found? {
            match self.connect(address).await {
                Ok(transport) => return Ok(transport),
                Err(error) => last = io::Error::other(error),
            }
        }
        Err(last)
    }

    async fn connect(&self, address: SocketAddr) -> Result<Transport, ConnectError> {
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
