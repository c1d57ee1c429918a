//! Which requests a rule of a route is for: by host, path, method, headers and query, the most specific first, as the Gateway
//! API orders them.

use std::{cmp::Reverse, str};

use http::{HeaderMap, HeaderName, Method, Request, Uri, header::HOST};
use linkerd2_proxy_api::{grpc_route, http_route as api};
use regex::Regex;
use tracing::warn;

use crate::{metrics::Labels, profile::anchored};

/// Routes that are each for some hosts, with rules that are each for some requests.
pub(crate) struct RouteTable<R, U>(pub(crate) Vec<RouteEntry<R, U>>);

/// A route of a table, and what it is for.
pub(crate) struct RouteEntry<R, U> {
    pub(crate) route: R,
    pub(crate) hosts: Hosts,
    pub(crate) rules: Vec<(RuleMatches, U)>,
}

/// The rule for a request, with its route.
pub(crate) struct Chosen<'a, R, U> {
    pub(crate) route: &'a R,
    pub(crate) rule: &'a U,
    matched: Option<&'a RequestMatch>,
}

/// The hosts that a route is for; without any, all.
#[derive(Default)]
pub(crate) struct Hosts(Vec<HostMatch>);

/// The matches of a rule, each of which is enough; without any, every request is the rule's.
#[derive(Default)]
pub(crate) struct RuleMatches(Vec<RequestMatch>);

/// A host, or all below a domain.
enum HostMatch {
    Exact(String),
    /// A domain with its leading dot.
    Suffix(String),
}

/// One of the matches of a rule.
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
    /// A service and a method of gRPC; either may be empty, and is any then.
    Rpc(String, String),
}

enum ValueMatch {
    Exact(Vec<u8>),
    Regex(Regex),
}

/// How much of a request a match pins down: host, then path (or gRPC service, then gRPC method), then method, then headers, then
/// query. Larger wins.
type Specificity = ((u8, usize), (usize, usize), bool, usize, usize);

impl<R, U> RouteTable<R, U> {
    /// The most specific rule for a request; of equals the first.
    pub(crate) fn choose<T>(&self, request: &Request<T>) -> Option<Chosen<'_, R, U>> {
        let host = host(request.uri(), request.headers());
        let candidates = self.0.iter().filter_map(|entry| Some((entry, entry.hosts.specificity(host)?)));
        candidates
            .flat_map(|(entry, by_host)| {
                entry.rules.iter().filter_map(move |(matches, rule)| {
                    let (specificity, matched) = matches.specificity(request, by_host)?;
                    Some((specificity, Chosen { route: &entry.route, rule, matched }))
                })
            })
            // `min_by_key` keeps the first of equals.
            .min_by_key(|(specificity, _)| Reverse(*specificity))
            .map(|(_, chosen)| chosen)
    }
}

impl<R, U> Chosen<'_, R, U> {
    /// The prefix of the path that decided, for redirects that replace it.
    pub(crate) fn prefix(&self) -> Option<&str> {
        match self.matched?.path.as_ref()? {
            PathMatch::Prefix(prefix) => Some(prefix.trim_end_matches('/')),
            PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Rpc(..) => None,
        }
    }
}

impl Hosts {
    pub(crate) fn of(hosts: &[api::HostMatch]) -> Self {
        let each = hosts.iter().filter_map(|host| {
            Some(match host.r#match.as_ref()? {
                api::host_match::Match::Exact(exact) => HostMatch::Exact(exact.clone()),
                api::host_match::Match::Suffix(suffix) => {
                    let labels: Vec<_> = suffix.reverse_labels.iter().rev().map(String::as_str).collect();
                    HostMatch::Suffix(format!(".{}", labels.join(".")))
                }
            })
        });
        Self(each.collect())
    }

    fn specificity(&self, host: &str) -> Option<(u8, usize)> {
        if self.0.is_empty() {
            return Some((0, 0));
        }
        let each = self.0.iter().filter_map(|one| match one {
            HostMatch::Exact(exact) => host.eq_ignore_ascii_case(exact).then_some((2, exact.len())),
            HostMatch::Suffix(suffix) => {
                let tail = host.len().checked_sub(suffix.len()).and_then(|start| host.get(start..))?;
                tail.eq_ignore_ascii_case(suffix).then_some((1, suffix.len()))
            }
        });
        each.max()
    }
}

