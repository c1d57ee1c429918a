use std::path::Path;

use serde_json::json;

use super::*;
use crate::haproxytech::render::MAIN;
use crate::secrets::examples::{manifest, pair_for, unusable};

fn translate(further: &str) -> Translation {
    let base = r#"
kind: IngressClass
metadata: {name: haproxy}
spec: {controller: haproxy.org/ingress-controller/haproxy}
---
kind: IngressClass
metadata: {name: other}
spec: {controller: haproxy.org/ingress-controller/other}
---
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80}]}
---
kind: Service
metadata: {name: api, namespace: shop, annotations: {haproxy.org/server-proto: h2, haproxy.org/check: "false"}}
spec: {clusterIP: 10.96.0.9, ports: [{port: 81}]}
---
kind: Service
metadata: {name: ingress, namespace: haproxy}
spec: {clusterIP: 10.96.0.8, ports: []}
status: {loadBalancer: {ingress: [{ip: 203.0.113.10, ipMode: VIP}]}}
---
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.0.3]}, {addresses: [10.244.0.4], conditions: {ready: false}}]
"#;
    let controller = controller();
    controller.translate(&Objects::from_yaml(&controller.kinds(), &format!("{base}---{further}")))
}

fn controller() -> Haproxytech {
    let flags = ["--publish-service=haproxy/ingress", "--ingress.class=haproxy", "--configmap=haproxy/settings"];
    Haproxytech { settings: Settings::read(&Flags::new(flags.map(str::to_owned))) }
}

fn ingress(name: &str, annotations: &str, host: &str, path: &str, service: &str) -> String {
    format!(
        r#"
kind: Ingress
metadata: {{name: {name}, namespace: shop, annotations: {annotations}}}
spec:
  ingressClassName: haproxy
  rules:
    - host: {host}
      http: {{paths: [{{path: {path}, pathType: Prefix, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}]}}
"#
    )
}

const OVERRIDE: &str = "{haproxy.org/request-set-header: 'l5d-dst-override web.shop:80'}";

fn conf(translation: &Translation) -> &str {
    &translation.files[Path::new(MAIN)]
}

/// The value of a key in the map of prefixes.
fn prefix<'a>(translation: &'a Translation, key: &str) -> Option<&'a str> {
    let rows = &translation.files[Path::new("maps/path-prefix.map")];
    rows.lines().find_map(|row| row.strip_prefix(key)?.strip_prefix(' '))
}

#[test]
fn a_route_leads_to_the_services_ready_endpoints() {
    let translation = translate(&ingress("a", "{}", "shop.test", "/a", "web"));
    assert_eq!(translation.messages(), [""; 0]);
    translation
        .says(MAIN, &["backend shop_svc_web_http", "default-server check", "option forwardfor", "balance roundrobin"]);
    assert_eq!(translation.files[Path::new("maps/path-prefix.map")], "shop.test/a/ shop_svc_web_http\n");
    assert_eq!(translation.files[Path::new("maps/path-prefix-exact.map")], "shop.test/a shop_svc_web_http\n");
    assert_eq!(translation.files[Path::new("maps/host.map")], "shop.test shop.test\n");
    let servers: serde_json::Value = serde_json::from_str(&translation.files[Path::new(slots::SERVERS)]).unwrap();
    assert_eq!(servers["shop_svc_web_http"], json!({"room": 42, "addresses": ["10.244.0.3:8080"]}));
    assert_eq!(translation.statuses.len(), 1);
}

#[test]
fn a_status_that_is_there_is_not_written_again() {
    let there =
        ingress("a", "{}", "shop.test", "/a", "web") + "status: {loadBalancer: {ingress: [{ip: 203.0.113.10}]}}\n";
    assert_eq!(translate(&there).statuses, []);
    assert_eq!(translate(&there.replace("203.0.113.10", "203.0.113.11")).statuses.len(), 1, "the control");
}

