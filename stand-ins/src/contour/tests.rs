use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::*;

const KINDS: [Kind; 5] = [ENDPOINT_SLICES, HTTP_PROXIES, INGRESSES, SECRETS, SERVICES];

/// A certificate and its key, made once.
fn pair() -> &'static (String, String) {
    static PAIR: std::sync::OnceLock<(String, String)> = std::sync::OnceLock::new();
    PAIR.get_or_init(|| {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["a.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    })
}

/// Two Services with endpoints, and whatever a test adds.
fn objects(further: &str) -> Objects {
    let base = r"
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80}]}
---
kind: Service
metadata: {name: api, namespace: shop, annotations: {projectcontour.io/upstream-protocol.h2c: http}}
spec: {clusterIP: 10.96.0.8, ports: [{name: http, port: 81}]}
---
kind: Service
metadata: {name: envoy, namespace: projectcontour}
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
kind: Secret
metadata: {name: broken, namespace: shop}
data: {tls.crt: Q1JU, tls.key: S0VZ}
---
kind: Secret
metadata: {name: cert, namespace: shop}
";
    let (certificate, key) = pair();
    let data = serde_json::json!({"tls.crt": BASE64.encode(certificate), "tls.key": BASE64.encode(key)});
    Objects::from_yaml(&KINDS, &format!("{base}data: {data}\n{further}"))
}

fn translate_with(settings: &str, further: &str) -> Translation {
    let settings = Settings::parse(settings).unwrap();
    let contour = Contour { flags: Flags::default(), settings, namespace: "projectcontour".to_owned() };
    contour.translate(&objects(further))
}

fn translate(further: &str) -> Translation {
    translate_with("{}", further)
}

/// An HTTPProxy of `shop`; `spec` in flow style.
fn proxy(name: &str, spec: &str) -> String {
    format!("---\nkind: HTTPProxy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n")
}

fn resources(translation: &Translation, file: &str) -> Value {
    let file: Value = serde_json::from_str(&translation.files[std::path::Path::new(file)]).unwrap();
    file["resources"].clone()
}

/// The routes of a host of plain HTTP.
fn routes(translation: &Translation, host: &str) -> Option<Value> {
    let hosts = resources(translation, envoy::ROUTES)[0]["virtual_hosts"].clone();
    let hosts = hosts.as_array().unwrap().iter().find(|found| found["name"] == host).cloned();
    hosts.map(|host| host["routes"].clone())
}

/// What is wrong with the HTTPProxies.
fn problems(further: &str) -> Vec<String> {
    let objects = objects(further);
    let taken: Vec<&Object> = objects.all(HTTP_PROXIES).collect();
    proxies::add(&taken, &Settings::default(), &mut Config::default(), &mut Backends::new(&objects, false)).messages()
}

#[tokio::test]
async fn a_bootstrap_is_written_where_it_is_wanted_and_no_cluster_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("envoy.json").display().to_string();
    let called = |words: &[&str]| Flags::new(words.iter().map(|word| (*word).to_owned()));
    main(called(&["bootstrap", &file, "--xds-address=127.0.0.1", "--xds-port=8001"])).await.unwrap();
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let listeners = &written["dynamic_resources"]["lds_config"]["path_config_source"]["path"];
    assert!(Path::new(listeners.as_str().unwrap()).is_file(), "{written:#}");
    let error = main(called(&["bootstrap"])).await.unwrap_err().to_string();
    assert!(error.contains("expected the path of the file to write"), "{error}");
}

#[test]
fn a_routes_header_is_the_routes_and_the_pods_are_dialled() {
    let translation = translate(&proxy(
        "a",
        "{virtualhost: {fqdn: Shop.test}, routes: [{requestHeadersPolicy: {set: [{name: L5d-Dst-Override, value: web.shop:80}]}, \
         services: [{name: web, port: 80}]}]}",
    ));
    let found = routes(&translation, "shop.test").unwrap();
    assert_eq!(found[0]["match"]["prefix"], "/");
    assert_eq!(found[0]["route"]["cluster"], "shop/web/80");
    let header = &found[0]["request_headers_to_add"][0];
    assert_eq!(header["header"]["key"], "l5d-dst-override");
    assert_eq!(header["append_action"], "OVERWRITE_IF_EXISTS_OR_ADD");
    let cluster = &resources(&translation, envoy::CLUSTERS)[0];
    let endpoints = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), 1, "only ready ones");
    assert_eq!(endpoints[0]["endpoint"]["address"]["socket_address"]["address"], "10.244.0.3");
}

