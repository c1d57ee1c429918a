use serde_json::Value;

use super::*;
use crate::data_plane::Files;

/// What is made of these objects, the Services `web` and `other` of namespace `shop`, and these Settings.
fn translate(settings: &str, further: &str) -> (Translation, Value) {
    let base = format!(
        r#"
kind: Settings
metadata: {{name: default, namespace: gloo-system}}
spec: {settings}
---
kind: Service
metadata: {{name: web, namespace: shop}}
spec: {{clusterIP: 10.96.0.7, ports: [{{name: http, port: 80}}, {{name: grpc, port: 81}}]}}
---
kind: Service
metadata: {{name: other, namespace: shop, annotations: {{gloo.solo.io/h2_service: 'true'}}}}
spec: {{clusterIP: 10.96.0.8, ports: [{{name: http, port: 80}}]}}
---
kind: EndpointSlice
metadata: {{name: web-1, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}
ports: [{{name: http, port: 8080}}]
endpoints: [{{addresses: [10.244.0.3]}}]
"#
    );
    let controller = Gloo { namespace: "gloo-system".to_owned() };
    let translation = controller.translate(&Objects::from_yaml(&controller.kinds(), &format!("{base}---{further}")));
    let parse = |file: &str| -> Value { serde_json::from_str(&translation.files[std::path::Path::new(file)]).unwrap() };
    let all = json!({"hosts": parse("routes.json")["resources"][0]["virtual_hosts"], "clusters": parse("clusters.json")["resources"]});
    (translation, all)
}

fn virtual_service(name: &str, routes: &str) -> String {
    format!(
        "\nkind: VirtualService\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{virtualHost: {{domains: [{name}.test], routes: [{routes}]}}}}\n"
    )
}

const SINGLE: &str = "routeAction: {single: {upstream: {name: shop-web-80, namespace: gloo-system}}}";

fn routes<'a>(all: &'a Value, host: &str) -> &'a [Value] {
    let hosts = all["hosts"].as_array().unwrap();
    hosts
        .iter()
        .find(|found| found["domains"][0] == host)
        .and_then(|host| host["routes"].as_array())
        .map_or(&[], Vec::as_slice)
}

fn states(translation: &Translation) -> String {
    format!("{:?}", translation.statuses)
}

#[test]
fn what_envoy_begins_with_is_written_once_and_leads_to_what_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let read = |file: &str| std::fs::read_to_string(folder.path().join(file)).unwrap();
    begin(folder.path()).unwrap();
    assert!(read(BOOTSTRAP).contains(&folder.path().join(envoy::LISTENERS).display().to_string()));
    std::fs::write(folder.path().join(envoy::CLUSTERS), "served").unwrap();
    begin(folder.path()).unwrap();
    assert_eq!(read(envoy::CLUSTERS), "served", "a process that begins anew leaves what Envoy serves");

    let (translation, _) = translate("{}", &virtual_service("a", &format!("{{{SINGLE}}}")));
    let listeners = &translation.files[Path::new(envoy::LISTENERS)];
    assert!(listeners.contains(&format!("{FOLDER}/{}", envoy::ROUTES)), "{listeners}");
    assert!(listeners.contains(&READY_PORT.to_string()), "probes find Envoy: {listeners}");
}

#[test]
fn the_integration_overwrites_for_services_and_passes_over_all_else() {
    let own = "---\nkind: Upstream\nmetadata: {name: own, namespace: gloo-system}\nspec: {static: {hosts: [{addr: web.test, port: 81}]}}";
    let to =
        |name: &str| format!("{{routeAction: {{single: {{upstream: {{name: {name}, namespace: gloo-system}}}}}}}}");
    let all =
        translate("{linkerd: true}", &(virtual_service("a", &format!("{}, {}", to("shop-web-80"), to("own"))) + own)).1;
    let added = &routes(&all, "a.test")[0]["request_headers_to_add"][0];
    assert_eq!(added["header"], json!({"key": "l5d-dst-override", "value": "web.shop.svc.cluster.local:80"}));
    assert_eq!(added["append_action"], "OVERWRITE_IF_EXISTS_OR_ADD");
    assert_eq!(routes(&all, "a.test")[1].get("request_headers_to_add"), None);
    let without = translate("{}", &virtual_service("a", &to("shop-web-80"))).1;
    assert_eq!(routes(&without, "a.test")[0].get("request_headers_to_add"), None);
}

