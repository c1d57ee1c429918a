//! What to do with a target's requests and connections: one answer about its profile and one about its policy, compiled.
//!
//! | profile | policy | name (ingress mode) | address |
//! |---|---|---|---|
//! | routes or a split | any | the profile's | the profile's |
//! | else | found | the policy's | the policy's |
//! | an endpoint | none | that endpoint | that endpoint |
//! | a name only | none | balanced | ingress mode: balanced, else the address itself |
//! | nothing | none | 404 | the address itself |
//! | an error | any (name), none (address) | 404 or 503 at once | the address itself |
//!
//! This is what was measured on Linkerd's proxy, but for the last row: there a request to a name that the control plane
//! has an error for hangs, or waits 3 s for endpoints that it knows cannot come.

use std::{net::SocketAddr, sync::Arc};

use ::http::{Request, Response};
use linkerd2_proxy_api::{
    destination::{DestinationProfile, WeightedAddr},
    outbound::{
        Backend as ApiBackend, OpaqueRoute, OutboundPolicy, backend, backend::endpoint_discovery, opaque_route,
        proxy_protocol::Kind,
    },
};
use tonic::Code;
use tracing::warn;

use super::balancers::Balancers;
use crate::{
    NameAddr, Target,
    balance::{Accrual, Balancer, Endpoint, EndpointFactory, EndpointInfo},
    control::Answer,
    http::{EndpointLoad, ProxyError, RequestBody, ResponseBody, SendError},
    io::Io,
    metrics::{Counter, Metrics},
    policy::{self, BackendOf, Routes, Statuses, metadata_labels},
    profile::{ResponseClasses, ServiceProfile, overrides_policy},
    split::Split,
};

/// What plans are made from.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) balancers: Arc<Balancers>,
    pub(super) factory: EndpointFactory,
    pub(super) ingress: bool,
    /// Requests fail where there is no policy.
    pub(super) needs_policy: bool,
    pub(super) metrics: Metrics,
}

/// What to do with a target's traffic.
pub(super) struct Plan {
    pub(super) http: HttpPlan,
    pub(super) tcp: TcpPlan,
    /// Connections are passed on as they are, without detection.
    pub(super) opaque: bool,
}

/// What to do with requests.
pub(super) enum HttpPlan {
    /// A ServiceProfile's routes over its split.
    Profile(ServiceProfile, Split<Backend>),
    /// A policy's routes.
    Policy(Routes<PolicyBackend>),
    /// All to one place.
    Backend(Backend),
    /// The name leads nowhere.
    NoSuchService,
    /// Nowhere, since there is no policy for it.
    NoPolicy,
    /// The control plane has an error for the name.
    Failed(String),
}

/// What to do with other connections.
pub(super) enum TcpPlan {
    /// Pass them on.
    Backends(Split<Backend>),
    /// Close them: the policy says so.
    Forbidden,
}

/// Where requests go.
#[derive(Clone)]
pub(super) enum Backend {
    /// One of a Service's endpoints.
    Balanced(Arc<Balancer>),
    /// This address.
    Endpoint(Arc<Endpoint>),
}

/// A backend of a policy's route, with its counters.
pub(super) struct PolicyBackend {
    pub(super) backend: Backend,
    pub(super) requests: Arc<Counter>,
    pub(super) statuses: Statuses,
}

impl Plan {
    /// Everything goes to this address.
    pub(super) fn forward(address: SocketAddr, parts: &Parts) -> Self {
        let backend = Backend::Endpoint(Arc::new(parts.factory.make(address, None, EndpointInfo::default())));
        Self { http: HttpPlan::Backend(backend.clone()), tcp: TcpPlan::Backends(parts.only(backend)), opaque: false }
    }

    pub(super) fn compile(
        target: &Target,
        profile: &Answer<DestinationProfile>,
        policy: &Answer<OutboundPolicy>,
        parts: &Parts,
    ) -> Self {
        let found = match profile {
            Answer::Found(profile) => Some(&**profile),
            Answer::Nothing | Answer::Failed(_) => None,
        };
        let policy = match policy {
            Answer::Found(policy) => Some(&**policy),
            Answer::Nothing | Answer::Failed(_) => None,
        };
        Self {
            opaque: found.is_some_and(|profile| profile.opaque_protocol) || policy.is_some_and(is_opaque),
            http: parts.http(target, profile, found, policy),
            tcp: parts.tcp(target, found, policy),
        }
    }
}

