//! The server's side of a WebSocket handshake, with the choice of a subprotocol.

use http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use meshgate_store::Status;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::reply::{self, Reply};

/// An open WebSocket.
pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A request that may become a WebSocket.
pub(crate) struct Handshake {
    accept: String,
    protocol: &'static str,
    upgrade: OnUpgrade,
}

impl Handshake {
    /// Takes a request that asks for a WebSocket with one of `protocols`; 400 otherwise.
    pub(crate) fn of(request: &mut Request<Incoming>, protocols: &[&'static str]) -> Result<Self, Status> {
        let headers = request.headers();
        let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| has_token(headers, UPGRADE.as_str(), "websocket"));
        let Some(key) = key else {
            return Err(Status::bad_request("Upgrade request required: this subresource is served over WebSockets"));
        };
        let accept = derive_accept_key(key.as_bytes());
        let offered = tokens(headers, SEC_WEBSOCKET_PROTOCOL.as_str());
        let protocol = offered.iter().find_map(|offered| protocols.iter().find(|known| *known == offered));
        let Some(&protocol) = protocol else {
            return Err(Status::bad_request(format!(
                "unable to negotiate a WebSocket subprotocol: the client offers {offered:?}, the server has {protocols:?}"
            )));
        };
        Ok(Self { accept, protocol, upgrade: hyper::upgrade::on(request) })
    }

    /// The chosen subprotocol.
    pub(crate) fn protocol(&self) -> &'static str {
        self.protocol
    }

    /// The answer `101`, and the socket that is open once the answer has left.
    pub(crate) fn accept(self) -> Result<(Reply, impl Future<Output = Result<Socket, hyper::Error>>), Status> {
        let mut reply = reply::text(StatusCode::SWITCHING_PROTOCOLS, "");
        let headers = reply.headers_mut();
        headers.clear();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(self.protocol));
        let accept = HeaderValue::try_from(self.accept).map_err(|error| Status::internal(error.to_string()))?;
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        let socket = async move {
            let upgraded = self.upgrade.await?;
            Ok(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await)
        };
        Ok((reply, socket))
    }
}

fn tokens(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|token| token.trim().to_owned()).collect()
}

fn has_token(headers: &HeaderMap, name: &str, wanted: &str) -> bool {
    tokens(headers, name).iter().any(|token| token.eq_ignore_ascii_case(wanted))
}
