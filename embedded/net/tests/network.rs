//! The network in real namespaces, as root and as an ordinary user.
//!
//! `harness = false`: the process has to enter namespaces before any thread exists. Outside, it runs itself inside, once as it is
//! and, as root, once more without any privilege.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use meshgate_net::{Dialer, LoadBalancer, Network, NetworkConfig, PodNet, Policy, Port, Protocol, Service, namespaces};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    if std::env::args().any(|argument| argument == "--inside") {
        return inside();
    }
    let program = std::env::current_exe().expect("this program");
    let mut ok = Command::new(&program).arg("--inside").status().expect("it runs").success();
    if nix::unistd::Uid::effective().is_root() && Command::new("setpriv").arg("--version").output().is_ok() {
        // An ordinary user may not read root's folders, so the program goes where everybody may.
        let dir = tempfile::tempdir_in("/tmp").expect("a folder");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("readable");
        let copy = dir.path().join("network-test");
        std::fs::copy(&program, &copy).expect("a copy");
        let user = ["--reuid=1234", "--regid=1234", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"];
        ok &= Command::new("setpriv").args(user).arg(&copy).arg("--inside").status().expect("it runs").success();
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn inside() -> ExitCode {
    let uid = nix::unistd::getuid();
    if let Err(error) = namespaces::enter() {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(30), scenario()).await.expect("within 30 s");
    });
    println!("network as uid {uid} (inside), pid {}: ok", std::process::id());
    ExitCode::SUCCESS
}

fn nft() -> std::path::PathBuf {
    let found =
        ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"].into_iter().find(|path| std::path::Path::new(path).exists());
    found.expect("nft is installed").into()
}

async fn scenario() {
    assert!(std::process::id() < 10, "a PID namespace of its own");
    let network = Network::start(NetworkConfig { nft: nft(), nft_env: vec![] }).await.expect("the network");
    let [a, b] = [pod(&network, "a").await, pod(&network, "b").await];
    assert_ne!(a.0.ip, b.0.ip);

    // Pods reach each other, with their own addresses.
    let (name, peer) = ask(&a.1, SocketAddr::from((b.0.ip, 8080))).await.expect("pod to pod");
    assert_eq!((name.as_str(), peer), ("b", a.0.ip));

    let vip = Ipv4Addr::new(10, 96, 7, 7);
    let external = Ipv4Addr::new(203, 0, 113, 10);
    let both = [SocketAddrV4::new(a.0.ip, 8080), SocketAddrV4::new(b.0.ip, 8080)];
    let service = |endpoints: &[SocketAddrV4], policy| Service {
        name: "default/web".into(),
        cluster_ip: Some(vip),
        external: vec![LoadBalancer { ip: external, policy }],
        ports: vec![Port { protocol: Protocol::Tcp, port: 80, node_port: Some(30080), endpoints: endpoints.to_vec() }],
    };
    let web = SocketAddr::from((vip, 80));

    // Without rules a ClusterIP is refused at once; that is the control for everything below.
    assert!(ask(&a.1, web).await.is_err());
    network.set_services(vec![service(&both, Policy::Cluster)]).await.expect("rules");
    let node = Dialer::new(Arc::new(meshgate_net::Netns::current().expect("the node"))).expect("a dialer");
    let mut counts = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..200 {
        *counts.entry(ask(&node, web).await.expect("the ClusterIP").0).or_default() += 1;
    }
    assert!(counts.len() == 2 && counts.values().all(|count| *count > 50), "balanced: {counts:?}");
    assert!(ask(&a.1, SocketAddr::from((vip, 81))).await.is_err(), "an undeclared port is refused");

    // From outside: the node's address with Cluster, the client's with Local.
    let lb = SocketAddr::from((external, 80));
    let outside = network.outside();
    assert_eq!(ask(outside, lb).await.expect("the load balancer").1, Ipv4Addr::new(172, 18, 0, 2));
    assert!(ask(outside, SocketAddr::from((external, 4191))).await.is_err(), "an undeclared port is refused");
    network.set_services(vec![service(&both[1..], Policy::Local)]).await.expect("rules");
    let client = Ipv4Addr::new(198, 51, 100, 11);
    let stream = outside.connect_from(Some(client), lb).await.expect("the load balancer");
    assert_eq!(answer(stream).await.expect("an answer").1, client);

    // Hairpin: a pod reaches itself through its Service and through its external address.
    assert_eq!(ask(&b.1, web).await.expect("hairpin by the ClusterIP").0, "b");
    assert_eq!(ask(&b.1, lb).await.expect("hairpin by the load balancer").0, "b");

    // Endpoints that go are not chosen any more; without any the Service refuses.
    network.set_services(vec![service(&both[..1], Policy::Local)]).await.expect("rules");
    for _ in 0..20 {
        assert_eq!(ask(&b.1, web).await.expect("the ClusterIP").0, "a");
    }
    network.set_services(vec![service(&[], Policy::Local)]).await.expect("rules");
    assert!(ask(&a.1, web).await.is_err());

    dns(&network, &a.1).await;

    network.remove_pod("b").await;
    assert!(ask(&a.1, SocketAddr::from((b.0.ip, 8080))).await.is_err(), "a removed pod is gone");
}

async fn dns(network: &Network, from: &Dialer) {
    let address = Ipv4Addr::new(10, 96, 7, 7);
    network.dns().set_cluster([("web.default.svc.cluster.local".to_owned(), vec![address])].into());
    // A query for that name, id 0x1234, type A, written by hand.
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["web", "default", "svc", "cluster", "local"] {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let socket = from.udp(SocketAddr::from(([0, 0, 0, 0], 0))).await.expect("a socket");
    socket.send_to(&query, "10.96.0.10:53").await.expect("sent");
    let mut answer = [0; 512];
    let (length, _) = socket.recv_from(&mut answer).await.expect("an answer");
    assert_eq!(answer[..2], [0x12, 0x34]);
    assert_eq!(answer[length - 4..length], address.octets());
}

/// A pod that tells its name and whom it is talking to, on port 8080.
async fn pod(network: &Network, name: &'static str) -> (PodNet, Dialer) {
    let pod = network.add_pod(name).await.expect("a pod");
    let dialer = Dialer::new(Arc::clone(&pod.netns)).expect("a dialer");
    let listener = dialer.listen(SocketAddr::from(([0, 0, 0, 0], 8080))).await.expect("listening");
    tokio::spawn(async move {
        while let Ok((mut stream, peer)) = listener.accept().await {
            tokio::spawn(async move { stream.write_all(format!("{name} {}", peer.ip()).as_bytes()).await });
        }
    });
    (pod, dialer)
}

async fn ask(from: &Dialer, to: SocketAddr) -> std::io::Result<(String, Ipv4Addr)> {
    answer(tokio::time::timeout(Duration::from_secs(2), from.connect(to)).await??).await
}

async fn answer(mut stream: TcpStream) -> std::io::Result<(String, Ipv4Addr)> {
    let mut text = String::new();
    tokio::time::timeout(Duration::from_secs(2), stream.read_to_string(&mut text)).await??;
    let (name, peer) = text.split_once(' ').ok_or_else(|| std::io::Error::other(format!("an odd answer: {text:?}")))?;
    Ok((name.to_owned(), peer.parse().map_err(std::io::Error::other)?))
}
