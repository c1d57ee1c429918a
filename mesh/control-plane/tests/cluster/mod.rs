//! The embedded cluster's API server, without a node.

use std::sync::Arc;

use futures::future::BoxFuture;
use kube::{
    Api, Client,
    api::DynamicObject,
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
};
use meshgate_api::{Credentials, Listener, Running, Server, ServerConfig};
use meshgate_store::{Attach, Exec, LogOptions, PodAccess, Status, Store};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

struct NoPods;

impl PodAccess for NoPods {
    fn logs<'a>(
        &'a self,
        _: &'a str,
        pod: &'a str,
        _: &'a str,
        _: LogOptions,
    ) -> BoxFuture<'a, Result<mpsc::Receiver<Vec<u8>>, Status>> {
        Box::pin(async move { Err(not_here(pod)) })
    }

    fn exec<'a>(
        &'a self,
        _: &'a str,
        pod: &'a str,
        _: &'a str,
        _: Vec<String>,
        _: Attach,
    ) -> BoxFuture<'a, Result<Exec, Status>> {
        Box::pin(async move { Err(not_here(pod)) })
    }

    fn forward<'a>(&'a self, _: &'a str, pod: &'a str, _: u16) -> BoxFuture<'a, Result<TcpStream, Status>> {
        Box::pin(async move { Err(not_here(pod)) })
    }
}

fn not_here(pod: &str) -> Status {
    Status::not_found(&meshgate_store::GroupResource::new("", "pods"), pod)
}

/// Starts the API server over the objects of `store`.
pub async fn api_server(store: Store) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap();
    Server::start(ServerConfig {
        credentials: Credentials::generate(&store).unwrap(),
        store,
        pods: Arc::new(NoPods),
        listeners: vec![Listener::Tcp(listener)],
        names: ServerConfig::default_names(),
        endpoint,
        shutdown: CancellationToken::new(),
    })
    .unwrap()
}

/// How to reach the server with the administrator's rights, or with those of the token.
pub fn kubeconfig(server: &Running, token: Option<String>) -> Kubeconfig {
    let url = format!("https://{}", server.addresses()[0]);
    let mut kubeconfig = Kubeconfig::from_yaml(&server.kubeconfig(&url)).unwrap();
    if let Some(token) = token {
        let user = kubeconfig.auth_infos[0].auth_info.as_mut().unwrap();
        user.token = Some(token.into());
    }
    kubeconfig
}

/// The client of a kubeconfig.
pub async fn client(kubeconfig: Kubeconfig) -> Client {
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// The API that an object belongs to, by its `apiVersion`, `kind` and namespace.
pub fn api_of(client: &Client, object: &Value) -> Api<DynamicObject> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("/apiVersion").split_once('/').unwrap_or(("", text("/apiVersion")));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("/kind")));
    match text("/metadata/namespace") {
        "" => Api::all_with(client.clone(), &resource),
        namespace => Api::namespaced_with(client.clone(), namespace, &resource),
    }
}
