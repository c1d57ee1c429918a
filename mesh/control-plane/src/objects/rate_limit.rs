//! HTTPLocalRateLimitPolicies: how many requests per second the ports of a Server take.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    Key,
    objects::wire::{self, policy as api},
};

/// What is kept of an HTTPLocalRateLimitPolicy.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimit {
    pub(crate) key: Key,
    created: Option<Time>,
    /// The Server, if it is for one.
    pub(crate) server: Option<Key>,
    /// Of all clients together.
    pub(crate) total: Option<u32>,
    /// Of each identity, and of all clients together that have none.
    pub(crate) identity: Option<u32>,
    /// Of these service accounts together.
    pub(crate) overrides: Vec<(u32, Vec<Key>)>,
}

impl RateLimit {
    /// Of several for one Server the oldest holds, as with Linkerd. One without a time comes after all that have one.
    pub(crate) fn precedence(&self) -> impl Ord + use<> {
        (self.created.is_none(), self.created.clone(), self.key.clone())
    }
}

impl From<api::HttpLocalRateLimitPolicy> for RateLimit {
    fn from(policy: api::HttpLocalRateLimitPolicy) -> Self {
        let api::HttpLocalRateLimitPolicy { metadata, spec } = policy;
        let key = wire::key(&metadata);
        let at = &spec.target_ref;
        let server = match (at.group.as_deref().unwrap_or_default(), &*at.kind) {
            ("policy.linkerd.io", "Server") => Some(Key::new(&key.namespace, &at.name)),
            (group, kind) => {
                tracing::warn!(%key, group, kind, "expected a Server as target; nothing is limited");
                None
            }
        };
        let account = |client: &api::Reference| match (client.group.as_deref().unwrap_or_default(), &*client.kind) {
            ("" | "core", "ServiceAccount") => {
                Some(Key::new(client.namespace.as_deref().unwrap_or(&key.namespace), &client.name))
            }
            (group, kind) => {
                tracing::warn!(%key, group, kind, "expected a ServiceAccount as client; no override is for it");
                None
            }
        };
        let limit = |limit: Option<api::Limit>| limit.map(|limit| limit.requests_per_second);
        let overrides = spec
            .overrides
            .iter()
            .map(|one| (one.requests_per_second, one.client_refs.iter().filter_map(account).collect()));
        Self {
            server,
            total: limit(spec.total),
            identity: limit(spec.identity),
            overrides: overrides.collect(),
            created: metadata.creation_timestamp,
            key,
        }
    }
}
