//! What to do with connections that are not looked into, and under which labels they are counted.
//!
//! | where the connection goes | parent | route | logical |
//! |---|---|---|---|
//! | over a ServiceProfile's split | the profile's Service | `serviceprofile` | the profile's name |
//! | by a policy | the policy's | the policy's | the address |
//! | nowhere, by a policy that says nothing | the policy's | `invalid` | the address |
//! | nowhere, for there is an error in place of the policy | `endpoint` or `fallback` | the same | the address |
//! | to a profile's Service, in ingress mode | that Service | `profile` | the address |
//! | to a profile's endpoint, or past a profile | `endpoint`, or the policy's | `endpoint` | the address |
//! | to the address itself | `fallback`, or the policy's | `fallback` | the address |
//!
//! These are the names of Linkerd's proxy (`linkerd/app/outbound/src/discover.rs`, `opaq.rs`), but in ingress mode: there the parent of
//! every Service without a policy is `profile`, which tells none from the other.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use linkerd2_proxy_api::{
    destination::DestinationProfile,
    meta::{Metadata, metadata},
    outbound::{Backend as ApiBackend, OpaqueRoute, OutboundPolicy, opaque_route, proxy_protocol::Kind},
};

use super::{Backend, Parts, Shared, backend_labels, is_opaque};
use crate::{
    NameAddr, Target,
    balance::{Balancer, Endpoint},
    http::{EndpointLoad, ProxyError},
    io::Io,
    metrics::{BalancerScope, Labels, PassedOn, TcpRoute, TcpRouteError, service_labels},
    policy::{metadata_labels, unusable},
    profile::ServiceProfile,
    split::Split,
};

/// What to do with a target's connections.
pub(in crate::outbound) struct TcpPlan {
    /// Counts them.
    pub(in crate::outbound) route: TcpRoute,
    pub(in crate::outbound) to: Carried,
}

/// Where connections go.
pub(in crate::outbound) enum Carried {
    /// To one of these.
    Backends(Split<TcpLeg>),
    /// Nowhere: the policy says so.
    Refused(TcpRouteError),
}

/// A backend, or why the policy says that the connections that are for it go nowhere.
pub(in crate::outbound) type TcpLeg = Result<TcpBackend, TcpRouteError>;

/// Where a connection goes.
pub(in crate::outbound) enum TcpBackend {
    /// To one of a Service's endpoints.
    Balanced(BalancedConnections),
    /// To this address.
    Endpoint(Arc<Endpoint>),
}

/// A balancer, and what counts the connections that ask it for an endpoint.
pub(in crate::outbound) struct BalancedConnections {
    balancer: Arc<Balancer>,
    what: PassedOn,
    labels: Labels,
    scope: OnceLock<Arc<BalancerScope>>,
}

/// Whose connections they are.
struct Logical {
    /// The labels of the parent.
    parent: Labels,
    /// An address, or a profile's name.
    name: String,
    /// The labels `target_ip` and `target_port`.
    target: Labels,
}

impl TcpPlan {
    /// To an address of which nobody was asked.
    pub(super) fn forward(address: SocketAddr, endpoint: &Arc<Endpoint>, parts: &Parts) -> Self {
        let logical = Logical::of(&Target::Address(address), default_labels("parent", "fallback"));
        Self {
            route: parts.route(&logical, default_labels("route", "fallback")),
            to: Carried::to(TcpBackend::Endpoint(Arc::clone(endpoint))),
        }
    }

    /// Nowhere, as long as it is not known whether there is a policy.
    pub(super) fn unknown(target: &Target, parent: Labels, parts: &Parts) -> Self {
        Self {
            route: parts.route(&Logical::of(target, parent), default_labels("route", "fallback")),
            to: Carried::Refused(TcpRouteError::Unexpected),
        }
    }
}

impl Parts {
    pub(super) fn tcp(
        &self,
        target: &Target,
        profile: Option<&DestinationProfile>,
        policy: Option<&OutboundPolicy>,
    ) -> TcpPlan {
        if let Some(profile) = profile
            && let Some(plan) = self.tcp_split(target, profile)
        {
            return plan;
        }
        if let Some(policy) = policy
            && let Some(plan) = self.tcp_policy(target, policy)
        {
            return plan;
        }
        let (backend, name) = match self.fallback(target, profile) {
            Some(Backend::Endpoint(endpoint)) => {
                (Some(TcpBackend::Endpoint(endpoint)), if profile.is_some() { "endpoint" } else { "fallback" })
            }
            Some(Backend::Balanced(balancer)) => {
                let service = balancer.name();
                let logical = Logical::of(target, service_labels("parent", service));
                let backend = logical.balanced(&balancer, &service_labels("backend", service), service);
                return TcpPlan {
                    route: self.route(&logical, default_labels("route", "profile")),
                    to: Carried::to(backend),
                };
            }
            None => (None, "fallback"),
        };
        let parent = parent_labels(profile, policy);
        TcpPlan {
            route: self.route(&Logical::of(target, parent), default_labels("route", name)),
            to: backend.map_or(Carried::Refused(TcpRouteError::Forbidden), Carried::to),
        }
    }

