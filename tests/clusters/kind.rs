//! Clusters of kind.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use meshgate_clusters::kind::{KindCluster, KindError, Options, Port, node_image, preflight};
use meshgate_clusters::provision::Provisioned;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::bench::{Bench, COMMANDS, eventually, holds};

const A: &str = "meshgate-a";
const B: &str = "meshgate-b";

pub fn options(bench: &Bench, name: &str, faults: &str) -> Options {
    let options = Options::new(name).unwrap();
    Options { environment: bench.environment(faults), wait: Duration::from_secs(60), ..options }
}

pub async fn up(bench: &Bench, options: &Options) -> Result<KindCluster, KindError> {
    KindCluster::up(options, &bench.leases(), &CancellationToken::new(), &|text| bench.note(text)).await
}

pub async fn down(bench: &Bench, cluster: &mut KindCluster) -> Result<(), KindError> {
    cluster.down(&|text| bench.note(text)).await
}

pub async fn client(provisioned: &Provisioned) -> kube::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = Kubeconfig::read_from(&provisioned.kubeconfig).unwrap();
    let context = KubeConfigOptions { context: Some(provisioned.context.clone()), ..Default::default() };
    kube::Client::try_from(kube::Config::from_custom_kubeconfig(config, &context).await.unwrap()).unwrap()
}

pub async fn core_dns(provisioned: &Provisioned) -> i32 {
    let api: Api<Deployment> = Api::namespaced(client(provisioned).await, "kube-system");
    let found = api.get_opt("coredns").await.unwrap();
    found.and_then(|found| found.status).and_then(|status| status.available_replicas).unwrap_or_default()
}

/// An archive of images as `docker save` writes it, of nothing in particular.
pub fn archive(dir: &Path, names: &[&str]) -> PathBuf {
    let content = dir.join("image");
    std::fs::create_dir_all(&content).unwrap();
    std::fs::write(content.join("config.json"), "{}").unwrap();
    std::fs::write(content.join("layer.tar"), "").unwrap();
    let manifest = json!([{"Config": "config.json", "RepoTags": names, "Layers": ["layer.tar"]}]);
    std::fs::write(content.join("manifest.json"), manifest.to_string()).unwrap();
    let path = dir.join("images.tar");
    let status = Command::new("tar")
        .arg("-cf")
        .arg(&path)
        .arg("-C")
        .arg(&content)
        .args(["manifest.json", "config.json", "layer.tar"])
        .status();
    assert!(status.unwrap().success());
    path
}

fn alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

#[tokio::test]
async fn a_cluster_comes_up_takes_images_and_goes() {
    let bench = Bench::new();
    let mut options = options(&bench, A, "");
    // Free now, and nobody here asks for one that is not.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    options.ports = vec![Port { node: 30080, host: Some(free.port()) }];
    let mut cluster = up(&bench, &options).await.unwrap();
    let provisioned = cluster.provisioned().clone();
    assert_eq!(provisioned.context, "kind-meshgate-a");
    assert!(provisioned.kubeconfig.starts_with(bench.join("leases/meshgate-a")), "{provisioned:?}");
    assert_eq!(core_dns(&provisioned).await, 1);
    let remembered = bench.remembered(A);
    assert_eq!(remembered["image"], options.node_image.as_str());
    holds(&options.node_image, &["@sha256:"]);
    assert_eq!(cluster.address(30080).await.unwrap(), free.to_string());
    let error = cluster.address(30043).await.unwrap_err().to_string();
    holds(&error, &["port 30043 of the cluster \"meshgate-a\"", "No public port"]);

    cluster
        .load(&archive(&bench.join(""), &["meshgate.dev/meshgate:dev", "x:1"]), &|text| bench.note(text))
        .await
        .unwrap();
    assert_eq!(bench.remembered(A)["loaded"], json!(["meshgate.dev/meshgate:dev", "x:1"]));

    down(&bench, &mut cluster).await.unwrap();
    assert!(bench.clusters().is_empty());
    assert!(!bench.join("leases/meshgate-a").exists(), "kubeconfig, record and all");
    let calls = bench.calls("kind").len();
    down(&bench, &mut cluster).await.unwrap();
    drop(cluster);
    assert_eq!(bench.calls("kind").len(), calls, "once is enough");
    for call in bench.calls("kind") {
        assert_eq!(call["environment"]["KUBECONFIG"], json!(null), "{call}");
    }
}

#[tokio::test]
async fn a_wait_that_expired_is_not_believed() {
    let bench = Bench::new();
    let mut cluster = up(&bench, &options(&bench, A, "kind-create:late-ready")).await.unwrap();
    assert_eq!(core_dns(cluster.provisioned()).await, 1, "not before it was there");
    down(&bench, &mut cluster).await.unwrap();
}

