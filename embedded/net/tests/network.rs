//! The network in real namespaces, as root and as an ordinary user.
//!
//! `harness = false`: the process has to enter namespaces before any thread exists. Outside, it runs itself inside, once as it is
//! and, as root, once more without any privilege.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use meshgate_net::{Dialer, LoadBalancer, Network, NetworkConfig, PodNet, Policy, Port, Protocol, Service, namespaces};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--list", ..] => ExitCode::SUCCESS,
        ["--inside"] => inside(),
        ["--process", token] => process(token),
        ["--child", _] => wait_for_ever(),
        ["--exit", code] => exit(code),
        _ => outside(),
    }
}

fn outside() -> ExitCode {
    let program = std::env::current_exe().expect("this program");
    kill_leaves_nothing(&program);
    the_end_inside_is_the_end_outside(&program);
    namespaces::check().expect("this machine allows namespaces, or nothing here works");
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

/// `kill -9` of the process that was started takes everything along, orphans too, and so does the end of its stdin.
fn kill_leaves_nothing(program: &Path) {
    for kill in [true, false] {
        let token = format!("meshgate-net-test-{}-{kill}", std::process::id());
        let mut outer =
            Command::new(program).args(["--process", &token]).stdin(Stdio::piped()).spawn().expect("it runs");
        // The control: outer, first and inside process, and an orphan.
        until("four processes", || running(&token) == 4);
        // Held apart, because waiting would close it.
        let mut stdin = outer.stdin.take();
        if kill {
            outer.kill().expect("killed");
        } else {
            stdin = None;
        }
        outer.wait().expect("waited for");
        until("no process", || running(&token) == 0);
        drop(stdin);
    }
}

/// A process inside that leaves an orphan and waits for its stdin to end.
fn process(token: &str) -> ExitCode {
    namespaces::enter().expect("entered");
    // A shell that ends at once while its child goes on.
    let program = std::env::current_exe().expect("this program");
    let script = r#""$0" --child "$1" & "#;
    let shell = Command::new("sh").args(["-c", script]).arg(program).arg(token).stdin(Stdio::null()).status();
    assert!(shell.expect("sh").success());
    namespaces::exit_when_stdin_closes();
    wait_for_ever()
}

fn wait_for_ever() -> ExitCode {
    loop {
        std::thread::park();
    }
}

/// How many processes have `token` among their arguments.
fn running(token: &str) -> usize {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .filter(|line| line.split(|byte| *byte == 0).any(|argument| argument == token.as_bytes()))
        .count()
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} within 10 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Exit codes and SIGTERM pass through the stages, and nothing of them is left to the processes inside.
fn the_end_inside_is_the_end_outside(program: &Path) {
    assert_eq!(Command::new(program).args(["--exit", "7"]).status().expect("it runs").code(), Some(7));

    let token = format!("meshgate-net-test-{}-term", std::process::id());
    let mut outer = Command::new(program).args(["--process", &token]).stdin(Stdio::piped()).spawn().expect("it runs");
    until("four processes", || running(&token) == 4);
    let _stdin = outer.stdin.take();
    let pid = nix::unistd::Pid::from_raw(outer.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("signalled");
    assert_eq!(outer.wait().expect("waited for").code(), Some(128 + 15));
    until("no process", || running(&token) == 0);
}

fn exit(code: &str) -> ExitCode {
    namespaces::enter().expect("entered");
    // Signals that the stages wait for are not blocked here.
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).expect("SigBlk");
    assert_eq!(u64::from_str_radix(blocked.trim(), 16), Ok(0));
    ExitCode::from(code.parse::<u8>().expect("a code"))
}

fn inside() -> ExitCode {
    let uid = nix::unistd::getuid();
    match namespaces::enter() {
        Ok(entered) => assert!(entered.own_proc, "/proc shows this PID namespace"),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), scenario()).await.expect("within 60 s");
    });
    println!("network as uid {uid} (inside), pid {}: ok", std::process::id());
    ExitCode::SUCCESS
}