#[test]
fn every_request_is_told_its_begin_and_keeps_its_id_and_a_hosts_port_does_not_matter() {
    let translation =
        translate(&proxy("a", "{virtualhost: {fqdn: a.test}, routes: [{services: [{name: web, port: 80}]}]}"));
    let routes = &resources(&translation, envoy::ROUTES)[0];
    let begin = json!({"key": "x-request-start", "value": "t=%START_TIME(%s.%3f)%"});
    let added = json!([{"header": begin, "append_action": "APPEND_IF_EXISTS_OR_ADD"}]);
    assert_eq!((&routes["request_headers_to_add"], &routes["ignore_port_in_host_matching"]), (&added, &json!(true)));
    let listeners = &translation.files[Path::new(envoy::LISTENERS)];
    assert!(listeners.contains("\"preserve_external_request_id\":true"), "{listeners}");
}

#[test]
fn a_services_header_goes_with_its_share_and_knows_its_name() {
    let policy = "requestHeadersPolicy: {set: [{name: o, value: \
                  \"%CONTOUR_SERVICE_NAME%.%CONTOUR_NAMESPACE%:%CONTOUR_SERVICE_PORT%\"}]}";
    let translation = translate(&proxy(
        "a",
        &format!(
            "{{virtualhost: {{fqdn: a.test}}, routes: [{{{policy}, services: [{{name: web, port: 80, weight: 70, {policy}}}, \
             {{name: api, port: 81, weight: 30, {policy}}}]}}]}}"
        ),
    ));
    let found = routes(&translation, "a.test").unwrap();
    let clusters = &found[0]["route"]["weighted_clusters"]["clusters"];
    for (index, name, weight, value) in
        [(0, "shop/web/80", 70, "web.shop:80"), (1, "shop/api/81/h2c", 30, "api.shop:81")]
    {
        assert_eq!((&clusters[index]["name"], &clusters[index]["weight"]), (&name.into(), &weight.into()));
        assert_eq!(clusters[index]["request_headers_to_add"][0]["header"]["value"], value);
    }
    // The control: a route does not know which Service is meant.
    let of_route = &found[0]["request_headers_to_add"][0]["header"]["value"];
    assert_eq!(of_route, "%%CONTOUR_SERVICE_NAME%%.shop:%%CONTOUR_SERVICE_PORT%%");
}

#[test]
fn of_two_proxies_for_one_host_none_is_served() {
    let one = |name: &str| proxy(name, "{virtualhost: {fqdn: a.test}, routes: [{services: [{name: web, port: 80}]}]}");
    let both = one("a") + &one("b");
    assert_eq!(routes(&translate(&both), "a.test"), None);
    let message = "DuplicateVhost: fqdn \"a.test\" is used in multiple HTTPProxies: shop/a, shop/b";
    assert_eq!(problems(&both), [message, message]);
    assert!(routes(&translate(&one("a")), "a.test").is_some(), "the control");
}

