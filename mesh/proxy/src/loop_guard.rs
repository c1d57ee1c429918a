//! No request passes the same proxy twice.
//!
//! The outbound side adds the proxy's own random id to the header `l5d-hops`. Whichever side of the same proxy sees the id
//! again refuses the request with 508 and a reason, before an application sees it a second time. The case that this is
//! for: an ingress that sends a request to a host name which leads back to the ingress. Linkerd has no such guard; its
//! documentation warns of the loop.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use rand::Rng;

use crate::{
    http::ProxyError,
    metrics::{Counter, Direction, Labels, Metrics},
};

/// The header: ids with commas between them, in the order in which proxies were passed.
const HOPS: HeaderName = HeaderName::from_static("l5d-hops");

/// One side of a proxy's guard.
#[derive(Clone)]
pub(crate) struct LoopGuard {
    /// Absent if the guard is off.
    id: Option<Arc<str>>,
    refused: Arc<Counter>,
}

/// The id that both sides of one proxy share.
pub(crate) fn random_id() -> Arc<str> {
    format!("{:016x}", rand::rng().random::<u64>()).into()
}

impl LoopGuard {
    pub(crate) fn new(id: Option<Arc<str>>, direction: Direction, metrics: &Metrics) -> Self {
        let labels = Labels::new().with("direction", direction.label());
        Self { id, refused: metrics.loops_refused.hold(&labels) }
    }

    /// Refuses a request that this proxy has sent before.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), ProxyError> {
        let Some(id) = &self.id else { return Ok(()) };
        let passed = |value: &HeaderValue| value.as_bytes().split(|byte| *byte == b',').any(|hop| hop == id.as_bytes());
        if headers.get_all(HOPS).iter().any(passed) {
            self.refused.increment();
            return Err(ProxyError::Loop(id.to_string()));
        }
        Ok(())
    }

    /// Adds this proxy to the request's way.
    pub(crate) fn mark(&self, headers: &mut HeaderMap) {
        let Some(id) = &self.id else { return };
        let hops = match headers.get(HOPS) {
            Some(hops) => HeaderValue::from_bytes(&[hops.as_bytes(), b",", id.as_bytes()].concat()),
            None => HeaderValue::from_str(id),
        };
        // An id is hexadecimal, and the rest was a header already.
        if let Ok(hops) = hops {
            headers.insert(HOPS, hops);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_may_pass_each_proxy_once() {
        let metrics = Metrics::new();
        let guard = |id: Option<&str>| LoopGuard::new(id.map(Into::into), Direction::Outbound, &metrics);
        let (a, b, off) = (guard(Some("a0")), guard(Some("b0")), guard(None));
        let mut headers = HeaderMap::new();
        assert!(a.check(&headers).is_ok());
        a.mark(&mut headers);
        assert!(b.check(&headers).is_ok() && off.check(&headers).is_ok());
        off.mark(&mut headers);
        b.mark(&mut headers);
        assert_eq!(headers[HOPS], "a0,b0");
        assert!(matches!(a.check(&headers), Err(ProxyError::Loop(id)) if id == "a0"));
        assert!(b.check(&headers).is_err());
    }
}
