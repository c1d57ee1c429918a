//! How long a change takes to reach a proxy, and how much memory a large cluster takes.
//!
//! The control plane is a process of its own, as it is in a pod, so that its memory can be told from the test's: this
//! binary again, at [`control_plane`].
#![allow(clippy::unwrap_used)] // all of this file is test code, its helpers too

mod cluster;
mod scale {
    pub mod api;
    pub mod objects;
}

use std::{
    env, fmt,
    future::Future,
    process::Stdio,
    time::{Duration, Instant},
};

use futures::{FutureExt, future};
use kube::{
    Client,
    api::{Patch, PatchParams},
    config::Kubeconfig,
};
use linkerd2_proxy_api::{
    destination::{
        DestinationProfile, GetDestination, Update, WeightedAddrSet, destination_client::DestinationClient, update,
    },
    inbound::{self, PortSpec, inbound_server_policies_client::InboundServerPoliciesClient},
    outbound::{OutboundPolicy, TrafficSpec, outbound_policies_client::OutboundPoliciesClient, traffic_spec},
};
use meshgate_control_plane::{Cluster, Index, Server, watch};
use meshgate_store::Store;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
    sync::Mutex,
    time::timeout,
};
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

use scale::{
    api::Api,
    objects::{self, Large, LargeService},
};

/// Long enough for a loaded machine; a test that passes never waits for it.
const DEADLINE: Duration = Duration::from_secs(180);

/// From the write to the proxy, in a small cluster and in a large one.
const SMALL: Duration = Duration::from_millis(50);
const LARGE: Duration = Duration::from_millis(100);

/// What the process may take with the large cluster.
const MEMORY: usize = 150 << 20;

/// What it may take for a connection and a stream, of which the answer itself would be several times as much.
const EACH: usize = 150 << 10;

/// Proxies that ask for one Service, each with a connection of its own.
const PROXIES: usize = 250;

/// Ports of pods whose policies are watched.
const PORTS: usize = 1000;

const KUBECONFIG: &str = "MESHGATE_TEST_KUBECONFIG";

/// The tests measure, so that they run one at a time.
static MACHINE: Mutex<()> = Mutex::const_new(());

#[test]
#[ignore = "the process that the other tests start"]
fn control_plane() {
    let kubeconfig = env::var(KUBECONFIG).unwrap_or_else(|_| {
        panic!("expected a kubeconfig in {KUBECONFIG}; the other tests of this file start this one themselves")
    });
    // One thread, as the role has it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = cluster::client(Kubeconfig::from_yaml(&kubeconfig).unwrap()).await;
        let index = Index::new(Cluster::default());
        let _watches = watch(&client, &index);
        let (destination, policy) = (listen().await, listen().await);
        println!("\n{LISTENING} {} {}", destination.local_addr().unwrap(), policy.local_addr().unwrap());
        let server = Server::new(index);
        let test_ends = async { tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await };
        tokio::select! {
            ended = server.clone().serve_destination(destination) => ended.unwrap(),
            ended = server.serve_policy(policy) => ended.unwrap(),
            // However it ends, this side of the pipe is closed then.
            _ = test_ends => {}
        }
    });
}

const LISTENING: &str = "listening";

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// The control plane, and where it listens.
struct ControlPlane {
    process: Child,
    destination: Endpoint,
    policy: Endpoint,
}

impl ControlPlane {
    async fn start(kubeconfig: String) -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", "control_plane", "--ignored", "--nocapture", "--test-threads=1"])
            .env(KUBECONFIG, kubeconfig)
            // One heap, as a process with one thread has it.
            .env("MALLOC_ARENA_MAX", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let addresses = within("the control plane to listen", async {
            loop {
                let line = lines.next_line().await.unwrap().expect("the control plane to run, found its end");
                if let Some(addresses) = line.strip_prefix(LISTENING) {
                    break addresses.to_owned();
                }
            }
        })
        .await;
        let mut endpoints =
            addresses.split_whitespace().map(|address| Endpoint::from_shared(format!("http://{address}")).unwrap());
        let (destination, policy) = (endpoints.next().unwrap(), endpoints.next().unwrap());
        Self { process, destination, policy }
    }

    /// A proxy's connection.
    async fn destination(&self) -> DestinationClient<Channel> {
        DestinationClient::new(within("a connection", self.destination.connect()).await.unwrap())
    }

    /// The endpoints of a Service, over a connection of its own.
    async fn endpoints(&self, service: &LargeService) -> Streaming<Update> {
        let mut client = self.destination().await;
        within("the headers of Get", client.get(dst(service.path()))).await.unwrap().into_inner()
    }

    /// What the process holds in memory.
    fn memory(&self) -> Memory {
        let id = self.process.id().expect("the control plane to run, found its end");
        Memory::of(id)
    }
}

