//! Routes for connections: TLSRoutes, by the name that a client asks for, and TCPRoutes, by nothing.
//!
//! Taken from Linkerd's policy controller (`policy-controller/grpc/src/outbound/tls.rs`, `tcp.rs`).

use linkerd2_proxy_api::{
    http_route::{HostMatch, host_match},
    meta::Metadata,
    outbound::{OpaqueRoute, TlsRoute},
    tls_route::{SniMatch, sni_match},
};

use super::Destination;
use crate::{
    answers::resource,
    objects::{Route, Rules},
};

/// The messages of both have the same shape, and are of different types.
macro_rules! messages {
    ($api:ident) => {
        use linkerd2_proxy_api::{
            opaque_route::{Forbidden, Invalid},
            outbound::{
                Backend,
                $api::{Distribution, Filter, RouteBackend, Rule, WeightedRouteBackend, distribution, filter},
            },
        };

        use crate::{
            answers::outbound::{Destination, NO_WEIGHT},
            objects::TcpRule,
        };

        /// A rule of one backend.
        pub(in crate::answers::outbound) fn only(backend: Backend, filters: Vec<Filter>) -> Rule {
            let backend = RouteBackend { backend: Some(backend), filters: Vec::new() };
            let first = distribution::FirstAvailable { backends: vec![backend] };
            let kind = distribution::Kind::FirstAvailable(first);
            Rule { backends: Some(Distribution { kind: Some(kind) }), filters }
        }

        /// Refuses connections.
        pub(in crate::answers::outbound) fn forbid() -> Filter {
            Filter { kind: Some(filter::Kind::Forbidden(Forbidden {})) }
        }

        /// A backend that cannot be refuses the share of connections that is its.
        pub(super) fn rule(to: &Destination<'_>, rule: &TcpRule) -> Rule {
            let invalid = |message: String| Filter { kind: Some(filter::Kind::Invalid(Invalid { message })) };
            let weighted = rule.backends.iter().filter(|one| one.weight > 0).map(|one| {
                let (backend, problem) = to.backend(&one.to, one.port);
                let filters = problem.map(invalid).into_iter().collect();
                let backend = RouteBackend { backend: Some(backend), filters };
                WeightedRouteBackend { backend: Some(backend), weight: one.weight }
            });
            let backends: Vec<_> = weighted.collect();
            if backends.is_empty() {
                // A choice among none makes the whole policy invalid.
                let problem = (!rule.backends.is_empty()).then(|| invalid(NO_WEIGHT.into()));
                return only(to.own.clone(), problem.into_iter().collect());
            }
            let kind = distribution::Kind::RandomAvailable(distribution::RandomAvailable { backends });
            Rule { backends: Some(Distribution { kind: Some(kind) }), filters: Vec::new() }
        }
    };
}

pub(super) mod opaque {
    messages!(opaque_route);
}

mod tls {
    messages!(tls_route);
}

/// The first of the TCPRoutes among these, since nothing tells the connections of another, or the default where there is none.
pub(super) fn opaque_routes(to: &Destination<'_>, routes: &[&Route]) -> Vec<OpaqueRoute> {
    let plain = plain(to);
    let first = routes.iter().find_map(|route| {
        let Rules::Tcp(rules) = &route.rules else { return None };
        let rules = rules.iter().map(|one| opaque::rule(&plain, one)).collect();
        Some(OpaqueRoute { metadata: Some(about(route)), rules })
    });
    vec![first.unwrap_or_else(|| to.opaque_route())]
}

/// The TLSRoutes among these, and the default of an EgressNetwork besides them.
pub(super) fn tls_routes(to: &Destination<'_>, routes: &[&Route]) -> Vec<TlsRoute> {
    let plain = plain(to);
    let each = routes.iter().filter_map(|route| {
        let Rules::Tls(rules) = &route.rules else { return None };
        let rules = rules.iter().map(|one| tls::rule(&plain, one)).collect();
        Some(TlsRoute { metadata: Some(about(route)), snis: route.hosts.iter().filter_map(sni).collect(), rules })
    });
    let rest = to.egress.map(|egress| {
        let filters = if egress.network.allows { Vec::new() } else { vec![tls::forbid()] };
        let rules = vec![tls::only(to.own.clone(), filters)];
        TlsRoute { metadata: Some(egress.default_route("tls")), snis: Vec::new(), rules }
    });
    each.chain(rest).collect()
}

/// The same for connections, which no answer says "not now" to.
fn plain<'a>(to: &Destination<'a>) -> Destination<'a> {
    Destination { load_bias: None, ..*to }
}

fn about(route: &Route) -> Metadata {
    let (group, kind) = route.resource();
    resource(group, kind, &route.key, 0)
}

fn sni(host: &HostMatch) -> Option<SniMatch> {
    let inner = match host.r#match.as_ref()? {
        host_match::Match::Exact(name) => sni_match::Match::Exact(name.clone()),
        host_match::Match::Suffix(suffix) => {
            sni_match::Match::Suffix(sni_match::Suffix { reverse_labels: suffix.reverse_labels.clone() })
        }
    };
    Some(SniMatch { r#match: Some(inner) })
}

#[cfg(test)]
mod tests;
