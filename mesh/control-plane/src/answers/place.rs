//! Where a client is, as far as it decides of which endpoints it is told.

use crate::{Key, index::State};

/// The place of a client that asks for the endpoints of a Service. Clients of one place get the same answer, so that it says no
/// more than the answer depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Place {
    /// The zone of its node, if that is known.
    pub(crate) zone: Option<String>,
    /// Its node, if endpoints of other nodes are none to it.
    pub(crate) node: Option<String>,
}

impl Place {
    /// The place of a client on a node.
    ///
    /// A client that does not say where it is, as older proxies do not, is told of all endpoints. Linkerd's destination controller
    /// tells it of none where the Service has `internalTrafficPolicy: Local`.
    pub(crate) fn of(state: &State, service: &Key, node: Option<&str>) -> Self {
        let Some(node) = node else { return Self::default() };
        let local = state.service(service).is_some_and(|service| service.local);
        Self { zone: state.node(node).and_then(|node| node.zone.clone()), node: local.then(|| node.to_owned()) }
    }

    /// How near a zone is, in the words of Linkerd's label `zone_locality`.
    pub(crate) fn locality(&self, zone: Option<&str>) -> &'static str {
        match (self.zone.as_deref(), zone) {
            (Some(own), Some(zone)) if own == zone => "local",
            (Some(_), Some(_)) => "remote",
            _ => "unknown",
        }
    }
}
