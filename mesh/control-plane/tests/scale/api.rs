//! An API server that has lists and watches of a large cluster and nothing else. The embedded one checks, stores and merges
//! every object, which in a debug build takes minutes for so many.

use std::{collections::HashMap, convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Query, State},
    http::Uri,
    serve::ListenerExt,
};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

use super::objects::Large;

/// Objects of a page, where the client does not say.
const PAGE: usize = 500;

/// The server, and the changes since it began.
#[derive(Clone)]
pub struct Api(Arc<watch::Sender<Vec<Change>>>);

#[derive(Clone)]
struct Change {
    /// The plural of its kind.
    resource: &'static str,
    event: Arc<str>,
}

impl Api {
    /// Starts it; also a kubeconfig for it.
    pub async fn start() -> (Self, String) {
        let api = Self(Arc::new(watch::Sender::new(Vec::new())));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(api.clone());
        // Else an event could wait for the acknowledgement of the one before it.
        let listener = listener.tap_io(|connection| connection.set_nodelay(true).unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let kubeconfig = json!({
            "clusters": [{"name": "large", "cluster": {"server": server}}],
            "users": [{"name": "large", "user": {}}],
            "contexts": [{"name": "large", "context": {"cluster": "large", "user": "large"}}],
            "current-context": "large",
        });
        (api, kubeconfig.to_string())
    }

    /// Tells the watches of a resource that an object is this now.
    pub fn put(&self, resource: &'static str, mut object: Value) {
        self.0.send_modify(|changes| {
            object["metadata"]["resourceVersion"] = json!((changes.len() + 1).to_string());
            let event = format!("{}\n", json!({"type": "MODIFIED", "object": object}));
            changes.push(Change { resource, event: event.into() });
        });
    }

    /// The events of a resource after a revision, which is the number of the changes until then.
    fn watch(self, resource: String, after: usize) -> Body {
        let events = stream::unfold((self.0.subscribe(), after), move |(mut changes, mut seen)| {
            let resource = resource.clone();
            async move {
                loop {
                    let next = changes.borrow_and_update().get(seen).cloned();
                    match next {
                        Some(change) => {
                            seen += 1;
                            if change.resource == resource {
                                return Some((change.event, (changes, seen)));
                            }
                        }
                        None => changes.changed().await.ok()?,
                    }
                }
            }
        });
        Body::from_stream(events.map(|event| Ok::<_, Infallible>(event.to_string())))
    }
}

async fn answer(State(api): State<Api>, uri: Uri, Query(query): Query<HashMap<String, String>>) -> Body {
    let resource = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    let number = |name: &str| query.get(name).and_then(|text| text.parse::<usize>().ok());
    if query.contains_key("watch") {
        return api.watch(resource, number("resourceVersion").unwrap_or_default());
    }
    let start = number("continue").unwrap_or_default();
    let size = number("limit").unwrap_or(PAGE);
    let (items, more) = match resource.as_str() {
        "services" => page(Large::services(), start, size, |service| service.object().to_string()),
        "endpointslices" => page(Large::slices(), start, size, |(service, number)| service.slice(number).to_string()),
        "pods" => page(Large::pods(), start, size, |(service, number)| service.pod(number)),
        _ => (String::new(), false),
    };
    let mut metadata = json!({"resourceVersion": "0"});
    if more {
        metadata["continue"] = json!((start + size).to_string());
    }
    format!(r#"{{"kind":"List","apiVersion":"v1","metadata":{metadata},"items":[{items}]}}"#).into()
}

/// The objects of a page, and whether there are more. Only these are made.
fn page<T>(all: impl Iterator<Item = T>, start: usize, size: usize, object: impl Fn(T) -> String) -> (String, bool) {
    let mut rest = all.skip(start);
    let items: Vec<_> = rest.by_ref().take(size).map(object).collect();
    (items.join(","), rest.next().is_some())
}
