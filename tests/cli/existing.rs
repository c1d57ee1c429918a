//! `--cluster existing`: cases on a cluster of which only the API can be reached.
//!
//! What a kubeconfig leads to here is an embedded cluster in namespaces of its own: no address of a pod or Service can be dialled from
//! the test, as with a cluster in a cloud. Everything goes through the API server.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use meshgate_clusters::remote::{By, Claim, Reach, Remote};
use meshgate_clusters::{Cluster as _, IMAGE};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::bench::MESHGATE;

/// What Meshgate makes has it.
const OWNED: &str = "meshgate.dev/owned=true";

/// A cluster with its own state folder; ends with the test.
pub struct Cluster {
    pub state: tempfile::TempDir,
}

impl Cluster {
    pub fn up() -> Self {
        let cluster = Self { state: tempfile::tempdir().unwrap() };
        let output = cluster.meshgate(&["cluster", "up", "--name", "theirs"]);
        assert!(output.status.success(), "{output:?}");
        cluster
    }

    fn meshgate(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(MESHGATE);
        command.args(arguments).env("XDG_STATE_HOME", self.state.path());
        command
    }

    /// A kubectl that remembers its calls, and the file in which it does.
    fn kubectl(&self) -> (PathBuf, PathBuf) {
        use std::os::unix::fs::PermissionsExt;
        let (kubectl, calls) = (self.state.path().join("kubectl"), self.state.path().join("calls"));
        let real = meshgate_images::Catalogue::built_in(MESHGATE).kubectl(&|_| {}).unwrap().path;
        let script = format!("#!/bin/sh\necho \"$*\" >>{}\nexec {} \"$@\"\n", calls.display(), real.display());
        std::fs::write(&kubectl, script).unwrap();
        std::fs::set_permissions(&kubectl, std::fs::Permissions::from_mode(0o755)).unwrap();
        (kubectl, calls)
    }

    /// A kubeconfig of this cluster for a ServiceAccount that may look at everything and do nothing.
    fn onlookers_kubeconfig(&self) -> PathBuf {
        use k8s_openapi::api::authentication::v1::TokenRequest;
        use k8s_openapi::api::core::v1::ServiceAccount;
        use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
        let role = serde_json::json!({
            "metadata": {"name": "onlooker"},
            "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}],
        });
        let binding = serde_json::json!({
            "metadata": {"name": "onlooker"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "onlooker"},
            "subjects": [{"kind": "ServiceAccount", "name": "onlooker", "namespace": "default"}],
        });
        let client = self.client();
        let token = runtime().block_on(async {
            let accounts: kube::Api<ServiceAccount> = kube::Api::default_namespaced(client.clone());
            let account = serde_json::from_value(serde_json::json!({"metadata": {"name": "onlooker"}})).unwrap();
            accounts.create(&Default::default(), &account).await.unwrap();
            let roles: kube::Api<ClusterRole> = kube::Api::all(client.clone());
            roles.create(&Default::default(), &serde_json::from_value(role).unwrap()).await.unwrap();
            let bindings: kube::Api<ClusterRoleBinding> = kube::Api::all(client);
            bindings.create(&Default::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
            let request: TokenRequest = serde_json::from_value(serde_json::json!({"spec": {"audiences": []}})).unwrap();
            let granted = accounts.create_token_request("onlooker", &Default::default(), &request).await.unwrap();
            granted.status.unwrap().token
        });
        let mut config: Value =
            serde_json::to_value(kube::config::Kubeconfig::read_from(self.kubeconfig()).unwrap()).unwrap();
        for user in config["users"].as_array_mut().unwrap() {
            user["user"] = serde_json::json!({"token": token});
        }
        let path = self.state.path().join("onlooker");
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.state.path().join("meshgate/theirs/kubeconfig")
    }

    /// `meshgate run` there, with one quick recipe.
    fn run(&self, report: &Path, further: &[&str]) -> Output {
        self.run_recipe("traefik", "ingress-middleware", report, further)
    }

    /// `meshgate run` there, with one recipe.
    fn run_recipe(&self, controller: &str, recipe: &str, report: &Path, further: &[&str]) -> Output {
        let (kubectl, _) = self.kubectl();
        let kubeconfig = self.kubeconfig();
        let mut arguments = vec!["run", "--cluster", "existing", "--kubeconfig", kubeconfig.to_str().unwrap()];
        arguments.extend(["--controllers", controller, "--recipe", recipe, "--dialect", "modern"]);
        arguments.extend(["--report-dir", report.to_str().unwrap()]);
        arguments.extend(further);
        self.command(&arguments).env("MESHGATE_KUBECTL_BIN", kubectl).output().unwrap()
    }

    /// As another run has it that is at work.
    fn claimed_by_somebody(&self) -> Claim {
        let reach = Reach::existing(Some(&self.kubeconfig()), None, IMAGE, By::default()).unwrap();
        let cancel = CancellationToken::new();
        runtime().block_on(Claim::take(reach, "somebody", &cancel, &|_| {})).unwrap()
    }

    fn client(&self) -> kube::Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = kube::config::Kubeconfig::read_from(self.kubeconfig()).unwrap();
        let config = runtime().block_on(kube::Config::from_custom_kubeconfig(config, &Default::default())).unwrap();
        let _inside = runtime().enter();
        kube::Client::try_from(config).unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.meshgate(&["cluster", "down", "--name", "theirs"]);
    }
}

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: std::sync::OnceLock<tokio::runtime::Runtime> = std::sync::OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap())
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The names of all objects of a kind, those with Meshgate's label only if `owned`.
fn names<K>(client: &kube::Client, owned: bool) -> Vec<String>
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let all = kube::api::ListParams::default();
    let params = if owned { all.labels(OWNED) } else { all };
    let found = runtime().block_on(kube::Api::<K>::all(client.clone()).list(&params)).unwrap();
    found.items.into_iter().filter_map(|object| object.meta().name.clone()).collect()
}

