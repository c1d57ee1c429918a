//! What to do with a target's requests and connections: one answer about its profile and one about its policy, compiled.
//!
//! | profile | policy | name (ingress mode) | address |
//! |---|---|---|---|
//! | any | an error | 503 | 503 |
//! | routes or a split | any | the profile's | the profile's |
//! | else | found | the policy's | the policy's |
//! | else | one that says nothing | 500 | 500 |
//! | else | for what is not HTTP | 502 | 502 |
//! | an endpoint | none | that endpoint | that endpoint |
//! | a name only | none | balanced | ingress mode: balanced, else the address itself |
//! | nothing | none | 404 | the address itself |
//! | an error | any (name), none (address) | 404 or 503 at once | the address itself |
//!
//! This is what was measured on Linkerd's proxy, but for the last row: there a request to a name that the control plane
//! has an error for hangs, or waits 3 s for endpoints that it knows cannot come.

mod tcp;
mod tls;

use std::{net::SocketAddr, sync::Arc};

use ::http::Response;
use linkerd2_proxy_api::{
    destination::{DestinationProfile, WeightedAddr},
    meta::{Resource, metadata},
    outbound::{Backend as ApiBackend, OutboundPolicy, backend, backend::endpoint_discovery, proxy_protocol::Kind},
};
use tonic::Code;
use tracing::warn;

pub(super) use tcp::{Carried, TcpLeg, TcpPlan, ingress_labels, parent_labels};
pub(super) use tls::TlsPlan;

use super::balancers::Balancers;
use crate::{
    NameAddr, Target,
    balance::{Accrual, Balancer, Endpoint, EndpointFactory, EndpointInfo, LoadBias},
    control::Answer,
    http::{BoxedRequest, ProxyError, ResponseBody, SendError},
    metrics::{Labels, Late, Metrics, StreamFamilies, StreamScope, service_labels},
    policy::{self, Routes, metadata_labels, metadata_name},
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
    /// What becomes of connections in place of that, where the policy says that they are TLS.
    pub(super) tls: Option<TlsPlan>,
    /// Connections are passed on as they are, without detection.
    pub(super) opaque: bool,
    /// Counts connections by what is known of their protocol before they are looked into. As with Linkerd's proxy, those of ingress
    /// mode are not counted: what is spoken there is looked for before it is known where it goes.
    pub(super) protocol: Late,
    /// The labels of what connections are for.
    pub(super) parent: Labels,
}

/// What to do with requests.
pub(super) enum HttpPlan {
    /// A ServiceProfile's routes over its split.
    Profile(ServiceProfile, Split<Backend>),
    /// A policy's routes.
    Policy(Routes<PolicyBackend>),
    /// Nowhere: the policy is none.
    Invalid(&'static str),
    /// All to one place.
    Backend(Backend),
    /// The name leads nowhere.
    NoSuchService,
    /// Nowhere, since there is no policy for it.
    NoPolicy,
    /// Nowhere: the policy is for connections that are something else.
    NotHttp,
    /// The control plane has an error for the name, or in place of the policy.
    Failed(String),
}

/// What all backends of a policy have in common.
struct Shared {
    /// The labels of the parent; without them there is nothing to count.
    parent: Option<Labels>,
    accrual: Option<Accrual>,
}

/// Where requests go.
#[derive(Clone)]
pub(super) enum Backend {
    /// One of a Service's endpoints.
    Balanced(Arc<Balancer>),
    /// This address.
    Endpoint(Arc<Endpoint>),
}

/// A backend of a policy's route, and what counts the requests that it gets from there.
pub(super) struct PolicyBackend {
    /// Or why it is none. Its share of the requests fails then, as with Linkerd's proxy.
    backend: Result<Backend, Arc<str>>,
    /// What errors call it.
    pub(super) name: Arc<str>,
    pub(super) scope: Arc<StreamScope>,
}

impl Plan {
    /// Everything goes to this address.
    pub(super) fn forward(address: SocketAddr, parts: &Parts) -> Self {
        let endpoint = Arc::new(parts.factory.make(address, None, EndpointInfo::default()));
        let tcp = TcpPlan::forward(address, &endpoint, parts);
        let parent = parent_labels(None, None);
        let protocol = parts.protocol(None, None, &parent);
        Self { http: HttpPlan::Backend(Backend::Endpoint(endpoint)), tcp, tls: None, opaque: false, protocol, parent }
    }

