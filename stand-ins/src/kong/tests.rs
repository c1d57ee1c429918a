use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::Value;

use super::*;
use crate::nginx::MAIN;
use crate::objects::{items, text};
use crate::secrets::examples::{manifest, pair_for, unusable};
use crate::status::Complaint;

/// What both halves make of objects: the controller's translation, with the gateway's files in the place of what it is told. What the gateway
/// refuses is left out, as the loop around the controller does it.
fn translate(further: &str) -> Translation {
    let base = r#"
kind: IngressClass
metadata: {name: kong}
spec: {controller: ingress-controllers.konghq.com/kong}
---
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80}]}
---
kind: Service
metadata: {name: whole, namespace: shop, annotations: {ingress.kubernetes.io/service-upstream: "true", konghq.com/protocol: grpc}}
spec: {clusterIP: 10.96.0.9, ports: [{name: http, port: 80}]}
---
kind: Service
metadata: {name: proxy, namespace: kong}
spec: {clusterIP: 10.96.0.8, ports: []}
status: {loadBalancer: {ingress: [{ip: 203.0.113.10, ipMode: VIP}]}}
---
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.0.3]}]
"#;
    let settings = Settings::read(&Flags::new(["--publish-service=kong/proxy".to_owned()]), &Default::default());
    let controller = Kong { settings };
    let mut objects = Objects::from_yaml(&controller.kinds(), &format!("{base}---{further}"));
    let mut complaints = BTreeSet::new();
    loop {
        let mut translation = controller.translate(&objects);
        match gateway::tests::files(&translation.files[Path::new(CONFIGURATION)], |name| addresses(&objects, name)) {
            Ok(files) => {
                translation.complaints.append(&mut complaints);
                return Translation { files, ..translation };
            }
            Err(answer) => {
                for refused in admin::refusal(&answer).0 {
                    let (kind, namespace, name) = (refused.kind, &refused.namespace, &refused.name);
                    let Some(object) = objects.get(kind, namespace, name).cloned() else { continue };
                    complaints.insert(Complaint::new(kind, &object, refused.reason, refused.message));
                    for ingress in controller.dependants(&objects, kind, &object) {
                        objects.remove(INGRESSES, &ingress.namespace().unwrap(), &ingress.name_any());
                    }
                    objects.remove(kind, namespace, name);
                }
            }
        }
    }
}

/// What the cluster's DNS says of a Service's name.
fn addresses(objects: &Objects, name: &str) -> Vec<Ipv4Addr> {
    let [service, namespace, "svc"] = name.split('.').collect::<Vec<_>>()[..] else { return Vec::new() };
    let Some(object) = objects.get(SERVICES, namespace, service) else { return Vec::new() };
    match text(&object.data, "/spec/clusterIP").parse() {
        Ok(address) => vec![address],
        Err(_) => {
            let endpoints = objects.slices(namespace, service).flat_map(|slice| items(&slice.data, "/endpoints"));
            let addresses = endpoints.flat_map(|endpoint| items(endpoint, "/addresses")).filter_map(Value::as_str);
            addresses.map(|address| address.parse().unwrap()).collect()
        }
    }
}

fn ingress(name: &str, annotations: &str, path: &str, service: &str) -> String {
    format!(
        r#"
kind: Ingress
metadata: {{name: {name}, namespace: shop, annotations: {annotations}}}
spec:
  ingressClassName: kong
  rules:
    - host: shop.test
      http: {{paths: [{{path: {path}, pathType: Prefix, backend: {{service: {{name: {service}, port: {{name: http}}}}}}}}]}}
"#
    )
}

fn plugin(config: &str) -> String {
    format!(
        "---\nkind: KongPlugin\nmetadata: {{name: p, namespace: shop}}\nplugin: request-transformer\nconfig: {config}\n"
    )
}

const WITH: &str = "{konghq.com/plugins: p}";

const WHOLE: &str = "ingress.kubernetes.io/service-upstream";

fn conf(translation: &Translation) -> &str {
    &translation.files[Path::new(MAIN)]
}

