use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::*;

fn emissary() -> Emissary {
    Emissary { id: "default".to_owned(), namespace: "emissary".to_owned(), mapping_status: false }
}

/// What two Listeners for all Hosts, two Services of namespace `shop` and further objects come to.
fn translate(further: &str) -> Translation {
    translate_by(&emissary(), &format!("{LISTENERS_FOR_ALL}{further}"))
}

const LISTENERS_FOR_ALL: &str = r"---
kind: Listener
metadata: {name: http, namespace: emissary}
spec: {port: 8080, protocol: HTTP, securityModel: XFP, hostBinding: {namespace: {from: ALL}}}
---
kind: Listener
metadata: {name: https, namespace: emissary}
spec: {port: 8443, protocol: HTTPS, securityModel: XFP, hostBinding: {namespace: {from: ALL}}}
";

fn translate_by(emissary: &Emissary, objects: &str) -> Translation {
    let base = r"
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80}]}
---
kind: Service
metadata: {name: emissary-ingress, namespace: emissary, labels: {app.kubernetes.io/component: ambassador-service}}
spec: {clusterIP: 10.96.0.9, ports: []}
status: {loadBalancer: {ingress: [{ip: 203.0.113.10, ipMode: VIP}]}}
---
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.0.3]}, {addresses: [10.244.0.4], conditions: {ready: false}}]
---
kind: Secret
metadata: {name: broken, namespace: shop}
data: {tls.crt: Q1JU, tls.key: S0VZ}
---
kind: Secret
metadata: {name: cert, namespace: shop}
";
    let (certificate, key) = pair();
    let data = json!({"tls.crt": BASE64.encode(certificate), "tls.key": BASE64.encode(key)});
    emissary.translate(&Objects::from_yaml(&emissary.kinds(), &format!("{base}data: {data}\n{objects}")))
}

