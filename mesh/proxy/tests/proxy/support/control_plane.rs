//! A control plane whose answers a test sets, with a log of what it was asked.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
};

use futures::{Stream, StreamExt, stream};
use linkerd2_proxy_api::{
    destination::{
        AddrSet, AuthorityOverride, DestinationProfile, GetDestination, NoEndpoints, PathMatch, ProtocolHint,
        RequestMatch, RetryBudget, Route, TlsIdentity, Update, WeightedAddr, WeightedAddrSet, WeightedDst,
        destination_server::{Destination, DestinationServer},
        protocol_hint, request_match, tls_identity, update,
    },
    grpc_route::GrpcRouteMatch,
    inbound::{
        self, Authn, Authz, Identity, Network, PortSpec, Server as PortServer, authn,
        authn::permit_mesh_tls,
        inbound_server_policies_server::{InboundServerPolicies, InboundServerPoliciesServer},
    },
    meta::{Metadata, Resource, metadata},
    outbound::{
        self, Backend, FailureAccrual, GrpcRoute, HttpRoute, OpaqueRoute, OutboundPolicy, ProxyProtocol, TrafficSpec,
        backend::{self, BalanceP2c, EndpointDiscovery, endpoint_discovery},
        grpc_route, http_route, opaque_route,
        outbound_policies_server::{OutboundPolicies, OutboundPoliciesServer},
        proxy_protocol::{self, Detect, Grpc, Http1, Http2, Opaque},
        traffic_spec,
    },
};
use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::watch, task::AbortHandle};
use tokio_stream::wrappers::{TcpListenerStream, WatchStream};
use tonic::{Code, Request, Response, Status, transport::Server};

/// A stream's current answer: `None` says nothing for now.
type Answer<T> = watch::Sender<Option<Result<T, Code>>>;
type Streaming<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Default)]
struct State {
    profiles: Mutex<HashMap<String, Answer<DestinationProfile>>>,
    policies: Mutex<HashMap<String, Answer<OutboundPolicy>>>,
    servers: Mutex<HashMap<String, Answer<PortServer>>>,
    endpoints: Mutex<HashMap<String, Answer<BTreeSet<SocketAddr>>>>,
    /// Who is at an endpoint's address.
    identities: Mutex<HashMap<SocketAddr, String>>,
    /// The endpoints that take HTTP/1 over HTTP/2.
    carrying: Mutex<BTreeSet<SocketAddr>>,
    /// What requests to an endpoint are for, if it is a gateway.
    authorities: Mutex<HashMap<SocketAddr, String>>,
    calls: Mutex<Vec<String>>,
}

/// A running control plane.
pub struct ControlPlane {
    address: SocketAddr,
    state: Arc<State>,
    server: AbortHandle,
}

impl ControlPlane {
    pub async fn start() -> Self {
        Self::serve("127.0.0.1:0".parse().unwrap(), Arc::default()).await
    }

