//! The life of a pod: order, probes, restarts, ends.

use std::time::{Duration, Instant};

use meshgate_store::{GroupResource, LogOptions};
use serde_json::{Value, json};

use crate::cluster::{Scene, Test, condition, content, eventually, shell};

pub const TESTS: &[(&str, Test)] = &[
    ("init_containers_run_in_order_and_sidecars_stay", |s| Box::pin(init(s))),
    ("a_failed_init_container_fails_the_pod", |s| Box::pin(failed_init(s))),
    ("a_pod_starts_quickly", |s| Box::pin(quick(s))),
    ("a_readiness_probe_decides", |s| Box::pin(readiness(s))),
    ("a_liveness_probe_restarts", |s| Box::pin(liveness(s))),
    ("a_startup_probe_holds_back_liveness", |s| Box::pin(startup(s))),
    ("a_crashing_container_is_restarted_with_pauses", |s| Box::pin(crash(s))),
    ("a_program_that_is_not_there", |s| Box::pin(not_there(s))),
    ("an_image_that_is_not_known", |s| Box::pin(no_image(s))),
    ("deletion_is_orderly", |s| Box::pin(orderly(s))),
    ("grace_ends_with_a_kill_of_every_process", |s| Box::pin(grace(s))),
    ("active_deadline", |s| Box::pin(deadline(s))),
    ("the_node_object_is_ready", |s| Box::pin(node(s))),
    ("termination_messages_are_kept", |s| Box::pin(message(s))),
];

fn with_host(mut container: Value) -> Value {
    container["volumeMounts"] = json!([{"name": "host", "mountPath": "/host"}]);
    container
}

impl Scene {
    fn host_volume(&self) -> Value {
        json!([{"name": "host", "hostPath": {"path": self.directory}}])
    }
}