#[test]
fn a_header_is_set_where_the_ingresss_rule_is_in_the_routes_value() {
    let translation = translate(&ingress("a", OVERRIDE, "shop.test", "/", "web"));
    let value = prefix(&translation, "shop.test/").unwrap();
    let id = value.strip_prefix("shop_svc_web_http.").unwrap();
    let rule =
        format!("http-request set-header l5d-dst-override \"web.shop:80\" if {{ var(txn.path_match) -m dom {id} }}");
    translation.says(MAIN, &[&rule]);
    // Ingresses that ask for the same share it.
    let two = translate(
        &(ingress("a", OVERRIDE, "a.test", "/", "web") + "---" + &ingress("b", OVERRIDE, "b.test", "/", "web")),
    );
    assert_eq!(conf(&two).matches("l5d-dst-override").count(), 2, "once in each frontend");
    assert_eq!(prefix(&two, "a.test/"), prefix(&two, "b.test/"));
}

#[test]
fn the_config_map_speaks_for_all_requests_and_the_service_for_its_backend() {
    let settings = r#"
kind: ConfigMap
metadata: {name: settings, namespace: haproxy}
data:
  request-set-header: "x-all yes"
  syslog-server: "address:stdout, format: raw, facility:daemon"
  timeout-connect: 250ms
  scale-server-slots: "7"
  maxconn: "100"
  ssl-redirect: "true"
  global-config-snippet: |
    tune.bufsize 65536
---"#;
    let api = ingress("a", "{}", "shop.test", "/", "api").replace("number: 80", "number: 81");
    let translation = translate(&format!("{settings}{api}"));
    translation.says(
        MAIN,
        &[
            "http-request set-header x-all \"yes\"",
            "log stdout format raw daemon",
            "timeout connect 250ms",
            "maxconn 100",
            "http-request redirect location https://%[hdr(host),field(1,:)]:8443%[capture.req.uri] code 302",
            "tune.bufsize 65536",
            "backend shop_svc_api_81",
            "default-server proto h2",
        ],
    );
    assert!(translation.files[Path::new(slots::SERVERS)].contains("\"room\":7"));
}

#[test]
fn hosts_with_stars_none_and_https() {
    let star = translate(&ingress("a", "{}", "'*.shop.test'", "/", "web"));
    assert_eq!(prefix(&star, ".shop.test/"), Some("shop_svc_web_http"));
    let none = translate(&ingress("a", "{}", "''", "/", "web"));
    assert_eq!((prefix(&none, "/"), &*none.files[Path::new("maps/host.map")]), (Some("shop_svc_web_http"), ""));
    assert!(!conf(&none).contains("crt certs"));
    let tls = "  tls: [{hosts: [shop.test], secretName: cert}]\n";
    let secret = manifest("cert", &pair_for("shop.test"));
    let https = translate(&(ingress("a", "{}", "shop.test", "/", "web") + tls + &secret));
    https.says(MAIN, &["bind 0.0.0.0:8443 name v4 crt certs alpn h2,http/1.1 ssl"]);
    assert!(
        conf(&https).contains("redirect location https://%[hdr(host),field(1,:)]:8443%[capture.req.uri] code 302 if")
    );
    let pem = &https.files[Path::new("certs/shop_cert.pem")];
    assert!(pem.find("BEGIN PRIVATE KEY") < pem.find("BEGIN CERTIFICATE"), "{pem}");
    let missing = translate(&(ingress("a", "{}", "shop.test", "/", "web") + tls));
    assert!(missing.messages()[0].contains("missing in shop/cert") && !conf(&missing).contains("crt certs"));
}

#[test]
fn a_condition_of_the_services_own_comes_before_the_maps() {
    let service = "---\nkind: Service\nmetadata: {name: canary, namespace: shop, annotations: {haproxy.org/route-acl: rand(100) lt 10}}\n\
                   spec: {clusterIP: 10.96.0.6, ports: [{name: http, port: 80}]}\n";
    let translation = translate(&(ingress("a", "{}", "shop.test", "/", "canary") + service));
    translation.says(MAIN, &[
            "use_backend shop_svc_canary_http if { var(txn.host) -m str shop.test } { path -m beg / } { rand(100) lt 10 }",
        ]);
}