#[test]
fn the_upstreams_of_services_are_in_gloos_own_namespace() {
    for (namespace, warned) in [("gloo-system", false), ("shop", true), ("default", true)] {
        let route = SINGLE.replace("gloo-system", namespace);
        let (translation, _) = translate("{}", &virtual_service("a", &format!("{{{route}}}")));
        let said = format!("*v1.Upstream {{ {namespace}.shop-web-80 }} not found");
        assert_eq!(states(&translation).contains(&said), warned, "{}", states(&translation));
    }
}

#[test]
fn of_several_destinations_each_has_its_own_header() {
    let two = "{routeAction: {multi: {destinations: [\
               {weight: 1, destination: {upstream: {name: shop-web-80, namespace: gloo-system}}}, \
               {weight: 3, destination: {kube: {ref: {name: other, namespace: shop}, port: 80}}}]}}}";
    let all = translate("{linkerd: true}", &virtual_service("a", two)).1;
    let found = routes(&all, "a.test")[0]["route"]["weighted_clusters"]["clusters"].as_array().unwrap();
    let told: Vec<_> = found
        .iter()
        .map(|cluster| {
            (cluster["weight"].as_u64(), cluster["request_headers_to_add"][0]["header"]["value"].as_str().unwrap())
        })
        .collect();
    assert_eq!(told, [(Some(1), "web.shop.svc.cluster.local:80"), (Some(3), "other.shop.svc.cluster.local:80")]);
}

#[test]
fn a_group_is_as_if_the_route_named_its_destinations() {
    let destinations = "destinations: [\
        {weight: 1, destination: {upstream: {name: shop-web-80, namespace: gloo-system}}}, \
        {weight: 3, destination: {kube: {ref: {name: other, namespace: shop}, port: 80}}}]";
    let group =
        |spec: &str| format!("---\nkind: UpstreamGroup\nmetadata: {{name: both, namespace: shop}}\nspec: {spec}\n");
    let named = virtual_service("a", "{routeAction: {upstreamGroup: {name: both, namespace: shop}}}");
    let (translation, all) = translate("{linkerd: true}", &(named.clone() + &group(&format!("{{{destinations}}}"))));
    let written = virtual_service("a", &format!("{{routeAction: {{multi: {{{destinations}}}}}}}"));
    assert_eq!(routes(&all, "a.test"), routes(&translate("{linkerd: true}", &written).1, "a.test"));
    assert!(!states(&translation).contains("Rejected") && !states(&translation).contains("Warning"));

    let (translation, all) = translate("{}", &named);
    assert!(states(&translation).contains("*v1.UpstreamGroup { shop.both } not found"), "{}", states(&translation));
    assert_eq!(routes(&all, "a.test")[0]["route"]["cluster"], "nowhere");

    let missing = group(&format!("{{{}}}", destinations.replace("shop-web-80", "none")));
    let (translation, all) = translate("{}", &(named.clone() + &missing));
    let said = "destination # 1: upstream not found: *v1.Upstream { gloo-system.none } not found";
    assert!(states(&translation).contains(said), "{}", states(&translation));
    assert_eq!(routes(&all, "a.test")[0]["route"]["weighted_clusters"]["clusters"][0]["name"], "nowhere");

    let (translation, _) = translate("{}", &(named + &group("{destinations: []}")));
    assert!(states(&translation).contains("must specify at least one weighted destination"));
}

#[test]
fn a_transformation_sets_and_manipulation_appends_unless_told_otherwise() {
    let action = |options: &str| {
        let all = translate("{}", &virtual_service("a", &format!("{{{SINGLE}, options: {options}}}"))).1;
        routes(&all, "a.test")[0]["request_headers_to_add"][0]["append_action"].clone()
    };
    let set = "{transformations: {requestTransformation: {transformationTemplate: {headers: {x: {text: y}}}}}}";
    assert_eq!(action(set), "OVERWRITE_IF_EXISTS_OR_ADD");
    assert_eq!(
        action("{headerManipulation: {requestHeadersToAdd: [{header: {key: x, value: y}}]}}"),
        "APPEND_IF_EXISTS_OR_ADD"
    );
    let over = "{headerManipulation: {requestHeadersToAdd: [{header: {key: x, value: y}, append: false}]}}";
    assert_eq!(action(over), "OVERWRITE_IF_EXISTS_OR_ADD");
}

