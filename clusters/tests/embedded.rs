//! The embedded cluster driven by real clients: kubectl, kube-rs and a controller with informers.
//!
//! `harness = false`: the cluster lives in namespaces that have to be entered before any thread exists. The same program is the
//! test outside, the cluster inside, and the helper that starts containers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use meshgate_clusters::embedded::{Embedded, prepare};
use meshgate_clusters::{Cluster, Vantage};
use meshgate_fixtures::Fixtures;
use meshgate_images::Catalogue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("pod-exec") => meshgate_node::pod_exec_main(std::env::args_os().skip(2)),
        Some("inside") => inside(&arguments[2], &arguments[3]),
        _ if arguments.iter().any(|argument| argument == "--list") => ExitCode::SUCCESS,
        _ => outside(),
    }
}

fn outside() -> ExitCode {
    let fixtures = Fixtures::built_in().expect("fixtures");
    let controller = fixtures.controller("traefik").expect("Traefik, the real one");
    let image = format!("docker.io/library/{}:v{}", controller.name, controller.newest());
    let program = std::env::current_exe().expect("this program");
    let note = |text: &str| eprintln!("{text}");
    let prepared = prepare(program.clone(), &[image], &note).expect("the images");
    let kubectl = Catalogue::built_in(&program).kubectl(&note).expect("kubectl").path;
    let status = Command::new(program)
        .arg("inside")
        .arg(serde_json::to_string(&prepared).expect("JSON"))
        .arg(kubectl)
        .status()
        .expect("it runs");
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn inside(prepared: &str, kubectl: &str) -> ExitCode {
    meshgate_net::namespaces::enter().expect("namespaces");
    let prepared = serde_json::from_str(prepared).expect("what was prepared");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let started = Instant::now();
        let cluster = Embedded::start(prepared).await.expect("a cluster");
        eprintln!("started after {:?}", started.elapsed());
        tokio::time::timeout(Duration::from_secs(60), scenario(&cluster, Path::new(kubectl)))
            .await
            .expect("within a minute");
    });
    runtime.shutdown_background();
    ExitCode::SUCCESS
}

/// kubectl with the cluster's kubeconfig and a home of its own.
struct Kubectl {
    program: PathBuf,
    home: tempfile::TempDir,
}

impl Kubectl {
    fn new(program: &Path, kubeconfig: &str) -> Self {
        let home = tempfile::tempdir().expect("a home");
        std::fs::write(home.path().join("config"), kubeconfig).expect("a kubeconfig");
        Self { program: program.to_owned(), home }
    }

    /// Runs kubectl and returns its output; a failure shows what it said.
    async fn run(&self, arguments: &str, input: Option<&str>) -> String {
        let mut child = tokio::process::Command::new(&self.program)
            .args(arguments.split_whitespace())
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.home.path().join("config"))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("kubectl runs");
        let mut stdin = child.stdin.take().expect("stdin");
        stdin.write_all(input.unwrap_or_default().as_bytes()).await.expect("input");
        drop(stdin);
        let output = child.wait_with_output().await.expect("kubectl ends");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "kubectl {arguments}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }
}

async fn scenario(cluster: &Embedded, kubectl: &Path) {
    let kubectl = Kubectl::new(kubectl, &cluster.kubeconfig("https://10.96.0.1:443"));
    let accounts = kubectl.run("get serviceaccounts -n default -o name", None).await;
    assert_eq!(accounts.trim(), "serviceaccount/default");

    let fixtures = Fixtures::built_in().expect("fixtures");
    let controller = fixtures.controller("traefik").expect("Traefik, the real one");
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::default().self_signed(&key).expect("a certificate");
    let values = BTreeMap::from([
        ("certificate", BASE64.encode(certificate.pem())),
        ("key", BASE64.encode(key.serialize_pem())),
        ("version", controller.newest().to_string()),
        ("namespace", controller.namespace.clone()),
        ("routes", String::new()),
        ("workload", controller.workload.clone()),
    ]);
    // File by file: kubectl looks all kinds of one call up before it applies the definitions among them.
    for template in controller.install.iter().chain([&controller.instance]) {
        let objects = template.instantiate(&values).expect("manifests");
        let manifests: String = objects.iter().map(|object| format!("---\n{object}\n")).collect();
        kubectl.run("apply -f -", Some(&manifests)).await;
    }
    let started = Instant::now();
    let rollout =
        format!("rollout status deployment/{} -n {} --timeout=30s", controller.workload, controller.namespace);
    kubectl.run(&rollout, None).await;
    eprintln!("rolled out after {:?}", started.elapsed());

    let external = format!(
        "get service {} -n {} -o jsonpath={{.status.loadBalancer.ingress[0].ip}}",
        controller.workload, controller.namespace
    );
    let external = kubectl.run(&external, None).await;
    cluster.settled().await.expect("rules and names follow");
    let address = format!("{external}:80").parse().expect("an address");
    let mut stream = cluster.connect(Vantage::Outside(0), address).await.expect("the load balancer");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: nobody.test\r\nConnection: close\r\n\r\n").await.expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");

    let pods = kubectl.run(&format!("get pods -n {} -o wide", controller.namespace), None).await;
    assert!(pods.contains("Running") && pods.contains("1/1"), "{pods}");
    let logs = kubectl.run(&format!("logs deployment/{} -n {}", controller.workload, controller.namespace), None).await;
    assert!(!logs.is_empty());
    let described = kubectl.run(&format!("describe pods -n {}", controller.namespace), None).await;
    assert!(described.contains("Started"), "{described}");
}
