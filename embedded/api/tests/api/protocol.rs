//! The edges of the protocol, spoken over a bare socket.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::cluster::{Cluster, PATIENCE};
use crate::kube_rs::widgets;

/// Sends a request as the administrator over the Unix socket (plain HTTP there); status and body.
pub async fn ask(cluster: &Cluster, method: &str, path: &str, headers: &[&str], body: &str) -> (u16, String) {
    let token = format!("authorization: Bearer {}", cluster.running.credentials().admin_token());
    let mut all = vec![token.as_str()];
    all.extend(headers);
    send(cluster, method, path, &all, body).await
}

/// The same with exactly these headers.
async fn send(cluster: &Cluster, method: &str, path: &str, headers: &[&str], body: &str) -> (u16, String) {
    let (head, body) = exchange(cluster, method, path, headers, body).await;
    (code_of(&head), body)
}

fn code_of(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

/// The whole head of an answer, and its body.
async fn exchange(cluster: &Cluster, method: &str, path: &str, headers: &[&str], body: &str) -> (String, String) {
    let mut stream = UnixStream::connect(cluster.socket()).await.unwrap();
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nhost: api\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for header in headers {
        request.push_str(&format!("{header}\r\n"));
    }
    request.push_str(&format!("\r\n{body}"));
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer in time").unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    (head.to_owned(), if chunked { dechunked(body) } else { body.to_owned() })
}

fn dechunked(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        text.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    text
}

/// Method, path, headers, body; the code and a part of the message that come back.
type Case = (&'static str, &'static str, &'static [&'static str], &'static str, u16, &'static str);

pub const JSON: &str = "content-type: application/json";

#[tokio::test]
async fn who_has_no_credentials_sees_health_and_version_only() {
    let cluster = Cluster::start().await;
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(send(&cluster, "GET", path, &[], "").await.0, 200, "{path}");
    }
    let (code, body) = send(&cluster, "GET", "/api/v1/namespaces", &[], "").await;
    assert_eq!(code, 403);
    assert!(body.contains("User \\\"system:anonymous\\\" cannot list resource \\\"namespaces\\\""), "{body}");
    let (code, body) = send(&cluster, "GET", "/apis", &[], "").await;
    assert_eq!(
        (code, body.contains("forbidden: User \\\"system:anonymous\\\" cannot get path \\\"/apis\\\"")),
        (403, true),
        "{body}"
    );
    let (code, body) = send(&cluster, "GET", "/healthz", &["authorization: Bearer wrong"], "").await;
    assert_eq!((code, body.contains("\"reason\":\"Unauthorized\"")), (401, true), "{body}");
}

