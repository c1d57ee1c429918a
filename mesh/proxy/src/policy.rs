//! Outbound policies: HTTPRoutes and GRPCRoutes of one destination, compiled from the control plane's message.
//!
//! Hosts, paths, methods, headers and query parameters decide the route; the most specific match wins, as the Gateway API
//! orders them. Filters change headers of the request, or fail a share of the requests. Redirects, changes to responses,
//! retries and failure accrual are not followed; a policy that has them is served without and a warning is logged.

use std::{cmp::Reverse, str, time::Duration};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{self, HOST},
};
use linkerd2_proxy_api::{
    grpc_route, http_route as matches, http_types,
    meta::{Metadata, metadata},
    outbound::{self as api, Backend, grpc_route as grpc, http_route as http_api, proxy_protocol},
};
use rand::Rng;
use regex::Regex;
use tracing::warn;

use crate::{
    http::ProxyError,
    metrics::{Counter, Family, Keyed, Labels},
    profile::anchored,
    split::Split,
};

/// The routes of a destination, over backends of type `B`.
pub(crate) struct Routes<B> {
    parent: Labels,
    routes: Vec<Route<B>>,
}

/// One route, and what it has answered.
pub(crate) struct Route<B> {
    name: Labels,
    hosts: Vec<HostMatch>,
    rules: Vec<Rule<B>>,
    ends: Keyed<End, Counter>,
}

/// What to do with the requests of one rule.
pub(crate) struct Rule<B> {
    matches: Vec<RequestMatch>,
    filters: Vec<Filter>,
    backends: Split<B>,
    timeout: Option<Duration>,
}

/// The rule that was chosen for a request, and its route.
pub(crate) struct Chosen<'a, B> {
    pub(crate) rule: &'a Rule<B>,
    route: &'a Route<B>,
    parent: &'a Labels,
}

impl<B> Chosen<'_, B> {
    /// Counts how a request ended.
    pub(crate) fn count(&self, statuses: &Family<Counter>, end: End) {
        let make = || {
            let labels = self.parent.clone().followed_by(&self.route.name).with("hostname", "");
            statuses.hold(&end.label(labels))
        };
        self.route.ends.get_or_make(end, make).increment();
    }
}

/// How a request on a policy's route ended: with a status, or with an error by Linkerd's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    status: Option<StatusCode>,
    error: &'static str,
}

impl End {
    pub(crate) fn of<B>(result: &Result<Response<B>, ProxyError>) -> Self {
        let (status, error) = match result {
            Ok(response) => (Some(response.status()), ""),
            Err(ProxyError::FailFast(_)) => (None, "FAIL_FAST"),
            Err(ProxyError::LoadShed(_)) => (None, "LOAD_SHED"),
            Err(ProxyError::ResponseTimeout(_)) => (None, "RESPONSE_HEADERS_TIMEOUT"),
            Err(ProxyError::Broken(_)) => (None, "IO"),
            Err(error) => (Some(error.status()), ""),
        };
        Self { status, error }
    }

    /// Adds the labels `http_status` and `error`.
    pub(crate) fn label(self, labels: Labels) -> Labels {
        let status = self.status.as_ref().map(StatusCode::as_str).unwrap_or_default();
        labels.with("http_status", status).with("error", self.error)
    }
}

enum HostMatch {
    Exact(String),
    /// A domain with its leading dot.
    Suffix(String),
}

#[derive(Default)]
struct RequestMatch {
    path: Option<PathMatch>,
    method: Option<Method>,
    headers: Vec<(HeaderName, ValueMatch)>,
    queries: Vec<(String, ValueMatch)>,
}

enum PathMatch {
    Exact(String),
    Prefix(String),
    Regex(Regex),
}

enum ValueMatch {
    Exact(Vec<u8>),
    Regex(Regex),
}

enum Filter {
    Headers { set: Vec<(HeaderName, HeaderValue)>, add: Vec<(HeaderName, HeaderValue)>, remove: Vec<HeaderName> },
    Fail { status: StatusCode, message: String, numerator: u32, denominator: u32 },
}

