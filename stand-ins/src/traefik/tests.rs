use serde_json::{Value, json};

use super::*;

const KINDS: [Kind; 4] = [ENDPOINT_SLICES, INGRESSES, SECRETS, SERVICES];

fn controller(words: &str) -> Traefik1 {
    let words = words.split(' ').filter(|word| !word.is_empty());
    Traefik1 { flags: Flags::new(words.map(str::to_owned)), certificate: ("CERT".into(), "KEY".into()) }
}

/// Two Services, `web` with two pods and `new` with one, and whatever a test adds.
fn translate(further: &str) -> Translation {
    let base = r#"
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80}, {name: alt, port: 8081}]}
---
kind: Service
metadata: {name: new, namespace: shop}
spec: {clusterIP: 10.96.0.9, ports: [{name: http, port: 80}]}
---
kind: Service
metadata: {name: outside, namespace: shop}
spec: {type: ExternalName, externalName: outside.test, ports: [{port: 81}]}
---
kind: Service
metadata: {name: traefik, namespace: traefik}
spec: {clusterIP: 10.96.0.8, ports: []}
status: {loadBalancer: {ingress: [{ip: 203.0.113.10, ipMode: VIP}]}}
---
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
ports: [{name: http, port: 8080}, {name: alt, port: 8081}]
endpoints:
  - {addresses: [10.244.0.3]}
  - {addresses: [10.244.0.2], conditions: {ready: true}}
  - {addresses: [10.244.0.4], conditions: {ready: false}}
---
kind: EndpointSlice
metadata: {name: new-1, namespace: shop, labels: {kubernetes.io/service-name: new}}
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.0.5]}]
"#;
    let controller = controller("--kubernetes.ingressendpoint.publishedservice=traefik/traefik");
    controller.translate(&Objects::from_yaml(&KINDS, &format!("{base}---{further}")))
}

/// An Ingress for one path of `shop.test` that leads to these Services, port `port`.
fn ingress(annotations: &str, services: &[&str], port: &str) -> String {
    let path = |service: &&str| format!("{{path: /, backend: {{service: {{name: {service}, port: {port}}}}}}}");
    let paths: Vec<String> = services.iter().map(path).collect();
    format!(
        r#"
kind: Ingress
metadata: {{name: a, namespace: shop, annotations: {{{annotations}}}}}
spec:
  rules: [{{host: shop.test, http: {{paths: [{}]}}}}]
"#,
        paths.join(", ")
    )
}

fn dynamic(translation: &Translation) -> Value {
    serde_yaml::from_str(&translation.files[std::path::Path::new(render::DYNAMIC)]).unwrap()
}

/// Addresses and weights of the only frontend.
fn servers(translation: &Translation) -> Vec<(String, u64)> {
    let dynamic = dynamic(translation);
    let service = &dynamic["http"]["services"]["shop.test/"]["loadBalancer"]["servers"];
    let server = |server: &Value| (server["url"].as_str().unwrap().to_owned(), server["weight"].as_u64().unwrap());
    service.as_array().into_iter().flatten().map(server).collect()
}

#[test]
fn the_pages_annotation_sets_the_header_for_both_entry_points() {
    let header = "ingress.kubernetes.io/custom-request-headers: 'l5d-dst-override:web.shop.svc.cluster.local:80'";
    let translation = translate(&ingress(header, &["web"], "{number: 80}"));
    let http = &dynamic(&translation)["http"];
    for (router, tls) in [("shop.test/-http", false), ("shop.test/-https", true)] {
        let router = &http["routers"][router];
        assert_eq!(router["rule"], "Host(`shop.test`) && PathPrefix(`/`)");
        assert_eq!((&router["middlewares"], router["tls"].is_object()), (&json!(["shop.test/-headers"]), tls));
    }
    let headers = &http["middlewares"]["shop.test/-headers"]["headers"]["customRequestHeaders"];
    assert_eq!(*headers, json!({"l5d-dst-override": "web.shop.svc.cluster.local:80"}));
    assert_eq!(http["services"]["shop.test/"]["loadBalancer"]["passHostHeader"], true);
    let expected = ["http://10.244.0.2:8080", "http://10.244.0.3:8080"].map(|url| (url.to_owned(), 1));
    assert_eq!((servers(&translation).as_slice(), translation.messages().len()), (&expected[..], 0));
}

