//! An API server for tests: a function from a request to its answer.

use std::convert::Infallible;

use kube::Client;
use kube::client::Body;
use serde_json::Value;

/// A client of an API server that answers a method and a path, with its query, so.
pub(crate) fn client(answer: impl Fn(&str, &str) -> (u16, Value) + Clone + Send + 'static) -> Client {
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let path = request.uri().path_and_query().map_or("", |path| path.as_str());
        let (status, body) = answer(request.method().as_str(), path);
        let response = http::Response::builder().status(status).body(Body::from(body.to_string().into_bytes()));
        std::future::ready(Ok::<_, Infallible>(response.unwrap()))
    });
    Client::new(service, "default")
}
