//! The control plane against the embedded cluster's API server, with the objects and the rights it is installed with.
#![allow(clippy::unwrap_used)] // all of this file is test code, its helpers too

mod cluster;
mod embedded_cluster {
    mod destination;
    mod identity;
    mod policies;
    mod slices;
    mod statuses;
}

use std::time::Duration;

use cluster::{api_of, api_server, client, kubeconfig};
use kube::{
    Client,
    api::{Patch, PatchParams},
};
use meshgate_api::Running;
use meshgate_store::Store;
use serde_json::Value;
use tokio::{net::TcpListener, time::timeout};
use tonic::Streaming;

/// Long enough for a loaded machine; a test that passes never waits for it.
const DEADLINE: Duration = Duration::from_secs(20);

async fn apply(client: &Client, object: &Value) {
    let name = object["metadata"]["name"].as_str().unwrap();
    let patch = Patch::Apply(object);
    api_of(client, object).patch(name, &PatchParams::apply("test").force(), &patch).await.unwrap();
}

/// An API server with the control plane's manifests: who may everything there, and who may what they say. It ends when it is dropped.
async fn installed() -> (Running, Client, Client) {
    let server = api_server(Store::new()).await;
    let admin = client(kubeconfig(&server, None)).await;
    let options = meshgate_inject::Options { gateway_api: true, ..meshgate_inject::Options::default() };
    for manifest in meshgate_inject::control_plane_manifests(&options) {
        apply(&admin, &manifest).await;
    }
    let token = server.tokens().issue("linkerd", "linkerd-destination", &[], Duration::from_secs(3600)).unwrap().token;
    let own = client(kubeconfig(&server, Some(token))).await;
    (server, admin, own)
}

/// A port to serve on, and where clients find it.
async fn listening() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    (listener, uri)
}

async fn next<T>(stream: &mut Streaming<T>) -> T {
    timeout(DEADLINE, stream.message()).await.expect("an answer in time").unwrap().expect("an open stream")
}
