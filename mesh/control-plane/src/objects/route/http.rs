//! What HTTPRoutes have of their own.

use std::time::Duration;

use linkerd2_proxy_api::{
    http_route as api, http_types,
    outbound::http_route::{Filter, filter::Kind},
};

use super::{HttpRule, Unusable, backends, header_list, header_matches, request_headers, usable};
use crate::{
    Key,
    objects::{extras::Extras, quantity, service_profile::method, wire::route as spec},
};

/// Reads a rule, unless it cannot be told to a proxy.
pub(super) fn rule(
    route: &Key,
    rule: &spec::RouteRule<spec::HttpMatch>,
    annotated: &Extras,
) -> Result<HttpRule, Unusable> {
    rule.matches.iter().try_for_each(usable::http_match)?;
    rule.all_filters().try_for_each(usable::filters)?;
    let mut matches: Vec<_> = rule.matches.iter().map(request_match).collect();
    if matches.is_empty() {
        matches.push(match_everything());
    }
    let duration = |text: &Option<String>| -> Option<prost_types::Duration> {
        let duration = quantity::go_duration(text.as_deref()?)?;
        (duration > Duration::ZERO).then(|| duration.try_into().ok())?
    };
    Ok(HttpRule {
        matches,
        filters: filters(route, &rule.filters),
        backends: backends(route, &rule.backend_refs, filters),
        timeouts: match &rule.timeouts {
            Some(timeouts) => Some(api::Timeouts {
                request: duration(&timeouts.request),
                response: duration(&timeouts.backend_request),
                idle: None,
            }),
            None => annotated.timeouts,
        },
        retry: annotated.http_retry.clone(),
    })
}

/// The match of a rule that names none.
pub(crate) fn match_everything() -> api::HttpRouteMatch {
    request_match(&spec::HttpMatch::default())
}

/// A match without a path is for every path, which is a prefix as well: otherwise a rule that matches by a header alone would be
/// less specific than one that matches everything. The definitions of Gateway API have this as a default; a cluster's may not.
fn request_match(spec: &spec::HttpMatch) -> api::HttpRouteMatch {
    use api::{path_match, query_param_match};
    let (path_type, path) = spec.path.as_ref().map_or(("", None), |path| (&*path.type_, path.value.clone()));
    let path = path.unwrap_or_else(|| "/".into());
    let path = match path_type {
        "Exact" => path_match::Kind::Exact(path),
        "RegularExpression" => path_match::Kind::Regex(path),
        _ => path_match::Kind::Prefix(path),
    };
    let query_params = spec.query_params.iter().map(|param| {
        let value = match param.type_.as_str() {
            "RegularExpression" => query_param_match::Value::Regex(param.value.clone()),
            _ => query_param_match::Value::Exact(param.value.clone()),
        };
        api::QueryParamMatch { name: param.name.clone(), value: Some(value) }
    });
    api::HttpRouteMatch {
        path: Some(api::PathMatch { kind: Some(path) }),
        headers: header_matches(&spec.headers),
        query_params: query_params.collect(),
        method: spec.method.as_deref().map(method),
    }
}

fn filters(route: &Key, filters: &[spec::Filter]) -> Vec<Filter> {
    let kinds = filters.iter().filter_map(|filter| {
        let kind = match filter {
            spec::Filter { request_header_modifier: Some(headers), .. } => {
                Kind::RequestHeaderModifier(request_headers(headers))
            }
            spec::Filter { response_header_modifier: Some(headers), .. } => {
                Kind::ResponseHeaderModifier(api::ResponseHeaderModifier {
                    add: Some(header_list(&headers.add)),
                    set: Some(header_list(&headers.set)),
                    remove: headers.remove.clone(),
                })
            }
            spec::Filter { request_redirect: Some(to), .. } => Kind::Redirect(redirect(to)),
            other => {
                tracing::warn!(%route, filter = other.type_, "expected a header modifier or a redirect; the filter is ignored");
                return None;
            }
        };
        Some(Filter { kind: Some(kind) })
    });
    kinds.collect()
}

fn redirect(to: &spec::Redirect) -> api::RequestRedirect {
    use api::path_modifier::Replace;
    let path = to.path.as_ref().and_then(|path| {
        let full = path.replace_full_path.clone().map(Replace::Full);
        full.or_else(|| path.replace_prefix_match.clone().map(Replace::Prefix))
    });
    api::RequestRedirect {
        scheme: to.scheme.as_deref().map(http_types::Scheme::from),
        host: to.hostname.clone().unwrap_or_default(),
        path: path.map(|replace| api::PathModifier { replace: Some(replace) }),
        port: to.port.unwrap_or_default().into(),
        status: to.status_code.unwrap_or(302).into(),
    }
}
