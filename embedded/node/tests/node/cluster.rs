//! A store, a network and a node for the tests, and ways to wait without sleeping.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Failed;
use meshgate_net::{Dialer, Network, NetworkConfig};
use meshgate_node::{Image, ImageSource, Node, NodeConfig, Own, TokenRequest};
use meshgate_store::{
    Attach, DeleteOptions, Event, GroupResource, LogOptions, Object, PodAccess, Selectors, Start, Store, WriteOptions,
};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// A test: gets the cluster and a namespace of its own.
pub type Test = fn(Scene) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// The cluster that all tests share.
#[derive(Clone)]
pub struct Cluster {
    runtime: Arc<Runtime>,
    store: Store,
    node: Arc<Node>,
    outside: Dialer,
    scratch: Arc<tempfile::TempDir>,
}

/// Images of the tests: `test/shell` runs what the pod says, `test/web` is a small server that tells who asked, `test/tool` is a
/// program at a path of the host.
struct Images {
    tool: PathBuf,
}

impl ImageSource for Images {
    fn resolve(&self, image: &str) -> Result<Image, String> {
        match image {
            "test/shell" => Ok(Image {
                id: "test/shell@here".into(),
                env: vec![("FROM_IMAGE".into(), "yes".into()), ("BOTH".into(), "image".into())],
                ..Default::default()
            }),
            "test/web" => Ok(Image {
                id: "test/web@here".into(),
                entrypoint: ["python3", "-u", "-c", WEB].map(str::to_owned).to_vec(),
                arguments: vec!["8080".into()],
                ..Default::default()
            }),
            "test/tool" => Ok(Image {
                id: "test/tool@here".into(),
                entrypoint: vec!["greet".into()],
                arguments: vec!["by default".into()],
                programs: vec![("greet".into(), self.tool.clone())],
                // With the program in it, as where a package was unpacked.
                files: self.tool.parent().map(Path::to_owned).into_iter().collect(),
                own: true,
                ..Default::default()
            }),
            _ => Err(format!("no program is known for the image {image:?}; use test/shell or test/web")),
        }
    }
}

const WEB: &str = r#"
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    def do_GET(self):
        ok = self.path != "/sick" and not (self.path == "/flag" and os.path.exists("/tmp/sick"))
        self.send_response(200 if ok else 500)
        self.end_headers()
        self.wfile.write((os.uname().nodename + " " + self.client_address[0]).encode())
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
"#;

impl Cluster {
    /// Starts everything.
    pub fn start() -> Self {
        let runtime =
            Arc::new(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());
        let scratch = Arc::new(tempfile::tempdir().unwrap());
        let store = Store::new();
        let folder = scratch.path().join("tool");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("greeting"), "greet").unwrap();
        let tool = folder.join("greet");
        std::fs::write(&tool, "#!/bin/sh\necho $(cat $(dirname $(readlink -f $0))/greeting) $1 OWN=$OWN\n").unwrap();
        std::fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let state_dir = scratch.path().join("state");
        let (node_store, guard) = (store.clone(), runtime.clone());
        // An ordinary user's PATH lacks the folder it is in.
        let nft = meshgate_images::Catalogue::built_in("").nft(&|_| {}).unwrap();
        let network = guard.block_on(Network::start(NetworkConfig { nft: nft.path, nft_env: nft.env })).unwrap();
        let network = Arc::new(network);
        let outside = network.outside().clone();
        let node = guard.block_on(async move {
            Node::start(NodeConfig {
                network,
                store: node_store,
                images: Arc::new(Images { tool }),
                helper: vec!["/proc/self/exe".into(), "pod-exec".into()],
                tokens: Arc::new(|request: &TokenRequest| {
                    format!("token-of-{}-{}", request.namespace, request.service_account)
                }),
                ca_pem: "THE CA".into(),
                state_dir,
                own: Own { env: vec![("OWN".into(), "yes".into())], files: Vec::new() },
                crash_back_off: Duration::from_millis(200),
                eager_probes: true,
                shutdown: CancellationToken::new(),
            })
            .unwrap()
        });
        Self { runtime, store, node: Arc::new(node), outside, scratch }
    }

    /// Drops the node while a pod runs, and tells which processes are left afterwards: there should be none.
    pub fn stop(self) -> Option<String> {
        let Self { runtime, store, node, outside, scratch } = self;
        let scene = Scene { store, node, outside, namespace: "default".into(), directory: scratch.path().into() };
        scene.create(
            "",
            "serviceaccounts",
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}),
        );
        scene.pod("survivor", json!({"containers": [shell("main", "sleep 1000 & sleep 1000")]}));
        runtime.block_on(scene.ready("survivor"));
        assert!(!containers().is_empty(), "the check sees a running container");
        drop(scene);
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let running = containers();
            if running.is_empty() {
                return None;
            }
            if std::time::Instant::now() > deadline {
                return Some(running.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs a test in a namespace of its own.
    pub fn run(&self, name: &str, test: Test) -> Result<(), Failed> {
        let namespace = name.replace("::", "-").replace('_', "-");
        let namespace: String = namespace.chars().take(60).collect();
        let directory = self.scratch.path().join(&namespace);
        std::fs::create_dir_all(&directory).unwrap();
        let scene = Scene {
            store: self.store.clone(),
            node: self.node.clone(),
            outside: self.outside.clone(),
            namespace,
            directory,
        };
        scene.create(
            "",
            "namespaces",
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": scene.namespace}}),
        );
        scene.create(
            "",
            "serviceaccounts",
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}),
        );
        let store = self.store.clone();
        let own = scene.namespace.clone();
        let handle = self.runtime.spawn(test(scene));
        self.runtime.block_on(handle).map_err(|error| {
            let panic = error.into_panic();
            let text =
                panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Failed::from(format!("{}\n{}", text.unwrap_or_default(), describe(&store, &own)))
        })
    }
}

