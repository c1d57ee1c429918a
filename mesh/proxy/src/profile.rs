//! ServiceProfiles: routes, response classes, retry budget and split of one Service, compiled from the control plane's
//! message.

mod table;

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{HeaderValue, Method, StatusCode};
use linkerd2_proxy_api::destination::{self as api, DestinationProfile, response_match::Match as ApiResponse};
use regex::Regex;
use tracing::warn;

use crate::{
    NameAddr,
    metrics::{Counter, Direction, HttpScope, Labels, Metrics},
    retry::Budget,
};
use table::{Condition, Table};

/// The routes of one Service, on one side of the proxy.
pub(crate) struct ServiceProfile {
    name: NameAddr,
    canonical: HeaderValue,
    routes: Table<Arc<Route>>,
    /// For requests that match no route.
    default: Arc<Route>,
    budget: Option<Arc<Budget>>,
}

/// One route.
pub(crate) struct Route {
    classes: Arc<ResponseClasses>,
    timeout: Option<Duration>,
    retryable: bool,
    labels: Labels,
    scopes: OnceLock<RouteScopes>,
}

/// The series of one route, made when it is first used.
pub(crate) struct RouteScopes {
    /// Per request.
    pub(crate) route: Arc<HttpScope>,
    /// Per attempt.
    pub(crate) actual: Arc<HttpScope>,
    pub(crate) retried: Arc<Counter>,
    pub(crate) no_budget: Arc<Counter>,
}

/// What counts as a failure. The first class that matches decides ([`crate::classify`]).
#[derive(Debug, Default)]
pub(crate) struct ResponseClasses(Vec<(ResponseMatch, bool)>);

#[derive(Debug)]
enum ResponseMatch {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Status { min: u32, max: u32 },
}

/// Whether the message has anything that a policy does not: routes, or legs of a split, and a name to serve them under.
pub(crate) fn overrides_policy(profile: &DestinationProfile) -> bool {
    !profile.fully_qualified_name.is_empty() && (!profile.routes.is_empty() || !profile.dst_overrides.is_empty())
}

impl ServiceProfile {
    /// Compiles the message; `None` if it has no name, and so no routes that could be told apart from another Service's.
    pub(crate) fn compile(profile: &DestinationProfile, port: u16) -> Option<Self> {
        let name = NameAddr::new(&profile.fully_qualified_name, port)?;
        let dst = Labels::new().with_display("dst", &name);
        let mut table = table::Builder::default();
        let compile = |route: &api::Route| match Route::compile(route, &dst, &mut table) {
            Ok((condition, route)) => Some((condition, Arc::new(route))),
            Err(reason) => {
                warn!(service = %name, %reason, labels = ?route.metrics_labels, "a route of a ServiceProfile is ignored");
                None
            }
        };
        let routes = profile.routes.iter().filter_map(compile).collect();
        let default = Route {
            classes: Arc::default(),
            timeout: None,
            retryable: false,
            labels: dst.clone(),
            scopes: OnceLock::new(),
        };
        Some(Self {
            routes: table.build(routes),
            default: Arc::new(default),
            budget: profile.retry_budget.as_ref().and_then(Budget::compile).map(Arc::new),
            canonical: HeaderValue::from_str(&name.to_string()).ok()?,
            name,
        })
    }

    /// The value of `l5d-dst-canonical`.
    pub(crate) fn canonical(&self) -> &HeaderValue {
        &self.canonical
    }

    /// The name under which the profile's requests are counted.
    pub(crate) fn name(&self) -> &NameAddr {
        &self.name
    }

    /// The legs of the split, with their weights.
    pub(crate) fn legs(profile: &DestinationProfile) -> impl Iterator<Item = (NameAddr, u32)> {
        profile.dst_overrides.iter().filter_map(|leg| match NameAddr::parse(&leg.authority) {
            Some(name) => Some((name, leg.weight)),
            None => {
                warn!(authority = leg.authority, "a leg of a split is ignored: expected `name:port`");
                None
            }
        })
    }