#[test]
fn http2_is_spoken_where_the_service_or_its_port_says_so() {
    let to =
        |name: &str| format!("{{routeAction: {{single: {{upstream: {{name: {name}, namespace: gloo-system}}}}}}}}");
    for (name, http2) in [("shop-web-80", false), ("shop-web-81", true), ("shop-other-80", true)] {
        let all = translate("{}", &virtual_service("a", &to(name))).1;
        assert_eq!(all["clusters"][0].get("typed_extension_protocol_options").is_some(), http2, "{name}");
    }
}

#[test]
fn the_order_is_that_of_the_routes_and_one_without_matchers_takes_everything() {
    let all = translate(
        "{}",
        &virtual_service("a", &format!("{{matchers: [{{prefix: /a}}, {{exact: /b}}], {SINGLE}}}, {{{SINGLE}}}")),
    )
    .1;
    let paths: Vec<_> = routes(&all, "a.test").iter().map(|route| route["match"].clone()).collect();
    assert_eq!(paths, [json!({"prefix": "/a"}), json!({"path": "/b"}), json!({"prefix": "/"})]);
}

#[test]
fn what_is_missing_is_a_warning_and_its_route_answers_503() {
    let missing = "{routeAction: {single: {upstream: {name: none, namespace: gloo-system}}}}";
    let (translation, all) = translate("{}", &virtual_service("a", &format!("{missing}, {{{SINGLE}}}")));
    assert!(
        states(&translation).contains("Warning") && states(&translation).contains("gloo-system.none"),
        "{}",
        states(&translation)
    );
    assert_eq!(routes(&all, "a.test").len(), 2);
    assert_eq!(routes(&all, "a.test")[0]["route"]["cluster"], "nowhere");
}

#[test]
fn bad_ones_are_rejected_and_the_rest_serves() {
    let good = virtual_service("good", &format!("{{{SINGLE}}}"));
    let secret = good
        .replace("spec: {", "spec: {sslConfig: {secretRef: {name: none, namespace: shop}}, ")
        .replace("good", "bad");
    let weightless = "{routeAction: {multi: {destinations: [\
                      {weight: 0, destination: {upstream: {name: shop-web-80, namespace: gloo-system}}}]}}}";
    let header = "headers: [{name: x, value: '(', regex: true}]";
    for (bad, reason) in [
        (virtual_service("bad", "{}"), "route must specify an action"),
        (virtual_service("bad", "{routeAction: {}}"), "unknown upstream destination type"),
        (virtual_service("bad", "{routeAction: {multi: {destinations: []}}}"), "at least one weighted destination"),
        (virtual_service("bad", weightless), "a total weight that is greater than or equal to 1"),
        (virtual_service("bad", &format!("{{matchers: [{{}}], {SINGLE}}}")), "no path matcher"),
        (virtual_service("bad", &format!("{{matchers: [{{regex: '('}}], {SINGLE}}}")), "invalid regex"),
        (virtual_service("bad", &format!("{{matchers: [{{prefix: /, {header}}}], {SINGLE}}}")), "invalid regex"),
        (virtual_service("bad", &format!("{{{SINGLE}, options: {{timeout: soon}}}}")), "is no duration"),
        (secret, "SSL secret not found"),
    ] {
        let (translation, all) = translate("{}", &format!("{good}---{bad}"));
        let states = states(&translation);
        assert!(states.contains("Rejected") && states.contains(reason) && states.contains("Accepted"), "{states}");
        assert_eq!((routes(&all, "good.test").len(), routes(&all, "bad.test").len()), (1, 0), "{reason}");
    }
}

/// What is said of listeners that are stripped.
fn stripped_listeners(translation: &Translation) -> Vec<&str> {
    translation.reasons().into_iter().filter(|why| why.starts_with("stripping invalid listener from proxy")).collect()
}

