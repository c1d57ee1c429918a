//! `meshgate inject --control-plane`: pods get the proxy as they are created, by the webhook and nothing else.

use crate::cluster::{ECHO, Home};

/// The containers of the only pod of an application, and whether each is ready.
fn containers(home: &Home, namespace: &str, app: &str) -> (String, String) {
    let of =
        |path: &str| home.kubectl(&format!("get pods -n {namespace} -l app={app} -o jsonpath={{.items[*].{path}}}"));
    (of("spec.containers[*].name"), of("status.containerStatuses[*].ready"))
}

#[test]
fn annotated_pods_get_the_proxy_as_they_are_created() {
    let home = Home::new();
    home.meshgate("cluster up").expect(0, &[]);
    let printed = home.meshgate("inject --control-plane");
    printed.expect(0, &[]);
    std::fs::write(home.bench.join("control-plane.yaml"), &printed.stdout).unwrap();
    home.kubectl("apply --server-side -f control-plane.yaml");
    for deployment in ["linkerd-destination", "linkerd-proxy-injector"] {
        home.kubectl(&format!("rollout status -n linkerd deployment/{deployment} --timeout=30s"));
    }

    let meshed = ECHO.replace("echo}", "meshed}");
    let labels = "metadata: {labels: {app: meshed}";
    let meshed = meshed.replace(labels, &format!("{labels}, annotations: {{linkerd.io/inject: enabled}}"));
    home.apply(&format!("{meshed}---{ECHO}"));
    home.kubectl("create namespace team");
    home.kubectl("annotate namespace team linkerd.io/inject=ingress");
    home.kubectl("apply -n team -f manifests.yaml");
    for (namespace, app) in [("default", "meshed"), ("default", "echo"), ("team", "meshed"), ("team", "echo")] {
        home.kubectl(&format!("rollout status -n {namespace} deployment/{app} --timeout=30s"));
    }

    let with_proxy = ("linkerd-proxy echo".to_owned(), "true true".to_owned());
    assert_eq!(containers(&home, "default", "meshed"), with_proxy);
    assert_eq!(containers(&home, "team", "echo"), with_proxy, "its namespace asks for it");
    assert_eq!(containers(&home, "default", "echo"), ("echo".to_owned(), "true".to_owned()), "the control");
    let mode = |app: &str| {
        home.kubectl(&format!(
            "get pods -n team -l app={app} -o jsonpath={{.items[*].metadata.annotations.linkerd\\.io/inject}}"
        ))
    };
    assert_eq!(
        (mode("meshed").as_str(), mode("echo").as_str()),
        ("enabled", "ingress"),
        "the pod's own word counts more"
    );
    let deployment = home.kubectl("get deployment meshed -o jsonpath={.spec.template.spec.containers[*].name}");
    assert_eq!(deployment, "echo", "the template stays as it was written");
}