#[test]
fn a_bad_proxy_says_so_and_stops_no_other() {
    let route = |further: &str| {
        format!("{{virtualhost: {{fqdn: bad.test}}, routes: [{{services: [{{name: web, port: 80{further}}}]}}]}}")
    };
    let cases = [
        (
            "{virtualhost: {fqdn: bad.test}, routes: [{services: [{name: gone, port: 80}]}]}".to_owned(),
            "ServiceUnresolvedReference: Spec.Routes unresolved service reference: service \"shop/gone\" not found",
            Some(503),
        ),
        (
            "{virtualhost: {fqdn: bad.test}, routes: [{services: [{name: web, port: 99}]}]}".to_owned(),
            "ServiceUnresolvedReference: Spec.Routes unresolved service reference: port \"99\" on service \"shop/web\" not matched",
            Some(503),
        ),
        (
            route(", responseHeadersPolicy: {set: [{name: Host, value: a}]}"),
            "ResponseHeadersPolicyInvalid: rewriting \"Host\" header is not supported on response headers",
            None,
        ),
        (route(", protocol: tls"), "UnsupportedProtocol: unsupported protocol: tls", None),
        (
            "{virtualhost: {fqdn: bad.test, tls: {secretName: gone}}, routes: [{services: [{name: web, port: 80}]}]}"
                .to_owned(),
            "SecretNotValid: Spec.VirtualHost.TLS Secret \"gone\" is invalid: Secret not found",
            None,
        ),
        (
            "{virtualhost: {fqdn: bad.test, tls: {secretName: broken}}, routes: [{services: [{name: web, port: 80}]}]}"
                .to_owned(),
            "SecretNotValid: Spec.VirtualHost.TLS Secret \"broken\" is invalid: invalid TLS certificate: ",
            None,
        ),
        (
            "{virtualhost: {fqdn: bad.test}, routes: [{conditions: [{regex: /(}], services: [{name: web, port: 80}]}]}"
                .to_owned(),
            "PathMatchConditionsNotValid: route: \"/(\" is not a valid regex: ",
            None,
        ),
        (
            "{virtualhost: {fqdn: bad.test, tls: {secretName: default/cert}}, routes: [{services: [{name: web, port: 80}]}]}"
                .to_owned(),
            "DelegationNotPermitted: Spec.VirtualHost.TLS Secret \"default/cert\" certificate delegation not permitted",
            None,
        ),
        (
            "{virtualhost: {fqdn: bad.test}, includes: [{name: gone, conditions: [{prefix: /x}]}]}".to_owned(),
            "IncludeNotFound: include shop/gone not found",
            Some(502),
        ),
    ];
    for (spec, message, status) in cases {
        let bad = proxy("bad", &spec);
        let found = problems(&bad);
        assert!(found.len() == 1 && found[0].starts_with(message), "{message}: {found:?}");
        let good = proxy("good", "{virtualhost: {fqdn: good.test}, routes: [{services: [{name: web, port: 80}]}]}");
        let translation = translate(&(bad + &good));
        assert!(routes(&translation, "good.test").is_some(), "{message}");
        let answered =
            routes(&translation, "bad.test").and_then(|routes| routes[0]["direct_response"]["status"].as_u64());
        assert_eq!(answered, status, "{message}");
    }
}

#[test]
fn a_status_is_written_once() {
    let spec = "{virtualhost: {fqdn: a.test}, routes: [{services: [{name: web, port: 80}]}]}";
    let statuses = translate(&proxy("a", spec)).statuses;
    assert_eq!(statuses.len(), 1);
    let status = "status: {currentStatus: valid, description: Valid HTTPProxy, loadBalancer: {ingress: [{ip: 203.0.113.10, ipMode: VIP}]}, \
                  conditions: [{type: Valid, status: \"True\", observedGeneration: 0, reason: Valid, message: Valid HTTPProxy, \
                  lastTransitionTime: \"2026-01-01T00:00:00Z\"}]}\n";
    let there = proxy("a", spec) + status;
    assert_eq!(translate(&there).statuses, []);
    assert_eq!(translate(&there.replace("port: 80", "port: 99")).statuses.len(), 1, "the control");
}

#[test]
fn tls_ends_here_or_behind_and_plain_requests_are_sent_to_it() {
    let ends = "{virtualhost: {fqdn: a.test, tls: {secretName: cert}}, routes: [{services: [{name: web, port: 80}]}, \
                {conditions: [{prefix: /open}], permitInsecure: true, services: [{name: web, port: 80}]}]}";
    let passes =
        "{virtualhost: {fqdn: b.test, tls: {passthrough: true}}, tcpproxy: {services: [{name: web, port: 80}]}}";
    let translation = translate(&(proxy("a", ends) + &proxy("b", passes)));
    let plain = routes(&translation, "a.test").unwrap();
    assert_eq!(plain[0]["route"]["cluster"], "shop/web/80", "the longer prefix first");
    assert_eq!(plain[1]["redirect"]["https_redirect"], true);
    let chains = resources(&translation, envoy::LISTENERS)[1]["filter_chains"].clone();
    let names: Vec<&Value> = (0..2).map(|index| &chains[index]["filter_chain_match"]["server_names"][0]).collect();
    assert_eq!(names, ["a.test", "b.test"]);
    let context = &chains[0]["transport_socket"]["typed_config"]["common_tls_context"];
    assert_eq!(context["tls_certificates"][0]["private_key"]["inline_string"], pair().1);
    assert_eq!(chains[1]["filters"][0]["typed_config"]["cluster"], "shop/web/80");
}

