//! Objects as the API serves them, as far as they are read. Unknown fields are dropped while parsing, so that what is
//! never looked at never costs memory.

pub(crate) mod policy;
pub(crate) mod route;

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Resource,
    core::{ApiResource, DynamicResourceScope},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::Key;

/// Reads a value without taking it.
pub(crate) fn read<T: DeserializeOwned>(object: &Value) -> serde_json::Result<T> {
    T::deserialize(object)
}

/// Lets kube's watcher watch a type of this module; its group and version are given when the watch starts.
macro_rules! resource {
    ($($kind:path),* $(,)?) => {$(
        impl Resource for $kind {
            type DynamicType = ApiResource;
            type Scope = DynamicResourceScope;

            fn kind(api: &ApiResource) -> Cow<'_, str> {
                api.kind.as_str().into()
            }

            fn group(api: &ApiResource) -> Cow<'_, str> {
                api.group.as_str().into()
            }

            fn version(api: &ApiResource) -> Cow<'_, str> {
                api.version.as_str().into()
            }

            fn api_version(api: &ApiResource) -> Cow<'_, str> {
                api.api_version.as_str().into()
            }

            fn plural(api: &ApiResource) -> Cow<'_, str> {
                api.plural.as_str().into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    )*};
}

resource!(
    Service,
    EndpointSlice,
    Pod,
    ExternalWorkload,
    Node,
    ServiceProfile,
    TrafficSplit,
    route::HttpRoute,
    route::GrpcRoute,
    route::TcpRoute
);
resource!(
    policy::Server,
    policy::ServerAuthorization,
    policy::AuthorizationPolicy,
    policy::MeshTLSAuthentication,
    policy::NetworkAuthentication,
    policy::HttpLocalRateLimitPolicy,
    policy::EgressNetwork,
);

