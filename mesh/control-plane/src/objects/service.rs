//! Services.

use std::net::IpAddr;

use linkerd2_proxy_api::outbound::FailureAccrual;

use crate::{
    Key, PortSet,
    objects::{
        Extras, Selection,
        failure_accrual::failure_accrual,
        load_bias::{LoadBias, load_bias},
        wire::{self, annotation},
    },
};

/// What is kept of a Service.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    pub(crate) key: Key,
    pub(crate) cluster_ips: Vec<IpAddr>,
    /// `type: ExternalName`: a name in somebody else's DNS, with no endpoints of its own.
    pub(crate) external: bool,
    /// `internalTrafficPolicy: Local`: clients inside of the cluster are served on their own node or not at all.
    pub(crate) local: bool,
    pub(crate) ports: Vec<ServicePort>,
    /// The ports its annotation declares opaque; `None` if it has none, and the cluster's default holds.
    pub(crate) opaque_ports: Option<PortSet>,
    /// When endpoints that fail are set aside; `None` is never.
    pub(crate) failure_accrual: Option<FailureAccrual>,
    /// How endpoints that refuse work count for those who choose among them; `None` is as any other.
    pub(crate) load_bias: Option<LoadBias>,
    /// Retries and timeouts of requests that no route is for.
    pub(crate) extras: Box<Extras>,
    /// What its EndpointSlices are made by, if it selects its endpoints.
    pub(crate) selection: Option<Box<Selection>>,
}

/// A TCP port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServicePort {
    pub(crate) name: String,
    pub(crate) port: u16,
    /// What it says itself that is spoken there.
    pub(crate) protocol: Option<AppProtocol>,
}

/// `appProtocol` of a port, as far as it changes how a proxy treats connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AppProtocol {
    Http1,
    Http2,
    /// `linkerd.io/opaque` or `linkerd.io/tcp`.
    Opaque,
    /// Something that a proxy does not look into. As with Linkerd, it is passed on as it is.
    Other,
}

impl AppProtocol {
    fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "" => None,
            "http" => Some(Self::Http1),
            "kubernetes.io/h2c" => Some(Self::Http2),
            "linkerd.io/opaque" | "linkerd.io/tcp" => Some(Self::Opaque),
            _ => Some(Self::Other),
        }
    }
}

impl Service {
    /// The declared port of this number.
    pub(crate) fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.port == number)
    }
}

impl From<wire::Service> for Service {
    fn from(service: wire::Service) -> Self {
        let wire::Service { metadata, spec } = service;
        let selection = Selection::of(&metadata, &spec).map(Box::new);
        let ips = if spec.cluster_ips.is_empty() { vec![spec.cluster_ip] } else { spec.cluster_ips };
        let ports = spec.ports.into_iter().filter(|port| matches!(port.protocol.as_str(), "" | "TCP"));
        let ports: Vec<_> = ports
            .map(|port| ServicePort {
                name: port.name,
                port: port.port,
                protocol: AppProtocol::parse(&port.app_protocol),
            })
            .collect();
        Self {
            key: wire::key(&metadata),
            // `None` and the empty string of headless and fresh Services are no addresses.
            cluster_ips: ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
            external: spec.type_ == "ExternalName",
            local: spec.internal_traffic_policy == "Local",
            opaque_ports: annotation(&metadata, super::OPAQUE_PORTS).map(|list| {
                let by_name = |name: &str| ports.iter().find(|port| port.name == name).map(|port| port.port);
                PortSet::from_items(list.split(','), by_name)
            }),
            failure_accrual: failure_accrual(&metadata),
            load_bias: load_bias(&metadata),
            extras: Box::new(Extras::of(&metadata)),
            selection,
            ports,
        }
    }
}
