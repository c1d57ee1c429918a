use std::net::IpAddr;

use futures::FutureExt;
use serde_json::json;

use super::*;
use crate::examples;

fn web() -> Topic {
    Topic::Service(Key::new("default", "web"))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Which of these topics the change wakes.
fn wakes(index: &Index, change: impl FnOnce(&Index)) -> Vec<&'static str> {
    let watched = [
        ("web", web()),
        ("api", Topic::Service(Key::new("default", "api"))),
        ("web ip", Topic::Address(ip("10.96.0.5"))),
        ("pod ip", Topic::Address(ip("10.244.0.7"))),
        ("pod", Topic::Pod(Key::new("default", "p"))),
    ];
    let receivers: Vec<_> = watched
        .into_iter()
        .map(|(name, topic)| {
            let mut receiver = index.0.topics.subscribe(topic);
            receiver.mark_unchanged();
            (name, receiver)
        })
        .collect();
    change(index);
    receivers.into_iter().filter(|(_, receiver)| receiver.has_changed().unwrap()).map(|(name, _)| name).collect()
}

#[test]
fn a_change_wakes_those_it_concerns_and_no_others() {
    let index =
        examples::index([examples::service("web", "10.96.0.5"), examples::slice("web", &[("p", "10.244.0.7", true)])]);
    let apply = |object: Value| wakes(&index, |index| index.apply(&object).unwrap());
    let pod = examples::pod("p", "10.244.0.7");
    assert_eq!(apply(pod.clone()), ["web", "pod ip", "pod"]);
    assert_eq!(apply(pod), [""; 0], "the same object again changes nothing");
    assert_eq!(apply(examples::slice("web", &[])), ["web"]);
    assert_eq!(apply(examples::profile("web", "elsewhere", json!({}))), ["web", "web ip"]);
    assert_eq!(apply(examples::split("s", "v1alpha2", "web", json!([]))), ["web", "web ip"]);
    assert_eq!(apply(examples::split("s", "v1alpha2", "api", json!([]))), ["web", "api", "web ip"]);
    assert_eq!(apply(examples::service("api", "10.96.0.6")), ["api"]);
    let gone = wakes(&index, |index| index.delete(Kind::Service, &Key::new("default", "web")));
    assert_eq!(gone, ["web", "web ip"]);
    assert_eq!(wakes(&index, |index| index.delete(Kind::Service, &Key::new("default", "web"))), [""; 0]);
}

#[test]
fn a_pods_status_that_no_answer_shows_wakes_nobody() {
    let mut pod = examples::pod("p", "10.244.0.7");
    let index = examples::index([pod.clone()]);
    pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    pod["metadata"]["resourceVersion"] = json!("2");
    assert_eq!(wakes(&index, |index| index.apply(&pod).unwrap()), [""; 0]);
}

#[test]
fn routes_hear_of_their_backends() {
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "r", "namespace": "default"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
            "rules": [{"backendRefs": [{"name": "api", "port": 80}]}],
        },
    });
    let index = examples::index([examples::service("web", "10.96.0.5"), route]);
    let woken = wakes(&index, |index| index.apply(&examples::service("api", "10.96.0.6")).unwrap());
    assert_eq!(woken, ["web", "api", "web ip"]);
}

#[test]
fn replace_removes_what_is_not_listed() {
    let index = examples::index([examples::service("web", "10.96.0.5"), examples::service("api", "10.96.0.6")]);
    let api = Object::parse(&examples::service("api", "10.96.0.6")).unwrap();
    assert_eq!(wakes(&index, |index| index.replace(Kind::Service, vec![api])), ["web", "web ip"]);
    assert_eq!(index.count(Kind::Service), 1);
}

#[test]
fn an_address_that_moves_belongs_to_the_new_pod() {
    let index = examples::index([examples::pod("old", "10.244.0.7")]);
    index.apply(&examples::pod("old", "10.244.0.8")).unwrap();
    index.apply(&examples::pod("new", "10.244.0.7")).unwrap();
    let owner = index.look(|state, _| state.pod_by_ip(ip("10.244.0.7")).unwrap().key.clone());
    assert_eq!(owner, Key::new("default", "new"));
}

#[test]
fn other_kinds_are_refused_by_name() {
    let index = Index::new(Cluster::default());
    let error = index.apply(&json!({"apiVersion": "apps/v1", "kind": "Deployment"})).unwrap_err();
    assert!(error.to_string().contains("found apiVersion `apps/v1`, kind `Deployment`"), "{error}");
    let error =
        index.apply(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"ports": 1}}));
    assert!(error.unwrap_err().to_string().starts_with("Service x: expected"));
}

#[tokio::test]
async fn nobody_is_answered_before_everything_is_listed() {
    let index = Index::new(Cluster::default());
    let mut answers = Box::pin(index.follow(web(), |state, _| state.service(&Key::new("default", "web")).is_some()));
    let mut first = futures::StreamExt::next(&mut answers);
    assert_eq!((&mut first).now_or_never(), None);
    index.apply(&examples::service("web", "10.96.0.5")).unwrap();
    assert_eq!((&mut first).now_or_never(), None);
    index.mark_synced();
    assert_eq!(first.await, Some(true));
}
