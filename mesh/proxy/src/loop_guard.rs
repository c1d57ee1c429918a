//! No request passes the same proxy twice.
//!
//! The outbound side adds the proxy's own random id to the header `l5d-hops`. Whichever side of the same proxy sees the id
//! again refuses the request with 508 and a reason, before an application sees it a second time. The case that this is
//! for: an ingress that sends a request to a host name which leads back to the ingress. Linkerd has no such guard; its
//! documentation warns of the loop.
//!
//! A pod that sends to its own address is not redirected to its inbound side, so an override that names the ingress itself
//! would take the request into the ingress again unseen. In ingress mode the inbound side therefore adds the id with the port that
//! it passed the request to, and the outbound side does not send it to that port of its own pod. Other ports stay open: an
//! ingress may publish its own dashboard.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header::Entry};
use rand::Rng;

use crate::{
    http::ProxyError,
    metrics::{Counter, Direction, Labels, Metrics},
};

/// The header: ids, or ids and ports with a colon between them, in the order in which proxies were passed, with commas between
/// them.
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
        if passed(headers, id.as_bytes()) {
            self.refused.increment();
            return Err(ProxyError::Loop(id.to_string()));
        }
        Ok(())
    }

    /// Whether a request has come from this port of the pod; then it is counted as refused.
    pub(crate) fn is_from(&self, headers: &HeaderMap, port: u16) -> bool {
        let Some(id) = &self.id else { return false };
        let from = passed(headers, entry(id, port).as_bytes());
        if from {
            self.refused.increment();
        }
        from
    }

    /// Adds this proxy to the request's way.
    pub(crate) fn mark(&self, headers: &mut HeaderMap) {
        if let Some(id) = &self.id {
            add(headers, id);
        }
    }

    /// Adds the port at which the request enters the application.
    pub(crate) fn mark_entry(&self, headers: &mut HeaderMap, port: u16) {
        if let Some(id) = &self.id {
            add(headers, &entry(id, port));
        }
    }
}

fn entry(id: &str, port: u16) -> String {
    format!("{id}:{port}")
}

fn passed(headers: &HeaderMap, hop: &[u8]) -> bool {
    let hops = headers.get_all(HOPS).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    hops.into_iter().any(|passed| passed == hop)
}

fn add(headers: &mut HeaderMap, hop: &str) {
    let entry = headers.entry(HOPS);
    let hops = match &entry {
        Entry::Occupied(hops) => HeaderValue::from_bytes(&[hops.get().as_bytes(), b",", hop.as_bytes()].concat()),
        Entry::Vacant(_) => HeaderValue::from_str(hop),
    };
    // An id is hexadecimal, and the rest was a header already.
    if let Ok(hops) = hops {
        match entry {
            Entry::Occupied(mut entry) => drop(entry.insert(hops)),
            Entry::Vacant(entry) => drop(entry.insert(hops)),
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

    #[test]
    fn a_request_does_not_go_back_to_the_port_it_entered_by() {
        let metrics = Metrics::new();
        let guard = |id: Option<&str>| LoopGuard::new(id.map(Into::into), Direction::Outbound, &metrics);
        let (own, other, off) = (guard(Some("a0")), guard(Some("b0")), guard(None));
        let mut headers = HeaderMap::new();
        assert!(!own.is_from(&headers, 8000));
        own.mark_entry(&mut headers, 8000);
        assert!(own.is_from(&headers, 8000));
        assert!(!own.is_from(&headers, 9000) && !other.is_from(&headers, 8000) && !off.is_from(&headers, 8000));
        assert!(own.check(&headers).is_ok(), "it has not left yet");
    }
}