#[test]
fn one_that_became_wrong_is_served_as_it_was_and_all_others_change() {
    let good = |name: &str| virtual_service(name, &format!("{{{SINGLE}}}"));
    let former = translate("{}", &good("a")).0.files;
    // It is wrong, and has another domain.
    let wrong = good("a").replace("a.test", "b.test").replace(&format!("{{{SINGLE}}}"), "{}");
    let served = |further: &str, former: Option<&Files>| -> Vec<(String, Value)> {
        let translation = translate("{}", further).0;
        let files = translation.served(former).unwrap();
        let routes: Value = serde_json::from_str(&files[Path::new(envoy::ROUTES)]).unwrap();
        let hosts = routes["resources"][0]["virtual_hosts"].as_array().unwrap().iter();
        hosts.map(|host| (host["domains"][0].as_str().unwrap().to_owned(), host["routes"].clone())).collect()
    };
    let domains =
        |hosts: &[(String, Value)]| -> Vec<String> { hosts.iter().map(|(domain, _)| domain.clone()).collect() };
    let late = format!("{wrong}---{}", good("late"));
    let kept = served(&late, Some(&former));
    assert_eq!(domains(&kept), ["a.test", "late.test"]);
    assert_eq!(kept[0].1[0]["route"]["cluster"], "shop-web-80");
    assert_eq!(domains(&served(&late, None)), ["late.test"], "there is nothing to keep");
    let taken = format!("{wrong}---{}", good("late").replace("late.test", "a.test"));
    assert_eq!(served(&taken, Some(&former)).len(), 1, "its domain is another's");
    assert_eq!(domains(&served(&good("late"), Some(&former))), ["late.test"], "it is gone");
    let translation = translate("{}", &wrong).0;
    assert_eq!(translation.reasons(), ["stripping invalid virtualhost from proxy gloo-system.gateway-proxy: shop.a"]);
    assert!(translation.files[Path::new(envoy::CLUSTERS)].contains("\"shop-web-80\""), "where its routes lead");
}

#[test]
fn a_certificate_that_cannot_be_used_holds_back_the_gateway_of_tls() {
    let warns = "{gateway: {validation: {warnMissingTlsSecret: true}}}";
    let plain = virtual_service("a", &format!("{{{SINGLE}}}"));
    let tls = plain.replace("spec: {", "spec: {sslConfig: {secretRef: {name: cert, namespace: shop}}, ");
    let unusable = format!(
        "{tls}---\nkind: Secret\nmetadata: {{name: cert, namespace: shop}}\ndata: {{tls.crt: eA==, tls.key: eA==}}\n"
    );
    for (settings, objects, why) in [
        ("{}", &tls, Some("SSL secret not found: list did not find secret shop.cert")),
        (warns, &tls, None),
        ("{}", &unusable, Some("shop.cert is not a valid TLS secret")),
        (warns, &unusable, Some("shop.cert is not a valid TLS secret")),
    ] {
        let (translation, all) = translate(settings, objects);
        let (stripped, states) = (stripped_listeners(&translation), states(&translation));
        match why {
            Some(why) => {
                let [said] = stripped[..] else { panic!("{settings} {objects}: {stripped:?}") };
                assert!(
                    said.contains("listener-0.0.0.0-8443: Listener Error: SSLConfigError") && said.contains(why),
                    "{said}"
                );
                assert!(states.contains("Rejected") && states.contains(why), "{states}");
            }
            None => {
                assert_eq!(translation.reasons(), [""; 0]);
                assert!(states.contains("Warning") && states.contains("SSL secret not found"), "{states}");
            }
        }
        assert_eq!(routes(&all, "a.test").len(), 0, "it is not served without one");
    }
}

#[test]
fn a_clients_request_id_is_not_kept_and_a_hosts_port_counts() {
    let translation = translate("{}", &virtual_service("a", &format!("{{{SINGLE}}}"))).0;
    for (file, setting) in
        [(envoy::LISTENERS, "preserve_external_request_id"), (envoy::ROUTES, "ignore_port_in_host_matching")]
    {
        assert!(!translation.files[std::path::Path::new(file)].contains(setting), "{setting}");
    }
}

