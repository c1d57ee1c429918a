//! Connections that stop being HTTP: `Upgrade` (WebSocket) and `CONNECT`.

use http::{Method, Request, Response, StatusCode, Version, header::UPGRADE};
use tokio::sync::oneshot;
use tracing::debug;

use super::{ProxyError, headers::connection_names, http1};
use crate::{io::Io, process::Drain, tcp};

/// What a request asks to become.
pub(crate) enum Upgrade {
    /// It stays HTTP.
    None,
    /// Something else, if the application agrees with 101 (`Upgrade`) or 2xx (`CONNECT`).
    Asked { client: oneshot::Receiver<Io>, connect: bool },
}

impl Upgrade {
    /// Looks whether the request asks for an upgrade. `h2c` is not one: this proxy speaks HTTP/2 with prior knowledge only.
    pub(crate) fn of<B>(request: &mut Request<B>) -> Result<Self, ProxyError> {
        let connect = request.method() == Method::CONNECT;
        let offered = request.headers().get(UPGRADE);
        let asked = offered.is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"h2c"))
            && connection_names(request.headers(), b"upgrade");
        match (request.version(), connect, asked) {
            (Version::HTTP_2, _, _) => Ok(Self::None),
            (_, true, true) => Err(ProxyError::Malformed("CONNECT and Upgrade exclude each other")),
            (Version::HTTP_10, _, true) => Err(ProxyError::Malformed("HTTP/1.0 has no Upgrade")),
            (_, false, false) => Ok(Self::None),
            (_, connect, _) => {
                // Who asked for it over HTTP/2 as a request of HTTP/1 has no connection of its own that could be upgraded.
                let client = http1::on_upgrade(request.extensions_mut());
                Ok(client.map_or(Self::None, |client| Self::Asked { client, connect }))
            }
        }
    }

    /// Whether `Upgrade` and `Connection: upgrade` belong to the request.
    pub(crate) fn keeps_headers(&self) -> bool {
        matches!(self, Self::Asked { connect: false, .. })
    }

    /// If the application agreed, joins both connections once they have been upgraded. Whether it did.
    pub(crate) fn complete<B>(self, response: &mut Response<B>, drain: &Drain) -> bool {
        let Self::Asked { client, connect } = self else { return false };
        let agreed =
            if connect { response.status().is_success() } else { response.status() == StatusCode::SWITCHING_PROTOCOLS };
        if agreed {
            let server = http1::on_upgrade(response.extensions_mut());
            drain.spawn(async move {
                let server = async { server?.await.ok() };
                match tokio::join!(client, server) {
                    (Ok(client), Some(server)) => {
                        tcp::join(client, server).await;
                    }
                    _ => debug!("an upgrade did not happen"),
                }
            });
        }
        agreed
    }
}