async fn scenario() {
    assert!(std::process::id() < 10, "a PID namespace of its own");
    // An ordinary user's PATH lacks the folder it is in.
    let nft = meshgate_images::Catalogue::built_in("").nft(&|_| {}).expect("nft");
    let network = Network::start(NetworkConfig { nft: nft.path, nft_env: nft.env }).await.expect("the network");
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
    refused(ask(&a.1, web).await);
    network.set_services(vec![service(&both, Policy::Cluster)]).await.expect("rules");
    let node = Dialer::new(Arc::new(meshgate_net::Netns::current().expect("the node"))).expect("a dialer");
    let mut counts = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..200 {
        *counts.entry(ask(&node, web).await.expect("the ClusterIP").0).or_default() += 1;
    }
    assert!(counts.len() == 2 && counts.values().all(|count| *count > 50), "balanced: {counts:?}");
    refused(ask(&a.1, SocketAddr::from((vip, 81))).await);

    // From outside: the node's address with Cluster, the client's with Local.
    let lb = SocketAddr::from((external, 80));
    let outside = network.outside();
    assert_eq!(ask(outside, lb).await.expect("the load balancer").1, Ipv4Addr::new(172, 18, 0, 2));
    refused(ask(outside, SocketAddr::from((external, 4191))).await);
    network.set_services(vec![service(&both[1..], Policy::Local)]).await.expect("rules");
    let client = Ipv4Addr::new(198, 51, 100, 11);
    let stream = outside.connect_from(Some(client), lb).await.expect("the load balancer");
    assert_eq!(answer(stream).await.expect("an answer").1, client);
    let node_port = SocketAddr::from((meshgate_net::NODE, 30080));
    let stream = outside.connect_from(Some(client), node_port).await.expect("the node port");
    assert_eq!(answer(stream).await.expect("an answer"), ("b".into(), client));
    refused(ask(outside, SocketAddr::from((meshgate_net::NODE, 30081))).await);
    // A pod's own address stays when it takes the way over the load balancer.
    assert_eq!(ask(&a.1, lb).await.expect("a pod to the load balancer"), ("b".into(), a.0.ip));
    refused(ask(&a.1, SocketAddr::from((external, 4191))).await);
    // Pods and ClusterIPs cannot be reached from outside, and pods reach the outside as the node.
    assert!(ask(outside, SocketAddr::from((b.0.ip, 8080))).await.is_err());
    assert!(ask(outside, web).await.is_err());
    let server = outside.listen(SocketAddr::from((client, 9090))).await.expect("listening outside");
    let dial = a.1.connect(SocketAddr::from((client, 9090)));
    let (dialled, accepted) = tokio::join!(dial, server.accept());
    dialled.expect("pod to outside");
    assert_eq!(accepted.expect("accepted").1.ip(), meshgate_net::NODE);
    // The node is itself to its pods.
    assert_eq!(ask(&node, SocketAddr::from((b.0.ip, 8080))).await.expect("node to pod").1, meshgate_net::NODE);

    // Hairpin: a pod reaches itself through its Service and through its external address.
    assert_eq!(ask(&b.1, web).await.expect("hairpin by the ClusterIP").0, "b");
    assert_eq!(ask(&b.1, lb).await.expect("hairpin by the load balancer").0, "b");

    // Endpoints that go are not chosen any more; without any the Service refuses.
    network.set_services(vec![service(&both[..1], Policy::Local)]).await.expect("rules");
    for _ in 0..20 {
        assert_eq!(ask(&b.1, web).await.expect("the ClusterIP").0, "a");
    }
    network.set_services(vec![service(&[], Policy::Local)]).await.expect("rules");
    refused(ask(&a.1, web).await);
    refused(ask(&node, web).await);

    many_services(&network, &node, &service(&both, Policy::Cluster)).await;
    dns(&network, &a.1).await;
    many_pods(&network).await;
    many_connections(&a.1, SocketAddr::from((b.0.ip, 8080))).await;

    network.remove_pod("b").await;
    assert!(ask(&a.1, SocketAddr::from((b.0.ip, 8080))).await.is_err(), "a removed pod is gone");
}

/// Refused at once, as a closed port is, not by silence.
fn refused(result: std::io::Result<(String, Ipv4Addr)>) {
    assert_eq!(result.expect_err("a refusal").kind(), std::io::ErrorKind::ConnectionRefused);
}

/// More Services than fit into one transaction come and go.
async fn many_services(network: &Network, node: &Dialer, template: &Service) {
    let ip = |index: u32| Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 16, 0).to_bits() + index);
    let services = (0..600).map(|index| Service {
        name: format!("default/web-{index}"),
        cluster_ip: Some(ip(index)),
        external: vec![],
        ports: vec![Port { node_port: None, ..template.ports[0].clone() }],
    });
    let started = Instant::now();
    network.set_services(services.collect()).await.expect("rules for 600 Services");
    println!("600 Services: {:?}", started.elapsed());
    for index in [0, 599] {
        ask(node, SocketAddr::from((ip(index), 80))).await.expect("each serves");
    }
    network.set_services(vec![]).await.expect("no rules");
    refused(ask(node, SocketAddr::from((ip(0), 80))).await);
}

async fn many_pods(network: &Network) {
    let keys: Vec<String> = (0..20).map(|index| format!("many-{index}")).collect();
    let started = Instant::now();
    let pods = futures::future::join_all(keys.iter().map(|key| network.add_pod(key))).await;
    println!("20 pods at once: {:?}", started.elapsed());
    let addresses: std::collections::HashSet<_> = pods.iter().map(|pod| pod.as_ref().expect("a pod").ip).collect();
    assert_eq!(addresses.len(), 20);
    assert_eq!(network.add_pod("many-0").await.expect("the same").ip, pods[0].as_ref().expect("a pod").ip);
    let started = Instant::now();
    let single = network.add_pod("single").await.expect("a pod");
    println!("one pod: {:?}", started.elapsed());
    assert!(!addresses.contains(&single.ip));
    futures::future::join_all(keys.iter().map(|key| network.remove_pod(key))).await;
}

async fn many_connections(from: &Dialer, to: SocketAddr) {
    let started = Instant::now();
    let workers = (0..16).map(|_| async {
        for _ in 0..200 {
            ask(from, to).await.expect("a connection");
        }
    });
    futures::future::join_all(workers).await;
    println!("3200 connections with an answer each: {:?}", started.elapsed());
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