/// How much of a request a match pins down: host, then path, then method, then headers, then query. Larger wins.
type Specificity = ((u8, usize), (u8, usize), bool, usize, usize);

/// The HTTP routes of a policy; `None` if it is opaque. `backend` makes a backend, given the labels of its route.
pub(crate) fn compile<B>(
    policy: &api::OutboundPolicy,
    mut backend: impl FnMut(&Backend, &Labels) -> Option<B>,
) -> Option<Routes<B>> {
    let parent = policy.metadata.as_ref().map(|metadata| metadata_labels("parent", metadata)).unwrap_or_default();
    let kind = policy.protocol.as_ref()?.kind.as_ref()?;
    let mut http = |routes: &[api::HttpRoute]| -> Vec<Route<B>> {
        routes.iter().map(|route| http_route(route, &parent, &mut backend)).collect()
    };
    let routes = match kind {
        // Both versions have the same routes in everything that a control plane sends.
        proxy_protocol::Kind::Detect(detect) => http(&detect.http1.as_ref()?.routes),
        proxy_protocol::Kind::Http1(http1) => http(&http1.routes),
        proxy_protocol::Kind::Http2(http2) => http(&http2.routes),
        proxy_protocol::Kind::Grpc(grpc) => {
            grpc.routes.iter().map(|route| grpc_routes(route, &parent, &mut backend)).collect()
        }
        proxy_protocol::Kind::Opaque(_) | proxy_protocol::Kind::Tls(_) => return None,
    };
    Some(Routes { parent, routes })
}

/// `parent_group`, `parent_kind` and so on.
pub(crate) fn metadata_labels(prefix: &str, metadata: &Metadata) -> Labels {
    let (group, kind, namespace, name) = match &metadata.kind {
        Some(metadata::Kind::Resource(resource)) => {
            (&*resource.group, &*resource.kind, &*resource.namespace, &*resource.name)
        }
        Some(metadata::Kind::Default(name)) => ("", "default", "", &**name),
        None => ("", "", "", ""),
    };
    let labels = Labels::new()
        .with(&format!("{prefix}_group"), group)
        .with(&format!("{prefix}_kind"), kind)
        .with(&format!("{prefix}_namespace"), namespace)
        .with(&format!("{prefix}_name"), name);
    match &metadata.kind {
        Some(metadata::Kind::Resource(resource)) if prefix != "route" => labels
            .with_display(&format!("{prefix}_port"), PortLabel(resource.port))
            .with(&format!("{prefix}_section_name"), &resource.section),
        _ if prefix != "route" => {
            labels.with(&format!("{prefix}_port"), "").with(&format!("{prefix}_section_name"), "")
        }
        _ => labels,
    }
}

struct PortLabel(u32);

impl std::fmt::Display for PortLabel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => Ok(()),
            port => port.fmt(f),
        }
    }
}

impl<B> Routes<B> {
    /// The most specific rule for a request; of equals the first.
    pub(crate) fn choose<T>(&self, request: &Request<T>) -> Option<Chosen<'_, B>> {
        let host = host(request.uri(), request.headers());
        let candidates = self.routes.iter().filter_map(|route| Some((route, route.host_specificity(host)?)));
        candidates
            .flat_map(|(route, by_host)| {
                route.rules.iter().filter_map(move |rule| Some((route, rule, rule.specificity(request, by_host)?)))
            })
            // `min_by_key` keeps the first of equals.
            .min_by_key(|(_, _, specificity)| Reverse(*specificity))
            .map(|(route, rule, _)| Chosen { rule, route, parent: &self.parent })
    }
}

impl<B> Rule<B> {
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    pub(crate) fn backends(&self) -> &Split<B> {
        &self.backends
    }

    /// Applies the filters.
    pub(crate) fn filter<T>(&self, request: &mut Request<T>) -> Result<(), ProxyError> {
        for filter in &self.filters {
            match filter {
                Filter::Headers { set, add, remove } => {
                    let headers = request.headers_mut();
                    for (name, value) in set {
                        headers.insert(name.clone(), value.clone());
                    }
                    for (name, value) in add {
                        headers.append(name.clone(), value.clone());
                    }
                    for name in remove {
                        headers.remove(name);
                    }
                }
                Filter::Fail { status, message, numerator, denominator } => {
                    if rand::rng().random_range(0..*denominator) < *numerator {
                        return Err(ProxyError::Injected { status: *status, message: message.clone() });
                    }
                }
            }
        }
        Ok(())
    }