    /// A profile's split, if it has one.
    fn tcp_split(&self, target: &Target, profile: &DestinationProfile) -> Option<TcpPlan> {
        let legs: Vec<_> = ServiceProfile::legs(profile).collect();
        let name = NameAddr::new(&profile.fully_qualified_name, target.port());
        let logical = match (&name, target) {
            (Some(name), _) => Logical::of(&Target::Name(name.clone()), service_labels("parent", name)),
            (None, target) => Logical::of(target, default_labels("parent", "serviceprofile")),
        };
        let split = Split::new(legs.into_iter().map(|(leg, weight)| {
            let balancer = self.leg(profile, &leg);
            (Ok(logical.balanced(&balancer, &service_labels("backend", &leg), &leg)), weight)
        }));
        let route = || self.route(&logical, default_labels("route", "serviceprofile"));
        (!split.is_empty()).then(|| TcpPlan { route: route(), to: Carried::Backends(split) })
    }

    /// What a policy says about connections, if it does.
    fn tcp_policy(&self, target: &Target, policy: &OutboundPolicy) -> Option<TcpPlan> {
        let logical = Logical::of(target, parent_labels(None, Some(policy)));
        if unusable(policy).is_some() {
            let route = self.route(&logical, default_labels("route", "invalid"));
            return Some(TcpPlan { route, to: Carried::Refused(TcpRouteError::InvalidPolicy) });
        }
        let plan = |route: &OpaqueRoute, to| {
            let labels = route.metadata.as_ref().map(|metadata| metadata_labels("route", metadata));
            TcpPlan { route: self.route(&logical, labels.unwrap_or_default()), to }
        };
        let rules = || opaque_routes(policy).iter().flat_map(|route| route.rules.iter().map(move |rule| (route, rule)));
        let refused = |(route, rule): (_, &opaque_route::Rule)| Some((route, refusal(&rule.filters)?));
        if let Some((route, error)) = rules().find_map(refused) {
            return Some(plan(route, Carried::Refused(error)));
        }
        let (route, backends) = rules().find_map(|(route, rule)| Some((route, rule.backends.as_ref()?)))?;
        let split = self.opaque_backends(backends, &Shared::connections(policy), &logical);
        Some(plan(route, Carried::Backends(split)))
    }

    fn opaque_backends(
        &self,
        distribution: &opaque_route::Distribution,
        shared: &Shared,
        logical: &Logical,
    ) -> Split<TcpLeg> {
        use opaque_route::distribution::Kind as Distribution;
        let backend = |api: &ApiBackend| match self.backend(api, shared) {
            Some(Backend::Endpoint(endpoint)) => Ok(TcpBackend::Endpoint(endpoint)),
            Some(Backend::Balanced(balancer)) => Ok(logical.balanced(&balancer, &backend_labels(api), balancer.name())),
            // Its share goes to no other.
            None => Err(TcpRouteError::InvalidBackend),
        };
        let leg = |route: &opaque_route::RouteBackend| match refusal(&route.filters) {
            Some(error) => Err(error),
            None => backend(route.backend.as_ref().unwrap_or(&ApiBackend::default())),
        };
        let nothing = opaque_route::RouteBackend::default();
        match &distribution.kind {
            Some(Distribution::FirstAvailable(first)) => Split::ordered(first.backends.iter().map(leg)),
            Some(Distribution::RandomAvailable(random)) => Split::new(
                random.backends.iter().map(|one| (leg(one.backend.as_ref().unwrap_or(&nothing)), one.weight)),
            ),
            Some(Distribution::Empty(_)) | None => Split::new([]),
        }
    }

    fn route(&self, logical: &Logical, route: Labels) -> TcpRoute {
        let labels = logical.parent.clone().followed_by(&route).followed_by(&logical.target);
        self.metrics.routes_of(PassedOn::Bytes).route(labels)
    }
}

impl Carried {
    fn to(backend: TcpBackend) -> Self {
        Self::Backends(Split::new([(Ok(backend), 1)]))
    }
}

