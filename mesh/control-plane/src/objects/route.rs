//! Routes whose parents are Services, EgressNetworks or Servers. What does not depend on other objects is turned into
//! messages once.

mod grpc;
mod http;
mod tcp;
mod usable;

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use linkerd2_proxy_api::{grpc_route, http_route as api, http_types, outbound};

use crate::{
    Key, Kind,
    answers::status::CONTROLLER,
    objects::{
        extras::Extras,
        wire::{
            self,
            route::{self as spec, ParentRef, ParentStatus},
        },
    },
};

pub(crate) use http::match_everything;
pub(crate) use tcp::TcpRule;
use usable::Unusable;

/// What is kept of a route.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    pub(crate) kind: Kind,
    pub(crate) key: Key,
    /// Of routes that match a request alike the oldest has it.
    created: Option<Time>,
    /// Of its spec.
    pub(crate) generation: Option<i64>,
    /// What it routes requests of; without a port, of every port of a Service, and of none of an EgressNetwork.
    pub(crate) parents: Vec<(Referent, Option<u16>)>,
    /// These and the Servers as the route names them, as its status has to.
    pub(crate) named_parents: Vec<ParentRef>,
    /// What its status says of them under our name.
    pub(crate) told: Vec<ParentStatus>,
    /// The Servers whose requests it authorizes and changes on arrival.
    pub(crate) servers: Vec<Key>,
    pub(crate) hosts: Vec<api::HostMatch>,
    pub(crate) rules: Rules,
    /// Which rules no proxy could be told, and why: each is left out, whole. Without a match or a filter it would be another one.
    pub(crate) left_out: Vec<String>,
    /// Whether a backend is of a kind that the mesh does not know.
    pub(crate) has_foreign_backends: bool,
}

/// What requests are for, or what a route sends them to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Referent {
    Service(Key),
    EgressNetwork(Key),
}

impl fmt::Display for Referent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(key) => write!(f, "Service {key}"),
            Self::EgressNetwork(key) => write!(f, "EgressNetwork {key}"),
        }
    }
}

/// The rules of a route.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Rules {
    Http(Vec<HttpRule>),
    Grpc(Vec<GrpcRule>),
    /// One, as in the next.
    Tls(Vec<TcpRule>),
    Tcp(Vec<TcpRule>),
}

/// The types of routes as GEP-1426 of the Gateway API orders them: one that tells more of a connection comes before others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RouteType {
    Grpc,
    Http,
    Tls,
    Tcp,
}

pub(crate) type HttpRule = RouteRule<api::HttpRouteMatch, outbound::http_route::Filter, outbound::http_route::Retry>;
pub(crate) type GrpcRule =
    RouteRule<grpc_route::GrpcRouteMatch, outbound::grpc_route::Filter, outbound::grpc_route::Retry>;

/// A rule, with the messages of its protocol for its matches, its filters and its retries.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RouteRule<M, F, R> {
    pub(crate) matches: Vec<M>,
    pub(crate) filters: Vec<F>,
    /// Empty means the parent itself.
    pub(crate) backends: Vec<RouteBackend<F>>,
    pub(crate) timeouts: Option<api::Timeouts>,
    pub(crate) retry: Option<R>,
}

/// A backend of a rule.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RouteBackend<F> {
    pub(crate) to: Referent,
    /// The port; a Service without one, or what is neither, can be served by nothing.
    pub(crate) port: Option<u16>,
    pub(crate) weight: u32,
    pub(crate) filters: Vec<F>,
}

impl Route {
    /// The API group and the kind, as the route's metadata in an answer has them.
    pub(crate) fn resource(&self) -> (&'static str, &'static str) {
        match self.kind {
            Kind::GatewayGrpcRoute => ("gateway.networking.k8s.io", "GRPCRoute"),
            Kind::GatewayHttpRoute => ("gateway.networking.k8s.io", "HTTPRoute"),
            Kind::GatewayTlsRoute => ("gateway.networking.k8s.io", "TLSRoute"),
            Kind::GatewayTcpRoute => ("gateway.networking.k8s.io", "TCPRoute"),
            _ => ("policy.linkerd.io", "HTTPRoute"),
        }
    }

    pub(crate) fn route_type(&self) -> RouteType {
        match &self.rules {
            Rules::Grpc(_) => RouteType::Grpc,
            Rules::Http(_) => RouteType::Http,
            Rules::Tls(_) => RouteType::Tls,
            Rules::Tcp(_) => RouteType::Tcp,
        }
    }