    fn specificity<T>(&self, request: &Request<T>, host: (u8, usize)) -> Option<Specificity> {
        if self.matches.is_empty() {
            return Some((host, (0, 0), false, 0, 0));
        }
        self.matches.iter().filter_map(|one| one.specificity(request, host)).max()
    }
}

impl<B> Route<B> {
    fn host_specificity(&self, host: &str) -> Option<(u8, usize)> {
        if self.hosts.is_empty() {
            return Some((0, 0));
        }
        let each = self.hosts.iter().filter_map(|one| match one {
            HostMatch::Exact(exact) => host.eq_ignore_ascii_case(exact).then_some((2, exact.len())),
            HostMatch::Suffix(suffix) => {
                let tail = host.len().checked_sub(suffix.len()).and_then(|start| host.get(start..))?;
                tail.eq_ignore_ascii_case(suffix).then_some((1, suffix.len()))
            }
        });
        each.max()
    }
}

impl RequestMatch {
    fn specificity<T>(&self, request: &Request<T>, host: (u8, usize)) -> Option<Specificity> {
        let path = request.uri().path();
        let by_path = match &self.path {
            None => (0, 0),
            Some(PathMatch::Exact(exact)) if exact == path => (3, exact.len()),
            Some(PathMatch::Prefix(prefix)) if has_prefix(path, prefix) => (1, prefix.trim_end_matches('/').len()),
            Some(PathMatch::Regex(regex)) if regex.is_match(path) => (2, regex.as_str().len()),
            Some(_) => return None,
        };
        let method = self.method.as_ref().is_none_or(|method| method == request.method());
        let header = |(name, expected): &(HeaderName, ValueMatch)| {
            request.headers().get_all(name).iter().any(|value| expected.matches(value.as_bytes()))
        };
        let query = |(name, expected): &(String, ValueMatch)| {
            let pairs = request.uri().query().unwrap_or_default().split('&');
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .any(|(key, value)| key == name && expected.matches(value.as_bytes()))
        };
        let matches = method && self.headers.iter().all(header) && self.queries.iter().all(query);
        matches.then_some((host, by_path, self.method.is_some(), self.headers.len(), self.queries.len()))
    }
}

impl ValueMatch {
    fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => exact == value,
            Self::Regex(regex) => str::from_utf8(value).is_ok_and(|value| regex.is_match(value)),
        }
    }
}

/// Prefixes are of path segments: `/a` is a prefix of `/a/b` and not of `/ab`.
fn has_prefix(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> &'a str {
    let host = headers.get(HOST).and_then(|value| value.to_str().ok());
    let authority = uri.authority().map(|authority| authority.as_str()).or(host).unwrap_or_default();
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    }
}

fn http_route<B>(
    route: &api::HttpRoute,
    parent: &Labels,
    backend: &mut impl FnMut(&Backend, &Labels) -> Option<B>,
) -> Route<B> {
    let name = route.metadata.as_ref().map(|metadata| metadata_labels("route", metadata)).unwrap_or_default();
    let labels = parent.clone().followed_by(&name);
    let mut backend = |one: &Backend| backend(one, &labels);
    let rules = route.rules.iter().filter_map(|rule| {
        if rule.retry.is_some() {
            warn!(route = name.as_str(), "retries of routes are not followed");
        }
        let filters = rule.filters.iter().filter_map(|filter| match filter.kind.as_ref()? {
            http_api::filter::Kind::FailureInjector(fail) => failure(fail.status, &fail.message, fail.ratio),
            http_api::filter::Kind::RequestHeaderModifier(modifier) => header_filter(modifier),
            http_api::filter::Kind::Redirect(_) | http_api::filter::Kind::ResponseHeaderModifier(_) => {
                warn!(route = name.as_str(), "a filter of a route is not followed: redirects and response headers");
                None
            }
        });
        Some(Rule {
            matches: readable(&rule.matches, http_match, &name)?,
            filters: filters.collect(),
            backends: http_backends(rule.backends.as_ref(), &mut backend),
            timeout: timeout(rule.timeouts.as_ref()),
        })
    });
    let rules = rules.collect();
    Route { hosts: hosts(&route.hosts), rules, name, ends: Keyed::default() }
}

