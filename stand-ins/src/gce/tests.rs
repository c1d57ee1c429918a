use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::*;
use crate::data_plane::Files;

const KINDS: [Kind; 5] = [BACKEND_CONFIGS, ENDPOINT_SLICES, INGRESSES, SECRETS, SERVICES];

/// A certificate and its key, made once.
fn pair() -> &'static (String, String) {
    static PAIR: std::sync::OnceLock<(String, String)> = std::sync::OnceLock::new();
    PAIR.get_or_init(|| google_certificate().unwrap())
}

/// A Service with endpoints, one with a BackendConfig, Secrets, and whatever a test adds.
fn objects(further: &str) -> Objects {
    let base = r#"
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80}]}
---
kind: Service
metadata: {name: api, namespace: shop, annotations: {cloud.google.com/backend-config: '{"default": "api"}'}}
spec: {clusterIP: 10.96.0.8, ports: [{name: http, port: 81}, {name: admin, port: 82}]}
---
kind: Service
metadata: {name: load-balancer, namespace: google-cloud}
spec: {clusterIP: 10.96.0.9, ports: []}
status: {loadBalancer: {ingress: [{ip: 203.0.113.10, ipMode: VIP}]}}
---
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
ports: [{name: http, port: 8080}]
endpoints:
  - {addresses: [10.244.0.3]}
  - {addresses: [10.244.0.2], conditions: {ready: false}}
---
kind: BackendConfig
metadata: {name: api, namespace: shop}
spec: {customRequestHeaders: {headers: ["L5d-Dst-Override:api.shop.svc.cluster.local:81", "x-share: 10%"]}, timeoutSec: 7}
---
kind: Secret
metadata: {name: broken, namespace: shop}
data: {tls.crt: Q1JU, tls.key: S0VZ}
---
kind: Secret
metadata: {name: cert, namespace: shop}
"#;
    let (certificate, key) = pair();
    let data = json!({"tls.crt": BASE64.encode(certificate), "tls.key": BASE64.encode(key)});
    Objects::from_yaml(&KINDS, &format!("{base}data: {data}\n{further}"))
}

fn gce(flags: &str) -> Gce {
    let forwarding_rule = ("google-cloud".to_owned(), "load-balancer".to_owned());
    let names = |name: &str| BTreeSet::from([name.to_owned()]);
    let project = Project { addresses: names("reserved"), certificates: names("managed"), certificate: pair().clone() };
    Gce { flags: Flags::new(flags.split(' ').map(str::to_owned)), forwarding_rule, project }
}

fn translate(further: &str) -> Translation {
    gce("").translate(&objects(further))
}

/// An Ingress of `shop`; annotations and spec in flow style.
fn ingress(name: &str, annotations: &str, spec: &str) -> String {
    let metadata = format!("{{name: {name}, namespace: shop, annotations: {{{annotations}}}}}");
    format!("---\nkind: Ingress\nmetadata: {metadata}\nspec: {spec}\n")
}

/// A backend in flow style.
fn to(service: &str, port: u16) -> String {
    format!("{{service: {{name: {service}, port: {{number: {port}}}}}}}")
}

/// One rule of the host `a.test`.
fn rule(path: &str, kind: &str, backend: &str) -> String {
    format!(
        "{{rules: [{{host: a.test, http: {{paths: [{{path: \"{path}\", pathType: {kind}, backend: {backend}}}]}}}}]}}"
    )
}

fn simple(annotations: &str) -> String {
    ingress("a", annotations, &rule("/", "Prefix", &to("web", 80)))
}

fn resources(translation: &Translation, file: &str) -> Value {
    let file: Value = serde_json::from_str(&translation.files[Path::new(file)]).unwrap();
    file["resources"].clone()
}

/// The routes of a host of plain HTTP.
fn routes(translation: &Translation, host: &str) -> Option<Vec<Value>> {
    let hosts = resources(translation, envoy::ROUTES)[0]["virtual_hosts"].clone();
    let found = hosts.as_array().unwrap().iter().find(|found| found["domains"][0] == host).cloned();
    found.map(|host| host["routes"].as_array().unwrap().clone())
}

/// The events, without what they begin with.
fn complaints(translation: &Translation) -> Vec<String> {
    let shortened = |message: &str| message.replace("Translation failed: invalid ingress spec: ", "");
    translation.complaints.iter().map(|complaint| shortened(complaint.message())).collect()
}

