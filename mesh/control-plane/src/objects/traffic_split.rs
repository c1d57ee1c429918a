//! TrafficSplits, both of v1alpha1 (weights as quantities) and v1alpha2 (weights as integers).

use crate::{
    Key,
    objects::{quantity, wire},
};

/// What is kept of a TrafficSplit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrafficSplit {
    pub(crate) key: Key,
    /// The Service whose traffic is split.
    pub(crate) apex: Key,
    /// The Services it goes to, with weights in thousandths. Weight 0 is left out.
    pub(crate) backends: Vec<(Key, u64)>,
}

impl From<wire::TrafficSplit> for TrafficSplit {
    fn from(split: wire::TrafficSplit) -> Self {
        let wire::TrafficSplit { metadata, spec } = split;
        let key = wire::key(&metadata);
        // Only Services of its own namespace: the first label is the name, should somebody have written it out in full.
        let service = |name: &str| Key::new(&key.namespace, name.split('.').next().unwrap_or_default());
        let backends = spec.backends.iter().filter_map(|backend| {
            let weight = quantity::millis(&backend.weight);
            if weight.is_none() {
                tracing::warn!(split = %key, backend = backend.service, weight = ?backend.weight, "expected a weight such as 500m or 80; the backend gets no traffic");
            }
            Some((service(&backend.service), weight.filter(|weight| *weight > 0)?))
        });
        Self { apex: service(&spec.service), backends: backends.collect(), key }
    }
}
