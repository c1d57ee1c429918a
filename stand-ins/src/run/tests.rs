use std::path::PathBuf;
use std::sync::Arc;

use axum::http::{Method, Request, Response};
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedReceiver, unbounded};
use http_body_util::{BodyExt, StreamBody};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::data_plane::DataPlane;
use crate::objects::CONFIG_MAPS;

/// Serves the names of all ConfigMaps, and wants a status on each.
struct Names;

impl Controller for Names {
    fn kinds(&self) -> Vec<Kind> {
        vec![CONFIG_MAPS]
    }

    fn translate(&self, objects: &Objects) -> Translation {
        let status = |object| StatusUpdate::unless_there(CONFIG_MAPS, object, json!({"seen": true}));
        let name = |object: &crate::objects::Object| object.metadata.name.clone().unwrap();
        let names: Vec<String> = objects.all(CONFIG_MAPS).map(name).collect();
        Translation {
            files: [(PathBuf::from("names"), names.join(" "))].into(),
            statuses: objects.all(CONFIG_MAPS).filter_map(status).collect(),
            ..Translation::default()
        }
    }
}

/// Serves the names of all ConfigMaps, unless one is `bad`, and says which they are.
struct Freezes(mpsc::UnboundedSender<String>);

impl Controller for Freezes {
    fn kinds(&self) -> Vec<Kind> {
        vec![CONFIG_MAPS]
    }

    fn translate(&self, objects: &Objects) -> Translation {
        let translation = Names.translate(objects);
        let names = translation.files.values().cloned().collect();
        self.0.send(names).unwrap();
        let bad = objects.get(CONFIG_MAPS, "default", "bad");
        let held = bad.map(|_| Held::whole("one is bad".to_owned())).into_iter().collect();
        Translation { files: translation.files, held, ..Translation::default() }
    }
}

/// Says what it was told to serve.
struct Says(mpsc::UnboundedSender<String>);

impl DataPlane for Says {
    async fn apply(&mut self, files: &Files) -> anyhow::Result<()> {
        self.0.send(files.values().cloned().collect()).unwrap();
        Ok(())
    }

    async fn ended(&mut self) -> anyhow::Error {
        std::future::pending().await
    }

    async fn stop(&mut self) {}
}

fn config_map(name: &str) -> serde_json::Value {
    let metadata = json!({"name": name, "namespace": "default", "resourceVersion": "1", "uid": name});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
}

/// An API server with one ConfigMap whose watch says what is sent, and that never answers a write.
fn api_server(said: UnboundedReceiver<String>, written: mpsc::UnboundedSender<()>) -> Client {
    let said = Arc::new(Mutex::new(Some(said)));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (said, written) = (Arc::clone(&said), written.clone());
        async move {
            if request.method() != Method::GET {
                written.send(()).unwrap();
                return std::future::pending().await;
            }
            let watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            let body = if watch {
                let said = said.lock().take().unwrap_or_else(|| unbounded().1);
                let frame = |text: String| Ok::<_, Infallible>(http_body::Frame::data(text.into()));
                StreamBody::new(said.map(frame)).boxed_unsync()
            } else {
                let list = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "1"},
                                  "items": [config_map("first")]});
                list.to_string().boxed_unsync()
            };
            Ok::<_, Infallible>(Response::new(body))
        }
    });
    Client::new(service, "default")
}

#[tokio::test]
async fn what_is_served_does_not_wait_for_statuses() {
    let ((say, said), (write, mut written), (apply, mut applied)) =
        (unbounded(), mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let client = api_server(said, write);
    let reporter = Reporter::new("test", client.clone(), None);
    let mut plane = Says(apply);
    let test = async {
        assert_eq!(applied.recv().await.unwrap(), "first");
        written.recv().await.unwrap();
        let event = json!({"type": "ADDED", "object": config_map("second")});
        say.unbounded_send(format!("{event}\n")).unwrap();
        applied.recv().await.unwrap()
    };
    let ready = Ready::default();
    let served = tokio::select! {
        error = serve(&client, reporter, &Names, &mut plane, &ready) => panic!("{error}"),
        served = timeout(Duration::from_secs(10), test) => served.expect("the second ConfigMap to be served"),
    };
    assert_eq!(served, "first second");
}

#[tokio::test]
async fn while_everything_is_held_back_what_was_served_goes_on_being_served() {
    let ((say, said), (translate, mut translated), (apply, mut applied)) =
        (unbounded(), mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let client = api_server(said, mpsc::unbounded_channel().0);
    let reporter = Reporter::new("test", client.clone(), None);
    let (controller, mut plane, ready) = (Freezes(translate), Says(apply), Ready::default());
    let test = async {
        for (kind, name, names) in [
            ("", "", "first"),
            ("ADDED", "bad", "bad first"),
            ("ADDED", "second", "bad first second"),
            ("DELETED", "bad", "first second"),
        ] {
            if !kind.is_empty() {
                let event = json!({"type": kind, "object": config_map(name)});
                say.unbounded_send(format!("{event}\n")).unwrap();
            }
            while translated.recv().await.unwrap() != names {}
        }
        [applied.recv().await.unwrap(), applied.recv().await.unwrap()]
    };
    let served = tokio::select! {
        error = serve(&client, reporter, &controller, &mut plane, &ready) => panic!("{error}"),
        served = timeout(Duration::from_secs(10), test) => served.expect("the second ConfigMap to be served"),
    };
    assert_eq!(served, ["first", "first second"]);
}

#[test]
fn who_has_served_nothing_yet_serves_nothing_while_everything_is_held_back() {
    let files = |name: &str| Files::from([(PathBuf::from(name), String::new())]);
    let held = || vec![Held::whole("one is bad".to_owned())];
    for (held, former, served) in [
        (held(), None, None),
        (held(), Some(files("former")), Some(files("former"))),
        (vec![], Some(files("former")), Some(files("next"))),
        (vec![], None, Some(files("next"))),
    ] {
        assert_eq!(unless_held(files("next"), &held, former.as_ref()), served);
    }
    // A part of it goes on, another reason holds back what is left.
    let part = || Held::new(String::new(), |_, _| Some(Files::new()));
    assert_eq!(unless_held(files("next"), &[part()], None), Some(Files::new()));
    assert_eq!(unless_held(files("next"), &[part(), Held::whole(String::new())], None), None);
}