    async fn serve(address: SocketAddr, state: Arc<State>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder()
            .add_service(DestinationServer::from_arc(Arc::clone(&state)))
            .add_service(OutboundPoliciesServer::from_arc(Arc::clone(&state)))
            .add_service(InboundServerPoliciesServer::from_arc(Arc::clone(&state)));
        let server = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener))).abort_handle();
        Self { address, state, server }
    }

    /// Closes the listener and every stream.
    pub fn stop(&self) {
        self.server.abort();
    }

    /// Comes back at the same address, with the answers as they are now.
    pub async fn restart(&mut self) {
        let next = Self::serve(self.address, Arc::clone(&self.state)).await;
        *self = next;
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was asked, in order: `GetProfile web.ns…:80`.
    pub fn calls(&self) -> Vec<String> {
        self.state.calls.lock().clone()
    }

    pub fn set_profile(&self, target: &str, profile: Result<DestinationProfile, Code>) {
        set(&self.state.profiles, target, profile);
    }

    pub fn set_policy(&self, target: &str, policy: OutboundPolicy) {
        set(&self.state.policies, target, Ok(policy));
    }

    /// Whoever asks for the policy of a destination gets an error.
    pub fn refuse_policy(&self, target: &str, code: Code) {
        set(&self.state.policies, target, Err(code));
    }

    /// The policy of a port of the pod.
    pub fn set_server(&self, port: u16, server: PortServer) {
        set(&self.state.servers, &port.to_string(), Ok(server));
    }

    /// Whoever asks for the policy of a port of the pod is refused.
    pub fn refuse_server(&self, port: u16, code: Code) {
        set(&self.state.servers, &port.to_string(), Err(code));
    }

    pub fn set_endpoints(&self, name: &str, endpoints: &[SocketAddr]) {
        set(&self.state.endpoints, name, Ok(endpoints.iter().copied().collect()));
    }

    /// Says who is at an address, in endpoints that are set afterwards.
    pub fn identify(&self, address: SocketAddr, name: &str) {
        self.state.identities.lock().insert(address, name.to_owned());
    }

    /// Says that HTTP/1 over HTTP/2 is understood at an address, in endpoints of streams that are opened afterwards.
    #[allow(dead_code, reason = "the soak uses it")]
    pub fn carry(&self, address: SocketAddr) {
        self.state.carrying.lock().insert(address);
    }

    /// Says what requests to an address are for, in endpoints of streams that are opened afterwards.
    #[allow(dead_code, reason = "the soak does not use it")]
    pub fn rename(&self, address: SocketAddr, authority: &str) {
        self.state.authorities.lock().insert(address, authority.to_owned());
    }

    /// A Service by name and by cluster IP, with a policy, as Linkerd's control plane answers.
    pub fn service(&self, name: &str, cluster_ip: SocketAddr, endpoints: &[SocketAddr]) {
        let host = format!("{name}.ns.svc.cluster.local");
        let port = cluster_ip.port();
        for target in [format!("{host}:{port}"), cluster_ip.to_string()] {
            self.set_profile(&target, Ok(profile(&host)));
            self.set_policy(&target, policy(name, &[(&format!("{host}:{port}"), 1)]));
        }
        self.set_endpoints(&format!("{host}:{port}"), endpoints);
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn set<T>(answers: &Mutex<HashMap<String, Answer<T>>>, key: &str, answer: Result<T, Code>) {
    answer_of(answers, key).send_replace(Some(answer));
}

fn answer_of<T>(answers: &Mutex<HashMap<String, Answer<T>>>, key: &str) -> Answer<T> {
    answers.lock().entry(key.to_owned()).or_insert_with(|| watch::Sender::new(None)).clone()
}

impl State {
    /// The answers for `key`, `Err(missing)` if there are none.
    fn stream<T: Clone + Send + Sync + 'static>(
        &self,
        call: &str,
        key: &str,
        answers: &Mutex<HashMap<String, Answer<T>>>,
        missing: Code,
    ) -> Result<Response<Streaming<T>>, Status> {
        self.calls.lock().push(format!("{call} {key}"));
        let known = answers.lock().get(key).cloned();
        let Some(answer) = known else { return Err(Status::new(missing, format!("{key} is not known"))) };
        if let Some(Err(code)) = &*answer.borrow() {
            return Err(Status::new(*code, "as set"));
        }
        let items = WatchStream::new(answer.subscribe())
            .filter_map(|item| async { item.map(|item| item.map_err(|code| Status::new(code, "as set"))) });
        Ok(Response::new(Box::pin(items)))
    }
}

#[tonic::async_trait]
impl Destination for State {
    type GetStream = Streaming<Update>;
    type GetProfileStream = Streaming<DestinationProfile>;

    async fn get(&self, request: Request<GetDestination>) -> Result<Response<Self::GetStream>, Status> {
        let path = request.into_inner().path;
        let sets = self.stream("Get", &path, &self.endpoints, Code::NotFound)?.into_inner();
        let (identities, carrying) = (self.identities.lock().clone(), self.carrying.lock().clone());
        let authorities = self.authorities.lock().clone();
        let updates = sets.scan(BTreeSet::new(), move |known: &mut BTreeSet<SocketAddr>, next| {
            let updates: Vec<_> = match next {
                Ok(next) => {
                    difference(known, &next, &identities, &carrying, &authorities).into_iter().map(Ok).collect()
                }
                Err(status) => vec![Err(status)],
            };
            futures::future::ready(Some(stream::iter(updates)))
        });
        Ok(Response::new(Box::pin(updates.flatten())))
    }

    async fn get_profile(&self, request: Request<GetDestination>) -> Result<Response<Self::GetProfileStream>, Status> {
        let request = request.into_inner();
        assert_eq!(request.context_token, "{\"ns\":\"ns\"}");
        // An address of which nothing is known has no profile, and is not asked about again.
        let address = request.path.parse::<SocketAddr>().is_ok();
        let missing = if address { Code::InvalidArgument } else { Code::Unknown };
        self.stream("GetProfile", &request.path, &self.profiles, missing)
    }
}

#[tonic::async_trait]
impl OutboundPolicies for State {
    type WatchStream = Streaming<OutboundPolicy>;

    async fn get(&self, _: Request<TrafficSpec>) -> Result<Response<OutboundPolicy>, Status> {
        Err(Status::unimplemented("the proxy watches"))
    }

    async fn watch(&self, request: Request<TrafficSpec>) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        assert_eq!(request.source_workload, "ns:pod");
        let key = match request.target.unwrap() {
            traffic_spec::Target::Authority(authority) => authority,
            traffic_spec::Target::Addr(address) => SocketAddr::try_from(address).unwrap().to_string(),
        };
        self.stream("Watch", &key, &self.policies, Code::NotFound)
    }
}

