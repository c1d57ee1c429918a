//! The environment of the proxy: `LINKERD2_PROXY_*` as Linkerd's injector writes it, and a few variables of its own.

mod control_addr;
mod cores;
mod default_policy;
mod environment;
mod parse;
mod pools;
mod stream_limits;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::SocketAddr,
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;

use crate::{dialect::Dialect, log::LogFormat};
pub use control_addr::ControlAddr;
pub use cores::Cores;
pub use default_policy::DefaultPolicy;
use parse::Reader;
pub(crate) use parse::duration as read_duration;
pub use pools::{PoolLimits, Windows};
pub use stream_limits::StreamLimits;

/// Where variables come from, so that no test needs to change the environment of its process.
pub trait Strings {
    /// The value of a variable, if it is set.
    fn get(&self, name: &str) -> Option<String>;
    /// The variables that are set.
    fn names(&self) -> Vec<String>;
}

/// The environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnvironment;

impl Strings for ProcessEnvironment {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn names(&self) -> Vec<String> {
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
    }
}

impl Strings for HashMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        HashMap::get(self, name).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}

/// Everything that can be set. Addresses and timeouts that are not set are Linkerd's.
#[derive(Debug, Clone)]
pub struct Config {
    /// `LINKERD2_PROXY_OUTBOUND_LISTEN_ADDRS`: where the application's connections are redirected to.
    pub outbound_listen_addrs: Vec<SocketAddr>,
    /// `LINKERD2_PROXY_INBOUND_LISTEN_ADDR`: where connections to the pod are redirected to.
    pub inbound_listen_addr: SocketAddr,
    /// `LINKERD2_PROXY_ADMIN_LISTEN_ADDR`: where the proxy tells of itself.
    pub admin_listen_addr: SocketAddr,
    /// `LINKERD2_PROXY_INGRESS_MODE`: requests choose their targets, not connections.
    pub ingress_mode: bool,
    /// `MESHGATE_PROXY_DIALECT`: by which rule they do.
    pub dialect: Dialect,
    /// `MESHGATE_PROXY_LOOP_GUARD`: whether requests that come back are refused.
    pub loop_guard: bool,
    /// `LINKERD2_PROXY_INBOUND_IPS`: the pod's addresses. Inbound connections to others are dropped; empty is any.
    pub inbound_ips: Vec<std::net::IpAddr>,
    /// `LINKERD2_PROXY_INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION`: ports whose connections are opaque.
    pub opaque_ports: Vec<RangeInclusive<u16>>,
    /// `LINKERD2_PROXY_INBOUND_DEFAULT_POLICY`: who may connect to a port of which the control plane has said nothing yet.
    pub inbound_default_policy: DefaultPolicy,
    /// `LINKERD2_PROXY_INBOUND_PORTS`: ports whose policies are asked for at once.
    pub inbound_ports: Vec<u16>,
    /// `LINKERD2_PROXY_INBOUND_GATEWAY_SUFFIXES`: the names that the proxy is a gateway to, without dots at either end. It is none if
    /// there are none.
    pub inbound_gateway_suffixes: Vec<String>,
    /// `LINKERD2_PROXY_POLICY_CLUSTER_NETWORKS`: where the clients are that `cluster-*` policies let in. Without it there are no such
    /// default policies, as in Linkerd.
    pub cluster_networks: Vec<IpNet>,
    /// `LINKERD2_PROXY_DESTINATION_SVC_ADDR` and `_NAME`: the Destination service.
    pub destination_addr: ControlAddr,
    /// `LINKERD2_PROXY_DESTINATION_CONTEXT`: sent with each of its calls.
    pub destination_context: String,
    /// `LINKERD2_PROXY_POLICY_SVC_ADDR` and `_NAME`: the policy service. Without it there are no policies.
    pub policy_addr: Option<ControlAddr>,
    /// `LINKERD2_PROXY_POLICY_WORKLOAD`: `namespace:pod`, sent with each of its calls.
    pub policy_workload: String,
    /// `LINKERD2_PROXY_CONTROL_STREAM_*`: how long the streams of either may say nothing, unless it is in the proxy's own pod.
    pub stream_limits: StreamLimits,
    /// `LINKERD2_PROXY_IDENTITY_*`: who the proxy is. Linkerd's proxy does not run without, and neither does this one where its control
    /// plane is not on loopback, unless `MESHGATE_PROXY_IDENTITY` is `optional`: that is for meshes without identities.
    pub identity: Option<IdentityConfig>,
    /// `LINKERD2_PROXY_DESTINATION_PROFILE_SUFFIXES`: names that can be Services, without dots at either end.
    pub profile_suffixes: Vec<String>,
    /// `LINKERD2_PROXY_DESTINATION_PROFILE_NETWORKS`: addresses that can have a profile. None can where it is not set, as in Linkerd.
    pub profile_networks: Vec<IpNet>,
    /// `LINKERD2_PROXY_OUTBOUND_CONNECT_TIMEOUT`.
    pub outbound_connect_timeout: Duration,
    /// `LINKERD2_PROXY_INBOUND_CONNECT_TIMEOUT`.
    pub inbound_connect_timeout: Duration,
    /// `LINKERD2_PROXY_OUTBOUND_DETECT_TIMEOUT`.
    pub outbound_detect_timeout: Duration,
    /// `LINKERD2_PROXY_INBOUND_DETECT_TIMEOUT`.
    pub inbound_detect_timeout: Duration,
    /// `LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT`: how long a request waits for an endpoint.
    pub failfast_timeout: Duration,
    /// `LINKERD2_PROXY_OUTBOUND_HTTP_QUEUE_CAPACITY`: how many requests for the same Service wait for an endpoint at once.
    pub queue_capacity: usize,
    /// `LINKERD2_PROXY_OUTBOUND_MAX_IN_FLIGHT`: how many of the application's requests may be without an answer at once.
    pub outbound_max_in_flight: usize,
    /// `LINKERD2_PROXY_INBOUND_MAX_IN_FLIGHT`: the same for requests to the pod.
    pub inbound_max_in_flight: usize,
    /// `LINKERD2_PROXY_OUTBOUND_DISCOVERY_IDLE_TIMEOUT`: how long an unused destination is remembered.
    pub outbound_discovery_idle_timeout: Duration,
    /// `LINKERD2_PROXY_INBOUND_DISCOVERY_IDLE_TIMEOUT`: the same for inbound profiles.
    pub inbound_discovery_idle_timeout: Duration,
    /// `LINKERD2_PROXY_INBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL` and `_TIMEOUT`: how clients of the inbound side that have gone without a
    /// word are noticed. This and the next are what Linkerd's chart sets.
    pub inbound_server_keep_alive: Option<KeepAlive>,
    /// `LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL` and `_TIMEOUT`: the same for the application as a client.
    pub outbound_server_keep_alive: Option<KeepAlive>,
    /// `MESHGATE_PROXY_CONNECT_HTTP2_KEEP_ALIVE_INTERVAL` and `_TIMEOUT`: the same for other proxies that are connected to. Linkerd's
    /// proxy is told these by its control plane, whose chart has the same.
    pub connect_keep_alive: Option<KeepAlive>,
    /// `LINKERD2_PROXY_OUTBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT` and `LINKERD2_PROXY_OUTBOUND_MAX_IDLE_CONNS_PER_ENDPOINT`: which
    /// idle HTTP/1 connections to endpoints are kept.
    pub outbound_pool: PoolLimits,
    /// `LINKERD2_PROXY_INBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT` and `LINKERD2_PROXY_MAX_IDLE_CONNS_PER_ENDPOINT`: the same for the
    /// applications of the pod.
    pub inbound_pool: PoolLimits,
    /// `LINKERD2_PROXY_HTTP2_INITIAL_STREAM_WINDOW_SIZE` and `_CONNECTION_WINDOW_SIZE`: how much of what endpoints and applications send
    /// over HTTP/2 may be on its way.
    pub connect_windows: Windows,
    /// `LINKERD2_PROXY_INBOUND_CONNECT_KEEPALIVE`: how long nothing may come from an application of the pod before the kernel asks whether
    /// it is there. Zero, as where it is not set, is forever.
    pub inbound_connect_keepalive: Option<Duration>,
    /// `LINKERD2_PROXY_OUTBOUND_CONNECT_KEEPALIVE`: how long nothing may come from an endpoint before the kernel asks whether it is there,
    /// whatever it speaks. Zero is forever.
    pub outbound_connect_keepalive: Option<Duration>,
    /// `LINKERD2_PROXY_OUTBOUND_CONNECT_USER_TIMEOUT`: how long what is sent to it may go unacknowledged, or wait for it to read on. Zero
    /// is as long as the kernel thinks fit, a quarter of an hour. Both are as in Linkerd's chart where they are not set.
    pub outbound_connect_user_timeout: Option<Duration>,
    /// `MESHGATE_PROXY_DISCOVERY_TIMEOUT`: how long a request waits for the control plane. Linkerd waits forever.
    pub discovery_timeout: Duration,
    /// `LINKERD2_PROXY_METRICS_RETAIN_IDLE`: how long a series stays on which nobody can count any more.
    pub metrics_retain_idle: Duration,
    /// `LINKERD2_PROXY_OUTBOUND_METRICS_HOSTNAME_LABELS`: whether outbound routes are counted by the host that is asked for.
    pub outbound_hostname_labels: bool,
    /// `LINKERD2_PROXY_SHUTDOWN_GRACE_PERIOD`: how long requests in flight may take after SIGTERM.
    pub shutdown_grace_period: Duration,
    /// `LINKERD2_PROXY_SHUTDOWN_ENDPOINT_ENABLED`: whether `POST /shutdown` works.
    pub shutdown_endpoint: bool,
    /// The opposite of `LINKERD2_PROXY_OUTBOUND_DISABLE_INFORMATIONAL_HEADERS`, which ingress mode sets: whether
    /// applications see `l5d-proxy-error` on answers that Linkerd's proxy gives too.
    pub informational_headers: bool,
    /// `MESHGATE_PROXY_SOCKET_MARK`: `SO_MARK` of every socket that the proxy dials with.
    pub socket_mark: Option<u32>,
    /// `MESHGATE_PROXY_OUTBOUND_LOOPBACK=allow`: whether outbound connections may go to the loopback interface, and the control plane
    /// has to prove itself there as anywhere else.
    pub allow_loopback: bool,
    /// `LINKERD2_PROXY_CORES` and its companions: how many threads the role works with. A proxy that is started in somebody else's runtime
    /// has that one's.
    pub cores: Cores,
    /// `LINKERD2_PROXY_LOG`: directives such as `warn,linkerd=debug`, where `linkerd` is this proxy.
    pub log: String,
    /// `LINKERD2_PROXY_LOG_FORMAT`: `plain` or `json`.
    pub log_format: LogFormat,
    /// All of these variables that are set, as `/env.json` shows them: without private keys.
    pub environment: BTreeMap<String, String>,
}