#[test]
fn a_default_backend_has_none_of_the_headers() {
    let default = format!(
        "\nkind: Ingress\nmetadata: {{name: d, namespace: shop, annotations: {OVERRIDE}}}\nspec:\n  ingressClassName: haproxy\n  \
         defaultBackend: {{service: {{name: web, port: {{number: 80}}}}}}\n"
    );
    let translation = translate(&default);
    translation.says(MAIN, &["default_backend shop_svc_web_http"]);
    // The rule is there, and no value of a map asks for it.
    assert!(translation.files[Path::new("maps/path-prefix.map")].is_empty());
}

#[test]
fn bad_objects_are_told_of_and_the_rest_serves() {
    let good = ingress("good", "{}", "good.test", "/", "web");
    for (bad, message, there) in [
        (ingress("a", "{}", "bad.test", "/", "none"), "service 'shop/none' does not exist", false),
        (ingress("a", "{}", "bad.test", "/", "api"), "no service port matching '80'", false),
        (ingress("a", "{}", "''", "''", "web"), "neither Host nor Path", false),
        (ingress("a", "{}", "'a b'", "/", "web"), "the host \"a b\" is not a DNS name", false),
        (ingress("a", "{}", "bad.test", "'/a b'", "web"), "the path \"/a b\" cannot be matched", false),
        (ingress("a", "{haproxy.org/set-host: 'a b'}", "bad.test", "/", "web"), "incorrect value 'a b'", true),
        (
            ingress("a", "{haproxy.org/request-set-header: 'x{ y'}", "bad.test", "/", "web"),
            "incorrect value 'x{ y'",
            true,
        ),
        (
            ingress("a", "{haproxy.org/load-balance: 'roundrobin odd'}", "bad.test", "/", "web"),
            "load-balance: unknown balance configuration 'odd'",
            true,
        ),
        (
            ingress("a", "{haproxy.org/cr-backend: odd}", "bad.test", "/", "web"),
            "annotation cr-backend: custom resource 'shop/odd' does not exist",
            true,
        ),
        // What cannot be read is left out, and the route stays, without its header.
        (
            ingress("a", "{haproxy.org/request-set-header: nothing-to-set}", "bad.test", "/", "web"),
            "incorrect value 'nothing-to-set'",
            true,
        ),
    ] {
        let translation = translate(&format!("{bad}---{good}"));
        let said = translation.messages();
        assert!(said.iter().any(|said| said.contains(message)), "{said:?}");
        assert_eq!(prefix(&translation, "good.test/"), Some("shop_svc_web_http"));
        assert_eq!(prefix(&translation, "bad.test/").is_some(), there, "{message}");
    }
    let foreign =
        ingress("a", "{}", "bad.test", "/", "web").replace("ingressClassName: haproxy", "ingressClassName: other");
    assert_eq!((prefix(&translate(&foreign), "bad.test/"), translate(&foreign).statuses.len()), (None, 0));
}

#[test]
fn what_cannot_be_read_of_an_annotation_takes_no_other_annotation_with_it() {
    let annotations = r#"{haproxy.org/set-host: "a b", haproxy.org/request-set-header: "x-one 1\nodd\nx-two 2"}"#;
    let translation = translate(&ingress("a", annotations, "shop.test", "/", "web"));
    assert_eq!(translation.messages().len(), 2, "{:?}", translation.messages());
    assert!(conf(&translation).contains("set-header x-one") && !conf(&translation).contains("x-two"));
    assert!(prefix(&translation, "shop.test/").is_some_and(|value| value.starts_with("shop_svc_web_http.")));
}

#[test]
fn what_is_no_way_to_choose_a_server_is_left_out_and_told_of() {
    for (said, written, wrong) in [
        ("leastconn", "balance leastconn", ""),
        ("hdr(x-user) use_domain_only", "balance hdr(x-user) use_domain_only", ""),
        ("url_param user check_post 10", "balance url_param user check_post 10", ""),
        ("uri depth", "balance roundrobin", "missing parameter for option 'depth'"),
        ("uri len all", "balance roundrobin", "parsing \"all\""),
        ("fastest", "balance roundrobin", "algorithm in body should be one of"),
        ("hdr(x)\\nmode tcp", "balance roundrobin", "more than one line"),
    ] {
        let annotations = format!("{{haproxy.org/load-balance: \"{said}\"}}");
        let translation = translate(&ingress("a", &annotations, "shop.test", "/", "web"));
        translation.says(MAIN, &[written]);
        let messages = translation.messages();
        assert_eq!(messages.is_empty(), wrong.is_empty(), "{said}: {messages:?}");
        assert!(messages.iter().all(|message| message.contains(wrong)), "{said}: {messages:?}");
    }
}