#[tokio::test]
async fn wrong_requests_get_kubernetes_answers() {
    let cluster = Cluster::start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#;
    let cases: &[Case] = &[
        ("GET", "/apis/nope.io/v1/things", &[], "", 404, "the server could not find the requested resource"),
        ("GET", "/api/v1/configmaps/a", &[], "", 404, "the server could not find the requested resource"),
        ("GET", "/api/v1/namespaces/default/nodes", &[], "", 404, "the server could not find the requested resource"),
        ("GET", "/apis/apps/v2/deployments", &[], "", 404, "the server could not find the requested resource"),
        ("GET", "/openapi/v2", &[], "", 404, "the server could not find the requested resource"),
        (
            "GET",
            "/api/v1/namespaces/default/pods/x/nope",
            &[],
            "",
            404,
            "the server could not find the requested resource",
        ),
        ("GET", "/api/v1/namespaces/default/configmaps/a", &[], "", 404, "configmaps \\\"a\\\" not found"),
        ("POST", "/api/v1/configmaps", &[JSON], map, 405, "the server does not allow this method"),
        ("PUT", maps, &[JSON], map, 405, "the server does not allow this method"),
        (
            "GET",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            &[],
            "",
            405,
            "the server does not allow this method",
        ),
        ("POST", maps, &["content-type: text/html"], "<p>", 415, "accepted media types include"),
        ("PATCH", "/api/v1/namespaces/default/configmaps/a", &[JSON], "{}", 415, "application/merge-patch+json"),
        ("POST", maps, &[JSON], "{", 400, "json parse error"),
        ("POST", maps, &[JSON], "", 400, "an object was expected"),
        ("POST", maps, &[JSON], "[]", 400, "must be of type ConfigMap"),
        (
            "POST",
            maps,
            &[JSON],
            r#"{"apiVersion":"v1","kind":"Secret"}"#,
            400,
            "does not match the expected kind (ConfigMap)",
        ),
        (
            "POST",
            maps,
            &[JSON],
            r#"{"metadata":{"name":"a","namespace":"other"}}"#,
            400,
            "does not match the namespace",
        ),
        ("POST", "/api/v1/namespaces/nope/configmaps", &[JSON], map, 404, "namespaces \\\"nope\\\" not found"),
        ("POST", maps, &[JSON], r#"{"metadata":{"name":"A_b"}}"#, 422, "Invalid"),
        ("GET", "/api/v1/configmaps?labelSelector=a%20b%20c", &[], "", 400, "BadRequest"),
        (
            "GET",
            "/api/v1/pods?fieldSelector=status.phase=Running,spec.priority=1",
            &[],
            "",
            400,
            "field label not supported: spec.priority",
        ),
        ("GET", "/api/v1/pods?watch=1&fieldSelector=spec.priority=1", &[], "", 400, "field label not supported"),
        (
            "DELETE",
            "/api/v1/namespaces/default/configmaps?fieldSelector=data.a=b",
            &[],
            "",
            400,
            "is not a known field selector",
        ),
        ("GET", "/api/v1/configmaps?limit=x", &[], "", 400, "limit"),
        ("GET", "/api/v1/configmaps?watch=1&sendInitialEvents=true", &[], "", 422, "resourceVersionMatch"),
        ("GET", "/api/v1/configmaps", &["accept: text/html"], "", 406, "only the following media types are accepted"),
        (
            "POST",
            "/api/v1/namespaces/default/configmaps?fieldValidation=Strict",
            &[JSON],
            r#"{"metadata":{"name":"a","name":"a"}}"#,
            400,
            "duplicate field",
        ),
        (
            "PATCH",
            "/api/v1/namespaces/default/configmaps/a",
            &["content-type: application/apply-patch+yaml"],
            map,
            422,
            "fieldManager",
        ),
        ("DELETE", "/api/v1/namespaces/default/configmaps/a", &[], "", 404, "configmaps \\\"a\\\" not found"),
        ("GET", "/api/v1/namespaces/default/pods/x/exec?command=a", &[], "", 404, "pods \\\"x\\\" not found"),
    ];
    for (method, path, headers, body, code, message) in cases {
        let (got, answer) = ask(&cluster, method, path, headers, body).await;
        assert_eq!(got, *code, "{method} {path} {body}: {answer}");
        assert!(answer.contains(message), "{method} {path} {body}: {answer}");
        let status: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(
            (&status["kind"], &status["status"], &status["code"]),
            (&json!("Status"), &json!("Failure"), &json!(code))
        );
    }
    let (_, list) = ask(&cluster, "GET", "/api/v1/namespaces/default/configmaps", &[], "").await;
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["items"], json!([]), "nothing wrong was stored");
    // The control: the same request without its mistake is taken.
    assert_eq!(ask(&cluster, "POST", maps, &[JSON], map).await.0, 201);
}

#[tokio::test]
async fn an_apply_says_what_it_is_and_sets_what_its_kind_has() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces/default/configmaps/a?fieldManager=t";
    let apply = &["content-type: application/apply-patch+yaml"];
    let whole = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "b"}});
    let with = |pointer: &str, value: Value| {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let mut object = whole.clone();
        object.pointer_mut(parent).unwrap()[key] = value;
        object
    };
    let untyped = "failed to create typed patch object (/a; /v1, Kind=ConfigMap): ";
    let twice = "metadata.finalizers: duplicate entries for key";
    let cases = [
        (with("/bogus", json!(1)), 500, format!("{untyped}.bogus: field not declared in schema")),
        (with("/metadata/bogus", json!(1)), 500, format!("{untyped}.metadata.bogus: field not declared in schema")),
        (with("/metadata/finalizers", json!(["a/b", "a/b"])), 500, format!("{untyped}.{twice}")),
        (with("/kind", Value::Null), 400, "invalid object type: /v1, Kind=".to_owned()),
        (with("/apiVersion", Value::Null), 400, "invalid object type: /, Kind=ConfigMap".to_owned()),
        (with("/apiVersion", json!("e.io/v2")), 400, "invalid object type: e.io/v2, Kind=ConfigMap".to_owned()),
        (
            with("/metadata/name", json!("")),
            400,
            "the name of the object (a based on URL) was undeterminable: name must be provided".to_owned(),
        ),
        (with("/metadata/managedFields", json!([])), 400, "metadata.managedFields must be nil".to_owned()),
    ];
    for (object, code, message) in cases {
        let (got, answer) = ask(&cluster, "PATCH", path, apply, &object.to_string()).await;
        let status: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(got, code, "{object}: {answer}");
        assert!(status["message"].as_str().unwrap().starts_with(&message), "{object}: {answer}");
    }
    assert_eq!(ask(&cluster, "PATCH", path, apply, &whole.to_string()).await.0, 201, "the control");
}

