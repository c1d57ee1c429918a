//! Outbound policies: HTTPRoutes and GRPCRoutes of one destination, compiled from the control plane's message.

mod retry;
mod terms;

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Request, Response};
use linkerd2_proxy_api::{
    meta::{Metadata, Resource, metadata},
    outbound::{self as api, Backend, grpc_route as grpc, http_route as http_api, proxy_protocol},
};

use crate::{
    balance::Accrual,
    filters::Filters,
    http::ProxyError,
    matches::{self as table, Hosts, RouteEntry, RouteTable, RuleMatches},
    metrics::{ByHost, HostName, Labels, Metrics, PolicyFamilies, StreamFamilies, StreamScope, Variant},
    split::Split,
};
use retry::{Retry, RetryCounters, RetrySeries};
pub(crate) use terms::Terms;

/// The routes of a destination, over backends of type `B`.
pub(crate) struct Routes<B>(RouteTable<ByHost<StreamScope>, Rule<B>>);

/// What to do with the requests of one rule.
pub(crate) struct Rule<B> {
    filters: Filters,
    /// What errors call the route.
    name: Arc<str>,
    backends: Split<Leg<B>>,
    terms: Terms,
    /// Requests may ask for other terms.
    negotiable: bool,
    /// `None` if nothing is ever sent again.
    retries: Option<RetrySeries>,
}

/// A backend of a rule, and what is done to the requests that it gets.
pub(crate) struct Leg<B> {
    pub(crate) backend: B,
    filters: Filters,
}

/// The rule that was chosen for a request, and what counts the requests of its route.
pub(crate) struct Chosen<'a, B> {
    chosen: table::Chosen<'a, ByHost<StreamScope>, Rule<B>>,
    host: Option<HostName>,
    scope: Arc<StreamScope>,
}

impl<B> Chosen<'_, B> {
    /// What counts the route's requests.
    pub(crate) fn scope(&self) -> &Arc<StreamScope> {
        &self.scope
    }

    /// What counts its retries, if there are any.
    pub(crate) fn retry_counters(&self) -> Option<Arc<RetryCounters>> {
        let retries = self.rule().retries.as_ref()?;
        Some(retries.counters(self.host.as_ref()))
    }

    pub(crate) fn rule(&self) -> &Rule<B> {
        self.chosen.rule
    }

    /// Applies the filters.
    pub(crate) fn filter<T>(&self, request: &mut Request<T>) -> Result<(), ProxyError> {
        self.rule().filters.on_request(request, self.chosen.prefix())
    }
}

/// The HTTP routes of a policy; `None` if it has none, since it is for connections that are something else. `backend` makes a backend,
/// given the labels of its route, and what counts such backends.
pub(crate) fn compile<B>(
    policy: &api::OutboundPolicy,
    metrics: &Metrics,
    mut backend: impl FnMut(&Backend, &Labels, &StreamFamilies) -> B,
) -> Option<Routes<B>> {
    let parent = policy.metadata.as_ref().map(|metadata| metadata_labels("parent", metadata)).unwrap_or_default();
    let families = metrics.policies(Variant::Http);
    let mut http = |routes: &[api::HttpRoute]| -> Vec<RouteEntry<ByHost<StreamScope>, Rule<B>>> {
        routes.iter().map(|route| http_route(route, &parent, families, &mut backend)).collect()
    };
    let routes = match policy.protocol.as_ref()?.kind.as_ref()? {
        // Both versions have the same routes in everything that a control plane sends.
        proxy_protocol::Kind::Detect(detect) => http(&detect.http1.as_ref()?.routes),
        proxy_protocol::Kind::Http1(http1) => http(&http1.routes),
        proxy_protocol::Kind::Http2(http2) => http(&http2.routes),
        proxy_protocol::Kind::Grpc(grpc) => {
            let families = metrics.policies(Variant::Grpc);
            grpc.routes.iter().map(|route| grpc_route(route, &parent, families, &mut backend)).collect()
        }
        proxy_protocol::Kind::Opaque(_) | proxy_protocol::Kind::Tls(_) => return None,
    };
    Some(Routes(RouteTable(routes)))
}

