//! Routes for HTTP.

use linkerd2_proxy_api::{
    http_route::{HttpFailureInjector, Ratio},
    outbound::{
        Backend, HttpRoute,
        http_route::{self as api, Distribution, distribution},
    },
};

use super::{Destination, NO_WEIGHT, egress::FORBIDDEN};
use crate::{
    Cluster,
    answers::{default_ref, resource},
    objects::{Extras, HttpRule, Route, RouteBackend, Rules, match_everything},
};

/// The status of requests that are for a backend that cannot be.
const NO_BACKEND: u32 = 500;

/// For requests that no HTTPRoute is for.
pub(super) fn default_route(cluster: &Cluster, backend: Backend, extras: &Extras) -> HttpRoute {
    let rule = api::Rule {
        matches: vec![match_everything()],
        backends: Some(only(backend)),
        timeouts: extras.timeouts,
        retry: extras.http_retry.clone(),
        allow_l5d_request_headers: cluster.allow_l5d_request_headers,
        ..Default::default()
    };
    HttpRoute { metadata: Some(default_ref("http")), hosts: Vec::new(), rules: vec![rule] }
}

/// The HTTPRoutes among these, and the default: of a Service where there are none, of an EgressNetwork besides them.
pub(super) fn routes(to: &Destination<'_>, routes: &[&Route]) -> Vec<HttpRoute> {
    let each = routes.iter().filter_map(|route| {
        let Rules::Http(rules) = &route.rules else { return None };
        let (group, kind) = route.resource();
        Some(HttpRoute {
            metadata: Some(resource(group, kind, &route.key, 0)),
            hosts: route.hosts.clone(),
            rules: rules.iter().map(|one| rule(to, one)).collect(),
        })
    });
    let mut routes: Vec<_> = each.collect();
    if routes.is_empty() || to.egress.is_some() {
        let mut route = default_route(to.cluster, to.own.clone(), to.extras);
        if let Some(egress) = to.egress {
            route.metadata = Some(egress.default_route("http"));
            if !egress.network.allows {
                route.rules.iter_mut().for_each(|rule| rule.filters.push(failure(403, FORBIDDEN.into())));
            }
        }
        routes.push(route);
    }
    routes
}

fn rule(to: &Destination<'_>, rule: &HttpRule) -> api::Rule {
    use distribution::{Kind, RandomAvailable};
    let weighted = rule.backends.iter().filter(|backend| backend.weight > 0);
    let weighted: Vec<_> =
        weighted.map(|one| api::WeightedRouteBackend { backend: Some(backend(to, one)), weight: one.weight }).collect();
    let backends = match weighted.is_empty() {
        false => Distribution { kind: Some(Kind::RandomAvailable(RandomAvailable { backends: weighted })) },
        true if rule.backends.is_empty() => only(to.own.clone()),
        // A choice among none makes the whole policy invalid.
        true => first(to.own.clone(), vec![failure(NO_BACKEND, NO_WEIGHT.into())]),
    };
    api::Rule {
        matches: rule.matches.clone(),
        filters: rule.filters.clone(),
        backends: Some(backends),
        timeouts: rule.timeouts.or(to.extras.timeouts),
        retry: rule.retry.clone().or_else(|| to.extras.http_retry.clone()),
        allow_l5d_request_headers: to.cluster.allow_l5d_request_headers,
        ..Default::default()
    }
}

fn only(backend: Backend) -> Distribution {
    first(backend, Vec::new())
}

fn first(backend: Backend, filters: Vec<api::Filter>) -> Distribution {
    use distribution::{FirstAvailable, Kind};
    let backend = api::RouteBackend { backend: Some(backend), filters, ..Default::default() };
    Distribution { kind: Some(Kind::FirstAvailable(FirstAvailable { backends: vec![backend] })) }
}

/// A backend that cannot be is answered with 500 by the proxy, with the reason, in the share of requests that is its.
fn backend(to: &Destination<'_>, backend: &RouteBackend<api::Filter>) -> api::RouteBackend {
    let (balancer, problem) = to.backend(&backend.to, backend.port);
    let filters = problem.map(|problem| failure(NO_BACKEND, problem)).into_iter().chain(backend.filters.clone());
    api::RouteBackend { backend: Some(balancer), filters: filters.collect(), ..Default::default() }
}

fn failure(status: u32, message: String) -> api::Filter {
    let injector = HttpFailureInjector { status, message, ratio: Some(Ratio { numerator: 1, denominator: 1 }) };
    api::Filter { kind: Some(api::filter::Kind::FailureInjector(injector)) }
}
