//! What comes for a name in place of a port of the pod: the requests and connections of other clusters, to which this proxy is the
//! gateway.
//!
//! As in Linkerd (`linkerd/app/gateway`, `linkerd/app/inbound/src/direct.rs`): the policy of the proxy's own port says who may use the
//! gateway, `LINKERD2_PROXY_INBOUND_GATEWAY_SUFFIXES` for which names, and what is let in goes out again by the outbound side as if a
//! client of this pod had asked for the name. A gateway that has itself as its client, or finds itself in `Forwarded` (RFC 7239), is in
//! a loop. Different from Linkerd the former ends connections that are not HTTP as well: nothing else would.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use http::{
    HeaderMap, HeaderValue, Response, Version,
    header::{FORWARDED, HOST, InvalidHeaderValue},
};
use tracing::debug;

use super::{Inbound, application::Client, authz_labels};
use crate::{
    NameAddr,
    http::{BoxedRequest, Failed, ProxyError, ResponseBody, check_head, orig_proto},
    io::Io,
    metrics::Labels,
    outbound::{Onward, Outbound},
    tls::Peer,
};

/// Where a gateway's connection goes.
pub(super) struct Passage {
    name: NameAddr,
    /// The name as requests have it.
    host: HeaderValue,
    /// What is added to them.
    forwarded: HeaderValue,
    /// The name of this proxy.
    own: String,
    /// Whether it is the client as well.
    looped: bool,
    /// Whether the name is one that is passed on to.
    allowed: bool,
    outbound: Arc<Outbound>,
    /// Nobody is asked about the name before a client has been let in.
    onward: OnceLock<Onward>,
}

impl Inbound {
    /// The passage of a connection for `name`.
    ///
    /// # Errors
    /// An identity cannot be told in a header.
    pub(super) fn passage(&self, name: NameAddr, peer: &Peer) -> Result<Passage, InvalidHeaderValue> {
        let own = self.config.identity.as_ref().map_or_else(String::new, |identity| identity.local_name.clone());
        let client = peer.client_id().map_or("", AsRef::as_ref);
        let host = name.authority();
        let allowed = self.config.inbound_gateway_suffixes.iter().any(|suffix| name.is_within(suffix));
        Ok(Passage {
            forwarded: HeaderValue::try_from(format!("by={own};for={client};host={host};proto=https"))?,
            host: HeaderValue::try_from(host)?,
            looped: client == own,
            allowed,
            outbound: Arc::clone(&self.outbound),
            onward: OnceLock::new(),
            name,
            own,
        })
    }

    /// Passes one request on.
    pub(super) async fn pass_request(
        &self,
        original: SocketAddr,
        client: &Client,
        passage: &Passage,
        mut request: BoxedRequest,
    ) -> Result<Response<ResponseBody>, Failed> {
        check_head(&request)?;
        let carried = orig_proto::downgrade(&mut request);
        client.tell(request.headers_mut());
        let permit = self.door.permit(original, client, &mut request)?;
        self.metrics.inbound_http_allowed.hold(&authz_labels(original, &permit.labels, &client.peer)).increment();
        let onward = passage.onward(Some(request.headers()))?;
        request.headers_mut().append(FORWARDED, passage.forwarded.clone());
        if request.version() != Version::HTTP_2 {
            request.headers_mut().insert(HOST, passage.host.clone());
        }
        let mut response = onward.request(request).await?;
        if carried {
            orig_proto::upgrade_response(&mut response);
        }
        Ok(response)
    }

    /// Passes a connection on that is not HTTP.
    pub(super) async fn pass_bytes(&self, io: Io, original: SocketAddr, mut client: Client, passage: &Passage) {
        let Some(permit) = self.admit(original, &mut client) else { return };
        let onward = match passage.onward(None) {
            Ok(onward) => onward,
            Err(error) => {
                debug!(client = %client.address, %error, "a connection is not passed on");
                let labels = Labels::new().with_target(original).with("error", error.label().unwrap_or("unexpected"));
                return self.metrics.inbound_tcp_errors.hold(&labels).increment();
            }
        };
        tokio::select! {
            () = onward.bytes(io, original) => {}
            () = client.refused() => self.terminated(original, &client, &permit),
        }
    }
}

impl Passage {
    /// The way on, if there is one and it does not lead in a circle. `headers` are those of a request.
    fn onward(&self, headers: Option<&HeaderMap>) -> Result<&Onward, ProxyError> {
        if !self.allowed {
            return Err(ProxyError::GatewayDomain(self.name.clone()));
        }
        if self.looped || headers.is_some_and(|headers| was_forwarded_by(headers, &self.own)) {
            return Err(ProxyError::GatewayLoop(Arc::from(&*self.own)));
        }
        Ok(self.onward.get_or_init(|| self.outbound.onward(&self.name)))
    }
}

/// Whether a request has passed the proxy of this name.
fn was_forwarded_by(headers: &HeaderMap, name: &str) -> bool {
    let lines = headers.get_all(FORWARDED).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split([',', ';'])).filter_map(|pair| pair.split_once('='));
    pairs.any(|(key, value)| key.trim().eq_ignore_ascii_case("by") && value.trim().trim_matches('"') == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_forwarded_a_request_is_found() {
        let by = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(FORWARDED, HeaderValue::from_static(line));
            }
            was_forwarded_by(&headers, "gateway.id")
        };
        assert!(by(&["for=a;by=gateway.id;host=web"]));
        assert!(by(&["by=other.id", "by=gateway.id;for=a"]));
        assert!(by(&["by=other.id;for=a, For=b; By=\"gateway.id\""]), "lines may have been put together");
        assert!(!by(&[]) && !by(&["for=gateway.id;by=other.id", "by=gateway.id.other", "by"]));
    }
}
