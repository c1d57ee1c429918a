use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::nginx::MAIN;

fn settings() -> Settings {
    Settings::read(&BTreeMap::from([("KONG_DATABASE".to_owned(), "off".to_owned())])).unwrap()
}

/// The files for a configuration whose names have these addresses, or what is answered.
pub(in crate::kong) fn files(configuration: &str, addresses: impl Fn(&str) -> Vec<Ipv4Addr>) -> Result<Files, Value> {
    let configuration: Declarative = serde_json::from_str(configuration).unwrap();
    let model = read::model(&configuration).map_err(|flaws| admin::refused("", &flaws))?;
    let found = model.names().map(|name| (name.to_owned(), addresses(name))).collect();
    Ok(render::files(&model, &found, &settings(), "PEM"))
}

/// An nginx that knows no pattern of this text, and keeps what it is given.
#[derive(Clone, Default)]
pub(in crate::kong) struct Picky(watch::Sender<Vec<String>>);

impl Picky {
    const UNKNOWN: &'static str = "[0-9\"";

    pub(in crate::kong) fn applied(&self) -> Vec<String> {
        self.0.borrow().clone()
    }

    /// Waits until it is given something.
    pub(in crate::kong) async fn first(&self) -> String {
        self.0.subscribe().wait_for(|applied| !applied.is_empty()).await.unwrap()[0].clone()
    }
}

impl DataPlane for Picky {
    async fn apply(&mut self, files: &Files) -> anyhow::Result<()> {
        self.test(files).await?;
        self.0.send_modify(|applied| applied.push(files[Path::new(MAIN)].clone()));
        Ok(())
    }

    async fn test(&mut self, files: &Files) -> anyhow::Result<()> {
        match files[Path::new(MAIN)].contains(Self::UNKNOWN) {
            true => Err(anyhow::anyhow!("missing terminating ]")),
            false => Ok(()),
        }
    }

    async fn ended(&mut self) -> anyhow::Error {
        std::future::pending().await
    }

    async fn stop(&mut self) {}
}

/// Every name has one address.
fn one_address(_name: String) -> BoxFuture<'static, Vec<Ipv4Addr>> {
    std::future::ready(vec![Ipv4Addr::new(10, 96, 0, 9)]).boxed()
}

/// A gateway behind this listener, for as long as it is polled.
pub(in crate::kong) async fn behind(listener: TcpListener, nginx: Picky) {
    let (ask, asked) = mpsc::channel(1);
    let mut gateway = Gateway::new(settings(), nginx, "PEM".to_owned(), one_address);
    let api = admin::api(ask, gateway.served.subscribe(), "traditional".to_owned());
    tokio::select! {
        error = gateway.run(asked) => panic!("{error}"),
        served = axum::serve(listener, api) => panic!("{served:?}"),
    }
}

/// What it answers to raw requests.
async fn answers<const N: usize>(nginx: &Picky, requests: [(&str, String); N]) -> [(u16, Value); N] {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = async {
        let mut answers = Vec::new();
        for (line, body) in requests {
            answers.push(ask(address, line, &body).await);
        }
        answers.try_into().unwrap()
    };
    tokio::select! {
        () = behind(listener, nginx.clone()) => unreachable!(),
        answers = asked => answers,
    }
}