#[test]
fn a_route_sends_to_endpoints_or_to_the_service_and_keeps_the_host() {
    let translation = translate(&(ingress("a", "{}", "/", "web") + "---" + &ingress("b", "{}", "/b", "whole")));
    assert_eq!(translation.messages(), [""; 0]);
    translation.says(
        MAIN,
        &[
            "proxy_pass \"http://web.shop.http.svc\";",
            "proxy_set_header Host \"$client_host\";",
            "grpc_pass \"grpc://whole.shop.http.svc\";",
            "server 10.96.0.9:80 max_fails=0;",
            "grpc_next_upstream_tries 6;",
            "location = \"/b\" {",
            "location \"/b/\" {",
        ],
    );
    assert_eq!(translation.statuses.len(), 2);
}

#[test]
fn an_address_is_listed_for_as_many_attempts_as_a_service_has_retries() {
    let zone = |translation: &Translation| -> Vec<usize> {
        let zone = &translation.files[Path::new(crate::nginx::ENDPOINTS)];
        let zone: crate::nginx::endpoints::Zone = serde_json::from_str(zone).unwrap();
        zone.values().map(Vec::len).collect()
    };
    let both = ingress("a", "{}", "/", "web") + "---" + &ingress("b", "{}", "/b", "whole");
    let listed = |retries: &str| {
        let service = format!(
            "---\nkind: Service\nmetadata: {{name: whole, namespace: shop, annotations: {{{WHOLE}: 'true', konghq.com/retries: '{retries}'}}}}\n\
             spec: {{clusterIP: 10.96.0.9, ports: [{{name: http, port: 80}}]}}\n"
        );
        conf(&translate(&format!("{both}{service}"))).matches("server 10.96.0.9:80 max_fails=0;").count()
    };
    assert_eq!(zone(&translate(&both)), [6], "five retries are what Kong has without being told");
    assert_eq!((listed("5"), listed("0"), listed("30000")), (6, 1, 16));
}

#[test]
fn a_host_that_is_not_kept_is_the_targets_with_a_port_that_is_not_the_protocols() {
    let host = |service: &str, annotations: &str, spec: &str| {
        let service = format!(
            "---\nkind: Service\nmetadata: {{name: own, namespace: shop, annotations: {{{annotations}}}}}\nspec: {spec}\n---\n\
             kind: EndpointSlice\nmetadata: {{name: own-1, namespace: shop, labels: {{kubernetes.io/service-name: {service}}}}}\n\
             ports: [{{name: http, port: 8080}}]\nendpoints: [{{addresses: [10.244.0.3]}}, {{addresses: [10.244.0.4]}}]\n"
        );
        let translation = translate(&(ingress("a", "{konghq.com/preserve-host: 'false'}", "/", "own") + &service));
        let line = conf(&translation).lines().find(|line| line.contains("_set_header Host ")).unwrap().trim();
        line.rsplit(' ').next().unwrap().trim_matches(['"', ';']).to_owned()
    };
    let spec = |port: u16| format!("{{clusterIP: 10.96.0.7, ports: [{{name: http, port: {port}}}]}}");
    let whole = format!("{WHOLE}: 'true'");
    assert_eq!(host("own", "", &spec(80)), "10.244.0.3:8080");
    assert_eq!(host("own", "konghq.com/host-header: other.test", &spec(80)), "other.test:8080");
    assert_eq!(host("own", &whole, &spec(80)), "own.shop.svc");
    assert_eq!(host("own", &whole, &spec(81)), "own.shop.svc:81");
    assert_eq!(host("own", &format!("{whole}, konghq.com/protocol: https"), &spec(443)), "own.shop.svc");
    assert_eq!(host("own", &format!("{whole}, konghq.com/host-header: other.test"), &spec(80)), "other.test");
    assert_eq!(host("none", "", &spec(80)), "own.shop.http.svc", "it is answered 503");
}