#[tonic::async_trait]
impl InboundServerPolicies for State {
    type WatchPortStream = Streaming<PortServer>;

    async fn get_port(&self, _: Request<PortSpec>) -> Result<Response<PortServer>, Status> {
        Err(Status::unimplemented("the proxy watches"))
    }

    async fn watch_port(&self, request: Request<PortSpec>) -> Result<Response<Self::WatchPortStream>, Status> {
        let PortSpec { workload, port } = request.into_inner();
        assert_eq!(workload, "ns:pod");
        let key = port.to_string();
        answer_of(&self.servers, &key);
        self.stream("WatchPort", &key, &self.servers, Code::NotFound)
    }
}

fn difference(
    known: &mut BTreeSet<SocketAddr>,
    next: &BTreeSet<SocketAddr>,
    identities: &HashMap<SocketAddr, String>,
    carrying: &BTreeSet<SocketAddr>,
    authorities: &HashMap<SocketAddr, String>,
) -> Vec<Update> {
    let removed: Vec<_> = known.difference(next).map(|address| (*address).into()).collect();
    let identified = |address: &SocketAddr| {
        let tls_identity = identities.get(address).map(|name| identity(name));
        let protocol_hint = carrying.contains(address).then(http2);
        let authority_override = authorities.get(address).cloned();
        let authority_override = authority_override.map(|authority_override| AuthorityOverride { authority_override });
        WeightedAddr { tls_identity, protocol_hint, authority_override, ..weighted(*address) }
    };
    let added: Vec<_> = next.difference(known).map(identified).collect();
    known.clone_from(next);
    let mut updates = Vec::new();
    if next.is_empty() {
        updates.push(update::Update::NoEndpoints(NoEndpoints { exists: true }));
    } else {
        if !added.is_empty() {
            let metric_labels = [("namespace".to_owned(), "ns".to_owned())].into();
            updates.push(update::Update::Add(WeightedAddrSet { addrs: added, metric_labels }));
        }
        if !removed.is_empty() {
            updates.push(update::Update::Remove(AddrSet { addrs: removed }));
        }
    }
    updates.into_iter().map(|update| Update { update: Some(update) }).collect()
}

fn weighted(address: SocketAddr) -> WeightedAddr {
    let metric_labels = [("pod".to_owned(), format!("pod-{}", address.ip()))].into();
    WeightedAddr { addr: Some(address.into()), weight: 10_000, metric_labels, ..Default::default() }
}

/// A profile with a name only.
pub fn profile(host: &str) -> DestinationProfile {
    let ttl = Some(prost_types::Duration { seconds: 10, nanos: 0 });
    DestinationProfile {
        fully_qualified_name: host.to_owned(),
        retry_budget: Some(RetryBudget { retry_ratio: 0.2, min_retries_per_second: 10, ttl }),
        ..Default::default()
    }
}

