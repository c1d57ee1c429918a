use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{INIT_CONTAINER, Identity, PROXY_CONTAINER, Token};

fn deployment(pod_annotations: Value, pod_spec: Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "emojivoto"},
        "spec": {"template": {"metadata": {"annotations": pod_annotations}, "spec": pod_spec}},
    })
}

fn pod_spec() -> Value {
    json!({"containers": [{"name": "web", "image": "web", "ports": [
        {"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9990},
    ]}]})
}

fn container<'a>(object: &'a Value, list: &str, name: &str) -> &'a Value {
    let containers = object.pointer(&format!("/spec/template/spec/{list}")).unwrap().as_array().unwrap();
    containers.iter().find(|container| container["name"] == name).unwrap()
}

fn env<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    let env = container(object, "containers", PROXY_CONTAINER)["env"].as_array().unwrap();
    env.iter().find(|variable| variable["name"] == name)?["value"].as_str()
}

#[test]
fn a_deployment_gets_the_proxy() {
    let mut object = deployment(json!({}), pod_spec());
    let outcome = inject_object(&mut object, &Options::default());
    assert_eq!(outcome, Outcome::Injected { mode: Mode::Enabled, warnings: vec![] });
    assert_eq!(env(&object, "LINKERD2_PROXY_INBOUND_PORTS"), Some("8080,9990"));
    assert_eq!(
        env(&object, "LINKERD2_PROXY_DESTINATION_SVC_ADDR"),
        Some("linkerd-dst.linkerd.svc.cluster.local.:8086")
    );
    assert_eq!(env(&object, "LINKERD2_PROXY_INGRESS_MODE"), None);
    let metadata = &object["spec"]["template"]["metadata"];
    assert_eq!(
        metadata["labels"],
        json!({
            "linkerd.io/control-plane-ns": "linkerd",
            "linkerd.io/proxy-deployment": "web",
            "linkerd.io/workload-ns": "emojivoto",
        })
    );
    assert_eq!(metadata["annotations"]["linkerd.io/inject"], "enabled");
    assert_eq!(metadata["annotations"]["kubectl.kubernetes.io/default-container"], "web");
}

#[test]
fn the_mode_comes_from_the_annotation_or_the_options() {
    let ingress = Options { mode: Mode::Ingress, ..Options::default() };
    for (annotation, options, mode) in [
        (json!({"linkerd.io/inject": "ingress"}), Options::default(), "ingress"),
        (json!({"linkerd.io/inject": "enabled"}), Options::default(), "enabled"),
        (json!({"linkerd.io/inject": "enabled"}), ingress.clone(), "ingress"),
        (json!({}), ingress, "ingress"),
    ] {
        let mut object = deployment(annotation, pod_spec());
        assert!(inject_object(&mut object, &options).changed());
        assert_eq!(object["spec"]["template"]["metadata"]["annotations"]["linkerd.io/inject"], mode);
        assert_eq!(env(&object, "LINKERD2_PROXY_INGRESS_MODE").is_some(), mode == "ingress");
    }
}

#[test]
fn annotations_configure_the_proxy() {
    let mut object = deployment(
        json!({
            "config.linkerd.io/skip-inbound-ports": "25, 443",
            "config.linkerd.io/skip-outbound-ports": "8000-9000",
            "config.linkerd.io/opaque-ports": "metrics,3306,nosuch",
            "config.linkerd.io/proxy-log-level": "debug",
            "config.linkerd.io/proxy-memory-request": "20Mi",
            "config.meshgate.dev/dialect": "modern",
            "config.meshgate.dev/loop-guard": "off",
        }),
        pod_spec(),
    );
    let outcome = inject_object(&mut object, &Options::default());
    assert_eq!(outcome.warnings(), [&Warning::UnknownPortName("nosuch".into())]);
    let args = container(&object, "initContainers", INIT_CONTAINER)["args"].as_array().unwrap().clone();
    let after = |flag: &str| args[args.iter().position(|arg| arg == flag).unwrap() + 1].as_str().unwrap();
    assert_eq!(after("--inbound-ports-to-ignore"), "4190,4191,4567,4568,25,443");
    assert_eq!(after("--outbound-ports-to-ignore"), "4567,4568,8000-9000");
    assert_eq!(env(&object, "LINKERD2_PROXY_INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION"), Some("9990,3306"));
    assert_eq!(env(&object, "LINKERD2_PROXY_LOG"), Some("debug"));
    assert_eq!(env(&object, "MESHGATE_PROXY_DIALECT"), Some("modern"));
    assert_eq!(env(&object, "MESHGATE_PROXY_LOOP_GUARD"), Some("off"));
    assert_eq!(container(&object, "containers", PROXY_CONTAINER)["resources"], json!({"requests": {"memory": "20Mi"}}));
}

