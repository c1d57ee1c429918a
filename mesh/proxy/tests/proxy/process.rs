//! The proxy as a process that is told to stop.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    process::{ExitCode, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use meshgate_proxy::{FixedDst, OriginalDst, main_with};
use tokio::{
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::Semaphore,
    time,
};

use crate::support::{App, Connection, ControlPlane, Setup, client, served_by, text};

/// Where the connections of the first client go, in the environment of the process.
const ORIGINAL: &str = "PROXY_PROCESS_ORIGINAL";
const PATIENCE: Duration = Duration::from_secs(30);

/// The role itself, but for where connections are going: nothing redirects them here.
#[test]
#[ignore = "the tests of this file run it, as another process"]
fn proxy_process() -> ExitCode {
    let Ok(original) = std::env::var(ORIGINAL) else { return ExitCode::SUCCESS };
    let fixed = FixedDst { original: original.parse().unwrap(), client: None };
    main_with(OriginalDst::Fixed(Arc::new(HashMap::from([(client(1), fixed)]))))
}

/// A running proxy, all of whose addresses are known before it runs.
struct ProxyProcess {
    child: Child,
    outbound: SocketAddr,
    inbound: SocketAddr,
    admin: SocketAddr,
}

impl ProxyProcess {
    /// With these variables besides, at the `n`th address: each test has its own, where nobody takes a port in between.
    async fn start(control: &ControlPlane, original: SocketAddr, n: u8, variables: &[(&str, &str)]) -> Self {
        let ip = IpAddr::from([127, 0, 7, n]);
        let mut listeners = Vec::new();
        for _ in 0..3 {
            listeners.push(TcpListener::bind((ip, 0)).await.unwrap());
        }
        let free: Vec<_> = listeners.drain(..).map(|listener| listener.local_addr().unwrap()).collect();
        let [outbound, inbound, admin] = free[..] else { panic!("expected three addresses, found {free:?}") };
        let setup = variables.iter().fold(Setup::new(), |setup, (name, value)| setup.with(name, value));
        let variables = setup
            .with("LINKERD2_PROXY_OUTBOUND_LISTEN_ADDRS", &outbound.to_string())
            .with("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", &inbound.to_string())
            .with("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", &admin.to_string())
            .with("LINKERD2_PROXY_DESTINATION_SVC_ADDR", &control.address().to_string())
            .with("LINKERD2_PROXY_POLICY_SVC_ADDR", &control.address().to_string())
            .with("LINKERD2_PROXY_SHUTDOWN_ENDPOINT_ENABLED", "true")
            .with("LINKERD2_PROXY_LOG", "error")
            .into_variables();
        let child = Command::new(std::env::current_exe().unwrap())
            // With one thread the test runs on the main one, as a proxy does.
            .args(["process::proxy_process", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .envs(variables)
            .env(ORIGINAL, original.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let proxy = Self { child, outbound, inbound, admin };
        let deadline = Instant::now() + PATIENCE;
        // The last that is opened.
        while TcpStream::connect(outbound).await.is_err() {
            assert!(Instant::now() < deadline, "the proxy does not listen");
            time::sleep(Duration::from_millis(10)).await;
        }
        proxy
    }

    /// SIGTERM, as a kubelet sends it.
    async fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.child.id().unwrap());
        assert!(Command::new("sh").args(["-c", &kill]).status().await.unwrap().success());
    }

    /// As a job's last command asks for it.
    async fn ask_to_stop(&self) {
        let mut connection = Connection::open(client(250), self.admin).await;
        connection.send("POST /shutdown HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(connection.reply().await.body, "shutdown\n");
    }
}

#[tokio::test]
async fn a_process_that_is_told_to_stop_finishes_what_it_has_begun() {
    let gate = Arc::new(Semaphore::new(0));
    let waiting = Arc::clone(&gate);
    let app = App::http(move |_| {
        let gate = Arc::clone(&waiting);
        async move {
            gate.acquire().await.unwrap().forget();
            text(200, "late")
        }
    })
    .await;
    let control = ControlPlane::start().await;
    for (requests, signal) in [(2, true), (4, false)] {
        let mut proxy = ProxyProcess::start(&control, app.address, 1, &[]).await;
        let (mut out, mut within) =
            (Connection::open(client(1), proxy.outbound).await, Connection::open(client(1), proxy.inbound).await);
        let deadline = Instant::now() + PATIENCE;
        for busy in [&mut out, &mut within] {
            busy.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        }
        while app.requests() < requests {
            assert!(Instant::now() < deadline, "{} of {requests} requests have arrived", app.requests());
            time::sleep(Duration::from_millis(10)).await;
        }

        if signal {
            proxy.terminate().await;
        } else {
            proxy.ask_to_stop().await;
        }
        for address in [proxy.outbound, proxy.inbound] {
            while TcpStream::connect(address).await.is_ok() {
                assert!(Instant::now() < deadline, "the proxy still accepts");
                time::sleep(Duration::from_millis(10)).await;
            }
        }
        assert_eq!(proxy.child.try_wait().unwrap(), None, "requests are in flight");
        gate.add_permits(2);
        for busy in [&mut out, &mut within] {
            let reply = busy.reply().await;
            assert_eq!((reply.status.as_u16(), &*reply.body), (200, "late"));
            assert_eq!(busy.read_to_end().await, b"", "the connection ends as well");
        }
        let status = time::timeout(PATIENCE, proxy.child.wait()).await.expect("the process does not end").unwrap();
        // As its exit code is in the harness's hands, this says that the role's was 0.
        assert!(status.success(), "signal: {signal}, {status}");
    }
}

#[tokio::test]
async fn a_process_works_with_as_many_threads_as_it_is_told() {
    let app = App::named("app").await;
    let control = ControlPlane::start().await;
    // More than there are processors would have nothing to run on.
    let two = std::thread::available_parallelism().unwrap().get().min(2);
    for (variables, workers) in [
        (&[][..], 1),
        (&[("LINKERD2_PROXY_CORES", "2")], two),
        (&[("LINKERD2_PROXY_CORES_MAX", "2")], two),
        (&[("LINKERD2_PROXY_CORES", "two")], 1),
    ] {
        let proxy = ProxyProcess::start(&control, app.address, 2, variables).await;
        let mut admin = Connection::open(client(250), proxy.admin).await;
        let metrics = admin.get("/metrics", &[]).await.body;
        let line = format!("tokio_rt_workers {workers}");
        assert!(metrics.lines().any(|found| found == line), "{variables:?}: {line} is not in\n{metrics}");
        for address in [proxy.outbound, proxy.inbound] {
            let reply = Connection::open(client(1), address).await.get("/", &[]).await;
            assert_eq!(served_by(&reply.body), "app", "{variables:?}");
        }
    }
}
