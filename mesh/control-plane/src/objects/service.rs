//! Services.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use linkerd2_proxy_api::outbound::{ExponentialBackoff, FailureAccrual, failure_accrual};

use crate::{
    Key, PortSet,
    objects::{
        Extras,
        quantity::go_duration,
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
    pub(crate) ports: Vec<ServicePort>,
    /// The ports its annotation declares opaque; `None` if it has none, and the cluster's default holds.
    pub(crate) opaque_ports: Option<PortSet>,
    /// When endpoints that fail are set aside; `None` is never.
    pub(crate) failure_accrual: Option<FailureAccrual>,
    /// Retries and timeouts of requests that no route is for.
    pub(crate) extras: Box<Extras>,
}

/// A TCP port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServicePort {
    pub(crate) name: String,
    pub(crate) port: u16,
    /// `appProtocol: linkerd.io/opaque`.
    pub(crate) opaque: bool,
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
        let ips = if spec.cluster_ips.is_empty() { vec![spec.cluster_ip] } else { spec.cluster_ips };
        let ports = spec.ports.into_iter().filter(|port| matches!(port.protocol.as_str(), "" | "TCP"));
        let ports: Vec<_> = ports
            .map(|port| ServicePort {
                name: port.name,
                port: port.port,
                opaque: port.app_protocol == "linkerd.io/opaque",
            })
            .collect();
        Self {
            key: wire::key(&metadata),
            // `None` and the empty string of headless and fresh Services are no addresses.
            cluster_ips: ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
            external: spec.type_ == "ExternalName",
            opaque_ports: annotation(&metadata, super::OPAQUE_PORTS).map(|list| {
                let by_name = |name: &str| ports.iter().find(|port| port.name == name).map(|port| port.port);
                PortSet::from_items(list.split(','), by_name)
            }),
            failure_accrual: failure_accrual(&metadata),
            extras: Box::new(Extras::of(&metadata)),
            ports,
        }
    }
}

/// What the annotations `balancer.linkerd.io/failure-accrual…` say, with the defaults of Linkerd's policy controller. As there,
/// a value that cannot be read turns accrual off, and says so.
fn failure_accrual(metadata: &ObjectMeta) -> Option<FailureAccrual> {
    const MODE: &str = "balancer.linkerd.io/failure-accrual";
    let mode = annotation(metadata, MODE)?;
    let read = || -> Result<_, String> {
        if mode != "consecutive" {
            return Err(format!("expected `consecutive`, found `{mode}`"));
        }
        let value = |name: &str| annotation(metadata, &format!("{MODE}-consecutive-{name}"));
        let duration = |name: &str, default: &str| {
            let text = value(name).unwrap_or(default);
            let duration = go_duration(text).and_then(|duration| prost_types::Duration::try_from(duration).ok());
            duration.ok_or_else(|| format!("{name}: expected a duration such as `{default}`, found `{text}`"))
        };
        fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, String> {
            text.parse().map_err(|_| format!("{name}: expected a number, found `{text}`"))
        }
        let backoff = ExponentialBackoff {
            min_backoff: Some(duration("min-penalty", "1s")?),
            max_backoff: Some(duration("max-penalty", "1m")?),
            jitter_ratio: number("jitter-ratio", value("jitter-ratio").unwrap_or("0.5"))?,
            ..Default::default()
        };
        let max_failures = number("max-failures", value("max-failures").unwrap_or("7"))?;
        Ok(failure_accrual::ConsecutiveFailures { max_failures, backoff: Some(backoff) })
    };
    let consecutive = read().inspect_err(|problem| {
        tracing::warn!(service = %wire::key(metadata), problem, "failure accrual is off: its annotations cannot be read");
    });
    let kind = Some(failure_accrual::Kind::ConsecutiveFailures(consecutive.ok()?));
    Some(FailureAccrual { kind, ..Default::default() })
}