async fn ask(address: SocketAddr, line: &str, body: &str) -> (u16, Value) {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head = format!("{line} HTTP/1.1\r\nhost: kong\r\nconnection: close\r\ncontent-length: {}", body.len());
    connection.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

const POST: &str = "POST /config?check_hash=1&flatten_errors=1";

/// A service with these routes, as a controller writes it that writes everything.
fn configuration(routes: &[Value], plugins: &Value) -> String {
    let service = json!({
        "name": "shop.web.80", "host": "web.shop.80.svc", "port": 80, "protocol": "http", "path": "/", "id": "1-2", "enabled": true,
        "connect_timeout": 60000, "read_timeout": 60000, "write_timeout": 60000, "retries": 5, "tls_verify": null,
        "client_certificate": null, "routes": routes,
    });
    let upstream = json!({
        "name": "web.shop.80.svc", "algorithm": "round-robin", "slots": 10000, "hash_on": "none",
        "targets": [{"target": "10.244.0.3:8080", "weight": 100}],
    });
    json!({
        "_format_version": "3.0", "services": [service], "upstreams": [upstream], "plugins": plugins,
        "consumers": [{"username": "somebody"}],
    })
    .to_string()
}

fn route(name: &str, paths: &[&str]) -> Value {
    let tags = [format!("k8s-name:{name}"), "k8s-namespace:shop".to_owned(), "k8s-kind:Ingress".to_owned()];
    json!({"name": name, "paths": paths, "tags": tags, "methods": null, "regex_priority": 0, "strip_path": false})
}

#[tokio::test]
async fn a_configuration_is_served_and_told_of() {
    let nginx = Picky::default();
    let plugin = json!({"name": "request-transformer", "route": {"id": "a"}, "config": {"add": {"headers": ["x:1"]}}});
    let whole = configuration(&[route("a", &["/a/", "~/a$"])], &json!([plugin]));
    let none = String::new;
    let [root, empty, unready, taken, again, ready, status, told, schema, unknown] = answers(
        &nginx,
        [
            ("GET /", none()),
            ("GET /status", none()),
            ("GET /status/ready", none()),
            (POST, whole.clone()),
            (POST, whole.clone()),
            ("GET /status/ready", none()),
            ("GET /status", none()),
            ("GET /config", none()),
            ("GET /schemas/plugins/request-transformer", none()),
            ("GET /consumers", none()),
        ],
    )
    .await;
    let configured = &root.1["configuration"];
    assert_eq!((&configured["database"], &configured["router_flavor"]), (&json!("off"), &json!("traditional")));
    assert_eq!(root.1["version"], VERSION);
    assert_eq!((empty.0, &empty.1["configuration_hash"]), (200, &json!("0".repeat(32))));
    assert_eq!([unready.0, taken.0, again.0, ready.0], [503, 201, 304, 200]);
    assert_ne!(status.1["configuration_hash"], empty.1["configuration_hash"]);
    assert_eq!(told.1["config"], whole);
    assert_eq!(schema.1["fields"][0]["config"]["fields"][3]["add"]["type"], "record");
    assert_eq!((unknown.0, &unknown.1["message"]), (404, &json!("Not found")));
    let [conf] = nginx.applied().try_into().unwrap();
    for line in [
        "location \"/a/\" {",
        "location = \"/a\" {",
        "set $plugin_value_0 \"1\";",
        "proxy_pass \"http://web.shop.80.svc\";",
    ] {
        assert!(conf.contains(line), "{line} in {conf}");
    }
}

#[tokio::test]
async fn a_plugin_with_an_unknown_field_is_named_by_its_tags() {
    let nginx = Picky::default();
    let tags = ["k8s-name:p", "k8s-namespace:shop", "k8s-kind:KongPlugin"];
    let plugin = json!({"name": "request-transformer", "route": "a", "tags": tags, "config": {"adds": {}}});
    let [refused] = answers(&nginx, [(POST, configuration(&[route("a", &["/"])], &json!([plugin])))]).await;
    let expected = json!([{
        "entity_type": "plugin", "entity_name": "request-transformer", "entity_tags": tags,
        "errors": [{"type": "field", "field": "config.adds", "message": "unknown field"}],
    }]);
    assert_eq!((refused.0, &refused.1["flattened_errors"]), (400, &expected));
    assert_eq!(nginx.applied(), [""; 0]);
}

#[tokio::test]
async fn all_routes_that_nginx_refuses_are_named() {
    let nginx = Picky::default();
    let routes = [
        route("a", &["/a"]),
        route("b", &["~/b[0-9"]),
        route("c", &["/c", "~/c"]),
        route("d", &["/d", "~/d[0-9"]),
        route("e", &["/e"]),
    ];
    let good = configuration(&[routes[0].clone(), routes[2].clone(), routes[4].clone()], &json!([]));
    let [refused, taken] = answers(&nginx, [(POST, configuration(&routes, &json!([]))), (POST, good)]).await;
    let entities = refused.1["flattened_errors"].as_array().unwrap();
    let named: Vec<&str> = entities.iter().map(|entity| entity["entity_name"].as_str().unwrap()).collect();
    assert_eq!((refused.0, named, taken.0), (400, vec!["b", "d"], 201));
    assert_eq!(entities[0]["entity_tags"][0], "k8s-name:b");
    let error = &entities[0]["errors"][0];
    assert_eq!((&error["field"], &error["message"]), (&json!("paths"), &json!("missing terminating ]")));
    assert_eq!(nginx.applied().len(), 1);
}

#[tokio::test]
async fn what_is_no_configuration_is_refused_as_a_whole() {
    let nginx = Picky::default();
    let unknown = json!({"_format_version": "9.0"}).to_string();
    let [text, nothing, version, wrong] = answers(
        &nginx,
        [
            (POST, "services: []".to_owned()),
            (POST, "{}".to_owned()),
            (POST, unknown),
            (POST, json!({"_format_version": "3.0", "services": [{"port": "eighty"}]}).to_string()),
        ],
    )
    .await;
    for (answer, said) in [
        (text, "expected a declarative configuration as JSON"),
        (nothing, "missing field `_format_version`"),
        (version, "expected 3.0, found \"9.0\""),
        (wrong, "expected u16"),
    ] {
        assert!(answer.1["message"].as_str().unwrap().contains(said), "{answer:?}");
        assert_eq!((answer.0, &answer.1["flattened_errors"]), (400, &json!([])));
    }
}

#[test]
fn what_would_go_elsewhere_or_pass_unguarded_is_refused() {
    let said = |change: &dyn Fn(&mut Value)| {
        let mut whole: Value = serde_json::from_str(&configuration(&[route("a", &["/"])], &json!([]))).unwrap();
        change(&mut whole);
        let refused = files(&whole.to_string(), |_| Vec::new()).err();
        refused.map(|refused| refused["flattened_errors"][0]["errors"][0].clone())
    };
    assert_eq!(said(&|_| {}), None, "the control");
    let set = |pointer: &'static str, value: Value| {
        move |whole: &mut Value| {
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            whole.pointer_mut(parent).unwrap()[field] = value.clone();
        }
    };
    for (pointer, value, field) in [
        ("/services/0/routes/0/methods", json!(["GET"]), "methods"),
        ("/services/0/routes/0/headers", json!({"x": ["1"]}), "headers"),
        ("/services/0/routes/0/expression", json!("http.path == \"/\""), "expression"),
        ("/services/0/routes/0/hosts", json!(["a; b"]), "hosts"),
        ("/services/0/routes/0/paths", json!(["a"]), "paths"),
        ("/services/0/routes/0/protocols", json!(["tcp"]), "protocols"),
        ("/services/0/routes/0/https_redirect_status_code", json!(200), "https_redirect_status_code"),
        ("/services/0/path", json!("/api"), "path"),
        ("/services/0/host", json!("a; b"), "host"),
        ("/services/0/protocol", json!("ws"), "protocol"),
        ("/services/0/tls_verify", json!(true), "tls_verify"),
        ("/upstreams/0/algorithm", json!("least-connections"), "algorithm"),
        ("/upstreams/0/host_header", json!("a\nb: c"), "host_header"),
        ("/upstreams/0/targets", json!([{"target": "[::1]:80"}]), "target"),
        ("/upstreams/0/targets", json!([{"target": "10.0.0.1:80", "weight": 7}]), "weight"),
        ("/plugins", json!([{"name": "acl", "route": "a"}]), "name"),
        ("/plugins", json!([{"name": "request-transformer", "route": "none"}]), "route"),
        ("/plugins", json!([{"name": "request-transformer", "consumer": "somebody"}]), "consumer"),
        ("/plugins", json!([{"name": "request-transformer"}, {"name": "request-transformer"}]), "name"),
        ("/certificates", json!([{"cert": "C", "key": "K", "snis": [{"name": "a b"}]}]), "snis"),
    ] {
        let found = said(&set(pointer, value.clone()));
        assert_eq!(found.map(|found| found["field"].clone()), Some(json!(field)), "{pointer}: {value}");
    }
    assert_eq!(said(&set("/plugins", json!([{"name": "acl", "enabled": false}]))), None);
}

