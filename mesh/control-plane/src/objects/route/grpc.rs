//! What GRPCRoutes have of their own.

use linkerd2_proxy_api::{grpc_route as api, outbound::grpc_route::Filter};

use super::{GrpcRule, backends, header_matches, request_headers};
use crate::{
    Key,
    objects::{extras::Extras, wire::route as spec},
};

/// `None`, with a warning, for a rule that cannot be told to a proxy. Without a match that cannot be told it would be for more
/// requests than were meant.
pub(super) fn rule(route: &Key, rule: &spec::RouteRule<spec::GrpcMatch>, annotated: &Extras) -> Option<GrpcRule> {
    let matches = rule.matches.iter().map(request_match).collect::<Option<_>>();
    if matches.is_none() {
        tracing::warn!(%route, "methods are not matched by regular expressions; the rule is left out");
    }
    Some(GrpcRule {
        matches: matches?,
        filters: filters(route, &rule.filters),
        backends: backends(route, &rule.backend_refs, filters),
        timeouts: annotated.timeouts,
        retry: annotated.grpc_retry,
    })
}

/// `None` for a regular expression, which the message has no field for.
fn request_match(spec: &spec::GrpcMatch) -> Option<api::GrpcRouteMatch> {
    let rpc = match &spec.method {
        Some(method) if method.type_ == "RegularExpression" => return None,
        Some(method) => Some(api::GrpcRpcMatch {
            service: method.service.clone().unwrap_or_default(),
            method: method.method.clone().unwrap_or_default(),
        }),
        None => None,
    };
    Some(api::GrpcRouteMatch { rpc, headers: header_matches(&spec.headers) })
}

fn filters(route: &Key, filters: &[spec::Filter]) -> Vec<Filter> {
    use linkerd2_proxy_api::outbound::grpc_route::filter::Kind;
    let kinds = filters.iter().filter_map(|filter| match &filter.request_header_modifier {
        Some(headers) => Some(Filter { kind: Some(Kind::RequestHeaderModifier(request_headers(headers))) }),
        None => {
            let filter = &filter.type_;
            tracing::warn!(%route, filter, "expected a request header modifier; the filter is ignored");
            None
        }
    });
    kinds.collect()
}