    pub(super) fn compile(
        target: &Target,
        profile: &Answer<DestinationProfile>,
        policy_answer: &Answer<OutboundPolicy>,
        parts: &Parts,
    ) -> Self {
        let found = match profile {
            Answer::Found(profile) => Some(&**profile),
            Answer::Nothing | Answer::Failed(_) => None,
        };
        let policy = match policy_answer {
            Answer::Found(policy) => Some(&**policy),
            Answer::Nothing | Answer::Failed(_) => None,
        };
        let parent = parent_labels(found, policy);
        let (http, tcp) = match policy_answer {
            // What is not known to have no policy does not go past one.
            Answer::Failed(status) => {
                (HttpPlan::Failed(status.message().to_owned()), TcpPlan::unknown(target, parent.clone(), parts))
            }
            Answer::Found(_) | Answer::Nothing => {
                (parts.http(target, profile, found, policy), parts.tcp(target, found, policy))
            }
        };
        Self {
            opaque: found.is_some_and(|profile| profile.opaque_protocol) || policy.is_some_and(is_opaque),
            http,
            tcp,
            tls: parts.tls(found, policy),
            protocol: parts.protocol(found, policy, &parent),
            parent,
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
            let name = compiled.name();
            let backends = if legs.is_empty() { self.only(self.balanced(name, name)) } else { legs };
            return HttpPlan::Profile(compiled, backends);
        }
        if let (Target::Name(_), Answer::Failed(status)) = (target, answer) {
            return match status.code() {
                Code::NotFound | Code::InvalidArgument | Code::FailedPrecondition => HttpPlan::NoSuchService,
                _ => HttpPlan::Failed(status.message().to_owned()),
            };
        }
        if let Some(policy) = policy {
            if let Some(problem) = policy::unusable(policy) {
                warn!(%target, problem, "requests fail by a policy that cannot be used");
                return HttpPlan::Invalid(problem);
            }
            let shared = Shared::requests(policy);
            let backend = |api: &ApiBackend, route: &Labels, families: &StreamFamilies| {
                let labels = route.clone().followed_by(&backend_labels(api));
                PolicyBackend {
                    backend: self.backend(api, &shared).ok_or_else(|| no_dispatcher(api).into()),
                    name: metadata_name(api.metadata.as_ref()),
                    scope: families.scope(labels),
                }
            };
            return policy::compile(policy, &self.metrics, backend).map_or(HttpPlan::NotHttp, HttpPlan::Policy);
        }
        self.fallback(target, profile).map_or(HttpPlan::NoSuchService, HttpPlan::Backend)
    }

    fn protocol(&self, profile: Option<&DestinationProfile>, policy: Option<&OutboundPolicy>, parent: &Labels) -> Late {
        let kind = policy.and_then(|policy| policy.protocol.as_ref()?.kind.as_ref());
        let protocol = match kind {
            _ if profile.is_some_and(|profile| profile.opaque_protocol) => "opaq",
            Some(Kind::Opaque(_)) => "opaq",
            Some(Kind::Tls(_)) => "tls",
            Some(Kind::Http1(_)) => "http/1",
            Some(Kind::Http2(_) | Kind::Grpc(_)) => "http/2",
            Some(Kind::Detect(_)) | None => "detect",
        };
        Late::new(&self.metrics.outbound_protocols, Labels::new().with("protocol", protocol).followed_by(parent))
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
            (Target::Name(_), Some(name)) => Some(self.balanced(&name, &name)),
            (Target::Address(_), Some(name)) if self.ingress => Some(self.balanced(&name, &name)),
            (Target::Address(address), _) => {
                Some(Backend::Endpoint(Arc::new(self.factory.make(*address, None, Default::default()))))
            }
            (Target::Name(_), None) => None,
        }
    }

    fn legs(&self, profile: &DestinationProfile) -> Split<Backend> {
        let legs = ServiceProfile::legs(profile);
        Split::new(legs.map(|(name, weight)| (Backend::Balanced(self.leg(profile, &name)), weight)))
    }

    /// The balancer of a leg of a profile's split.
    fn leg(&self, profile: &DestinationProfile, name: &NameAddr) -> Arc<Balancer> {
        let parent = NameAddr::new(&profile.fully_qualified_name, name.port());
        self.balancer(parent.as_ref().unwrap_or(name), name)
    }

