//! HTTPRoutes whose parent is a Service, of Linkerd's group and of Gateway API's. What does not depend on other objects is
//! turned into messages once.

use std::time::Duration;

use linkerd2_proxy_api::{http_route as api, http_types, outbound};

use crate::{
    Key, Kind,
    objects::{extras::Extras, quantity, service_profile::method, wire},
};

/// What is kept of an HTTPRoute.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRoute {
    pub(crate) kind: Kind,
    pub(crate) key: Key,
    /// The Services whose requests it routes; without a port, on every port.
    pub(crate) parents: Vec<(Key, Option<u16>)>,
    /// The Servers whose requests it authorizes and changes on arrival.
    pub(crate) servers: Vec<Key>,
    pub(crate) hosts: Vec<api::HostMatch>,
    pub(crate) rules: Vec<RouteRule>,
}

/// A rule of an HTTPRoute.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RouteRule {
    pub(crate) matches: Vec<api::HttpRouteMatch>,
    pub(crate) filters: Vec<outbound::http_route::Filter>,
    /// Empty means the parent itself.
    pub(crate) backends: Vec<RouteBackend>,
    pub(crate) timeouts: Option<api::Timeouts>,
    pub(crate) retry: Option<outbound::http_route::Retry>,
}

/// A backend of a rule.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RouteBackend {
    pub(crate) service: Key,
    /// The port; `None` if the reference is not to a Service's port and can be served by nothing.
    pub(crate) port: Option<u16>,
    pub(crate) weight: u32,
    pub(crate) filters: Vec<outbound::http_route::Filter>,
}

impl HttpRoute {
    /// The API group, as the route's metadata in an answer has it.
    pub(crate) fn group(&self) -> &'static str {
        match self.kind {
            Kind::GatewayHttpRoute => "gateway.networking.k8s.io",
            _ => "policy.linkerd.io",
        }
    }

    /// Whether it routes requests to this port of this Service.
    pub(crate) fn applies_to(&self, service: &Key, port: u16) -> bool {
        self.parents.iter().any(|(parent, parent_port)| parent == service && parent_port.is_none_or(|own| own == port))
    }

    pub(crate) fn read(kind: Kind, route: wire::HttpRoute) -> Self {
        let wire::HttpRoute { metadata, spec } = route;
        let key = wire::key(&metadata);
        let annotated = Extras::of(&metadata);
        let servers = spec
            .parent_refs
            .iter()
            .filter(|parent| parent.kind.as_deref() == Some("Server"))
            .filter(|parent| parent.group.as_deref() == Some("policy.linkerd.io"))
            // A Server is in the route's own namespace.
            .map(|parent| Key::new(&key.namespace, &parent.name));
        let servers = servers.collect();
        let parents =
            spec.parent_refs.iter().filter(|parent| is_service(parent.group.as_deref(), parent.kind.as_deref()));
        Self {
            kind,
            servers,
            parents: parents
                .map(|parent| (resolve(&key, parent.namespace.as_deref(), &parent.name), parent.port))
                .collect(),
            hosts: spec.hostnames.iter().map(|host| host_match(host)).collect(),
            rules: spec.rules.iter().map(|rule| read_rule(&key, rule, &annotated)).collect(),
            key,
        }
    }
}

/// A reference to a Service. A parent without a kind is a Gateway, which is no business of the mesh.
fn is_service(group: Option<&str>, kind: Option<&str>) -> bool {
    kind == Some("Service") && matches!(group, Some("" | "core"))
}

fn resolve(route: &Key, namespace: Option<&str>, name: &str) -> Key {
    Key::new(namespace.unwrap_or(&route.namespace), name)
}

fn read_rule(route: &Key, rule: &wire::HttpRouteRule, annotated: &Extras) -> RouteRule {
    let backends = rule.backend_refs.iter().map(|backend| {
        // Unlike a parent, a backend without group and kind is a Service.
        let service = is_service(backend.group.as_deref().or(Some("")), backend.kind.as_deref().or(Some("Service")));
        RouteBackend {
            service: resolve(route, backend.namespace.as_deref(), &backend.name),
            port: backend.port.filter(|_| service),
            weight: backend.weight.unwrap_or(1),
            filters: filters(route, &backend.filters),
        }
    });
    let mut matches: Vec<_> = rule.matches.iter().map(request_match).collect();
    if matches.is_empty() {
        matches.push(match_everything());
    }
    let duration = |text: &Option<String>| -> Option<prost_types::Duration> {
        let duration = quantity::go_duration(text.as_deref()?)?;
        (duration > Duration::ZERO).then(|| duration.try_into().ok())?
    };
    RouteRule {
        matches,
        filters: filters(route, &rule.filters),
        backends: backends.collect(),
        timeouts: match &rule.timeouts {
            Some(timeouts) => Some(api::Timeouts {
                request: duration(&timeouts.request),
                response: duration(&timeouts.backend_request),
                idle: None,
            }),
            None => annotated.timeouts,
        },
        retry: annotated.retry.clone(),
    }
}

