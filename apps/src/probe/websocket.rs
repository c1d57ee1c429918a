//! WebSocket: the upgrade, and messages over it.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::failure::{ErrorKind, Failure};
use super::http2::{map, pairs};
use super::model::{Request, Scheme};
use super::{Connect, Stream, tls};

/// An upgraded connection.
pub struct WebSocket {
    stream: WebSocketStream<Stream>,
    /// The headers of the answer 101.
    pub headers: Vec<(String, String)>,
    timeout: Duration,
}

/// Connects and upgrades. Target, host, path, headers, scheme and timeout of the request count. An answer other than 101
/// is a failure of kind [`ErrorKind::Protocol`] that names the status.
pub async fn open(request: &Request, connect: &dyn Connect) -> Result<WebSocket, Failure> {
    let timeout = Duration::from_millis(request.timeout_ms);
    within(timeout, async {
        let mut stream = connect.connect(&request.target).await?;
        if request.scheme == Scheme::Https {
            (stream, _) = tls::secure(stream, request.server_name(), &["http/1.1"]).await?;
        }
        // The scheme only matters to a client that would connect by itself.
        let uri = format!("ws://{}{}", request.authority(), request.path);
        let mut upgrade = uri.into_client_request().map_err(failure)?;
        for (name, value) in map(&request.headers)?.iter() {
            upgrade.headers_mut().append(name, value.clone());
        }
        let (stream, response) = client_async(upgrade, stream).await.map_err(failure)?;
        let headers = pairs(response.headers())
            .map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(value).into_owned()))
            .collect();
        Ok(WebSocket { stream, headers, timeout })
    })
    .await
}

impl WebSocket {
    /// Sends a text and waits for the next text.
    pub async fn echo(&mut self, text: &str) -> Result<String, Failure> {
        within(self.timeout, async {
            self.stream.send(Message::text(text)).await.map_err(failure)?;
            loop {
                match self.stream.next().await {
                    Some(Ok(Message::Text(text))) => return Ok(text.to_string()),
                    Some(Ok(Message::Close(_))) | None => {
                        return Err(Failure::new(ErrorKind::Closed, "the WebSocket was closed"));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(failure(error)),
                }
            }
        })
        .await
    }

    /// Closes with the closing handshake.
    pub async fn close(mut self) -> Result<(), Failure> {
        within(self.timeout, async {
            self.stream.close(None).await.map_err(failure)?;
            // The peer's answer to the close ends the stream.
            while let Some(Ok(_)) = self.stream.next().await {}
            Ok(())
        })
        .await
    }
}

async fn within<T>(timeout: Duration, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let limit = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| Err(Failure::timeout(limit)))
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Io(error) => error.into(),
        Error::ConnectionClosed | Error::AlreadyClosed => Failure::new(ErrorKind::Closed, "the WebSocket was closed"),
        Error::Http(response) => {
            Failure::new(ErrorKind::Protocol, format!("expected status 101, found {}", response.status().as_u16()))
        }
        error => Failure::new(ErrorKind::Protocol, error.to_string()),
    }
}
