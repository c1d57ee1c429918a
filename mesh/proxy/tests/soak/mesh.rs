//! The mesh under test: two clients' proxies and, behind a Service that is split in two, pods that come and go.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use linkerd2_proxy_api::{
    destination::{DestinationProfile, Route},
    inbound::proxy_protocol::{Detect, Kind},
    inbound::{Network, Server},
    meta::{Metadata, metadata},
    outbound::{
        ExponentialBackoff, OutboundPolicy,
        http_route::{Retry, retry},
        proxy_protocol,
    },
};
use tokio::{net::TcpListener, time};

use crate::{
    app::App,
    child::{Original, ProxyProcess},
    ledger::Ledger,
    support::{Authority, Connection, ControlPlane, Setup, Who, authz, client, leg, policy, profile, route, server},
};

pub const CLIENT: &str = "client.ns.serviceaccount.identity.linkerd.cluster.local";
pub const MARKED: &str = "marked.ns.serviceaccount.identity.linkerd.cluster.local";
const SERVER: &str = "server.ns.serviceaccount.identity.linkerd.cluster.local";

const HOST: &str = "web.ns.svc.cluster.local";
const LEGS: [&str; 2] = ["web-a.ns.svc.cluster.local:80", "web-b.ns.svc.cluster.local:80"];

/// `client(n)` of those who use the Service, and of those who ask a pod directly whether its policy is in force.
pub const CLIENTS: u8 = 1;
const PROBES: u8 = 7;
/// Where policies see the probes.
const PROBE: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 9);

/// Proxies ask for the next when 70 % of it are over.
const LIFETIME: Duration = Duration::from_millis(1400);
const PATIENCE: Duration = Duration::from_secs(30);

/// Addresses come back, as those of pods do: what a proxy counts for an address that is gone it keeps for ten minutes.
const ADDRESSES: u8 = 8;

fn cluster_ip() -> SocketAddr {
    ([10, 96, 0, 1], 80).into()
}

/// What the Service's routes say about a second attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A policy without retries.
    Once,
    /// A policy with retries.
    Policy,
    /// A ServiceProfile whose routes are retryable.
    Profile,
}

pub struct Pod {
    pub number: u32,
    pub address: SocketAddr,
    pub proxy: ProxyProcess,
    pub app: App,
}

pub struct Mesh {
    pub ledger: Arc<Ledger>,
    pub control: ControlPlane,
    authority: Authority,
    /// The unmarked and the marked clients'.
    pub proxies: [ProxyProcess; 2],
    /// By leg; the first of each stays to the end.
    pub pods: [Vec<Pod>; 2],
    pub mode: Mode,
    /// Whether the marked client is let in.
    pub allowed: bool,
    addresses: VecDeque<SocketAddr>,
    next: u32,
}

/// The text of one proxy's `/metrics`, without what looking at it adds.
pub struct Scrape(pub String);

impl Scrape {
    pub async fn of(proxy: &ProxyProcess) -> Self {
        let mut connection = Connection::open(client(250), proxy.admin).await;
        let all = connection.get("/metrics", &[("connection", "close")]).await.body;
        let own = format!("target_addr=\"{}\"", proxy.admin);
        Self(all.split_inclusive('\n').filter(|line| !line.contains(&own)).collect())
    }

    /// The sum over all series whose text contains all of `parts`, the first of which is the name.
    pub fn sum(&self, parts: &[&str]) -> i64 {
        let lines = self.0.lines().filter(|line| {
            let rest = line.strip_prefix(parts[0]);
            rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && parts.iter().all(|part| line.contains(part))
        });
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<i64>().unwrap()).sum()
    }
}