impl Parts {
    fn http(
        &self,
        target: &Target,
        answer: &Answer<DestinationProfile>,
        profile: Option<&DestinationProfile>,
        policy: Option<&OutboundPolicy>,
    ) -> HttpPlan {
        if self.needs_policy && policy.is_none() {
            return HttpPlan::NoPolicy;
        }
        if let Some(profile) = profile
            && overrides_policy(profile)
            && let Some(compiled) = ServiceProfile::compile(profile, target.port())
        {
            let legs = self.legs(profile);
            let backends = if legs.is_empty() { self.only(self.balanced(compiled.name())) } else { legs };
            return HttpPlan::Profile(compiled, backends);
        }
        if let (Target::Name(_), Answer::Failed(status)) = (target, answer) {
            return match status.code() {
                Code::NotFound | Code::InvalidArgument | Code::FailedPrecondition => HttpPlan::NoSuchService,
                _ => HttpPlan::Failed(status.message().to_owned()),
            };
        }
        if let Some(policy) = policy {
            let accrual = policy::accrual(policy);
            let backend = |backend: &ApiBackend, of: &BackendOf<'_>| self.policy_backend(backend, of, accrual);
            if let Some(routes) = policy::compile(policy, &self.metrics, backend) {
                return HttpPlan::Policy(routes);
            }
        }
        self.fallback(target, profile).map_or(HttpPlan::NoSuchService, HttpPlan::Backend)
    }

    fn tcp(&self, target: &Target, profile: Option<&DestinationProfile>, policy: Option<&OutboundPolicy>) -> TcpPlan {
        if let Some(profile) = profile {
            let legs = self.legs(profile);
            if !legs.is_empty() {
                return TcpPlan::Backends(legs);
            }
        }
        if let Some(routes) = policy.and_then(opaque_routes) {
            let rules = || routes.iter().flat_map(|route| &route.rules);
            if rules().any(|rule| rule.filters.iter().any(|filter| filter.kind.is_some())) {
                return TcpPlan::Forbidden;
            }
            if let Some(backends) = rules().find_map(|rule| rule.backends.as_ref()) {
                return TcpPlan::Backends(self.opaque_backends(backends));
            }
        }
        match self.fallback(target, profile) {
            Some(backend) => TcpPlan::Backends(self.only(backend)),
            None => TcpPlan::Forbidden,
        }
    }

    /// Where traffic goes without routes and without policy.
    fn fallback(&self, target: &Target, profile: Option<&DestinationProfile>) -> Option<Backend> {
        if let Some(endpoint) = profile.and_then(|profile| profile.endpoint.as_ref())
            && let Some(backend) = self.forward(endpoint)
        {
            return Some(backend);
        }
        let name = profile.and_then(|profile| NameAddr::new(&profile.fully_qualified_name, target.port()));
        match (target, name) {
            (Target::Name(_), Some(name)) => Some(self.balanced(&name)),
            (Target::Address(_), Some(name)) if self.ingress => Some(self.balanced(&name)),
            (Target::Address(address), _) => {
                Some(Backend::Endpoint(Arc::new(self.factory.make(*address, None, Default::default()))))
            }
            (Target::Name(_), None) => None,
        }
    }

    fn legs(&self, profile: &DestinationProfile) -> Split<Backend> {
        Split::new(ServiceProfile::legs(profile).map(|(name, weight)| (self.balanced(&name), weight)))
    }

    fn only(&self, backend: Backend) -> Split<Backend> {
        Split::new([(backend, 1)])
    }

    fn balanced(&self, name: &NameAddr) -> Backend {
        Backend::Balanced(self.balancers.get(name, None))
    }

    fn forward(&self, endpoint: &WeightedAddr) -> Option<Backend> {
        let address = SocketAddr::try_from(endpoint.addr?).ok()?;
        Some(Backend::Endpoint(Arc::new(self.factory.make(address, None, EndpointInfo::of(endpoint, [])))))
    }

