//! What is kept of each object: the fields that answers depend on, in the shape answers want.
//!
//! Each kind is read in two steps. `wire` types deserialize the object as the API serves it and ignore what they do not
//! name; the types of the kind's own module are what stays in memory.

mod egress_network;
mod endpoint_slice;
mod external_workload;
mod extras;
mod failure_accrual;
mod load_bias;
mod node;
mod pod;
mod policy;
mod quantity;
mod rate_limit;
mod route;
mod selection;
mod service;
mod service_profile;
mod traffic_split;
pub(crate) mod wire;

use serde_json::Value;
use thiserror::Error;

use crate::Key;

pub(crate) use egress_network::{ACCEPTED, EgressNetwork};
pub(crate) use endpoint_slice::{Endpoint, EndpointSlice, MANAGED_BY, MANAGER, SERVICE_NAME};
pub(crate) use external_workload::ExternalWorkload;
pub(crate) use extras::Extras;
pub(crate) use load_bias::LoadBias;
pub(crate) use node::{Node, ZONE};
pub(crate) use pod::{InboundPolicy, Pod, Proxy, ProxyIdentity};
pub(crate) use policy::{
    Authentication, AuthenticationRef, Authorization, AuthorizationTarget, AuthorizedClients, Identities, IdentityRef,
    Networks, Protocol, Requires, Server,
};
pub(crate) use rate_limit::RateLimit;
pub(crate) use route::{
    GrpcRule, HttpRule, Referent, Route, RouteBackend, RouteType, Rules, TcpRule, match_everything,
};
pub(crate) use selection::{Family, SelectedPort, Selection, TargetPort};
pub(crate) use service::{AppProtocol, Service};
pub(crate) use service_profile::{Override, ServiceProfile, default_retry_budget};
pub(crate) use traffic_split::TrafficSplit;
pub(crate) use wire::route::{Condition, ParentRef, ParentStatus};

/// The annotation, on Services and pods, for ports that carry no HTTP.
const OPAQUE_PORTS: &str = "config.linkerd.io/opaque-ports";

/// The kinds that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `v1` Pod.
    Pod,
    /// `workload.linkerd.io` ExternalWorkload.
    ExternalWorkload,
    /// `v1` Node.
    Node,
    /// `linkerd.io` ServiceProfile.
    ServiceProfile,
    /// `split.smi-spec.io` TrafficSplit.
    TrafficSplit,
    /// `policy.linkerd.io` HTTPRoute.
    PolicyHttpRoute,
    /// `gateway.networking.k8s.io` HTTPRoute.
    GatewayHttpRoute,
    /// `gateway.networking.k8s.io` GRPCRoute.
    GatewayGrpcRoute,
    /// `gateway.networking.k8s.io` TLSRoute.
    GatewayTlsRoute,
    /// `gateway.networking.k8s.io` TCPRoute.
    GatewayTcpRoute,
    /// `policy.linkerd.io` Server.
    Server,
    /// `policy.linkerd.io` ServerAuthorization.
    ServerAuthorization,
    /// `policy.linkerd.io` AuthorizationPolicy.
    AuthorizationPolicy,
    /// `policy.linkerd.io` MeshTLSAuthentication.
    MeshTlsAuthentication,
    /// `policy.linkerd.io` NetworkAuthentication.
    NetworkAuthentication,
    /// `policy.linkerd.io` HTTPLocalRateLimitPolicy.
    HttpLocalRateLimitPolicy,
    /// `policy.linkerd.io` EgressNetwork.
    EgressNetwork,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 19] = [
        Self::Service,
        Self::EndpointSlice,
        Self::Pod,
        Self::ExternalWorkload,
        Self::Node,
        Self::ServiceProfile,
        Self::TrafficSplit,
        Self::PolicyHttpRoute,
        Self::GatewayHttpRoute,
        Self::GatewayGrpcRoute,
        Self::GatewayTlsRoute,
        Self::GatewayTcpRoute,
        Self::Server,
        Self::ServerAuthorization,
        Self::AuthorizationPolicy,
        Self::MeshTlsAuthentication,
        Self::NetworkAuthentication,
        Self::HttpLocalRateLimitPolicy,
        Self::EgressNetwork,
    ];
}

/// An object, reduced to what answers need. Made by [`Object::parse`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Object {
    /// A Service.
    #[doc(hidden)]
    Service(Service),
    /// An EndpointSlice.
    #[doc(hidden)]
    EndpointSlice(EndpointSlice),
    /// A Pod or an ExternalWorkload.
    #[doc(hidden)]
    Pod(Pod),
    /// A Node.
    #[doc(hidden)]
    Node(Node),
    /// A ServiceProfile.
    #[doc(hidden)]
    ServiceProfile(ServiceProfile),
    /// A TrafficSplit.
    #[doc(hidden)]
    TrafficSplit(TrafficSplit),
    /// An HTTPRoute of either group, a GRPCRoute, a TLSRoute or a TCPRoute.
    #[doc(hidden)]
    Route(Route),
    /// A Server.
    #[doc(hidden)]
    Server(Server),
    /// A ServerAuthorization or an AuthorizationPolicy.
    #[doc(hidden)]
    Authorization(Authorization),
    /// A MeshTLSAuthentication or a NetworkAuthentication.
    #[doc(hidden)]
    Authentication(Authentication),
    /// An HTTPLocalRateLimitPolicy.
    #[doc(hidden)]
    RateLimit(RateLimit),
    /// An EgressNetwork.
    #[doc(hidden)]
    EgressNetwork(EgressNetwork),
}

