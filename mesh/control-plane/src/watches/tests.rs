//! Watches against an API server that has lists, watches and nothing else.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::broadcast};

use super::*;
use crate::{Cluster, Key, examples};

/// One kind: what is listed, and who watches.
struct Collection {
    items: Vec<Value>,
    events: broadcast::Sender<Value>,
}

#[derive(Clone, Default)]
struct ApiServer(Arc<Mutex<HashMap<String, Collection>>>);

impl ApiServer {
    /// An API server with the kinds that every cluster has.
    async fn start() -> (Self, Client) {
        let server = Self::default();
        for path in ["/api/v1/services", "/api/v1/pods", "/api/v1/nodes", "/apis/discovery.k8s.io/v1/endpointslices"] {
            server.install(path);
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let router = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (server, Client::try_from(kube::Config::new(uri)).unwrap())
    }

    fn install(&self, path: &str) {
        self.0.lock().insert(path.into(), Collection { items: Vec::new(), events: broadcast::Sender::new(16) });
    }

    fn event(&self, path: &str, type_: &str, mut object: Value) {
        let mut collections = self.0.lock();
        let collection = collections.get_mut(path).unwrap();
        object["metadata"]["resourceVersion"] = json!("2");
        if type_ == "ADDED" {
            collection.items.push(object.clone());
        }
        // An event before anybody watches is in the list.
        let _ = collection.events.send(json!({"type": type_, "object": object}));
    }

    fn watched(&self, path: &str) -> bool {
        self.0.lock()[path].events.receiver_count() > 0
    }
}

async fn answer(State(server): State<ApiServer>, uri: Uri, Query(query): Query<HashMap<String, String>>) -> Response {
    let collections = server.0.lock();
    let Some(collection) = collections.get(uri.path()) else {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404, "message": "the server could not find the requested resource"});
        return (StatusCode::NOT_FOUND, Json(status)).into_response();
    };
    if !query.contains_key("watch") {
        let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": collection.items});
        return Json(list).into_response();
    }
    let lines = stream::unfold(collection.events.subscribe(), |mut events| async {
        let event = events.recv().await.ok()?;
        Some((Ok::<_, Infallible>(format!("{event}\n")), events))
    });
    Body::from_stream(lines).into_response()
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

const SERVICES: &str = "/api/v1/services";

#[tokio::test]
async fn kinds_that_are_not_installed_stop_nothing_and_are_found_later() {
    let (server, client) = ApiServer::start().await;
    server.event(SERVICES, "ADDED", examples::service("web", "10.96.0.5"));
    let index = Index::new(Cluster::default());
    let _watches = watch(&client, &index);
    eventually("the first listing", || index.is_synced()).await;
    assert_eq!(index.count(Kind::Service), 1);

    for (kind, path, object) in [
        (
            Kind::ServiceProfile,
            "/apis/linkerd.io/v1alpha2/serviceprofiles",
            examples::profile("web", "default", json!({"routes": []})),
        ),
        // Only the older of the versions that are known.
        (
            Kind::TrafficSplit,
            "/apis/split.smi-spec.io/v1alpha1/trafficsplits",
            examples::split("s", "v1alpha1", "web", json!([{"service": "v1", "weight": "1"}])),
        ),
    ] {
        assert_eq!(index.count(kind), 0);
        server.install(path);
        server.event(path, "ADDED", object);
        eventually("the kind being found", || index.count(kind) == 1).await;
    }
}

#[tokio::test]
async fn events_reach_the_index_and_deletions_too() {
    let (server, client) = ApiServer::start().await;
    let index = Index::new(Cluster::default());
    let _watches = watch(&client, &index);
    eventually("the watch", || server.watched(SERVICES)).await;
    let service = examples::service("web", "10.96.0.5");
    server.event(SERVICES, "ADDED", service.clone());
    eventually("the addition", || index.count(Kind::Service) == 1).await;
    server.event(SERVICES, "DELETED", service);
    eventually("the deletion", || index.count(Kind::Service) == 0).await;
}

#[tokio::test]
async fn an_object_that_cannot_be_read_hides_no_other() {
    let (server, client) = ApiServer::start().await;
    let mut broken = examples::service("broken", "10.96.0.6");
    broken["spec"]["ports"] = json!("eighty");
    server.event(SERVICES, "ADDED", broken.clone());
    server.event(SERVICES, "ADDED", examples::service("web", "10.96.0.5"));
    let index = Index::new(Cluster::default());
    let _watches = watch(&client, &index);
    eventually("the watch", || server.watched(SERVICES)).await;
    eventually("the good one", || index.count(Kind::Service) == 1).await;
    // One that was good and is changed into one that cannot be read is gone.
    broken["metadata"]["name"] = json!("web");
    server.event(SERVICES, "MODIFIED", broken);
    eventually("the removal", || index.count(Kind::Service) == 0).await;
}

#[tokio::test]
async fn a_change_is_answered_within_50_ms() {
    let (server, client) = ApiServer::start().await;
    let index = Index::new(Cluster::default());
    let _watches = watch(&client, &index);
    eventually("the watch", || server.watched(SERVICES)).await;
    eventually("the first listing", || index.is_synced()).await;
    let key = Key::new("default", "web");
    let topic = crate::index::Topic::Service(key.clone());
    let answers = index.follow(topic, move |state, _| state.service(&key).map(|service| service.cluster_ips.clone()));
    pin_mut!(answers);
    assert_eq!(answers.next().await, Some(None));
    // The median: a loaded machine may stop any single one for longer.
    let mut times = Vec::new();
    for round in 1..=21 {
        let start = Instant::now();
        server.event(SERVICES, "MODIFIED", examples::service("web", &format!("10.96.0.{round}")));
        let answer = tokio::time::timeout(Duration::from_secs(20), answers.next()).await.unwrap();
        assert_eq!(answer.unwrap().unwrap()[0].to_string(), format!("10.96.0.{round}"));
        times.push(start.elapsed());
    }
    times.sort();
    assert!(times[10] < Duration::from_millis(50), "{times:?}");
}