#[test]
fn the_annotation_decides_whose_an_ingress_is_and_a_class_by_name_is_nobodys() {
    let with_class = |annotations: &str, class: &str| {
        let spec = rule("/", "Prefix", &to("web", 80));
        ingress("a", annotations, &format!("{{ingressClassName: {class}, {}", spec.trim_start_matches('{')))
    };
    let annotated = |class: &str| format!("kubernetes.io/ingress.class: {class}");
    for (flags, further, ours) in [
        ("", simple(""), true),
        ("", simple(&annotated("gce")), true),
        ("", simple(&annotated("\"\"")), true),
        ("", with_class("", "gce"), false),
        ("", with_class(&annotated("gce"), "nginx"), true),
        ("", simple(&annotated("nginx")), false),
        ("", simple(&annotated("gce-internal")), false),
        ("--ingress-class=mine", simple(&annotated("mine")), true),
    ] {
        let translation = gce(flags).translate(&objects(&further));
        assert_eq!(routes(&translation, "a.test").is_some(), ours, "{further}");
        assert_eq!(translation.statuses.len(), usize::from(ours));
        let there = further + "status: {loadBalancer: {ingress: [{ip: 203.0.113.10}]}}\n";
        assert_eq!(gce(flags).translate(&objects(&there)).statuses, [], "it is there");
    }
}