/// Command lines of the processes in this PID namespace, but for its first ones, which are this test.
fn containers() -> Vec<String> {
    let own = std::process::id();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| *id != 1 && *id != own)
        .filter_map(|id| std::fs::read(format!("/proc/{id}/cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| !line.is_empty())
        .collect()
}

/// Pods and events of a namespace, for the message of a failure.
fn describe(store: &Store, namespace: &str) -> String {
    let list = |plural: &str| {
        store.list(&GroupResource::new("", plural), Some(namespace), &Selectors::default()).unwrap().items
    };
    let pods = list("pods").into_iter().map(|pod| format!("{}: {:#}", pod["metadata"]["name"], pod["status"]));
    let events =
        list("events").into_iter().map(|event| format!("{} {} {}", event["reason"], event["message"], event["count"]));
    pods.chain(events).collect::<Vec<_>>().join("\n")
}

/// What a test works with.
#[derive(Clone)]
pub struct Scene {
    pub store: Store,
    pub node: Arc<Node>,
    /// Connects from outside the cluster.
    pub outside: Dialer,
    pub namespace: String,
    /// A directory of the host, for `hostPath`.
    pub directory: PathBuf,
}

impl Scene {
    /// Creates an object in the test's namespace.
    pub fn create(&self, group: &str, plural: &str, object: Value) -> Object {
        let namespace = if plural == "namespaces" { "" } else { &self.namespace };
        self.store.create(&GroupResource::new(group, plural), namespace, object, &WriteOptions::default()).unwrap()
    }

    /// Creates a pod from its spec, bound to the node.
    pub fn pod(&self, name: &str, mut spec: Value) -> Object {
        spec["nodeName"] = json!("meshgate");
        self.create(
            "",
            "pods",
            json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec,
            }),
        )
    }

    /// Creates a pod with one container that runs a shell script.
    pub fn script(&self, name: &str, script: &str) -> Object {
        self.pod(name, json!({"restartPolicy": "Never", "containers": [shell("main", script)]}))
    }

    /// Waits until a pod is as wanted.
    pub async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Object {
        let pods = GroupResource::new("", "pods");
        let only = Selectors { fields: format!("metadata.name={name}"), ..Default::default() };
        let mut watch = self.store.watch(&pods, Some(&self.namespace), &only, Start::Now).unwrap();
        let seen = async {
            loop {
                match watch.next().await.unwrap() {
                    Event::Added(pod) | Event::Modified(pod) if wanted(&pod) => return pod,
                    _ => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("pod {name}: not {what} in time"))
    }

    pub async fn phase(&self, name: &str, phase: &str) -> Object {
        self.until(name, phase, |pod| pod["status"]["phase"] == phase).await
    }

    pub async fn ready(&self, name: &str) -> Object {
        self.until(name, "ready", |pod| condition(pod, "Ready") == "True").await
    }

    /// Waits until a pod is gone.
    pub async fn gone(&self, name: &str) {
        let pods = GroupResource::new("", "pods");
        eventually(&format!("pod {name} is gone"), || self.store.get(&pods, &self.namespace, name).is_err()).await;
    }

    pub fn delete(&self, name: &str, grace: Option<i64>) {
        let options = DeleteOptions { grace_seconds: grace, ..Default::default() };
        self.store.delete(&GroupResource::new("", "pods"), &self.namespace, name, &options).unwrap();
    }

    /// The log of the container `main`.
    pub async fn log(&self, pod: &str, options: LogOptions) -> String {
        let mut chunks = self.node.logs(&self.namespace, pod, "main", options).await.unwrap();
        let mut text = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            text.extend(chunk);
        }
        String::from_utf8(text).unwrap()
    }

    /// Runs a script once and returns what it wrote.
    pub async fn output(&self, name: &str, script: &str) -> String {
        self.script(name, script);
        self.until(name, "over", |pod| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))).await;
        self.log(name, LogOptions::default()).await
    }

    /// Runs a command in `main`: exit code, stdout, stderr.
    pub async fn exec(&self, pod: &str, command: &[&str]) -> (i32, String, String) {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        let mut exec = self.node.exec(&self.namespace, pod, "main", command, Attach::default()).await.unwrap();
        let (mut stdout, mut stderr) = (String::new(), String::new());
        let (first, second) =
            tokio::join!(exec.stdout.read_to_string(&mut stdout), exec.stderr.read_to_string(&mut stderr));
        first.and(second).unwrap();
        (exec.exit.await.unwrap(), stdout, stderr)
    }

    /// Reasons of the events about a pod, oldest first.
    pub fn events(&self, pod: &str) -> Vec<Object> {
        let about = Selectors { fields: format!("involvedObject.name={pod}"), ..Default::default() };
        self.store.list(&GroupResource::new("", "events"), Some(&self.namespace), &about).unwrap().items
    }
}

/// A container that runs a shell script.
pub fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "test/shell", "command": ["sh", "-c", script]})
}

/// The status of a condition.
pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions
        .filter(|condition| condition["type"] == kind)
        .find_map(|condition| condition["status"].as_str())
        .unwrap_or("")
}

/// Waits until something is so.
pub async fn eventually(what: &str, so: impl Fn() -> bool) {
    let seen = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// A file's content, once it is there.
pub async fn content(path: &Path) -> String {
    eventually(&format!("{path:?} has content"), || {
        std::fs::read_to_string(path).is_ok_and(|text| text.ends_with('\n'))
    })
    .await;
    std::fs::read_to_string(path).unwrap()
}