impl Logical {
    fn of(target: &Target, parent: Labels) -> Self {
        let labels = match target {
            Target::Address(address) => Labels::new().with_display("target_ip", address.ip()),
            Target::Name(_) => Labels::new().with("target_ip", ""),
        };
        Self { parent, name: target.to_string(), target: labels.with_display("target_port", target.port()) }
    }

    fn balanced(&self, balancer: &Arc<Balancer>, backend: &Labels, concrete: &NameAddr) -> TcpBackend {
        let labels = self.parent.clone().followed_by(backend).with("logical", &self.name);
        TcpBackend::balanced(balancer, PassedOn::Bytes, labels.with_display("concrete", concrete))
    }
}

impl TcpBackend {
    /// A balancer, whose connections are counted under these labels.
    pub(super) fn balanced(balancer: &Arc<Balancer>, what: PassedOn, labels: Labels) -> Self {
        let balancer = Arc::clone(balancer);
        Self::Balanced(BalancedConnections { balancer, what, labels, scope: OnceLock::new() })
    }

    /// Whether a split should consider it.
    pub(in crate::outbound) fn is_available(&self) -> bool {
        match self {
            Self::Balanced(balanced) => balanced.balancer.is_available(),
            Self::Endpoint(_) => true,
        }
    }

    /// The balancer, if it is one that nothing is known of yet.
    pub(in crate::outbound) fn unknown(&self) -> Option<&Balancer> {
        match self {
            Self::Balanced(balanced) => Some(&*balanced.balancer).filter(|balancer| balancer.is_unknown()),
            Self::Endpoint(_) => None,
        }
    }

    /// A connection. What comes along counts as load until it is dropped.
    pub(in crate::outbound) async fn connect(&self) -> Result<(Io, EndpointLoad), ProxyError> {
        let (io, endpoint) = match self {
            Self::Balanced(BalancedConnections { balancer, what, labels, scope }) => {
                let scope = scope.get_or_init(|| balancer.connections(*what, labels));
                balancer.connect(scope).await?
            }
            Self::Endpoint(endpoint) => (endpoint.connect().await.map_err(ProxyError::Connect)?, Arc::clone(endpoint)),
        };
        Ok((io, EndpointLoad::new(&endpoint)))
    }
}

impl Shared {
    /// Connections that are not looked into. They have no failures to count, and what only they use is no balancer of requests.
    pub(super) fn connections(policy: &OutboundPolicy) -> Self {
        let Self { parent, accrual } = Self::requests(policy);
        Self { parent: parent.filter(|_| accrual.is_none() && !is_opaque(policy)), accrual: None }
    }
}

/// The labels of what a connection is for: the policy's, or of how its address was found.
pub(in crate::outbound) fn parent_labels(
    profile: Option<&DestinationProfile>,
    policy: Option<&OutboundPolicy>,
) -> Labels {
    match (policy, profile) {
        (Some(policy), _) => {
            policy.metadata.as_ref().map(|metadata| metadata_labels("parent", metadata)).unwrap_or_default()
        }
        (None, Some(_)) => default_labels("parent", "endpoint"),
        (None, None) => default_labels("parent", "fallback"),
    }
}

/// Why a route, or one of its backends, refuses connections, if it does. What says that it is invalid is a backend, as with Linkerd's
/// proxy.
fn refusal(filters: &[opaque_route::Filter]) -> Option<TcpRouteError> {
    filters.iter().find_map(|filter| {
        Some(match filter.kind.as_ref()? {
            opaque_route::filter::Kind::Forbidden(_) => TcpRouteError::Forbidden,
            opaque_route::filter::Kind::Invalid(_) => TcpRouteError::InvalidBackend,
        })
    })
}

/// The labels of the parent of connections whose requests say where they go, of which nothing is known but that.
pub(in crate::outbound) fn ingress_labels() -> Labels {
    default_labels("parent", "ingress")
}

/// The labels of what no object of the cluster stands for.
fn default_labels(prefix: &str, name: &str) -> Labels {
    metadata_labels(prefix, &Metadata { kind: Some(metadata::Kind::Default(name.to_owned())) })
}

fn opaque_routes(policy: &OutboundPolicy) -> &[OpaqueRoute] {
    match policy.protocol.as_ref().and_then(|protocol| protocol.kind.as_ref()) {
        Some(Kind::Opaque(opaque)) => &opaque.routes,
        Some(Kind::Detect(detect)) => detect.opaque.as_ref().map_or(&[], |opaque| &opaque.routes),
        Some(Kind::Http1(_) | Kind::Http2(_) | Kind::Grpc(_) | Kind::Tls(_)) | None => &[],
    }
}
