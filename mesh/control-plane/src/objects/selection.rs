//! How a Service selects its endpoints.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::objects::wire::{self, NumberOrString};

/// What a Service's EndpointSlices are made by. An ExternalName, and a Service without a selector, have none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(crate) uid: String,
    /// The Service's own labels, which its slices have as well.
    pub(crate) labels: BTreeMap<String, String>,
    /// The labels that an endpoint has to have; not empty.
    pub(crate) selector: BTreeMap<String, String>,
    /// Its ports, of any protocol.
    pub(crate) ports: Vec<SelectedPort>,
    /// The families of its addresses; every one if it does not say.
    pub(crate) families: Vec<Family>,
    /// Whether it has no address of its own, so that its endpoints have names.
    pub(crate) is_headless: bool,
    /// Whether it is being deleted.
    pub(crate) is_going: bool,
}

/// A port of a Service, and which port of an endpoint that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SelectedPort {
    /// Empty if it has none.
    pub(crate) name: String,
    /// `TCP`, if it does not say.
    pub(crate) protocol: String,
    pub(crate) target: TargetPort,
}

/// Which port of an endpoint is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TargetPort {
    Number(u16),
    Name(String),
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Reads `ipFamilies` of a Service, or `addressType` of a slice.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == text)
    }

    /// The name, as both have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// Whether the address is one of it.
    pub(crate) fn has(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == (self == Self::V4)
    }
}

impl Selection {
    pub(super) fn of(metadata: &ObjectMeta, spec: &wire::ServiceSpec) -> Option<Self> {
        let selector = spec.selector.clone().filter(|selector| !selector.is_empty())?;
        if spec.type_ == "ExternalName" {
            return None;
        }
        let families = spec.ip_families.iter().flatten().filter_map(|family| Family::parse(family));
        let families: Vec<_> = families.collect();
        Some(Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            labels: wire::labels(metadata).clone(),
            selector,
            ports: spec.ports.iter().map(SelectedPort::of).collect(),
            families: if families.is_empty() { Family::ALL.to_vec() } else { families },
            is_headless: spec.cluster_ip == "None",
            is_going: metadata.deletion_timestamp.is_some(),
        })
    }
}

impl SelectedPort {
    /// Without a target it is the port of the same number.
    fn of(port: &wire::ServicePort) -> Self {
        let target = match &port.target_port {
            Some(NumberOrString::String(name)) if !name.is_empty() => TargetPort::Name(name.clone()),
            Some(NumberOrString::Number(number)) if *number as u16 != 0 => TargetPort::Number(*number as u16),
            _ => TargetPort::Number(port.port),
        };
        Self { name: port.name.clone(), protocol: wire::protocol(&port.protocol).into(), target }
    }
}
