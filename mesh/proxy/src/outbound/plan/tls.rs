//! What to do with connections that the policy says to be TLS, which is passed on as it is: they go by the name that the client asks for
//! (SNI), as with Linkerd's proxy (`linkerd/app/outbound/src/tls.rs`).
//!
//! TLS that is found where the policy says something else has no routes of its own: it is passed on with other bytes.

use std::{cmp::Reverse, sync::Arc};

use linkerd2_proxy_api::{
    destination::DestinationProfile,
    outbound::{Backend as ApiBackend, OutboundPolicy, TlsRoute as ApiRoute, proxy_protocol::Kind, tls_route},
    tls_route::{SniMatch, sni_match::Match},
};

use super::{
    Backend, Parts, Shared,
    tcp::{Carried, TcpBackend, TcpLeg, parent_labels},
};
use crate::{
    metrics::{ByHost, Labels, PassedOn, TcpRoute, TcpRouteError},
    policy::metadata_labels,
    split::Split,
};

/// Where TLS goes.
pub(in crate::outbound) struct TlsPlan(Vec<TlsRoute>);

/// Where TLS for some names goes.
pub(in crate::outbound) struct TlsRoute {
    names: Vec<Name>,
    counted: ByHost<TcpRoute>,
    pub(in crate::outbound) to: Carried,
}

/// A name, or all below a domain.
enum Name {
    Exact(String),
    /// A domain with its leading dot.
    Below(String),
}

/// Larger wins.
type Specificity = (u8, usize);

impl TlsPlan {
    /// The most specific route for a name; of equals the first.
    pub(in crate::outbound) fn choose(&self, name: &str) -> Option<&TlsRoute> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let candidates = self.0.iter().filter_map(|route| Some((route.specificity(name)?, route)));
        // `min_by_key` keeps the first of equals.
        candidates.min_by_key(|(specificity, _)| Reverse(*specificity)).map(|(_, route)| route)
    }
}

impl TlsRoute {
    /// What counts the connections of clients that ask for a name.
    pub(in crate::outbound) fn counted(&self, name: &str) -> Arc<TcpRoute> {
        let host = self.counted.name(|| name);
        self.counted.of(host.as_ref())
    }

    /// A route without names is for all of them.
    fn specificity(&self, name: &str) -> Option<Specificity> {
        if self.names.is_empty() {
            return Some((0, 0));
        }
        self.names.iter().filter_map(|one| one.specificity(name)).max()
    }
}

impl Name {
    fn of(api: &SniMatch) -> Option<Self> {
        Some(match api.r#match.as_ref()? {
            Match::Exact(name) => Self::Exact(name.strip_suffix('.').unwrap_or(name).to_owned()),
            Match::Suffix(suffix) => {
                let labels = suffix.reverse_labels.iter().rev().filter(|label| !label.is_empty());
                Self::Below(labels.map(|label| format!(".{label}")).collect())
            }
        })
    }

    fn specificity(&self, name: &str) -> Option<Specificity> {
        match self {
            Self::Exact(exact) => name.eq_ignore_ascii_case(exact).then_some((2, exact.len())),
            Self::Below(domain) => {
                let start = name.len().checked_sub(domain.len()).filter(|start| *start > 0)?;
                name.get(start..)?.eq_ignore_ascii_case(domain).then_some((1, domain.len()))
            }
        }
    }
}

impl Parts {
    /// `None` unless the policy says that TLS is spoken. A profile that says otherwise comes first.
    pub(super) fn tls(&self, profile: Option<&DestinationProfile>, policy: Option<&OutboundPolicy>) -> Option<TlsPlan> {
        let policy = policy.filter(|_| profile.is_none_or(|profile| !profile.opaque_protocol))?;
        let Some(Kind::Tls(tls)) = policy.protocol.as_ref()?.kind.as_ref() else { return None };
        let parent = parent_labels(None, Some(policy));
        let shared = Shared::connections(policy);
        Some(TlsPlan(tls.routes.iter().filter_map(|route| self.tls_route(route, &parent, &shared)).collect()))
    }

    /// `None` if there are names and none can be read.
    fn tls_route(&self, api: &ApiRoute, parent: &Labels, shared: &Shared) -> Option<TlsRoute> {
        let names: Vec<_> = api.snis.iter().filter_map(Name::of).collect();
        if names.is_empty() && !api.snis.is_empty() {
            return None;
        }
        let own = api.metadata.as_ref().map(|metadata| metadata_labels("route", metadata)).unwrap_or_default();
        let labels = parent.clone().followed_by(&own);
        let families = self.metrics.routes_of(PassedOn::Tls).clone();
        let counted = ByHost::new(&self.metrics.hosts, move |host| {
            Arc::new(families.route(labels.clone().with("hostname", host)))
        });
        // There is one rule, for it has nothing by which it could be told from another.
        let to = match api.rules.first() {
            Some(rule) => match refusal(&rule.filters) {
                Some(error) => Carried::Refused(error),
                None => Carried::Backends(self.tls_backends(rule.backends.as_ref(), shared)),
            },
            None => Carried::Refused(TcpRouteError::InvalidPolicy),
        };
        Some(TlsRoute { names, counted, to })
    }