#[tokio::test]
async fn fields_that_should_not_be_there_are_warned_of() {
    let cluster = Cluster::start().await;
    let token = format!("authorization: Bearer {}", cluster.running.credentials().admin_token());
    let maps = "/api/v1/namespaces/default/configmaps";
    let warnings = async |method: &str, path: &str, kind: &str, body: &str| {
        let kind = format!("content-type: {kind}");
        let (head, body) = exchange(&cluster, method, path, &[&token, &kind], body).await;
        assert!([200, 201].contains(&code_of(&head)), "{method} {path}: {body}");
        let warnings = head.lines().filter_map(|line| line.strip_prefix("warning: 299 - "));
        warnings.map(str::to_owned).collect::<Vec<_>>()
    };
    let map = |name: &str| format!(r#"{{"metadata":{{"name":"{name}"}},"bogus":1,"data":{{"a":"x","a":"y"}}}}"#);
    let both = [r#""duplicate field \"data.a\"""#, r#""unknown field \"bogus\"""#];
    let json = "application/json";
    assert_eq!(warnings("POST", maps, json, &map("a")).await, both, "the default");
    assert_eq!(warnings("POST", &format!("{maps}?fieldValidation=Warn"), json, &map("b")).await, both);
    let ignored = warnings("POST", &format!("{maps}?fieldValidation=Ignore"), json, &map("c")).await;
    assert!(ignored.is_empty(), "{ignored:?}");
    let path = format!("{maps}/a");
    assert_eq!(warnings("PUT", &path, json, &map("a")).await, both);
    assert_eq!(warnings("PATCH", &path, "application/merge-patch+json", r#"{"bogus":1}"#).await, both[1..]);
    let operation = r#"[{"op":"add","path":"/data/b","value":"z","foo":1}]"#;
    let told = warnings("PATCH", &path, "application/json-patch+json", operation).await;
    assert_eq!(told, [r#""json patch unknown field \"[0].foo\"""#]);
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d}\ndata:\n  a: x\n  a: y\n";
    let told = warnings("PATCH", &format!("{maps}/d?fieldManager=t"), "application/apply-patch+yaml", yaml).await;
    assert_eq!(told, both[..1]);
    let strict = format!("{maps}/e?fieldManager=t&fieldValidation=Strict");
    let headers = ["content-type: application/apply-patch+yaml"];
    let (code, body) = ask(&cluster, "PATCH", &strict, &headers, &yaml.replace("name: d", "name: e")).await;
    assert_eq!((code, body.contains("duplicate field")), (400, true), "{body}");
}

#[tokio::test]
async fn writes_that_lose_what_an_object_is() {
    let cluster = Cluster::start().await;
    cluster.put("apiextensions.k8s.io", "customresourcedefinitions", "", widgets());
    let path = "/apis/example.org/v1/namespaces/default/widgets";
    let whole = json!({
        "apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"host": "w.test", "replicas": 2},
    });
    let without = |field: &str| {
        let mut object = whole.clone();
        object.as_object_mut().unwrap().remove(field);
        object.to_string()
    };
    let one = format!("{path}/w");
    let merge = "content-type: application/merge-patch+json";
    let nameless = "the name of the object (w based on URL) was undeterminable: name must be provided";
    let other_version = "the API version in the data () does not match the expected API version (example.org/v1)";
    let invalid = |problem: &str| format!("Widget.example.org \"w\" is invalid: metadata.{problem}");
    assert_eq!(ask(&cluster, "POST", path, &[JSON], &whole.to_string()).await.0, 201);
    let patch = |metadata: Value| ("PATCH", one.as_str(), merge, json!({"metadata": metadata}).to_string());
    let time = "2026-01-01T00:00:00Z";
    let both = r#"{"orphanDependents":true,"propagationPolicy":"Foreground"}"#.to_owned();
    let cases = [
        (("POST", path, JSON, without("kind")), 400, "the object provided is unrecognized".to_owned()),
        (("POST", path, JSON, without("apiVersion")), 400, other_version.to_owned()),
        (("PUT", one.as_str(), JSON, without("metadata")), 400, nameless.to_owned()),
        (patch(Value::Null), 400, nameless.to_owned()),
        (patch(json!({"uid": "z"})), 422, invalid("uid: Invalid value: \"z\": field is immutable")),
        (
            patch(json!({"deletionTimestamp": time})),
            422,
            invalid(&format!("deletionTimestamp: Invalid value: \"{time}\": field is immutable")),
        ),
        (
            patch(json!({"resourceVersion": ""})),
            422,
            invalid("resourceVersion: Invalid value: 0: must be specified for an update"),
        ),
        (("DELETE", one.as_str(), JSON, both), 422, "DeleteOptions.meta.k8s.io".to_owned()),
    ];
    for ((method, path, content_type, body), code, message) in cases {
        let (got, answer) = ask(&cluster, method, path, &[content_type], &body).await;
        let status: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(got, code, "{method} {body}: {answer}");
        assert!(status["message"].as_str().unwrap().starts_with(&message), "{method} {body}: {answer}");
    }
    let (code, answer) = ask(&cluster, "PATCH", &one, &[merge], r#"{"spec":{"replicas":3}}"#).await;
    assert_eq!(code, 200, "the control: {answer}");
}

#[tokio::test]
async fn lists_and_watches_of_another_time() {
    let cluster = Cluster::start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    for name in ["a", "b", "c"] {
        cluster.put("", "configmaps", "default", json!({"metadata": {"name": name}}));
    }
    let get = async |path: &str| {
        let (code, body) = ask(&cluster, "GET", path, &[], "").await;
        (code, serde_json::from_str::<Value>(&body).unwrap())
    };
    let token = format!("authorization: Bearer {}", cluster.running.credentials().admin_token());
    for path in [maps.to_owned(), format!("{maps}/a")] {
        let path = format!("{path}?resourceVersion=99999999999999");
        let (head, body) = exchange(&cluster, "GET", &path, &[&token], "").await;
        let status: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((code_of(&head), &status["reason"]), (504, &json!("Timeout")), "{path}: {body}");
        assert_eq!(status["details"]["causes"][0]["reason"], "ResourceVersionTooLarge", "client-go looks for it");
        assert!(head.contains("retry-after: 1"), "{head}");
    }
    let message = "resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax";
    let (code, status) = get(&format!("{maps}/a?resourceVersion=x")).await;
    assert_eq!((code, &status["message"]), (500, &json!(message)));
    let (code, status) = get(&format!("{maps}?resourceVersion=x")).await;
    assert_eq!((code, &status["message"]), (400, &json!(format!("invalid resource version: {message}"))));
    let (code, event) = get(&format!("{maps}?watch=1&resourceVersion=5")).await;
    assert_eq!((code, &event["type"], &event["object"]["code"]), (200, &json!("ERROR"), &json!(410)));
    let (code, status) = get(&format!("{maps}?watch=1&resourceVersionMatch=NotOlderThan")).await;
    assert_eq!((code, &status["details"]["kind"]), (422, &json!("ListOptions")));
    let (code, one) = get(&format!("{maps}/a?watch=true")).await;
    assert_eq!((code, &one["kind"]), (200, &json!("ConfigMap")), "one object is no watch");
}

#[tokio::test]
async fn limits_of_lists_and_of_what_is_deleted() {
    let cluster = Cluster::start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    for name in ["a", "b", "c"] {
        cluster.put("", "configmaps", "default", json!({"metadata": {"name": name}}));
    }
    let names = async |method: &str, query: &str| {
        let (code, body) = ask(&cluster, method, &format!("{maps}?{query}"), &[], "").await;
        assert_eq!(code, 200, "{body}");
        let list: Value = serde_json::from_str(&body).unwrap();
        let name = |item: &Value| item["metadata"]["name"].as_str().unwrap().to_owned();
        let names: Vec<String> = list["items"].as_array().unwrap().iter().map(name).collect();
        (names, list["metadata"].clone())
    };
    assert_eq!(names("GET", "limit=-1").await.0, ["a", "b", "c"]);
    let (deleted, metadata) = names("DELETE", "limit=1").await;
    assert_eq!((deleted, &metadata["remainingItemCount"]), (vec!["a".to_owned()], &json!(2)));
    let next = metadata["continue"].as_str().unwrap();
    assert_eq!(names("DELETE", &format!("limit=1&continue={next}")).await.0, ["b"]);
    assert_eq!(names("GET", "").await.0, ["c"]);
}

#[tokio::test]
async fn dry_runs_leave_nothing() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let map = r#"{"metadata":{"name":"a"}}"#;
    assert_eq!(ask(&cluster, "POST", &format!("{path}?dryRun=All"), &[JSON], map).await.0, 201);
    assert_eq!(ask(&cluster, "GET", &format!("{path}/a"), &[], "").await.0, 404);
    assert_eq!(ask(&cluster, "POST", &format!("{path}?dryRun=Some"), &[JSON], map).await.0, 422);
}

#[tokio::test]
async fn a_watch_list_sends_what_is_there_and_then_the_mark() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
                &allowWatchBookmarks=true&resourceVersion=5&timeoutSeconds=1";
    let (code, body) =
        ask(&cluster, "GET", path, &["accept: application/vnd.kubernetes.protobuf,application/json"], "").await;
    assert_eq!(code, 200);
    let events: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (bookmark, added) = events.split_last().unwrap();
    assert_eq!(added.len(), 4);
    assert!(added.iter().all(|event| event["type"] == "ADDED" && event["object"]["kind"] == "Namespace"));
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "Namespace");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert!(bookmark["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(bookmark["object"]["metadata"].get("creationTimestamp"), None);
    // Without bookmarks there is no mark either.
    let path = path.replace("&allowWatchBookmarks=true", "");
    let (_, body) = ask(&cluster, "GET", &path, &[], "").await;
    let events: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events, added);
}

/// Clients look for the reason in the stream.
#[tokio::test]
async fn a_watch_from_a_revision_that_is_not_kept_says_so_and_ends() {
    let cluster = Cluster::start().await;
    for revision in ["1", "5", "99999999999999"] {
        let path = format!("/api/v1/configmaps?watch=1&resourceVersion={revision}");
        let (code, body) = ask(&cluster, "GET", &path, &[], "").await;
        assert_eq!(code, 200, "{body}");
        let event: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&event["type"], &event["object"]["kind"]), (&json!("ERROR"), &json!("Status")), "{body}");
        let status = &event["object"];
        assert_eq!((&status["code"], &status["reason"]), (&json!(410), &json!("Expired")), "{body}");
        let message = status["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("too old resource version: {revision} (")), "{message}");
    }
}

/// Other requests may be on the same connection.
#[tokio::test]
async fn a_json_patch_that_does_not_fit_leaves_the_connection_and_the_object() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let map = r#"{"metadata":{"name":"a"},"data":{"a":"x","b":"y"}}"#;
    assert_eq!(ask(&cluster, "POST", path, &[JSON], map).await.0, 201);
    let patch = r#"[{"op":"move","from":"/data/a","path":"/data"},{"op":"test","path":"/data/zz","value":1}]"#;
    let token = cluster.running.credentials().admin_token();
    let common = format!("{path}/a HTTP/1.1\r\nhost: api\r\nauthorization: Bearer {token}\r\n");
    let length = patch.len();
    let requests = format!(
        "PATCH {common}content-type: application/json-patch+json\r\ncontent-length: {length}\r\n\r\n{patch}\
         GET {common}connection: close\r\n\r\n"
    );
    let mut stream = UnixStream::connect(cluster.socket()).await.unwrap();
    stream.write_all(requests.as_bytes()).await.unwrap();
    let mut answers = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answers)).await.expect("answers in time").unwrap();
    let codes: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(codes, ["422", "200"], "{answers}");
    assert!(answers.contains(r#""data":{"a":"x","b":"y"}"#), "{answers}");
}

#[tokio::test]
async fn a_table_watch_sends_its_columns_once() {
    let cluster = Cluster::start().await;
    let accept = "accept: application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let (_, body) = ask(&cluster, "GET", "/api/v1/namespaces?watch=true&timeoutSeconds=1", &[accept], "").await;
    let events: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 4);
    assert_eq!(events[0]["object"]["columnDefinitions"].as_array().unwrap().len(), 3);
    assert_eq!(events[1]["object"]["columnDefinitions"], json!([]));
    assert_eq!(events[1]["object"]["rows"][0]["object"]["kind"], "PartialObjectMetadata");
}

#[tokio::test]
async fn forms_of_an_object() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces/default";
    let (_, yaml) = ask(&cluster, "GET", path, &["accept: application/yaml"], "").await;
    assert!(yaml.contains("kind: Namespace"), "{yaml}");
    let metadata = "accept: application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let (_, body) = ask(&cluster, "GET", path, &[metadata], "").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&body["kind"], &body["spec"]), (&json!("PartialObjectMetadata"), &Value::Null));
    let yaml = "metadata:\n  name: a\n";
    let (code, _) =
        ask(&cluster, "POST", "/api/v1/namespaces/default/configmaps", &["content-type: application/yaml"], yaml).await;
    assert_eq!(code, 201);
    let hpa = r#"{"metadata":{"name":"h"},"spec":{"maxReplicas":3,"scaleTargetRef":{"kind":"Deployment","name":"web","apiVersion":"apps/v1"}}}"#;
    let hpas = |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers");
    assert_eq!(ask(&cluster, "POST", &hpas("v2"), &[JSON], hpa).await.0, 201);
    let (_, body) = ask(&cluster, "GET", &format!("{}/h", hpas("v1")), &[], "").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["apiVersion"], "autoscaling/v1", "the version that was asked for");
}

