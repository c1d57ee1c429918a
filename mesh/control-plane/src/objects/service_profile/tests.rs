use serde_json::{Value, json};

use super::*;
use crate::{Object, examples};

fn read(spec: Value) -> ServiceProfile {
    match Object::parse(&examples::profile("web", "default", spec)).unwrap() {
        Object::ServiceProfile(profile) => profile,
        other => panic!("{other:?}"),
    }
}

fn path(regex: &str) -> api::RequestMatch {
    api::RequestMatch { r#match: Some(api::request_match::Match::Path(api::PathMatch { regex: regex.into() })) }
}

fn get() -> api::RequestMatch {
    let method = http_types::http_method::Type::Registered(http_types::http_method::Registered::Get.into());
    let method = http_types::HttpMethod { r#type: Some(method) };
    api::RequestMatch { r#match: Some(api::request_match::Match::Method(method)) }
}

fn all(matches: Vec<api::RequestMatch>) -> api::RequestMatch {
    api::RequestMatch { r#match: Some(api::request_match::Match::All(api::request_match::Seq { matches })) }
}

#[test]
fn request_conditions() {
    let any = api::request_match::Match::Any(api::request_match::Seq { matches: vec![path("/a"), get()] });
    let not = api::request_match::Match::Not(Box::new(path("/a")));
    for (condition, want) in [
        (json!({"pathRegex": "/a"}), path("/a")),
        (json!({"method": "get"}), get()),
        (json!({"method": "GET", "pathRegex": "/a"}), all(vec![get(), path("/a")])),
        (json!({"all": [{"method": "GET"}]}), all(vec![get()])),
        (json!({"any": [{"pathRegex": "/a"}, {"method": "GET"}]}), api::RequestMatch { r#match: Some(any) }),
        (json!({"not": {"pathRegex": "/a"}}), api::RequestMatch { r#match: Some(not) }),
    ] {
        let profile = read(json!({"routes": [{"name": "r", "condition": condition}]}));
        assert_eq!(profile.routes[0].condition, Some(want), "{condition}");
    }
}

#[test]
fn a_route_has_its_name_timeout_and_classes() {
    let profile = read(json!({"routes": [{
        "name": "GET /a",
        "condition": {"pathRegex": "/a"},
        "isRetryable": true,
        "timeout": "1.5s",
        "responseClasses": [
            {"condition": {"status": {"min": 500, "max": 504}}, "isFailure": true},
            {"condition": {"not": {"status": {"min": 400}}}},
        ],
    }]}));
    let status = |min, max| api::ResponseMatch {
        r#match: Some(api::response_match::Match::Status(api::HttpStatusRange { min, max })),
    };
    let not = api::ResponseMatch { r#match: Some(api::response_match::Match::Not(Box::new(status(400, 599)))) };
    assert_eq!(
        profile.routes,
        [api::Route {
            condition: Some(path("/a")),
            response_classes: vec![
                api::ResponseClass { condition: Some(status(500, 504)), is_failure: true },
                api::ResponseClass { condition: Some(not), is_failure: false },
            ],
            metrics_labels: [("route".to_owned(), "GET /a".to_owned())].into(),
            is_retryable: true,
            timeout: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
        }]
    );
}

#[test]
fn a_route_that_cannot_match_is_left_out_and_the_others_stay() {
    let route = |name: &str, condition: Value| json!({"name": name, "condition": condition});
    let profile = read(json!({"routes": [
        route("empty", json!({})),
        {"name": "none"},
        {"name": "status", "condition": {"pathRegex": "/"}, "responseClasses": [{"condition": {"status": {"min": 600}}}]},
        route("good", json!({"pathRegex": "/"})),
    ]}));
    let names: Vec<_> = profile.routes.iter().map(|route| route.metrics_labels["route"].as_str()).collect();
    assert_eq!(names, ["good"]);
}

#[test]
fn budgets_overrides_and_ports() {
    let profile = read(json!({
        "retryBudget": {"retryRatio": 0.5, "minRetriesPerSecond": 3, "ttl": "1m"},
        "dstOverrides": [
            {"authority": "v1.default.svc.cluster.local.", "weight": "500m"},
            {"authority": "v2.default.svc.cluster.local:8080", "weight": 2},
            {"authority": "v3.default.svc.cluster.local", "weight": 0},
            {"authority": "v4.default.svc.cluster.local", "weight": "heavy"},
        ],
        "opaquePorts": ["25", "8000-8001"],
    }));
    let ttl = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    assert_eq!(profile.retry_budget, api::RetryBudget { retry_ratio: 0.5, min_retries_per_second: 3, ttl });
    assert_eq!(
        profile.overrides,
        [
            Override { authority: "v1.default.svc.cluster.local".into(), weight: 500 },
            Override { authority: "v2.default.svc.cluster.local:8080".into(), weight: 2000 },
        ]
    );
    assert!(profile.opaque_ports.contains(8001) && !profile.opaque_ports.contains(80));
    assert_eq!(read(json!({})).retry_budget, default_retry_budget());
}