#[test]
fn every_reason_to_skip_leaves_the_object_alone() {
    let host_network = json!({"hostNetwork": true, "containers": [{"name": "c"}]});
    let istio = json!({"containers": [{"name": "c"}, {"name": "istio-proxy"}]});
    let annotated = Options { scope: Scope::Annotated, ..Options::default() };
    let mut system = deployment(json!({}), pod_spec());
    system["metadata"]["namespace"] = json!("kube-system");
    let cases = [
        (json!({"kind": "Service", "metadata": {"name": "web"}}), Options::default(), Skip::NoPods),
        (deployment(json!({"linkerd.io/inject": "disabled"}), pod_spec()), Options::default(), Skip::Disabled),
        (deployment(json!({}), pod_spec()), annotated, Skip::NotAnnotated),
        (
            deployment(json!({"linkerd.io/inject": "yes"}), pod_spec()),
            Options::default(),
            Skip::UnknownAnnotation("yes".into()),
        ),
        (deployment(json!({}), host_network), Options::default(), Skip::HostNetwork),
        (deployment(json!({}), istio), Options::default(), Skip::ForeignProxy("istio-proxy".into())),
        (system, Options::default(), Skip::Namespace("kube-system".into())),
    ];
    for (object, options, reason) in cases {
        let mut after = object.clone();
        assert_eq!(inject_object(&mut after, &options), Outcome::Skipped(reason));
        assert_eq!(after, object);
    }
    let mut broken = json!({"kind": "Job", "metadata": {"name": "j"}, "spec": {"template": {"spec": {}}}});
    let Outcome::Skipped(Skip::Malformed(why)) = inject_object(&mut broken, &Options::default()) else { panic!() };
    assert!(why.contains("spec.template.spec.containers"), "{why}");
}

#[test]
fn lists_are_injected_item_by_item() {
    let mut list = json!({"kind": "List", "items": [
        {"kind": "Pod", "metadata": {"name": "p"}, "spec": pod_spec()},
        {"kind": "Service", "metadata": {"name": "s"}},
    ]});
    let outcome = inject_object(&mut list, &Options::default());
    assert!(outcome.changed());
    assert_eq!(Entry::new(&list, outcome).to_string(), "pod \"p\" injected\nservice \"s\" skipped\n");
    assert_eq!(list["items"][0]["spec"]["containers"][0]["name"], PROXY_CONTAINER);
}

#[test]
fn warnings_name_what_will_not_work() {
    let object = || {
        deployment(
            json!({}),
            json!({"automountServiceAccountToken": false, "containers": [{"name": "dns", "ports": [
                {"containerPort": 53, "protocol": "UDP"},
            ]}]}),
        )
    };
    let identity = |token| Identity { trust_anchors: "PEM".to_owned(), issuer: None, token };
    for (identity, expected) in [
        (None, vec![&Warning::UdpPorts]),
        (Some(identity(Token::Projected)), vec![&Warning::UdpPorts]),
        (Some(identity(Token::Mounted)), vec![&Warning::NoServiceAccountToken, &Warning::UdpPorts]),
    ] {
        let mut object = object();
        let outcome = inject_object(&mut object, &Options { identity, ..Options::default() });
        assert_eq!(outcome.warnings(), expected);
        assert_eq!(env(&object, "LINKERD2_PROXY_INBOUND_PORTS"), Some(""));
    }
}

