use std::collections::BTreeSet;

use super::*;
use crate::objects::Kind;
use crate::secrets::examples::{manifest, pair_for, unusable};

const KINDS: [Kind; 6] = [CONFIG_MAPS, ENDPOINT_SLICES, INGRESS_CLASSES, INGRESSES, SECRETS, SERVICES];

/// A class, a Service with two endpoints, and whatever a test adds.
fn translate(further: &str) -> Translation {
    let base = r#"
kind: IngressClass
metadata: {name: nginx}
spec: {controller: k8s.io/ingress-nginx}
---
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80}]}
---
kind: Service
metadata: {name: ingress, namespace: ingress-nginx}
spec: {clusterIP: 10.96.0.8, ports: []}
status: {loadBalancer: {ingress: [{ip: 203.0.113.10, ipMode: VIP}]}}
---
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
ports: [{name: http, port: 8080}]
endpoints:
  - {addresses: [10.244.0.3]}
  - {addresses: [10.244.0.2], conditions: {ready: true}}
  - {addresses: [10.244.0.4], conditions: {ready: false}}
"#;
    controller().translate(&Objects::from_yaml(&KINDS, &format!("{base}---{further}")))
}

fn controller() -> IngressNginx {
    let words = "--configmap=ingress-nginx/settings --publish-service=ingress-nginx/ingress".split(' ');
    IngressNginx { flags: Flags::new(words.map(str::to_owned)), certificate: "PEM".to_owned() }
}

/// What the webhook says of an Ingress beside these objects.
fn judged(there: &str, ingress: &str) -> Result<(), String> {
    let class = "kind: IngressClass\nmetadata: {name: nginx}\nspec: {controller: k8s.io/ingress-nginx}\n";
    let there = if there.is_empty() { class.to_owned() } else { format!("{class}---{there}") };
    let one = Objects::from_yaml(&KINDS, ingress);
    let asked = one.all(INGRESSES).next().expect("an Ingress");
    controller().judge(&Objects::from_yaml(&KINDS, &there), asked)
}

fn settings(data: &str) -> String {
    format!("\nkind: ConfigMap\nmetadata: {{name: settings, namespace: ingress-nginx}}\ndata: {data}\n---")
}

/// An Ingress for one path of `shop.test`, its backend `web` on a port.
fn ingress(name: &str, annotations: &str, path: &str, port: &str) -> String {
    format!(
        r#"
kind: Ingress
metadata: {{name: {name}, namespace: shop, annotations: {annotations}}}
spec:
  ingressClassName: nginx
  rules:
    - host: shop.test
      http: {{paths: [{{path: {path}, pathType: Prefix, backend: {{service: {{name: web, port: {port}}}}}}}]}}
"#
    )
}

fn conf(translation: &Translation) -> &str {
    &translation.files[std::path::Path::new(render::MAIN)]
}

/// Lines of a location, without those that every location has.
fn location<'a>(conf: &'a str, head: &str) -> Vec<&'a str> {
    let start = conf.find(&format!("{head} {{")).unwrap_or_else(|| panic!("no {head} in {conf}"));
    conf[start..].lines().map(str::trim).take_while(|line| *line != "}").skip(1).collect()
}

#[test]
fn a_path_leads_to_the_ready_endpoints_and_to_the_service_with_service_upstream() {
    let plain = translate(&ingress("a", "{}", "/", "{number: 80}"));
    let zone: endpoints::Zone = serde_json::from_str(&plain.files[std::path::Path::new(render::ENDPOINTS)]).unwrap();
    let name = endpoints::name("shop-web-80");
    let ready = ["10.244.0.2:8080", "10.244.0.3:8080"].map(|address| address.parse().unwrap());
    // Three attempts go round.
    assert_eq!(zone, [(name.clone(), ready.repeat(2))].into());
    assert!(conf(&plain).contains(&format!("server {name} service=http resolve max_fails=0;\n")), "{}", conf(&plain));
    let lines = location(conf(&plain), "location \"/\"");
    assert!(lines.contains(&"proxy_set_header X-Original-Forwarded-Host $http_x_forwarded_host;"), "{lines:?}");
    let annotations = r#"{nginx.ingress.kubernetes.io/service-upstream: "true"}"#;
    let service = translate(&ingress("a", annotations, "/", "{name: http}"));
    assert_eq!(conf(&service).matches("server 10.96.0.7:80 max_fails=0;\n").count(), 3, "one for each attempt");
    assert!(!conf(&service).contains("resolve max"));
    assert!(
        location(conf(&service), "location \"/\"").contains(&"set $service_port \"http\";"),
        "as the Ingress names it"
    );
}

