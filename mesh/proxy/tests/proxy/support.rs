//! A control plane, applications and clients, all on loopback: what a proxy meets in a pod.

mod apps;
mod authority;
mod client;
mod control_plane;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use meshgate_proxy::{Config, FixedDst, LogLevel, OriginalDst, Proxy};

pub use apps::{App, Body, served_by, text};
pub use authority::Authority;
pub use client::{Connection, H2Body, Reply, h2};
pub use control_plane::{
    ControlPlane, Who, authz, endpoint, grpc_policy, grpc_rule, leg, policy, profile, route, server, with_http2,
    with_identity, with_opaque_transport,
};

/// A proxy, and from where it is dialled: each client address has an original destination.
pub struct Mesh {
    pub proxy: Proxy,
    pub control: ControlPlane,
}

/// What a proxy is started with.
pub struct Setup {
    variables: HashMap<String, String>,
    original: HashMap<IpAddr, FixedDst>,
    log: Option<LogLevel>,
}

/// The `n`th client: connections from its address are for the `n`th original destination.
pub fn client(n: u8) -> IpAddr {
    Ipv4Addr::new(127, 9, 0, n).into()
}

impl Setup {
    pub fn new() -> Self {
        let variables = [
            ("LINKERD2_PROXY_OUTBOUND_LISTEN_ADDRS", "127.0.0.1:0"),
            ("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", "127.0.0.1:0"),
            ("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", "127.0.0.1:0"),
            ("LINKERD2_PROXY_POLICY_WORKLOAD", "ns:pod"),
            ("LINKERD2_PROXY_DESTINATION_CONTEXT", "{\"ns\":\"ns\"}"),
            ("LINKERD2_PROXY_DESTINATION_PROFILE_NETWORKS", "127.0.0.0/8,10.0.0.0/8"),
            ("MESHGATE_PROXY_OUTBOUND_LOOPBACK", "allow"),
        ];
        Self {
            variables: variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            original: HashMap::new(),
            log: None,
        }
    }

    pub fn ingress() -> Self {
        Self::new().with("LINKERD2_PROXY_INGRESS_MODE", "true")
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// With an identity that `authority` certifies.
    pub fn identified(self, name: &str, authority: &Authority) -> Self {
        self.with("LINKERD2_PROXY_IDENTITY_SVC_ADDR", &authority.address().to_string())
            .with("LINKERD2_PROXY_IDENTITY_LOCAL_NAME", name)
            .with("LINKERD2_PROXY_IDENTITY_TOKEN_FILE", authority.token_file())
            .with("LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS", authority.anchor())
    }

    /// Connections from `client(n)` are for `original`.
    pub fn original(mut self, n: u8, original: SocketAddr) -> Self {
        self.original.insert(client(n), FixedDst { original, client: None });
        self
    }

    /// The same, and policies see the client at `address`, not on loopback.
    pub fn original_from(self, n: u8, address: &str, original: SocketAddr) -> Self {
        self.original_seen(client(n), address.parse().unwrap(), original)
    }

    /// Connections from `client` are for `original`.
    pub fn original_of(mut self, client: IpAddr, original: SocketAddr) -> Self {
        self.original.insert(client, FixedDst { original, client: None });
        self
    }

    /// Connections from `client`, that policies see at another address, are for `original`.
    pub fn original_seen(mut self, client: IpAddr, seen: IpAddr, original: SocketAddr) -> Self {
        self.original.insert(client, FixedDst { original, client: Some(seen) });
        self
    }

    /// The log's filter is this.
    #[allow(dead_code, reason = "the soak does not use it")]
    pub fn logging(self, log: LogLevel) -> Self {
        Self { log: Some(log), ..self }
    }

    /// For a proxy in a process of its own.
    #[allow(dead_code, reason = "the soak uses it")]
    pub fn into_variables(self) -> HashMap<String, String> {
        self.variables
    }

    pub async fn start(self) -> Mesh {
        let control = ControlPlane::start().await;
        self.start_with(control).await
    }

    pub async fn start_with(mut self, control: ControlPlane) -> Mesh {
        for name in ["LINKERD2_PROXY_DESTINATION_SVC_ADDR", "LINKERD2_PROXY_POLICY_SVC_ADDR"] {
            self.variables.entry(name.to_owned()).or_insert_with(|| control.address().to_string());
        }
        let config = Config::from_strings(&self.variables).unwrap();
        let original = OriginalDst::Fixed(Arc::new(self.original));
        let proxy = Proxy::start(config, original, self.log).await.unwrap();
        Mesh { proxy, control }
    }
}

impl Mesh {
    /// A connection of `client(n)` to the outbound side.
    pub async fn connect(&self, n: u8) -> Connection {
        Connection::open(client(n), self.proxy.addresses().outbound[0]).await
    }

    /// A connection of `client(n)` to the inbound side.
    pub async fn connect_inbound(&self, n: u8) -> Connection {
        Connection::open(client(n), self.proxy.addresses().inbound).await
    }

    /// A connection to the admin server.
    pub async fn admin(&self) -> Connection {
        Connection::open(client(250), self.proxy.addresses().admin).await
    }

    /// Asks the admin server by another method than GET, with a body.
    pub async fn ask_admin(&self, method: &str, path: &str, body: &str) -> Reply {
        let mut connection = self.admin().await;
        let length = body.len();
        connection.send(format!("{method} {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{body}")).await;
        connection.reply().await
    }

    /// The text of `/metrics`, without what looking at it adds.
    pub async fn metrics(&self) -> String {
        let own = self.own_target();
        let all = self.all_metrics().await;
        all.split_inclusive('\n').filter(|line| !line.contains(&own)).collect()
    }

    /// The text of `/metrics`.
    pub async fn all_metrics(&self) -> String {
        let mut connection = self.admin().await;
        connection.send("GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n").await;
        connection.reply().await.body
    }

    /// The label of what is counted of the admin server itself.
    pub fn own_target(&self) -> String {
        format!("target_addr=\"{}\"", self.proxy.addresses().admin)
    }

    /// The value of the series with this name and exactly these labels.
    pub async fn metric(&self, series: &str) -> Option<u64> {
        let metrics = self.metrics().await;
        let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(line.parse().unwrap())
    }

    /// The sum over all series whose text contains all of `parts`, the first of which is the name.
    pub async fn sum(&self, parts: &[&str]) -> u64 {
        let metrics = self.metrics().await;
        let lines =
            metrics.lines().filter(|line| line.starts_with(parts[0]) && parts.iter().all(|part| line.contains(part)));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// Waits until the sum is `expected`.
    pub async fn wait_for_sum(&self, parts: &[&str], expected: u64) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let sum = self.sum(parts).await;
            if sum == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{parts:?} is {sum}, not {expected}:\n{}", self.metrics().await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
