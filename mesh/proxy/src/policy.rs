//! Outbound policies: HTTPRoutes and GRPCRoutes of one destination, compiled from the control plane's message.

mod retry;

use std::time::Duration;

use http::{Request, Response, StatusCode};
use linkerd2_proxy_api::{
    http_route as matches,
    meta::{Metadata, metadata},
    outbound::{self as api, Backend, grpc_route as grpc, http_route as http_api, proxy_protocol},
};

use crate::{
    balance::Accrual,
    filters::Filters,
    http::ProxyError,
    matches::{self as table, Hosts, RouteEntry, RouteTable, RuleMatches},
    metrics::{Counter, Family, Keyed, Labels, Metrics},
    split::Split,
};
pub(crate) use retry::{Retry, RetryCounters};

/// The routes of a destination, over backends of type `B`.
pub(crate) struct Routes<B> {
    parent: Labels,
    table: RouteTable<Route, Rule<B>>,
}

/// One route, and what it has answered.
struct Route {
    name: Labels,
    ends: Keyed<End, Counter>,
}

/// What to do with the requests of one rule.
pub(crate) struct Rule<B> {
    filters: Filters,
    backends: Split<Leg<B>>,
    timeout: Option<Duration>,
    attempt_timeout: Option<Duration>,
    retry: Option<(Retry, RetryCounters)>,
}

/// A backend of a rule, and what is done to the requests that it gets.
pub(crate) struct Leg<B> {
    pub(crate) backend: B,
    filters: Filters,
}

/// The rule that was chosen for a request, and its route.
pub(crate) struct Chosen<'a, B> {
    chosen: table::Chosen<'a, Route, Rule<B>>,
    parent: &'a Labels,
}

impl<B> Chosen<'_, B> {
    /// Counts how a request ended.
    pub(crate) fn count(&self, statuses: &Family<Counter>, end: End) {
        let route = self.chosen.route;
        let make = || {
            let labels = self.parent.clone().followed_by(&route.name).with("hostname", "");
            statuses.hold(&end.label(labels))
        };
        route.ends.get_or_make(end, make).increment();
    }

    pub(crate) fn rule(&self) -> &Rule<B> {
        self.chosen.rule
    }

    /// Applies the filters.
    pub(crate) fn filter<T>(&self, request: &mut Request<T>) -> Result<(), ProxyError> {
        self.chosen.rule.filters.on_request(request, self.chosen.prefix())
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

/// The HTTP routes of a policy; `None` if it is opaque. `backend` makes a backend, given the labels of its route.
pub(crate) fn compile<B>(
    policy: &api::OutboundPolicy,
    metrics: &Metrics,
    mut backend: impl FnMut(&Backend, &Labels) -> Option<B>,
) -> Option<Routes<B>> {
    let parent = policy.metadata.as_ref().map(|metadata| metadata_labels("parent", metadata)).unwrap_or_default();
    let kind = policy.protocol.as_ref()?.kind.as_ref()?;
    let mut http = |routes: &[api::HttpRoute]| -> Vec<RouteEntry<Route, Rule<B>>> {
        routes.iter().map(|route| http_route(route, &parent, metrics, &mut backend)).collect()
    };
    let routes = match kind {
        // Both versions have the same routes in everything that a control plane sends.
        proxy_protocol::Kind::Detect(detect) => http(&detect.http1.as_ref()?.routes),
        proxy_protocol::Kind::Http1(http1) => http(&http1.routes),
        proxy_protocol::Kind::Http2(http2) => http(&http2.routes),
        proxy_protocol::Kind::Grpc(grpc) => {
            grpc.routes.iter().map(|route| grpc_routes(route, &parent, metrics, &mut backend)).collect()
        }
        proxy_protocol::Kind::Opaque(_) | proxy_protocol::Kind::Tls(_) => return None,
    };
    Some(Routes { parent, table: RouteTable(routes) })
}

/// How the endpoints of a policy's backends are judged by their failures.
pub(crate) fn accrual(policy: &api::OutboundPolicy) -> Option<Accrual> {
    let api = match policy.protocol.as_ref()?.kind.as_ref()? {
        proxy_protocol::Kind::Detect(detect) => {
            let http2 = || detect.http2.as_ref()?.failure_accrual.as_ref();
            detect.http1.as_ref().and_then(|http1| http1.failure_accrual.as_ref()).or_else(http2)
        }
        proxy_protocol::Kind::Http1(http1) => http1.failure_accrual.as_ref(),
        proxy_protocol::Kind::Http2(http2) => http2.failure_accrual.as_ref(),
        proxy_protocol::Kind::Grpc(grpc) => grpc.failure_accrual.as_ref(),
        proxy_protocol::Kind::Opaque(_) | proxy_protocol::Kind::Tls(_) => None,
    };
    Accrual::of(api?)
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
        self.table.choose(request).map(|chosen| Chosen { chosen, parent: &self.parent })
    }
}