/// Verdicts by case.
pub fn verdicts(report: &Path) -> Vec<(String, String)> {
    let report: Value = serde_json::from_slice(&std::fs::read(report.join("report.json")).unwrap()).unwrap();
    let cases = report["cells"][0]["cases"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    cases.iter().map(|case| (text(&case["id"]), text(&case["verdict"]))).collect()
}

/// Where the requests of `routing/host` were sent.
fn host_target(report: &Path) -> String {
    let report: Value = serde_json::from_slice(&std::fs::read(report.join("report.json")).unwrap()).unwrap();
    let case = report["cells"][0]["cases"].as_array().unwrap().iter().find(|case| case["id"] == "routing/host");
    case.unwrap()["observations"]["samples"][0]["target"].as_str().unwrap().to_owned()
}

#[test]
fn cases_come_to_verdicts_by_the_api_alone_and_the_cluster_is_left_as_it_was() {
    use k8s_openapi::api::core::v1::Namespace;
    use k8s_openapi::api::rbac::v1::ClusterRole;
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

    let cluster = Cluster::up();
    let client = cluster.client();
    let all = || {
        let namespaces = names::<Namespace>(&client, false);
        (namespaces, names::<CustomResourceDefinition>(&client, false), names::<ClusterRole>(&client, false))
    };
    let before = all();
    let report = tempfile::tempdir().unwrap();

    let outlook = cluster.run(report.path(), &["--dry-run"]);
    assert_eq!(outlook.status.code(), Some(0), "{}", text(&outlook));
    assert!(text(&outlook).contains("in namespace workbench:\n    "), "{}", text(&outlook));
    assert!(text(&outlook).contains(" Deployment: ") && text(&outlook).contains("echo-a, "), "{}", text(&outlook));
    assert!(text(&outlook).contains("while cases run, and for no longer: "), "{}", text(&outlook));
    assert!(text(&outlook).contains("Nothing is in the way, and nothing was written."), "{}", text(&outlook));
    assert_eq!(names::<Namespace>(&client, true), Vec::<String>::new(), "a dry run writes nothing");

    // Routing, metrics, what a client is refused, what breaks, what an outside name would be needed for, and kubectl.
    let cases = "routing/host,routing/body-1mib,routing/describe-pod,route_metrics/counts,headers/outbound-port-closed,traffic_split/,\
                 loops/hairpin,resilience/backend-killed,resilience/proxy-restart";
    let output = cluster.run(report.path(), &["--case", cases]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let verdicts = verdicts(report.path());
    let of = |wanted: &str| verdicts.iter().find(|(id, _)| id == wanted).map(|(_, verdict)| verdict.as_str());
    for passed in ["routing/host", "routing/body-1mib", "routing/describe-pod", "headers/outbound-port-closed"] {
        assert_eq!(of(passed), Some("pass"), "{passed} of {verdicts:?}");
    }
    assert_eq!(of("resilience/backend-killed"), Some("pass"), "{verdicts:?}");
    // Here it could be done; where a container runtime has our image, there is no shell in it.
    for impossible in ["loops/hairpin", "resilience/proxy-restart"] {
        assert_eq!(of(impossible), Some("not-applicable"), "{impossible} of {verdicts:?}");
    }
    let calls = std::fs::read_to_string(cluster.kubectl().1).unwrap();
    assert!(calls.contains("describe"), "the kubectl of MESHGATE_KUBECTL_BIN: {calls:?}");
    assert!(host_target(report.path()).starts_with("10.96."), "by the cluster IP: {}", host_target(report.path()));

    // By the other addresses of the controller's Service.
    for (entrance, begins, ends) in [("node-port", "172.18.0.2:3", ""), ("load-balancer", "203.0.113.", ":80")] {
        let further = ["--case", "routing/host,headers/outbound-port-closed", "--entrance", entrance];
        let output = cluster.run(report.path(), &further);
        assert_eq!(output.status.code(), Some(0), "{entrance}: {}", text(&output));
        assert!(self::verdicts(report.path()).contains(&("routing/host".to_owned(), "pass".to_owned())), "{entrance}");
        let target = host_target(report.path());
        assert!(target.starts_with(begins) && target.ends_with(ends), "{entrance}: {target}");
    }

    assert_eq!(all(), before);
    let written = std::fs::read_to_string(report.path().join("report.json")).unwrap();
    assert!(written.contains("\"control_plane\": \"image\""), "who played the controller is whatever the cluster has");
}

#[test]
fn a_gate_that_is_to_write_nothing_tells_of_both_sides() {
    let cluster = Cluster::up();
    let report = tempfile::tempdir().unwrap();
    let kubeconfig = cluster.kubeconfig();
    let mut arguments = vec!["gate", "--cluster", "existing", "--kubeconfig", kubeconfig.to_str().unwrap()];
    arguments.extend([
        "--controller",
        "traefik",
        "--from",
        "3.7.9",
        "--to",
        "3.7.15",
        "--recipe",
        "ingress-middleware",
    ]);
    arguments.extend([
        "--dialect",
        "modern",
        "--case",
        "routing/host",
        "--report-dir",
        report.path().to_str().unwrap(),
    ]);
    let outlook = cluster.meshgate(&[&arguments[..], &["--dry-run"]].concat());
    assert_eq!(outlook.status.code(), Some(0), "{}", text(&outlook));
    let said = text(&outlook);
    for side in ["traefik 3.7.9:\nOn the cluster of context \"meshgate\"", "traefik 3.7.15:\nOn the cluster of context"]
    {
        assert!(said.contains(side), "{side} in {said}");
    }
    assert_eq!(said.matches("Nothing is in the way, and nothing was written.").count(), 2, "{said}");
    assert_eq!(std::fs::read_dir(report.path()).unwrap().count(), 0, "nothing ran, so there is no report");
    assert!(!said.contains("1 cell, "), "{said}");
}

#[test]
fn a_cluster_on_this_machine_is_not_looked_for_behind_a_proxy() {
    let cluster = Cluster::up();
    let kubeconfig = cluster.kubeconfig();
    let mut arguments = vec!["run", "--cluster", "existing", "--kubeconfig", kubeconfig.to_str().unwrap(), "--dry-run"];
    arguments.extend(["--controllers", "traefik", "--recipe", "ingress-middleware", "--case", "routing/host"]);
    let outlook = cluster.command(&arguments).env("HTTPS_PROXY", "http://127.0.0.1:1").output().unwrap();
    assert_eq!(outlook.status.code(), Some(0), "{}", text(&outlook));
}

#[test]
fn several_kubeconfigs_are_one_as_for_kubectl() {
    let cluster = Cluster::up();
    let temporary = tempfile::tempdir().unwrap();
    let report = tempfile::tempdir().unwrap();
    // Of another cluster, which comes first and names the current context; in between one that is not there.
    let other = cluster.state.path().join("other");
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "other",
        "clusters": [{"name": "other", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "other", "user": {"token": "a"}}],
        "contexts": [{"name": "other", "context": {"cluster": "other", "user": "other"}}],
    });
    std::fs::write(&other, config.to_string()).unwrap();
    let files = std::env::join_paths([other.clone(), other.with_extension("absent"), cluster.kubeconfig()]).unwrap();
    let run = |further: &[&str]| {
        let mut arguments = vec!["run", "--cluster", "existing", "--controllers", "traefik"];
        arguments.extend(["--recipe", "ingress-middleware", "--dialect", "modern", "--case", "routing/host"]);
        arguments.extend(["--report-dir", report.path().to_str().unwrap()]);
        arguments.extend(further);
        let mut command = cluster.command(&arguments);
        command.env("KUBECONFIG", &files).env("TMPDIR", temporary.path()).output().unwrap()
    };
    let output = run(&["--context", "meshgate"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(verdicts(report.path()), [("routing/host".to_owned(), "pass".to_owned())]);
    let left: Vec<_> = std::fs::read_dir(temporary.path()).unwrap().collect();
    assert!(left.is_empty(), "credentials: {left:?}");
    let unknown = run(&["--context", "nowhere"]);
    assert!(text(&unknown).contains("no context \"nowhere\"; it has: other, meshgate"), "{}", text(&unknown));
}

#[test]
fn a_dry_run_tells_of_all_that_keeps_a_run_from_beginning() {
    use k8s_openapi::api::core::v1::Namespace;

    let cluster = Cluster::up();
    let client = cluster.client();
    let report = tempfile::tempdir().unwrap();
    let onlooker = cluster.onlookers_kubeconfig();
    let mut arguments = vec!["run", "--cluster", "existing", "--kubeconfig", onlooker.to_str().unwrap()];
    arguments.extend(["--controllers", "traefik", "--recipe", "ingress-middleware", "--dry-run"]);
    let outlook = cluster.meshgate(&arguments);
    assert_eq!(outlook.status.code(), Some(2), "{}", text(&outlook));
    assert!(text(&outlook).contains("may not create namespaces, delete namespaces, "), "{}", text(&outlook));

    // Who may not even look is told so in the API server's words.
    let bindings: kube::Api<k8s_openapi::api::rbac::v1::ClusterRoleBinding> = kube::Api::all(client.clone());
    runtime().block_on(bindings.delete("onlooker", &Default::default())).unwrap();
    let blind = crate::bench::eventually("the rights are gone", || {
        let outlook = cluster.meshgate(&arguments);
        text(&outlook).contains(" is forbidden: ").then_some(outlook)
    });
    assert!(!text(&blind).contains("Status {") && !text(&blind).contains("ApiError"), "{}", text(&blind));

    let namespaces: kube::Api<Namespace> = kube::Api::all(client.clone());
    let theirs: Namespace = serde_json::from_value(serde_json::json!({"metadata": {"name": "meshgate"}})).unwrap();
    runtime().block_on(namespaces.create(&Default::default(), &theirs)).unwrap();
    let foreign = dry_run_of(&cluster, report.path());
    assert_eq!(foreign.status.code(), Some(2), "{}", text(&foreign));
    let said =
        "What else keeps a run from it:\n  there is a Namespace meshgate on the cluster that Meshgate did not make";
    assert!(text(&foreign).contains(said), "{}", text(&foreign));
    runtime().block_on(namespaces.delete("meshgate", &Default::default())).unwrap();

    let claim = cluster.claimed_by_somebody();
    let held = dry_run_of(&cluster, report.path());
    assert_eq!(held.status.code(), Some(2), "{}", text(&held));
    assert!(text(&held).contains("is in use by another run (somebody)"), "{}", text(&held));
    // A pod that asks for a mesh's proxy is tried in it, and that has an init container with rights.
    let labels = runtime().block_on(namespaces.get("meshgate")).unwrap().metadata.labels.unwrap();
    assert_eq!(labels.get("pod-security.kubernetes.io/enforce").map(String::as_str), Some("privileged"));
    runtime().block_on(claim.release(&|_| {})).unwrap();

    a_definition_and_an_ingress_of_others_are_in_the_way(&cluster, report.path());
    let free = dry_run_of(&cluster, report.path());
    assert_eq!(free.status.code(), Some(0), "the control: {}", text(&free));
}

fn a_definition_and_an_ingress_of_others_are_in_the_way(cluster: &Cluster, report: &Path) {
    use k8s_openapi::api::networking::v1::Ingress;
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

    let client = cluster.client();
    let definition: CustomResourceDefinition = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "middlewares.traefik.io"},
        "spec": {
            "group": "traefik.io", "scope": "Namespaced", "names": {"kind": "Middleware", "plural": "middlewares"},
            "versions": [{"name": "v0", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    }))
    .unwrap();
    let ingress: Ingress = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "theirs", "annotations": {"kubernetes.io/ingress.class": "nginx"}},
        "spec": {"defaultBackend": {"service": {"name": "kubernetes", "port": {"number": 443}}}},
    }))
    .unwrap();
    let definitions: kube::Api<CustomResourceDefinition> = kube::Api::all(client.clone());
    let ingresses: kube::Api<Ingress> = kube::Api::namespaced(client, "default");
    runtime().block_on(definitions.create(&Default::default(), &definition)).unwrap();
    runtime().block_on(ingresses.create(&Default::default(), &ingress)).unwrap();
    let blocked = dry_run_of(cluster, report);
    assert_eq!(blocked.status.code(), Some(2), "{}", text(&blocked));
    let part = "middlewares.traefik.io, which Meshgate did not make and so would use as it is: expected it to serve v1alpha1, found that it serves v0;";
    assert!(text(&blocked).contains(part), "{part} in {}", text(&blocked));
    assert!(!text(&blocked).contains("default/theirs"), "it reads by label: {}", text(&blocked));
    let by_class = cluster.run_recipe("ingress-nginx", "pod-ip", report, &["--case", "routing/host", "--dry-run"]);
    assert_eq!(by_class.status.code(), Some(2), "{}", text(&by_class));
    let said = "ingress-nginx would serve, or write a status into; found Ingress default/theirs (kubernetes.io/ingress.class: nginx);";
    assert!(text(&by_class).contains(said), "{}", text(&by_class));
    runtime().block_on(definitions.delete("middlewares.traefik.io", &Default::default())).unwrap();
    runtime().block_on(ingresses.delete("theirs", &Default::default())).unwrap();
}

