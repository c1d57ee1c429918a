//! A gRPC channel that dials as the proxy dials: with its mark, and with the name looked up anew for each connection.

use std::{io, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::connect::Connector;

const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A channel to `host:port`, in plaintext. It connects when it is first used.
pub(crate) fn lazy(address: &str, connector: Connector) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_with_connector_lazy(service_fn(move |uri: Uri| {
        let connector = connector.clone();
        async move {
            let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
            let stream = connector.connect_by_name(authority).await?;
            Ok::<TokioIo<TcpStream>, io::Error>(TokioIo::new(stream))
        }
    })))
}
