//! Pods, and what ExternalWorkloads are kept as.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{
    Key, Kind, PortSet,
    objects::{
        ExternalWorkload,
        wire::{self, annotation, labels},
    },
};

const TEMPLATE_HASH: &str = "pod-template-hash";

/// The injector's label on a pod that has a proxy.
const CONTROL_PLANE: &str = "linkerd.io/control-plane-ns";

/// The injector's name for the port of a proxy's inbound side.
pub(super) const PROXY_PORT: &str = "linkerd-proxy";

/// Its name for the port at which a proxy tells of itself.
const ADMIN_PORT: &str = "linkerd-admin";

const SKIPPED_PORTS: &str = "config.linkerd.io/skip-inbound-ports";

const IDENTITY_PORTS: &str = "config.linkerd.io/proxy-require-identity-inbound-ports";

/// What is kept of a pod, or of an ExternalWorkload, which is to the mesh what a pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub(crate) kind: Kind,
    pub(crate) key: Key,
    /// Addresses that are this pod's alone: none for a pod on the node's network or one that has ended.
    pub(crate) ips: Vec<IpAddr>,
    /// Its `hostPort`s: addresses of its node, and where in the pod each leads.
    pub(crate) host_ports: Vec<(SocketAddr, SocketAddr)>,
    /// The labels of its metrics: `pod`, its owner's kind, `serviceaccount` and so on; of an ExternalWorkload `external_workload`.
    pub(crate) metric_labels: HashMap<String, String>,
    /// The ports its annotation declares opaque; `None` if it has none, and the cluster's default holds.
    pub(crate) opaque_ports: Option<PortSet>,
    /// Who may connect to it.
    pub(crate) inbound_policy: InboundPolicy,
    /// The ports at which whoever connects has to have an identity, whatever that policy is.
    pub(crate) identity_ports: PortSet,
    /// Its proxy, if it has one.
    pub(crate) proxy: Option<Proxy>,
    /// Its labels, by which Servers select it.
    pub(crate) labels: BTreeMap<String, String>,
    /// Its containers' ports that have names, those of init containers included: a sidecar may be one, a proxy most of all.
    pub(crate) named_ports: Vec<(String, u16)>,
    /// The paths at which the kubelet asks its containers how they are, with the port.
    pub(crate) probes: BTreeSet<(u16, String)>,
    /// What its EndpointSlices are made by, if it is an ExternalWorkload: those of pods are Kubernetes'.
    pub(crate) external: Option<Box<ExternalWorkload>>,
}

impl Pod {
    /// Pods and ExternalWorkloads may have the same name.
    pub(crate) fn id(&self) -> (Kind, Key) {
        (self.kind, self.key.clone())
    }

    /// Who may connect to a port where no Server says otherwise.
    pub(crate) fn inbound_policy_at(&self, port: u16) -> InboundPolicy {
        let wants_identity = self.identity_ports.contains(port);
        if wants_identity { self.inbound_policy.authenticated() } else { self.inbound_policy }
    }
}

/// What is known of a pod's proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    pub(crate) identity: ProxyIdentity,
    /// The ports whose connections do not pass it.
    pub(crate) skipped: PortSet,
    /// Its own, where it takes connections that say which port they are for.
    pub(crate) port: Option<u16>,
    /// Its own, where it tells of itself: connections there do not pass it either, and it answers them as itself.
    pub(crate) admin: Option<u16>,
}

/// Who a proxy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProxyIdentity {
    /// A service account of the pod's namespace, to the control plane of a namespace.
    ServiceAccount { control_plane_namespace: String, name: String },
    /// The URI in its certificate, and the name by which it is asked for: what an ExternalWorkload says of itself (`spec.meshTLS`).
    Uri { uri: String, server_name: String },
}

