//! What GRPCRoutes have of their own.

use linkerd2_proxy_api::{grpc_route as api, outbound::grpc_route::Filter};

use super::{GrpcRule, Unusable, backends, header_matches, request_headers, usable};
use crate::{
    Key,
    objects::{extras::Extras, wire::route as spec},
};

/// Reads a rule, unless it cannot be told to a proxy.
pub(super) fn rule(
    route: &Key,
    rule: &spec::RouteRule<spec::GrpcMatch>,
    annotated: &Extras,
) -> Result<GrpcRule, Unusable> {
    rule.matches.iter().try_for_each(usable::grpc_match)?;
    rule.all_filters().try_for_each(usable::filters)?;
    Ok(GrpcRule {
        matches: rule.matches.iter().map(request_match).collect(),
        filters: filters(route, &rule.filters),
        backends: backends(route, &rule.backend_refs, filters),
        timeouts: annotated.timeouts,
        retry: annotated.grpc_retry,
    })
}

fn request_match(spec: &spec::GrpcMatch) -> api::GrpcRouteMatch {
    let rpc = spec.method.as_ref().map(|method| api::GrpcRpcMatch {
        service: method.service.clone().unwrap_or_default(),
        method: method.method.clone().unwrap_or_default(),
    });
    api::GrpcRouteMatch { rpc, headers: header_matches(&spec.headers) }
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
