//! The gRPC service `meshgate.echo.v1.Echo`.

use std::pin::Pin;

use futures::{Stream, StreamExt};
use http::{Request, Response};
use hyper::body::Incoming;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;

use super::Answer;
use crate::grpc;
use crate::serve::Body;

/// Path prefix of the methods `Unary`, `ServerStream`, `BidiStream` and `Fail`.
pub const SERVICE: &str = "meshgate.echo.v1.Echo";

/// A message to the service.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EchoRequest {
    /// Comes back.
    #[prost(string, tag = "1")]
    pub message: String,
    /// How many replies `ServerStream` gives.
    #[prost(uint32, tag = "2")]
    pub count: u32,
    /// The status that `Fail` ends with.
    #[prost(uint32, tag = "3")]
    pub code: u32,
}

/// A reply of the service.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EchoReply {
    /// The request's message.
    #[prost(string, tag = "1")]
    pub message: String,
    /// The pod that answers.
    #[prost(string, tag = "2")]
    pub pod: String,
    /// Its NAME.
    #[prost(string, tag = "3")]
    pub service: String,
    /// The number of the reply in its stream, from 0.
    #[prost(uint32, tag = "4")]
    pub sequence: u32,
    /// The headers that arrived.
    #[prost(message, repeated, tag = "5")]
    pub headers: Vec<Header>,
    /// The `:authority` that arrived.
    #[prost(string, tag = "6")]
    pub authority: String,
}

/// A header.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Header {
    /// In lower case.
    #[prost(string, tag = "1")]
    pub name: String,
    /// As text.
    #[prost(string, tag = "2")]
    pub value: String,
}

type Replies = Pin<Box<dyn Stream<Item = Result<EchoReply, Status>> + Send>>;

/// Whether a request calls this service.
pub(super) fn is_ours<B>(request: &Request<B>) -> bool {
    grpc::is_call(request) && request.uri().path().contains(SERVICE)
}

/// Answers a call.
pub(super) async fn answer(seen: Answer, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let codec = ProstCodec::<EchoReply, EchoRequest>::default();
    let mut server = tonic::server::Grpc::new(codec);
    match path.rsplit('/').next() {
        Some("Unary") => {
            grpc::unary(request, |call: tonic::Request<EchoRequest>| {
                let reply = reply(&seen, call.into_inner(), 0);
                std::future::ready(Ok(tonic::Response::new(reply)))
            })
            .await
        }
        Some("ServerStream") => {
            let call = |call: tonic::Request<EchoRequest>| {
                let (seen, message) = (seen.clone(), call.into_inner());
                let replies = (0..message.count).map(move |sequence| Ok(reply(&seen, message.clone(), sequence)));
                let replies: Replies = Box::pin(futures::stream::iter(replies));
                std::future::ready(Ok(tonic::Response::new(replies)))
            };
            server.server_streaming(tower::service_fn(call), request).await
        }
        Some("BidiStream") => {
            let call = |call: tonic::Request<Streaming<EchoRequest>>| {
                let seen = seen.clone();
                let replies = call.into_inner().enumerate().map(move |(index, message)| {
                    let sequence = u32::try_from(index).unwrap_or(u32::MAX);
                    message.map(|message| reply(&seen, message, sequence))
                });
                let replies: Replies = Box::pin(replies);
                std::future::ready(Ok(tonic::Response::new(replies)))
            };
            server.streaming(tower::service_fn(call), request).await
        }
        Some("Fail") => {
            grpc::unary(request, |call: tonic::Request<EchoRequest>| {
                std::future::ready(Err::<tonic::Response<EchoReply>, Status>(failure(&seen, &call.into_inner())))
            })
            .await
        }
        _ => grpc::unimplemented(&path),
    }
}

fn reply(seen: &Answer, request: EchoRequest, sequence: u32) -> EchoReply {
    let headers = seen.headers.iter().map(|(name, value)| Header { name: name.clone(), value: value.clone() });
    EchoReply {
        message: request.message,
        pod: seen.pod.clone(),
        service: seen.service.clone(),
        sequence,
        headers: headers.collect(),
        authority: seen.host.clone().unwrap_or_default(),
    }
}

/// A status whose trailers have every header that arrived, as `x-seen-NAME`.
fn failure(seen: &Answer, request: &EchoRequest) -> Status {
    let mut trailers = MetadataMap::new();
    for (name, value) in &seen.headers {
        let name = AsciiMetadataKey::from_bytes(format!("x-seen-{name}").as_bytes());
        // Binary metadata is not shown.
        if let (Ok(name), Ok(value)) = (name, AsciiMetadataValue::try_from(value.as_str())) {
            trailers.append(name, value);
        }
    }
    let code = i32::try_from(request.code).map_or(Code::Unknown, Code::from_i32);
    Status::with_metadata(code, request.message.clone(), trailers)
}