fn grpc_routes<B>(
    route: &api::GrpcRoute,
    parent: &Labels,
    backend: &mut impl FnMut(&Backend, &Labels) -> Option<B>,
) -> Route<B> {
    let name = route.metadata.as_ref().map(|metadata| metadata_labels("route", metadata)).unwrap_or_default();
    let labels = parent.clone().followed_by(&name);
    let mut backend = |one: &Backend| backend(one, &labels);
    let rules = route.rules.iter().filter_map(|rule| {
        if rule.retry.is_some() {
            warn!(route = name.as_str(), "retries of routes are not followed");
        }
        let filters = rule.filters.iter().filter_map(|filter| match filter.kind.as_ref()? {
            grpc::filter::Kind::FailureInjector(fail) => failure(500, &fail.message, fail.ratio),
            grpc::filter::Kind::RequestHeaderModifier(modifier) => header_filter(modifier),
        });
        Some(Rule {
            matches: readable(&rule.matches, grpc_match, &name)?,
            filters: filters.collect(),
            backends: grpc_backends(rule.backends.as_ref(), &mut backend),
            timeout: timeout(rule.timeouts.as_ref()),
        })
    });
    let rules = rules.collect();
    Route { hosts: hosts(&route.hosts), rules, name, ends: Keyed::default() }
}

/// A response is awaited as long as the shorter of both timeouts says.
fn timeout(timeouts: Option<&matches::Timeouts>) -> Option<Duration> {
    let timeouts = timeouts?;
    let each = [timeouts.request, timeouts.response].into_iter().flatten();
    each.filter_map(|timeout| Duration::try_from(timeout).ok()).filter(|timeout| !timeout.is_zero()).min()
}

fn http_backends<B>(
    distribution: Option<&http_api::Distribution>,
    backend: &mut impl FnMut(&Backend) -> Option<B>,
) -> Split<B> {
    use http_api::distribution::Kind;
    match distribution.and_then(|distribution| distribution.kind.as_ref()) {
        Some(Kind::FirstAvailable(first)) => {
            let first = first.backends.first().and_then(|route| route.backend.as_ref());
            Split::new(first.and_then(backend).map(|backend| (backend, 1)))
        }
        Some(Kind::RandomAvailable(random)) => Split::new(
            random
                .backends
                .iter()
                .filter_map(|weighted| Some((backend(weighted.backend.as_ref()?.backend.as_ref()?)?, weighted.weight))),
        ),
        Some(Kind::Empty(_)) | None => Split::new([]),
    }
}

fn grpc_backends<B>(
    distribution: Option<&grpc::Distribution>,
    backend: &mut impl FnMut(&Backend) -> Option<B>,
) -> Split<B> {
    use grpc::distribution::Kind;
    match distribution.and_then(|distribution| distribution.kind.as_ref()) {
        Some(Kind::FirstAvailable(first)) => {
            let first = first.backends.first().and_then(|route| route.backend.as_ref());
            Split::new(first.and_then(backend).map(|backend| (backend, 1)))
        }
        Some(Kind::RandomAvailable(random)) => Split::new(
            random
                .backends
                .iter()
                .filter_map(|weighted| Some((backend(weighted.backend.as_ref()?.backend.as_ref()?)?, weighted.weight))),
        ),
        Some(Kind::Empty(_)) | None => Split::new([]),
    }
}

fn hosts(hosts: &[matches::HostMatch]) -> Vec<HostMatch> {
    let each = hosts.iter().filter_map(|host| {
        Some(match host.r#match.as_ref()? {
            matches::host_match::Match::Exact(exact) => HostMatch::Exact(exact.clone()),
            matches::host_match::Match::Suffix(suffix) => {
                let labels: Vec<_> = suffix.reverse_labels.iter().rev().map(String::as_str).collect();
                HostMatch::Suffix(format!(".{}", labels.join(".")))
            }
        })
    });
    each.collect()
}