    /// Those of its parents as which it routes what clients in a namespace, if that is known, send to this port of this Service or
    /// EgressNetwork.
    ///
    /// A route in the parent's own namespace, a producer's, is for everybody; one in another namespace, a consumer's, for the clients
    /// there. As in Linkerd's policy controller (`policy-controller/k8s/index/src/outbound/index.rs`), those clients have both, and
    /// which comes first depends on age alone. It is from there as well that an EgressNetwork has to be named with a port.
    pub(crate) fn parents_at<'a>(
        &'a self,
        referent: &'a Referent,
        port: u16,
        client_namespace: Option<&str>,
    ) -> impl Iterator<Item = &'a (Referent, Option<u16>)> + use<'a> {
        let own = &*self.key.namespace;
        let (parent_namespace, every_port) = match referent {
            Referent::Service(key) => (&key.namespace, true),
            Referent::EgressNetwork(key) => (&key.namespace, false),
        };
        let is_for = !self.is_unusable() && (*own == **parent_namespace || client_namespace == Some(own));
        let parents = self.parents.iter().filter(move |_| is_for);
        parents.filter(move |(parent, at)| parent == referent && at.map_or(every_port, |at| at == port))
    }

    /// Whether none of its rules could be told. It routes nothing then, as if it were not there, and says so in its status.
    pub(crate) fn is_unusable(&self) -> bool {
        let rules = match &self.rules {
            Rules::Http(rules) => rules.len(),
            Rules::Grpc(rules) => rules.len(),
            Rules::Tls(rules) | Rules::Tcp(rules) => rules.len(),
        };
        rules == 0 && !self.left_out.is_empty()
    }

    /// What it sends requests to, besides its parents.
    pub(crate) fn backends(&self) -> Vec<&Referent> {
        match &self.rules {
            Rules::Http(rules) => rules.iter().flat_map(|rule| &rule.backends).map(|one| &one.to).collect(),
            Rules::Grpc(rules) => rules.iter().flat_map(|rule| &rule.backends).map(|one| &one.to).collect(),
            Rules::Tls(rules) | Rules::Tcp(rules) => {
                rules.iter().flat_map(|rule| &rule.backends).map(|one| &one.to).collect()
            }
        }
    }

    /// Where it stands among routes that match a request alike, as the Gateway API has it: the oldest first, then by name.
    /// One without a time comes after all that have one.
    pub(crate) fn precedence(&self) -> impl Ord + use<> {
        (self.created.is_none(), self.created.clone(), self.key.clone(), self.kind)
    }

    /// Reads an HTTPRoute of either group.
    pub(crate) fn http(kind: Kind, route: spec::HttpRoute) -> Self {
        Self::read(kind, route, http::rule, Rules::Http)
    }

    /// Reads a GRPCRoute.
    pub(crate) fn grpc(route: spec::GrpcRoute) -> Self {
        Self::read(Kind::GatewayGrpcRoute, route, grpc::rule, Rules::Grpc)
    }

    /// Reads a TLSRoute or a TCPRoute. As with Linkerd, it has one rule: nothing would tell what another is for.
    pub(crate) fn of_connections(kind: Kind, route: spec::TcpRoute) -> Self {
        let rules: fn(Vec<TcpRule>) -> Rules = match kind {
            Kind::GatewayTlsRoute => Rules::Tls,
            _ => Rules::Tcp,
        };
        let count = route.spec.rules.len();
        let mut read = Self::read(kind, route, tcp::rule, rules);
        if count != 1 {
            tracing::warn!(route = %read.key, count, "expected one rule; the route is left out");
            read.rules = rules(Vec::new());
            read.left_out = vec![format!("expected one rule, found {count}")];
        }
        read
    }

    fn read<M, R>(
        kind: Kind,
        route: spec::Route<M>,
        rule: impl Fn(&Key, &spec::RouteRule<M>, &Extras) -> Result<R, Unusable>,
        rules: impl FnOnce(Vec<R>) -> Rules,
    ) -> Self {
        let spec::Route { metadata, spec, status } = route;
        let key = wire::key(&metadata);
        let parents = spec.parent_refs.iter().filter_map(|parent| Some((parent, parent.referent(&key)?)));
        let parents: Vec<_> = parents.collect();
        let servers = || spec.parent_refs.iter().filter(|parent| parent.is_server());
        let backends = spec.rules.iter().flat_map(|rule| &rule.backend_refs);
        let annotated = Extras::of(&metadata);
        let (mut usable, mut left_out) = (Vec::new(), Vec::new());
        for (number, one) in spec.rules.iter().enumerate() {
            match rule(&key, one, &annotated) {
                Ok(rule) => usable.push(rule),
                Err(problem) => {
                    tracing::warn!(route = %key, rule = number, %problem, "the rule is left out");
                    left_out.push(format!("rules[{number}]: {problem}"));
                }
            }
        }
        let ours = status.parents.into_iter().filter(|parent| parent.controller_name == CONTROLLER);
        Self {
            kind,
            servers: servers().map(|parent| parent.key(&key)).collect(),
            named_parents: parents.iter().map(|(parent, _)| *parent).chain(servers()).cloned().collect(),
            parents: parents.into_iter().map(|(parent, referent)| (referent, parent.port)).collect(),
            told: ours.collect(),
            has_foreign_backends: backends.into_iter().any(|backend| backend.referent(&key).is_none()),
            hosts: spec.hostnames.iter().map(|host| host_match(host)).collect(),
            rules: rules(usable),
            left_out,
            created: metadata.creation_timestamp,
            generation: metadata.generation,
            key,
        }
    }
}