#[tokio::test]
async fn a_cluster_that_never_is_ready_leaves_logs_and_nothing_else() {
    let bench = Bench::new();
    let mut options = options(&bench, A, "kind-create:never-ready");
    options.wait = Duration::from_secs(2);
    options.logs = Some(bench.join("logs"));
    let error = up(&bench, &options).await.err().unwrap().to_string();
    holds(&error, &["\"meshgate-a\" is not ready after 2 s; it lacks: CoreDNS (0 Deployments", "the nodes' logs: "]);
    assert!(bench.join("logs/meshgate-a-control-plane/kubelet.log").exists());
    assert!(bench.clusters().is_empty() && !bench.join("leases/meshgate-a").exists());
}

#[tokio::test]
async fn a_cluster_that_is_not_created_leaves_logs_and_nothing_else() {
    let bench = Bench::new();
    let mut options = options(&bench, A, "kind-create:fails");
    options.logs = Some(bench.join("logs"));
    let error = up(&bench, &options).await.err().unwrap().to_string();
    let said = [
        "kind did not create the cluster \"meshgate-a\": `kind create cluster --name meshgate-a --image kindest/node:",
    ];
    holds(&error, &said);
    holds(&error, &["(exit status: 1); it said:", "failed to init node with kubeadm", "the nodes' logs: "]);
    assert!(bench.join("logs/meshgate-a-control-plane/kubelet.log").exists());
    assert!(bench.clusters().is_empty() && !bench.join("leases/meshgate-a").exists());
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_named() {
    let bench = Bench::new();
    let error = up(&bench, &options(&bench, A, "kind-create:no-image")).await.err().unwrap().to_string();
    holds(&error, &["failed to pull image \"kindest/node:v", "@sha256:"]);
}

#[tokio::test]
async fn locks_on_the_kubeconfig_are_no_trouble() {
    let bench = Bench::new();
    let mut cluster = up(&bench, &options(&bench, A, "kind-create:busy-lock,kind-delete:busy-lock")).await.unwrap();
    down(&bench, &mut cluster).await.unwrap();
    holds(&bench.said(), &["kind says that deleting meshgate-a failed, but the cluster is gone"]);
    assert!(bench.clusters().is_empty() && !bench.join("leases/meshgate-a").exists());
}

#[tokio::test]
async fn a_lock_that_a_killed_kind_left_is_removed() {
    let bench = Bench::new();
    std::fs::create_dir_all(bench.join("leases/meshgate-a")).unwrap();
    std::fs::write(bench.join("leases/meshgate-a/kubeconfig.lock"), "").unwrap();
    let mut cluster = up(&bench, &options(&bench, A, "")).await.unwrap();
    std::fs::write(bench.join("leases/meshgate-a/kubeconfig.lock"), "").unwrap();
    down(&bench, &mut cluster).await.unwrap();
    assert!(!bench.said().contains("failed"), "{}", bench.said());
}

#[tokio::test]
async fn what_cannot_be_deleted_is_told_and_left_for_the_next_run() {
    let bench = Bench::new();
    let mut cluster = up(&bench, &options(&bench, A, "kind-delete:fails")).await.unwrap();
    let error = down(&bench, &mut cluster).await.unwrap_err().to_string();
    holds(&error, &["\"meshgate-a\" is still there; delete it: kind delete cluster --name meshgate-a", "docker rm -f"]);
    drop(cluster);
    assert_eq!(bench.clusters(), [A]);

    let mut other = up(&bench, &options(&bench, B, "")).await.unwrap();
    holds(&bench.said(), &["deleting the kind cluster meshgate-a, left by process"]);
    assert_eq!(bench.clusters(), [B]);
    down(&bench, &mut other).await.unwrap();
}

#[tokio::test]
async fn two_runs_do_not_sweep_each_other() {
    let bench = Bench::new();
    let (a, b) = (options(&bench, A, ""), options(&bench, B, ""));
    let (a, b) = tokio::join!(up(&bench, &a), up(&bench, &b));
    let (mut a, mut b) = (a.unwrap(), b.unwrap());
    assert_eq!(bench.clusters(), [A, B]);
    let error = up(&bench, &options(&bench, A, "")).await.err().unwrap().to_string();
    holds(&error, &["the cluster \"meshgate-a\" is in use by process"]);
    assert_eq!(bench.clusters(), [A, B]);
    down(&bench, &mut a).await.unwrap();
    down(&bench, &mut b).await.unwrap();
}

#[tokio::test]
async fn a_cluster_may_be_kept_and_used_again() {
    let bench = Bench::new();
    let mut kept = options(&bench, A, "");
    kept.keep = Some(Duration::from_secs(3600));
    let mut cluster = up(&bench, &kept).await.unwrap();
    down(&bench, &mut cluster).await.unwrap();
    drop(cluster);
    holds(
        &bench.said(),
        &["the cluster meshgate-a is kept; its kubeconfig: ", "kind delete cluster --name meshgate-a"],
    );

    let error = up(&bench, &options(&bench, A, "")).await.err().unwrap().to_string();
    holds(&error, &["there is a kind cluster \"meshgate-a\" already; use it again"]);
    let mut again = options(&bench, A, "");
    again.reuse = true;
    let mut cluster = up(&bench, &again).await.unwrap();
    assert_eq!(core_dns(cluster.provisioned()).await, 1);
    down(&bench, &mut cluster).await.unwrap();
    drop(cluster);
    assert_eq!(bench.clusters(), [A], "who uses a cluster again does not own it");
    // Another version of Kubernetes than was asked for is told, and the cluster left as it is.
    again.kubernetes = Some("1.35".to_owned());
    let error = up(&bench, &again).await.err().unwrap().to_string();
    holds(&error, &["\"meshgate-a\" runs Kubernetes v1.37.1, and 1.35 was asked for; leave --kubernetes out"]);
    assert_eq!(bench.clusters(), [A]);
    again.kubernetes = Some("1.37".to_owned());
    down(&bench, &mut up(&bench, &again).await.unwrap()).await.unwrap();
    let creations = bench.calls("kind").iter().filter(|call| call["arguments"][0] == "create").count();
    assert_eq!(creations, 1);
}

#[tokio::test]
async fn a_kept_cluster_goes_when_its_time_is_over() {
    let bench = Bench::new();
    let mut kept = options(&bench, A, "");
    kept.keep = Some(Duration::ZERO);
    drop(up(&bench, &kept).await.unwrap());
    assert_eq!(bench.clusters(), [A], "the control");
    let mut other = up(&bench, &options(&bench, B, "")).await.unwrap();
    assert_eq!(bench.clusters(), [B]);
    down(&bench, &mut other).await.unwrap();
}

#[tokio::test]
async fn images_are_loaded_again_a_few_times() {
    let bench = Bench::new();
    let archive = archive(&bench.join(""), &["x:1"]);
    let mut cluster = up(&bench, &options(&bench, A, "kind-load:fails-twice")).await.unwrap();
    cluster.load(&archive, &|text| bench.note(text)).await.unwrap();
    holds(&bench.said(), &["try 1 of 3: `kind load image-archive", "try 2 of 3: ", "connection refused"]);
    assert_eq!(bench.remembered(A)["loaded"], json!(["x:1"]));
    down(&bench, &mut cluster).await.unwrap();
}

#[tokio::test]
async fn images_that_no_node_takes_are_told_with_what_was_said_last() {
    let bench = Bench::new();
    let mut cluster = up(&bench, &options(&bench, A, "")).await.unwrap();
    let archive = bench.join("no-archive.tar");
    std::fs::write(&archive, "no archive").unwrap();
    let error = cluster.load(&archive, &|text| bench.note(text)).await.unwrap_err().to_string();
    holds(
        &error,
        &["kind did not load ", "no-archive.tar into the cluster \"meshgate-a\", 3 times", "unrecognized image format"],
    );
    down(&bench, &mut cluster).await.unwrap();
}

#[tokio::test]
async fn a_run_that_is_cancelled_takes_a_hanging_kind_and_its_children_with_it() {
    let bench = Bench::new();
    let cancel = CancellationToken::new();
    let (options, leases) = (options(&bench, A, "kind-create:hangs"), bench.leases());
    let note = |text: &str| bench.note(text);
    let making = KindCluster::up(&options, &leases, &cancel, &note);
    let ending = async {
        let pid = eventually("kind hangs", || {
            std::fs::read_to_string(bench.state().join("hung-child")).ok().filter(|pid| !pid.is_empty())
        });
        let pid = pid.await;
        assert!(alive(&pid), "the control");
        cancel.cancel();
        pid
    };
    let (result, pid) = tokio::join!(making, ending);
    assert!(matches!(result.err().unwrap(), KindError::Cancelled { .. }));
    eventually("the grandchild is gone", || (!alive(&pid)).then_some(())).await;
    assert!(bench.clusters().is_empty() && !bench.join("leases/meshgate-a").exists());
}

#[tokio::test]
async fn a_cluster_that_is_dropped_is_deleted() {
    let bench = Bench::new();
    let options = options(&bench, A, "");
    let cluster = up(&bench, &options).await.unwrap();
    assert_eq!(bench.clusters(), [A]);
    let dropping = std::panic::AssertUnwindSafe(move || {
        let _cluster = cluster;
        panic!("as a case might");
    });
    std::panic::catch_unwind(dropping).unwrap_err();
    assert!(bench.clusters().is_empty() && !bench.join("leases/meshgate-a").exists());
}

#[tokio::test]
async fn without_a_container_engine_the_error_is_the_engines() {
    let bench = Bench::new();
    let error = up(&bench, &options(&bench, A, "docker:down")).await.err().unwrap().to_string();
    holds(&error, &["`kind get clusters` failed", "Is the docker daemon running?"]);
    assert!(!bench.join("leases/meshgate-a").exists(), "nothing was made, so there is nothing to sweep");
}

#[tokio::test]
async fn without_kind_the_error_says_how_to_get_it() {
    let bench = Bench::new();
    let mut options = options(&bench, A, "");
    options.environment = vec![("PATH".into(), bench.join("").into())];
    let error = up(&bench, &options).await.err().unwrap().to_string();
    holds(&error, &["kind is not there, and `kind get clusters` needs it; install kind (https://"]);
}

#[tokio::test]
async fn the_node_image_suits_the_kind_that_is_there() {
    let bench = Bench::new();
    let image = async |version: Option<&str>, faults: &str| node_image(version, &bench.environment(faults)).await;
    assert_eq!(image(None, "").await.unwrap().kubernetes, "1.37.0");
    assert_eq!(image(None, "kind:0.31").await.unwrap().kubernetes, "1.35.0");
    assert_eq!(image(Some("1.34"), "kind:0.31").await.unwrap().kubernetes, "1.34.3");
    let error = image(Some("1.36"), "kind:0.31").await.unwrap_err().to_string();
    holds(&error, &["kind 0.31.0 is older than the images of Kubernetes 1.36", "install a newer kind"]);
}

/// What the stand-ins would not refuse, a wrong call could pass as a right one.
#[test]
fn the_stand_ins_take_no_flag_that_the_real_commands_do_not_take_there() {
    let bench = Bench::new();
    let refused = |command: &str, line: &str, answer: &str| {
        let mut command = Command::new(format!("{COMMANDS}/{command}"));
        let output = command.args(line.split(' ')).envs(bench.environment("")).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{line}: {output:?}");
        holds(&String::from_utf8(output.stderr).unwrap(), &[answer]);
    };
    refused("kind", "create cluster --name meshgate-a --nodes 2", "ERROR: unknown flag: --nodes");
    refused("kind", "delete cluster --name meshgate-a --retain", "ERROR: unknown flag: --retain");
    refused("kind", "load image-archive a.tar --kubeconfig k", "ERROR: unknown flag: --kubeconfig");
    refused("kind", "load image-archive --name a", "ERROR: accepts 1 arg(s), received 0");
    refused("kind", "get clusters --kubeconfig k", "ERROR: unknown flag: --kubeconfig");
    refused("linkerd", "install --wait 1m --kubeconfig k", "Error: unknown flag: --wait");
    refused("linkerd", "check --set a=b", "Error: unknown flag: --set");
    refused("linkerd", "smi install --crds", "Error: unknown flag: --crds");
    refused("linkerd", "smi install --kubeconfig k", "Error: Linkerd control-plane not found");
}

#[tokio::test]
async fn what_kind_needs_is_looked_at_before() {
    let bench = Bench::new();
    let found = async |faults: &str| {
        let checks = preflight(&bench.environment(faults)).await;
        let names: Vec<String> = checks.iter().map(|check| check.what.clone()).collect();
        assert_eq!(names, ["kind", "docker", "disk", "fs.inotify.max_user_watches", "fs.inotify.max_user_instances"]);
        checks
    };
    let checks = found("").await;
    assert_eq!(checks[0].found, Ok("kind v0.33.0 go1.26.0 linux/amd64".to_owned()));
    assert_eq!(checks[1].found, Ok("answers; it keeps its images in /var/lib/docker".to_owned()));
    let checks = found("kind:0.31").await;
    holds(checks[0].found.as_ref().unwrap(), &["kind v0.31.0", "it makes clusters of Kubernetes 1.35.0"]);
    let checks = found("docker:hangs").await;
    holds(checks[1].found.as_ref().unwrap_err(), &["`docker info --format", "did not end within 10", "a daemon that"]);
    let checks = found("kind:old,docker:down").await;
    holds(
        checks[0].found.as_ref().unwrap_err(),
        &["kind 0.9.0 is older than all known images", "kind 0.30.0 at least"],
    );
    holds(checks[1].found.as_ref().unwrap_err(), &["Is the docker daemon running?"]);
    holds(&checks[1].remedy, &["systemctl start docker"]);
    let checks = preflight(&[("PATH".into(), bench.join("").into())]).await;
    assert_eq!((&checks[0].found, &checks[1].found), (&Err("not on PATH".to_owned()), &Err("not on PATH".to_owned())));
}
