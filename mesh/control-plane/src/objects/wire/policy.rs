//! The kinds of `policy.linkerd.io` but its routes, as the API serves them: who may connect to a pod, and what may be reached outside.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Deserialize;

use super::{NumberOrString, route::Condition};

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Server {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: ServerSpec,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServerSpec {
    /// A Server has this or the next.
    pub(crate) pod_selector: Option<LabelSelector>,
    pub(crate) external_workload_selector: Option<LabelSelector>,
    pub(crate) port: NumberOrString,
    #[serde(default)]
    pub(crate) proxy_protocol: String,
    #[serde(default)]
    pub(crate) access_policy: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ServerAuthorization {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: ServerAuthorizationSpec,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ServerAuthorizationSpec {
    pub(crate) server: ServerRef,
    pub(crate) client: Client,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ServerRef {
    pub(crate) name: Option<String>,
    pub(crate) selector: Option<LabelSelector>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Client {
    pub(crate) networks: Option<Vec<Network>>,
    #[serde(default)]
    pub(crate) unauthenticated: bool,
    #[serde(rename = "meshTLS")]
    pub(crate) mesh_tls: Option<MeshTls>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct MeshTls {
    #[serde(rename = "unauthenticatedTLS")]
    pub(crate) unauthenticated_tls: bool,
    pub(crate) identities: Vec<String>,
    pub(crate) service_accounts: Vec<Reference>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Network {
    pub(crate) cidr: String,
    #[serde(default)]
    pub(crate) except: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Reference {
    pub(crate) group: Option<String>,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) namespace: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct AuthorizationPolicy {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: AuthorizationPolicySpec,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuthorizationPolicySpec {
    pub(crate) target_ref: Reference,
    #[serde(default)]
    pub(crate) required_authentication_refs: Vec<Reference>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct MeshTLSAuthentication {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: MeshTLSAuthenticationSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct MeshTLSAuthenticationSpec {
    pub(crate) identities: Vec<String>,
    pub(crate) identity_refs: Vec<Reference>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct NetworkAuthentication {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: NetworkAuthenticationSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NetworkAuthenticationSpec {
    pub(crate) networks: Vec<Network>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct EgressNetwork {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: EgressNetworkSpec,
    #[serde(default)]
    pub(crate) status: EgressNetworkStatus,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EgressNetworkSpec {
    pub(crate) networks: Option<Vec<Network>>,
    pub(crate) traffic_policy: TrafficPolicy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum TrafficPolicy {
    Allow,
    Deny,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct EgressNetworkStatus {
    pub(crate) conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct HttpLocalRateLimitPolicy {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: HttpLocalRateLimitPolicySpec,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HttpLocalRateLimitPolicySpec {
    pub(crate) target_ref: Reference,
    pub(crate) total: Option<Limit>,
    pub(crate) identity: Option<Limit>,
    #[serde(default)]
    pub(crate) overrides: Vec<LimitOverride>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Limit {
    pub(crate) requests_per_second: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LimitOverride {
    pub(crate) requests_per_second: u32,
    #[serde(default)]
    pub(crate) client_refs: Vec<Reference>,
}
