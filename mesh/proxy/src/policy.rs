//! Outbound policies: HTTPRoutes and GRPCRoutes of one destination, compiled from the control plane's message.

mod retry;
mod statuses;

use std::time::Duration;

use http::{Request, Response};
use linkerd2_proxy_api::{
    http_route as matches,
    meta::{Metadata, metadata},
    outbound::{self as api, Backend, grpc_route as grpc, http_route as http_api, proxy_protocol},
};

use crate::{
    balance::Accrual,
    filters::Filters,
    http::{ProxyError, ResponseBody},
    matches::{self as table, Hosts, RouteEntry, RouteTable, RuleMatches},
    metrics::{Labels, Metrics, Protocol},
    split::Split,
};
pub(crate) use retry::{Retry, RetryCounters};
pub(crate) use statuses::Statuses;

/// The routes of a destination, over backends of type `B`.
pub(crate) struct Routes<B>(RouteTable<Statuses, Rule<B>>);

/// Of what a backend is made: what it belongs to, and how that is counted.
pub(crate) struct BackendOf<'a> {
    pub(crate) protocol: Protocol,
    /// Of the route and its parent.
    pub(crate) labels: &'a Labels,
}

impl BackendOf<'_> {
    /// What counts how the requests to it end, under its own labels.
    pub(crate) fn statuses(&self, metrics: &Metrics, labels: Labels) -> Statuses {
        Statuses::new(self.protocol, metrics.routes(self.protocol).backend_statuses.clone(), labels)
    }
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

/// The rule that was chosen for a request, and what its route has answered.
pub(crate) struct Chosen<'a, B>(table::Chosen<'a, Statuses, Rule<B>>);

impl<B> Chosen<'_, B> {
    /// Counts how a request ended.
    pub(crate) fn count(&self, result: &mut Result<Response<ResponseBody>, ProxyError>) {
        self.0.route.count(result);
    }

    pub(crate) fn rule(&self) -> &Rule<B> {
        self.0.rule
    }

    /// Applies the filters.
    pub(crate) fn filter<T>(&self, request: &mut Request<T>) -> Result<(), ProxyError> {
        self.0.rule.filters.on_request(request, self.0.prefix())
    }
}

/// The routes of a policy, for HTTP or for gRPC; `None` if it is opaque. `backend` makes a backend.
pub(crate) fn compile<B>(
    policy: &api::OutboundPolicy,
    metrics: &Metrics,
    mut backend: impl FnMut(&Backend, &BackendOf<'_>) -> Option<B>,
) -> Option<Routes<B>> {
    let parent = policy.metadata.as_ref().map(|metadata| metadata_labels("parent", metadata)).unwrap_or_default();
    let kind = policy.protocol.as_ref()?.kind.as_ref()?;
    let mut http = |routes: &[api::HttpRoute]| -> Vec<RouteEntry<Statuses, Rule<B>>> {
        routes.iter().map(|route| http_route(route, &parent, metrics, &mut backend)).collect()
    };
    let routes = match kind {
        // Both versions have the same routes in everything that a control plane sends.
        proxy_protocol::Kind::Detect(detect) => http(&detect.http1.as_ref()?.routes),
        proxy_protocol::Kind::Http1(http1) => http(&http1.routes),
        proxy_protocol::Kind::Http2(http2) => http(&http2.routes),
        proxy_protocol::Kind::Grpc(grpc) => {
            grpc.routes.iter().map(|route| grpc_route(route, &parent, metrics, &mut backend)).collect()
        }
        proxy_protocol::Kind::Opaque(_) | proxy_protocol::Kind::Tls(_) => return None,
    };
    Some(Routes(RouteTable(routes)))
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
        self.0.choose(request).map(Chosen)
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
    backend: &mut impl FnMut(&Backend, &BackendOf<'_>) -> Option<B>,
) -> RouteEntry<Statuses, Rule<B>> {
    let of = RouteOf::new(Protocol::Http, parent, route.metadata.as_ref(), metrics);
    let mut leg = |one: &http_api::RouteBackend| {
        Some(Leg { backend: backend(one.backend.as_ref()?, &of.backend())?, filters: http_filters(&one.filters) })
    };
    let rules = route.rules.iter().filter_map(|rule| {
        let retry = rule.retry.as_ref().map(Retry::of_http);
        let backends = http_backends(rule.backends.as_ref(), &mut leg);
        let rule_for = of.rule(http_filters(&rule.filters), backends, rule.timeouts.as_ref(), retry);
        Some((RuleMatches::of_http(&rule.matches, &of.labels)?, rule_for))
    });
    let rules = rules.collect();
    RouteEntry { route: of.statuses(), hosts: Hosts::of(&route.hosts), rules }
}

fn grpc_route<B>(
    route: &api::GrpcRoute,
    parent: &Labels,
    metrics: &Metrics,
    backend: &mut impl FnMut(&Backend, &BackendOf<'_>) -> Option<B>,
) -> RouteEntry<Statuses, Rule<B>> {
    let of = RouteOf::new(Protocol::Grpc, parent, route.metadata.as_ref(), metrics);
    let mut leg = |one: &grpc::RouteBackend| {
        Some(Leg { backend: backend(one.backend.as_ref()?, &of.backend())?, filters: grpc_filters(&one.filters) })
    };
    let rules = route.rules.iter().filter_map(|rule| {
        let retry = rule.retry.as_ref().map(Retry::of_grpc);
        let backends = grpc_backends(rule.backends.as_ref(), &mut leg);
        let rule_for = of.rule(grpc_filters(&rule.filters), backends, rule.timeouts.as_ref(), retry);
        Some((RuleMatches::of_grpc(&rule.matches, &of.labels)?, rule_for))
    });
    let rules = rules.collect();
    RouteEntry { route: of.statuses(), hosts: Hosts::of(&route.hosts), rules }
}

/// What the parts of a route are made of.
struct RouteOf<'a> {
    protocol: Protocol,
    /// Of the route and its parent.
    labels: Labels,
    metrics: &'a Metrics,
}

impl<'a> RouteOf<'a> {
    fn new(protocol: Protocol, parent: &Labels, name: Option<&Metadata>, metrics: &'a Metrics) -> Self {
        let name = name.map(|metadata| metadata_labels("route", metadata)).unwrap_or_default();
        Self { protocol, labels: parent.clone().followed_by(&name), metrics }
    }

    fn backend(&self) -> BackendOf<'_> {
        BackendOf { protocol: self.protocol, labels: &self.labels }
    }

    fn statuses(&self) -> Statuses {
        let labels = self.labels.clone().with("hostname", "");
        Statuses::new(self.protocol, self.metrics.routes(self.protocol).statuses.clone(), labels)
    }

    /// Where there are no retries the one attempt may take as long as the shorter of both timeouts says.
    fn rule<B>(
        &self,
        filters: Filters,
        backends: Split<Leg<B>>,
        timeouts: Option<&matches::Timeouts>,
        retry: Option<Retry>,
    ) -> Rule<B> {
        let response = timeouts.and_then(|timeouts| duration(timeouts.response));
        let of_attempt = retry.as_ref().and_then(|retry| retry.timeout);
        let counters = || RetryCounters::hold(self.metrics.routes(self.protocol), &self.labels);
        Rule {
            filters,
            backends,
            timeout: timeouts.and_then(|timeouts| duration(timeouts.request)),
            attempt_timeout: [response, of_attempt].into_iter().flatten().min(),
            retry: retry.map(|retry| (retry, counters())),
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
            Kind::FailureInjector(fail) => all.fail(fail),
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
            Kind::FailureInjector(fail) => all.fail_grpc(fail),
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
