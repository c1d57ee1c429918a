//! A server for one test.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use meshgate_api::{Credentials, Listener, Running, Server, ServerConfig};
use meshgate_store::{GroupResource, Object, Store, WriteOptions};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, UnixListener};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::pods::LocalPods;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Cluster {
    pub store: Store,
    pub running: Running,
    pub url: String,
    home: TempDir,
}

/// What kubectl said.
#[derive(Debug)]
pub struct Said {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

impl Cluster {
    pub async fn start() -> Self {
        let store = Store::new();
        let home = TempDir::new().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let socket = UnixListener::bind(home.path().join("api.sock")).unwrap();
        let running = Server::start(ServerConfig {
            credentials: Credentials::generate(&store).unwrap(),
            store: store.clone(),
            pods: Arc::new(LocalPods),
            listeners: vec![Listener::Tcp(listener), Listener::Unix(socket)],
            names: ServerConfig::default_names(),
            endpoint: SocketAddr::from((Ipv4Addr::new(10, 96, 0, 1), 443)),
            shutdown: CancellationToken::new(),
        })
        .unwrap();
        std::fs::write(home.path().join("kubeconfig"), running.kubeconfig(&url)).unwrap();
        let cluster = Self { store, running, url, home };
        // A controller does this on a whole cluster; without it there can be no pods.
        let account =
            serde_json::json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        cluster.put("", "serviceaccounts", "default", account);
        cluster
    }

    /// The Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.home.path().join("api.sock")
    }

    /// A kube-rs client of the administrator.
    pub async fn client(&self) -> kube::Client {
        let kubeconfig = Kubeconfig::from_yaml(&self.running.kubeconfig(&self.url)).unwrap();
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        kube::Client::try_from(config).unwrap()
    }

    /// A kube-rs client with a token.
    pub async fn client_with(&self, token: &str) -> kube::Client {
        let text = self.running.kubeconfig(&self.url).replace(self.running.credentials().admin_token(), token);
        let options = KubeConfigOptions::default();
        let kubeconfig = Kubeconfig::from_yaml(&text).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        kube::Client::try_from(config).unwrap()
    }

    /// Creates an object behind the API's back.
    pub fn put(&self, group: &str, plural: &str, namespace: &str, object: Value) -> Object {
        let options = WriteOptions::default();
        self.store.create(&GroupResource::new(group, plural), namespace, object, &options).unwrap()
    }

    /// A running pod with one container `main`, at an address.
    pub fn pod(&self, name: &str, ip: &str) {
        let pods = GroupResource::new("", "pods");
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"containers": [{"name": "main", "image": "main", "ports": [{"containerPort": 80}]}]},
        });
        self.put("", "pods", "default", pod);
        let options = WriteOptions::default();
        let mut change = |pod: &mut Value| {
            pod["status"] = serde_json::json!({
                "phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{
                    "name": "main", "ready": true, "restartCount": 0, "image": "main", "imageID": "",
                    "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
                }],
            });
            Ok(())
        };
        self.store.modify(&pods, "default", name, meshgate_store::Subresource::Status, &options, &mut change).unwrap();
    }

    /// kubectl with arguments separated by spaces.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let catalogue = meshgate_images::Catalogue::built_in("meshgate");
        let kubectl = catalogue.kubectl(&|progress| eprintln!("{progress}")).unwrap_or_else(|error| panic!("{error}"));
        let mut command = Command::new(kubectl.path);
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.home.path().join("kubeconfig"))
            .env("EDITOR", "sed -i s/before/after/")
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .current_dir(self.home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs kubectl with arguments and input.
    pub async fn run(&self, arguments: &[&str], input: &str) -> Said {
        let mut child = self.command(arguments).spawn().expect("kubectl starts");
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output())
            .await
            .unwrap_or_else(|_| panic!("kubectl {arguments:?} took too long"))
            .unwrap();
        Said {
            ok: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The output of a kubectl that must succeed; arguments are separated by spaces.
    pub async fn kubectl(&self, arguments: &str) -> String {
        let said = self.run(&arguments.split(' ').collect::<Vec<_>>(), "").await;
        assert!(said.ok, "kubectl {arguments}: {}{}", said.out, said.err);
        said.out
    }

    /// The complaint of a kubectl that must fail.
    pub async fn refused(&self, arguments: &str) -> String {
        let said = self.run(&arguments.split(' ').collect::<Vec<_>>(), "").await;
        assert!(!said.ok, "kubectl {arguments} should have failed and said: {}", said.out);
        said.err
    }

    /// `kubectl ARGUMENTS -f -` with a manifest; must succeed.
    pub async fn feed(&self, arguments: &str, manifest: &str) -> String {
        let mut all: Vec<&str> = arguments.split(' ').collect();
        all.extend(["-f", "-"]);
        let said = self.run(&all, manifest).await;
        assert!(said.ok, "kubectl {arguments} -f -: {}{}", said.out, said.err);
        said.out
    }
}