#[test]
fn patterns_come_by_priority_and_then_by_length() {
    let mut first = route("a", &["~/[a-c]"]);
    first["regex_priority"] = json!(1);
    let routes = [route("b", &["~/[a-f]+"]), route("c", &["~/[a-g]{2,3}"]), first];
    let files = files(&configuration(&routes, &json!([])), |_| Vec::new()).unwrap();
    let lines = files[Path::new(MAIN)].lines().map(str::trim);
    let order: Vec<&str> = lines.filter_map(|line| line.strip_prefix("location ~ ")).collect();
    assert_eq!(order, ["\"^/[a-c]\" {", "\"^/[a-g]{2,3}\" {", "\"^/[a-f]+\" {"]);
}

#[tokio::test]
async fn names_are_looked_up_again() {
    let nginx = Picky::default();
    let mut gateway = Gateway::new(settings(), nginx.clone(), "PEM".to_owned(), |_| std::future::ready(vec![]).boxed());
    let mut whole: Value = serde_json::from_str(&configuration(&[route("a", &["/"])], &json!([]))).unwrap();
    whole["upstreams"][0]["targets"] = json!([{"target": "web.shop.svc:80"}]);
    assert_eq!(gateway.take(whole.to_string()).await, Answer::Taken);
    gateway.look_again().await;
    assert_eq!(nginx.applied().len(), 1, "it is no news that there is none");
    gateway.look_up = one_address;
    gateway.look_again().await;
    let [missing, there] = nginx.applied().try_into().unwrap();
    let line = "server 10.96.0.9:80 max_fails=0;";
    assert!(!missing.contains(line) && there.contains(line), "{there}");
}