/// The key in an object's metadata.
pub(crate) fn key(metadata: &ObjectMeta) -> Key {
    Key::new(metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

/// An annotation, if it is there and not empty.
pub(crate) fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(|value| value.trim()).filter(|value| !value.is_empty())
}

/// The protocol of a port, which is TCP if it does not say.
pub(crate) fn protocol(protocol: &str) -> &str {
    if protocol.is_empty() { "TCP" } else { protocol }
}

/// A number or a string.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum NumberOrString {
    Number(f64),
    String(String),
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Service {
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) spec: ServiceSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServiceSpec {
    #[serde(rename = "type")]
    pub(crate) type_: String,
    #[serde(rename = "clusterIP")]
    pub(crate) cluster_ip: String,
    #[serde(rename = "clusterIPs")]
    pub(crate) cluster_ips: Vec<String>,
    pub(crate) ports: Vec<ServicePort>,
    pub(crate) internal_traffic_policy: String,
    pub(crate) ip_families: Option<Vec<String>>,
    pub(crate) selector: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServicePort {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) protocol: String,
    pub(crate) app_protocol: String,
    pub(crate) target_port: Option<NumberOrString>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointSlice {
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) ports: Option<Vec<SlicePort>>,
    #[serde(default)]
    pub(crate) endpoints: Option<Vec<SliceEndpoint>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SlicePort {
    pub(crate) name: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) protocol: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SliceEndpoint {
    pub(crate) addresses: Vec<String>,
    pub(crate) conditions: Option<SliceConditions>,
    pub(crate) hostname: Option<String>,
    pub(crate) target_ref: Option<TargetRef>,
    pub(crate) zone: Option<String>,
    pub(crate) node_name: Option<String>,
    pub(crate) hints: Option<SliceHints>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SliceConditions {
    pub(crate) ready: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SliceHints {
    pub(crate) for_zones: Option<Vec<ForZone>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ForZone {
    pub(crate) name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TargetRef {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Node {
    pub(crate) metadata: ObjectMeta,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Pod {
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) spec: PodSpec,
    #[serde(default)]
    pub(crate) status: PodStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodSpec {
    pub(crate) service_account_name: String,
    pub(crate) host_network: bool,
    pub(crate) containers: Vec<Container>,
    pub(crate) init_containers: Vec<Container>,
}

impl PodSpec {
    /// The containers, and then the init containers, among which are sidecars. Linkerd's policy controller has them in this order
    /// (`policy-controller/k8s/index/src/inbound/workload.rs`).
    pub(crate) fn all_containers(&self) -> impl Iterator<Item = &Container> + Clone {
        self.containers.iter().chain(&self.init_containers)
    }

    /// Their ports.
    pub(crate) fn all_ports(&self) -> impl Iterator<Item = &ContainerPort> + Clone {
        self.all_containers().flat_map(|container| &container.ports)
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Container {
    pub(crate) ports: Vec<ContainerPort>,
    pub(crate) liveness_probe: Option<Probe>,
    pub(crate) readiness_probe: Option<Probe>,
    pub(crate) startup_probe: Option<Probe>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Probe {
    pub(crate) http_get: Option<HttpGet>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct HttpGet {
    #[serde(default)]
    pub(crate) path: String,
    pub(crate) port: NumberOrString,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerPort {
    pub(crate) name: String,
    pub(crate) container_port: u16,
    pub(crate) host_port: u16,
    #[serde(rename = "hostIP")]
    pub(crate) host_ip: String,
    pub(crate) protocol: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ExternalWorkload {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: ExternalWorkloadSpec,
    #[serde(default)]
    pub(crate) status: ExternalWorkloadStatus,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ExternalWorkloadSpec {
    #[serde(rename = "meshTLS")]
    pub(crate) mesh_tls: WorkloadTls,
    pub(crate) ports: Option<Vec<WorkloadPort>>,
    #[serde(rename = "workloadIPs")]
    pub(crate) workload_ips: Option<Vec<PodIp>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ExternalWorkloadStatus {
    pub(crate) conditions: Option<Vec<route::Condition>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WorkloadTls {
    pub(crate) identity: String,
    pub(crate) server_name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WorkloadPort {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) protocol: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodStatus {
    pub(crate) phase: String,
    #[serde(rename = "podIP")]
    pub(crate) pod_ip: String,
    #[serde(rename = "podIPs")]
    pub(crate) pod_ips: Vec<PodIp>,
    #[serde(rename = "hostIP")]
    pub(crate) host_ip: String,
    #[serde(rename = "hostIPs")]
    pub(crate) host_ips: Vec<PodIp>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodIp {
    pub(crate) ip: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ServiceProfile {
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) spec: ServiceProfileSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServiceProfileSpec {
    pub(crate) routes: Vec<ProfileRoute>,
    pub(crate) retry_budget: Option<RetryBudget>,
    pub(crate) dst_overrides: Vec<DstOverride>,
    pub(crate) opaque_ports: Vec<NumberOrString>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ProfileRoute {
    pub(crate) name: String,
    pub(crate) condition: Option<RequestMatch>,
    pub(crate) response_classes: Vec<ResponseClass>,
    pub(crate) is_retryable: bool,
    pub(crate) timeout: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RequestMatch {
    pub(crate) all: Option<Vec<RequestMatch>>,
    pub(crate) any: Option<Vec<RequestMatch>>,
    pub(crate) not: Option<Box<RequestMatch>>,
    pub(crate) path_regex: String,
    pub(crate) method: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ResponseClass {
    pub(crate) condition: Option<ResponseMatch>,
    pub(crate) is_failure: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ResponseMatch {
    pub(crate) all: Option<Vec<ResponseMatch>>,
    pub(crate) any: Option<Vec<ResponseMatch>>,
    pub(crate) not: Option<Box<ResponseMatch>>,
    pub(crate) status: Option<StatusRange>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StatusRange {
    pub(crate) min: u32,
    pub(crate) max: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RetryBudget {
    pub(crate) retry_ratio: f32,
    pub(crate) min_retries_per_second: u32,
    pub(crate) ttl: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct DstOverride {
    pub(crate) authority: String,
    pub(crate) weight: NumberOrString,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct TrafficSplit {
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) spec: TrafficSplitSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TrafficSplitSpec {
    pub(crate) service: String,
    pub(crate) backends: Vec<SplitBackend>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct SplitBackend {
    pub(crate) service: String,
    pub(crate) weight: NumberOrString,
}

/// The labels of an object; an empty map if it has none.
pub(crate) fn labels(metadata: &ObjectMeta) -> &BTreeMap<String, String> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    metadata.labels.as_ref().unwrap_or(&NONE)
}
