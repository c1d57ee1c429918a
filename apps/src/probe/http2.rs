//! HTTP/2, by hyper.

use std::convert::Infallible;
use std::str::FromStr;
use std::time::Duration;

use futures::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_util::task::AbortOnDropHandle;

use super::Stream;
use super::failure::{ErrorKind, Failure};
use super::model::{Payload, Request, Scheme};
use super::record::Recording;

type Body = BoxBody<Bytes, Infallible>;

/// A connection that speaks HTTP/2.
pub(super) struct Link {
    sender: SendRequest<Body>,
    _driver: AbortOnDropHandle<()>,
}

impl Link {
    pub async fn open(stream: Stream) -> Result<Self, Failure> {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        // Its errors reach the requests on it.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, _driver: AbortOnDropHandle::new(driver) })
    }

    /// Whether another request may be sent.
    pub fn is_alive(&mut self) -> bool {
        !self.sender.is_closed()
    }

    /// Sends the request and reads the answer; true when another request may follow.
    pub async fn exchange(&mut self, request: &Request, recording: &mut Recording) -> Result<bool, Failure> {
        self.sender.ready().await?;
        let response = self.sender.send_request(build(request)?).await?;
        recording.first_byte();
        let (parts, mut body) = response.into_parts();
        recording.head(parts.status.as_u16(), "HTTP/2.0", pairs(&parts.headers));
        while let Some(frame) = body.frame().await {
            match frame?.into_data() {
                Ok(data) => recording.data(&data),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    pairs(&trailers).for_each(|(name, value)| recording.trailer(name, value));
                    // The end: a reset that follows is not about this answer (RFC 9113, section 8.1).
                    break;
                }
            }
        }
        Ok(true)
    }
}

/// Names and values of headers, in the order of the map.
pub(super) fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
}

/// Headers from names and values.
pub(super) fn map(headers: &[(String, String)]) -> Result<HeaderMap, Failure> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let parsed = (HeaderName::from_str(name), HeaderValue::from_bytes(value.as_bytes()));
        let (Ok(parsed_name), Ok(parsed_value)) = parsed else {
            let text = format!("HTTP/2 has no header {name:?}: {value:?}; send it on HTTP/1");
            return Err(Failure::new(ErrorKind::Invalid, text));
        };
        map.append(parsed_name, parsed_value);
    }
    Ok(map)
}

fn build(request: &Request) -> Result<http::Request<Body>, Failure> {
    let invalid = |what: &str, found: &str| {
        Failure::new(ErrorKind::Invalid, format!("expected {what} for HTTP/2, found {found:?}; send it on HTTP/1"))
    };
    let scheme = match request.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let authority = request.authority();
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(request.path.as_str())
        .build()
        .map_err(|_| invalid("an authority and a path", &format!("{authority}{}", request.path)))?;
    let method = Method::from_str(&request.method).map_err(|_| invalid("a method", &request.method))?;
    let mut built = http::Request::new(body(&request.body, map(&request.trailers)?));
    *built.method_mut() = method;
    *built.uri_mut() = uri;
    *built.version_mut() = http::Version::HTTP_2;
    *built.headers_mut() = map(&request.headers)?;
    Ok(built)
}

fn body(payload: &Payload, trailers: HeaderMap) -> Body {
    let (data, count, pause) = match payload {
        Payload::None => (Bytes::new(), 0, 0),
        Payload::Text(text) => (Bytes::copy_from_slice(text.as_bytes()), 1, 0),
        Payload::Bytes(count) => (Bytes::from(vec![b'x'; *count]), 1, 0),
        Payload::Chunks { count, size, pause_ms } => (Bytes::from(vec![b'x'; *size]), *count, *pause_ms),
    };
    if trailers.is_empty() && count <= 1 {
        return http_body_util::Full::new(data).boxed();
    }
    let chunks = futures::stream::iter(0..count).then(move |index| {
        let data = data.clone();
        async move {
            if index > 0 && pause > 0 {
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            Ok(Frame::data(data))
        }
    });
    let end = futures::stream::iter((!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers))));
    BodyExt::boxed(StreamBody::new(chunks.chain(end)))
}
