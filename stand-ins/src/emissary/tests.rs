use serde_json::Value;

use super::*;

/// The files for a Listener and these objects, with the Services `web` and `other` of namespace `shop`.
fn translate(further: &str) -> (Translation, Value) {
    let base = r#"
kind: Listener
metadata: {name: http, namespace: emissary}
spec: {port: 8080, protocol: HTTP}
---
kind: KubernetesEndpointResolver
metadata: {name: endpoint, namespace: emissary}
---
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80}]}
---
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.0.3]}]
"#;
    let controller = Emissary { id: "default".to_owned() };
    let translation = controller.translate(&Objects::from_yaml(&controller.kinds(), &format!("{base}---{further}")));
    let parse = |file: &str| -> Value { serde_json::from_str(&translation.files[std::path::Path::new(file)]).unwrap() };
    let all = json!({"routes": parse("routes.json"), "clusters": parse("clusters.json"), "listeners": parse("listeners.json")});
    (translation, all)
}

fn mapping(name: &str, spec: &str) -> String {
    format!(
        "\nkind: Mapping\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{hostname: shop.test, prefix: /, {spec}}}\n"
    )
}

fn routes<'a>(all: &'a Value, host: &str) -> &'a Vec<Value> {
    let hosts = all["routes"]["resources"][0]["virtual_hosts"].as_array().unwrap();
    hosts.iter().find(|found| found["name"] == host).unwrap()["routes"].as_array().unwrap()
}

#[test]
fn a_service_is_a_name_for_dns_unless_the_resolver_looks_endpoints_up() {
    for (spec, kind, address) in [
        ("service: web", "STRICT_DNS", "web.shop"),
        ("service: 'web.elsewhere:81'", "STRICT_DNS", "web.elsewhere"),
        ("service: 'http://web', resolver: kubernetes-service", "STRICT_DNS", "web.shop"),
        ("service: web, resolver: endpoint", "STATIC", "10.244.0.3"),
        ("service: web.shop.svc.cluster.local, resolver: endpoint", "STATIC", "10.244.0.3"),
    ] {
        let (_, all) = translate(&mapping("a", spec));
        let cluster = &all["clusters"]["resources"][0];
        let endpoint = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
        let found = &endpoint["address"]["socket_address"]["address"];
        assert_eq!((&cluster["type"], found), (&json!(kind), &json!(address)), "{spec}");
    }
}

#[test]
fn headers_are_appended_unless_they_say_otherwise() {
    let with = |spec: &str| {
        let (_, all) = translate(&mapping("a", &format!("service: web, {spec}")));
        let found = routes(&all, "shop.test")[0].clone();
        (found["request_headers_to_add"][0].clone(), found["request_headers_to_remove"].clone())
    };
    let (appended, _) = with("add_linkerd_headers: true");
    assert_eq!(appended["header"], json!({"key": "l5d-dst-override", "value": "web.shop:80"}));
    assert_eq!(appended["append_action"], "APPEND_IF_EXISTS_OR_ADD");
    assert_eq!(with("add_request_headers: {x: y}").0["append_action"], "APPEND_IF_EXISTS_OR_ADD");
    let (set, removed) = with("add_request_headers: {x: {value: y, append: false}}, remove_request_headers: [z]");
    assert_eq!((&set["append_action"], removed), (&json!("OVERWRITE_IF_EXISTS_OR_ADD"), json!(["z"])));
}

#[test]
fn mappings_of_one_prefix_share_weights_and_headers() {
    let one = mapping("a", "service: web, weight: 30, add_request_headers: {x: {value: a, append: false}}");
    let two = mapping("b", "service: other, add_request_headers: {x: {value: b, append: false}}");
    let (_, all) = translate(&format!("{one}---{two}"));
    let [route] = routes(&all, "shop.test").as_slice() else { panic!("{all}") };
    let clusters = route["route"]["weighted_clusters"]["clusters"].as_array().unwrap();
    let weights: Vec<_> =
        clusters.iter().map(|found| (found["name"].as_str().unwrap(), found["weight"].as_u64().unwrap())).collect();
    assert_eq!(weights, [("web.shop:80/", 30), ("other.shop:80/", 70)]);
    assert_eq!(route["request_headers_to_add"].as_array().unwrap().len(), 1);
    assert_eq!(route["request_headers_to_add"][0]["header"]["value"], "b");
}

