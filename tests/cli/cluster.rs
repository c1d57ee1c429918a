//! `meshgate cluster` and `meshgate inject`, with the real kubectl.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use meshgate_images::Catalogue;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bench::{Bench, Done, MESHGATE, eventually};
use crate::processes::Family;

pub const ECHO: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo}
spec:
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: echo
          image: meshgate.dev/meshgate:dev
          args: [app, echo]
          env: [{name: NAME, value: echo}]
          ports: [{name: http, containerPort: 8080}]
          readinessProbe: {httpGet: {path: /healthz, port: http}}
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  type: LoadBalancer
  selector: {app: echo}
  ports: [{port: 80, targetPort: http}]
";

/// A home for clusters, which are brought down with it.
pub struct Home {
    pub bench: Bench,
    kubectl: PathBuf,
}

impl Drop for Home {
    fn drop(&mut self) {
        self.meshgate("cluster down");
    }
}

impl Home {
    pub fn new() -> Self {
        let kubectl = Catalogue::built_in(MESHGATE).kubectl(&|_| {}).unwrap().path;
        Self { bench: Bench::new(), kubectl }
    }

    pub fn meshgate(&self, arguments: &str) -> Done {
        let mut command = self.bench.command(arguments);
        command.env("XDG_STATE_HOME", self.bench.path()).output().unwrap().into()
    }

    /// The folder of the cluster.
    fn dir(&self) -> PathBuf {
        self.bench.join("meshgate/default")
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.args(arguments.split_whitespace()).env("HOME", self.bench.path()).current_dir(self.bench.path());
        command.env("KUBECONFIG", self.dir().join("kubeconfig")).stdin(Stdio::null());
        command
    }

    /// What kubectl prints; it has to succeed.
    #[track_caller]
    pub fn kubectl(&self, arguments: &str) -> String {
        let done = Done::from(self.command(arguments).output().unwrap());
        assert_eq!(done.code, Some(0), "kubectl {arguments}: {done:#?}");
        done.stdout
    }

    pub fn apply(&self, manifests: &str) {
        std::fs::write(self.bench.join("manifests.yaml"), manifests).unwrap();
        self.kubectl("apply -f manifests.yaml");
    }
}