    fn backend(&self, api: &ApiBackend, accrual: Option<Accrual>) -> Option<Backend> {
        let backend = match api.kind.as_ref() {
            Some(backend::Kind::Forward(endpoint)) => self.forward(endpoint),
            Some(backend::Kind::Balancer(balancer)) => {
                match balancer.discovery.as_ref().and_then(|it| it.kind.as_ref()) {
                    Some(endpoint_discovery::Kind::Dst(dst)) => {
                        NameAddr::parse(&dst.path).map(|name| Backend::Balanced(self.balancers.get(&name, accrual)))
                    }
                    None => None,
                }
            }
            None => None,
        };
        if backend.is_none() {
            warn!(backend = ?api.metadata, "a backend of a policy is ignored: it has no address and no `name:port`");
        }
        backend
    }

    fn policy_backend(&self, api: &ApiBackend, of: &BackendOf<'_>, accrual: Option<Accrual>) -> Option<PolicyBackend> {
        let own = api.metadata.as_ref().map(|metadata| metadata_labels("backend", metadata)).unwrap_or_default();
        let labels = of.labels.clone().followed_by(&own);
        Some(PolicyBackend {
            backend: self.backend(api, accrual)?,
            requests: self.metrics.routes(of.protocol).backend_requests.hold(&labels),
            statuses: of.statuses(&self.metrics, labels),
        })
    }

    fn opaque_backends(&self, distribution: &opaque_route::Distribution) -> Split<Backend> {
        use opaque_route::distribution::Kind as Distribution;
        match &distribution.kind {
            Some(Distribution::FirstAvailable(first)) => Split::new(
                first
                    .backends
                    .iter()
                    .find_map(|route| self.backend(route.backend.as_ref()?, None))
                    .map(|backend| (backend, 1)),
            ),
            Some(Distribution::RandomAvailable(random)) => Split::new(random.backends.iter().filter_map(|weighted| {
                Some((self.backend(weighted.backend.as_ref()?.backend.as_ref()?, None)?, weighted.weight))
            })),
            Some(Distribution::Empty(_)) | None => Split::new([]),
        }
    }
}

impl Backend {
    /// Whether a split should consider it.
    pub(super) fn is_available(&self) -> bool {
        match self {
            Self::Balanced(balancer) => balancer.is_available(),
            Self::Endpoint(_) => true,
        }
    }

    pub(super) async fn send(
        &self,
        request: Request<RequestBody>,
        classes: Option<&Arc<ResponseClasses>>,
    ) -> Result<Response<ResponseBody>, ProxyError> {
        match self {
            Self::Balanced(balancer) => balancer.send(request, classes).await,
            Self::Endpoint(endpoint) => match endpoint.send(request, classes.cloned()).await {
                Ok(response) => Ok(response),
                Err(SendError::Broken(error)) => Err(ProxyError::Broken(error)),
                Err(SendError::NotSent(_, error)) => {
                    let error = ProxyError::Connect(error);
                    endpoint.count_unsent(&error);
                    Err(error)
                }
            },
        }
    }

    /// A connection for anything but HTTP. What comes along counts as load until it is dropped.
    pub(super) async fn connect(&self) -> Result<(Io, EndpointLoad), ProxyError> {
        let (io, endpoint) = match self {
            Self::Balanced(balancer) => balancer.connect().await?,
            Self::Endpoint(endpoint) => (endpoint.connect().await.map_err(ProxyError::Connect)?, Arc::clone(endpoint)),
        };
        Ok((io, EndpointLoad::new(&endpoint)))
    }
}

fn is_opaque(policy: &OutboundPolicy) -> bool {
    let kind = policy.protocol.as_ref().and_then(|protocol| protocol.kind.as_ref());
    matches!(kind, Some(Kind::Opaque(_) | Kind::Tls(_)))
}

fn opaque_routes(policy: &OutboundPolicy) -> Option<&[OpaqueRoute]> {
    match policy.protocol.as_ref()?.kind.as_ref()? {
        Kind::Opaque(opaque) => Some(&opaque.routes),
        Kind::Detect(detect) => detect.opaque.as_ref().map(|opaque| &opaque.routes[..]),
        Kind::Http1(_) | Kind::Http2(_) | Kind::Grpc(_) | Kind::Tls(_) => None,
    }
}