#[test]
fn a_headless_service_as_a_whole_is_its_pods_at_its_own_port() {
    let service = format!(
        "---\nkind: Service\nmetadata: {{name: web, namespace: shop, annotations: {{{WHOLE}: 'true'}}}}\n\
         spec: {{clusterIP: None, ports: [{{name: http, port: 80}}]}}\n"
    );
    let one = ingress("a", "{}", "/", "web") + &service;
    translate(&one).says(MAIN, &["server 10.244.0.3:80 max_fails=0;"]);
    let another = "---\nkind: EndpointSlice\nmetadata: {name: web-2, namespace: shop, labels: {kubernetes.io/service-name: web}}\n\
                   ports: [{name: http, port: 8080}]\nendpoints: [{addresses: [10.244.0.4]}]\n";
    let translation = translate(&(one + another));
    let zone = &translation.files[Path::new(crate::nginx::ENDPOINTS)];
    assert!(zone.contains("10.244.0.3:80\"") && zone.contains("10.244.0.4:80\"") && !zone.contains("8080"), "{zone}");
}

#[test]
fn parameters_of_the_class_make_services_whole() {
    let class = |reference: &str| {
        format!(
            "---\nkind: IngressClass\nmetadata: {{name: kong}}\n\
             spec: {{controller: ingress-controllers.konghq.com/kong, parameters: {reference}}}\n---\n\
             kind: IngressClassParameters\nmetadata: {{name: all, namespace: kong}}\nspec: {{serviceUpstream: true}}\n"
        )
    };
    let reference = "{apiGroup: configuration.konghq.com, kind: IngressClassParameters, scope: Namespace, namespace: kong, name: all}";
    for (reference, whole) in [
        (reference.to_owned(), true),
        (reference.replace("name: all", "name: none"), false),
        (reference.replace("Namespace, ", "Cluster, "), false),
        (reference.replace("kind: Ingress", "kind: Other"), false),
        (reference.replace("konghq.com", "other.test"), false),
    ] {
        let translation = translate(&(ingress("a", "{}", "/", "web") + &class(&reference)));
        assert_eq!(conf(&translation).contains("server 10.96.0.7:80 max_fails=0;"), whole, "{reference}");
    }
}

#[test]
fn a_status_that_is_there_is_not_written_again() {
    let there = ingress("a", "{}", "/", "web") + "status: {loadBalancer: {ingress: [{ip: 203.0.113.10}]}}\n";
    assert_eq!(translate(&there).statuses, []);
    assert_eq!(translate(&there.replace("203.0.113.10", "203.0.113.11")).statuses.len(), 1, "the control");
}

#[test]
fn a_header_is_removed_and_added() {
    let config = "{remove: {headers: [l5d-dst-override]}, add: {headers: ['l5d-dst-override:web.shop:80']}}";
    let translation = translate(&(ingress("a", WITH, "/", "web") + &plugin(config)));
    translation.says(
        MAIN,
        &[
            "proxy_set_header l5d-dst-override \"$plugin_0_0\";",
            "set $plugin_value_0 \"web.shop:80\";",
            "default \"$plugin_value_0\";",
            r#""~*(^|,)\\s*l5d-dst-override\\s*(,|$)" "";"#,
        ],
    );
    assert!(!conf(&translation).contains("$http_l5d_dst_override"));
}

#[test]
fn what_is_only_added_keeps_the_clients_own_and_templates_are_variables() {
    let config = "{add: {headers: ['l5d-dst-override:$(headers.host).svc.cluster.local', 'x-price:5$']}}";
    let translation = translate(&(ingress("a", WITH, "/", "web") + &plugin(config)));
    translation.says(
        MAIN,
        &[
            "map \"$plugin_0_0\" $plugin_0_2 {",
            "default \"$plugin_0_0\";",
            "set $plugin_value_0 \"${http_host}.svc.cluster.local\";",
            "\"\" \"$plugin_value_0\";",
            "set $plugin_value_1 \"5${dollar}\";",
        ],
    );
}

