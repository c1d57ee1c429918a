//! Routes as the API serves them. They differ in how they match.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

pub(crate) type HttpRoute = Route<HttpMatch>;
pub(crate) type GrpcRoute = Route<GrpcMatch>;
/// A TLSRoute or a TCPRoute.
pub(crate) type TcpRoute = Route<NoMatch>;

#[derive(Debug, Clone, Deserialize)]
#[serde(bound = "M: Default + Deserialize<'de>")]
pub(crate) struct Route<M> {
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) spec: RouteSpec<M>,
    #[serde(default)]
    pub(crate) status: RouteStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, bound = "M: Default + Deserialize<'de>")]
pub(crate) struct RouteSpec<M> {
    pub(crate) parent_refs: Vec<ParentRef>,
    pub(crate) hostnames: Vec<String>,
    pub(crate) rules: Vec<RouteRule<M>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct RouteStatus {
    pub(crate) parents: Vec<ParentStatus>,
}

/// What a controller says of a parent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ParentStatus {
    pub(crate) parent_ref: ParentRef,
    pub(crate) controller_name: String,
    pub(crate) conditions: Vec<Condition>,
}

/// A condition without its time, which says nothing of how things are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) observed_generation: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ParentRef {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) section_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, bound = "M: Default + Deserialize<'de>")]
pub(crate) struct RouteRule<M> {
    pub(crate) matches: Vec<M>,
    pub(crate) filters: Vec<Filter>,
    pub(crate) backend_refs: Vec<BackendRef>,
    /// HTTPRoutes alone have these.
    pub(crate) timeouts: Option<Timeouts>,
}

impl<M> RouteRule<M> {
    /// Its own filters, and those of each of its backends.
    pub(crate) fn all_filters(&self) -> impl Iterator<Item = &[Filter]> {
        [&*self.filters].into_iter().chain(self.backend_refs.iter().map(|backend| &*backend.filters))
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct HttpMatch {
    pub(crate) path: Option<TypedValue>,
    pub(crate) headers: Vec<NamedValue>,
    pub(crate) query_params: Vec<NamedValue>,
    pub(crate) method: Option<String>,
}

/// What all connections match.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct NoMatch {}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct GrpcMatch {
    pub(crate) method: Option<GrpcMethod>,
    pub(crate) headers: Vec<NamedValue>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct GrpcMethod {
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) service: Option<String>,
    pub(crate) method: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TypedValue {
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) value: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NamedValue {
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) name: String,
    pub(crate) value: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Filter {
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) request_header_modifier: Option<HeaderModifier>,
    pub(crate) response_header_modifier: Option<HeaderModifier>,
    pub(crate) request_redirect: Option<Redirect>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct HeaderModifier {
    pub(crate) set: Vec<NamedValue>,
    pub(crate) add: Vec<NamedValue>,
    pub(crate) remove: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Redirect {
    pub(crate) scheme: Option<String>,
    pub(crate) hostname: Option<String>,
    pub(crate) path: Option<RedirectPath>,
    pub(crate) port: Option<u16>,
    pub(crate) status_code: Option<u16>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RedirectPath {
    pub(crate) replace_full_path: Option<String>,
    pub(crate) replace_prefix_match: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct BackendRef {
    pub(crate) group: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) name: String,
    pub(crate) namespace: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) weight: Option<u32>,
    pub(crate) filters: Vec<Filter>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Timeouts {
    pub(crate) request: Option<String>,
    pub(crate) backend_request: Option<String>,
}