async fn init(scene: Scene) {
    let mut sidecar = with_host(shell(
        "sidecar",
        "trap 'echo sidecar ends >> /host/order; exit' TERM; echo sidecar >> /host/order; touch /tmp/up; while :; do sleep 0.02; done",
    ));
    sidecar["restartPolicy"] = json!("Always");
    sidecar["startupProbe"] = json!({"exec": {"command": ["test", "-f", "/tmp/up"]}});
    scene.pod(
        "ordered",
        json!({
            "restartPolicy": "Never", "volumes": scene.host_volume(),
            "initContainers": [
                with_host(shell("first", "sleep 0.1; echo first >> /host/order")),
                sidecar,
                with_host(shell("second", "echo second >> /host/order")),
            ],
            "containers": [with_host(shell("main", "echo main >> /host/order"))],
        }),
    );
    let pod = scene.phase("ordered", "Succeeded").await;
    assert_eq!(
        std::fs::read_to_string(scene.directory.join("order")).unwrap(),
        "first\nsidecar\nsecond\nmain\nsidecar ends\n"
    );
    assert_eq!(pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    assert_eq!(condition(&pod, "Initialized"), "True");
}

async fn failed_init(scene: Scene) {
    scene.pod(
        "failing",
        json!({
            "restartPolicy": "Never",
            "initContainers": [shell("first", "exit 7")], "containers": [shell("main", "true")],
        }),
    );
    let pod = scene.phase("failing", "Failed").await;
    assert_eq!(pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"], 7);
    assert!(pod["status"]["containerStatuses"][0]["state"]["waiting"].is_object());

    let count = "n=$(cat /host/n 2>/dev/null); echo $((n+1)) > /host/n; [ \"$n\" = 1 ]";
    scene.pod(
        "retrying",
        json!({
            "initContainers": [with_host(shell("first", count))], "containers": [shell("main", "sleep 60")],
            "volumes": scene.host_volume(),
        }),
    );
    let pod = scene.ready("retrying").await;
    assert_eq!(pod["status"]["initContainerStatuses"][0]["restartCount"], 1);
    scene.delete("retrying", Some(0));
}

async fn quick(scene: Scene) {
    let begin = Instant::now();
    scene.pod("quick", json!({"containers": [shell("one", "sleep 60"), shell("two", "sleep 60")]}));
    let pod = scene.ready("quick").await;
    let took = begin.elapsed();
    println!("two containers ready after {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    for kind in ["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady"] {
        assert_eq!(condition(&pod, kind), "True", "{kind}");
    }
    assert_eq!(pod["status"]["hostIP"], "172.18.0.2");
    let reasons: Vec<String> =
        scene.events("quick").iter().map(|event| event["reason"].as_str().unwrap().to_owned()).collect();
    for reason in ["Pulled", "Created", "Started"] {
        assert_eq!(reasons.iter().filter(|present| *present == reason).count(), 2, "{reasons:?}");
    }
    scene.delete("quick", Some(0));
}

async fn readiness(scene: Scene) {
    let probe = json!({"httpGet": {"path": "/flag", "port": "web"}, "periodSeconds": 1, "failureThreshold": 1});
    let container = json!({
        "name": "main", "image": "test/web", "args": ["8101"], "ports": [{"name": "web", "containerPort": 8101}],
        "readinessProbe": probe,
    });
    let mut never = container.clone();
    never["args"] = json!(["8102"]);
    never["readinessProbe"]["httpGet"] = json!({"path": "/sick", "port": 8102});
    scene.pod("web", json!({"containers": [container]}));
    scene.pod("never", json!({"containers": [never]}));
    scene.ready("web").await;
    assert_eq!(scene.exec("web", &["touch", "/tmp/sick"]).await.0, 0);
    scene.until("web", "unready", |pod| condition(pod, "Ready") == "False").await;
    assert_eq!(scene.exec("web", &["rm", "/tmp/sick"]).await.0, 0);
    scene.ready("web").await;
    eventually("the failure is told", || {
        scene
            .events("never")
            .iter()
            .any(|event| event["message"] == "Readiness probe failed: HTTP probe failed with statuscode: 500")
    })
    .await;
    let pods = GroupResource::new("", "pods");
    let pod = scene.store.get(&pods, &scene.namespace, "never").unwrap();
    assert_eq!(
        (condition(&pod, "Ready"), pod["status"]["containerStatuses"][0]["started"].as_bool()),
        ("False", Some(true))
    );
    scene.delete("web", Some(0));
    scene.delete("never", Some(0));
}

async fn liveness(scene: Scene) {
    let mut container =
        shell("main", "touch /tmp/alive; sleep 0.1; [ -f /host/once ] || rm /tmp/alive; touch /host/once; sleep 60");
    container = with_host(container);
    container["livenessProbe"] = json!({"exec": {"command": ["test", "-f", "/tmp/alive"]}, "periodSeconds": 1, "failureThreshold": 1, "initialDelaySeconds": 1});
    scene.pod("lively", json!({"containers": [container], "volumes": scene.host_volume()}));
    let pod = scene
        .until("lively", "restarted", |pod| {
            pod["status"]["containerStatuses"][0]["restartCount"] == 1 && condition(pod, "Ready") == "True"
        })
        .await;
    assert!(pod["status"]["containerStatuses"][0]["lastState"]["terminated"].is_object());
    let killing = scene
        .events("lively")
        .iter()
        .any(|event| event["message"] == "Container main failed liveness probe, will be restarted");
    assert!(killing);
    scene.delete("lively", Some(0));
}

async fn startup(scene: Scene) {
    let mut container = with_host(shell("main", "until [ -f /host/go ]; do sleep 0.02; done; touch /tmp/up; sleep 60"));
    container["startupProbe"] =
        json!({"exec": {"command": ["test", "-f", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 60});
    container["livenessProbe"] =
        json!({"exec": {"command": ["test", "-f", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 1});
    scene.pod("slow", json!({"containers": [container], "volumes": scene.host_volume()}));
    // A counted failure of the startup probe has been seen, and no restart followed from it.
    eventually("the startup probe has failed", || {
        scene.events("slow").iter().any(|event| event["reason"] == "Unhealthy")
    })
    .await;
    std::fs::write(scene.directory.join("go"), "").unwrap();
    let pod = scene.ready("slow").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    scene.delete("slow", Some(0));
}

async fn crash(scene: Scene) {
    scene.pod("crashing", json!({"containers": [with_host(shell("main", "echo run >> /host/runs; echo attempt $(wc -l < /host/runs); exit 3"))], "volumes": scene.host_volume()}));
    let pod = scene
        .until("crashing", "in CrashLoopBackOff for the second time", |pod| {
            let status = &pod["status"]["containerStatuses"][0];
            status["state"]["waiting"]["reason"] == "CrashLoopBackOff" && status["restartCount"].as_i64() >= Some(2)
        })
        .await;
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(status["lastState"]["terminated"]["reason"], "Error");
    let message = status["state"]["waiting"]["message"].as_str().unwrap();
    assert!(message.starts_with("back-off 400ms restarting failed container=main pod=crashing_"), "{message}");
    let log = scene.log("crashing", LogOptions { previous: true, ..Default::default() }).await;
    assert_eq!(log, "attempt 2\n");
    scene.delete("crashing", Some(0));
    scene.gone("crashing").await;
}

async fn not_there(scene: Scene) {
    scene.pod("absent", json!({"restartPolicy": "Never", "containers": [{"name": "main", "image": "test/shell", "command": ["absent-program"]}]}));
    let pod = scene.phase("absent", "Failed").await;
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((ended["reason"].as_str(), ended["exitCode"].as_i64()), (Some("StartError"), Some(128)));
    assert_eq!(ended["message"], "exec: \"absent-program\": executable file not found in $PATH");
}

async fn no_image(scene: Scene) {
    scene.pod("imageless", json!({"containers": [{"name": "main", "image": "example.com/unknown:1"}]}));
    let pod = scene
        .until("imageless", "backing off", |pod| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ImagePullBackOff"
        })
        .await;
    let message = pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap();
    assert!(message.contains("example.com/unknown:1") && message.contains("use test/shell"), "{message}");
    assert_eq!(pod["status"]["phase"], "Pending");
    scene.delete("imageless", None);
    scene.gone("imageless").await;
}

async fn orderly(scene: Scene) {
    let mut container = with_host(shell(
        "main",
        "trap 'echo term >> /host/order; exit 0' TERM; touch /host/up; while :; do sleep 0.02; done",
    ));
    container["lifecycle"] = json!({"preStop": {"exec": {"command": ["sh", "-c", "echo stop >> /host/order; until [ -f /host/go ]; do sleep 0.02; done"]}}});
    scene.pod("leaving", json!({"containers": [container], "volumes": scene.host_volume()}));
    scene.ready("leaving").await;
    eventually("the trap is set", || scene.directory.join("up").exists()).await;
    scene.delete("leaving", None);
    let pod = scene.until("leaving", "unready", |pod| condition(pod, "Ready") == "False").await;
    assert!(pod["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(content(&scene.directory.join("order")).await, "stop\n");
    std::fs::write(scene.directory.join("go"), "").unwrap();
    scene.gone("leaving").await;
    assert_eq!(std::fs::read_to_string(scene.directory.join("order")).unwrap(), "stop\nterm\n");
}

async fn grace(scene: Scene) {
    let script = "trap '' TERM; (trap '' TERM; while :; do date +%s.%N > /host/child; sleep 0.05; done) & while :; do sleep 0.05; done";
    scene.pod("stubborn", json!({"terminationGracePeriodSeconds": 1, "containers": [with_host(shell("main", script))], "volumes": scene.host_volume()}));
    scene.ready("stubborn").await;
    content(&scene.directory.join("child")).await;
    let begin = Instant::now();
    scene.delete("stubborn", None);
    scene.gone("stubborn").await;
    assert!(begin.elapsed() >= Duration::from_millis(900), "{:?}", begin.elapsed());
    // The child wrote twenty times a second; nothing more comes.
    let last = std::fs::read_to_string(scene.directory.join("child")).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(std::fs::read_to_string(scene.directory.join("child")).unwrap(), last);
}

async fn deadline(scene: Scene) {
    scene.pod(
        "bounded",
        json!({"activeDeadlineSeconds": 1, "restartPolicy": "Never", "containers": [shell("main", "sleep 60")]}),
    );
    let pod = scene.phase("bounded", "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    scene
        .until("bounded", "ended", |pod| pod["status"]["containerStatuses"][0]["state"]["terminated"].is_object())
        .await;
}

async fn node(scene: Scene) {
    let node = scene.store.get(&GroupResource::new("", "nodes"), "", "meshgate").unwrap();
    assert_eq!(condition(&node, "Ready"), "True");
    assert_eq!(node["status"]["addresses"][0]["address"], "172.18.0.2");
}

async fn message(scene: Scene) {
    scene.script("telling", "echo because > /dev/termination-log; exit 1");
    let pod = scene.phase("telling", "Failed").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"], "because\n");
    let mut container = shell("main", "echo last words; exit 1");
    container["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    scene.pod("silent", json!({"restartPolicy": "Never", "containers": [container]}));
    let pod = scene.phase("silent", "Failed").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"], "last words\n");
}