/// The profile of a pod.
pub fn endpoint(address: SocketAddr) -> DestinationProfile {
    DestinationProfile { endpoint: Some(weighted(address)), ..Default::default() }
}

/// A profile's endpoint, with an identity.
pub fn with_identity(mut profile: DestinationProfile, name: &str) -> DestinationProfile {
    if let Some(endpoint) = &mut profile.endpoint {
        endpoint.tls_identity = Some(identity(name));
    }
    profile
}

fn identity(name: &str) -> TlsIdentity {
    let name = tls_identity::DnsLikeIdentity { name: name.to_owned() };
    TlsIdentity { server_name: Some(name.clone()), strategy: Some(tls_identity::Strategy::DnsLikeIdentity(name)) }
}

/// A profile's endpoint of an opaque port, whose proxy listens at `inbound_port`.
pub fn with_opaque_transport(mut profile: DestinationProfile, inbound_port: u16) -> DestinationProfile {
    if let Some(endpoint) = &mut profile.endpoint {
        endpoint.protocol_hint = Some(ProtocolHint {
            protocol: Some(protocol_hint::Protocol::Opaque(protocol_hint::Opaque {})),
            opaque_transport: Some(protocol_hint::OpaqueTransport { inbound_port: inbound_port.into() }),
        });
    }
    profile.opaque_protocol = true;
    profile
}

/// A profile's endpoint, that takes HTTP/1 over HTTP/2.
pub fn with_http2(mut profile: DestinationProfile) -> DestinationProfile {
    if let Some(endpoint) = &mut profile.endpoint {
        endpoint.protocol_hint = Some(http2());
    }
    profile
}

fn http2() -> ProtocolHint {
    ProtocolHint { protocol: Some(protocol_hint::Protocol::H2(protocol_hint::H2 {})), opaque_transport: None }
}

/// A route for paths that match.
pub fn route(name: &str, regex: &str) -> Route {
    Route {
        condition: Some(RequestMatch {
            r#match: Some(request_match::Match::Path(PathMatch { regex: regex.to_owned() })),
        }),
        metrics_labels: [("route".to_owned(), name.to_owned())].into(),
        ..Default::default()
    }
}

/// Whom an authorization is for.
#[derive(Clone, Copy)]
pub enum Who<'a> {
    Anybody,
    Identity(&'a str),
}

/// An authorization for clients in any IPv4 network.
pub fn authz(name: &str, who: Who<'_>) -> Authz {
    let net = "0.0.0.0/0".parse::<ipnet::IpNet>().unwrap();
    let permit = match who {
        Who::Anybody => authn::Permit::Unauthenticated(authn::PermitUnauthenticated {}),
        Who::Identity(name) => authn::Permit::MeshTls(authn::PermitMeshTls {
            clients: Some(permit_mesh_tls::Clients::Identities(permit_mesh_tls::PermitClientIdentities {
                identities: vec![Identity { name: name.to_owned() }],
                suffixes: Vec::new(),
            })),
        }),
    };
    Authz {
        networks: vec![Network { net: Some(net.into()), except: Vec::new() }],
        authentication: Some(Authn { permit: Some(permit) }),
        labels: HashMap::new(),
        metadata: Some(default_ref(name)),
    }
}

/// The policy `web` of a port, of which is spoken what `kind` says.
pub fn server(kind: inbound::proxy_protocol::Kind, authorizations: Vec<Authz>) -> PortServer {
    let labels = [("group", "policy.linkerd.io"), ("kind", "server"), ("name", "web")];
    PortServer {
        protocol: Some(inbound::ProxyProtocol { kind: Some(kind) }),
        authorizations,
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..Default::default()
    }
}

/// A leg of a split.
pub fn leg(authority: &str, weight: u32) -> WeightedDst {
    WeightedDst { authority: authority.to_owned(), weight, backend_ref: None }
}

