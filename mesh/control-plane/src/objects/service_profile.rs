//! ServiceProfiles. Routes are turned into messages once, when the object changes, not once per stream.

use linkerd2_proxy_api::{destination as api, http_types};
use thiserror::Error;

use crate::{
    Key, PortSet,
    objects::{quantity, wire},
};

/// What is kept of a ServiceProfile, whose name is the name its Service has in DNS.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceProfile {
    pub(crate) key: Key,
    pub(crate) routes: Vec<api::Route>,
    pub(crate) retry_budget: api::RetryBudget,
    pub(crate) overrides: Vec<Override>,
    pub(crate) opaque_ports: PortSet,
}

/// A part of the traffic that goes to another authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Override {
    /// `host` or `host:port`.
    pub(crate) authority: String,
    /// In thousandths, never 0.
    pub(crate) weight: u64,
}

/// Why a part of a ServiceProfile is left out.
#[derive(Debug, Error, PartialEq, Eq)]
enum Invalid {
    #[error("expected a condition with one of pathRegex, method, all, any or not, found none")]
    EmptyRequestMatch,
    #[error("expected a condition with one of status, all, any or not, found none")]
    EmptyResponseMatch,
    #[error("expected a status range with 100 <= min <= max <= 599, found {0}..{1}")]
    StatusRange(u32, u32),
}

impl From<wire::ServiceProfile> for ServiceProfile {
    fn from(profile: wire::ServiceProfile) -> Self {
        let wire::ServiceProfile { metadata, spec } = profile;
        let key = wire::key(&metadata);
        let routes = spec.routes.iter().filter_map(|spec| {
            route(&key, spec)
                .inspect_err(|error| tracing::warn!(profile = %key, route = spec.name, %error, "route left out"))
                .ok()
        });
        let overrides = spec.dst_overrides.iter().filter_map(|dst| {
            let weight = quantity::millis(&dst.weight);
            if weight.is_none() {
                tracing::warn!(profile = %key, authority = dst.authority, weight = ?dst.weight, "expected a weight such as 500m or 80; the authority gets no traffic");
            }
            Some(Override {
                authority: dst.authority.trim_end_matches('.').to_owned(),
                weight: weight.filter(|weight| *weight > 0)?,
            })
        });
        let opaque_ports: Vec<_> = spec
            .opaque_ports
            .iter()
            .map(|port| match port {
                wire::NumberOrString::Number(number) => number.to_string(),
                wire::NumberOrString::String(text) => text.clone(),
            })
            .collect();
        Self {
            routes: routes.collect(),
            retry_budget: retry_budget(&key, spec.retry_budget.as_ref()),
            overrides: overrides.collect(),
            opaque_ports: PortSet::from_items(opaque_ports.iter().map(String::as_str), |_| None),
            key,
        }
    }
}

/// The budget of profiles that have none: Linkerd's.
pub(crate) fn default_retry_budget() -> api::RetryBudget {
    api::RetryBudget {
        retry_ratio: 0.2,
        min_retries_per_second: 10,
        ttl: Some(prost_types::Duration { seconds: 10, nanos: 0 }),
    }
}

fn retry_budget(profile: &Key, budget: Option<&wire::RetryBudget>) -> api::RetryBudget {
    let Some(budget) = budget else { return default_retry_budget() };
    let Some(ttl) = quantity::go_duration(&budget.ttl) else {
        tracing::warn!(%profile, ttl = budget.ttl, "expected a retry budget's ttl such as 10s; the default budget is used");
        return default_retry_budget();
    };
    api::RetryBudget {
        retry_ratio: budget.retry_ratio,
        min_retries_per_second: budget.min_retries_per_second,
        ttl: prost_types::Duration::try_from(ttl).ok(),
    }
}