#[test]
fn an_include_adds_its_conditions_and_an_orphan_is_told_so() {
    let root = "{virtualhost: {fqdn: a.test}, includes: [{name: child, conditions: [{prefix: /a/}, {header: {name: X, present: true}}]}]}";
    let child = "{routes: [{conditions: [{prefix: /b}], pathRewritePolicy: {replacePrefix: [{replacement: /}]}, enableWebsockets: true, \
                 timeoutPolicy: {response: 90s}, services: [{name: web, port: 80}]}]}";
    let both = proxy("root", root) + &proxy("child", child);
    let found = routes(&translate(&both), "a.test").unwrap();
    assert_eq!(found[0]["match"]["prefix"], "/a/b");
    assert_eq!(found[0]["match"]["headers"][0]["name"], "x");
    let route = &found[0]["route"];
    assert_eq!((&route["prefix_rewrite"], &route["timeout"]), (&"/".into(), &"90.000s".into()));
    assert_eq!(route["upgrade_configs"][0]["upgrade_type"], "websocket");
    assert_eq!(problems(&both), [""; 0]);
    assert!(problems(&proxy("child", child))[0].starts_with("Orphaned: "));
}

#[test]
fn what_stands_beside_an_include_of_nothing_is_served() {
    let root = "{virtualhost: {fqdn: a.test}, includes: [{name: gone, conditions: [{prefix: /x}]}], \
                routes: [{services: [{name: web, port: 80}]}]}";
    assert_eq!(problems(&proxy("a", root)), ["IncludeNotFound: include shop/gone not found"]);
    let found = routes(&translate(&proxy("a", root)), "a.test").unwrap();
    assert_eq!((&found[0]["match"]["prefix"], &found[0]["direct_response"]["status"]), (&"/x".into(), &502.into()));
    assert_eq!(found[1]["route"]["cluster"], "shop/web/80");
}

#[test]
fn an_ingress_has_whole_elements_a_default_backend_and_the_settings_headers() {
    let ingress = r#"---
kind: Ingress
metadata: {name: i, namespace: shop, annotations: {projectcontour.io/websocket-routes: "/a"}}
spec:
  ingressClassName: contour
  defaultBackend: {service: {name: web, port: {number: 80}}}
  rules:
    - host: i.test
      http: {paths: [{path: /a, pathType: Prefix, backend: {service: {name: api, port: {name: http}}}}]}
"#;
    let plain = translate(ingress);
    assert_eq!(plain.statuses.len(), 1);
    let there = format!("{ingress}status: {{loadBalancer: {{ingress: [{{ip: 203.0.113.10}}]}}}}\n");
    assert_eq!(translate(&there).statuses, [], "it is there");
    let found = routes(&plain, "i.test").unwrap();
    assert_eq!(found[0]["match"]["path_separated_prefix"], "/a");
    assert_eq!(found[0]["route"]["cluster"], "shop/api/81/h2c");
    assert_eq!(found[0]["route"]["upgrade_configs"][0]["upgrade_type"], "websocket");
    assert_eq!(routes(&plain, "*").unwrap()[0]["route"]["cluster"], "shop/web/80");
    let settings = r#"{policy: {applyToIngress: true, request-headers: {set: {o: "%CONTOUR_SERVICE_NAME%:%CONTOUR_SERVICE_PORT%"}}}}"#;
    let with = translate_with(settings, ingress);
    let cluster = &routes(&with, "i.test").unwrap()[0]["route"]["weighted_clusters"]["clusters"][0];
    assert_eq!(cluster["request_headers_to_add"][0]["header"]["value"], "api:81");
    let other = ingress.replace("ingressClassName: contour", "ingressClassName: nginx");
    assert_eq!(routes(&translate(&other), "i.test"), None, "the control");
}

#[test]
fn a_name_elsewhere_is_asked_of_dns_where_settings_allow_it() {
    let service = "---\nkind: Service\nmetadata: {name: far, namespace: shop}\n\
                   spec: {type: ExternalName, externalName: example.com, ports: [{port: 80}]}\n";
    let objects = service.to_owned()
        + &proxy("a", "{virtualhost: {fqdn: a.test}, routes: [{services: [{name: far, port: 80}]}]}");
    let allowed = translate_with("{enableExternalNameService: true}", &objects);
    assert_eq!(resources(&allowed, envoy::CLUSTERS)[0]["type"], "STRICT_DNS");
    assert!(problems(&objects)[0].contains("shop/far is an ExternalName service"), "the control");
}