    /// The first route that matches, or the default route.
    pub(crate) fn route(&self, method: &Method, path: &str) -> &Arc<Route> {
        self.routes.route(method, path).unwrap_or(&self.default)
    }

    /// The budget for retries on `route`, if it may be retried at all.
    pub(crate) fn budget(&self, route: &Route) -> Option<&Arc<Budget>> {
        self.budget.as_ref().filter(|_| route.retryable)
    }
}

impl Route {
    fn compile(route: &api::Route, dst: &Labels, table: &mut table::Builder) -> Result<(Condition, Self), String> {
        let condition = table.condition(route.condition.as_ref().ok_or("it has no condition")?)?;
        let sorted: BTreeMap<_, _> = route.metrics_labels.iter().collect();
        let labels = sorted
            .into_iter()
            .fold(dst.clone(), |labels, (key, value)| labels.with(&format!("rt_{}", key.replace('-', "_")), value));
        let route = Self {
            classes: Arc::new(ResponseClasses::compile(&route.response_classes)),
            timeout: route.timeout.and_then(|timeout| Duration::try_from(timeout).ok()).filter(|time| !time.is_zero()),
            retryable: route.is_retryable,
            labels,
            scopes: OnceLock::new(),
        };
        Ok((condition, route))
    }

    pub(crate) fn classes(&self) -> &Arc<ResponseClasses> {
        &self.classes
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// The route's series.
    pub(crate) fn scopes(&self, metrics: &Metrics, direction: Direction) -> &RouteScopes {
        self.scopes.get_or_init(|| {
            let labels = Labels::new().with("direction", direction.label()).followed_by(&self.labels);
            RouteScopes {
                retried: metrics.route_retryable.hold(&labels),
                no_budget: metrics.route_retryable.hold(&labels.clone().with("skipped", "no_budget")),
                actual: metrics.route_actual.scope(labels.clone()),
                route: metrics.route.scope(labels),
            }
        })
    }
}

/// Paths match as a whole.
pub(crate) fn anchored(regex: &str) -> Result<Regex, regex::Error> {
    Regex::new(&table::anchored(regex))
}

impl ResponseClasses {
    pub(crate) fn compile(classes: &[api::ResponseClass]) -> Self {
        let compile =
            |class: &api::ResponseClass| Some((ResponseMatch::compile(class.condition.as_ref()?)?, class.is_failure));
        Self(classes.iter().filter_map(compile).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether responses with this status are failures; `None` if no class says.
    pub(crate) fn is_failure(&self, status: StatusCode) -> Option<bool> {
        self.0.iter().find(|(condition, _)| condition.matches(status)).map(|(_, is_failure)| *is_failure)
    }
}

impl ResponseMatch {
    /// `None` for a condition that says nothing, such as all of no conditions.
    fn compile(condition: &api::ResponseMatch) -> Option<Self> {
        let seq = |matches: &[api::ResponseMatch]| {
            let compiled: Vec<_> = matches.iter().filter_map(Self::compile).collect();
            Some(compiled).filter(|compiled| !compiled.is_empty())
        };
        Some(match condition.r#match.as_ref()? {
            ApiResponse::All(all) => Self::All(seq(&all.matches)?),
            ApiResponse::Any(any) => Self::Any(seq(&any.matches)?),
            ApiResponse::Not(not) => Self::Not(Box::new(Self::compile(not)?)),
            ApiResponse::Status(range) => Self::Status { min: range.min, max: range.max },
        })
    }

    fn matches(&self, status: StatusCode) -> bool {
        match self {
            Self::All(all) => all.iter().all(|one| one.matches(status)),
            Self::Any(any) => any.iter().any(|one| one.matches(status)),
            Self::Not(not) => !not.matches(status),
            Self::Status { min, max } => (*min..=*max).contains(&u32::from(status.as_u16())),
        }
    }
}

#[cfg(test)]
mod tests {
    use linkerd2_proxy_api::destination::{
        HttpStatusRange, PathMatch, WeightedDst, request_match, request_match::Match as ApiRequest, response_match,
    };