/// The match of a rule that names none.
pub(crate) fn match_everything() -> api::HttpRouteMatch {
    api::HttpRouteMatch {
        path: Some(api::PathMatch { kind: Some(api::path_match::Kind::Prefix("/".into())) }),
        ..Default::default()
    }
}

fn host_match(host: &str) -> api::HostMatch {
    use api::host_match::{Match, Suffix};
    let inner = match host.strip_prefix("*.") {
        Some(suffix) => Match::Suffix(Suffix { reverse_labels: suffix.rsplit('.').map(str::to_owned).collect() }),
        None => Match::Exact(host.to_owned()),
    };
    api::HostMatch { r#match: Some(inner) }
}

fn request_match(spec: &wire::HttpRouteMatch) -> api::HttpRouteMatch {
    use api::{header_match, path_match, query_param_match};
    let path = spec.path.as_ref().map(|path| {
        let value = path.value.clone().unwrap_or_else(|| "/".into());
        let kind = match path.type_.as_str() {
            "Exact" => path_match::Kind::Exact(value),
            "RegularExpression" => path_match::Kind::Regex(value),
            _ => path_match::Kind::Prefix(value),
        };
        api::PathMatch { kind: Some(kind) }
    });
    let headers = spec.headers.iter().map(|header| {
        let value = match header.type_.as_str() {
            "RegularExpression" => header_match::Value::Regex(header.value.clone()),
            _ => header_match::Value::Exact(header.value.clone().into_bytes()),
        };
        api::HeaderMatch { name: header.name.clone(), value: Some(value) }
    });
    let query_params = spec.query_params.iter().map(|param| {
        let value = match param.type_.as_str() {
            "RegularExpression" => query_param_match::Value::Regex(param.value.clone()),
            _ => query_param_match::Value::Exact(param.value.clone()),
        };
        api::QueryParamMatch { name: param.name.clone(), value: Some(value) }
    });
    api::HttpRouteMatch {
        path,
        headers: headers.collect(),
        query_params: query_params.collect(),
        method: spec.method.as_deref().map(method),
    }
}

fn filters(route: &Key, filters: &[wire::HttpRouteFilter]) -> Vec<outbound::http_route::Filter> {
    use outbound::http_route::filter::Kind;
    let kinds = filters.iter().filter_map(|filter| {
        let kind = match filter {
            wire::HttpRouteFilter { request_header_modifier: Some(headers), .. } => {
                Kind::RequestHeaderModifier(api::RequestHeaderModifier {
                    add: Some(header_list(&headers.add)),
                    set: Some(header_list(&headers.set)),
                    remove: headers.remove.clone(),
                })
            }
            wire::HttpRouteFilter { response_header_modifier: Some(headers), .. } => {
                Kind::ResponseHeaderModifier(api::ResponseHeaderModifier {
                    add: Some(header_list(&headers.add)),
                    set: Some(header_list(&headers.set)),
                    remove: headers.remove.clone(),
                })
            }
            wire::HttpRouteFilter { request_redirect: Some(to), .. } => Kind::Redirect(redirect(to)),
            other => {
                tracing::warn!(%route, filter = other.type_, "expected a header modifier or a redirect; the filter is ignored");
                return None;
            }
        };
        Some(outbound::http_route::Filter { kind: Some(kind) })
    });
    kinds.collect()
}

fn header_list(headers: &[wire::NamedValue]) -> http_types::Headers {
    let headers = headers.iter().map(|header| http_types::headers::Header {
        name: header.name.clone(),
        value: header.value.clone().into_bytes(),
    });
    http_types::Headers { headers: headers.collect() }
}

fn redirect(to: &wire::Redirect) -> api::RequestRedirect {
    use api::path_modifier::Replace;
    let path = to.path.as_ref().and_then(|path| {
        let full = path.replace_full_path.clone().map(Replace::Full);
        full.or_else(|| path.replace_prefix_match.clone().map(Replace::Prefix))
    });
    api::RequestRedirect {
        scheme: to.scheme.as_deref().map(http_types::Scheme::from),
        host: to.hostname.clone().unwrap_or_default(),
        path: path.map(|replace| api::PathModifier { replace: Some(replace) }),
        port: to.port.unwrap_or_default().into(),
        status: to.status_code.unwrap_or(302).into(),
    }
}