impl<B> Leg<B> {
    /// Applies the filters.
    pub(crate) fn filter<T>(&self, request: &mut Request<T>) -> Result<(), ProxyError> {
        self.filters.on_request(request, None)
    }

    /// Applies what changes responses.
    pub(crate) fn filter_response<T>(&self, response: &mut Response<T>) {
        self.filters.on_response(response.headers_mut());
    }
}

impl<B> Rule<B> {
    /// How long a response is awaited, over all attempts.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// How long that of one attempt is.
    pub(crate) fn attempt_timeout(&self) -> Option<Duration> {
        self.attempt_timeout
    }

    pub(crate) fn retry(&self) -> Option<&(Retry, RetryCounters)> {
        self.retry.as_ref()
    }

    pub(crate) fn backends(&self) -> &Split<Leg<B>> {
        &self.backends
    }

    /// Applies what changes responses.
    pub(crate) fn filter_response<T>(&self, response: &mut Response<T>) {
        self.filters.on_response(response.headers_mut());
    }
}

fn http_route<B>(
    route: &api::HttpRoute,
    parent: &Labels,
    metrics: &Metrics,
    backend: &mut impl FnMut(&Backend, &Labels) -> Option<B>,
) -> RouteEntry<Route, Rule<B>> {
    let name = route.metadata.as_ref().map(|metadata| metadata_labels("route", metadata)).unwrap_or_default();
    let labels = parent.clone().followed_by(&name);
    let mut leg = |one: &http_api::RouteBackend| {
        Some(Leg { backend: backend(one.backend.as_ref()?, &labels)?, filters: http_filters(&one.filters) })
    };
    let rules = route.rules.iter().filter_map(|rule| {
        let retry = rule.retry.as_ref().map(Retry::of_http);
        let backends = http_backends(rule.backends.as_ref(), &mut leg);
        let rule_for =
            Rule::new(http_filters(&rule.filters), backends, rule.timeouts.as_ref(), retry, metrics, &labels);
        Some((RuleMatches::of_http(&rule.matches, &name)?, rule_for))
    });
    let rules = rules.collect();
    RouteEntry { route: Route { name, ends: Keyed::default() }, hosts: Hosts::of(&route.hosts), rules }
}

fn grpc_routes<B>(
    route: &api::GrpcRoute,
    parent: &Labels,
    metrics: &Metrics,
    backend: &mut impl FnMut(&Backend, &Labels) -> Option<B>,
) -> RouteEntry<Route, Rule<B>> {
    let name = route.metadata.as_ref().map(|metadata| metadata_labels("route", metadata)).unwrap_or_default();
    let labels = parent.clone().followed_by(&name);
    let mut leg = |one: &grpc::RouteBackend| {
        Some(Leg { backend: backend(one.backend.as_ref()?, &labels)?, filters: grpc_filters(&one.filters) })
    };
    let rules = route.rules.iter().filter_map(|rule| {
        let retry = rule.retry.as_ref().map(Retry::of_grpc);
        let backends = grpc_backends(rule.backends.as_ref(), &mut leg);
        let rule_for =
            Rule::new(grpc_filters(&rule.filters), backends, rule.timeouts.as_ref(), retry, metrics, &labels);
        Some((RuleMatches::of_grpc(&rule.matches, &name)?, rule_for))
    });
    let rules = rules.collect();
    RouteEntry { route: Route { name, ends: Keyed::default() }, hosts: Hosts::of(&route.hosts), rules }
}