    use super::*;

    fn path(regex: &str) -> api::RequestMatch {
        api::RequestMatch { r#match: Some(ApiRequest::Path(PathMatch { regex: regex.into() })) }
    }

    fn method(method: Method) -> api::RequestMatch {
        api::RequestMatch { r#match: Some(ApiRequest::Method(method.into())) }
    }

    fn all(matches: Vec<api::RequestMatch>) -> api::RequestMatch {
        api::RequestMatch { r#match: Some(ApiRequest::All(request_match::Seq { matches })) }
    }

    fn not(condition: api::RequestMatch) -> api::RequestMatch {
        api::RequestMatch { r#match: Some(ApiRequest::Not(Box::new(condition))) }
    }

    fn route(name: &str, condition: api::RequestMatch) -> api::Route {
        api::Route {
            condition: Some(condition),
            metrics_labels: [("route".to_owned(), name.to_owned())].into(),
            ..Default::default()
        }
    }

    fn profile(routes: Vec<api::Route>) -> DestinationProfile {
        DestinationProfile { fully_qualified_name: "web.ns.svc.cluster.local".into(), routes, ..Default::default() }
    }

    #[test]
    fn the_first_route_that_matches_wins() {
        let profile = ServiceProfile::compile(
            &profile(vec![
                route("broken", api::RequestMatch { r#match: None }),
                route("vote", all(vec![path("/api/vote/[^/]*"), method(Method::POST)])),
                route("api", all(vec![path("^/api/.*$"), not(method(Method::DELETE))])),
            ]),
            80,
        )
        .unwrap();
        let labels = |method: Method, path: &str| profile.route(&method, path).labels.as_str().to_owned();
        let dst = "dst=\"web.ns.svc.cluster.local:80\"";
        assert_eq!(labels(Method::POST, "/api/vote/1"), format!("{dst},rt_route=\"vote\""));
        assert_eq!(labels(Method::POST, "/api/vote/1/2"), format!("{dst},rt_route=\"api\""));
        assert_eq!(labels(Method::GET, "/api/vote/1"), format!("{dst},rt_route=\"api\""));
        assert_eq!(labels(Method::DELETE, "/api/vote/1"), dst);
        assert_eq!(labels(Method::POST, "/other/api/vote/1"), dst);
    }

    #[test]
    fn the_first_class_that_matches_decides() {
        let status = |min, max| api::ResponseMatch { r#match: Some(ApiResponse::Status(HttpStatusRange { min, max })) };
        let nothing = api::ResponseMatch { r#match: Some(ApiResponse::Any(response_match::Seq::default())) };
        let class = |condition, is_failure| api::ResponseClass { condition: Some(condition), is_failure };
        let classes = ResponseClasses::compile(&[
            class(nothing, true),
            class(status(418, 418), true),
            class(status(500, 501), false),
        ]);
        let failures = [404, 418, 500, 501, 502].map(|code| classes.is_failure(StatusCode::from_u16(code).unwrap()));
        assert_eq!(failures, [None, Some(true), Some(false), Some(false), None]);
    }

    #[test]
    fn a_profile_without_name_or_content_leaves_the_policy_in_charge() {
        assert!(!overrides_policy(&profile(vec![])));
        assert!(overrides_policy(&profile(vec![route("a", path("/"))])));
        let split = DestinationProfile {
            dst_overrides: vec![WeightedDst { authority: "v1.ns:80".into(), weight: 1, backend_ref: None }],
            ..profile(vec![])
        };
        assert!(overrides_policy(&split));
        assert!(!overrides_policy(&DestinationProfile { fully_qualified_name: String::new(), ..split }));
    }
}