    fn tls_backends(&self, distribution: Option<&tls_route::Distribution>, shared: &Shared) -> Split<TcpLeg> {
        use tls_route::distribution::Kind as Distribution;
        let leg = |route: &tls_route::RouteBackend| {
            if let Some(error) = refusal(&route.filters) {
                return Err(error);
            }
            match self.backend(route.backend.as_ref().unwrap_or(&ApiBackend::default()), shared) {
                Some(Backend::Endpoint(endpoint)) => Ok(TcpBackend::Endpoint(endpoint)),
                Some(Backend::Balanced(balancer)) => {
                    let labels = Labels::new().with_display("concrete", balancer.name());
                    Ok(TcpBackend::balanced(&balancer, PassedOn::Tls, labels))
                }
                // Its share goes to no other.
                None => Err(TcpRouteError::InvalidBackend),
            }
        };
        let nothing = tls_route::RouteBackend::default();
        match distribution.and_then(|distribution| distribution.kind.as_ref()) {
            Some(Distribution::FirstAvailable(first)) => Split::ordered(first.backends.iter().map(leg)),
            Some(Distribution::RandomAvailable(random)) => Split::new(
                random.backends.iter().map(|one| (leg(one.backend.as_ref().unwrap_or(&nothing)), one.weight)),
            ),
            Some(Distribution::Empty(_)) | None => Split::new([]),
        }
    }
}

/// Why a route, or one of its backends, refuses connections, if it does.
fn refusal(filters: &[tls_route::Filter]) -> Option<TcpRouteError> {
    filters.iter().find_map(|filter| {
        Some(match filter.kind.as_ref()? {
            tls_route::filter::Kind::Forbidden(_) => TcpRouteError::Forbidden,
            tls_route::filter::Kind::Invalid(_) => TcpRouteError::InvalidBackend,
        })
    })
}

#[cfg(test)]
mod tests {
    use linkerd2_proxy_api::tls_route::sni_match::Suffix;

    use super::*;
    use crate::metrics::{HostNames, Metrics};

    fn exact(name: &str) -> SniMatch {
        SniMatch { r#match: Some(Match::Exact(name.to_owned())) }
    }

    fn below(labels: &[&str]) -> SniMatch {
        let reverse_labels = labels.iter().map(|label| (*label).to_owned()).collect();
        SniMatch { r#match: Some(Match::Suffix(Suffix { reverse_labels })) }
    }

    fn route(names: &[SniMatch]) -> TlsRoute {
        let families = Metrics::new().routes_of(PassedOn::Tls).clone();
        TlsRoute {
            names: names.iter().filter_map(Name::of).collect(),
            counted: ByHost::new(&HostNames::default(), move |_| Arc::new(families.route(Labels::new()))),
            to: Carried::Refused(TcpRouteError::Forbidden),
        }
    }

    #[test]
    fn the_most_specific_name_wins() {
        let (com, example) = (below(&["com"]), below(&["com", "example"]));
        let plan = TlsPlan(vec![
            route(&[com]),
            route(&[example.clone(), exact("web.example.com")]),
            route(&[exact("web.example.com.")]),
            route(&[below(&["", "net"])]),
            route(&[SniMatch::default(), exact("localhost")]),
        ]);
        let chosen = |plan: &TlsPlan, name: &str| {
            let route = plan.choose(name)?;
            plan.0.iter().position(|one| std::ptr::eq(one, route))
        };
        for (name, expected) in [
            ("example.com", Some(0)),
            ("a.example.com", Some(1)),
            ("A.B.Example.COM.", Some(1)),
            ("web.example.com", Some(1)),
            ("badexample.com", Some(0)),
            ("com", None),
            ("a.net", Some(3)),
            ("localhost.", Some(4)),
            ("example.org", None),
        ] {
            assert_eq!(chosen(&plan, name), expected, "{name}");
        }
        let plan = TlsPlan(vec![route(&[]), route(&[example])]);
        assert_eq!((chosen(&plan, "a.example.com"), chosen(&plan, "example.org")), (Some(1), Some(0)));
    }
}