#[test]
fn replacing_needs_a_header_to_replace_but_host_is_always_there() {
    let config = "{replace: {headers: ['a:1', 'host:other.test']}}";
    let translation = translate(&(ingress("a", WITH, "/", "web") + &plugin(config)));
    translation.says(
        MAIN,
        &["set $plugin_value_1 \"other.test\";", "\"\" \"\";", "proxy_set_header Host \"$plugin_value_1\";"],
    );
}

#[test]
fn plugins_that_differ_in_their_values_share_their_maps() {
    let two = |first: &str, second: &str| {
        let other = plugin(second).replace("name: p", "name: q");
        let with_other = ingress("b", "{konghq.com/plugins: q}", "/b", "web");
        conf(&translate(&(ingress("a", WITH, "/", "web") + &plugin(first) + "---" + &with_other + &other)))
            .matches("map \"$http_l5d")
            .count()
    };
    let add = |value: &str| format!("{{add: {{headers: ['l5d-dst-override:{value}']}}}}");
    let once = two(&add("x"), &add("x"));
    assert_eq!((once, two(&add("x"), &add("y"))), (2, 2));
    assert_eq!(two(&add("x"), "{append: {headers: ['l5d-dst-override:x']}}"), 4);
}

#[test]
fn the_routes_plugin_wins_over_the_services() {
    let service = "---\nkind: Service\nmetadata: {name: own, namespace: shop, annotations: {konghq.com/plugins: q}}\n\
                   spec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80}]}\n---\nkind: KongPlugin\n\
                   metadata: {name: q, namespace: shop}\nplugin: request-transformer\nconfig: {add: {headers: ['a:q']}}\n";
    let both = ingress("a", WITH, "/", "own") + service + &plugin("{add: {headers: ['a:p']}}");
    let only = ingress("a", "{}", "/", "own") + service;
    // The Service has no endpoints; the plugin's maps tell who runs.
    assert!(conf(&translate(&both)).contains("\"p\"") && !conf(&translate(&both)).contains("\"q\""));
    assert!(conf(&translate(&only)).contains("\"q\""));
}

#[test]
fn bad_objects_are_told_of_and_the_rest_serves() {
    let good = ingress("good", "{}", "/good", "web");
    let with = |bad: &str| translate(&(bad.to_owned() + "---" + &good));
    for (bad, message, wanted) in [
        (ingress("a", WITH, "/bad", "web"), "\"p\" does not exist", "location \"/bad/\" {"),
        (
            ingress("a", "{konghq.com/plugins: 'other:p'}", "/bad", "web"),
            "no grant found to referenced \"other:p\"",
            "location \"/bad/\" {",
        ),
        (ingress("a", "{}", "/bad", "none"), "no kubernetes service found", "failure to get a peer"),
        (ingress("a", WITH, "/bad", "web") + &plugin("{adds: {}}"), "config.adds: unknown field", "no Route matched"),
        (ingress("a", WITH, "/bad", "web") + &plugin("{add: {headers: [x]}}"), "invalid value: x", "no Route matched"),
        (ingress("a", WITH, "/bad", "web") + &plugin("{add: {body: ['a:b']}}"), "not played", "no Route matched"),
    ] {
        let translation = with(&bad);
        assert!(translation.messages().iter().any(|said| said.contains(message)), "{:?}", translation.messages());
        assert!(
            conf(&translation).contains("location \"/good/\" {") && conf(&translation).contains(wanted),
            "{message}"
        );
    }
    assert!(!conf(&with(&(ingress("a", WITH, "/bad", "web") + &plugin("{adds: {}}")))).contains("/bad"));
}

#[test]
fn a_default_backend_takes_what_no_other_route_does() {
    let default = "\nkind: Ingress\nmetadata: {name: d, namespace: shop}\nspec:\n  ingressClassName: kong\n  \
                   defaultBackend: {service: {name: web, port: {number: 80}}}\n---";
    let translation = translate(&(default.to_owned() + &ingress("a", "{}", "/a", "whole")));
    assert_eq!(conf(&translation).matches("location \"/\" {").count(), 2, "{}", conf(&translation));
    assert!(!conf(&translation).contains("no Route matched"));
}

