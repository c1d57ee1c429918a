//! Clusters of k3s, with a stand-in for the container engine's API.
//!
//! testcontainers finds the engine by the environment, which a test does not change for others: each runs itself once more, alone and with
//! its engine.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use meshgate_clusters::k3s::{K3sCluster, K3sError, Options};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::bench::{Bench, COMMANDS, eventually, holds, read_json};
use crate::kind::{archive, core_dns};

const A: &str = "meshgate-a";

/// The variable by which a test knows that it has its engine.
const ALONE: &str = "MESHGATE_TEST_ALONE";

struct Engine(Child);

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a test of this file again, with an engine and what goes wrong with it. `None` there: it is to go on.
fn alone(test: &str, faults: &str) -> Option<()> {
    if std::env::var_os(ALONE).is_some() {
        return None;
    }
    let bench = Bench::new();
    let socket = bench.join("engine.sock");
    let mut engine = Command::new(format!("{COMMANDS}/engine"));
    engine.arg(&socket).envs(bench.environment(faults)).stdout(Stdio::piped());
    let mut engine = Engine(engine.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(engine.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args([&format!("k3s::{test}"), "--exact", "--nocapture"]).env(ALONE, bench.join(""));
    let output = again.env("DOCKER_HOST", format!("unix://{}", socket.display())).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    Some(())
}

/// The bench of the test that runs this one.
fn bench() -> Bench {
    Bench::of(std::env::var_os(ALONE).unwrap().into())
}

fn options(name: &str) -> Options {
    Options { wait: Duration::from_secs(60), ..Options::new(name) }
}

async fn up(bench: &Bench, options: &Options) -> Result<K3sCluster, K3sError> {
    K3sCluster::up(options, &bench.leases(), &CancellationToken::new(), &|text| bench.note(text)).await
}

/// The containers that the engine has.
fn containers(bench: &Bench) -> Vec<String> {
    let path = bench.state().join("engine.json");
    if !path.exists() {
        return Vec::new();
    }
    read_json(&path).as_object().unwrap().keys().cloned().collect()
}

#[tokio::test]
async fn a_cluster_comes_up_with_its_images_and_goes() {
    if alone("a_cluster_comes_up_with_its_images_and_goes", "").is_some() {
        return;
    }
    let bench = bench();
    let mut options = options(A);
    options.archives = vec![archive(&bench.join(""), &["meshgate.dev/meshgate:dev"])];
    let mut cluster = up(&bench, &options).await.unwrap();
    let provisioned = cluster.provisioned().clone();
    assert_eq!(provisioned.context, "k3s-meshgate-a");
    assert_eq!(core_dns(&provisioned).await, 1);
    let container = read_json(&bench.state().join("engine.json"))[A].clone();
    assert_eq!(container["images"], json!(["meshgate.dev/meshgate:dev"]));
    let host = &container["config"]["HostConfig"];
    assert_eq!(
        host["PortBindings"],
        json!({"6443/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]}),
        "this machine only"
    );
    assert_eq!(host["Privileged"], true);
    holds(container["config"]["Image"].as_str().unwrap(), &["rancher/k3s:v", "@sha256:"]);
    cluster.export_logs(&bench.join("logs")).await.unwrap();
    holds(&std::fs::read_to_string(bench.join("logs/k3s.log")).unwrap(), &["Starting k3s"]);

    let error = up(&bench, &options).await.err().unwrap().to_string();
    holds(&error, &["\"meshgate-a\" is in use by process"]);
    cluster.down(&|text| bench.note(text)).await.unwrap();
    cluster.down(&|text| bench.note(text)).await.unwrap();
    assert!(containers(&bench).is_empty() && !bench.join("leases/meshgate-a").exists());
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_told_and_nothing_is_left() {
    if alone("an_image_that_cannot_be_pulled_is_told_and_nothing_is_left", "engine:no-image").is_some() {
        return;
    }
    let bench = bench();
    let error = up(&bench, &options(A)).await.err().unwrap().to_string();
    holds(&error, &["the container of the cluster \"meshgate-a\" did not start", "manifest unknown"]);
    assert!(containers(&bench).is_empty() && !bench.join("leases/meshgate-a").exists());
}

#[tokio::test]
async fn k3s_that_comes_to_nothing_is_told_with_its_log() {
    if alone("k3s_that_comes_to_nothing_is_told_with_its_log", "k3s:no-kubeconfig").is_some() {
        return;
    }
    let bench = bench();
    let mut options = options(A);
    options.wait = Duration::from_secs(1);
    let error = up(&bench, &options).await.err().unwrap().to_string();
    holds(&error, &["wrote no /etc/rancher/k3s/k3s.yaml within 1 s", "Starting k3s v1.36.2"]);
    assert!(containers(&bench).is_empty() && !bench.join("leases/meshgate-a").exists());
}

#[tokio::test]
async fn an_archive_that_is_none_is_told() {
    if alone("an_archive_that_is_none_is_told", "").is_some() {
        return;
    }
    let bench = bench();
    let mut options = options(A);
    options.archives = vec![bench.join("no-archive.tar")];
    std::fs::write(&options.archives[0], "no archive").unwrap();
    let error = up(&bench, &options).await.err().unwrap().to_string();
    holds(
        &error,
        &[
            "`ctr --namespace=k8s.io images import /opt/meshgate/0.tar` in the container",
            "exit status 1",
            "unrecognized",
        ],
    );
    assert!(containers(&bench).is_empty());
}

#[tokio::test]
async fn a_run_that_is_cancelled_removes_what_the_engine_is_still_starting() {
    if alone("a_run_that_is_cancelled_removes_what_the_engine_is_still_starting", "engine:hangs").is_some() {
        return;
    }
    let bench = bench();
    let cancel = CancellationToken::new();
    let (options, leases) = (options(A), bench.leases());
    let note = |text: &str| bench.note(text);
    let making = K3sCluster::up(&options, &leases, &cancel, &note);
    let ending = async {
        eventually("the engine hangs", || bench.state().join("hung").exists().then_some(())).await;
        assert_eq!(containers(&bench), [A], "the control");
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(making, ending);
    assert!(matches!(result.err().unwrap(), K3sError::Cancelled { .. }));
    assert!(containers(&bench).is_empty() && !bench.join("leases/meshgate-a").exists());
}

#[tokio::test]
async fn kept_clusters_stay_until_their_time_is_over() {
    if alone("kept_clusters_stay_until_their_time_is_over", "").is_some() {
        return;
    }
    let bench = bench();
    let mut kept = options(A);
    kept.keep = Some(Duration::ZERO);
    let mut cluster = up(&bench, &kept).await.unwrap();
    cluster.down(&|text| bench.note(text)).await.unwrap();
    drop(cluster);
    holds(&bench.said(), &["the cluster meshgate-a is kept; its kubeconfig: "]);
    assert_eq!(containers(&bench), [A], "the control");
    let mut other = up(&bench, &options("meshgate-b")).await.unwrap();
    holds(&bench.said(), &["removing the k3s cluster meshgate-a, left by process"]);
    assert_eq!(containers(&bench), ["meshgate-b"]);
    other.down(&|text| bench.note(text)).await.unwrap();
}

#[tokio::test]
async fn a_kept_cluster_is_not_taken_for_one_that_could_be_made_anew() {
    if alone("a_kept_cluster_is_not_taken_for_one_that_could_be_made_anew", "").is_some() {
        return;
    }
    let bench = bench();
    let mut kept = options(A);
    kept.keep = Some(Duration::from_secs(3600));
    let mut cluster = up(&bench, &kept).await.unwrap();
    cluster.down(&|text| bench.note(text)).await.unwrap();
    drop(cluster);
    let record = || read_json(&bench.join("leases/meshgate-a/lease.json"));
    let before = record();
    kept.keep = Some(Duration::ZERO);
    let error = up(&bench, &kept).await.err().unwrap().to_string();
    holds(&error, &["there is a container \"meshgate-a\" already", "docker rm -f -v meshgate-a"]);
    assert_eq!(containers(&bench), [A], "it is still there");
    assert_eq!(record(), before, "and kept for as long as it was");
}

#[tokio::test]
async fn what_cannot_be_removed_is_told_and_left_for_the_next_run() {
    if alone("what_cannot_be_removed_is_told_and_left_for_the_next_run", "engine:keeps").is_some() {
        return;
    }
    let bench = bench();
    let mut cluster = up(&bench, &options(A)).await.unwrap();
    let error = cluster.down(&|text| bench.note(text)).await.unwrap_err().to_string();
    holds(&error, &["remove it: docker rm -f -v meshgate-a", "device or resource busy"]);
    drop(cluster);
    assert_eq!(bench.leases().leftovers("k3s").unwrap().len(), 1);
}

#[tokio::test]
async fn without_an_engine_the_error_says_what_to_start() {
    let test = "without_an_engine_the_error_says_what_to_start";
    if std::env::var_os(ALONE).is_none() {
        let bench = Bench::new();
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args([&format!("k3s::{test}"), "--exact"]).env(ALONE, bench.join(""));
        let output = again.env("DOCKER_HOST", format!("unix://{}", bench.join("no.sock").display())).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let bench = bench();
    let error = up(&bench, &options(A)).await.err().unwrap().to_string();
    holds(&error, &["no container engine answers", "sudo systemctl start docker", "DOCKER_HOST="]);
    assert!(!bench.join("leases/meshgate-a").exists());
}