/// The status line and body of a GET.
fn get(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: echo.test\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn a_cluster_for_a_person() {
    let home = Home::new();
    let up = home.meshgate("cluster up");
    up.expect(0, &[]);
    let port_after = |text: &str| {
        let rest = up.stdout.split_once(text).unwrap_or_else(|| panic!("{text:?} in {}", up.stdout)).1;
        rest.lines().next().unwrap().to_owned()
    };
    let (api, ingress) = (port_after("API on https://"), port_after("load balancer: http://"));
    let mut family = Family::marked(&home.dir());
    assert!(family.members().len() >= 3, "the control: {:?}", family.members());

    home.meshgate("cluster up").expect(2, &["the cluster \"default\" is already running", "meshgate cluster down"]);
    let kubeconfig = home.meshgate("cluster kubeconfig").stdout;
    assert_eq!(Path::new(kubeconfig.trim()), home.dir().join("kubeconfig"));
    assert_eq!((mode(&home.dir()), mode(&home.dir().join("kubeconfig"))), (0o700, 0o600));
    only_credentials_open(&home, &api);
    everyday_commands(&home, &ingress);
    the_pages_command(&home);

    home.meshgate("cluster down").expect(0, &[]);
    assert_eq!(family.members(), [""; 0], "all are gone when `down` returns");
    assert!(!home.dir().exists());
    assert!(home.meshgate("cluster down").stdout.contains("no cluster \"default\" is running"));
    home.meshgate("cluster kubeconfig").expect(2, &["there is no cluster \"default\"", "meshgate cluster up"]);
}

/// From the host the API answers to the credentials in the kubeconfig and to nothing else.
fn only_credentials_open(home: &Home, api: &str) {
    assert!(home.kubectl("get namespaces -o name").contains("namespace/default"), "the control");
    for credentials in ["--token=nonsense", "--username=admin --password=admin"] {
        let arguments = format!(
            "--kubeconfig=/dev/null --server=https://{api} --insecure-skip-tls-verify {credentials} get namespaces -o name"
        );
        let done = Done::from(home.command(&arguments).output().unwrap());
        assert_ne!(done.code, Some(0), "{credentials:?}: {done:#?}");
        assert!(!done.stdout.contains("namespace/"), "{credentials:?}: {done:#?}");
        assert!(done.stderr.contains("must be logged in") || done.stderr.contains("Unauthorized"), "{done:#?}");
    }
    // kubectl asks for a name before it asks the server anonymously.
    let anonymous = "import ssl, sys, urllib.request as r\n\
        r.urlopen('https://' + sys.argv[1] + '/api/v1/namespaces', context=ssl._create_unverified_context())";
    let output = Command::new("python3").args(["-c", anonymous, api]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("HTTP Error 40"), "{said}");
    assert!(!get(api).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")), "nothing is served without TLS");
}

fn everyday_commands(home: &Home, ingress: &str) {
    home.apply(ECHO);
    home.kubectl("rollout status deployment/echo --timeout=20s");
    assert!(home.kubectl("get pods -l app=echo").contains("1/1     Running"));
    home.kubectl("wait --for=condition=Ready pod -l app=echo --timeout=20s");
    assert!(home.kubectl("describe pods -l app=echo").contains("Started container echo"));
    assert_eq!(home.kubectl("exec deployment/echo -- /bin/sh -c echo$IFS\"$NAME\"").trim(), "echo");
    let answer = eventually("the load balancer answers", || get(ingress).ok().filter(|it| it.contains(" 200 OK")));
    assert!(answer.contains("echo.test"), "{answer}");
    home.kubectl("logs deployment/echo");

    let mut forward = home.command("port-forward deployment/echo :8080").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    // Kept open: a kubectl that cannot print ends.
    let mut printed = BufReader::new(forward.stdout.take().unwrap());
    printed.read_line(&mut line).unwrap();
    let address = line.split_whitespace().nth(2).unwrap_or_else(|| panic!("{line:?}")).to_owned();
    assert!(get(&address).unwrap().contains(" 200 OK"));
    forward.kill().unwrap();
    forward.wait().unwrap();

    home.kubectl("scale deployment/echo --replicas=2");
    home.kubectl("wait --for=jsonpath={.status.readyReplicas}=2 deployment/echo --timeout=20s");
    home.kubectl("create deployment idle --image=docker.io/library/traefik:v3.7.15");
    home.kubectl("wait --for=condition=Available deployment/idle --timeout=20s");
    assert!(home.kubectl("explain deployment.spec.replicas").contains("FIELD: replicas <integer>"));
    home.kubectl("delete deployment idle --timeout=20s");
    home.kubectl("wait --for=delete pod -l app=idle --timeout=20s");
}

/// `kubectl get deploy ... -o yaml | linkerd inject --ingress - | kubectl apply -f -`.
fn the_pages_command(home: &Home) {
    let line = "set -e; $KUBECTL get deploy echo -o yaml | $MESHGATE inject --ingress - | $KUBECTL apply -f -";
    let mut command = Command::new("sh");
    command.args(["-c", line]).env("KUBECTL", &home.kubectl).env("MESHGATE", MESHGATE);
    command.env("KUBECONFIG", home.dir().join("kubeconfig")).env("HOME", home.bench.path());
    let done = Done::from(command.output().unwrap());
    done.expect(0, &["deployment \"echo\" injected"]);
    assert!(done.stdout.contains("deployment.apps/echo configured"), "{done:#?}");
    let template = home.kubectl("get deployment echo -o jsonpath={.spec.template}");
    for part in ["linkerd-proxy", "linkerd-init", "\"linkerd.io/inject\":\"ingress\""] {
        assert!(template.contains(part), "{part} in {template}");
    }
}

#[test]
fn a_cluster_that_was_killed_does_not_stand_in_the_way_of_the_next() {
    let home = Home::new();
    home.meshgate("cluster up").expect(0, &[]);
    let mut family = Family::marked(&home.dir());
    assert!(family.members().len() >= 3, "the control: {:?}", family.members());
    let keeper: i32 = std::fs::read_to_string(home.dir().join("pid")).unwrap().trim().parse().unwrap();
    kill(Pid::from_raw(keeper), Signal::SIGKILL).unwrap();
    eventually("the cluster ends with its keeper", || family.members().is_empty().then_some(()));
    home.meshgate("cluster up").expect(0, &[]);
    assert!(home.kubectl("get namespaces -o name").contains("namespace/default"));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let done = home.meshgate(&format!("cluster up --api-port {}", address.port()));
    done.expect(2, &[&format!("cannot listen on {address}"), "in use"]);
    assert!(!home.dir().exists());
}
