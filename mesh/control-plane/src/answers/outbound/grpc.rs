//! Routes for gRPC.

use linkerd2_proxy_api::{
    grpc_route::{GrpcFailureInjector, GrpcRouteMatch},
    outbound::{
        GrpcRoute,
        grpc_route::{self as api, Distribution, distribution},
    },
};

use super::{
    Destination, NO_WEIGHT,
    egress::{Egress, FORBIDDEN},
};
use crate::{
    answers::resource,
    objects::{GrpcRule, Route, RouteBackend, Rules},
};

/// What Linkerd's policy controller sends, which is an HTTP status and no gRPC code: to a client it is UNKNOWN.
const NO_BACKEND: u32 = 500;

const PERMISSION_DENIED: u32 = 7;

/// The GRPCRoutes among these, and the default of an EgressNetwork besides them.
pub(super) fn routes(to: &Destination<'_>, routes: &[&Route]) -> Vec<GrpcRoute> {
    let each = routes.iter().filter_map(|route| {
        let Rules::Grpc(rules) = &route.rules else { return None };
        let (group, kind) = route.resource();
        Some(GrpcRoute {
            metadata: Some(resource(group, kind, &route.key, 0)),
            hosts: route.hosts.clone(),
            rules: rules.iter().map(|one| rule(to, one)).collect(),
        })
    });
    let mut routes: Vec<_> = each.collect();
    routes.extend(to.egress.map(|egress| egress_route(to, egress)));
    routes
}

fn egress_route(to: &Destination<'_>, egress: Egress<'_>) -> GrpcRoute {
    let filters = if egress.network.allows { Vec::new() } else { vec![failure(PERMISSION_DENIED, FORBIDDEN.into())] };
    let rule = api::Rule {
        matches: vec![GrpcRouteMatch::default()],
        filters,
        backends: Some(Distribution { kind: Some(only(to, Vec::new())) }),
        timeouts: to.extras.timeouts,
        retry: to.extras.grpc_retry,
        allow_l5d_request_headers: to.cluster.allow_l5d_request_headers,
        ..Default::default()
    };
    GrpcRoute { metadata: Some(egress.default_route("grpc")), hosts: Vec::new(), rules: vec![rule] }
}

/// Where a rule without backends leads.
fn only(to: &Destination<'_>, filters: Vec<api::Filter>) -> distribution::Kind {
    let own = api::RouteBackend { backend: Some(to.own.clone()), filters, ..Default::default() };
    distribution::Kind::FirstAvailable(distribution::FirstAvailable { backends: vec![own] })
}

fn rule(to: &Destination<'_>, rule: &GrpcRule) -> api::Rule {
    use distribution::{Kind, RandomAvailable};
    let weighted = rule.backends.iter().filter(|backend| backend.weight > 0);
    let weighted: Vec<_> =
        weighted.map(|one| api::WeightedRouteBackend { backend: Some(backend(to, one)), weight: one.weight }).collect();
    let kind = match weighted.is_empty() {
        false => Kind::RandomAvailable(RandomAvailable { backends: weighted }),
        true if rule.backends.is_empty() => only(to, Vec::new()),
        // A choice among none makes the whole policy invalid.
        true => only(to, vec![failure(NO_BACKEND, NO_WEIGHT.into())]),
    };
    api::Rule {
        matches: rule.matches.clone(),
        filters: rule.filters.clone(),
        backends: Some(Distribution { kind: Some(kind) }),
        timeouts: rule.timeouts.or(to.extras.timeouts),
        retry: rule.retry.or(to.extras.grpc_retry),
        allow_l5d_request_headers: to.cluster.allow_l5d_request_headers,
        ..Default::default()
    }
}

/// A backend that cannot be fails the share of requests that is its, with the reason.
fn backend(to: &Destination<'_>, backend: &RouteBackend<api::Filter>) -> api::RouteBackend {
    let (balancer, problem) = to.backend(&backend.to, backend.port);
    let filters = problem.map(|problem| failure(NO_BACKEND, problem)).into_iter().chain(backend.filters.clone());
    api::RouteBackend { backend: Some(balancer), filters: filters.collect(), ..Default::default() }
}

fn failure(code: u32, message: String) -> api::Filter {
    let injector = GrpcFailureInjector { code, message, ratio: None };
    api::Filter { kind: Some(api::filter::Kind::FailureInjector(injector)) }
}