impl RuleMatches {
    /// Of an HTTPRoute's rule; `None` if there are matches and none can be read. `route` is named where one cannot.
    pub(crate) fn of_http(matches: &[api::HttpRouteMatch], route: &Labels) -> Option<Self> {
        Self::read(matches, http_match, route)
    }

    /// Of a GRPCRoute's rule, likewise.
    pub(crate) fn of_grpc(matches: &[grpc_route::GrpcRouteMatch], route: &Labels) -> Option<Self> {
        Self::read(matches, grpc_match, route)
    }

    fn read<M>(matches: &[M], read: impl Fn(&M) -> Option<RequestMatch>, route: &Labels) -> Option<Self> {
        let read: Vec<_> = matches.iter().filter_map(read).collect();
        if read.len() < matches.len() {
            warn!(route = route.as_str(), "a match of a route cannot be read and matches nothing");
        }
        (matches.is_empty() || !read.is_empty()).then_some(Self(read))
    }

    fn specificity<T>(&self, request: &Request<T>, host: (u8, usize)) -> Option<(Specificity, Option<&RequestMatch>)> {
        if self.0.is_empty() {
            return Some(((host, (0, 0), false, 0, 0), None));
        }
        let each = self.0.iter().filter_map(|one| Some((one.specificity(request, host)?, Some(one))));
        each.max_by_key(|(specificity, _)| *specificity)
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
            Some(PathMatch::Rpc(service, method)) if is_rpc(path, service, method) => (service.len(), method.len()),
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

/// gRPC's paths are `/service/method`.
fn is_rpc(path: &str, service: &str, method: &str) -> bool {
    let is = |expected: &str, found: &str| expected.is_empty() || expected == found;
    let parts = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    parts.is_some_and(|parts| is(service, parts.0) && is(method, parts.1))
}

/// The host that a request is for, without its port.
pub(crate) fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> &'a str {
    let host = headers.get(HOST).and_then(|value| value.to_str().ok());
    let authority = uri.authority().map(|authority| authority.as_str()).or(host).unwrap_or_default();
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    }
}

/// `None` for a match that cannot be read.
fn http_match(one: &api::HttpRouteMatch) -> Option<RequestMatch> {
    let path = match one.path.as_ref().and_then(|path| path.kind.as_ref()) {
        None => None,
        Some(api::path_match::Kind::Exact(exact)) => Some(PathMatch::Exact(exact.clone())),
        Some(api::path_match::Kind::Prefix(prefix)) => Some(PathMatch::Prefix(prefix.clone())),
        Some(api::path_match::Kind::Regex(regex)) => Some(PathMatch::Regex(anchored(regex).ok()?)),
    };
    let method = match &one.method {
        Some(method) => Some(Method::try_from(method.clone()).ok()?),
        None => None,
    };
    let queries = one.query_params.iter().map(|query| {
        let value = match query.value.as_ref()? {
            api::query_param_match::Value::Exact(exact) => ValueMatch::Exact(exact.clone().into_bytes()),
            api::query_param_match::Value::Regex(regex) => ValueMatch::Regex(anchored(regex).ok()?),
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

/// As with Linkerd's, gRPC is what is posted.
fn grpc_match(one: &grpc_route::GrpcRouteMatch) -> Option<RequestMatch> {
    let path = one.rpc.as_ref().map(|rpc| PathMatch::Rpc(rpc.service.clone(), rpc.method.clone()));
    let headers = header_matches(&one.headers)?;
    Some(RequestMatch { path, method: Some(Method::POST), headers, queries: Vec::new() })
}

fn header_matches(headers: &[api::HeaderMatch]) -> Option<Vec<(HeaderName, ValueMatch)>> {
    let each = headers.iter().map(|header| {
        let value = match header.value.as_ref()? {
            api::header_match::Value::Exact(exact) => ValueMatch::Exact(exact.clone()),
            api::header_match::Value::Regex(regex) => ValueMatch::Regex(anchored(regex).ok()?),
        };
        Some((header.name.parse().ok()?, value))
    });
    each.collect()
}