impl<B> Rule<B> {
    /// Where there are no retries the one attempt may take as long as the shorter of both timeouts says.
    fn new(
        filters: Filters,
        backends: Split<Leg<B>>,
        timeouts: Option<&matches::Timeouts>,
        retry: Option<Retry>,
        metrics: &Metrics,
        labels: &Labels,
    ) -> Self {
        let response = timeouts.and_then(|timeouts| duration(timeouts.response));
        let of_attempt = retry.as_ref().and_then(|retry| retry.timeout);
        Self {
            filters,
            backends,
            timeout: timeouts.and_then(|timeouts| duration(timeouts.request)),
            attempt_timeout: [response, of_attempt].into_iter().flatten().min(),
            retry: retry.map(|retry| (retry, RetryCounters::hold(metrics, labels))),
        }
    }
}

/// Zero is no limit.
fn duration<T>(api: Option<T>) -> Option<Duration>
where
    Duration: TryFrom<T>,
{
    api.and_then(|it| Duration::try_from(it).ok()).filter(|it| !it.is_zero())
}

fn http_filters(filters: &[http_api::Filter]) -> Filters {
    use http_api::filter::Kind;
    let mut all = Filters::default();
    for filter in filters.iter().filter_map(|filter| filter.kind.as_ref()) {
        match filter {
            Kind::FailureInjector(fail) => all.fail(fail.status, &fail.message, fail.ratio),
            Kind::RequestHeaderModifier(change) => all.change_request(change),
            Kind::ResponseHeaderModifier(change) => all.change_response(change),
            Kind::Redirect(to) => all.redirect(to),
        }
    }
    all
}

fn grpc_filters(filters: &[grpc::Filter]) -> Filters {
    use grpc::filter::Kind;
    let mut all = Filters::default();
    for filter in filters.iter().filter_map(|filter| filter.kind.as_ref()) {
        match filter {
            Kind::FailureInjector(fail) => all.fail(500, &fail.message, fail.ratio),
            Kind::RequestHeaderModifier(change) => all.change_request(change),
        }
    }
    all
}

fn http_backends<B>(
    distribution: Option<&http_api::Distribution>,
    leg: &mut impl FnMut(&http_api::RouteBackend) -> Option<Leg<B>>,
) -> Split<Leg<B>> {
    use http_api::distribution::Kind;
    match distribution.and_then(|distribution| distribution.kind.as_ref()) {
        Some(Kind::FirstAvailable(first)) => Split::new(first.backends.first().and_then(leg).map(|leg| (leg, 1))),
        Some(Kind::RandomAvailable(random)) => Split::new(
            random.backends.iter().filter_map(|weighted| Some((leg(weighted.backend.as_ref()?)?, weighted.weight))),
        ),
        Some(Kind::Empty(_)) | None => Split::new([]),
    }
}

fn grpc_backends<B>(
    distribution: Option<&grpc::Distribution>,
    leg: &mut impl FnMut(&grpc::RouteBackend) -> Option<Leg<B>>,
) -> Split<Leg<B>> {
    use grpc::distribution::Kind;
    match distribution.and_then(|distribution| distribution.kind.as_ref()) {
        Some(Kind::FirstAvailable(first)) => Split::new(first.backends.first().and_then(leg).map(|leg| (leg, 1))),
        Some(Kind::RandomAvailable(random)) => Split::new(
            random.backends.iter().filter_map(|weighted| Some((leg(weighted.backend.as_ref()?)?, weighted.weight))),
        ),
        Some(Kind::Empty(_)) | None => Split::new([]),
    }
}

#[cfg(test)]
mod tests;
