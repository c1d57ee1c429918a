use linkerd2_proxy_api::outbound::{
    GrpcRoute, OutboundPolicy, ProxyProtocol,
    proxy_protocol::{Detect, Grpc, Http1, Http2, Opaque},
};

use http::header::HOST;
use linkerd2_proxy_api::{http_route as matches, http_types};

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
    compiled_of(proxy_protocol::Kind::Http1(Http1 { routes, failure_accrual: None }))
}

fn compiled_of(kind: proxy_protocol::Kind) -> Routes<String> {
    let policy = OutboundPolicy { metadata: Some(metadata("web")), protocol: Some(ProxyProtocol { kind: Some(kind) }) };
    compile(&policy, &Metrics::new(), |backend, _, _| {
        match backend.metadata.as_ref().and_then(|metadata| metadata.kind.as_ref()) {
            Some(metadata::Kind::Resource(resource)) => resource.name.clone(),
            _ => "unreadable".to_owned(),
        }
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
    assert_eq!(error.status(), http::StatusCode::IM_A_TEAPOT);
}

/// The backend `name`, or one that is none.
fn backend(name: Option<&str>) -> Option<Backend> {
    Some(Backend { metadata: name.map(metadata), ..Default::default() })
}

/// Routes of HTTP and of gRPC to the first of these that is available.
fn in_order(names: &[Option<&str>]) -> [Routes<String>; 2] {
    let backends = names.iter().map(|name| http_api::RouteBackend { backend: backend(*name), ..Default::default() });
    let kind = http_api::distribution::Kind::FirstAvailable(http_api::distribution::FirstAvailable {
        backends: backends.collect(),
    });
    let mut http = route("r", &[], vec![]);
    http.rules[0].backends = Some(http_api::Distribution { kind: Some(kind) });

    let backends = names.iter().map(|name| grpc::RouteBackend { backend: backend(*name), ..Default::default() });
    let kind =
        grpc::distribution::Kind::FirstAvailable(grpc::distribution::FirstAvailable { backends: backends.collect() });
    let rule = grpc::Rule { backends: Some(grpc::Distribution { kind: Some(kind) }), ..Default::default() };
    let route = GrpcRoute { metadata: Some(metadata("r")), hosts: vec![], rules: vec![rule] };
    let grpc = proxy_protocol::Kind::Grpc(Grpc { routes: vec![route], failure_accrual: None });
    [compiled(vec![http]), compiled_of(grpc)]
}

#[test]
fn the_first_backend_that_is_available_is_chosen() {
    for routes in in_order(&[Some("first"), Some("second")]) {
        let request = Request::post("/s/m").body(()).unwrap();
        let chosen = routes.choose(&request).unwrap();
        let split = chosen.rule().backends();
        let choose = |gone: &str| {
            let leg = split.choose(&mut rand::rng(), |leg| leg.backend != gone).unwrap();
            leg.backend.clone()
        };
        assert_eq!([choose(""), choose("first"), choose("second")], ["first", "second", "first"]);
    }
}

#[test]
fn a_backend_that_cannot_be_read_is_one_all_the_same() {
    for routes in in_order(&[None, Some("first")]) {
        let request = Request::post("/s/m").body(()).unwrap();
        let chosen = routes.choose(&request).unwrap();
        let leg = chosen.rule().backends().choose(&mut rand::rng(), |_| true).unwrap();
        assert_eq!(leg.backend, "unreadable");
    }
    for routes in in_order(&[]) {
        let request = Request::post("/s/m").body(()).unwrap();
        assert!(routes.choose(&request).unwrap().rule().backends().is_empty());
    }
}

#[test]
fn errors_call_things_by_kind_namespace_and_name() {
    let of = |kind| metadata_name(Some(&Metadata { kind: Some(kind) })).to_string();
    let resource = |port| {
        let (kind, namespace, name) = ("Service".into(), "ns".into(), "web".into());
        of(metadata::Kind::Resource(Resource { kind, namespace, name, port, ..Default::default() }))
    };
    assert_eq!([resource(80), resource(0)], ["Service.ns.web:80", "Service.ns.web"]);
    assert_eq!(of(metadata::Kind::Default("http".into())), "default.http");
    assert_eq!(&*metadata_name(None), "default.unknown");
}

#[test]
fn requests_say_what_holds_for_them_where_the_policy_lets_them() {
    for allow_l5d_request_headers in [true, false] {
        let mut http = route("r", &[], vec![]);
        http.rules[0].allow_l5d_request_headers = allow_l5d_request_headers;
        let rule = grpc::Rule { allow_l5d_request_headers, ..Default::default() };
        let route = GrpcRoute { metadata: Some(metadata("r")), hosts: vec![], rules: vec![rule] };
        let grpc = proxy_protocol::Kind::Grpc(Grpc { routes: vec![route], failure_accrual: None });
        for routes in [compiled(vec![http.clone()]), compiled_of(grpc.clone())] {
            let request = Request::post("/s/m").header("l5d-timeout", "5s").header("l5d-retry-limit", "2");
            let mut request = request.body(()).unwrap();
            let chosen = routes.choose(&request).unwrap();
            let own = chosen.rule().terms_of(request.headers_mut());
            let timeout = own.as_ref().and_then(|terms| terms.timeout);
            assert_eq!(timeout, allow_l5d_request_headers.then_some(Duration::from_secs(5)));
            assert_eq!(own.is_some_and(|terms| terms.retry.is_some()), allow_l5d_request_headers);
            assert_eq!(chosen.retry_counters().is_some(), allow_l5d_request_headers);
            assert_eq!(request.headers().is_empty(), allow_l5d_request_headers, "what is not read is passed on");
            assert_eq!(chosen.rule().terms(), &Terms::default());
        }
    }
}

#[test]
fn a_policy_says_what_becomes_of_each_protocol() {
    let policy = |kind| OutboundPolicy { metadata: None, protocol: Some(ProxyProtocol { kind }) };
    let detect = Detect {
        timeout: None,
        opaque: Some(Opaque::default()),
        http1: Some(Http1::default()),
        http2: Some(Http2::default()),
    };
    let of = |detect| policy(Some(proxy_protocol::Kind::Detect(detect)));
    for unusable_one in [
        OutboundPolicy::default(),
        policy(None),
        of(Detect { opaque: None, ..detect.clone() }),
        of(Detect { http1: None, ..detect.clone() }),
        of(Detect { http2: None, ..detect.clone() }),
    ] {
        assert!(unusable(&unusable_one).is_some(), "{unusable_one:?}");
    }
    for usable in [of(detect), policy(Some(proxy_protocol::Kind::Http1(Http1::default())))] {
        assert_eq!(unusable(&usable), None, "{usable:?}");
    }
}

#[test]
fn a_limit_beyond_all_use_is_one_that_can_be_reckoned_with() {
    let api = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    assert_eq!(duration(api(i64::MAX)), Some(LONGEST));
    assert_eq!((duration(api(1)), duration(api(0))), (Some(Duration::from_secs(1)), None));
}