fn route(profile: &Key, spec: &wire::ProfileRoute) -> Result<api::Route, Invalid> {
    let condition = request_match(spec.condition.as_ref().ok_or(Invalid::EmptyRequestMatch)?)?;
    let response_classes = spec.response_classes.iter().map(|class| {
        let condition = response_match(class.condition.as_ref().ok_or(Invalid::EmptyResponseMatch)?)?;
        Ok(api::ResponseClass { condition: Some(condition), is_failure: class.is_failure })
    });
    let timeout = if spec.timeout.is_empty() { None } else { quantity::go_duration(&spec.timeout) };
    if timeout.is_none() && !spec.timeout.is_empty() {
        tracing::warn!(%profile, route = spec.name, timeout = spec.timeout, "expected a timeout such as 250ms; the route has none");
    }
    Ok(api::Route {
        condition: Some(condition),
        response_classes: response_classes.collect::<Result<_, _>>()?,
        metrics_labels: [("route".to_owned(), spec.name.clone())].into(),
        is_retryable: spec.is_retryable,
        timeout: timeout.filter(|timeout| !timeout.is_zero()).and_then(|timeout| timeout.try_into().ok()),
    })
}

/// Several fields of one condition must all hold.
fn request_match(spec: &wire::RequestMatch) -> Result<api::RequestMatch, Invalid> {
    use api::request_match::{Match, Seq};
    let seq = |matches: &[wire::RequestMatch]| {
        Ok(Seq { matches: matches.iter().map(request_match).collect::<Result<_, _>>()? })
    };
    let mut matches = Vec::new();
    if let Some(all) = &spec.all {
        matches.push(Match::All(seq(all)?));
    }
    if let Some(any) = &spec.any {
        matches.push(Match::Any(seq(any)?));
    }
    if !spec.method.is_empty() {
        matches.push(Match::Method(method(&spec.method)));
    }
    if let Some(not) = &spec.not {
        matches.push(Match::Not(Box::new(request_match(not)?)));
    }
    if !spec.path_regex.is_empty() {
        matches.push(Match::Path(api::PathMatch { regex: spec.path_regex.clone() }));
    }
    let whole = |inner| api::RequestMatch { r#match: Some(inner) };
    match matches.len() {
        0 => Err(Invalid::EmptyRequestMatch),
        1 => Ok(api::RequestMatch { r#match: matches.pop() }),
        _ => Ok(whole(Match::All(Seq { matches: matches.into_iter().map(whole).collect() }))),
    }
}

fn response_match(spec: &wire::ResponseMatch) -> Result<api::ResponseMatch, Invalid> {
    use api::response_match::{Match, Seq};
    let seq = |matches: &[wire::ResponseMatch]| {
        Ok(Seq { matches: matches.iter().map(response_match).collect::<Result<_, _>>()? })
    };
    let mut matches = Vec::new();
    if let Some(all) = &spec.all {
        matches.push(Match::All(seq(all)?));
    }
    if let Some(any) = &spec.any {
        matches.push(Match::Any(seq(any)?));
    }
    if let Some(status) = spec.status {
        // A bound that is left out bounds nothing.
        let (min, max) =
            (if status.min == 0 { 100 } else { status.min }, if status.max == 0 { 599 } else { status.max });
        if min < 100 || max > 599 || min > max {
            return Err(Invalid::StatusRange(min, max));
        }
        matches.push(Match::Status(api::HttpStatusRange { min, max }));
    }
    if let Some(not) = &spec.not {
        matches.push(Match::Not(Box::new(response_match(not)?)));
    }
    let whole = |inner| api::ResponseMatch { r#match: Some(inner) };
    match matches.len() {
        0 => Err(Invalid::EmptyResponseMatch),
        1 => Ok(api::ResponseMatch { r#match: matches.pop() }),
        _ => Ok(whole(Match::All(Seq { matches: matches.into_iter().map(whole).collect() }))),
    }
}

/// An HTTP method, registered or not.
pub(crate) fn method(name: &str) -> http_types::HttpMethod {
    use http_types::http_method::{Registered, Type};
    let name = name.to_ascii_uppercase();
    let method = match Registered::from_str_name(&name) {
        Some(registered) => Type::Registered(registered.into()),
        None => Type::Unregistered(name),
    };
    http_types::HttpMethod { r#type: Some(method) }
}

#[cfg(test)]
mod tests;
