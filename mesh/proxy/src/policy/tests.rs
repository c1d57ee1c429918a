use linkerd2_proxy_api::{
    meta::Resource,
    outbound::{OutboundPolicy, ProxyProtocol, proxy_protocol::Http1},
};

use http::{StatusCode, header::HOST};
use linkerd2_proxy_api::http_types;

use super::*;

fn metadata(name: &str) -> Metadata {
    let resource = Resource {
        group: "gateway.networking.k8s.io".into(),
        kind: "HTTPRoute".into(),
        name: name.into(),
        namespace: "ns".into(),
        ..Default::default()
    };
    Metadata { kind: Some(metadata::Kind::Resource(resource)) }
}

fn route(name: &str, hosts: &[matches::host_match::Match], matches: Vec<matches::HttpRouteMatch>) -> api::HttpRoute {
    let backend = http_api::RouteBackend {
        backend: Some(Backend { metadata: Some(metadata(name)), ..Default::default() }),
        ..Default::default()
    };
    let first = http_api::distribution::FirstAvailable { backends: vec![backend] };
    let rule = http_api::Rule {
        matches,
        backends: Some(http_api::Distribution { kind: Some(http_api::distribution::Kind::FirstAvailable(first)) }),
        ..Default::default()
    };
    api::HttpRoute {
        metadata: Some(metadata(name)),
        hosts: hosts.iter().map(|host| matches::HostMatch { r#match: Some(host.clone()) }).collect(),
        rules: vec![rule],
    }
}

fn path(kind: matches::path_match::Kind) -> matches::HttpRouteMatch {
    matches::HttpRouteMatch { path: Some(matches::PathMatch { kind: Some(kind) }), ..Default::default() }
}

fn compiled(routes: Vec<api::HttpRoute>) -> Routes<String> {
    let kind = proxy_protocol::Kind::Http1(Http1 { routes, failure_accrual: None });
    let policy = OutboundPolicy { metadata: Some(metadata("web")), protocol: Some(ProxyProtocol { kind: Some(kind) }) };
    compile(&policy, &Metrics::new(), |backend, _| match &backend.metadata.as_ref()?.kind {
        Some(metadata::Kind::Resource(resource)) => Some(resource.name.clone()),
        _ => None,
    })
    .unwrap()
}

fn chosen(routes: &Routes<String>, uri: &str, host: &str, header: Option<(&str, &str)>) -> Option<String> {
    let mut request = Request::get(uri).header(HOST, host);
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    let request = request.body(()).unwrap();
    let chosen = routes.choose(&request)?;
    chosen.rule().backends().choose(&mut rand::rng(), |_| true).map(|leg| leg.backend.clone())
}

#[test]
fn the_most_specific_match_wins() {
    use matches::path_match::Kind::{Exact, Prefix, Regex};
    let mut with_header = path(Prefix("/a".into()));
    with_header.headers = vec![matches::HeaderMatch {
        name: "x-canary".into(),
        value: Some(matches::header_match::Value::Exact(b"yes".to_vec())),
    }];
    let mut with_query = path(Prefix("/a".into()));
    with_query.query_params = vec![matches::QueryParamMatch {
        name: "v".into(),
        value: Some(matches::query_param_match::Value::Exact("2".into())),
    }];
    let routes = compiled(vec![
        route("all", &[], vec![]),
        route("a", &[], vec![path(Prefix("/a/".into()))]),
        route("canary", &[], vec![with_header]),
        route("query", &[], vec![with_query]),
        route("exact", &[], vec![path(Exact("/a/b".into()))]),
        route("number", &[], vec![path(Regex("/a/[0-9]+".into()))]),
        route("unreadable", &[], vec![path(Regex("(".into()))]),
    ]);
    let table = [
        ("/", None, "all"),
        ("/ab", None, "all"),
        ("/a", None, "a"),
        ("/a/c", Some(("x-canary", "yes")), "canary"),
        ("/a/c", Some(("x-canary", "no")), "a"),
        ("/a/c?v=2", None, "query"),
        ("/a/b", Some(("x-canary", "yes")), "exact"),
        ("/a/12", None, "number"),
        ("/a/12/x", None, "a"),
    ];
    for (uri, header, expected) in table {
        assert_eq!(chosen(&routes, uri, "web", header).as_deref(), Some(expected), "{uri} {header:?}");
    }
}

#[test]
fn hosts_come_first() {
    use matches::host_match::{Match, Suffix};
    let suffix = Match::Suffix(Suffix { reverse_labels: vec!["com".into(), "example".into()] });
    let routes = compiled(vec![
        route("suffix", &[suffix], vec![path(matches::path_match::Kind::Exact("/a".into()))]),
        route("exact", &[Match::Exact("www.example.com".into())], vec![]),
    ]);
    assert_eq!(chosen(&routes, "/a", "WWW.example.com:8080", None).as_deref(), Some("exact"));
    assert_eq!(chosen(&routes, "/a", "api.example.com", None).as_deref(), Some("suffix"));
    assert_eq!(chosen(&routes, "/b", "api.example.com", None), None);
    assert_eq!(chosen(&routes, "/a", "badexample.com", None), None);
}

#[test]
fn filters_change_headers_and_fail_requests() {
    let header = |name: &str, value: &str| http_types::Headers {
        headers: vec![http_types::headers::Header { name: name.into(), value: value.as_bytes().to_vec() }],
    };
    let modifier = matches::RequestHeaderModifier {
        set: Some(header("x-set", "1")),
        add: Some(header("x-add", "2")),
        remove: vec!["x-remove".into()],
    };
    let mut with_filters = route("a", &[], vec![]);
    let filter = |kind| http_api::Filter { kind: Some(kind) };
    with_filters.rules[0].filters = vec![filter(http_api::filter::Kind::RequestHeaderModifier(modifier))];
    let routes = compiled(vec![with_filters.clone()]);
    let mut request = Request::get("/").header("x-remove", "0").header("x-add", "1").body(()).unwrap();
    routes.choose(&request).unwrap().filter(&mut request).unwrap();
    assert_eq!(request.headers()["x-set"], "1");
    assert_eq!(request.headers().get_all("x-add").iter().count(), 2);
    assert!(!request.headers().contains_key("x-remove"));

    let fail = matches::HttpFailureInjector { status: 418, message: "no".into(), ratio: None };
    with_filters.rules[0].filters = vec![filter(http_api::filter::Kind::FailureInjector(fail))];
    let routes = compiled(vec![with_filters]);
    let error = routes.choose(&request).unwrap().filter(&mut request).unwrap_err();
    assert_eq!(error.status(), StatusCode::IM_A_TEAPOT);
}
