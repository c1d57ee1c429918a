//! HTTPRoutes and GRPCRoutes whose parents are Services or Servers. What does not depend on other objects is turned into
//! messages once.

mod grpc;
mod http;
mod usable;

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
    /// The Services whose requests it routes; without a port, on every port.
    pub(crate) parents: Vec<(Key, Option<u16>)>,
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

/// The rules of a route.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Rules {
    Http(Vec<HttpRule>),
    Grpc(Vec<GrpcRule>),
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
    pub(crate) service: Key,
    /// The port; `None` if the reference is not to a Service's port and can be served by nothing.
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
            _ => ("policy.linkerd.io", "HTTPRoute"),
        }
    }

    /// Whether it routes requests of clients in a namespace, if that is known, to this port of this Service.
    ///
    /// A route in the Service's own namespace, a producer's, is for everybody; one in another namespace, a consumer's, for the clients
    /// there. As in Linkerd's policy controller (`policy-controller/k8s/index/src/outbound/index.rs`), those clients have both, and
    /// which comes first depends on age alone.
    pub(crate) fn applies_to(&self, service: &Key, port: u16, client_namespace: Option<&str>) -> bool {
        let own = &*self.key.namespace;
        !self.is_unusable()
            && (*own == *service.namespace || client_namespace == Some(own))
            && self.parents.iter().any(|(parent, at)| parent == service && at.is_none_or(|at| at == port))
    }

    /// Whether none of its rules could be told. It routes nothing then, as if it were not there, and says so in its status.
    pub(crate) fn is_unusable(&self) -> bool {
        let rules = match &self.rules {
            Rules::Http(rules) => rules.len(),
            Rules::Grpc(rules) => rules.len(),
        };
        rules == 0 && !self.left_out.is_empty()
    }

    /// The Services that it sends requests to, besides its parents.
    pub(crate) fn backends(&self) -> Vec<&Key> {
        match &self.rules {
            Rules::Http(rules) => rules.iter().flat_map(|rule| &rule.backends).map(|one| &one.service).collect(),
            Rules::Grpc(rules) => rules.iter().flat_map(|rule| &rule.backends).map(|one| &one.service).collect(),
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

    fn read<M, R>(
        kind: Kind,
        route: spec::Route<M>,
        rule: impl Fn(&Key, &spec::RouteRule<M>, &Extras) -> Result<R, Unusable>,
        rules: impl FnOnce(Vec<R>) -> Rules,
    ) -> Self {
        let spec::Route { metadata, spec, status } = route;
        let key = wire::key(&metadata);
        let parents =
            || spec.parent_refs.iter().filter(|parent| is_service(parent.group.as_deref(), parent.kind.as_deref()));
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
            named_parents: parents().chain(servers()).cloned().collect(),
            parents: parents().map(|parent| (parent.key(&key), parent.port)).collect(),
            told: ours.collect(),
            has_foreign_backends: backends.into_iter().any(|backend| !backend.is_service()),
            hosts: spec.hostnames.iter().map(|host| host_match(host)).collect(),
            rules: rules(usable),
            left_out,
            created: metadata.creation_timestamp,
            generation: metadata.generation,
            key,
        }
    }
}

/// A reference to a Service. A parent without a kind is a Gateway, which is no business of the mesh.
fn is_service(group: Option<&str>, kind: Option<&str>) -> bool {
    kind == Some("Service") && matches!(group, Some("" | "core"))
}

impl ParentRef {
    /// The parent of a route. A Server is in the route's own namespace.
    pub(crate) fn key(&self, route: &Key) -> Key {
        resolve(route, self.namespace.as_deref().filter(|_| !self.is_server()), &self.name)
    }

    pub(crate) fn is_server(&self) -> bool {
        self.kind.as_deref() == Some("Server") && self.group.as_deref() == Some("policy.linkerd.io")
    }
}

impl spec::BackendRef {
    /// Unlike a parent, a backend without group and kind is a Service.
    fn is_service(&self) -> bool {
        is_service(self.group.as_deref().or(Some("")), self.kind.as_deref().or(Some("Service")))
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
    let each = refs.iter().map(|backend| RouteBackend {
        service: resolve(route, backend.namespace.as_deref(), &backend.name),
        port: backend.port.filter(|_| backend.is_service()),
        weight: backend.weight.unwrap_or(1),
        filters: filters(route, &backend.filters),
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