#[test]
fn snippets_are_in_the_backend_and_say_whose_they_are() {
    let one = ingress("a", "{haproxy.org/backend-config-snippet: \"option a\\noption b\"}", "a.test", "/", "web");
    let two = ingress("b", "{haproxy.org/backend-config-snippet: option c}", "b.test", "/", "web");
    let lines: Vec<String> =
        conf(&translate(&format!("{one}---{two}"))).lines().map(|it| it.trim().to_owned()).collect();
    let expected = [
        "### ingress:shop_svc_web_http/shop/a ###",
        "option a",
        "option b",
        "###_config-snippet_### END",
        "### ingress:shop_svc_web_http/shop/b ###",
        "option c",
        "###_config-snippet_### END",
        "# servers of shop_svc_web_http",
    ];
    assert!(lines.windows(expected.len()).any(|window| window == expected), "{lines:?}");
}

#[test]
fn of_two_routes_for_the_same_the_lower_value_is_used_and_it_is_said() {
    let two = ingress("a", OVERRIDE, "shop.test", "/", "web") + "---" + &ingress("b", "{}", "shop.test", "/", "web");
    let translation = translate(&two);
    // The one without rules is the lower one: the override of the other is not set.
    assert_eq!(prefix(&translation, "shop.test/"), Some("shop_svc_web_http"));
    assert!(translation.messages()[0].contains("declared with two different values"));
}

#[test]
fn a_secret_that_cannot_be_used_is_ignored_and_told_of() {
    let with_tls = ingress("a", "{}", "shop.test", "/", "web") + "  tls: [{hosts: [shop.test], secretName: cert}]\n";
    for (what, pair) in unusable() {
        let translation = translate(&(with_tls.clone() + &manifest("cert", &pair)));
        assert!(!translation.files.contains_key(Path::new("certs/shop_cert.pem")), "{what}");
        assert!(!conf(&translation).contains("crt certs"), "{what}");
        assert!(prefix(&translation, "shop.test/").is_some(), "{what}");
        let said = translation.messages();
        assert!(said[0].contains("'shop/cert' has no valid certificate and private key"), "{what}: {said:?}");
    }
    let code = "{haproxy.org/ssl-redirect: 'true', haproxy.org/ssl-redirect-code: '999'}";
    assert!(conf(&translate(&ingress("a", code, "shop.test", "/", "web"))).contains(" code 302 "));
}

/// The real one waits for all that it watches before its first configuration, the definitions of kinds included.
#[test]
fn the_manifests_let_it_see_all_that_it_waits_for() {
    let fixtures = meshgate_fixtures::Fixtures::built_in().unwrap();
    let nothing = std::collections::BTreeMap::new();
    let rbac = fixtures.controller("haproxytech").unwrap().install.iter().find(|file| file.path.ends_with("rbac.yaml"));
    let objects = rbac.unwrap().instantiate(&nothing).unwrap();
    let role = objects.iter().find(|object| object["kind"] == "ClusterRole").unwrap();
    let has = |list: &serde_json::Value, item: &str| list.as_array().unwrap().iter().any(|one| one == item);
    let kinds = controller().kinds();
    assert!(kinds.contains(&DEFINITIONS));
    for kind in kinds {
        let granted = role["rules"].as_array().unwrap().iter().any(|rule| {
            has(&rule["apiGroups"], kind.group)
                && has(&rule["resources"], kind.plural)
                && has(&rule["verbs"], "list")
                && has(&rule["verbs"], "watch")
        });
        assert!(granted, "{kind:?}");
    }
}