#[test]
fn the_prefix_goes_unless_rewrite_is_empty_and_three_seconds_are_the_timeout() {
    let route = |spec: &str| routes(&translate(&mapping("a", spec)).1, "shop.test")[0]["route"].clone();
    assert_eq!(route("service: web, prefix: /a")["prefix_rewrite"], "/");
    assert_eq!(route("service: web, prefix: /a, rewrite: ''").get("prefix_rewrite"), None);
    assert_eq!(route("service: web")["timeout"], "3.000s");
    assert_eq!(route("service: web, timeout_ms: 0")["timeout"], "0.000s");
}

#[test]
fn without_a_listener_nothing_is_taken_and_a_host_without_a_word_redirects() {
    let controller = Emissary { id: "default".to_owned() };
    let without = controller.translate(&Objects::from_yaml(&controller.kinds(), &mapping("a", "service: web")));
    let listeners: Value = serde_json::from_str(&without.files[std::path::Path::new("listeners.json")]).unwrap();
    assert_eq!(listeners["resources"], json!([]));

    let host = |spec: &str| {
        format!("---\nkind: Host\nmetadata: {{name: h, namespace: shop}}\nspec: {{hostname: '*'{spec}}}\n")
    };
    let first = |host: &str| routes(&translate(&(mapping("a", "service: web") + host)).1, "shop.test")[0].clone();
    assert_eq!(first(&host(""))["redirect"]["https_redirect"], true);
    assert_eq!(first(&host(", requestPolicy: {insecure: {action: Reject}}"))["direct_response"]["status"], 404);
    assert!(first(&host(", requestPolicy: {insecure: {action: Route}}"))["route"].is_object());
    assert!(first("")["route"].is_object());
}

#[test]
fn bad_mappings_are_inactive_and_the_rest_serves() {
    let good = mapping("good", "service: web").replace("prefix: /", "prefix: /good");
    let states = |bad: &str| {
        let (translation, all) = translate(&format!("{bad}---{good}"));
        assert_eq!(routes(&all, "shop.test").len(), 1, "{bad}");
        let states: Vec<String> = translation.statuses.iter().map(|status| format!("{status:?}")).collect();
        assert!(states.iter().any(|state| state.contains("Running")), "{states:?}");
        states.into_iter().find(|state| state.contains("Inactive")).unwrap_or_default()
    };
    for (spec, reason) in [
        ("service: 'web:x'", "expected a port"),
        ("service: 'https://web'", "not to be had here"),
        ("service: web, resolver: consul", "is not known"),
        ("service: web, weight: 101", "expected 0 to 100"),
        ("service: web, prefix: '(', prefix_regex: true", "not a valid regex"),
    ] {
        assert!(states(&mapping("bad", spec)).contains(reason), "{spec}: {}", states(&mapping("bad", spec)));
    }
    let elsewhere = "---\nkind: Host\nmetadata: {name: h, namespace: shop}\nspec: {hostname: 'other.test'}\n";
    let (translation, all) = translate(&(mapping("a", "service: web") + elsewhere));
    assert!(format!("{:?}", translation.statuses).contains("No Host matches"));
    assert_eq!(all["routes"]["resources"][0]["virtual_hosts"].as_array().unwrap().len(), 1);
}

#[test]
fn another_instances_mappings_are_left_alone() {
    let (translation, _) = translate(&mapping("a", "service: web, ambassador_id: [other]"));
    assert_eq!(translation.statuses, []);
}