/// The matches that can be read; `None` if there are matches and none can, since a rule without matches matches all.
fn readable<M>(matches: &[M], read: impl Fn(&M) -> Option<RequestMatch>, route: &Labels) -> Option<Vec<RequestMatch>> {
    let read: Vec<_> = matches.iter().filter_map(read).collect();
    if read.len() < matches.len() {
        warn!(route = route.as_str(), "a match of a route cannot be read and matches nothing");
    }
    (matches.is_empty() || !read.is_empty()).then_some(read)
}

/// `None` for a match that cannot be read.
fn http_match(one: &matches::HttpRouteMatch) -> Option<RequestMatch> {
    let path = match one.path.as_ref().and_then(|path| path.kind.as_ref()) {
        None => None,
        Some(matches::path_match::Kind::Exact(exact)) => Some(PathMatch::Exact(exact.clone())),
        Some(matches::path_match::Kind::Prefix(prefix)) => Some(PathMatch::Prefix(prefix.clone())),
        Some(matches::path_match::Kind::Regex(regex)) => Some(PathMatch::Regex(anchored(regex).ok()?)),
    };
    let method = match &one.method {
        Some(method) => Some(Method::try_from(method.clone()).ok()?),
        None => None,
    };
    let queries = one.query_params.iter().map(|query| {
        let value = match query.value.as_ref()? {
            matches::query_param_match::Value::Exact(exact) => ValueMatch::Exact(exact.clone().into_bytes()),
            matches::query_param_match::Value::Regex(regex) => ValueMatch::Regex(anchored(regex).ok()?),
        };
        Some((query.name.clone(), value))
    });
    Some(RequestMatch {
        path,
        method,
        headers: header_matches(&one.headers)?,
        queries: queries.collect::<Option<_>>()?,
    })
}

fn grpc_match(one: &grpc_route::GrpcRouteMatch) -> Option<RequestMatch> {
    let path = one.rpc.as_ref().and_then(|rpc| match (&*rpc.service, &*rpc.method) {
        ("", "") => None,
        (service, "") => Some(PathMatch::Prefix(format!("/{service}"))),
        ("", method) => anchored(&format!("/[^/]+/{}", regex::escape(method))).ok().map(PathMatch::Regex),
        (service, method) => Some(PathMatch::Exact(format!("/{service}/{method}"))),
    });
    Some(RequestMatch { path, headers: header_matches(&one.headers)?, ..Default::default() })
}

fn header_matches(headers: &[matches::HeaderMatch]) -> Option<Vec<(HeaderName, ValueMatch)>> {
    let each = headers.iter().map(|header| {
        let value = match header.value.as_ref()? {
            matches::header_match::Value::Exact(exact) => ValueMatch::Exact(exact.clone()),
            matches::header_match::Value::Regex(regex) => ValueMatch::Regex(anchored(regex).ok()?),
        };
        Some((header.name.parse().ok()?, value))
    });
    each.collect()
}

fn header_filter(modifier: &matches::RequestHeaderModifier) -> Option<Filter> {
    let list = |headers: &Option<http_types::Headers>| {
        let headers = headers.as_ref().map(|headers| &headers.headers[..]).unwrap_or_default();
        let parse = |header: &http_types::headers::Header| {
            Some((header.name.parse().ok()?, HeaderValue::from_bytes(&header.value).ok()?))
        };
        headers.iter().filter_map(parse).collect()
    };
    let remove = modifier.remove.iter().filter_map(|name| name.parse::<header::HeaderName>().ok()).collect();
    Some(Filter::Headers { set: list(&modifier.set), add: list(&modifier.add), remove })
}

fn failure(status: u32, message: &str, ratio: Option<matches::Ratio>) -> Option<Filter> {
    let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    let ratio = ratio.unwrap_or(matches::Ratio { numerator: 1, denominator: 1 });
    Some(Filter::Fail {
        status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        message: message.to_owned(),
        numerator: ratio.numerator,
        denominator: ratio.denominator.max(1),
    })
}

#[cfg(test)]
mod tests;