#[test]
fn patterns_stripping_and_protocols() {
    let annotations = "{konghq.com/strip-path: 'true', konghq.com/protocols: https, konghq.com/preserve-host: 'false'}";
    let stripping = ingress("a", annotations, "/a.b", "web");
    translate(&stripping).says(
        MAIN,
        &[
            r#"rewrite "^/a\\.b/*(.*)$" /$1 break;"#,
            "proxy_set_header X-Forwarded-Prefix \"/a.b\";",
            "proxy_set_header Host \"10.244.0.3:8080\";",
            "if ($scheme = http) {",
        ],
    );
    translate(&ingress("a", "{}", "'/~/[0-9]+$'", "web")).says(MAIN, &["location ~ \"^/[0-9]+$\" {"]);
}

#[test]
fn protocols_of_which_one_is_none_are_as_if_not_said() {
    for (protocols, https_only) in [("https", true), ("ftp", false), ("https, ftp", false), ("", false)] {
        let annotations = format!("{{konghq.com/protocols: '{protocols}'}}");
        let translation = translate(&ingress("a", &annotations, "/", "web"));
        assert_eq!(conf(&translation).contains("Please use HTTPS protocol"), https_only, "{protocols}");
        assert_eq!(translation.messages(), [""; 0], "{protocols}");
    }
}

#[test]
fn a_plugin_may_be_named_with_its_own_namespace() {
    let config = "{add: {headers: ['a:b']}}";
    let translation = translate(&(ingress("a", "{konghq.com/plugins: 'shop:p'}", "/", "web") + &plugin(config)));
    assert_eq!(translation.messages(), [""; 0]);
    translation.says(MAIN, &["set $plugin_value_0 \"b\";"]);
}

#[test]
fn a_host_has_the_certificate_of_its_secret() {
    let tls = "  tls: [{hosts: [shop.test], secretName: cert}]\n";
    let secret = manifest("cert", &pair_for("shop.test"));
    let secret = secret.replace("name: cert,", "name: cert, uid: 1-2-3,");
    let there = translate(&(ingress("a", "{}", "/", "web") + tls + &secret));
    there.says(MAIN, &["ssl_certificate tls/1-2-3.pem;"]);
    let missing = translate(&(ingress("a", "{}", "/", "web") + tls));
    assert!(missing.messages()[0].contains("failed to fetch the secret"));
    assert_eq!(conf(&missing).matches("ssl_certificate tls/").count(), 1, "the default server's is everybody's");
}

#[test]
fn a_certificate_that_cannot_be_used_is_dropped_and_told_of() {
    let with_tls = ingress("a", "{}", "/", "web") + "  tls: [{hosts: [shop.test], secretName: cert}]\n";
    for (what, pair) in unusable() {
        let translation = translate(&(with_tls.clone() + &manifest("cert", &pair)));
        assert_eq!(translation.files.keys().filter(|file| file.starts_with("tls")).count(), 1, "{what}");
        assert_eq!(conf(&translation).matches("ssl_certificate tls/").count(), 1, "{what}");
        translation.says(MAIN, &["proxy_pass \"http://web.shop.http.svc\";"]);
        assert!(translation.messages()[0].contains("failed to construct certificate from secret"), "{what}");
    }
}

#[test]
fn nothing_that_an_object_says_ends_a_directive_or_begins_a_variable() {
    let good = ingress("good", "{}", "/good", "web");
    let conf_with = |bad: &str| conf(&translate(&format!("{bad}---{good}"))).to_owned();
    let removed = conf_with(&(ingress("a", WITH, "/", "web") + &plugin("{remove: {headers: ['a; }']}}")));
    assert!(!removed.contains("a; }") && removed.contains("/good"));
    let query = ingress("a", WITH, "/", "web") + &plugin("{add: {headers: ['x:$(query_params.a-b)']}}");
    assert!(!conf_with(&query).contains("arg_a-b"));
    let dollar = ingress("a", "{konghq.com/strip-path: 'true'}", "/a$b", "web");
    assert!(conf_with(&dollar).contains("X-Forwarded-Prefix \"/a${dollar}b\";"));
    let code = ingress("a", "{konghq.com/protocols: https, konghq.com/https-redirect-status-code: '9999'}", "/", "web");
    assert!(!conf_with(&code).contains("return 9999") && conf_with(&code).contains("return 426"));
    let host = ingress("a", "{}", "/", "web").replace("host: shop.test", "host: 'a; b'");
    assert!(!conf_with(&host).contains("a; b"));
    assert!(!conf_with(&ingress("a", "{}", "/", "'a; b'")).contains("a; b"));
}