#[tokio::test]
async fn tls_is_for_the_names_of_the_server() {
    let cluster = Cluster::start().await;
    let port = cluster.running.addresses()[0].port();
    let trusting = |pem: &str| {
        let certificate = reqwest::Certificate::from_pem(pem.as_bytes()).unwrap();
        let address = cluster.running.addresses()[0];
        reqwest::Client::builder()
            .tls_certs_only([certificate])
            .resolve("kubernetes.default.svc", address)
            .resolve("elsewhere.test", address)
            .timeout(Duration::from_secs(10))
            .build()
            .unwrap()
    };
    let client = trusting(cluster.running.ca_pem());
    for host in ["127.0.0.1", "localhost", "kubernetes.default.svc"] {
        let answer = client.get(format!("https://{host}:{port}/healthz")).send().await.unwrap();
        assert_eq!(answer.version(), http::Version::HTTP_2, "{host}");
        assert_eq!(answer.text().await.unwrap(), "ok");
    }
    assert!(client.get(format!("https://elsewhere.test:{port}/healthz")).send().await.is_err());
    let other = Cluster::start().await;
    let stranger = trusting(other.running.ca_pem());
    assert!(stranger.get(format!("https://127.0.0.1:{port}/healthz")).send().await.is_err(), "another cluster's CA");
}