fn dry_run_of(cluster: &Cluster, report: &Path) -> Output {
    cluster.run(report, &["--case", "routing/host", "--dry-run"])
}

#[test]
fn what_somebody_else_made_is_left_alone() {
    use k8s_openapi::api::coordination::v1::Lease;
    use k8s_openapi::api::core::v1::Namespace;

    let cluster = Cluster::up();
    let client = cluster.client();
    let report = tempfile::tempdir().unwrap();
    let namespaces: kube::Api<Namespace> = kube::Api::all(client.clone());
    let theirs = |name: &str| Namespace {
        metadata: kube::core::ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        ..Namespace::default()
    };
    let create = |name: &str| runtime().block_on(namespaces.create(&Default::default(), &theirs(name))).unwrap();

    // A real Linkerd, say, and another Traefik.
    create("linkerd");
    create("traefik");
    let outlook = cluster.run(report.path(), &["--dry-run"]);
    assert_eq!(outlook.status.code(), Some(2), "{}", text(&outlook));
    let said = "left alone:\n  Namespace linkerd\n  Namespace traefik\n";
    assert!(text(&outlook).contains(said), "{}", text(&outlook));
    let recipes = "ingress-middleware,ingress-pod-ip";
    let output = cluster.run_recipe("traefik", recipes, report.path(), &["--case", "routing/host"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert_eq!(text(&output).matches(said).count(), 1, "once, and not by each cell: {}", text(&output));
    assert!(text(&output).contains("the run does not begin"), "{}", text(&output));
    // What a run does first on a cluster, and last here.
    assert!(!text(&output).contains("bringing up the pods that requests start from"), "{}", text(&output));
    assert!(!report.path().join("report.json").exists(), "nothing was judged");
    assert_eq!(names::<Namespace>(&client, true), Vec::<String>::new(), "nothing was made");
    for name in ["linkerd", "traefik"] {
        assert!(names::<Namespace>(&client, false).contains(&name.to_owned()));
        runtime().block_on(namespaces.delete(name, &Default::default())).unwrap();
        crate::bench::eventually("what is deleted is gone", || {
            (!names::<Namespace>(&client, false).contains(&name.to_owned())).then_some(())
        });
    }

    // Another run that holds the cluster.
    let claim = cluster.claimed_by_somebody();
    let leases: kube::Api<Lease> = kube::Api::namespaced(client.clone(), "meshgate");
    let output = cluster.run(report.path(), &["--case", "routing/host"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("in use by another run (somebody)"), "{}", text(&output));

    // One that was killed: nobody renews its Lease, whatever time that tells.
    drop(claim);
    let stale = serde_json::json!({"spec": {"renewTime": "2120-01-01T00:00:00.000000Z", "leaseDurationSeconds": 2}});
    let stale = kube::api::Patch::Merge(stale);
    runtime().block_on(leases.patch("run", &Default::default(), &stale)).unwrap();
    let output = cluster.run(report.path(), &["--case", "routing/host"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(names::<Namespace>(&client, true), Vec::<String>::new(), "what the killed run left is gone too");
}

#[test]
fn in_a_namespace_of_others_only_what_was_put_there_goes() {
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::{ConfigMap, Service};
    use k8s_openapi::api::networking::v1::Ingress;

    let cluster = Cluster::up();
    let client = cluster.client();
    let theirs: ConfigMap = serde_json::from_value(serde_json::json!({"metadata": {"name": "theirs"}})).unwrap();
    let default: kube::Api<ConfigMap> = kube::Api::namespaced(client.clone(), "default");
    runtime().block_on(default.create(&Default::default(), &theirs)).unwrap();
    // It names no class, so it is not for whoever comes along.
    let classless: Ingress = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "classless"},
        "spec": {"rules": [{"host": "theirs.test", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "kubernetes", "port": {"number": 443}}}},
        ]}}]},
    }))
    .unwrap();
    let ingresses: kube::Api<Ingress> = kube::Api::namespaced(client.clone(), "default");
    runtime().block_on(ingresses.create(&Default::default(), &classless)).unwrap();
    let report = tempfile::tempdir().unwrap();
    // The page puts kuard into the namespace `default`.
    let run = |further: &[&str]| {
        let further = [&["--native-images", "--case", "routing/kuard"], further].concat();
        cluster.run_recipe("contour", "httpproxy", report.path(), &further)
    };
    let output = run(&["--keep"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let deployments = || names::<Deployment>(&client, false);
    assert!(deployments().contains(&"kuard".to_owned()), "the control: {:?}", deployments());
    assert!(names::<Service>(&client, true).contains(&"kuard".to_owned()));
    let classless = runtime().block_on(ingresses.get("classless")).unwrap();
    let taken = classless.status.and_then(|status| status.load_balancer).and_then(|balancer| balancer.ingress);
    assert_eq!(taken, None, "an Ingress of others that names no class is not served");

    // The next run sweeps it away before it begins, and what it made itself at its end.
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains(" passed"), "{}", text(&output));
    assert!(!deployments().contains(&"kuard".to_owned()), "{:?}", deployments());
    assert!(!names::<Service>(&client, false).contains(&"kuard".to_owned()));
    runtime().block_on(default.get("theirs")).expect("what others made there stays");
}

