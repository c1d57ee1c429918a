//! `meshgate run` on a cluster that is made for it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use meshgate_clusters::provision::Provisioned;

use crate::bench::{Bench, holds, read_json};
use crate::kind::client;

const MESHGATE: &str = env!("CARGO_BIN_EXE_meshgate");

/// Some cases, which no test here is about.
const CASES: &str = "routing/host,routing/path,headers/outbound-port-closed";

fn run(bench: &Bench, faults: &str, cases: &str, further: &[&str]) -> Output {
    let mut command = Command::new(MESHGATE);
    command.args(["run", "--cluster", "kind", "--controllers", "traefik", "--recipe", "ingress-nativelb"]);
    command.args(["--case", cases]);
    command.arg("--report-dir").arg(bench.join("report")).args(further);
    command.envs(bench.environment(faults)).env("XDG_STATE_HOME", bench.join("home"));
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_run_makes_its_cluster_gives_it_the_images_judges_and_leaves_nothing() {
    let bench = Bench::new();
    let output = run(&bench, "kind-load:fails-twice", CASES, &["--native-images"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    holds(
        &text(&output),
        &["kind creates the cluster meshgate-", "packing docker.io/library/traefik:v", "try 2 of 3", " passed"],
    );
    assert!(bench.clusters().is_empty(), "{:?}", bench.clusters());
    // The archives that it was given hold both images.
    let loads = bench.calls("kind").into_iter().filter(|call| call["arguments"][0] == "load").count();
    assert_eq!(loads, 3);
    let report = std::fs::read_to_string(bench.join("report/report.json")).unwrap();
    holds(&report, &["\"cluster\": \"kind\"", "\"mesh\": \"bundled\"", "\"control_plane\": \"real\""]);
}

#[test]
fn a_run_whose_cluster_does_not_come_up_says_why_and_leaves_nothing() {
    let bench = Bench::new();
    let output = run(&bench, "kind-load:fails", CASES, &[]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    holds(&text(&output), &["kind did not load", "3 times"]);
    assert!(bench.clusters().is_empty(), "{:?}", bench.clusters());
}

#[test]
fn a_cluster_that_cannot_be_made_has_no_images_packed_for_it() {
    let bench = Bench::new();
    let before_images = |output: &Output, parts: &[&str]| {
        assert_eq!(output.status.code(), Some(2), "{}", text(output));
        holds(&text(output), parts);
        assert!(!text(output).contains("packing"), "{}", text(output));
    };
    let nonsense = run(&bench, "", CASES, &["--kubernetes", "banana"]);
    before_images(&nonsense, &["no node image of Kubernetes \"banana\" is known"]);
    before_images(&run(&bench, "docker:down", CASES, &[]), &["docker runs the nodes", "Is the docker daemon running?"]);
    let mut k3s = Command::new(MESHGATE);
    k3s.args(["run", "--cluster", "k3s", "--controllers", "traefik", "--case", "routing/host", "--report-dir"]);
    k3s.arg(bench.join("report")).env("XDG_STATE_HOME", bench.join("home")).env("DOCKER_HOST", "tcp://127.0.0.1:1");
    let output = k3s.output().unwrap();
    before_images(&output, &["no container engine answers", "Connection refused"]);
    // The cause before the advice, as if what is advised had been tried.
    let said = text(&output);
    assert!(said.find("Connection refused") < said.find("start Docker"), "{said}");
}

#[test]
fn a_person_reaches_the_controller_of_a_cluster_that_publishes_it() {
    let bench = Bench::new();
    let output = run(&bench, "", "routing/host", &["--native-images", "--publish", "--keep"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let said = text(&output);
    let (_, addresses) = said.split_once("its controller is at http://").expect(&said);
    let (http, rest) = addresses.split_once(" and https://").expect(&said);
    let https = rest.lines().next().unwrap();
    let get = |host: &str| {
        let mut stream = TcpStream::connect(http).unwrap();
        write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    holds(&get("b.routing-host.test"), &["200 OK", "echo-b"]);
    holds(&get("nobody.test"), &["404 Not Found"]);
    TcpStream::connect(https).unwrap();
    // Used again it stays, and each time nobody has to wait for it.
    for _ in 0..2 {
        let again = run(&bench, "", "routing/host", &["--native-images", "--publish", "--reuse"]);
        assert_eq!(again.status.code(), Some(0), "{}", text(&again));
        holds(&text(&again), &[&format!("its controller is at http://{http}"), " passed"]);
    }

    // Kept without, it cannot be used with it: kind publishes ports of a node when it makes it.
    let bench = Bench::new();
    let kept = run(&bench, "", "routing/host", &["--native-images", "--keep"]);
    assert_eq!(kept.status.code(), Some(0), "{}", text(&kept));
    let again = run(&bench, "", "routing/host", &["--native-images", "--reuse", "--publish"]);
    assert_eq!(again.status.code(), Some(2), "{}", text(&again));
    holds(
        &text(&again),
        &["--publish needs a cluster that was made with it", "port 30080 of the cluster \"meshgate-kept\""],
    );
}

const LINKERD: [&str; 3] = ["--native-images", "--mesh", "linkerd"];

#[tokio::test]
async fn in_linkerds_mesh_its_webhook_injects_the_pods_and_the_cases_come_out_as_promised() {
    let bench = Bench::new();
    let cases = "routing/,modes/,route_metrics/inbound,tls/mutual,tls/control-plane,policies/deny,traffic_split/half";
    // The second recipe's mode is ingress; each cell installs the mesh anew.
    let output = run(&bench, "", cases, &[&LINKERD[..], &["--recipe", "ingress-middleware", "--keep"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    holds(&text(&output), &["linkerd check warns: linkerd-version: cli is up-to-date", "passed", "0 not as promised"]);
    let report = read_json(&bench.join("report/report.json"));
    let cell = |mode: &str| report["cells"].as_array().unwrap().iter().find(|cell| cell["mode"] == mode).unwrap();
    let case = |mode: &str, id: &str| {
        let mut cases = cell(mode)["cases"].as_array().unwrap().iter();
        cases.find(|case| case["id"] == id).unwrap_or_else(|| panic!("no {id}")).clone()
    };
    assert_eq!((&cell("default")["mesh"], &cell("ingress")["mesh"]), (&"linkerd".into(), &"linkerd".into()));
    assert_eq!(case("default", "modes/balances-cluster-ip")["verdict"], "pass");
    assert_eq!(case("ingress", "modes/override-wins-over-host")["verdict"], "pass");
    // What its own proxy does not do is not asked of it.
    assert_eq!(case("ingress", "modes/header-ip")["reason"], "only in the mesh bundled");

    // It was the webhook: what the Deployments say is not what their pods have.
    let kubeconfig = bench.join("home/meshgate/clusters.d/meshgate-kept/kubeconfig");
    let client = client(&provisioned(&kubeconfig)).await;
    let has_proxy = |containers: &[k8s_openapi::api::core::v1::Container]| {
        containers.iter().any(|container| container.name == "linkerd-proxy")
    };
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "workbench");
    for deployment in deployments.list(&ListParams::default()).await.unwrap() {
        let pod = deployment.spec.template.spec.unwrap();
        assert!(!has_proxy(&pod.containers) && pod.init_containers.is_none(), "{:?}", deployment.metadata.name);
    }
    // What belongs to the mesh and runs in it came after its injector, and so has a proxy too: its checks ask for that.
    assert_eq!(case("ingress", "traffic_split/half")["verdict"], "pass");
    let extension: Api<Pod> = Api::namespaced(client.clone(), "linkerd-smi");
    let adaptors = extension.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(adaptors.len(), 1);
    assert!(has_proxy(&adaptors[0].spec.as_ref().unwrap().init_containers.clone().unwrap()));
    let pods: Api<Pod> = Api::namespaced(client, "workbench");
    let pods = pods.list(&ListParams::default().labels("app=echo-a")).await.unwrap().items;
    let pod = pods.into_iter().next().unwrap().spec.unwrap();
    assert!(has_proxy(&pod.init_containers.unwrap()), "a native sidecar");
    assert!(!has_proxy(&pod.containers));
}

fn provisioned(kubeconfig: &Path) -> Provisioned {
    let name = "meshgate-kept".to_owned();
    Provisioned { context: format!("kind-{name}"), name, kubeconfig: kubeconfig.to_owned() }
}

/// Of a run that did not come to its cases.
fn broken(output: &Output, parts: &[&str]) {
    assert_eq!(output.status.code(), Some(2), "{}", text(output));
    holds(&text(output), parts);
    assert!(
        !text(output).contains("not ready within the deadline"),
        "nothing was waited for in vain: {}",
        text(output)
    );
}

#[test]
fn a_mesh_without_an_injector_is_refused() {
    let bench = Bench::new();
    let output = run(&bench, "linkerd-install:no-injector", CASES, &LINKERD);
    broken(&output, &["expected a MutatingWebhookConfiguration for pods among its manifests, found none"]);
}

#[test]
fn an_injector_that_nobody_reaches_is_told_and_nothing_is_judged_without_it() {
    let bench = Bench::new();
    let output = run(&bench, "linkerd-install:unreachable-injector", CASES, &LINKERD);
    let said = [
        "the mesh does not inject: expected a new pod",
        "found for 20 s: it would come without",
        "has to have endpoints",
    ];
    broken(&output, &said);
    assert!(bench.clusters().is_empty(), "{:?}", bench.clusters());
}

#[test]
fn what_linkerds_checks_find_ends_the_run_in_their_words() {
    let bench = Bench::new();
    let output = run(&bench, "linkerd-check:fails", CASES, &LINKERD);
    broken(
        &output,
        &["Linkerd does not work on this cluster:", "control plane pods are ready: pod/linkerd-destination-"],
    );
    let calls = bench.calls("linkerd");
    assert!(!calls.iter().any(|call| call["arguments"][0] == "smi"), "no case has TrafficSplits: {calls:?}");
}

/// Of a run that is refused before anything is done.
fn refused(bench: &Bench, further: &[&str], parts: &[&str]) {
    let output = run(bench, "", CASES, further);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    holds(&text(&output), parts);
    assert_eq!(bench.calls("kind"), Vec::<serde_json::Value>::new());
}

#[test]
fn what_a_kind_cluster_does_not_have_is_told_before_one_is_made() {
    let bench = Bench::new();
    let balancer = ["--entrance", "load-balancer"];
    refused(&bench, &balancer, &["--entrance load-balancer: a kind cluster has none", "--entrance node-port"]);
}

#[test]
fn a_controller_whose_manifests_do_not_suit_its_official_image_is_not_judged_with_it() {
    let bench = Bench::new();
    let gce = ["--controllers", "gce"];
    refused(&bench, &gce, &["gce: its manifests do not suit its official image", "add --native-images"]);

    // Of all controllers those are left out, and that is said. There is no engine, so it ends there.
    let mut all = Command::new(MESHGATE);
    all.args([
        "run",
        "--cluster",
        "kind",
        "--mode",
        "outside,ingress",
        "--dialect",
        "modern",
        "--case",
        "routing/host",
    ]);
    all.arg("--report-dir").arg(bench.join("report")).env("XDG_STATE_HOME", bench.join("home"));
    let output = all.envs(bench.environment("docker:down")).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    let left_out = "left out, because their manifests do not suit their official images: gce, traefik-1x;";
    holds(&text(&output), &[left_out, "--native-images has them", "Is the docker daemon running?"]);
}

#[test]
fn the_nodes_run_what_the_kind_that_is_there_can_make() {
    let bench = Bench::new();
    let output = run(&bench, "kind:0.31,kind-create:no-image", CASES, &[]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    holds(&text(&output), &["failed to pull image \"kindest/node:v1.35.0@sha256:"]);
}

#[test]
fn a_gate_cannot_keep_two_clusters_of_one_name() {
    let bench = Bench::new();
    for cluster in ["kind", "k3s"] {
        let mut gate = Command::new(MESHGATE);
        gate.args([
            "gate",
            "--cluster",
            cluster,
            "--controller",
            "traefik",
            "--from",
            "3.7.9",
            "--to",
            "3.7.15",
            "--keep",
        ]);
        gate.envs(bench.environment("docker:down")).env("XDG_STATE_HOME", bench.join("home"));
        let output = gate.arg("--report-dir").arg(bench.join("report")).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        holds(&text(&output), &["--keep: expected a gate without it", "`meshgate run --keep`"]);
        assert_eq!(bench.calls("kind"), Vec::<serde_json::Value>::new());
    }
}