#[test]
fn entities_have_the_names_and_the_tags_that_the_real_one_gives_them() {
    let settings = Settings::read(&Flags::default(), &Default::default());
    let controller = Kong { settings };
    let service = "---\nkind: Service\nmetadata: {name: web, namespace: shop, uid: 7-8-9}\nspec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80}]}\n";
    let ingress = ingress("a", WITH, "/b", "web").replace("host: shop.test", "host: '*.shop.test'");
    let ingress = ingress.replace("ingressClassName: kong", "ingressClassName: other");
    let class =
        "---\nkind: IngressClass\nmetadata: {name: other}\nspec: {controller: ingress-controllers.konghq.com/kong}\n";
    let objects = ingress + &plugin("{}") + service + class;
    let objects = Objects::from_yaml(&controller.kinds(), &objects);
    let of_class =
        Kong { settings: Settings::read(&Flags::new(["--ingress-class=other".to_owned()]), &Default::default()) };
    let files = of_class.translate(&objects).files;
    let configuration: Value = serde_json::from_str(&files[Path::new(CONFIGURATION)]).unwrap();
    let service = &configuration["services"][0];
    assert_eq!(
        (&service["name"], &service["host"]),
        (&Value::from("shop.web.http"), &Value::from("web.shop.http.svc"))
    );
    let tags = ["k8s-name:web", "k8s-namespace:shop", "k8s-kind:Service", "k8s-uid:7-8-9", "k8s-version:v1"];
    assert_eq!((&service["tags"], &configuration["upstreams"][0]["name"]), (&Value::from(&tags[..]), &service["host"]));
    let route = &service["routes"][0];
    assert_eq!(route["name"], "shop.a.web._.shop.test.http");
    assert_eq!(
        (&route["hosts"][0], &route["paths"]),
        (&Value::from("*.shop.test"), &Value::from(&["/b/", "~/b$"][..]))
    );
    let plugin = &configuration["plugins"][0];
    assert_eq!((&plugin["name"], &plugin["route"]), (&Value::from("request-transformer"), &route["name"]));
    let group = Value::from("k8s-group:configuration.konghq.com");
    assert!(plugin["tags"].as_array().unwrap().contains(&group), "{plugin}");
    assert_eq!(controller.translate(&objects).files.len(), 1, "of another class there is a configuration with nothing");
}

#[test]
fn what_is_left_out_takes_with_it_whatever_would_stand_open() {
    let with_plugin = "---\nkind: Service\nmetadata: {name: own, namespace: shop, annotations: {konghq.com/plugins: p}}\n\
                       spec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80}]}\n";
    let routes = [("by-ingress", WITH, "web"), ("by-service", "{}", "own"), ("open", "{}", "web")];
    let routes: Vec<String> = routes
        .iter()
        .map(|(name, annotations, service)| ingress(name, annotations, &format!("/{name}"), service))
        .collect();
    let conf_with = |config: &str| conf(&translate(&(routes.join("---") + with_plugin + &plugin(config)))).to_owned();
    let (good, bad) = (conf_with("{add: {headers: ['a:b']}}"), conf_with("{adds: {}}"));
    assert!(["by-ingress", "by-service", "open"].iter().all(|name| good.contains(name)), "the control");
    assert!(!bad.contains("by-ingress") && !bad.contains("by-service") && bad.contains("open"), "{bad}");
}