#[test]
fn headers_are_read_with_all_their_colons_and_host_is_none() {
    let all = "ingress.kubernetes.io/custom-request-headers: 'a: b:c || d:||nothing||Host:x'";
    let translation = translate(&ingress(all, &["web"], "{number: 80}"));
    let headers = &dynamic(&translation)["http"]["middlewares"]["shop.test/-headers"]["headers"];
    assert_eq!(*headers, json!({"customRequestHeaders": {"a": "b:c", "d": ""}}));
    assert_eq!(translation.messages(), ["Could not load \"custom-request-headers\": \"nothing\", skipping..."]);
}

#[test]
fn preserve_host_is_known_by_three_names() {
    for (annotation, expected) in [
        ("traefik.frontend.passHostHeader: 'false'", false),
        ("ingress.kubernetes.io/preserve-host: 'false'", false),
        ("traefik.ingress.kubernetes.io/preserve-host: 'f'", false),
        ("traefik.ingress.kubernetes.io/preserve-host: 'no'", true),
    ] {
        let dynamic = dynamic(&translate(&ingress(annotation, &["web"], "{number: 80}")));
        let found = &dynamic["http"]["services"]["shop.test/"]["loadBalancer"]["passHostHeader"];
        assert_eq!(found, expected, "{annotation}");
    }
}

#[test]
fn weights_are_split_among_pods_and_have_to_add_up() {
    let of = |weights: &str, services: &[&str]| {
        let annotation = format!("traefik.ingress.kubernetes.io/service-weights: {weights:?}");
        translate(&ingress(&annotation, services, "{number: 80}"))
    };
    let weights = |translation| servers(&translation).into_iter().map(|(_, weight)| weight).collect::<Vec<_>>();
    let both = ["web", "new"];
    assert_eq!(weights(of("web: 70%\nnew: 30%", &both)), [35_000, 35_000, 30_000]);
    assert_eq!(weights(of("new: 0.4", &both)), [30_000, 30_000, 40_000], "what is left is for the others");
    assert_eq!(weights(of("new: 100%", &both)), [0, 0, 100_000]);
    for (given, why) in [
        ("web: 70%\nnew: 40%", "percentage value 110.000% must not exceed 100%"),
        ("web: 70%\nnew: 20%", "weights of path shop.test/ not summing up to 100%: 90.000%"),
        ("web: lots", "invalid percentage value \"lots\""),
    ] {
        let refused = of(given, &both);
        let message = format!("failed to create fractional weight allocator: {why}");
        assert_eq!((refused.messages(), refused.statuses.len()), (vec![message.as_str()], 0));
        assert!(dynamic(&refused)["http"]["routers"].is_null());
    }
}

#[test]
fn protocol_and_port_decide_the_url() {
    let urls = |annotations: &str, services: &[&str], port: &str| {
        servers(&translate(&ingress(annotations, services, port))).into_iter().map(|(url, _)| url).collect::<Vec<_>>()
    };
    assert_eq!(urls("", &["new"], "{name: http}"), ["http://10.244.0.5:8080"]);
    assert_eq!(urls("ingress.kubernetes.io/protocol: h2c", &["new"], "{number: 80}"), ["h2c://10.244.0.5:8080"]);
    assert_eq!(urls("", &["outside"], "{number: 81}"), ["http://outside.test:81"]);
    assert_eq!(urls("", &["new"], "{name: none}"), Vec::<String>::new(), "503, as there is no server");
    let unknown = translate(&ingress("ingress.kubernetes.io/protocol: grpc", &["new"], "{number: 80}"));
    assert_eq!(unknown.messages(), ["Invalid protocol \"grpc\" specified - skipping"]);
}