impl Mesh {
    pub async fn start(ledger: &Arc<Ledger>) -> Self {
        let (authority, control) = (Authority::start(LIFETIME).await, ControlPlane::start().await);
        let mut addresses = VecDeque::new();
        for n in 1..=ADDRESSES {
            let listener = TcpListener::bind((Ipv4Addr::new(127, 1, 0, n), 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            control.identify(address, SERVER);
            if n % 2 == 0 {
                control.carry(address);
            }
            addresses.push_back(address);
        }
        let outbound = |name| {
            let originals = [Original { client: client(CLIENTS), original: cluster_ip(), seen: client(CLIENTS) }];
            let setup = identified(name, &authority, &control)
                .with("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", "300ms")
                .with("LINKERD2_PROXY_OUTBOUND_DISCOVERY_IDLE_TIMEOUT", "1s")
                // All that was counted is looked at in the end, of whoever it was.
                .with("LINKERD2_PROXY_METRICS_RETAIN_IDLE", "24h");
            async move { ProxyProcess::start(setup, &originals).await }
        };
        let proxies = [outbound(CLIENT).await, outbound(MARKED).await];
        let mut mesh = Self {
            ledger: Arc::clone(ledger),
            control,
            authority,
            proxies,
            pods: [Vec::new(), Vec::new()],
            mode: Mode::Once,
            allowed: true,
            addresses,
            next: 0,
        };
        for leg in [0, 0, 1, 1] {
            let pod = mesh.start_pod().await;
            mesh.pods[leg].push(pod);
        }
        mesh.publish(&[0, 1]);
        mesh.set_mode(Mode::Once, [1, 1]);
        mesh.known().await;
        mesh
    }

    /// Waits until the clients' proxies have heard of every pod: they ask when the first request comes, and none of the soak's is to
    /// wait for that.
    async fn known(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        for proxy in &self.proxies {
            loop {
                let mut first = Connection::open(client(CLIENTS), proxy.outbound).await;
                // Without a number applications refuse it, and it is none of those that are accounted for.
                first.get("/", &[("connection", "close")]).await;
                let ready = Scrape::of(proxy).await.sum(&["outbound_http_balancer_endpoints"]);
                if ready == 4 {
                    break;
                }
                assert!(Instant::now() < deadline, "expected a proxy that knows 4 endpoints, found {ready}");
            }
        }
    }

    /// A pod that serves, with its policy in force.
    pub async fn start_pod(&mut self) -> Pod {
        let (number, address) = (self.next, self.addresses.pop_front().unwrap());
        self.next += 1;
        let mut app = App::start(number, &self.ledger).await;
        // A proxy serves no application at the port of its own, which on another address may be free.
        while app.address.port() == address.port() {
            app = App::start(number, &self.ledger).await;
        }
        let port = app.address.port();
        self.control.set_server(port, self.server());
        let setup = identified(SERVER, &self.authority, &self.control)
            .with("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", &address.to_string())
            .with("LINKERD2_PROXY_INBOUND_DISCOVERY_IDLE_TIMEOUT", "1s")
            .with("LINKERD2_PROXY_METRICS_RETAIN_IDLE", "24h")
            .with("LINKERD2_PROXY_INBOUND_PORTS", &port.to_string());
        let from = |client, seen| Original { client, original: app.address, seen };
        let originals =
            [from(Ipv4Addr::LOCALHOST.into(), IpAddr::from([10, 1, 2, 3])), from(client(PROBES), PROBE.into())];
        let proxy = ProxyProcess::start(setup, &originals).await;
        let pod = Pod { number, address, proxy, app };
        self.policy_in_force(&pod).await;
        pod
    }

    /// The address of a pod that is gone.
    pub fn free(&mut self, address: SocketAddr) {
        self.addresses.push_back(address);
    }

    /// Tells the control plane the endpoints of these legs as they are.
    pub fn publish(&self, legs: &[usize]) {
        for leg in legs {
            let addresses: Vec<_> = self.pods[*leg].iter().map(|pod| pod.address).collect();
            self.control.set_endpoints(LEGS[*leg], &addresses);
        }
    }

    pub fn empty(&self, legs: &[usize]) {
        legs.iter().for_each(|leg| self.control.set_endpoints(LEGS[*leg], &[]));
    }

    /// Ends when both clients' proxies know this many endpoints.
    pub async fn endpoints_known(&self, count: usize) {
        let what = format!("{count} endpoints");
        self.until(&what, |_, scrape| scrape.sum(&["outbound_http_balancer_endpoints"]) == count as i64).await;
    }

    pub fn pod_count(&self) -> usize {
        self.pods.iter().map(Vec::len).sum()
    }

    async fn until(&self, what: &str, holds: impl Fn(usize, &Scrape) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        for (index, proxy) in self.proxies.iter().enumerate() {
            loop {
                let scrape = Scrape::of(proxy).await;
                if holds(index, &scrape) {
                    break;
                }
                let events = self.ledger.events().join("\n");
                assert!(Instant::now() < deadline, "{what}: not so at proxy {index}:\n{}\n{events}", scrape.0);
                time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Sets what second attempts there are and how the Service is split. [`Self::mode_in_force`] waits for it.
    pub fn set_mode(&mut self, mode: Mode, weights: [u32; 2]) {
        self.mode = mode;
        let target = cluster_ip().to_string();
        let legs: Vec<_> = LEGS.into_iter().zip(weights).collect();
        let plain = profile(HOST);
        let profile = match mode {
            Mode::Profile => DestinationProfile {
                routes: vec![Route { is_retryable: true, ..route("all", "/.*") }],
                dst_overrides: legs.iter().map(|(name, weight)| leg(name, *weight)).collect(),
                ..plain
            },
            Mode::Once | Mode::Policy => plain,
        };
        let mut policy = policy("web", &legs);
        if mode == Mode::Policy {
            retried(&mut policy);
        }
        self.control.set_policy(&target, policy);
        self.control.set_profile(&target, Ok(profile));
    }

    /// How many requests each clients' proxy has sent by the rules of a mode.
    pub async fn sent_by(&self, mode: Mode) -> [i64; 2] {
        let [first, second] = &self.proxies;
        [mode.sent(&Scrape::of(first).await), mode.sent(&Scrape::of(second).await)]
    }

    /// Ends when requests go by the rules of the mode that is set, of which there were so many before.
    pub async fn mode_in_force(&self, before: [i64; 2]) {
        let mode = self.mode;
        self.until(&format!("{mode:?}"), |index, scrape| mode.sent(scrape) > before[index]).await;
    }

    pub fn set_allowed(&mut self, allowed: bool) {
        self.allowed = allowed;
        for pod in self.pods.iter().flatten() {
            self.control.set_server(pod.app.address.port(), self.server());
        }
    }

    /// Ends when a pod's policy lets in whom it should.
    pub async fn policy_in_force(&self, pod: &Pod) {
        let deadline = Instant::now() + PATIENCE;
        let expected = if self.allowed { 200 } else { 403 };
        loop {
            let mut probe = Connection::open(client(PROBES), pod.proxy.inbound).await;
            let found = probe.get("/", &[("x-probe", "1"), ("connection", "close")]).await.status;
            if found == expected {
                return;
            }
            assert!(Instant::now() < deadline, "pod {}: a probe is answered {found}, not {expected}", pod.number);
            time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The policy of an application's port. A probe is let in together with the marked client.
    fn server(&self) -> Server {
        let timeout = Some(prost_types::Duration { seconds: 10, nanos: 0 });
        let kind = Kind::Detect(Detect { timeout, http_routes: Vec::new(), http_local_rate_limit: None });
        let mut who = vec![authz("clients", Who::Identity(CLIENT))];
        if self.allowed {
            let probe = "10.9.9.9/32".parse::<ipnet::IpNet>().unwrap();
            let mut probes = authz("probes", Who::Anybody);
            probes.networks = vec![Network { net: Some(probe.into()), except: Vec::new() }];
            who.extend([authz("marked", Who::Identity(MARKED)), probes]);
        }
        server(kind, who)
    }
}

impl Mode {
    /// Counts what only requests of this mode count.
    fn sent(self, scrape: &Scrape) -> i64 {
        match self {
            Self::Once => scrape.sum(&["outbound_http_route_backend_requests_total", "route_name=\"http\""]),
            Self::Policy => scrape.sum(&["outbound_http_route_backend_requests_total", "route_name=\"retried\""]),
            Self::Profile => scrape.sum(&["route_request_total", "direction=\"outbound\""]),
        }
    }
}

fn identified(name: &str, authority: &Authority, control: &ControlPlane) -> Setup {
    let address = control.address().to_string();
    Setup::new()
        .identified(name, authority)
        .with("LINKERD2_PROXY_IDENTITY_MIN_REFRESH", "100ms")
        .with("LINKERD2_PROXY_DESTINATION_SVC_ADDR", &address)
        .with("LINKERD2_PROXY_POLICY_SVC_ADDR", &address)
}

fn retried(policy: &mut OutboundPolicy) {
    let millis = |millis: i32| Some(prost_types::Duration { seconds: 0, nanos: millis * 1_000_000 });
    let Some(proxy_protocol::Kind::Detect(detect)) = &mut policy.protocol.as_mut().unwrap().kind else {
        panic!("the policy does not detect protocols")
    };
    let (http1, http2) = (detect.http1.as_mut().unwrap(), detect.http2.as_mut().unwrap());
    for route in http1.routes.iter_mut().chain(&mut http2.routes) {
        route.metadata = Some(Metadata { kind: Some(metadata::Kind::Default("retried".to_owned())) });
        route.rules[0].retry = Some(Retry {
            max_retries: 2,
            max_request_bytes: 64 * 1024,
            conditions: Some(retry::Conditions {
                status_ranges: vec![retry::conditions::StatusRange { start: 502, end: 504 }],
            }),
            timeout: None,
            backoff: Some(ExponentialBackoff { min_backoff: millis(1), max_backoff: millis(10), ..Default::default() }),
        });
    }
}