    fn only(&self, backend: Backend) -> Split<Backend> {
        Split::new([(backend, 1)])
    }

    fn balanced(&self, parent: &NameAddr, name: &NameAddr) -> Backend {
        Backend::Balanced(self.balancer(parent, name))
    }

    /// The balancer of a Service of which nothing is known but its name, as a backend of another.
    fn balancer(&self, parent: &NameAddr, name: &NameAddr) -> Arc<Balancer> {
        let labels = service_labels("parent", parent).followed_by(&service_labels("backend", name));
        self.balancers.get(name, None, None, Some(labels))
    }

    fn forward(&self, endpoint: &WeightedAddr) -> Option<Backend> {
        let address = SocketAddr::try_from(endpoint.addr?).ok()?;
        Some(Backend::Endpoint(Arc::new(self.factory.make(address, None, EndpointInfo::of(endpoint, [])))))
    }

    fn backend(&self, api: &ApiBackend, shared: &Shared) -> Option<Backend> {
        let backend = match api.kind.as_ref() {
            Some(backend::Kind::Forward(endpoint)) => self.forward(endpoint),
            Some(backend::Kind::Balancer(balancer)) => {
                match balancer.discovery.as_ref().and_then(|it| it.kind.as_ref()) {
                    Some(endpoint_discovery::Kind::Dst(dst)) => {
                        let labels = || Some(shared.parent.clone()?.followed_by(&backend_labels(api)));
                        let bias = LoadBias::of(balancer);
                        let balancer = |name| self.balancers.get(&name, shared.accrual, bias, labels());
                        NameAddr::parse(&dst.path).map(|name| Backend::Balanced(balancer(name)))
                    }
                    None => None,
                }
            }
            None => None,
        };
        if backend.is_none() {
            warn!(backend = ?api.metadata, "what is for a backend of a policy fails: it has no address and no `name:port`");
        }
        backend
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

    /// The balancer, if it is one that nothing is known of yet.
    pub(super) fn unknown(&self) -> Option<&Balancer> {
        match self {
            Self::Balanced(balancer) => Some(&**balancer).filter(|balancer| balancer.is_unknown()),
            Self::Endpoint(_) => None,
        }
    }

    pub(super) async fn send(
        &self,
        request: BoxedRequest,
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
}

impl PolicyBackend {
    /// Whether a split should consider it. One that fails all that it gets does not wait for anything.
    pub(super) fn is_available(&self) -> bool {
        self.backend.as_ref().map_or(true, Backend::is_available)
    }

    /// The balancer, if it is one that nothing is known of yet.
    pub(super) fn unknown(&self) -> Option<&Balancer> {
        self.backend.as_ref().ok()?.unknown()
    }

    pub(super) async fn send(&self, request: BoxedRequest) -> Result<Response<ResponseBody>, ProxyError> {
        match &self.backend {
            Ok(backend) => backend.send(request, None).await,
            Err(why) => Err(ProxyError::NoDispatcher(Arc::clone(why))),
        }
    }
}

impl Shared {
    /// Requests.
    fn requests(policy: &OutboundPolicy) -> Self {
        let parent = policy.metadata.as_ref().map(|metadata| metadata_labels("parent", metadata));
        Self { parent: Some(parent.unwrap_or_default()), accrual: policy::accrual(policy) }
    }
}

fn backend_labels(api: &ApiBackend) -> Labels {
    api.metadata.as_ref().map(|metadata| metadata_labels("backend", metadata)).unwrap_or_default()
}

/// What Linkerd's proxy says of a backend that leads nowhere (`linkerd/proxy/client-policy/src/lib.rs`).
fn no_dispatcher(api: &ApiBackend) -> String {
    match api.metadata.as_ref().and_then(|metadata| metadata.kind.as_ref()) {
        Some(metadata::Kind::Resource(Resource { kind, namespace, name, .. })) => {
            format!("backend for {kind} {namespace}/{name} has no dispatcher")
        }
        Some(metadata::Kind::Default(name)) => format!("backend for default {name} has no dispatcher"),
        None => "backend has no dispatcher".to_owned(),
    }
}

fn is_opaque(policy: &OutboundPolicy) -> bool {
    let kind = policy.protocol.as_ref().and_then(|protocol| protocol.kind.as_ref());
    matches!(kind, Some(Kind::Opaque(_) | Kind::Tls(_)))
}