#[test]
fn pods_are_dialled_and_what_no_rule_takes_is_not_found() {
    let translation = translate(&simple(""));
    let found = routes(&translation, "a.test").unwrap();
    assert_eq!(found[0]["route"]["cluster"], "shop/web/80");
    assert_eq!((&found[0]["route"]["timeout"], &found[0]["match"]["prefix"]), (&json!("30.000s"), &json!("/")));
    let clusters = resources(&translation, envoy::CLUSTERS);
    let endpoints = clusters[0]["load_assignment"]["endpoints"][0]["lb_endpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), 1, "only ready ones");
    assert_eq!(endpoints[0]["endpoint"]["address"]["socket_address"]["address"], "10.244.0.3");
    assert_eq!(routes(&translation, "*").unwrap()[0]["direct_response"]["status"], 404);
    let listener = &resources(&translation, envoy::LISTENERS)[0];
    let manager = &listener["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(manager["local_reply_config"]["mappers"][0]["status_code"], 502);
}

#[test]
fn the_pages_annotation_sets_nothing() {
    let page = "ingress.kubernetes.io/custom-request-headers: \"l5d-dst-override: web.shop:80\"";
    let translation = translate(&simple(page));
    assert_eq!(translation.files, translate(&simple("")).files);
    assert_eq!(complaints(&translation), [""; 0]);
}

#[test]
fn a_backend_config_sets_headers_in_place_of_a_clients() {
    let translation = translate(&ingress("a", "", &rule("/", "Prefix", &to("api", 81))));
    let found = &routes(&translation, "a.test").unwrap()[0]["route"];
    assert_eq!(found["timeout"], "7.000s");
    let headers = &found["weighted_clusters"]["clusters"][0]["request_headers_to_add"];
    assert_eq!(headers[0]["header"], json!({"key": "l5d-dst-override", "value": "api.shop.svc.cluster.local:81"}));
    assert_eq!(headers[0]["append_action"], "OVERWRITE_IF_EXISTS_OR_ADD");
    assert_eq!(headers[1]["header"]["value"], "10%%");
}

#[test]
fn a_backend_config_is_chosen_by_the_ports_name_its_number_or_for_all() {
    let config = |name: &str| {
        let header = format!("{{customRequestHeaders: {{headers: [\"x-config:{name}\"]}}}}");
        format!("---\nkind: BackendConfig\nmetadata: {{name: {name}, namespace: shop}}\nspec: {header}\n")
    };
    for (key, annotation, expected) in [
        ("cloud.google.com", r#"{"default": "one"}"#, Some("one")),
        ("beta.cloud.google.com", r#"{"default": "two"}"#, Some("two")),
        ("cloud.google.com", r#"{"default": "one", "ports": {"http": "two"}}"#, Some("two")),
        ("cloud.google.com", r#"{"default": "one", "ports": {"83": "two"}}"#, Some("two")),
        ("cloud.google.com", r#"{"ports": {"84": "two"}}"#, None),
    ] {
        let further = format!(
            "---\nkind: Service\nmetadata: {{name: own, namespace: shop, annotations: {{{key}/backend-config: '{annotation}'}}}}\n\
             spec: {{clusterIP: 10.96.0.10, ports: [{{name: http, port: 83}}]}}\n{}{}{}",
            config("one"),
            config("two"),
            ingress("a", "", &rule("/", "Prefix", &to("own", 83)))
        );
        let translation = translate(&further);
        let found = routes(&translation, "a.test").unwrap();
        let clusters = &found[0]["route"]["weighted_clusters"]["clusters"];
        let header = clusters[0]["request_headers_to_add"][0]["header"]["value"].as_str();
        assert_eq!(header, expected, "{annotation}");
    }
}

#[test]
fn what_does_not_fit_together_is_said_and_the_other_ingresses_are_served() {
    let service = |annotations: &str, spec: &str| {
        let metadata = format!("{{name: odd, namespace: shop, annotations: {{{annotations}}}}}");
        let spec = format!("{{clusterIP: 10.96.0.10, ports: [{{name: http, port: 80}}]{spec}}}");
        format!("---\nkind: Service\nmetadata: {metadata}\nspec: {spec}\n")
    };
    let odd = |annotations: &str| service(annotations, "") + &ingress("a", "", &rule("/", "Prefix", &to("odd", 80)));
    let port = "port \"&ServiceBackendPort{Name:,Number:80,}\"";
    let config = format!("error getting BackendConfig for {port} on service \"shop/odd\", err: ");
    for (bad, message) in [
        (ingress("a", "", &rule("/", "Prefix", &to("nowhere", 80))), "could not find service \"shop/nowhere\"".to_owned()),
        (
            ingress("a", "", &rule("/", "Prefix", &to("web", 81))),
            "could not find port \"&ServiceBackendPort{Name:,Number:81,}\" in service \"shop/web\"".to_owned(),
        ),
        (
            odd("cloud.google.com/backend-config: '{\"default\": \"none\"}'"),
            format!("{config}no BackendConfig for service port exists."),
        ),
        // Only those of the Service's own namespace are looked at.
        (
            odd("cloud.google.com/backend-config: '{\"default\": \"elsewhere\"}'")
                + "---\nkind: BackendConfig\nmetadata: {name: elsewhere, namespace: other}\nspec: {timeoutSec: 7}\n",
            format!("{config}no BackendConfig for service port exists."),
        ),
        (
            odd("cloud.google.com/backend-config: '{\"default\": \"other/elsewhere\"}'"),
            format!("{config}no BackendConfig for service port exists."),
        ),
        (odd("cloud.google.com/backend-config: none"), format!("{config}BackendConfig annotation is invalid json")),
        (odd("cloud.google.com/backend-config: '{}'"), format!("{config}no BackendConfig's found in annotation")),
        (
            odd("cloud.google.com/neg: '{\"ingress\": false}'"),
            "service \"shop/odd\" is type \"ClusterIP\", expected \"NodePort\" or \"LoadBalancer\"".to_owned(),
        ),
        (
            odd("cloud.google.com/app-protocols: '{\"http\": \"H2C\"}'"),
            "could not parse \"service.alpha.kubernetes.io/app-protocols\" annotation on Service \"shop/odd\", err: invalid port \
             application protocol: H2C"
                .to_owned(),
        ),
        (
            ingress("a", "", &rule("/a*b", "Prefix", &to("web", 80))),
            "failed to validate prefix path /a*b due to invalid wildcard".to_owned(),
        ),
        (
            ingress("a", "", "{defaultBackend: {resource: {kind: Bucket, name: b}}}"),
            "ingress backend is not a service backend".to_owned(),
        ),
        (
            ingress("a", "", &format!("{{defaultBackend: {}, rules: [{{http: {{paths: [{{path: \"\", pathType: Exact, backend: {}}}]}}}}]}}", to("none", 80), to("web", 80))),
            "failed to validate exact path type due to empty path; could not find service \"shop/none\"".to_owned(),
        ),
    ] {
        let good = ingress("good", "", &rule("/", "Prefix", &to("web", 80)).replace("a.test", "good.test"));
        let translation = translate(&(bad.clone() + &good));
        assert_eq!(complaints(&translation), [message], "{bad}");
        assert!(routes(&translation, "a.test").is_none(), "{bad}");
        assert_eq!(routes(&translation, "*").unwrap().len(), 1, "only what is not found");
        assert!(routes(&translation, "good.test").is_some());
        assert_eq!(translation.statuses.len(), 1, "a bad one has no address");
    }
}

#[test]
fn a_load_balancer_that_was_there_before_a_mistake_goes_on_as_it_was() {
    let of = |name: &str, service: &str, port: u16| {
        ingress(name, "", &rule("/", "Prefix", &to(service, port)).replace("a.test", &format!("{name}.test")))
    };
    let former = translate(&of("a", "web", 80)).files;
    // It is wrong, and has another host.
    let wrong = of("a", "nowhere", 80).replace("a.test", "b.test");
    let served = |further: &str, former: Option<&Files>| -> Vec<(String, Value)> {
        let files = translate(further).served(former).unwrap();
        let routes: Value = serde_json::from_str(&files[Path::new(envoy::ROUTES)]).unwrap();
        let hosts = routes["resources"][0]["virtual_hosts"].as_array().unwrap().iter();
        hosts.map(|host| (host["domains"][0].as_str().unwrap().to_owned(), host["routes"].clone())).collect()
    };
    let domains =
        |hosts: &[(String, Value)]| -> Vec<String> { hosts.iter().map(|(domain, _)| domain.clone()).collect() };
    let late = wrong.clone() + &of("late", "web", 80);
    let kept = served(&late, Some(&former));
    assert_eq!(domains(&kept), ["*", "a.test", "late.test"]);
    assert_eq!(kept[1].1[0]["route"]["cluster"], "shop/web/80");
    assert_eq!(domains(&served(&late, None)), ["*", "late.test"], "there is nothing to keep");
    assert_eq!(domains(&served(&of("late", "web", 80), Some(&former))), ["*", "late.test"], "it is gone");
    let taken = wrong.clone() + &of("late", "api", 81).replace("late.test", "a.test");
    let taken = served(&taken, Some(&former));
    assert_eq!(domains(&taken), ["*", "a.test"], "its host is another's");
    assert_eq!(taken[1].1[0]["route"]["weighted_clusters"]["clusters"][0]["name"], "shop/api/81");
    let translation = translate(&wrong);
    assert_eq!(translation.reasons(), ["the load balancer of Ingress shop.a is left as it is"]);
    let clusters = &translation.files[Path::new(envoy::CLUSTERS)];
    assert!(clusters.contains("\"shop/web/80\"") && clusters.contains("\"shop/api/82\""), "wherever it leads");
    assert_eq!(translate(&of("a", "web", 80)).reasons(), [""; 0], "the control");
}

#[test]
fn headers_that_google_refuses_keep_the_ingress_from_being_served() {
    for (header, why) in [
        ("no colon", "Header must contain a colon"),
        ("X-Goog-Me: 1", "Header name is not allowed"),
        ("Connection: close", "Header name is not allowed"),
        ("a b: 1", "Header name is not allowed"),
        ("x-a: 1\", \"X-A: 2", "Header name must not appear more than once"),
    ] {
        let config = format!(
            "---\nkind: BackendConfig\nmetadata: {{name: api, namespace: shop}}\nspec: {{customRequestHeaders: {{headers: [\"{header}\"]}}}}\n"
        );
        let translation = translate(&(config + &ingress("a", "", &rule("/", "Prefix", &to("api", 81)))));
        let found = complaints(&translation);
        assert!(
            found.len() == 1 && found[0].starts_with("Error syncing to GCP: ") && found[0].ends_with(why),
            "{found:?}"
        );
        assert!(routes(&translation, "a.test").is_none());
    }
}

#[test]
fn paths_are_matched_as_a_url_map_does() {
    for (path, kind, expected) in [
        ("/", "Prefix", Some(json!({"prefix": "/"}))),
        ("/a", "Prefix", Some(json!({"path_separated_prefix": "/a"}))),
        ("/a/", "Prefix", Some(json!({"path_separated_prefix": "/a"}))),
        ("/a", "Exact", Some(json!({"path": "/a"}))),
        ("", "ImplementationSpecific", Some(json!({"prefix": "/"}))),
        ("/", "ImplementationSpecific", Some(json!({"path": "/"}))),
        ("/*", "ImplementationSpecific", Some(json!({"prefix": "/"}))),
        ("/a/*", "ImplementationSpecific", Some(json!({"prefix": "/a/"}))),
        ("/a*", "ImplementationSpecific", None),
    ] {
        let translation = translate(&ingress("a", "", &rule(path, kind, &to("web", 80))));
        let found = routes(&translation, "a.test").map(|routes| routes[0]["match"].clone());
        assert_eq!(found, expected, "{kind} {path}");
    }
}

#[test]
fn of_two_rules_of_one_host_the_later_one_counts_with_all_of_its_paths() {
    let both = |paths: [&str; 2]| {
        let rule = |path: &str| {
            let path = format!("{{path: {path}, pathType: Prefix, backend: {}}}", to("web", 80));
            format!("{{host: a.test, http: {{paths: [{path}]}}}}")
        };
        ingress("a", "", &format!("{{rules: [{}]}}", paths.map(rule).join(", ")))
    };
    for paths in [["/first", "/later"], ["/later", "/first"]] {
        let translation = translate(&both(paths));
        let routes = routes(&translation, "a.test").unwrap();
        let prefixes: Vec<&str> =
            routes.iter().filter_map(|route| route["match"]["path_separated_prefix"].as_str()).collect();
        assert_eq!(prefixes, [paths[1]]);
        assert_eq!(complaints(&translation), [""; 0]);
    }
}

#[test]
fn a_default_backend_takes_what_is_left_of_every_host() {
    let spec = rule("/a", "Prefix", &to("web", 80));
    let spec = format!("{{defaultBackend: {}, {}", to("api", 82), spec.trim_start_matches('{'));
    let translation = translate(&ingress("a", "", &spec));
    for host in ["a.test", "*"] {
        let last = routes(&translation, host).unwrap().pop().unwrap();
        assert_eq!(last["match"]["prefix"], "/");
        assert_eq!(last["route"]["weighted_clusters"]["clusters"][0]["name"], "shop/api/82", "{host}");
    }
    assert_eq!(routes(&translation, "a.test").unwrap().len(), 2);
}

#[test]
fn certificates_are_of_secrets_or_kept_by_google_and_missing_ones_leave_plain_http() {
    let with_tls = |annotations: &str, secret: &str| {
        let spec = rule("/", "Prefix", &to("web", 80));
        let tls = format!("tls: [{{hosts: [a.test], secretName: {secret}}}]");
        ingress("a", annotations, &format!("{{{tls}, {}", spec.trim_start_matches('{')))
    };
    let shared = "ingress.gcp.kubernetes.io/pre-shared-cert: managed";
    for (further, https, http, complaint) in [
        (simple(""), false, true, None),
        (with_tls("", "cert"), true, true, None),
        (simple(shared), true, true, None),
        (with_tls("kubernetes.io/ingress.allow-http: \"false\"", "cert"), true, false, None),
        (with_tls("", "nowhere"), false, true, Some("Could not find TLS certificates.")),
        (with_tls(shared, "nowhere"), true, true, Some("Could not find TLS certificates.")),
        (
            simple("ingress.gcp.kubernetes.io/pre-shared-cert: \"managed, other\""),
            false,
            false,
            Some("Error syncing to GCP: The resource 'sslCertificates/other' was not found"),
        ),
        (with_tls("", "broken"), false, false, Some("Error syncing to GCP: secret \"broken\" has no certificate")),
    ] {
        let translation = translate(&further);
        let listeners = resources(&translation, envoy::LISTENERS);
        assert_eq!(listeners.as_array().unwrap().len() == 2, https, "{further}");
        assert_eq!(routes(&translation, "a.test").is_some(), http, "{further}");
        let found = complaints(&translation);
        assert_eq!(found.len(), usize::from(complaint.is_some()), "{found:?}");
        assert!(found.iter().all(|found| found.starts_with(complaint.unwrap_or_default())), "{found:?}");
    }
}

#[test]
fn without_its_frontend_config_an_ingress_is_served_and_it_is_said() {
    let missing = translate(&simple("networking.gke.io/v1beta1.FrontendConfig: none"));
    assert_eq!(complaints(&missing), ["no FrontendConfig for Ingress exists."]);
    assert_eq!((&missing.files, missing.statuses.len()), (&translate(&simple("")).files, 1));
}

#[test]
fn an_address_is_asked_for_by_its_name() {
    let asking = |name: &str| translate(&simple(&format!("kubernetes.io/ingress.global-static-ip-name: \"{name}\"")));
    let reserved = asking("reserved");
    assert!(complaints(&reserved).is_empty() && routes(&reserved, "a.test").is_some());
    for name in ["203.0.113.10", "other"] {
        let refused = asking(name);
        assert!(routes(&refused, "a.test").is_none() && refused.statuses.is_empty());
        let wanted =
            format!("Error syncing to GCP: the given static IP name {name} doesn't translate to an existing static IP");
        assert_eq!(complaints(&refused), [wanted]);
    }
}
