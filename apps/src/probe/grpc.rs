//! gRPC, shown as it is: HTTP status, headers, messages and trailers apart.

use std::convert::Infallible;
use std::time::Duration;

use futures::channel::mpsc;
use http::HeaderMap;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio_util::task::AbortOnDropHandle;

use super::failure::{ErrorKind, Failure};
use super::http2::{map, pairs};
use super::model::{Request, Scheme};
use super::{Connect, tls};

/// The outcome of a call.
#[derive(Clone, Debug)]
pub struct Reply<R> {
    /// The HTTP status; anything but 200 is an answer of something that is no gRPC server.
    pub http_status: u16,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// The messages.
    pub messages: Vec<R>,
    /// The trailers.
    pub trailers: Vec<(String, String)>,
    /// `grpc-status`, from the trailers or from an answer of headers only.
    pub code: Option<i32>,
    /// `grpc-message`, as it was sent (percent-encoded).
    pub message: Option<String>,
}

/// Calls the method at the request's path with these messages: one for unary and server streaming, any number
/// for the other kinds. In `lockstep` each message waits for an answer to the one before, so that a two-way stream shows
/// that it is one; otherwise all go out at once.
///
/// Target, host, scheme, headers and timeout of the request count.
pub async fn call<Q: Message, R: Message + Default>(
    request: &Request,
    messages: &[Q],
    lockstep: bool,
    connect: &dyn Connect,
) -> Result<Reply<R>, Failure> {
    let work = exchange(request, messages, lockstep, connect);
    let limit = Duration::from_millis(request.timeout_ms);
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(Failure::timeout(request.timeout_ms)))
}

async fn exchange<Q: Message, R: Message + Default>(
    request: &Request,
    messages: &[Q],
    lockstep: bool,
    connect: &dyn Connect,
) -> Result<Reply<R>, Failure> {
    let mut stream = connect.connect(&request.target).await?;
    let mut scheme = "http";
    if request.scheme == Scheme::Https {
        (stream, _) = tls::secure(stream, request.server_name(), &["h2"]).await?;
        scheme = "https";
    }
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let _driver = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));

    let (outgoing, incoming) = mpsc::unbounded::<Result<Frame<Bytes>, Infallible>>();
    let mut outgoing = Some(outgoing);
    let mut unsent = messages.iter();
    let mut send_next = || {
        match (unsent.next(), &outgoing) {
            // The receiver lives in the request's body; when that is gone, the answer says why.
            (Some(message), Some(sender)) => drop(sender.unbounded_send(Ok(Frame::data(frame(message))))),
            _ => outgoing = None,
        }
        outgoing.is_some()
    };
    if lockstep {
        send_next();
    } else {
        while send_next() {}
    }
    let mut call = http::Request::post(format!("{scheme}://{}{}", request.authority(), request.path))
        .body(StreamBody::new(incoming))
        .map_err(|error| Failure::new(ErrorKind::Invalid, error.to_string()))?;
    *call.headers_mut() = map(&request.headers)?;
    let fixed = [("content-type", "application/grpc"), ("te", "trailers")];
    call.headers_mut().extend(
        fixed.map(|(name, value)| (Some(http::HeaderName::from_static(name)), http::HeaderValue::from_static(value))),
    );

    let (parts, mut body) = sender.send_request(call).await?.into_parts();
    let mut reply = Reply {
        http_status: parts.status.as_u16(),
        headers: owned(&parts.headers),
        messages: Vec::new(),
        trailers: Vec::new(),
        code: None,
        message: None,
    };
    let is_grpc =
        parts.headers.get("content-type").is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    let mut buffer = Vec::new();
    while let Some(part) = body.frame().await {
        match part?.into_data() {
            Ok(data) if is_grpc => {
                buffer.extend_from_slice(&data);
                while let Some(message) = take(&mut buffer)? {
                    reply.messages.push(message);
                    if lockstep {
                        send_next();
                    }
                }
            }
            Ok(_) => {}
            Err(part) => {
                reply.trailers = owned(&part.into_trailers().unwrap_or_default());
                // The end: a reset that follows is not about this answer (RFC 9113, section 8.1).
                break;
            }
        }
    }
    let status = |name: &str| {
        let all = reply.trailers.iter().chain(&reply.headers);
        all.clone().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    };
    reply.code = status("grpc-status").and_then(|code| code.parse().ok());
    reply.message = status("grpc-message");
    Ok(reply)
}

/// A message with its five bytes in front: not compressed, and its length.
fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(length + 5);
    bytes.push(0);
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.into()
}

/// The next whole message, if there is one.
fn take<R: Message + Default>(buffer: &mut Vec<u8>) -> Result<Option<R>, Failure> {
    let Some([compressed, length @ ..]) = buffer.first_chunk::<5>().copied() else { return Ok(None) };
    let end = 5 + u32::from_be_bytes(length) as usize;
    if compressed != 0 {
        return Err(Failure::new(
            ErrorKind::Protocol,
            "expected a message without compression, found a compressed one",
        ));
    }
    if buffer.len() < end {
        return Ok(None);
    }
    let message = R::decode(&buffer[5..end])
        .map_err(|error| Failure::new(ErrorKind::Protocol, format!("expected another message type: {error}")))?;
    buffer.drain(..end);
    Ok(Some(message))
}

fn owned(headers: &HeaderMap) -> Vec<(String, String)> {
    pairs(headers).map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(value).into_owned())).collect()
}