/// Why a value is not an object that answers could depend on.
#[derive(Debug, Error)]
pub enum ParseError {
    /// The kind is none that is read.
    #[error(
        "expected a kind of which answers of the control plane depend, such as a Service or a ServiceProfile, found apiVersion `{api_version}`, kind `{kind}`"
    )]
    Kind {
        /// The value's `apiVersion`.
        api_version: String,
        /// The value's `kind`.
        kind: String,
    },
    /// A field has a type other than the API's.
    #[error("{kind} {name}: expected the fields as the API serves them: {source}")]
    Fields {
        /// The value's `kind`.
        kind: String,
        /// The value's name.
        name: String,
        /// Which field, and what was found.
        source: serde_json::Error,
    },
}

impl Object {
    /// Reads an object as the API serves it.
    pub fn parse(object: &Value) -> Result<Self, ParseError> {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (kind, api_version) = (text("/kind"), text("/apiVersion"));
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let fields = |source| ParseError::Fields { kind: kind.into(), name: text("/metadata/name").into(), source };
        Ok(match (group, kind) {
            ("", "Service") => Self::Service(wire::read::<wire::Service>(object).map_err(fields)?.into()),
            ("discovery.k8s.io", "EndpointSlice") => {
                Self::EndpointSlice(wire::read::<wire::EndpointSlice>(object).map_err(fields)?.into())
            }
            ("", "Pod") => Self::Pod(wire::read::<wire::Pod>(object).map_err(fields)?.into()),
            ("workload.linkerd.io", "ExternalWorkload") => {
                Self::Pod(wire::read::<wire::ExternalWorkload>(object).map_err(fields)?.into())
            }
            ("", "Node") => Self::Node(wire::read::<wire::Node>(object).map_err(fields)?.into()),
            ("linkerd.io", "ServiceProfile") => {
                Self::ServiceProfile(wire::read::<wire::ServiceProfile>(object).map_err(fields)?.into())
            }
            ("split.smi-spec.io", "TrafficSplit") => {
                Self::TrafficSplit(wire::read::<wire::TrafficSplit>(object).map_err(fields)?.into())
            }
            ("policy.linkerd.io", "HTTPRoute") => {
                Self::Route(Route::http(Kind::PolicyHttpRoute, wire::read(object).map_err(fields)?))
            }
            ("gateway.networking.k8s.io", "HTTPRoute") => {
                Self::Route(Route::http(Kind::GatewayHttpRoute, wire::read(object).map_err(fields)?))
            }
            ("gateway.networking.k8s.io", "GRPCRoute") => Self::Route(Route::grpc(wire::read(object).map_err(fields)?)),
            ("gateway.networking.k8s.io", "TLSRoute") => {
                Self::Route(Route::of_connections(Kind::GatewayTlsRoute, wire::read(object).map_err(fields)?))
            }
            ("gateway.networking.k8s.io", "TCPRoute") => {
                Self::Route(Route::of_connections(Kind::GatewayTcpRoute, wire::read(object).map_err(fields)?))
            }
            ("policy.linkerd.io", "Server") => {
                Self::Server(wire::read::<wire::policy::Server>(object).map_err(fields)?.into())
            }
            ("policy.linkerd.io", "ServerAuthorization") => {
                Self::Authorization(wire::read::<wire::policy::ServerAuthorization>(object).map_err(fields)?.into())
            }
            ("policy.linkerd.io", "AuthorizationPolicy") => {
                Self::Authorization(wire::read::<wire::policy::AuthorizationPolicy>(object).map_err(fields)?.into())
            }
            ("policy.linkerd.io", "MeshTLSAuthentication") => {
                Self::Authentication(wire::read::<wire::policy::MeshTLSAuthentication>(object).map_err(fields)?.into())
            }
            ("policy.linkerd.io", "NetworkAuthentication") => {
                Self::Authentication(wire::read::<wire::policy::NetworkAuthentication>(object).map_err(fields)?.into())
            }
            ("policy.linkerd.io", "HTTPLocalRateLimitPolicy") => {
                Self::RateLimit(wire::read::<wire::policy::HttpLocalRateLimitPolicy>(object).map_err(fields)?.into())
            }
            ("policy.linkerd.io", "EgressNetwork") => {
                Self::EgressNetwork(wire::read::<wire::policy::EgressNetwork>(object).map_err(fields)?.into())
            }
            _ => return Err(ParseError::Kind { api_version: api_version.into(), kind: kind.into() }),
        })
    }

    /// The object's kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Pod(object) => object.kind,
            Self::Node(_) => Kind::Node,
            Self::ServiceProfile(_) => Kind::ServiceProfile,
            Self::TrafficSplit(_) => Kind::TrafficSplit,
            Self::Route(route) => route.kind,
            Self::Server(_) => Kind::Server,
            Self::Authorization(object) => object.kind,
            Self::Authentication(object) => object.kind,
            Self::RateLimit(_) => Kind::HttpLocalRateLimitPolicy,
            Self::EgressNetwork(_) => Kind::EgressNetwork,
        }
    }

    /// The object's namespace and name.
    pub fn key(&self) -> &Key {
        match self {
            Self::Service(object) => &object.key,
            Self::EndpointSlice(object) => &object.key,
            Self::Pod(object) => &object.key,
            Self::Node(object) => &object.key,
            Self::ServiceProfile(object) => &object.key,
            Self::TrafficSplit(object) => &object.key,
            Self::Route(object) => &object.key,
            Self::Server(object) => &object.key,
            Self::Authorization(object) => &object.key,
            Self::Authentication(object) => &object.key,
            Self::RateLimit(object) => &object.key,
            Self::EgressNetwork(object) => &object.key,
        }
    }
}