#[test]
fn whoever_does_not_wait_until_a_cluster_is_given_back_interrupts_again() {
    use std::io::BufRead as _;

    use k8s_openapi::api::core::v1::Namespace;
    use nix::sys::signal::{Signal, kill};

    let cluster = Cluster::up();
    let client = cluster.client();
    let report = tempfile::tempdir().unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let empty = cluster.state.path().join("empty");
    std::fs::write(&empty, r#"{"apiVersion": "v1", "kind": "Config"}"#).unwrap();
    let mut command = cluster.command(&["run", "--cluster", "existing"]);
    command.env("KUBECONFIG", std::env::join_paths([cluster.kubeconfig(), empty]).unwrap());
    command.args(["--controllers", "traefik", "--recipe", "ingress-middleware", "--dialect", "modern"]);
    command.arg("--report-dir").arg(report.path()).stderr(std::process::Stdio::piped());
    command.env("TMPDIR", temporary.path());
    let left = || std::fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let mut run = command.spawn().unwrap();
    let id = nix::unistd::Pid::from_raw(i32::try_from(run.id()).unwrap());
    crate::bench::eventually("a cell is being set up", || {
        names::<Namespace>(&client, true).contains(&"traefik".to_owned()).then_some(())
    });
    assert!(!left().is_empty(), "the control: there is a file with both kubeconfigs in one");
    let mut said = std::io::BufReader::new(run.stderr.take().unwrap()).lines().map_while(Result::ok);
    kill(id, Signal::SIGINT).unwrap();
    assert!(said.any(|line| line.contains("giving the cluster back; again to leave it as it is")));
    kill(id, Signal::SIGINT).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(2));
    assert!(names::<Namespace>(&client, true).contains(&"meshgate".to_owned()), "the next run sweeps it away");
    assert!(left().is_empty(), "credentials: {:?}", left());
}