/// How a peer that speaks HTTP/2 and has gone without a word is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// How long nothing may come from the peer before it is asked whether it is there, by a PING. In the environment zero is never.
    pub interval: Duration,
    /// How long it may then take to say so. Otherwise the connection ends.
    pub timeout: Duration,
}

/// Who the proxy is, and how it proves that.
#[derive(Debug, Clone)]
pub struct IdentityConfig {
    /// `LINKERD2_PROXY_IDENTITY_SVC_ADDR` and `_NAME`: the identity service. Without it there is no identity.
    pub addr: ControlAddr,
    /// `LINKERD2_PROXY_IDENTITY_LOCAL_NAME`: the name that the certificate is for.
    pub local_name: String,
    /// `LINKERD2_PROXY_IDENTITY_TOKEN_FILE`: the service account's token.
    pub token_file: PathBuf,
    /// `LINKERD2_PROXY_IDENTITY_DIR`: where the key and the request for its certificate are (`key.p8`, PKCS #8, and `csr.der`, both
    /// DER), if somebody has made them. Otherwise the proxy makes its own, which no file ever holds.
    pub dir: Option<PathBuf>,
    /// `LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS`: certificates, as PEM.
    pub trust_anchors: String,
    /// `MESHGATE_PROXY_IDENTITY_LIFETIME`: how long certificates are to be valid at most; Meshgate's identity service keeps to it.
    pub lifetime: Option<Duration>,
    /// `LINKERD2_PROXY_IDENTITY_MIN_REFRESH`: how long a certificate is kept at least. Otherwise 70 % of its time.
    pub min_refresh: Duration,
    /// `LINKERD2_PROXY_IDENTITY_MAX_REFRESH`: how long at most.
    pub max_refresh: Duration,
}