/// Why a policy says nothing of what is to become of requests, if it does not. Linkerd's proxy refuses such policies as well, which the
/// control plane does not send but by mistake: what is not understood is not a leave to go past it.
pub(crate) fn unusable(policy: &api::OutboundPolicy) -> Option<&'static str> {
    match policy.protocol.as_ref().and_then(|protocol| protocol.kind.as_ref()) {
        None => Some("it has no protocol"),
        Some(proxy_protocol::Kind::Detect(detect)) => {
            let whole = detect.http1.is_some() && detect.http2.is_some() && detect.opaque.is_some();
            (!whole).then_some("it does not say what becomes of each protocol")
        }
        Some(_) => None,
    }
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

/// What errors call something, as Linkerd's proxy does (`linkerd/proxy/client-policy/src/lib.rs`): `Service.ns.web:80`, `default.http`.
pub(crate) fn metadata_name(metadata: Option<&Metadata>) -> Arc<str> {
    match metadata.and_then(|metadata| metadata.kind.as_ref()) {
        Some(metadata::Kind::Resource(Resource { kind, namespace, name, port, .. })) => match port {
            0 => format!("{kind}.{namespace}.{name}"),
            port => format!("{kind}.{namespace}.{name}:{port}"),
        },
        Some(metadata::Kind::Default(name)) => format!("default.{name}"),
        None => "default.unknown".to_owned(),
    }
    .into()
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
        let chosen = self.0.choose(request)?;
        let host = chosen.route.name(|| table::host(request.uri(), request.headers()));
        let scope = chosen.route.of(host.as_ref());
        Some(Chosen { chosen, host, scope })
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
    /// What holds for requests that say nothing of it themselves.
    pub(crate) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// What holds for a request with these headers instead, if it says so and may.
    pub(crate) fn terms_of(&self, headers: &mut HeaderMap) -> Option<Box<Terms>> {
        if self.negotiable { self.terms.of_request(headers) } else { None }
    }

    pub(crate) fn backends(&self) -> &Split<Leg<B>> {
        &self.backends
    }

    /// What errors call the route.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Applies what changes responses.
    pub(crate) fn filter_response<T>(&self, response: &mut Response<T>) {
        self.filters.on_response(response.headers_mut());
    }
}

fn http_route<B>(
    route: &api::HttpRoute,
    parent: &Labels,
    families: &PolicyFamilies,
    backend: &mut impl FnMut(&Backend, &Labels, &StreamFamilies) -> B,
) -> RouteEntry<ByHost<StreamScope>, Rule<B>> {
    let name = route.metadata.as_ref().map(|metadata| metadata_labels("route", metadata)).unwrap_or_default();
    let labels = parent.clone().followed_by(&name);
    let route_name = metadata_name(route.metadata.as_ref());
    let mut leg = |one: &http_api::RouteBackend| Leg {
        backend: backend(one.backend.as_ref().unwrap_or(&Backend::default()), &labels, &families.backends),
        filters: http_filters(&one.filters),
    };
    let rules = route.rules.iter().filter_map(|rule| {
        let terms = Terms::of(rule.timeouts.as_ref(), rule.retry.as_ref().map(Retry::of_http));
        let backends = http_backends(rule.backends.as_ref(), &mut leg);
        let retries = RetrySeries::of(&families.retries, &labels);
        let filters = http_filters(&rule.filters);
        let rule_for = Rule::new(&route_name, filters, backends, terms, rule.allow_l5d_request_headers, retries);
        Some((RuleMatches::of_http(&rule.matches, &name)?, rule_for))
    });
    let rules = rules.collect();
    RouteEntry { hosts: Hosts::of(&route.hosts), rules, route: families.route(labels) }
}