/// A client whose idle connection is ended as it sends its next request has an error that says nothing of what it asked for. Waiting
/// is what is tried here: hyper's own limit is 30 seconds.
#[tokio::test]
async fn a_connection_may_be_idle_for_longer_than_half_a_minute() {
    let cluster = Cluster::start().await;
    let mut stream = UnixStream::connect(cluster.socket()).await.unwrap();
    for pause in [Duration::ZERO, Duration::from_secs(31)] {
        tokio::time::sleep(pause).await;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: api\r\n\r\n").await.unwrap();
        let mut answer = [0; 512];
        let length =
            tokio::time::timeout(PATIENCE, stream.read(&mut answer)).await.expect("an answer in time").unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 200"), "after {pause:?}: {:?}", &answer[..length]);
    }
}

#[tokio::test]
async fn the_server_is_ready_at_once_and_stops_when_told() {
    let begin = std::time::Instant::now();
    let cluster = Cluster::start().await;
    assert_eq!(send(&cluster, "GET", "/readyz", &[], "").await.0, 200);
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}; a few tens of milliseconds on an idle machine");
    let mut open = UnixStream::connect(cluster.socket()).await.unwrap();
    let token = cluster.running.credentials().admin_token();
    let watch =
        format!("GET /api/v1/namespaces?watch=true HTTP/1.1\r\nhost: api\r\nauthorization: Bearer {token}\r\n\r\n");
    open.write_all(watch.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    open.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    tokio::time::timeout(PATIENCE, cluster.running.stop()).await.expect("an open watch does not hold the server");
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, open.read_to_end(&mut rest)).await.expect("the watch ends").unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "the stream ends cleanly");
}