/// A variable that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It must be set.
    #[error("{name} is not set: expected {expected}")]
    Missing {
        /// The variable.
        name: &'static str,
        /// What it is for.
        expected: &'static str,
    },
    /// It has a value that means nothing.
    #[error("{name}: expected {expected}, found `{found}`")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// What would have been right.
        expected: &'static str,
        /// What it is.
        found: String,
    },
}

/// Everything that is wrong with the environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the environment of the proxy is not usable, set these variables and start it again:")?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl Config {
    /// Reads every variable.
    ///
    /// # Errors
    ///
    /// All variables that are missing or cannot be read, at once.
    pub fn from_strings(strings: &impl Strings) -> Result<Self, ConfigErrors> {
        let mut read = Reader::new(strings);
        let ingress_mode = read.or("LINKERD2_PROXY_INGRESS_MODE", "`true` or `false`", parse::boolean, false);
        let allow_loopback = read.or(
            "MESHGATE_PROXY_OUTBOUND_LOOPBACK",
            "`allow` or `refuse`",
            |value| match value {
                "allow" => Some(true),
                "refuse" => Some(false),
                _ => None,
            },
            false,
        );
        let optional_identity = read.or(
            "MESHGATE_PROXY_IDENTITY",
            "`required` or `optional`",
            |value| match value {
                "required" => Some(false),
                "optional" => Some(true),
                _ => None,
            },
            false,
        );
        if strings.get("LINKERD2_PROXY_IDENTITY_DISABLED").is_some_and(|value| !value.is_empty()) {
            // As Linkerd's proxy does (`linkerd/app/src/env.rs`).
            read.refuse(
                "LINKERD2_PROXY_IDENTITY_DISABLED",
                "nothing: a proxy has an identity; without LINKERD2_PROXY_IDENTITY_SVC_ADDR and with MESHGATE_PROXY_IDENTITY=optional \
                 it has none",
            );
        }
        // Without an identity the proxy knows nobody whom it could trust.
        let verifies = strings.get("LINKERD2_PROXY_IDENTITY_SVC_ADDR").is_some();
        let mut is_away = false;
        let mut control = |addr, name| {
            let service = ControlAddr::read(&mut read, addr, name);
            is_away |= service.is_away();
            // Who has no identity is told that first, and at once.
            service.expected(&mut read, name, optional_identity || !verifies).verified(verifies, allow_loopback)
        };
        let destination_addr = control("LINKERD2_PROXY_DESTINATION_SVC_ADDR", "LINKERD2_PROXY_DESTINATION_SVC_NAME");
        let policy_addr = strings
            .get("LINKERD2_PROXY_POLICY_SVC_ADDR")
            .filter(|addr| !addr.trim().is_empty())
            .map(|_| control("LINKERD2_PROXY_POLICY_SVC_ADDR", "LINKERD2_PROXY_POLICY_SVC_NAME"));
        let identity_addr =
            verifies.then(|| control("LINKERD2_PROXY_IDENTITY_SVC_ADDR", "LINKERD2_PROXY_IDENTITY_SVC_NAME"));
        if is_away && !verifies && !optional_identity {
            read.miss(
                "LINKERD2_PROXY_IDENTITY_SVC_ADDR",
                "`host:port` of the identity service, since the control plane is not on loopback; with MESHGATE_PROXY_IDENTITY=optional \
                 the proxy has no identity",
            );
        }
        let inbound_default_policy = read.or(
            "LINKERD2_PROXY_INBOUND_DEFAULT_POLICY",
            DefaultPolicy::EXPECTED,
            DefaultPolicy::parse,
            DefaultPolicy::AllUnauthenticated,
        );
        let cluster_networks =
            read.list("LINKERD2_PROXY_POLICY_CLUSTER_NETWORKS", "networks such as `10.0.0.0/8`", parse::from_str, &[]);
        if inbound_default_policy.is_for_cluster() && cluster_networks.is_empty() {
            read.refuse(
                "LINKERD2_PROXY_INBOUND_DEFAULT_POLICY",
                "a policy for all networks, or the cluster's in LINKERD2_PROXY_POLICY_CLUSTER_NETWORKS",
            );
        }
        let config = Self {
            outbound_listen_addrs: match strings.get("LINKERD2_PROXY_OUTBOUND_LISTEN_ADDRS") {
                Some(_) => {
                    read.list("LINKERD2_PROXY_OUTBOUND_LISTEN_ADDRS", "IP addresses and ports", parse::from_str, &[])
                }
                None => vec![read.or("LINKERD2_PROXY_OUTBOUND_LISTEN_ADDR", ADDRESS, parse::from_str, OUTBOUND)],
            },
            inbound_listen_addr: read.or("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", ADDRESS, parse::from_str, INBOUND),
            admin_listen_addr: read.or("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", ADDRESS, parse::from_str, ADMIN),
            ingress_mode,
            dialect: read.or(
                "MESHGATE_PROXY_DIALECT",
                "`modern`, `documented`, `2.8`, `2.9`, `2.10.0`, `2.11` or `2.13.0`",
                Dialect::parse,
                Dialect::Modern,
            ),
            loop_guard: read.or("MESHGATE_PROXY_LOOP_GUARD", "`on` or `off`", parse::on_off, true),
            inbound_ips: read.list("LINKERD2_PROXY_INBOUND_IPS", "IP addresses", parse::from_str, &[]),
            opaque_ports: read.list(
                "LINKERD2_PROXY_INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION",
                "ports and ranges of ports such as `25,4000-4100`",
                parse::ports,
                &[],
            ),
            inbound_default_policy,
            inbound_ports: read.list("LINKERD2_PROXY_INBOUND_PORTS", "port numbers", parse::from_str, &[]),
            inbound_gateway_suffixes: read.list(
                "LINKERD2_PROXY_INBOUND_GATEWAY_SUFFIXES",
                SUFFIXES,
                parse::suffix,
                &[],
            ),
            cluster_networks,
            destination_addr,
            destination_context: strings.get("LINKERD2_PROXY_DESTINATION_CONTEXT").unwrap_or_default(),
            policy_addr,
            policy_workload: strings.get("LINKERD2_PROXY_POLICY_WORKLOAD").unwrap_or_default(),
            stream_limits: StreamLimits::read(&mut read),
            identity: identity_addr.map(|addr| IdentityConfig {
                addr,
                local_name: read.required(
                    "LINKERD2_PROXY_IDENTITY_LOCAL_NAME",
                    "a name such as `web.emojivoto.serviceaccount.identity.linkerd.cluster.local`",
                    parse::from_str,
                ),
                token_file: read.required("LINKERD2_PROXY_IDENTITY_TOKEN_FILE", "a file", parse::from_str),
                dir: read.optional("LINKERD2_PROXY_IDENTITY_DIR", "a directory", parse::from_str),
                trust_anchors: read.required(
                    "LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS",
                    "certificates as PEM",
                    parse::from_str,
                ),
                lifetime: read.optional("MESHGATE_PROXY_IDENTITY_LIFETIME", parse::DURATION, parse::duration),
                min_refresh: read.duration("LINKERD2_PROXY_IDENTITY_MIN_REFRESH", 10_000),
                max_refresh: read.duration("LINKERD2_PROXY_IDENTITY_MAX_REFRESH", 24 * 60 * 60 * 1_000),
            }),
            profile_suffixes: read.list(
                "LINKERD2_PROXY_DESTINATION_PROFILE_SUFFIXES",
                SUFFIXES,
                parse::suffix,
                &["svc.cluster.local".to_owned()],
            ),
            profile_networks: read.list(
                "LINKERD2_PROXY_DESTINATION_PROFILE_NETWORKS",
                "networks such as `10.0.0.0/8`",
                parse::from_str,
                &[],
            ),
            outbound_connect_timeout: read.duration("LINKERD2_PROXY_OUTBOUND_CONNECT_TIMEOUT", 1_000),
            inbound_connect_timeout: read.duration("LINKERD2_PROXY_INBOUND_CONNECT_TIMEOUT", 300),
            outbound_detect_timeout: read.duration("LINKERD2_PROXY_OUTBOUND_DETECT_TIMEOUT", 10_000),
            inbound_detect_timeout: read.duration("LINKERD2_PROXY_INBOUND_DETECT_TIMEOUT", 10_000),
            failfast_timeout: read.duration("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", 3_000),
            queue_capacity: read.or("LINKERD2_PROXY_OUTBOUND_HTTP_QUEUE_CAPACITY", COUNT, parse::from_str, 10_000),
            outbound_max_in_flight: read.or("LINKERD2_PROXY_OUTBOUND_MAX_IN_FLIGHT", COUNT, parse::from_str, 100_000),
            inbound_max_in_flight: read.or("LINKERD2_PROXY_INBOUND_MAX_IN_FLIGHT", COUNT, parse::from_str, 100_000),
            outbound_discovery_idle_timeout: read.duration("LINKERD2_PROXY_OUTBOUND_DISCOVERY_IDLE_TIMEOUT", 5_000),
            inbound_discovery_idle_timeout: read.duration("LINKERD2_PROXY_INBOUND_DISCOVERY_IDLE_TIMEOUT", 90_000),
            inbound_server_keep_alive: read.keep_alive(
                "LINKERD2_PROXY_INBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL",
                "LINKERD2_PROXY_INBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT",
            ),
            outbound_server_keep_alive: read.keep_alive(
                "LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL",
                "LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT",
            ),
            connect_keep_alive: read.keep_alive(
                "MESHGATE_PROXY_CONNECT_HTTP2_KEEP_ALIVE_INTERVAL",
                "MESHGATE_PROXY_CONNECT_HTTP2_KEEP_ALIVE_TIMEOUT",
            ),
            outbound_pool: PoolLimits::read(
                &mut read,
                "LINKERD2_PROXY_OUTBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT",
                "LINKERD2_PROXY_OUTBOUND_MAX_IDLE_CONNS_PER_ENDPOINT",
            ),
            inbound_pool: PoolLimits::read(
                &mut read,
                "LINKERD2_PROXY_INBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT",
                "LINKERD2_PROXY_MAX_IDLE_CONNS_PER_ENDPOINT",
            ),
            connect_windows: Windows::read(&mut read),
            inbound_connect_keepalive: Some(read.duration("LINKERD2_PROXY_INBOUND_CONNECT_KEEPALIVE", 0))
                .filter(|it| !it.is_zero()),
            outbound_connect_keepalive: Some(read.duration("LINKERD2_PROXY_OUTBOUND_CONNECT_KEEPALIVE", 10_000))
                .filter(|it| !it.is_zero()),
            outbound_connect_user_timeout: Some(read.duration("LINKERD2_PROXY_OUTBOUND_CONNECT_USER_TIMEOUT", 30_000))
                .filter(|it| !it.is_zero()),
            discovery_timeout: read.duration("MESHGATE_PROXY_DISCOVERY_TIMEOUT", 10_000),
            outbound_hostname_labels: read.or(
                "LINKERD2_PROXY_OUTBOUND_METRICS_HOSTNAME_LABELS",
                "`true` or `false`",
                parse::boolean,
                false,
            ),
            metrics_retain_idle: read.duration("LINKERD2_PROXY_METRICS_RETAIN_IDLE", 600_000),
            shutdown_grace_period: read.duration("LINKERD2_PROXY_SHUTDOWN_GRACE_PERIOD", 120_000),
            shutdown_endpoint: read.or(
                "LINKERD2_PROXY_SHUTDOWN_ENDPOINT_ENABLED",
                "`true` or `false`",
                parse::boolean,
                false,
            ),
            informational_headers: !read.or(
                "LINKERD2_PROXY_OUTBOUND_DISABLE_INFORMATIONAL_HEADERS",
                "`true` or `false`",
                parse::boolean,
                ingress_mode,
            ),
            socket_mark: read.optional(
                "MESHGATE_PROXY_SOCKET_MARK",
                "a number such as `0x2102` or `8450`",
                parse::number,
            ),
            allow_loopback,
            cores: Cores::read(strings),
            log: strings.get("LINKERD2_PROXY_LOG").unwrap_or_else(|| "warn,linkerd=info".to_owned()),
            log_format: LogFormat::parse(&strings.get("LINKERD2_PROXY_LOG_FORMAT").unwrap_or_default()),
            environment: environment::read(strings),
        };
        read.finish(config)
    }

    /// Whether inbound connections to `port` skip detection.
    pub(crate) fn is_opaque(&self, port: u16) -> bool {
        self.opaque_ports.iter().any(|ports| ports.contains(&port))
    }
}

const ADDRESS: &str = "an IP address and port such as `127.0.0.1:4140`";
const SUFFIXES: &str = "DNS suffixes such as `svc.cluster.local.`";
const COUNT: &str = "a number such as `10000`";
const OUTBOUND: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4140);
const INBOUND: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 4143);
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4191);

#[cfg(test)]
mod tests;