#[test]
fn two_of_one_domain_are_refused_and_hold_back_their_gateway() {
    let file = |translation: &Translation, name: &str| translation.files[std::path::Path::new(name)].clone();
    let good = virtual_service("good", &format!("{{{SINGLE}}}"));
    let twice = good.replace("name: good", "name: again");
    let former = translate("{}", &good).0;
    assert_eq!((former.reasons(), file(&former, envoy::LISTENERS).contains("8080")), (vec![], true), "the control");

    let late = virtual_service("late", &format!("{{{SINGLE}}}"));
    let (translation, _) = translate("{}", &format!("{good}---{twice}---{late}"));
    let said = states(&translation);
    for name in ["good", "again"] {
        assert!(said.contains(&format!("as this one: [shop.{name}]")), "{said}");
    }
    assert!(said.contains("Accepted"), "the third is in order: {said}");
    let [why] = stripped_listeners(&translation)[..] else { panic!("{:?}", translation.held) };
    assert!(why.contains("listener-0.0.0.0-8080") && why.ends_with("[good.test]"), "{why}");
    let served = translation.served(Some(&former.files)).unwrap();
    for name in [envoy::LISTENERS, envoy::ROUTES] {
        assert_eq!(served[std::path::Path::new(name)], file(&former, name), "{name}");
    }
    // A route that stays may lead to any Upstream, whatever has become of its VirtualService.
    for cluster in ["shop-web-80", "shop-web-81_h2", "shop-other-80_h2", "nowhere"] {
        assert!(file(&translation, envoy::CLUSTERS).contains(&format!("\"{cluster}\"")), "{cluster}");
    }
    // With nothing before it nobody listens, and the other Gateway is not concerned.
    let first = translation.served(None).unwrap();
    assert!(!first[std::path::Path::new(envoy::LISTENERS)].contains("8080"));
}

#[test]
fn the_gateway_of_tls_is_held_back_by_itself() {
    let tls = |name: &str| {
        let plain = virtual_service(name, &format!("{{{SINGLE}}}")).replace(&format!("{name}.test"), "tls.test");
        plain.replace("spec: {", "spec: {sslConfig: {}, ")
    };
    let (translation, all) = translate(
        "{}",
        &format!("{}---{}---{}", tls("a"), tls("b"), virtual_service("good", &format!("{{{SINGLE}}}"))),
    );
    let [why] = stripped_listeners(&translation)[..] else { panic!("{:?}", translation.held) };
    assert!(why.contains("listener-0.0.0.0-8443") && why.ends_with("[tls.test]"), "{why}");
    assert_eq!(routes(&all, "good.test").len(), 1);
    let plain = virtual_service("plain", &format!("{{{SINGLE}}}")).replace("plain.test", "tls.test");
    assert_eq!(translate("{}", &format!("{}---{plain}", tls("a"))).0.reasons(), [""; 0], "one of each");
}

#[test]
fn a_bad_upstream_is_rejected_and_a_route_to_it_leads_nowhere() {
    let to = "{routeAction: {single: {upstream: {name: own, namespace: shop}}}}";
    for (host, reason) in [
        ("{addr: web.test, port: 0}", Some("port cannot be empty for host")),
        ("{addr: web.test}", Some("port cannot be empty for host")),
        ("{port: 80}", Some("addr cannot be empty for host")),
        ("{addr: web.test, port: 70000}", Some("port is out of range for host")),
        ("{addr: web.test, port: 81}", None),
    ] {
        let upstream = format!(
            "---\nkind: Upstream\nmetadata: {{name: own, namespace: shop}}\nspec: {{static: {{hosts: [{host}]}}}}"
        );
        let (translation, all) = translate("{}", &(virtual_service("a", to) + &upstream));
        let states: Vec<String> = translation.statuses.iter().map(|status| format!("{status:?}")).collect();
        assert!(states.len() == 2 && states[0].contains("Accepted"), "{host}: {states:?}");
        assert!(states[1].contains(reason.unwrap_or("Accepted")), "{host}: {states:?}");
        let cluster = if reason.is_some() { "nowhere" } else { "own_shop" };
        assert_eq!(routes(&all, "a.test")[0]["route"]["cluster"], cluster, "{host}");
    }
}

#[test]
fn what_is_mended_is_told_of_no_more() {
    let state = |state: &str, reason: &str| {
        let status = format!("{{gloo-system: {{reportedBy: gateway, state: {state}, reason: '{reason}'}}}}");
        let there = virtual_service("a", &format!("{{{SINGLE}}}")) + &format!("status: {{statuses: {status}}}\n");
        translate("{}", &there).0.statuses.len()
    };
    assert_eq!(state("Rejected", "why"), 1);
    assert_eq!(state("Accepted", "why"), 1);
    assert_eq!(state("Accepted", ""), 0);
}
