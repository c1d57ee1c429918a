//! An API server for tests: a function from a request to its answer.

use std::convert::Infallible;

use kube::Client;
use kube::client::Body;
use serde_json::Value;

use super::{By, Reach};
use crate::Kind;

/// A client of an API server that answers a method and a path, with its query, so.
pub(super) fn client(answer: impl Fn(&str, &str) -> (u16, Value) + Clone + Send + 'static) -> Client {
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let path = request.uri().path_and_query().map_or("", |path| path.as_str());
        let (status, body) = answer(request.method().as_str(), path);
        let response = http::Response::builder().status(status).body(Body::from(body.to_string().into_bytes()));
        std::future::ready(Ok::<_, Infallible>(response.unwrap()))
    });
    Client::new(service, "default")
}

/// The way to it, for messages.
pub(super) fn reach() -> Reach {
    Reach {
        kind: Kind::Existing,
        kubeconfig: "kubeconfig".into(),
        context: "fake".to_owned(),
        image: crate::IMAGE.to_owned(),
        entrance: By::default(),
        publishes: false,
        merged: None,
    }
}