/// What a reference is to. A parent without a kind is a Gateway, which is no business of the mesh.
fn referent(group: Option<&str>, kind: Option<&str>, key: Key) -> Option<Referent> {
    match (group?, kind?) {
        ("" | "core", "Service") => Some(Referent::Service(key)),
        ("policy.linkerd.io", "EgressNetwork") => Some(Referent::EgressNetwork(key)),
        _ => None,
    }
}

impl ParentRef {
    /// The parent of a route. A Server is in the route's own namespace.
    pub(crate) fn key(&self, route: &Key) -> Key {
        resolve(route, self.namespace.as_deref().filter(|_| !self.is_server()), &self.name)
    }

    /// The Service or the EgressNetwork, if it is one.
    pub(crate) fn referent(&self, route: &Key) -> Option<Referent> {
        referent(self.group.as_deref(), self.kind.as_deref(), self.key(route))
    }

    pub(crate) fn is_server(&self) -> bool {
        self.kind.as_deref() == Some("Server") && self.group.as_deref() == Some("policy.linkerd.io")
    }
}

impl spec::BackendRef {
    /// Unlike a parent, a backend without group and kind is a Service.
    fn referent(&self, route: &Key) -> Option<Referent> {
        let (group, kind) = (self.group.as_deref().or(Some("")), self.kind.as_deref().or(Some("Service")));
        referent(group, kind, self.key(route))
    }

    fn key(&self, route: &Key) -> Key {
        resolve(route, self.namespace.as_deref(), &self.name)
    }
}

fn resolve(route: &Key, namespace: Option<&str>, name: &str) -> Key {
    Key::new(namespace.unwrap_or(&route.namespace), name)
}

/// The backends of a rule, with their filters as `filters` reads them.
fn backends<F>(
    route: &Key,
    refs: &[spec::BackendRef],
    filters: impl Fn(&Key, &[spec::Filter]) -> Vec<F>,
) -> Vec<RouteBackend<F>> {
    let each = refs.iter().map(|backend| {
        let referent = backend.referent(route);
        RouteBackend {
            port: backend.port.filter(|_| referent.is_some()),
            to: referent.unwrap_or_else(|| Referent::Service(backend.key(route))),
            weight: backend.weight.unwrap_or(1),
            filters: filters(route, &backend.filters),
        }
    });
    each.collect()
}

fn host_match(host: &str) -> api::HostMatch {
    use api::host_match::{Match, Suffix};
    let inner = match host.strip_prefix("*.") {
        Some(suffix) => Match::Suffix(Suffix { reverse_labels: suffix.rsplit('.').map(str::to_owned).collect() }),
        None => Match::Exact(host.to_owned()),
    };
    api::HostMatch { r#match: Some(inner) }
}

fn header_matches(headers: &[spec::NamedValue]) -> Vec<api::HeaderMatch> {
    use api::header_match::Value;
    let each = headers.iter().map(|header| {
        let value = match header.type_.as_str() {
            "RegularExpression" => Value::Regex(header.value.clone()),
            _ => Value::Exact(header.value.clone().into_bytes()),
        };
        api::HeaderMatch { name: header.name.clone(), value: Some(value) }
    });
    each.collect()
}

fn request_headers(headers: &spec::HeaderModifier) -> api::RequestHeaderModifier {
    api::RequestHeaderModifier {
        add: Some(header_list(&headers.add)),
        set: Some(header_list(&headers.set)),
        remove: headers.remove.clone(),
    }
}

fn header_list(headers: &[spec::NamedValue]) -> http_types::Headers {
    let headers = headers.iter().map(|header| http_types::headers::Header {
        name: header.name.clone(),
        value: header.value.clone().into_bytes(),
    });
    http_types::Headers { headers: headers.collect() }
}