/// In bytes, from `/proc/PID/smaps_rollup`.
#[derive(Debug, Clone, Copy)]
struct Memory {
    resident: usize,
    /// Without what is shared with this process, which is the same binary.
    proportional: usize,
    /// Heap and stacks alone.
    anonymous: usize,
}

impl Memory {
    fn of(id: u32) -> Self {
        let path = format!("/proc/{id}/smaps_rollup");
        let text = std::fs::read_to_string(&path).unwrap();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let kilobytes = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<usize>().ok());
            kilobytes.unwrap_or_else(|| panic!("{path}: expected `{name} NUMBER kB`, found {text}")) << 10
        };
        Self { resident: field("Rss:"), proportional: field("Pss:"), anonymous: field("Anonymous:") }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mega = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        let Self { resident, proportional, anonymous } = *self;
        write!(f, "{:.1} MB resident", mega(resident))?;
        write!(f, " ({:.1} proportional, {:.1} anonymous)", mega(proportional), mega(anonymous))
    }
}

/// How long each of some changes took.
struct Times(Vec<Duration>);

impl Times {
    /// The one that so many hundredths are not slower than.
    fn percentile(&self, hundredths: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort();
        sorted[(sorted.len() * hundredths).div_ceil(100).max(1) - 1]
    }

    /// A machine that others use may be slow once, but not half of the time.
    #[track_caller]
    fn assert_median(&self, what: &str, most: Duration) {
        println!("{what}: {self}");
        assert!(self.percentile(50) <= most, "{what}: expected a median of at most {most:?}, found {self}");
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, p99, max] = [50, 99, 100].map(|hundredths| self.percentile(hundredths));
        write!(f, "median {median:.1?}, p99 {p99:.1?}, max {max:.1?} of {}", self.0.len())
    }
}

async fn within<T>(what: &str, result: impl Future<Output = T>) -> T {
    timeout(DEADLINE, result).await.unwrap_or_else(|_| panic!("expected {what} within {DEADLINE:?}, found nothing"))
}

/// Reads until the message that is wanted.
async fn read_until<T: fmt::Debug>(stream: &mut Streaming<T>, what: &str, mut wanted: impl FnMut(&T) -> bool) {
    let mut last = None;
    let search = async {
        loop {
            let message = stream.message().await.unwrap().expect("an open stream");
            if wanted(&message) {
                break;
            }
            last = Some(message);
        }
    };
    if timeout(DEADLINE, search).await.is_err() {
        panic!("expected {what} within {DEADLINE:?}, found at last {last:?}");
    }
}

/// From just before the write until the message is there.
async fn measure(write: impl Future<Output = ()>, arrival: impl Future<Output = ()>) -> Duration {
    let start = Instant::now();
    let arrival = async {
        arrival.await;
        start.elapsed()
    };
    future::join(write, arrival).await.1
}

async fn apply(client: &Client, object: &Value) {
    let name = object["metadata"]["name"].as_str().unwrap();
    let params = PatchParams::apply("test").force();
    cluster::api_of(client, object).patch(name, &params, &Patch::Apply(object)).await.unwrap();
}

/// Changes an object, whose kind and name are in `object`.
async fn merge(client: &Client, object: &Value) {
    let name = object["metadata"]["name"].as_str().unwrap();
    cluster::api_of(client, object).patch(name, &PatchParams::default(), &Patch::Merge(object)).await.unwrap();
}

