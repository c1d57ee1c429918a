//! gRPC without generated code: a method is a path, a message is a prost type.

use std::future::Future;

use http::uri::PathAndQuery;
use http::{Request, Response};
use hyper::body::Incoming;
use prost::Message;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use crate::serve::Body;

/// Answers a request as the unary method `call`.
pub(crate) async fn unary<Q, R, F>(
    request: Request<Incoming>,
    call: impl FnMut(tonic::Request<Q>) -> F,
) -> Response<Body>
where
    Q: Message + Default + 'static,
    R: Message + Default + 'static,
    F: Future<Output = Result<tonic::Response<R>, Status>>,
{
    let codec = ProstCodec::<R, Q>::default();
    tonic::server::Grpc::new(codec).unary(tower::service_fn(call), request).await
}

/// The answer to a path that is no method.
pub(crate) fn unimplemented(path: &str) -> Response<Body> {
    Status::unimplemented(format!("unknown method {path}")).into_http()
}

/// Whether a request is a gRPC call, whatever its message format.
pub(crate) fn is_call<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(http::header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// A plaintext channel to `host:port`; it connects when it is first used, and again when it broke.
pub(crate) fn channel(host: &str) -> Result<Channel, tonic::transport::Error> {
    Ok(Endpoint::from_shared(format!("http://{host}"))?.connect_lazy())
}

/// Calls the unary method at `path`.
pub(crate) async fn call<Q, R>(channel: &Channel, path: &str, message: Q) -> Result<R, Status>
where
    Q: Message + Default + 'static,
    R: Message + Default + 'static,
{
    let path = PathAndQuery::try_from(path).map_err(|error| Status::internal(format!("method {path}: {error}")))?;
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let response = client.unary(tonic::Request::new(message), path, ProstCodec::<Q, R>::default()).await?;
    Ok(response.into_inner())
}

/// A code's name as gRPC's Go library prints it and as its metrics label it.
pub(crate) fn code_name(code: Code) -> String {
    match code {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        code => format!("{code:?}"),
    }
}