/// The balancer of a `name:port`.
fn backend(path: &str) -> Backend {
    Backend {
        metadata: Some(service_ref(path.split('.').next().unwrap_or_default())),
        kind: Some(backend::Kind::Balancer(BalanceP2c {
            discovery: Some(EndpointDiscovery {
                kind: Some(endpoint_discovery::Kind::Dst(endpoint_discovery::DestinationGet { path: path.to_owned() })),
            }),
            load: None,
        })),
        queue: None,
    }
}

/// A rule for gRPC that leads to a `name:port`.
pub fn grpc_rule(matches: Vec<GrpcRouteMatch>, path: &str) -> grpc_route::Rule {
    let backend = grpc_route::RouteBackend { backend: Some(backend(path)), ..Default::default() };
    let first = grpc_route::distribution::FirstAvailable { backends: vec![backend] };
    let kind = Some(grpc_route::distribution::Kind::FirstAvailable(first));
    grpc_route::Rule { matches, backends: Some(grpc_route::Distribution { kind }), ..Default::default() }
}

/// The policy of a Service that has a GRPCRoute `r` with these rules.
pub fn grpc_policy(service: &str, rules: Vec<grpc_route::Rule>, accrual: Option<FailureAccrual>) -> OutboundPolicy {
    let resource = Resource {
        group: "gateway.networking.k8s.io".into(),
        kind: "GRPCRoute".into(),
        name: "r".into(),
        namespace: "ns".into(),
        ..Default::default()
    };
    let metadata = Some(Metadata { kind: Some(metadata::Kind::Resource(resource)) });
    let grpc = Grpc { routes: vec![GrpcRoute { metadata, hosts: Vec::new(), rules }], failure_accrual: accrual };
    OutboundPolicy {
        metadata: Some(service_ref(service)),
        protocol: Some(ProxyProtocol { kind: Some(proxy_protocol::Kind::Grpc(grpc)) }),
    }
}

/// The policy of a Service: one HTTP route and one opaque route over these `name:port`s.
pub fn policy(service: &str, backends: &[(&str, u32)]) -> OutboundPolicy {
    let http = backends.iter().map(|(path, weight)| http_route::WeightedRouteBackend {
        backend: Some(http_route::RouteBackend { backend: Some(backend(path)), ..Default::default() }),
        weight: *weight,
    });
    let opaque = backends.iter().map(|(path, weight)| opaque_route::WeightedRouteBackend {
        backend: Some(opaque_route::RouteBackend { backend: Some(backend(path)), ..Default::default() }),
        weight: *weight,
    });
    let routes = vec![HttpRoute {
        metadata: Some(default_ref("http")),
        hosts: Vec::new(),
        rules: vec![http_route::Rule {
            backends: Some(http_route::Distribution {
                kind: Some(http_route::distribution::Kind::RandomAvailable(
                    http_route::distribution::RandomAvailable { backends: http.collect() },
                )),
            }),
            ..Default::default()
        }],
    }];
    let opaque = Opaque {
        routes: vec![OpaqueRoute {
            metadata: Some(default_ref("opaq")),
            rules: vec![opaque_route::Rule {
                backends: Some(opaque_route::Distribution {
                    kind: Some(opaque_route::distribution::Kind::RandomAvailable(
                        opaque_route::distribution::RandomAvailable { backends: opaque.collect() },
                    )),
                }),
                filters: Vec::new(),
            }],
        }],
    };
    let detect = Detect {
        timeout: None,
        opaque: Some(opaque),
        http1: Some(Http1 { routes: routes.clone(), failure_accrual: None }),
        http2: Some(Http2 { routes, failure_accrual: None }),
    };
    outbound::OutboundPolicy {
        metadata: Some(service_ref(service)),
        protocol: Some(ProxyProtocol { kind: Some(proxy_protocol::Kind::Detect(detect)) }),
    }
}

fn service_ref(name: &str) -> Metadata {
    let resource = Resource {
        group: "core".into(),
        kind: "Service".into(),
        name: name.into(),
        namespace: "ns".into(),
        port: 80,
        ..Default::default()
    };
    Metadata { kind: Some(metadata::Kind::Resource(resource)) }
}

fn default_ref(name: &str) -> Metadata {
    Metadata { kind: Some(metadata::Kind::Default(name.to_owned())) }
}