impl Proxy {
    fn of(metadata: &ObjectMeta, spec: &wire::PodSpec) -> Option<Self> {
        let port = |name: &str| spec.all_ports().find(|port| port.name == name).map(|port| port.container_port);
        Some(Self {
            identity: ProxyIdentity::ServiceAccount {
                control_plane_namespace: labels(metadata).get(CONTROL_PLANE).filter(|it| !it.is_empty())?.clone(),
                name: or_default(&spec.service_account_name).to_owned(),
            },
            skipped: annotation(metadata, SKIPPED_PORTS).map(PortSet::parse).unwrap_or_default(),
            port: port(PROXY_PORT),
            admin: port(ADMIN_PORT),
        })
    }
}

/// Who may connect, as an object's annotation says.
pub(super) fn inbound_policy(metadata: &ObjectMeta) -> InboundPolicy {
    let policy = annotation(metadata, "config.linkerd.io/default-inbound-policy");
    policy.and_then(InboundPolicy::parse).unwrap_or_default()
}

/// The ports at which whoever connects has to have an identity.
pub(super) fn identity_ports(metadata: &ObjectMeta) -> PortSet {
    annotation(metadata, IDENTITY_PORTS).map(PortSet::parse).unwrap_or_default()
}

/// The service account of a pod that names none.
fn or_default(service_account: &str) -> &str {
    if service_account.is_empty() { "default" } else { service_account }
}

/// Who may connect where no Server says otherwise: `config.linkerd.io/default-inbound-policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum InboundPolicy {
    #[default]
    AllUnauthenticated,
    AllAuthenticated,
    ClusterUnauthenticated,
    ClusterAuthenticated,
    Deny,
    Audit,
}

impl InboundPolicy {
    pub(crate) fn parse(value: &str) -> Option<Self> {
        [
            Self::AllUnauthenticated,
            Self::AllAuthenticated,
            Self::ClusterUnauthenticated,
            Self::ClusterAuthenticated,
            Self::Deny,
            Self::Audit,
        ]
        .into_iter()
        .find(|policy| policy.name() == value)
    }

    /// The policy of the same networks for clients with an identity. As with Linkerd, `deny` and `audit` stay what they are.
    fn authenticated(self) -> Self {
        match self {
            Self::AllUnauthenticated => Self::AllAuthenticated,
            Self::ClusterUnauthenticated => Self::ClusterAuthenticated,
            Self::AllAuthenticated | Self::ClusterAuthenticated | Self::Deny | Self::Audit => self,
        }
    }

    /// The name, as the annotation has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AllUnauthenticated => "all-unauthenticated",
            Self::AllAuthenticated => "all-authenticated",
            Self::ClusterUnauthenticated => "cluster-unauthenticated",
            Self::ClusterAuthenticated => "cluster-authenticated",
            Self::Deny => "deny",
            Self::Audit => "audit",
        }
    }
}

impl From<wire::Pod> for Pod {
    fn from(pod: wire::Pod) -> Self {
        let wire::Pod { metadata, spec, status } = pod;
        let ended = matches!(status.phase.as_str(), "Succeeded" | "Failed");
        let shared = spec.host_network || ended;
        let host_ports = if ended { Vec::new() } else { host_ports(&spec, &status) };
        let ips = std::iter::once(status.pod_ip).chain(status.pod_ips.into_iter().map(|entry| entry.ip));
        let mut ips: Vec<IpAddr> = ips.filter(|_| !shared).filter_map(|ip| ip.parse().ok()).collect();
        ips.dedup();
        Self {
            kind: Kind::Pod,
            key: wire::key(&metadata),
            ips,
            host_ports,
            metric_labels: metric_labels(&metadata, &spec.service_account_name),
            opaque_ports: annotation(&metadata, super::OPAQUE_PORTS).map(|list| {
                let by_name =
                    |name: &str| spec.all_ports().find(|port| port.name == name).map(|port| port.container_port);
                PortSet::from_items(list.split(','), by_name)
            }),
            inbound_policy: inbound_policy(&metadata),
            identity_ports: identity_ports(&metadata),
            proxy: Proxy::of(&metadata, &spec),
            named_ports: named_ports(&spec),
            probes: probes(&spec),
            external: None,
            labels: metadata.labels.unwrap_or_default(),
        }
    }
}