fn grpc_route<B>(
    route: &api::GrpcRoute,
    parent: &Labels,
    families: &PolicyFamilies,
    backend: &mut impl FnMut(&Backend, &Labels, &StreamFamilies) -> B,
) -> RouteEntry<ByHost<StreamScope>, Rule<B>> {
    let name = route.metadata.as_ref().map(|metadata| metadata_labels("route", metadata)).unwrap_or_default();
    let labels = parent.clone().followed_by(&name);
    let route_name = metadata_name(route.metadata.as_ref());
    let mut leg = |one: &grpc::RouteBackend| Leg {
        backend: backend(one.backend.as_ref().unwrap_or(&Backend::default()), &labels, &families.backends),
        filters: grpc_filters(&one.filters),
    };
    let rules = route.rules.iter().filter_map(|rule| {
        let terms = Terms::of(rule.timeouts.as_ref(), rule.retry.as_ref().map(Retry::of_grpc));
        let backends = grpc_backends(rule.backends.as_ref(), &mut leg);
        let retries = RetrySeries::of(&families.retries, &labels);
        let filters = grpc_filters(&rule.filters);
        let rule_for = Rule::new(&route_name, filters, backends, terms, rule.allow_l5d_request_headers, retries);
        Some((RuleMatches::of_grpc(&rule.matches, &name)?, rule_for))
    });
    let rules = rules.collect();
    RouteEntry { hosts: Hosts::of(&route.hosts), rules, route: families.route(labels) }
}

impl<B> Rule<B> {
    /// `retries` are counted from the start if there are some, and otherwise from when a request asks for some, if it may.
    fn new(
        name: &Arc<str>,
        filters: Filters,
        backends: Split<Leg<B>>,
        terms: Terms,
        negotiable: bool,
        retries: RetrySeries,
    ) -> Self {
        if terms.retry.is_some() {
            retries.counters(None);
        }
        let retries = (negotiable || terms.retry.is_some()).then_some(retries);
        Self { name: Arc::clone(name), filters, backends, terms, negotiable, retries }
    }
}

/// More than this is as good as no end, and can be added to any time.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Zero is no limit.
fn duration<T>(api: Option<T>) -> Option<Duration>
where
    Duration: TryFrom<T>,
{
    api.and_then(|it| Duration::try_from(it).ok()).filter(|it| !it.is_zero()).map(|it| it.min(LONGEST))
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

/// The backends of a rule. One that cannot be read is one as well: what is for it goes to no other.
fn http_backends<B>(
    distribution: Option<&http_api::Distribution>,
    leg: &mut impl FnMut(&http_api::RouteBackend) -> Leg<B>,
) -> Split<Leg<B>> {
    use http_api::distribution::Kind;
    match distribution.and_then(|distribution| distribution.kind.as_ref()) {
        Some(Kind::FirstAvailable(first)) => Split::ordered(first.backends.iter().map(leg)),
        Some(Kind::RandomAvailable(random)) => {
            let nothing = Default::default();
            Split::new(random.backends.iter().map(|one| (leg(one.backend.as_ref().unwrap_or(&nothing)), one.weight)))
        }
        Some(Kind::Empty(_)) | None => Split::new([]),
    }
}

fn grpc_backends<B>(
    distribution: Option<&grpc::Distribution>,
    leg: &mut impl FnMut(&grpc::RouteBackend) -> Leg<B>,
) -> Split<Leg<B>> {
    use grpc::distribution::Kind;
    match distribution.and_then(|distribution| distribution.kind.as_ref()) {
        Some(Kind::FirstAvailable(first)) => Split::ordered(first.backends.iter().map(leg)),
        Some(Kind::RandomAvailable(random)) => {
            let nothing = Default::default();
            Split::new(random.backends.iter().map(|one| (leg(one.backend.as_ref().unwrap_or(&nothing)), one.weight)))
        }
        Some(Kind::Empty(_)) | None => Split::new([]),
    }
}

#[cfg(test)]
mod tests;