#[test]
fn kubectl_and_its_kubeconfig_do_not_outlive_an_interrupted_run() {
    use crate::endings::{Hanging, end_while_hanging};

    let cluster = Cluster::up();
    let bench = crate::bench::Bench::new();
    let hanging = Hanging::named("kubectl", &bench, "nothing");
    let temporary = bench.join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let mut command = cluster.command(&["run", "--cluster", "existing", "--case", "routing/describe-pod"]);
    command.args(["--controllers", "traefik", "--recipe", "ingress-middleware", "--dialect", "modern"]);
    command.arg("--kubeconfig").arg(cluster.kubeconfig()).arg("--report-dir").arg(bench.join("report"));
    command.env("MESHGATE_KUBECTL_BIN", hanging.folder.join("kubectl"));
    end_while_hanging(command, &hanging, &temporary).expect(2, &["the run was interrupted"]);
}

#[test]
fn a_cluster_that_cannot_be_had_is_told_of_before_anything_begins() {
    let cluster = Cluster::up();
    let report = tempfile::tempdir().unwrap();
    let no_context = cluster.run(report.path(), &["--context", "nowhere"]);
    assert_eq!(no_context.status.code(), Some(2));
    assert!(text(&no_context).contains("no context \"nowhere\"; it has: meshgate"), "{}", text(&no_context));
    // Twice: what a claim began that came to nothing does not keep the next one out.
    for _ in 0..2 {
        let no_image = cluster.run(report.path(), &["--image", "registry.invalid/meshgate:1"]);
        assert_eq!(no_image.status.code(), Some(2));
        assert!(text(&no_image).contains("have the image registry.invalid/meshgate:1: "), "{}", text(&no_image));
        assert_eq!(names::<k8s_openapi::api::core::v1::Namespace>(&cluster.client(), true), Vec::<String>::new());
    }
    let elsewhere = cluster.meshgate(&["run", "--context", "a"]);
    assert_eq!(elsewhere.status.code(), Some(2));
    assert!(
        text(&elsewhere).contains("--context goes with --cluster existing, not with --cluster embedded"),
        "{}",
        text(&elsewhere)
    );
}

#[test]
fn the_name_of_a_load_balancer_is_looked_up_inside() {
    let cluster = Cluster::up();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let named = |name: &str| -> k8s_openapi::api::core::v1::Service {
        let status = serde_json::json!({"loadBalancer": {"ingress": [{"hostname": name}]}});
        serde_json::from_value(serde_json::json!({"spec": {"clusterIP": "10.96.0.9"}, "status": status})).unwrap()
    };
    runtime().block_on(async {
        let reach = Reach::existing(Some(&cluster.kubeconfig()), None, IMAGE, By::LoadBalancer).unwrap();
        let claim = Claim::take(reach.clone(), "a test", &CancellationToken::new(), &|_| {}).await.unwrap();
        let remote = Remote::open(reach, &|_| {}).await.unwrap();
        // A name that means nothing out here.
        let found = remote.entrance(&named("kubernetes.default.svc.cluster.local")).await;
        assert_eq!(found.map(|found| found.at(443).to_string()), Some("10.96.0.1:443".to_owned()));
        assert_eq!(remote.entrance(&named("not-yet.default.svc.cluster.local")).await, None);
        claim.release(&|_| {}).await.unwrap();
    });
}
