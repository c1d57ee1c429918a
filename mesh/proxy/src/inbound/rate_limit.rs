//! How many requests per second a port takes: `HTTPLocalRateLimitPolicy`, compiled.
//!
//! As with Linkerd's proxy: first from all clients together, then from whom an override names or else from each identity. Clients
//! without an identity are one together.

use std::{collections::HashMap, fmt, num::NonZeroU32, sync::Arc};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, MonotonicClock},
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed, keyed::HashMapStateStore},
};
use linkerd2_proxy_api::inbound::{HttpLocalRateLimit, http_local_rate_limit::Limit};

use super::policy::reference;
use crate::metrics::Labels;

type Client = Option<Arc<str>>;
type Direct<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;
type Keyed<C> = RateLimiter<Client, HashMapStateStore<Client>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// The limits of one port.
pub(super) struct RateLimits<C: Clock = MonotonicClock> {
    /// `ratelimit_group`, `ratelimit_kind`, `ratelimit_name`.
    labels: Labels,
    total: Option<(NonZeroU32, Direct<C>)>,
    identity: Option<(NonZeroU32, Keyed<C>)>,
    /// The clients of one override have its limit together.
    overrides: HashMap<Arc<str>, Arc<(NonZeroU32, Direct<C>)>>,
}

/// Which limit a request is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Total,
    Identity,
    Override,
}

/// A request too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exceeded {
    scope: Scope,
    limit: NonZeroU32,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scope = match self.scope {
            Scope::Total => "total",
            Scope::Identity => "per-identity",
            Scope::Override => "override",
        };
        write!(f, "{scope} rate limit exceeded: {}rps", self.limit)
    }
}

impl<C: Clock + Clone> RateLimits<C> {
    /// A limit of zero is none, as with Linkerd.
    pub(super) fn compile(api: &HttpLocalRateLimit, clock: &C) -> Self {
        let direct = |limit: &Option<Limit>| {
            let limit = NonZeroU32::new(limit.as_ref()?.requests_per_second)?;
            Some((limit, RateLimiter::direct_with_clock(Quota::per_second(limit), clock.clone())))
        };
        let keyed = |limit: &Limit| {
            let limit = NonZeroU32::new(limit.requests_per_second)?;
            let store = HashMapStateStore::default();
            Some((limit, RateLimiter::new(Quota::per_second(limit), store, clock.clone())))
        };
        let overrides = api.overrides.iter().filter_map(|one| {
            let limit = Arc::new(direct(&one.limit)?);
            let names = one.clients.iter().flat_map(|clients| &clients.identities).map(|client| client.name.as_str());
            Some(names.map(move |name| (Arc::from(name), Arc::clone(&limit))))
        });
        Self {
            labels: reference("ratelimit", api.metadata.as_ref().unwrap_or(&Default::default())),
            total: direct(&api.total),
            identity: api.identity.as_ref().and_then(keyed),
            overrides: overrides.flatten().collect(),
        }
    }

    /// Counts one request of a client.
    ///
    /// # Errors
    /// It is one too many.
    pub(super) fn check(&self, client: Option<&Arc<str>>) -> Result<(), Exceeded> {
        let exceeded = |scope, limit: &NonZeroU32| Exceeded { scope, limit: *limit };
        if let Some((limit, total)) = &self.total {
            total.check().map_err(|_| exceeded(Scope::Total, limit))?;
        }
        if let Some(own) = client.and_then(|client| self.overrides.get(client)) {
            let (limit, own) = &**own;
            return own.check().map_err(|_| exceeded(Scope::Override, limit));
        }
        match &self.identity {
            Some((limit, each)) => each.check_key(&client.cloned()).map_err(|_| exceeded(Scope::Identity, limit)),
            None => Ok(()),
        }
    }

    /// The labels of what is counted of these limits.
    pub(super) fn labels(&self, exceeded: Exceeded) -> Labels {
        self.labels.clone().with(
            "ratelimit_scope",
            match exceeded.scope {
                Scope::Total => "total",
                Scope::Identity => "identity",
                Scope::Override => "override",
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use governor::clock::FakeRelativeClock;
    use linkerd2_proxy_api::inbound::{
        Identity,
        http_local_rate_limit::{Override, r#override::ClientIdentities},
    };

    use super::*;

    fn limit(requests_per_second: u32) -> Option<Limit> {
        Some(Limit { requests_per_second })
    }

    fn favour(requests_per_second: u32, names: &[&str]) -> Override {
        let identities = names.iter().map(|name| Identity { name: (*name).to_owned() }).collect();
        Override { limit: limit(requests_per_second), clients: Some(ClientIdentities { identities }) }
    }

    /// How many of some requests at once are let through, and what is said of the first that is not.
    fn burst(limits: &RateLimits<FakeRelativeClock>, client: Option<&str>, requests: u32) -> (u32, Option<String>) {
        let client = client.map(Arc::from);
        let results: Vec<_> = (0..requests).map(|_| limits.check(client.as_ref())).collect();
        let refused = results.iter().find_map(|result| result.err());
        (results.iter().filter(|result| result.is_ok()).count() as u32, refused.map(|exceeded| exceeded.to_string()))
    }

    #[test]
    fn each_client_has_its_limit_and_all_have_one_together() {
        let clock = FakeRelativeClock::default();
        let api = HttpLocalRateLimit {
            total: limit(14),
            identity: limit(2),
            overrides: vec![favour(6, &["friend", "other friend"]), favour(0, &["unlimited by mistake"])],
            ..Default::default()
        };
        let limits = RateLimits::compile(&api, &clock);
        let identity = || Some("per-identity rate limit exceeded: 2rps".to_owned());
        for _ in 0..3 {
            assert_eq!(burst(&limits, Some("a"), 2), (2, None));
            assert_eq!(burst(&limits, Some("a"), 1), (0, identity()));
            // Another client is not concerned; those of whom nothing is known are one.
            assert_eq!(burst(&limits, None, 3), (2, identity()));
            assert_eq!(burst(&limits, Some("friend"), 4), (4, None));
            assert_eq!(
                burst(&limits, Some("other friend"), 3),
                (2, Some("override rate limit exceeded: 6rps".to_owned()))
            );
            // What a limit of one client refused counts for all: 2 + 1 + 3 + 4 + 3 of 14.
            assert_eq!(burst(&limits, Some("b"), 2), (1, Some("total rate limit exceeded: 14rps".to_owned())));
            clock.advance(Duration::from_secs(1));
        }
    }

    #[test]
    fn without_limits_there_is_none() {
        let clock = FakeRelativeClock::default();
        let api = HttpLocalRateLimit { total: limit(0), identity: limit(0), ..Default::default() };
        assert_eq!(burst(&RateLimits::compile(&api, &clock), Some("a"), 1000), (1000, None));
    }

    #[test]
    fn what_is_refused_is_counted_by_its_limit() {
        let clock = FakeRelativeClock::default();
        let api = HttpLocalRateLimit { total: limit(1), ..Default::default() };
        let limits = RateLimits::compile(&api, &clock);
        limits.check(None).unwrap();
        let exceeded = limits.check(None).unwrap_err();
        assert_eq!(
            limits.labels(exceeded).as_str(),
            "ratelimit_group=\"\",ratelimit_kind=\"\",ratelimit_name=\"\",ratelimit_scope=\"total\""
        );
        clock.advance(Duration::from_millis(999));
        assert!(limits.check(None).is_err());
        clock.advance(Duration::from_millis(1));
        assert!(limits.check(None).is_ok());
    }
}