#[test]
fn rules_are_prefixes_of_characters_unless_annotated() {
    for (annotations, rule) in [
        ("", Some("Host(`shop.test`) && PathPrefix(`/`)")),
        ("traefik.frontend.rule.type: Path", Some("Host(`shop.test`) && Path(`/`)")),
        ("traefik.ingress.kubernetes.io/rule-type: PathPrefixStrip", Some("Host(`shop.test`) && PathPrefix(`/`)")),
        ("traefik.ingress.kubernetes.io/rule-type: AddPrefix", None),
    ] {
        let translation = translate(&ingress(annotations, &["web"], "{number: 80}"));
        let router = &dynamic(&translation)["http"]["routers"]["shop.test/-http"];
        assert_eq!(router["rule"].as_str(), rule, "{annotations}");
    }
    let wild = ingress("", &["web"], "{number: 80}").replace("shop.test", "'*.shop.test'");
    let router = &dynamic(&translate(&wild))["http"]["routers"]["*.shop.test/-http"];
    assert_eq!(router["rule"], r"HostRegexp(`^[A-Za-z0-9-_]+\.shop\.test$`) && PathPrefix(`/`)");
}

#[test]
fn the_default_backend_takes_the_last_port_of_the_service_and_there_is_one() {
    let default = |name: &str, service: &str| {
        let backend = format!("{{service: {{name: {service}, port: {{number: 80}}}}}}");
        format!("\nkind: Ingress\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{defaultBackend: {backend}}}\n")
    };
    let translation = translate(&(default("a", "web") + "---" + &default("b", "new")));
    let http = &dynamic(&translation)["http"];
    assert_eq!(http["routers"]["global-default-frontend-http"]["rule"], "PathPrefix(`/`)");
    let servers = &http["services"]["global-default-frontend"]["loadBalancer"]["servers"];
    assert_eq!(servers[0]["url"], "http://10.244.0.2:8081");
    let twice = "Error creating global backend: duplicate frontend: global-default-frontend";
    assert_eq!((translation.messages(), translation.statuses.len()), (vec![twice], 1));
    let missing = translate(&default("a", "none"));
    assert_eq!(missing.messages(), ["Error creating global backend: service not found for shop/none"]);
}

#[test]
fn what_is_wrong_with_one_ingress_is_logged_and_the_others_are_served() {
    let good = ingress("", &["web"], "{number: 80}");
    let other = good.replace("name: a,", "name: b,").replace("shop.test", "other.test");
    for (bad, why) in [
        (other.replace("name: web", "name: none"), "Service not found for shop/none"),
        (other.clone() + "  tls: [{secretName: none}]\n", "Error configuring TLS: secret shop/none does not exist"),
        (
            other.replace("annotations: {", "annotations: {ingress.kubernetes.io/auth-type: basic"),
            "auth-type \"basic\": authentication is not played here, so the Ingress is not served",
        ),
    ] {
        let translation = translate(&(good.clone() + "---" + &bad));
        assert_eq!(translation.messages(), [why]);
        let routers = &dynamic(&translation)["http"]["routers"];
        assert!(routers["shop.test/-http"].is_object() && routers["other.test/-http"].is_null(), "{bad}");
    }
}