#[test]
fn a_proxy_is_told_who_it_is_and_has_a_token_to_prove_it() {
    let inject = |token| {
        let identity = Identity { trust_anchors: "PEM".to_owned(), issuer: None, token };
        let options = Options { identity: Some(identity), ..Options::default() };
        let mut object = deployment(json!({}), json!({"containers": [{"name": "web"}]}));
        // Twice, as an update does.
        assert!(inject_object(&mut object, &options).changed());
        inject_object(&mut object, &options);
        object
    };
    let object = inject(Token::Projected);
    let pod = &object["spec"]["template"]["spec"];
    let token = &pod["volumes"][1]["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!((&token["audience"], pod["volumes"].as_array().unwrap().len()), (&json!("identity.l5d.io"), 2));
    assert_eq!(pod["containers"][0]["volumeMounts"][1]["mountPath"], "/var/run/secrets/tokens");
    for (name, value) in [
        ("LINKERD2_PROXY_IDENTITY_TOKEN_FILE", "/var/run/secrets/tokens/linkerd-identity-token"),
        ("LINKERD2_PROXY_IDENTITY_LOCAL_NAME", "$(_pod_sa).$(_pod_ns).serviceaccount.identity.linkerd.cluster.local"),
        ("LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS", "PEM"),
        ("LINKERD2_PROXY_IDENTITY_SVC_NAME", "linkerd-identity.linkerd.serviceaccount.identity.linkerd.cluster.local"),
        (
            "LINKERD2_PROXY_DESTINATION_SVC_NAME",
            "linkerd-destination.linkerd.serviceaccount.identity.linkerd.cluster.local",
        ),
        ("LINKERD2_PROXY_POLICY_SVC_NAME", "linkerd-destination.linkerd.serviceaccount.identity.linkerd.cluster.local"),
    ] {
        assert_eq!(env(&object, name), Some(value));
    }
    assert_eq!(env(&object, "LINKERD2_PROXY_IDENTITY_MIN_REFRESH"), None);
    let object = inject(Token::Mounted);
    let volumes = json!([{"name": "linkerd-identity-end-entity", "emptyDir": {"medium": "Memory"}}]);
    assert_eq!(object["spec"]["template"]["spec"]["volumes"], volumes);
    let file = env(&object, "LINKERD2_PROXY_IDENTITY_TOKEN_FILE");
    assert_eq!(file, Some("/var/run/secrets/kubernetes.io/serviceaccount/token"));
}

/// What `linkerd2-proxy-identity`, the entrypoint of Linkerd's image, and the proxy that it starts insist on.
#[test]
fn linkerds_own_images_get_what_they_insist_on() {
    let identity = Identity { trust_anchors: "PEM".to_owned(), issuer: None, token: Token::Projected };
    let options = Options { identity: Some(identity), ..Options::default() };
    let annotated = |more: Value| {
        let mut annotations = json!({
            "config.linkerd.io/proxy-image": "cr.l5d.io/linkerd/proxy",
            "config.linkerd.io/proxy-version": "edge-26.8.3",
            "config.linkerd.io/init-image": "cr.l5d.io/linkerd/proxy-init",
            "config.linkerd.io/init-image-version": "v2.4.3",
        });
        annotations.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut object = deployment(annotations, pod_spec());
        let outcome = inject_object(&mut object, &options);
        assert_eq!(outcome, Outcome::Injected { mode: Mode::Enabled, warnings: vec![] });
        object
    };
    let object = annotated(json!({}));
    let proxy = container(&object, "containers", PROXY_CONTAINER);
    assert_eq!(proxy["image"], "cr.l5d.io/linkerd/proxy:edge-26.8.3");
    assert_eq!(
        (&proxy["args"], &proxy["command"]),
        (&json!(null), &json!(null)),
        "it has an entrypoint and no arguments"
    );
    for name in [
        "CONTROL_LISTEN_ADDR",
        "ADMIN_LISTEN_ADDR",
        "OUTBOUND_LISTEN_ADDRS",
        "INBOUND_LISTEN_ADDR",
        "INBOUND_IPS",
        "INBOUND_DEFAULT_POLICY",
        "DESTINATION_SVC_ADDR",
        "DESTINATION_SVC_NAME",
        "DESTINATION_CONTEXT",
        "POLICY_SVC_ADDR",
        "POLICY_SVC_NAME",
        "POLICY_WORKLOAD",
        "POLICY_CLUSTER_NETWORKS",
        "IDENTITY_DIR",
        "IDENTITY_TRUST_ANCHORS",
        "IDENTITY_TOKEN_FILE",
        "IDENTITY_LOCAL_NAME",
        "IDENTITY_SVC_ADDR",
        "IDENTITY_SVC_NAME",
    ] {
        assert!(env(&object, &format!("LINKERD2_PROXY_{name}")).is_some_and(|value| !value.is_empty()), "{name}");
    }
    // The root is read-only, and the key is written to this folder.
    let folder = env(&object, "LINKERD2_PROXY_IDENTITY_DIR").unwrap();
    let mount = proxy["volumeMounts"].as_array().unwrap().iter().find(|mount| mount["mountPath"] == folder).unwrap();
    let volumes = object["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
    let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).unwrap();
    assert_eq!(volume["emptyDir"]["medium"], "Memory");
    let wait = json!(["/usr/lib/linkerd/linkerd-await", "--timeout=2m", "--port=4191"]);
    assert_eq!(proxy["lifecycle"]["postStart"]["exec"]["command"], wait);
    assert_eq!(object["spec"]["template"]["metadata"]["annotations"]["linkerd.io/proxy-version"], "edge-26.8.3");

    let init = container(&object, "initContainers", INIT_CONTAINER);
    assert_eq!(init["image"], "cr.l5d.io/linkerd/proxy-init:v2.4.3");
    let args = init["args"].as_array().unwrap();
    assert!(args.iter().step_by(2).all(|flag| flag.as_str().unwrap().starts_with("--")), "flags alone: {args:?}");
    assert!(args.contains(&json!("iptables-nft")), "{args:?}");

    for (more, list) in [
        (json!({"config.linkerd.io/proxy-enable-native-sidecar": "true"}), "initContainers"),
        (json!({"config.linkerd.io/proxy-await": "disabled"}), "containers"),
    ] {
        let object = annotated(more);
        assert_eq!(container(&object, list, PROXY_CONTAINER)["lifecycle"], json!(null));
    }
    let mut object = deployment(json!({"config.linkerd.io/proxy-image": "cr.l5d.io/linkerd/proxy:a"}), pod_spec());
    let outcome = inject_object(&mut object, &Options::default());
    assert_eq!(outcome.warnings(), [&Warning::NoIdentity("cr.l5d.io/linkerd/proxy:a".into())]);
}

#[test]
fn a_pods_certificates_are_as_short_lived_as_it_says() {
    let identity = Identity { trust_anchors: "PEM".to_owned(), issuer: None, token: Token::Projected };
    let annotations = json!({annotations::IDENTITY_LIFETIME: "5s", annotations::IDENTITY_REFRESH: "1s"});
    let mut object = deployment(annotations, json!({"containers": [{"name": "web"}]}));
    inject_object(&mut object, &Options { identity: Some(identity), ..Options::default() });
    for (name, value) in [
        ("MESHGATE_PROXY_IDENTITY_LIFETIME", "5s"),
        ("LINKERD2_PROXY_IDENTITY_MIN_REFRESH", "1s"),
        ("LINKERD2_PROXY_IDENTITY_MAX_REFRESH", "1s"),
    ] {
        assert_eq!(env(&object, name), Some(value));
    }
}

#[test]
fn a_native_sidecar_comes_before_all_but_the_redirection() {
    let names = |object: &Value, list: &str| -> Vec<String> {
        let containers = object.pointer(&format!("/spec/template/spec/{list}")).and_then(Value::as_array);
        let name = |container: &Value| container["name"].as_str().unwrap().to_owned();
        containers.into_iter().flatten().map(name).collect()
    };
    let mut pod = pod_spec();
    pod["initContainers"] = json!([{"name": "migrate", "image": "web"}]);
    let native = Options { native_sidecar: true, ..Options::default() };
    for (annotations, options, expected) in [
        (json!({}), &Options::default(), false),
        (json!({}), &native, true),
        (json!({"config.linkerd.io/proxy-enable-native-sidecar": "false"}), &native, false),
        (json!({"config.beta.linkerd.io/proxy-enable-native-sidecar": "true"}), &Options::default(), true),
    ] {
        let mut object = deployment(annotations, pod.clone());
        // It changes its place, and is there once.
        inject_object(&mut object, &Options { native_sidecar: !options.native_sidecar, ..options.clone() });
        inject_object(&mut object, options);
        let (init, beside): (&[&str], &[&str]) = match expected {
            true => (&["linkerd-init", "linkerd-proxy", "migrate"], &["web"]),
            false => (&["migrate", "linkerd-init"], &["linkerd-proxy", "web"]),
        };
        assert_eq!(names(&object, "initContainers"), init);
        assert_eq!(names(&object, "containers"), beside);
        let list = if expected { "initContainers" } else { "containers" };
        let proxy = container(&object, list, PROXY_CONTAINER);
        assert_eq!(proxy["restartPolicy"] == "Always", expected);
        assert_eq!(proxy["startupProbe"].is_object(), expected);
        let mut env = proxy["env"].as_array().unwrap().iter();
        let ports = env.find(|variable| variable["name"] == "LINKERD2_PROXY_INBOUND_PORTS").unwrap();
        assert_eq!(ports["value"], "8080,9990", "those of the application");
    }
}

fn any_pod() -> impl Strategy<Value = (String, Value, bool)> {
    let port = (1u16.., any::<bool>())
        .prop_map(|(number, udp)| json!({"containerPort": number, "protocol": if udp { "UDP" } else { "TCP" }}));
    let container = (proptest::collection::vec(port, 0..3), "[a-z]{1,8}")
        .prop_map(|(ports, name)| json!({"name": name, "ports": ports}));
    let inject = proptest::option::of(proptest::sample::select(vec!["enabled", "ingress", "disabled", "perhaps"]));
    (
        proptest::sample::select(vec!["Pod", "Deployment", "CronJob", "StatefulSet", "Job", "ConfigMap"]),
        proptest::collection::vec(container, 0..3),
        inject,
        any::<(bool, bool)>(),
        proptest::option::of("[0-9a-z,-]{0,12}"),
    )
        .prop_map(|(kind, containers, inject, (host_network, ingress), opaque)| {
            let mut metadata = json!({"name": "x"});
            if let Some(inject) = inject {
                metadata["annotations"] = json!({"linkerd.io/inject": inject});
            }
            if let Some(opaque) = opaque {
                metadata["annotations"]["config.linkerd.io/opaque-ports"] = json!(opaque);
            }
            let template =
                json!({"metadata": metadata, "spec": {"hostNetwork": host_network, "containers": containers}});
            let object = match kind {
                "Pod" => template,
                "CronJob" => json!({"spec": {"jobTemplate": {"spec": {"template": template}}}}),
                _ => json!({"spec": {"template": template}}),
            };
            (kind.to_owned(), object, ingress)
        })
}

proptest! {
    #[test]
    fn injecting_twice_is_injecting_once((kind, mut object, ingress) in any_pod()) {
        object["kind"] = json!(kind);
        let mode = if ingress { Mode::Ingress } else { Mode::Enabled };
        let options = Options { mode, ..Options::default() };
        let mut once = object.clone();
        let first = inject_object(&mut once, &options);
        prop_assert_eq!(first.changed(), once != object);
        let mut twice = once.clone();
        let second = inject_object(&mut twice, &options);
        prop_assert_eq!(&twice, &once);
        match first {
            Outcome::Injected { mode, warnings } => prop_assert_eq!(second, Outcome::Updated { mode, warnings }),
            skipped => prop_assert_eq!(second, skipped),
        }
    }
}
