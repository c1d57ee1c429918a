//! Nodes.

use crate::{
    Key,
    objects::wire::{self, labels},
};

/// The label of the zone that a node, or an ExternalWorkload, is in.
pub(crate) const ZONE: &str = "topology.kubernetes.io/zone";

/// What is kept of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name, in no namespace.
    pub(crate) key: Key,
    /// The zone that it is in, by its label.
    pub(crate) zone: Option<String>,
}

impl From<wire::Node> for Node {
    fn from(node: wire::Node) -> Self {
        let zone = labels(&node.metadata).get(ZONE).filter(|zone| !zone.is_empty()).cloned();
        Self { key: wire::key(&node.metadata), zone }
    }
}