fn dst(path: String) -> GetDestination {
    GetDestination { path, context_token: r#"{"ns":"default"}"#.into(), ..Default::default() }
}

fn added(update: &Update) -> Option<&WeightedAddrSet> {
    match update.update.as_ref()? {
        update::Update::Add(set) => Some(set),
        _ => None,
    }
}

fn adds(update: &Update, ip: [u8; 4]) -> bool {
    use linkerd2_proxy_api::net::ip_address::Ip;
    let wanted = Ip::Ipv4(u32::from_be_bytes(ip));
    let ip_of = |addr: &linkerd2_proxy_api::destination::WeightedAddr| addr.addr?.ip?.ip;
    added(update).is_some_and(|set| set.addrs.iter().any(|addr| ip_of(addr) == Some(wanted)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_reaches_a_proxy_within_50_ms() {
    let _alone = MACHINE.lock().await;
    let api = cluster::api_server(Store::new()).await;
    let admin = cluster::client(cluster::kubeconfig(&api, None)).await;
    for manifest in meshgate_inject::control_plane_manifests(&meshgate_inject::Options::default()) {
        apply(&admin, &manifest).await;
    }
    let hour = Duration::from_secs(3600);
    let token = api.tokens().issue("linkerd", "linkerd-destination", &[], hour).unwrap().token;
    let kubeconfig = serde_json::to_string(&cluster::kubeconfig(&api, Some(token))).unwrap();
    let mesh = ControlPlane::start(kubeconfig).await;
    let metadata = |name: &str| json!({"name": name, "namespace": "default"});
    let object = |api_version: &str, kind: &str, name: &str, spec: Value| json!({"apiVersion": api_version, "kind": kind, "metadata": metadata(name), "spec": spec});
    let slice = |ip: [u8; 4]| {
        let endpoint = objects::slice_endpoint(ip, "web-0", "default");
        objects::slice("default", "web", 0, vec![endpoint])
    };
    let server = |protocol: &str| objects::server("default", "web", protocol);
    let profile = |timeout: u32| {
        let routes = json!([{"name": "all", "condition": {"pathRegex": "/.*"}, "timeout": format!("{timeout}ms")}]);
        object("linkerd.io/v1alpha2", "ServiceProfile", "web.default.svc.cluster.local", json!({"routes": routes}))
    };
    let service = |opaque: bool| {
        let mut service = objects::service("default", "web");
        let ports = if opaque { "80" } else { "25" };
        service["metadata"]["annotations"] = json!({"config.linkerd.io/opaque-ports": ports});
        service
    };
    let pod = objects::pod("default", "web", "web-0", "10.244.0.7");
    let account = objects::service_account("default", "web");
    for object in [&account, &service(false), &slice([10, 244, 0, 7]), &profile(1), &server("HTTP/1"), &pod] {
        apply(&admin, object).await;
    }

    let path = || "web.default.svc.cluster.local:80".to_owned();
    let mut destination = mesh.destination().await;
    let mut updates = destination.get(dst(path())).await.unwrap().into_inner();
    let mut profiles = destination.get_profile(dst(path())).await.unwrap().into_inner();
    let channel = within("a connection", mesh.policy.connect()).await.unwrap();
    let target = Some(traffic_spec::Target::Authority(path()));
    let spec = TrafficSpec { source_workload: "default:web-0".into(), target };
    let watched = OutboundPoliciesClient::new(channel.clone()).watch(spec).await;
    let mut policies = watched.unwrap().into_inner();
    let spec = PortSpec { workload: "default:web-0".into(), port: 8080 };
    let mut servers = InboundServerPoliciesClient::new(channel).watch_port(spec).await.unwrap().into_inner();
    read_until(&mut updates, "the first endpoint", |update| adds(update, [10, 244, 0, 7])).await;
    read_until(&mut profiles, "the first profile", |profile| has_timeout(profile, 1)).await;
    read_until(&mut policies, "the first policy", |policy| !is_opaque(policy)).await;
    read_until(&mut servers, "the first Server", is_http1).await;

    let mut times = Times(Vec::new());
    for number in 0..30 {
        let ip = [10, 244, 1, number];
        let arrival = read_until(&mut updates, "the endpoint", |update| adds(update, ip));
        times.0.push(measure(merge(&admin, &slice(ip)), arrival).await);
    }
    times.assert_median("EndpointSlice to Get", SMALL);

    let mut times = Times(Vec::new());
    for timeout in 100..110 {
        let arrival = read_until(&mut profiles, "the timeout", |profile| has_timeout(profile, timeout));
        times.0.push(measure(merge(&admin, &profile(timeout)), arrival).await);
    }
    times.assert_median("ServiceProfile to GetProfile", SMALL);

    let mut times = Times(Vec::new());
    for opaque in [true, false].repeat(5) {
        let arrival = read_until(&mut policies, "the protocol", |policy| is_opaque(policy) == opaque);
        times.0.push(measure(merge(&admin, &service(opaque)), arrival).await);
    }
    times.assert_median("annotation of a Service to OutboundPolicies.Watch", SMALL);

    let mut times = Times(Vec::new());
    for protocol in ["opaque", "HTTP/1"].repeat(5) {
        let arrival = read_until(&mut servers, "the protocol", |server| is_http1(server) == (protocol == "HTTP/1"));
        times.0.push(measure(merge(&admin, &server(protocol)), arrival).await);
    }
    times.assert_median("Server to InboundServerPolicies.WatchPort", SMALL);
}

fn has_timeout(profile: &DestinationProfile, millis: u32) -> bool {
    let wanted = prost_types::Duration { seconds: 0, nanos: millis as i32 * 1_000_000 };
    profile.routes.iter().any(|route| route.timeout == Some(wanted))
}

fn is_opaque(policy: &OutboundPolicy) -> bool {
    use linkerd2_proxy_api::outbound::proxy_protocol::Kind;
    matches!(policy.protocol.as_ref().and_then(|protocol| protocol.kind.as_ref()), Some(Kind::Opaque(_)))
}

fn is_http1(server: &inbound::Server) -> bool {
    use linkerd2_proxy_api::inbound::proxy_protocol::Kind;
    matches!(server.protocol.as_ref().and_then(|protocol| protocol.kind.as_ref()), Some(Kind::Http1(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_endpoints_fit_in_150_mb_and_a_change_is_there_within_100_ms() {
    let _alone = MACHINE.lock().await;
    let start = Instant::now();
    let (api, kubeconfig) = Api::start().await;
    let mesh = ControlPlane::start(kubeconfig).await;
    let services: Vec<_> = Large::services().collect();
    // Answers come once everything has been listed.
    let mut first = mesh.endpoints(&services[0]).await;
    read_until(&mut first, "the first answer", |update| added(update).is_some()).await;
    let without = mesh.memory();
    println!("everything listed in {:.1?}: {without}", start.elapsed());
    drop(first);

    let start = Instant::now();
    let mut streams = Vec::new();
    let mut endpoints = 0;
    for service in &services {
        let mut stream = mesh.endpoints(service).await;
        read_until(&mut stream, "the endpoints", |update| {
            endpoints += added(update).map_or(0, |set| set.addrs.len());
            true
        })
        .await;
        streams.push(stream);
    }
    let with = mesh.memory();
    println!("a proxy for each Service and {endpoints} endpoints, in {:.1?}: {with}", start.elapsed());
    assert_eq!(endpoints, objects::ENDPOINTS, "endpoints of all Services together");

    for (number, name) in [(0, "large"), (services.len() - 1, "small")] {
        let mut times = Times(Vec::new());
        for change in 0..20 {
            let ip = [10, 255, 0, change];
            let arrival = read_until(&mut streams[number], "the endpoint", |update| adds(update, ip));
            let write = async { api.put("endpointslices", services[number].slice_with(ip)) };
            times.0.push(measure(write, arrival).await);
        }
        times.assert_median(&format!("EndpointSlice of a {name} Service to Get"), LARGE);
    }

    let start = Instant::now();
    let mut popular = Vec::new();
    for _ in 0..PROXIES {
        let mut stream = mesh.endpoints(&services[0]).await;
        read_until(&mut stream, "the endpoints", |update| added(update).is_some()).await;
        popular.push(stream);
    }
    let more = mesh.memory();
    println!("{PROXIES} proxies more, for one large Service, in {:.1?}: {more}", start.elapsed());
    let mut times = Times(Vec::new());
    for change in 0..20 {
        let ip = [10, 255, 1, change];
        let arrivals = popular.iter_mut().map(|stream| read_until(stream, "the endpoint", |update| adds(update, ip)));
        let write = async { api.put("endpointslices", services[0].slice_with(ip)) };
        times.0.push(measure(write, future::join_all(arrivals).map(drop)).await);
    }
    // Most of that is this side's, which reads for all of them.
    println!("EndpointSlice of a large Service to all of them: {times}");
    drop(popular);

    let channel = within("a connection", mesh.policy.connect()).await.unwrap();
    let mut client = InboundServerPoliciesClient::new(channel);
    let mut ports = Vec::new();
    for (service, number) in Large::pods().step_by(objects::ENDPOINTS / PORTS) {
        let spec = PortSpec { workload: format!("{}:{}", service.namespace, service.pod_name(number)), port: 8080 };
        let watched = within("the headers of WatchPort", client.watch_port(spec)).await;
        let mut servers = watched.unwrap().into_inner();
        read_until(&mut servers, "the default policy", |server| !is_http1(server)).await;
        ports.push(servers);
    }
    let mut change = async |protocol: &str, service: &LargeService| {
        let wanted = protocol == "HTTP/1";
        let arrival = read_until(&mut ports[0], "the protocol", |server| is_http1(server) == wanted);
        let server = objects::server(&service.namespace, &service.name, protocol);
        measure(async { api.put("servers", server) }, arrival).await
    };
    // The last of them is the one whose port is looked at.
    for service in services.iter().skip(1).filter(|service| service.namespace == services[0].namespace) {
        api.put("servers", objects::server(&service.namespace, &service.name, "opaque"));
    }
    println!("a Server for each Service of a namespace, in {:.1?}", change("HTTP/1", &services[0]).await);
    let mut times = Times(Vec::new());
    for protocol in ["opaque", "HTTP/1"].repeat(10) {
        times.0.push(change(protocol, &services[0]).await);
    }
    // Without optimisation most of it is the comparison of labels.
    let most = if cfg!(debug_assertions) { 5 * LARGE } else { LARGE };
    times.assert_median(&format!("Server to WatchPort, of one of {PORTS} ports"), most);

    for (what, memory) in [("without proxies", without), ("with proxies", with)] {
        assert!(memory.resident <= MEMORY, "{what}: expected at most {} MB, found {memory}", MEMORY >> 20);
    }
    let each = more.resident.saturating_sub(with.resident) / PROXIES;
    assert!(each <= EACH, "expected at most {EACH} bytes for each further proxy of a Service, found {each}");
}