#[test]
fn a_prefix_takes_whole_elements() {
    let conf_of = |path| conf(&translate(&ingress("a", "{}", path, "{number: 80}"))).to_owned();
    let below = conf_of("/a");
    assert!(below.contains("location \"/a/\" {") && below.contains("location = \"/a\" {"));
    assert!(below.contains("location / {"), "the rest of the host is the default backend's");
    assert!(!conf_of("/").contains("location = \"/\""));
}

#[test]
fn a_snippet_comes_last_and_only_where_snippets_are_allowed() {
    let annotations = r#"{nginx.ingress.kubernetes.io/configuration-snippet: "proxy_set_header a $service_name;"}"#;
    let ingress = ingress("a", annotations, "/", "{number: 80}");
    let with = |data: &str| translate(&(settings(data) + &ingress));
    let allowed =
        with(r#"{allow-snippet-annotations: "true", annotations-risk-level: Critical, proxy-set-headers: x/none}"#);
    let lines = location(conf(&allowed), "location \"/\"");
    let at =
        |part: &str| lines.iter().position(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {lines:?}"));
    assert!(at("Host") < at("proxy_next_upstream_tries") && at("proxy_next_upstream_tries") < at("header a"));
    assert!(at("header a") < at("proxy_pass"));
    assert_eq!(allowed.messages(), [""; 0]);

    let dropped = with("{annotations-risk-level: Critical}");
    assert!(!conf(&dropped).contains("header a") && conf(&dropped).contains("server_name shop.test;"));
    assert_eq!(dropped.messages(), [""; 0], "the real one says nothing of it either");

    let refused = with("{}");
    assert!(!conf(&refused).contains("shop.test"));
    assert!(refused.messages()[0].contains("risk is Critical"), "{:?}", refused.messages());
}

#[test]
fn custom_headers_are_names_and_values() {
    let config_map = "\nkind: ConfigMap\nmetadata: {name: headers, namespace: ingress-nginx}\n\
                      data: {l5d-dst-override: $service_name.svc:$service_port}\n---";
    let settings = settings("{proxy-set-headers: ingress-nginx/headers}");
    let grpc = r#"{nginx.ingress.kubernetes.io/backend-protocol: GRPC}"#;
    let plain = ingress("a", "{}", "/", "{number: 80}");
    for (ingress, set, pass) in
        [(&plain, "proxy_set_header", "proxy_pass"), (&plain.replace("{}", grpc), "grpc_set_header", "grpc_pass")]
    {
        let translation = translate(&(settings.clone() + config_map + ingress));
        let file = format!("headers/{set}.conf");
        let lines = location(conf(&translation), "location \"/\"");
        let at = |part: &str| lines.iter().position(|line| line.starts_with(part));
        let (proxy, include, pass) = (at(&format!("{set} Proxy")), at(&format!("include {file};")), at(pass));
        assert!(proxy.is_some() && proxy < include && include < pass, "{lines:?}");
        translation.says(&file, &[&format!("{set} \"l5d-dst-override\" \"$service_name.svc:$service_port\";")]);
    }
}

#[test]
fn a_change_of_the_custom_headers_changes_nothing_else() {
    let with = |config_map: &str| {
        let settings = settings("{proxy-set-headers: ingress-nginx/headers}");
        translate(&(settings + config_map + &ingress("a", "{}", "/", "{number: 80}"))).files
    };
    let config_map = |value: &str| {
        format!("\nkind: ConfigMap\nmetadata: {{name: headers, namespace: ingress-nginx}}\ndata: {{x: {value}}}\n---")
    };
    let rest = |files: &crate::data_plane::Files| {
        let mut files = files.clone();
        files.retain(|path, _| !path.starts_with(render::HEADERS));
        files
    };
    let one = with(&config_map("a"));
    for other in [with(&config_map("b")), with("")] {
        assert_ne!(one, other);
        assert_eq!(rest(&one), rest(&other));
    }
}

#[test]
fn the_older_ingress_has_a_path_that_two_want_and_nobody_is_told() {
    let made = |name: &str, second: u8| {
        let time = format!("creationTimestamp: '2026-01-01T00:00:0{second}Z', namespace: shop");
        ingress(name, "{}", "/", "{number: 80}").replace("namespace: shop", &time)
    };
    for (one, other, has) in [
        (made("a", 1), made("b", 2), "a"),
        (made("a", 2), made("b", 1), "b"),
        // Of the same second it is the one whose name comes last.
        (made("a", 1), made("b", 1), "b"),
        (made("a-older", 1), made("a", 1), "a-older"),
    ] {
        let translation = translate(&(one + "---" + &other));
        let line = format!("set $ingress_name \"{has}\";");
        assert!(location(conf(&translation), "location \"/\"").contains(&line.as_str()), "{has}");
        assert_eq!(translation.messages(), [""; 0]);
    }
}

#[test]
fn the_users_of_a_secret_pass_and_without_them_nobody() {
    let annotated = |further: &str| {
        let annotations = format!("{{nginx.ingress.kubernetes.io/auth-type: basic, {further}}}");
        ingress("a", &annotations, "/", "{number: 80}")
    };
    // `user:secret`, and what takes the user's name from the key.
    let secret = "---\nkind: Secret\nmetadata: {name: users, namespace: shop}\ndata: {auth: dXNlcjpzZWNyZXQ=}\n";
    let secret_elsewhere = secret.replace("shop", "other");
    let named = |secret: &str| annotated(&format!("nginx.ingress.kubernetes.io/auth-secret: {secret}"));
    let users = std::path::Path::new("users/shop_a.passwd");
    for (of, file) in [
        (named("users"), "user:secret"),
        (named("shop/users"), "user:secret"),
        (
            annotated(
                "nginx.ingress.kubernetes.io/auth-secret: users, nginx.ingress.kubernetes.io/auth-secret-type: auth-map",
            ),
            "auth:user:secret\n",
        ),
    ] {
        let there = translate(&(of + secret));
        assert_eq!(there.files[users], file);
        let lines = location(conf(&there), "location \"/\"");
        assert!(lines.contains(&"auth_basic_user_file \"users/shop_a.passwd\";"), "{lines:?}");
        assert!(lines.contains(&"proxy_set_header Authorization \"\";"), "{lines:?}");
        assert_eq!(there.messages(), [""; 0]);
    }
    for (of, wanted) in [
        (named("other/users"), "cross namespace usage of secrets is not allowed"),
        (named("none"), "unexpected error reading secret shop/none"),
        (annotated(""), "error reading secret name"),
        (named("users").replace("auth-type: basic", "auth-type: digest"), "lacks the module"),
    ] {
        let denied = translate(&(of + secret + &secret_elsewhere));
        assert_eq!(location(conf(&denied), "location \"/\"").last(), Some(&"return 503;"), "{wanted}");
        let [said] = denied.messages()[..] else { panic!("{:?}", denied.messages()) };
        assert!(said.contains(wanted) && said.ends_with("its paths answer 503"), "{said}");
        assert!(!denied.files.contains_key(users));
    }
    let everywhere = settings(r#"{allow-cross-namespace-resources: "true"}"#) + &named("other/users");
    assert_eq!(translate(&(everywhere + &secret_elsewhere)).files[users], "user:secret");
    let headers = "{nginx.ingress.kubernetes.io/auth-url: 'http://a.test/', \
                   nginx.ingress.kubernetes.io/auth-proxy-set-headers: other/headers}";
    let denied = translate(&ingress("a", headers, "/", "{number: 80}"));
    assert!(denied.messages()[0].contains("cross namespace usage"), "{:?}", denied.messages());
}

#[test]
fn an_annotation_above_the_allowed_risk_leaves_its_ingress_out() {
    let ingress = ingress("a", "{nginx.ingress.kubernetes.io/rewrite-target: /b}", "/", "{number: 80}");
    let with = |level: &str| translate(&(settings(&format!("{{annotations-risk-level: {level}}}")) + &ingress));
    assert!(conf(&with("Medium")).contains("server_name shop.test;"));
    let left_out = with("Low");
    assert!(!conf(&left_out).contains("shop.test"));
    assert!(left_out.messages()[0].contains("its risk is Medium"), "{:?}", left_out.messages());
}

#[test]
fn the_webhook_refuses_what_would_not_be_served_as_it_is_meant() {
    let snippet = "{nginx.ingress.kubernetes.io/configuration-snippet: nonsense}";
    let allowed = settings(r#"{allow-snippet-annotations: "true", annotations-risk-level: Critical}"#);
    let risky = settings(r#"{allow-snippet-annotations: "true"}"#);
    let there = ingress("there", "{}", "/", "{number: 80}");
    let plain = ingress("a", "{}", "/", "{number: 80}");
    let other = |old: &str, new: &str| plain.replace(old, new);
    let with = |annotations: &str| ingress("a", annotations, "/", "{number: 80}");
    let disabled = "nginx.ingress.kubernetes.io/configuration-snippet annotation cannot be used. Snippet directives are \
                    disabled by the Ingress administrator";
    let taken = "host \"shop.test\" and path \"/\" is already defined in ingress shop/there";
    let canary = "{nginx.ingress.kubernetes.io/canary: 'true'}";
    let stricter = settings("{strict-validate-path-type: 'false'}");
    for (beside, asked, wanted) in [
        ("", with(snippet), Some(disabled)),
        ("", with("{a.test/server-snippet: x}"), Some("annotation cannot be used")),
        (&*risky, with(snippet), Some("risky annotation")),
        // What nginx makes of it nobody asks.
        (&*allowed, with(snippet), None),
        ("", with("{nginx.ingress.kubernetes.io/upstream-vhost: 'a; b'}"), Some("expected a host")),
        ("", with("{nginx.ingress.kubernetes.io/proxy-read-timeout: soon}"), None),
        ("", other("path: /", "path: '/a{2}'"), Some("path /a{2} cannot be used with pathType Prefix")),
        ("", other("path: /", "path: '/a{2}'").replace("Prefix", "ImplementationSpecific"), None),
        (&*stricter, other("path: /", "path: '/a{2}'"), None),
        (&*there, plain.clone(), Some(taken)),
        (&*there, with(canary), None),
        (&*there, other("name: a,", "name: there,"), None),
        (&*there, other("path: /", "path: /b"), None),
        (&*there, other("Prefix", "Exact"), None),
        (&*there, other("shop.test", "other.test"), None),
        (&*there, other("ingressClassName: nginx", "ingressClassName: none"), None),
        ("", with(snippet).replace("ingressClassName: nginx", "ingressClassName: none"), None),
        ("", plain.clone(), None),
    ] {
        match (judged(beside.trim_end_matches("---"), &asked), wanted) {
            (Ok(()), None) => {}
            (Err(said), Some(wanted)) if said.contains(wanted) => {}
            (found, wanted) => panic!("{wanted:?}: {found:?}: {asked}"),
        }
    }
}

#[test]
fn it_is_asked_where_the_flags_say() {
    let words = "--validating-webhook=:8443 --validating-webhook-certificate=/c/cert --validating-webhook-key=/c/key";
    let controller = IngressNginx { flags: Flags::new(words.split(' ').map(str::to_owned)), ..controller() };
    let webhook = controller.webhook().unwrap();
    assert_eq!((webhook.address.as_str(), webhook.certificate.to_str()), (":8443", Some("/c/cert")));
    assert!(self::controller().webhook().is_none());
}

#[test]
fn a_canary_takes_its_share_of_the_path_and_keeps_the_names_of_the_primary() {
    let canary = r#"{nginx.ingress.kubernetes.io/canary: "true", nginx.ingress.kubernetes.io/canary-weight: "30"}"#;
    let canary = ingress("b", canary, "/", "{name: http}");
    let translation = translate(&(ingress("a", "{}", "/", "{number: 80}") + "---" + &canary));
    assert!(conf(&translation).contains("30.00% \"shop-web-http\";"), "{}", conf(&translation));
    let lines = location(conf(&translation), "location \"/\"");
    assert!(
        lines.contains(&"set $service_port \"80\";") && lines.contains(&"proxy_pass \"http://$canary_0\";"),
        "{lines:?}"
    );
    assert_eq!(translation.messages(), [""; 0]);
    // The control: a canary of nothing is said to do nothing.
    assert!(translate(&canary).messages()[0].contains("which no other Ingress has"));
}

#[test]
fn what_cannot_be_taken_or_found_stops_nothing_else() {
    let annotated = |name: &str, value: &str| format!("{{nginx.ingress.kubernetes.io/{name}: '{value}'}}");
    let bad = [
        (annotated("upstream-vhost", "a; b"), "{number: 80}", "expected a host, found \"a; b\""),
        (annotated("custom-http-errors", "404,999"), "{number: 80}", "expected codes between 400 and 599"),
        (annotated("default-backend", "a;"), "{number: 80}", "expected the name of a Service"),
        (annotated("auth-url", "http://a.test/; }"), "{number: 80}", "expected a URL of"),
        ("{}".to_owned(), "{}", "no Service with a port"),
        ("{}".to_owned(), "{name: a; b}", "no name of a Service and its port"),
    ];
    for (annotations, port, message) in bad {
        let good = ingress("good", "{}", "/good", "{number: 80}");
        let translation = translate(&(ingress("bad", &annotations, "/bad", port) + "---" + &good));
        assert!(translation.messages()[0].contains(message), "{message}: {:?}", translation.messages());
        assert!(conf(&translation).contains("location \"/good/\""), "{message}");
        assert!(!conf(&translation).contains("; }\"") && !conf(&translation).contains("a; b"), "{message}");
    }
    let host = ingress("bad", "{}", "/", "{number: 80}").replace("host: shop.test", "host: 'a; b'");
    let translation = translate(&host);
    assert!(translation.messages()[0].contains("is not a DNS name") && !conf(&translation).contains("a; b"));
}

#[test]
fn a_port_that_a_service_lacks_is_not_told_of() {
    let own = r#"{nginx.ingress.kubernetes.io/service-upstream: "true"}"#;
    for port in ["{number: 81}", "{name: other}"] {
        let translation = translate(&ingress("a", "{}", "/", port));
        assert_eq!(translation.messages(), [""; 0], "{port}");
        let zone = &translation.files[std::path::Path::new(render::ENDPOINTS)];
        let zone: endpoints::Zone = serde_json::from_str(zone).unwrap();
        assert!(zone.values().all(Vec::is_empty), "{zone:?}");
    }
    let translation = translate(&ingress("a", own, "/", "{number: 81}"));
    assert_eq!(translation.messages(), [""; 0]);
    assert!(conf(&translation).contains("server 10.96.0.7:81 max_fails=0;"), "{}", conf(&translation));
    // What is missing otherwise is.
    let failed = "Failed to determine a suitable ClusterIP Endpoint for Service \"shop/";
    let translation = translate(&ingress("a", own, "/", "{name: other}"));
    let [said] = translation.messages()[..] else { panic!("{:?}", translation.messages()) };
    assert!(said.starts_with(failed) && said.ends_with("does not have a port named \"other\""), "{said}");
    let missing = "Error obtaining Endpoints for Service \"shop/none\": no object matching key";
    for (annotations, wanted) in [("{}", vec![missing]), (own, vec![missing, failed])] {
        let translation = translate(&ingress("a", annotations, "/", "{number: 80}").replace("name: web", "name: none"));
        let said = translation.messages();
        assert!(said.len() == wanted.len(), "{said:?}");
        assert!(said.iter().zip(wanted).all(|(said, wanted)| said.starts_with(wanted)), "{said:?}");
    }
}

#[test]
fn a_value_that_an_annotation_does_not_take_is_told_of_and_taken_for_not_set() {
    let canary = r#"nginx.ingress.kubernetes.io/canary: "true", "#;
    for (name, value, default) in [
        ("proxy-body-size", "1m; }", "client_max_body_size 1m;"),
        ("proxy-body-size", "10 b", "client_max_body_size 1m;"),
        ("proxy-read-timeout", "soon", "proxy_read_timeout 60s;"),
        ("proxy-request-buffering", "maybe", "proxy_request_buffering on;"),
        ("service-upstream", "yes", "proxy_pass \"http://shop-web-80\";"),
        ("backend-protocol", "SPDY", "proxy_pass \"http://shop-web-80\";"),
        ("rewrite-target", "/a; }", "proxy_pass \"http://shop-web-80\";"),
        ("ssl-redirect", "perhaps", "set $service_name \"web\";"),
        ("canary", "perhaps", "set $service_name \"web\";"),
    ] {
        let annotations = format!("{{nginx.ingress.kubernetes.io/{name}: '{value}'}}");
        let translation = translate(&ingress("a", &annotations, "/", "{number: 80}"));
        let lines = location(conf(&translation), "location \"/\"");
        assert!(lines.contains(&default), "{name}: {lines:?}");
        let [said] = translation.messages()[..] else { panic!("{:?}", translation.messages()) };
        assert!(said.contains(name) && said.contains("taken for not set") && said.contains(value), "{said}");
    }
    for (name, value) in [
        ("canary-by-cookie", "a b; }"),
        ("canary-by-header", "x {"),
        ("canary-by-header-value", "\"; }"),
        ("canary-by-header-pattern", "a; }"),
        ("canary-weight", "most"),
        ("canary-weight-total", "-1"),
    ] {
        let header =
            if name == "canary-by-header-value" { "nginx.ingress.kubernetes.io/canary-by-header: x, " } else { "" };
        let annotations = format!("{{{canary}{header}nginx.ingress.kubernetes.io/{name}: '{value}'}}");
        let both = ingress("a", "{}", "/", "{number: 80}") + "---" + &ingress("b", &annotations, "/", "{name: http}");
        let translation = translate(&both);
        let [said] = translation.messages()[..] else { panic!("{:?}", translation.messages()) };
        assert!(said.contains(name) && said.contains("taken for not set"), "{said}");
        assert!(!conf(&translation).contains("; }") && conf(&translation).contains("proxy_pass \"http://$canary_0\""));
    }
}

#[test]
fn a_canary_is_chosen_by_any_cookie_and_any_value_of_a_header() {
    let both = |annotations: &str| {
        let canary = format!("{{nginx.ingress.kubernetes.io/canary: 'true', {annotations}}}");
        translate(&(ingress("a", "{}", "/", "{number: 80}") + "---" + &ingress("b", &canary, "/", "{name: http}")))
    };
    let cookie = both("nginx.ingress.kubernetes.io/canary-by-cookie: a.b-c");
    cookie.says(render::MAIN, &[r#""~(^|; *)a\\.b\\-c=always *(;|$)" "shop-web-http";"#]);
    // Either would be a keyword or a pattern.
    for value in ["default", "~a", "plain"] {
        let header =
            "nginx.ingress.kubernetes.io/canary-by-header: x, nginx.ingress.kubernetes.io/canary-by-header-value";
        both(&format!("{header}: '{value}'")).says(render::MAIN, &[&format!(r#""\\{value}" "shop-web-http";"#)]);
    }
    let pattern = |pattern: &str, further: &str| {
        let header = "nginx.ingress.kubernetes.io/canary-by-header: x, nginx.ingress.kubernetes.io/canary-by-header";
        both(&format!("{header}-pattern: '{pattern}'{further}"))
    };
    let weight = "\"\" $canary_0_weight;";
    pattern(r"^a\d+$", "").says(render::MAIN, &[r#""~^a\\d+$" "shop-web-http";"#, "default $canary_0_weight;", weight]);
    // One that does not end takes nobody, and nothing else is asked.
    pattern("(", "").says(render::MAIN, &["default \"shop-web-80\";", weight]);
    let value = pattern("a", ", nginx.ingress.kubernetes.io/canary-by-header-value: b");
    assert!(conf(&value).contains(r#""\\b" "shop"#) && !conf(&value).contains("\"~a\""), "a value comes before it");
    let none = both("nginx.ingress.kubernetes.io/canary-by-header: a.b");
    assert!(!conf(&none).contains("$http_a"), "no client's header has that name");
}

#[test]
fn nobody_passes_where_the_guard_cannot_be_read() {
    let guarded = |further: &str| {
        let annotations = format!("{{nginx.ingress.kubernetes.io/auth-url: 'http://auth.test/'{further}}}");
        let config_map = "---\nkind: ConfigMap\nmetadata: {name: bad, namespace: shop}\ndata: {'a b': c}\n";
        let good = ingress("good", "{}", "/good", "{number: 80}");
        translate(&(ingress("a", &annotations, "/bad", "{number: 80}") + config_map + "---" + &good))
    };
    let open = guarded("");
    assert!(!location(conf(&open), "location \"/bad/\"").contains(&"return 503;"), "the control");
    for further in [
        ", nginx.ingress.kubernetes.io/auth-response-headers: 'X-User; }'",
        ", nginx.ingress.kubernetes.io/auth-proxy-set-headers: 'shop/none'",
        ", nginx.ingress.kubernetes.io/auth-proxy-set-headers: 'shop/bad'",
        ", nginx.ingress.kubernetes.io/auth-proxy-set-headers: 'shop/;'",
    ] {
        let translation = guarded(further);
        assert_eq!(location(conf(&translation), "location \"/bad/\"").last(), Some(&"return 503;"), "{further}");
        assert!(location(conf(&translation), "location \"/good/\"").iter().any(|line| line.starts_with("proxy_pass")));
        assert!(translation.messages()[0].ends_with("its paths answer 503"), "{:?}", translation.messages());
    }
    let relative = translate(&ingress("a", "{nginx.ingress.kubernetes.io/auth-url: /auth}", "/bad", "{number: 80}"));
    assert!(relative.messages()[0].contains("expected http(s)://host/"), "{:?}", relative.messages());
    assert_eq!(location(conf(&relative), "location \"/bad/\"").last(), Some(&"return 503;"));
}

#[test]
fn the_default_backend_is_sent_the_custom_headers() {
    let config_map = "\nkind: ConfigMap\nmetadata: {name: headers, namespace: ingress-nginx}\n\
                      data: {l5d-dst-override: $service_name.$namespace.svc.cluster.local:$service_port}\n---\n\
                      kind: Service\nmetadata: {name: backend, namespace: shop}\n\
                      spec: {clusterIP: 10.96.0.5, ports: [{port: 80}]}\n";
    let settings = settings("{proxy-set-headers: ingress-nginx/headers}");
    let words = "--configmap=ingress-nginx/settings --default-backend-service=shop/backend".split(' ');
    let controller = IngressNginx { flags: Flags::new(words.map(str::to_owned)), certificate: "PEM".to_owned() };
    let translation = controller.translate(&Objects::from_yaml(&KINDS, &(settings + config_map)));
    let lines = location(conf(&translation), "location /");
    let at = |part: &str| lines.iter().position(|line| *line == part).unwrap_or_else(|| panic!("{part}: {lines:?}"));
    // They have no values, so what is sent is `..svc.cluster.local:`.
    let header = "include headers/proxy_set_header.conf;";
    assert!(at("set $service_name \"\";") < at(header) && at("set $namespace \"\";") < at(header));
}

#[test]
fn a_page_for_errors_comes_from_a_pod_whatever_service_upstream_says() {
    let annotated = |service: &str| {
        let annotations = format!(
            "{{nginx.ingress.kubernetes.io/service-upstream: 'true', nginx.ingress.kubernetes.io/custom-http-errors: '503', \
             nginx.ingress.kubernetes.io/default-backend: {service}}}"
        );
        translate(&ingress("a", &annotations, "/", "{number: 80}"))
    };
    let own = annotated("web");
    let page = location(conf(&own), "location @custom_custom-default-backend-shop-web_503");
    assert!(page.contains(&"proxy_pass http://custom-default-backend-shop-web;"), "{page:?}");
    let zone: endpoints::Zone = serde_json::from_str(&own.files[std::path::Path::new(render::ENDPOINTS)]).unwrap();
    // Each as often as it may be tried.
    let addresses = BTreeSet::from_iter(&zone[&endpoints::name("custom-default-backend-shop-web")]);
    assert_eq!(addresses.len(), 2);
    assert!(location(conf(&own), "location \"/\"").contains(&"proxy_pass \"http://shop-web-80-service\";"));
    // One without endpoints is as if it were not named.
    let none = annotated("absent");
    assert!(!conf(&none).contains("@custom") && conf(&none).contains("shop-web-80-service"));
}

#[test]
fn a_host_has_the_certificate_of_its_secret_and_redirects() {
    let tls = "  tls: [{hosts: [shop.test], secretName: cert}]\n";
    let secret = manifest("cert", &pair_for("shop.test"));
    let ingress = ingress("a", "{}", "/", "{number: 80}") + tls;
    let there = translate(&(ingress.clone() + &secret));
    assert!(conf(&there).contains("ssl_certificate tls/shop-cert.pem;"), "{}", conf(&there));
    let pem = &there.files[std::path::Path::new("tls/shop-cert.pem")];
    assert!(pem.find("BEGIN CERTIFICATE") < pem.find("BEGIN PRIVATE KEY"), "{pem}");
    assert!(conf(&there).contains("return 308 https://$host$request_uri;"));
    let missing = translate(&ingress);
    assert!(!conf(&missing).contains("shop-cert") && missing.messages()[0].contains("Secret shop/cert"));
    assert_eq!(conf(&missing).matches("ssl_certificate tls/").count(), 1, "the default server's is everybody's");
}

#[test]
fn a_certificate_that_cannot_be_used_leaves_the_default_one() {
    let tls = "  tls: [{hosts: [shop.test, other.test], secretName: cert}]\n";
    let ingress = ingress("a", "{}", "/", "{number: 80}") + tls;
    for (what, pair) in unusable() {
        let translation = translate(&(ingress.clone() + &manifest("cert", &pair)));
        assert!(!translation.files.contains_key(std::path::Path::new("tls/shop-cert.pem")), "{what}");
        assert!(!conf(&translation).contains("shop-cert"), "{what}");
        assert!(conf(&translation).contains("server_name shop.test;"), "{what}: it is served all the same");
        let said = translation.messages();
        assert!(said[0].contains("\"shop/cert\" is not valid") && said.len() == 1, "{what}: {said:?}");
    }
    // Each host of the list by itself.
    let translation = translate(&(ingress + &manifest("cert", &pair_for("shop.test"))));
    assert_eq!(conf(&translation).matches("ssl_certificate tls/shop-cert.pem;").count(), 1);
    let [said] = translation.messages()[..] else { panic!("{:?}", translation.messages()) };
    assert!(said.contains("for server \"other.test\""), "{said}");
}

#[test]
fn the_published_address_becomes_the_status_of_what_is_taken() {
    let other = "\nkind: Ingress\nmetadata: {name: other, namespace: shop}\nspec: {ingressClassName: other}\n---";
    let translation = translate(&(other.to_owned() + &ingress("a", "{}", "/", "{number: 80}")));
    assert_eq!(translation.statuses.len(), 1, "{:?}", translation.statuses);
    let there = ingress("a", "{}", "/", "{number: 80}") + "status: {loadBalancer: {ingress: [{ip: 203.0.113.10}]}}\n";
    assert_eq!(translate(&there).statuses, []);
}