#[test]
fn entry_points_that_are_not_there_are_told_of_and_the_others_serve() {
    let routers = |names: &str| {
        let annotation = format!("traefik.ingress.kubernetes.io/frontend-entry-points: '{names}'");
        let translation = translate(&ingress(&annotation, &["web"], "{number: 80}"));
        let routers = dynamic(&translation)["http"]["routers"].as_object().map_or(0, serde_json::Map::len);
        (routers, translation.messages().into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    assert_eq!(routers("http"), (1, Vec::new()));
    let undefined = |names: &str, rest: &str| {
        vec![format!("Undefined entry point(s) '{}' for frontend {names}_shop.test/{rest}", names.replace("http-", ""))]
    };
    assert_eq!(routers("http,none"), (1, undefined("http-none", "")));
    assert_eq!(routers("none"), (0, undefined("none", "; no entrypoint defined. Skipping frontend")));
}

#[test]
fn a_path_with_half_a_pattern_matches_nothing_and_nothing_is_said() {
    let path = |path: &str| {
        let translation =
            translate(&ingress("", &["web"], "{number: 80}").replace("path: /,", &format!("path: '{path}',")));
        assert_eq!(translation.messages(), [""; 0], "{path}");
        dynamic(&translation)["http"]["routers"].is_object()
    };
    for (bad, good) in [("/{id", "/a"), ("/id}", "/{id}"), ("/}id{", "/{id:[0-9]{2}}")] {
        assert_eq!((path(bad), path(good)), (false, true), "{bad} and {good}");
    }
}

#[test]
fn two_ingresses_for_one_host_and_path_share_their_servers_under_the_rules_of_the_first() {
    let first = ingress("traefik.frontend.passHostHeader: 'false'", &["web"], "{number: 80}");
    let second = ingress("", &["new"], "{number: 80}").replace("name: a,", "name: b,");
    let translation = translate(&(first + "---" + &second));
    assert_eq!(servers(&translation).len(), 3);
    let http = &dynamic(&translation)["http"];
    assert_eq!(http["services"]["shop.test/"]["loadBalancer"]["passHostHeader"], false);
}

#[test]
fn certificates_are_those_of_the_secrets() {
    let secret = "---\nkind: Secret\nmetadata: {name: cert, namespace: shop}\ndata: {tls.crt: Q1JU, tls.key: S0VZ}\n";
    let tls = ingress("", &["web"], "{number: 80}") + "  tls: [{hosts: [shop.test], secretName: cert}, {hosts: [x]}]\n";
    let tls = &dynamic(&translate(&(tls + secret)))["tls"];
    assert_eq!(tls["certificates"], json!([{"certFile": "CRT", "keyFile": "KEY"}]));
    assert_eq!(tls["stores"]["default"]["defaultCertificate"]["certFile"], "CERT");
}

#[test]
fn the_class_is_an_annotation_and_none_will_do_without_a_class_of_its_own() {
    let taken = |flags: &str, annotations: &str, spec: &str| {
        let ingress = ingress(annotations, &["web"], "{number: 80}").replace("spec:\n", spec);
        let (configuration, _) = translate::configuration(
            &Objects::from_yaml(&KINDS, &(ingress + "---\nkind: Service\nmetadata: {name: web, namespace: shop}\n")),
            controller(flags).flags.or("kubernetes.ingressclass", ""),
            &mut BTreeSet::new(),
        );
        !configuration.frontends.is_empty()
    };
    let (plain, other) = ("spec:\n", "spec:\n  ingressClassName: other\n");
    let own = "--kubernetes.ingressclass=own";
    for (flags, annotations, spec, expected) in [
        ("", "", plain, true),
        ("", "", other, true),
        ("", "kubernetes.io/ingress.class: traefik", plain, true),
        ("", "kubernetes.io/ingress.class: own", plain, false),
        (own, "kubernetes.io/ingress.class: own", plain, true),
        (own, "", plain, false),
    ] {
        assert_eq!(taken(flags, annotations, spec), expected, "{flags} {annotations} {spec}");
    }
}

#[test]
fn the_published_address_becomes_the_status_of_what_is_taken() {
    let translation = translate(&ingress("", &["web"], "{number: 80}"));
    assert_eq!(translation.statuses.len(), 1);
    let there = ingress("", &["web"], "{number: 80}") + "status: {loadBalancer: {ingress: [{ip: 203.0.113.10}]}}\n";
    assert_eq!(translate(&there).statuses, []);
}

#[test]
fn entry_points_are_read_from_flags_given_several_times() {
    let words = ["--entrypoints=Name:http Address::8000", "--entrypoints=Name:https Address:0.0.0.0:8443 TLS"];
    let points = EntryPoints::read(&Flags::new(words.map(str::to_owned))).unwrap();
    assert_eq!(format!("{points:?}"), "EntryPoints { http: 8000, https: 8443, health: 8080 }");
    for wrong in ["--entrypoints=Name:other Address::1", "--entrypoints=Name:http"] {
        assert!(EntryPoints::read(&Flags::new([wrong.to_owned()])).is_err(), "{wrong}");
    }
}

#[test]
fn the_same_objects_lead_to_the_same_version_and_others_to_another() {
    let version = |translation: &Translation| translation.files[std::path::Path::new(render::VERSION)].clone();
    let one = translate(&ingress("", &["web"], "{number: 80}"));
    let two = translate(&ingress("", &["new"], "{number: 80}"));
    assert_eq!(version(&one), version(&translate(&ingress("", &["web"], "{number: 80}"))));
    assert_ne!(version(&one), version(&two));
    assert!(dynamic(&one)["http"]["services"][version(&one)].is_object());
}