/// An address of the node leads to the pod's address of the same family; for a pod on the node's network that is the same address.
fn host_ports(spec: &wire::PodSpec, status: &wire::PodStatus) -> Vec<(SocketAddr, SocketAddr)> {
    let addresses = |one: &str, list: &[wire::PodIp]| -> BTreeSet<IpAddr> {
        std::iter::once(one).chain(list.iter().map(|entry| &*entry.ip)).filter_map(|ip| ip.parse().ok()).collect()
    };
    let ports = spec.all_ports().filter(|port| port.host_port != 0 && matches!(port.protocol.as_str(), "" | "TCP"));
    let ports: Vec<_> = ports.collect();
    if ports.is_empty() {
        return Vec::new();
    }
    let (nodes, pods) = (addresses(&status.host_ip, &status.host_ips), addresses(&status.pod_ip, &status.pod_ips));
    let each = nodes.iter().flat_map(|node| {
        let pod = pods.iter().find(|pod| pod.is_ipv4() == node.is_ipv4());
        let ports = ports.iter().filter(|port| {
            let only: Option<IpAddr> = port.host_ip.parse().ok();
            only.is_none_or(|only| only.is_unspecified() || only == *node)
        });
        ports.filter_map(move |port| {
            Some((SocketAddr::new(*node, port.host_port), SocketAddr::new(*pod?, port.container_port)))
        })
    });
    each.collect()
}

fn named_ports(spec: &wire::PodSpec) -> Vec<(String, u16)> {
    let ports = spec.all_ports().filter(|port| !port.name.is_empty());
    ports.map(|port| (port.name.clone(), port.container_port)).collect()
}

/// Those of native sidecars, which are init containers that stay, are probes as well: the proxy is one of them.
fn probes(spec: &wire::PodSpec) -> BTreeSet<(u16, String)> {
    let each = spec.all_containers().flat_map(|container| {
        let probes = [&container.liveness_probe, &container.readiness_probe, &container.startup_probe];
        let asks = probes.into_iter().flatten().filter_map(|probe| probe.http_get.as_ref());
        asks.filter_map(|ask| {
            let port = match &ask.port {
                wire::NumberOrString::Number(number) => *number as u16,
                // The name is one of the same container.
                wire::NumberOrString::String(name) => {
                    container.ports.iter().find(|port| port.name == *name)?.container_port
                }
            };
            let path = ask.path.split('?').next().unwrap_or_default();
            Some((port, if path.is_empty() { "/".to_owned() } else { path.to_owned() }))
        })
    });
    each.collect()
}

/// The labels Linkerd gives an endpoint. The Deployment is read from its ReplicaSet's name, which is the Deployment's and
/// the hash in the pod's label: no watch on ReplicaSets is needed.
fn metric_labels(metadata: &ObjectMeta, service_account: &str) -> HashMap<String, String> {
    let mut metric_labels = HashMap::new();
    let mut set = |label: &str, value: &str| {
        if !value.is_empty() {
            metric_labels.insert(label.to_owned(), value.to_owned());
        }
    };
    let labels = labels(metadata);
    set("pod", metadata.name.as_deref().unwrap_or_default());
    set("serviceaccount", or_default(service_account));
    let hash = labels.get(TEMPLATE_HASH).map_or("", String::as_str);
    set("pod_template_hash", hash);
    set("control_plane_ns", labels.get(CONTROL_PLANE).map_or("", String::as_str));
    let owner = metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    if let Some(owner) = owner {
        let deployment = owner.name.strip_suffix(hash).and_then(|name| name.strip_suffix('-'));
        match deployment.filter(|_| owner.kind == "ReplicaSet" && !hash.is_empty()) {
            Some(deployment) => set("deployment", deployment),
            None => set(&owner.kind.to_lowercase(), &owner.name),
        }
    }
    metric_labels
}