/// A certificate and its key, made once.
fn pair() -> &'static (String, String) {
    static PAIR: std::sync::OnceLock<(String, String)> = std::sync::OnceLock::new();
    PAIR.get_or_init(|| {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["shop.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    })
}

fn resources(translation: &Translation, file: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(&translation.files[Path::new(file)]).unwrap();
    file["resources"].as_array().unwrap().clone()
}

/// A Mapping of `shop` for shop.test; `spec` in flow style.
fn mapping(name: &str, spec: &str) -> String {
    let prefix = if spec.contains("prefix:") { "" } else { "prefix: /, " };
    let host = if spec.contains("host") { "" } else { "hostname: shop.test, " };
    format!("---\nkind: Mapping\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{prefix}{host}{spec}}}\n")
}

fn host(name: &str, spec: &str) -> String {
    format!("---\nkind: Host\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}\n")
}

/// The routes of a host of plain HTTP.
fn routes(translation: &Translation, name: &str) -> Option<Vec<Value>> {
    let hosts = resources(translation, envoy::ROUTES)[0]["virtual_hosts"].clone();
    let host = hosts.as_array().unwrap().iter().find(|found| found["name"] == name).cloned()?;
    Some(host["routes"].as_array().unwrap().clone())
}

fn first_route(objects: &str) -> Value {
    routes(&translate(objects), "*").unwrap().remove(0)
}

#[test]
fn a_service_is_a_name_for_dns_unless_the_resolver_looks_endpoints_up() {
    let module =
        "---\nkind: Module\nmetadata: {name: ambassador, namespace: emissary}\nspec: {config: {resolver: endpoint}}\n";
    for (spec, further, kind, address, port) in [
        ("service: web", "", "STRICT_DNS", "web.shop", 80),
        ("service: 'HTTP://web:81/path'", "", "STRICT_DNS", "web.shop", 81),
        ("service: 'web.elsewhere.svc.cluster.local:81'", "", "STRICT_DNS", "web.elsewhere.svc.cluster.local", 81),
        ("service: web, resolver: kubernetes-service", "", "STRICT_DNS", "web.shop", 80),
        ("service: web, resolver: endpoint", "", "STATIC", "10.244.0.3", 8080),
        ("service: web, resolver: kubernetes-endpoint", "", "STATIC", "10.244.0.3", 8080),
        ("service: web.shop.svc.cluster.local, resolver: endpoint", "", "STATIC", "10.244.0.3", 8080),
        ("service: 10.1.2.3, resolver: endpoint", "", "STRICT_DNS", "10.1.2.3", 80),
        ("service: web", module, "STATIC", "10.244.0.3", 8080),
    ] {
        let cluster = resources(&translate(&(mapping("a", spec) + further)), envoy::CLUSTERS).remove(0);
        let endpoints = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"].as_array().unwrap();
        assert_eq!(endpoints.len(), 1, "{spec}");
        let found = &endpoints[0]["endpoint"]["address"]["socket_address"];
        let found = (cluster["type"].as_str(), found["address"].as_str(), found["port_value"].as_u64());
        assert_eq!(found, (Some(kind), Some(address), Some(port)), "{spec}");
    }
}

#[test]
fn headers_are_appended_unless_they_say_otherwise() {
    let with = |spec: &str| first_route(&mapping("a", &format!("service: web, {spec}")));
    for (spec, key, value, action) in [
        ("add_linkerd_headers: true", "l5d-dst-override", "web.shop:80", "APPEND_IF_EXISTS_OR_ADD"),
        ("add_request_headers: {X: y}", "x", "y", "APPEND_IF_EXISTS_OR_ADD"),
        ("add_request_headers: {x: {value: y}}", "x", "y", "APPEND_IF_EXISTS_OR_ADD"),
        ("add_request_headers: {x: {value: y, append: false}}", "x", "y", "OVERWRITE_IF_EXISTS_OR_ADD"),
        // The other field puts its own value in the place of this one, and appends it.
        (
            "add_linkerd_headers: true, add_request_headers: {l5d-dst-override: {value: y, append: false}}",
            "l5d-dst-override",
            "web.shop:80",
            "APPEND_IF_EXISTS_OR_ADD",
        ),
    ] {
        let added = json!([{"header": {"key": key, "value": value}, "append_action": action}]);
        assert_eq!(with(spec)["request_headers_to_add"], added, "{spec}");
    }
    assert_eq!(with("remove_request_headers: [z]")["request_headers_to_remove"], json!(["z"]));
    assert_eq!(with("remove_request_headers: z")["request_headers_to_remove"], json!(["z"]));
    let defaults = "---\nkind: Module\nmetadata: {name: ambassador, namespace: emissary}\n\
                    spec: {config: {add_linkerd_headers: true, defaults: {httpmapping: {remove_request_headers: [l5d-dst-override]}}}}\n";
    let route = first_route(&(mapping("a", "service: web") + defaults));
    assert_eq!(route["request_headers_to_remove"], json!(["l5d-dst-override"]));
    assert_eq!(route["request_headers_to_add"][0]["header"]["value"], "web.shop:80");
}

#[test]
fn a_group_shares_the_requests_and_what_the_last_one_says_of_headers() {
    let member = |name: &str, further: &str| {
        let set = format!("add_request_headers: {{x: {{value: {name}, append: false}}}}");
        mapping(name, &format!("service: {name}, {set}, remove_request_headers: [{name}]{further}"))
    };
    let one = member("a", ", timeout_ms: 1000, allow_upgrade: [websocket]");
    let translation = translate(&(member("b", ", weight: 30") + &one + &member("c", "")));
    let found = routes(&translation, "*").unwrap();
    let shares: Vec<_> = found
        .iter()
        .map(|route| {
            let share = route["match"]["runtime_fraction"]["default_value"]["numerator"].as_u64();
            (route["route"]["cluster"].as_str().unwrap().split('.').next().unwrap(), share)
        })
        .collect();
    assert_eq!(shares, [("b", Some(30)), ("a", Some(65)), ("c", None)], "{found:?}");
    for route in &found {
        assert_eq!(route["request_headers_to_add"][0]["header"]["value"], "c");
        assert_eq!(route["request_headers_to_remove"], json!(["c"]));
        assert_eq!(route["route"]["upgrade_configs"][0]["upgrade_type"], "websocket");
    }
    let timeouts: Vec<&Value> = found.iter().map(|route| &route["route"]["timeout"]).collect();
    assert_eq!(timeouts, ["3.000s", "1.000s", "3.000s"], "these are each one's own");
}

#[test]
fn weights_over_a_hundred_are_complained_of_and_count_as_far_as_they_go() {
    let both = |one: &str, other: &str| {
        let translation = translate(
            &(mapping("a", &format!("service: a, weight: {one}"))
                + &mapping("b", &format!("service: b, weight: {other}"))),
        );
        let shares = routes(&translation, "*").unwrap();
        (shares.len(), translation.messages().join("; "))
    };
    assert_eq!(both("60", "40"), (2, String::new()));
    assert_eq!(both("60", "101"), (1, "Mapping b has invalid weight 101".to_owned()));
    let exceeded = "Total weight of mappings exceeds 100, please reconfigure for correct behavior...";
    assert_eq!(both("60", "50"), (2, exceeded.to_owned()));
}

#[test]
fn the_higher_precedence_is_tried_first_and_then_the_longer_prefix_whatever_its_host() {
    let objects = mapping("a", "service: a, hostname: shop.test, prefix: /")
        + &mapping("b", "service: b, hostname: '*', prefix: /")
        + &mapping("c", "service: c, hostname: '*', prefix: /long")
        + &mapping("d", "service: d, hostname: '*', prefix: /, precedence: 1")
        + &mapping("e", "service: e, hostname: '*.test', prefix: /, headers: {x: y}, method: PUT");
    let found = routes(&translate(&objects), "*").unwrap();
    let order: Vec<&str> = found.iter().map(|route| &route["route"]["cluster"].as_str().unwrap()[..1]).collect();
    assert_eq!(order, ["d", "c", "e", "a", "b"]);
    assert_eq!(found[3]["match"]["headers"][0]["string_match"]["exact"], "shop.test");
    assert_eq!(found[4]["match"].get("headers"), None);
    let names: Vec<&str> =
        found[2]["match"]["headers"].as_array().unwrap().iter().map(|found| found["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["x", ":authority", ":method"]);
    assert_eq!(found[2]["match"]["headers"][1]["string_match"]["safe_regex"]["regex"], ".*\\.test");
}

#[test]
fn a_clients_request_id_is_kept_where_the_module_says_so_and_a_hosts_port_counts() {
    let translated = |config: &str| {
        let module = format!(
            "---\nkind: Module\nmetadata: {{name: ambassador, namespace: emissary}}\nspec: {{config: {{{config}}}}}\n"
        );
        let translation = translate(&(mapping("a", "service: web") + &module));
        let has = |file: &str, setting: &str| translation.files[Path::new(file)].contains(setting);
        (has(envoy::LISTENERS, "preserve_external_request_id"), has(envoy::ROUTES, "ignore_port_in_host_matching"))
    };
    assert_eq!(translated(""), (false, false));
    assert_eq!(translated("preserve_external_request_id: true"), (true, false));
}

#[test]
fn the_prefix_goes_unless_rewrite_is_empty_and_three_seconds_are_the_timeout() {
    let route = |spec: &str| first_route(&mapping("a", &format!("service: web, {spec}")))["route"].clone();
    assert_eq!(route("prefix: /a")["prefix_rewrite"], "/");
    assert_eq!(route("prefix: /a, rewrite: /b")["prefix_rewrite"], "/b");
    assert_eq!(route("prefix: /a, rewrite: ''").get("prefix_rewrite"), None);
    assert_eq!(route("prefix: /")["timeout"], "3.000s");
    assert_eq!(route("timeout_ms: 0")["timeout"], "0.000s");
    let module = "---\nkind: Module\nmetadata: {name: ambassador, namespace: emissary}\nspec: {config: {cluster_request_timeout_ms: 9000}}\n";
    assert_eq!(first_route(&(mapping("a", "service: web") + module))["route"]["timeout"], "9.000s");
}

#[test]
fn a_mapping_that_redirects_needs_no_service_to_be_there() {
    let found =
        first_route(&mapping("a", "service: shop.example, host_redirect: true, path_redirect: /x, hostname: '*'"));
    assert_eq!(
        (&found["redirect"]["host_redirect"], &found["redirect"]["path_redirect"]),
        (&json!("shop.example"), &json!("/x"))
    );
    let other = mapping("b", "service: web, hostname: '*'");
    let translation = translate(&(mapping("a", "service: shop.example, host_redirect: true, hostname: '*'") + &other));
    assert_eq!(translation.messages(), ["cannot accept b without host_redirect after a with host_redirect"]);
}

#[test]
fn without_a_listener_for_a_host_nothing_is_taken() {
    let ports = |listeners: &str| {
        let translation = translate_by(&emissary(), &format!("{listeners}{}", mapping("a", "service: web")));
        let found = resources(&translation, envoy::LISTENERS);
        let port = |found: &Value| found["address"]["socket_address"]["port_value"].as_u64().unwrap();
        (found.iter().map(port).collect::<Vec<_>>(), translation.messages().join("; "))
    };
    let listener =
        |spec: &str| format!("---\nkind: Listener\nmetadata: {{name: l, namespace: emissary}}\nspec: {{{spec}}}\n");
    assert_eq!(ports("").0, [0_u64; 0]);
    let all = "hostBinding: {namespace: {from: ALL}}";
    assert_eq!(
        ports(&listener(&format!("port: 8080, protocol: HTTP, securityModel: XFP, {all}"))),
        (vec![8080], String::new())
    );
    for (spec, why) in [
        (
            "port: 8080, protocol: HTTP, securityModel: XFP, hostBinding: {}",
            "hostBinding must have at least one of namespace or selector",
        ),
        (
            "port: 8080, protocol: HTTP, securityModel: XFP, hostBinding: {namespace: {from: SELF}}",
            "No matching Hosts found, disabling!",
        ),
        (
            "port: 8080, protocol: HTTP, securityModel: XFP, hostBinding: {namespace: {from: ALL}, selector: {matchLabels: {a: b}}}",
            "No matching Hosts found, disabling!",
        ),
        (
            "port: 8080, securityModel: XFP, hostBinding: {namespace: {from: ALL}}",
            "one of protocol and protocolStack must be specified",
        ),
        ("port: 8080, protocol: HTTP, hostBinding: {namespace: {from: ALL}}", "securityModel is required"),
        (
            "port: 8080, protocol: UDP, securityModel: XFP, hostBinding: {namespace: {from: ALL}}",
            "protocol UDP is not valid",
        ),
    ] {
        assert_eq!(ports(&listener(spec)), (vec![], why.to_owned()), "{spec}");
    }
}

#[test]
fn a_host_says_what_becomes_of_plain_http() {
    let answer = |listener: &str, spec: &str| {
        let listener = LISTENERS_FOR_ALL.replace("XFP", listener);
        let objects = format!("{listener}{}{}", host("h", spec), mapping("a", "service: web"));
        routes(&translate_by(&emissary(), &objects), "*").map(|routes| match routes.first() {
            None => "nothing",
            Some(route) if route["redirect"]["https_redirect"] == true => "redirect",
            Some(_) => "route",
        })
    };
    for (model, action, found) in [
        ("XFP", "", Some("redirect")),
        ("XFP", "requestPolicy: {insecure: {action: Redirect}}", Some("redirect")),
        ("XFP", "requestPolicy: {insecure: {action: Reject}}", Some("nothing")),
        ("XFP", "requestPolicy: {insecure: {action: Route}}", Some("route")),
        ("SECURE", "", Some("route")),
        ("INSECURE", "", Some("redirect")),
        ("INSECURE", "requestPolicy: {insecure: {action: Reject}}", None),
    ] {
        assert_eq!(answer(model, action), found, "{model} {action}");
    }
    assert!(first_route(&mapping("a", "service: web"))["route"].is_object(), "without any Host");
}

#[test]
fn tls_ends_at_hosts_with_a_secret_and_serves_what_belongs_to_them() {
    let objects = host("one", "hostname: '*.shop.test', tlsSecret: {name: cert}")
        + &host("all", "hostname: '*', tlsSecret: {name: cert}")
        + &host("bad", "hostname: bad.test, tlsSecret: {name: broken}")
        + &host("none", "hostname: none.test, tlsSecret: {name: gone}")
        + &mapping("a", "service: a, hostname: a.shop.test")
        + &mapping("b", "service: b, hostname: other.test");
    let translation = translate(&objects);
    let chains = resources(&translation, envoy::LISTENERS)[1]["filter_chains"].clone();
    let chain = |index: usize| {
        let served = &chains[index]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0];
        let routes = served["routes"].as_array().unwrap().clone();
        (chains[index]["filter_chain_match"].clone(), routes.len())
    };
    assert_eq!(chains.as_array().unwrap().len(), 2);
    assert_eq!(chain(0), (json!({"transport_protocol": "tls"}), 2));
    assert_eq!(chain(1), (json!({"server_names": ["*.shop.test"]}), 1));
    let found = translation.messages();
    assert!(found[0].starts_with("Host bad: invalid TLS secret broken, marking inactive: "), "{found:?}");
    assert_eq!(found[1], "Host none: invalid TLS secret gone, marking inactive: there is none");
}

#[test]
fn a_mapping_belongs_to_hosts_by_its_name_or_by_their_selector() {
    let served = |spec: &str, labels: &str, host_spec: &str| {
        let mapping =
            mapping("a", spec).replace("namespace: shop}", &format!("namespace: shop, labels: {{{labels}}}}}"));
        let action = "requestPolicy: {insecure: {action: Route}}";
        let translation = translate(&(mapping + &host("h", &format!("{action}, {host_spec}"))));
        let hosts = resources(&translation, envoy::ROUTES)[0]["virtual_hosts"].clone();
        !hosts[0]["routes"].as_array().unwrap().is_empty()
    };
    let selecting = "hostname: shop.test, mappingSelector: {matchLabels: {a: b, c: d}}";
    for (spec, labels, host, wanted) in [
        ("service: web, hostname: shop.test", "", "hostname: shop.test", true),
        ("service: web, hostname: other.test", "", "hostname: shop.test", false),
        ("service: web, hostname: '*.test'", "", "hostname: shop.test", true),
        ("service: web, hostname: a.shop.test", "", "hostname: '*.shop.test'", true),
        ("service: web, hostname: .shop.test", "", "hostname: '*.shop.test'", false),
        ("service: web, hostname: 'shop.*'", "", "hostname: '*.test'", true),
        ("service: web, host: 'a.*', host_regex: true", "", "hostname: shop.test", true),
        ("service: web, host: other.test", "", "hostname: shop.test", false),
        ("service: web, host_rewrite: x", "", "hostname: '*'", false),
        ("service: web, host_rewrite: x", "a: b", selecting, false),
        ("service: web, host_rewrite: x", "a: b, c: d", selecting, true),
    ] {
        assert_eq!(served(spec, labels, host), wanted, "{spec} {labels} {host}");
    }
}

#[test]
fn patterns_meet_where_a_name_can_be_of_both() {
    for (one, other, wanted) in [
        ("*.a.test", "*.test", true),
        ("*.a.test", "*.b.test", false),
        ("a.*", "a.b.*", true),
        ("a.*", "b.*", false),
        ("a.*", "a.", false),
        ("*a*", "a", false),
        ("a.test", "b.test", false),
    ] {
        assert_eq!((hosts::meet(one, other), hosts::meet(other, one)), (wanted, wanted), "{one} {other}");
    }
}

#[test]
fn bad_mappings_are_complained_of_in_the_log_and_the_rest_serves() {
    for (spec, message) in [
        ("service: 'web:x'", "Malformed service 'web:x': "),
        ("service: 'web:99999'", "Malformed service 'web:99999': "),
        ("service: ''", "Malformed service '': No hostname"),
        ("service: 'https://web'", "service https://web: TLS to a backend is not supported"),
        ("service: web, resolver: nobody", "resolver nobody is unknown!"),
        ("service: web, resolver: consul", "The Consul resolver is not supported"),
        ("service: web, load_balancer: {policy: round_robin}", "No load_balancer setting is allowed with"),
        ("service: web, add_request_headers: {'x y': z}", "\"x y\" is not a valid header name"),
    ] {
        let good = mapping("good", "service: web, prefix: /good");
        let translation = translate(&(mapping("bad", spec) + &good));
        let found = translation.messages();
        assert!(found.len() == 1 && found[0].starts_with(message), "{spec}: {found:?}");
        assert_eq!(translation.reasons(), [""; 0], "{spec}");
        let routes = routes(&translation, "*").unwrap();
        assert!(routes.len() == 1 && routes[0]["match"]["prefix"] == "/good", "{spec}");
        assert_eq!(translation.statuses, [], "it writes none of its own accord");
    }
    let exact = mapping("a", "service: web") + &mapping("b", "service: web, prefix_exact: true");
    assert_eq!(translate(&exact).messages(), ["cannot accept new mapping b with mismatched prefix_exact"]);
    for (one, other) in [("true", "false"), ("false", "true")] {
        let of = |name: &str, exact: &str| mapping(name, &format!("service: {name}, prefix_exact: {exact}"));
        let translation = translate(&(of("a", one) + &of("b", other)));
        assert_eq!(translation.messages(), ["cannot accept new mapping b with mismatched prefix_exact"]);
        assert_eq!(routes(&translation, "*").unwrap().len(), 1, "the first one serves");
    }
    let known = "add_request_headers: {x: '%PROTOCOL% of 100%% by %REQ(x-a)%'}";
    assert_eq!(translate(&mapping("a", &format!("service: web, {known}"))).messages(), [""; 0], "the control");
    // One that belongs to no Host is left out without a word.
    let hostless = mapping("a", "service: web, host_rewrite: x")
        + &host("h", "hostname: '*', requestPolicy: {insecure: {action: Route}}");
    let translation = translate(&hostless);
    assert_eq!((translation.messages(), routes(&translation, "*")), (vec![], Some(vec![])));
}

#[test]
fn what_envoy_does_not_take_holds_everything_back() {
    let asked = Emissary { mapping_status: true, ..emissary() };
    let translate = |objects: &str| translate_by(&asked, &format!("{LISTENERS_FOR_ALL}{objects}"));
    let good = mapping("good", "service: web, prefix: /good");
    let expression = "\"(\" is no regular expression: unclosed group";
    for (spec, refused) in [
        ("service: web, prefix: '(', prefix_regex: true", expression),
        ("service: web, regex_headers: {x: '('}", expression),
        ("service: web, host: '(', host_regex: true", expression),
        ("service: web, add_request_headers: {x: '%NOTHING%'}", "Not supported field in StreamInfo: NOTHING"),
    ] {
        let translation = translate(&(mapping("bad", spec) + &good));
        let [why] = translation.reasons()[..] else { panic!("{spec}: {:?}", translation.held) };
        assert!(why.starts_with("could not validate the envoy configuration above"), "{spec}: {why}");
        assert!(why.contains(refused), "{spec}: {why}");
        assert_eq!((translation.messages(), translation.statuses.len()), (vec![], 0), "{spec}");
    }
    // One that belongs to no Host is in no configuration.
    for spec in ["service: web, hostname: '*'", "service: web, host_rewrite: x, prefix: '(', prefix_regex: true"] {
        let translation = translate(&(mapping("a", spec) + &good));
        assert_eq!((translation.reasons(), translation.statuses.len()), (vec![], 2), "{spec}");
    }
}

#[test]
fn a_status_of_mappings_is_written_where_it_is_asked_for() {
    let asked = Emissary { mapping_status: true, ..emissary() };
    let objects = mapping("a", "service: web") + &mapping("b", "service: web, resolver: nobody");
    let states: Vec<String> =
        translate_by(&asked, &objects).statuses.iter().map(|status| format!("{status:?}")).collect();
    assert!(states.len() == 2 && states[0].contains("Running"), "{states:?}");
    assert!(states[1].contains("Inactive") && states[1].contains("resolver nobody is unknown!"), "{states:?}");
}

#[test]
fn another_instances_mappings_are_left_alone() {
    for (id, spec, wanted) in [
        ("default", "service: web, ambassador_id: [other]", 0),
        ("default", "service: web, ambassador_id: [other, default]", 1),
        ("other", "service: web, ambassador_id: [other]", 1),
        ("other", "service: web", 0),
    ] {
        let emissary = Emissary { id: id.to_owned(), ..emissary() };
        let clusters = resources(&translate_by(&emissary, &mapping("a", spec)), envoy::CLUSTERS);
        assert_eq!(clusters.len(), wanted, "{id}: {spec}");
    }
}

#[test]
fn an_ingress_of_its_class_stands_for_mappings_and_hosts() {
    let class = "---\nkind: IngressClass\nmetadata: {name: ambassador}\nspec: {controller: getambassador.io/ingress-controller}\n";
    let ingress = r"---
kind: Ingress
metadata: {name: i, namespace: shop}
spec:
  ingressClassName: ambassador
  defaultBackend: {service: {name: web, port: {number: 80}}}
  rules:
    - host: shop.test
      http: {paths: [{path: /a, pathType: Exact, backend: {service: {name: web, port: {name: http}}}}]}
    - host: '*.shop.test'
      http: {paths: [{backend: {service: {name: web, port: {number: 81}}}}]}
";
    let translation = translate(&format!("{class}{ingress}"));
    let found = routes(&translation, "*").unwrap();
    let cluster =
        |index: usize| found[index]["route"]["cluster"].as_str().unwrap().split('/').next().unwrap().to_owned();
    assert_eq!(
        (cluster(0), cluster(1), cluster(2)),
        ("web.shop:80".into(), "web.shop:81".into(), "web.shop:80".into())
    );
    assert_eq!(found[0]["match"]["path"], "/a");
    let one_label = &found[1]["match"]["headers"][0]["string_match"]["safe_regex"]["regex"];
    assert_eq!(one_label, "^[a-z0-9]([-a-z0-9]*[a-z0-9])?\\.shop\\.test$");
    assert_eq!(found[2]["match"], json!({"prefix": "/"}));
    assert_eq!(translation.statuses.len(), 1);
    assert!(format!("{:?}", translation.statuses).contains("203.0.113.10"));
    let there = format!("{class}{ingress}status: {{loadBalancer: {{ingress: [{{ip: 203.0.113.10}}]}}}}\n");
    assert_eq!(translate(&there).statuses, [], "it is there");
    assert_eq!(
        routes(&translate(&format!("{class}{}", ingress.replace("Name: ambassador", "Name: nginx"))), "*"),
        Some(vec![])
    );
    let annotated =
        ingress.replace("namespace: shop}", "namespace: shop, annotations: {kubernetes.io/ingress.class: Ambassador}}");
    assert_eq!(routes(&translate(&annotated.replace("  ingressClassName: ambassador\n", "")), "*").unwrap().len(), 3);

    let tls = ingress.replace("  rules:", "  tls: [{hosts: [shop.test], secretName: cert}]\n  rules:");
    let translation = translate(&format!("{class}{tls}"));
    assert_eq!(
        resources(&translation, envoy::LISTENERS)[1]["filter_chains"][0]["filter_chain_match"]["server_names"][0],
        "shop.test"
    );
    assert_eq!(routes(&translation, "shop.test").unwrap()[0]["match"]["path"], "/a", "over plain HTTP, too");
}
