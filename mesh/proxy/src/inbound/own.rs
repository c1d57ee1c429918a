//! Requests that the proxy answers itself, at its admin port.
//!
//! As in Linkerd (`linkerd/app/admin/src/stack.rs`): other proxies know the port for one of a meshed pod, so they speak TLS to it and
//! carry HTTP/1 over HTTP/2, and the port has a policy and is counted like any other. Unlike others it is served before there is a
//! certificate, in plaintext, for the node asks here whether there is one.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::Response;
use tokio::net::TcpStream;
use tracing::debug;

use super::{
    application::{Client, authz_labels},
    door::Door,
};
use crate::{
    KeepAlive,
    classify::Classify,
    detect::{Detected, detect},
    http::{Abort, BoxedRequest, ProxyError, Respond, ResponseBody, Version, check_head, orig_proto, serve},
    metrics::inbound_labels,
    process::Drain,
    tls::{Accepted, Peer},
};

impl Door {
    /// Serves a connection of `client` to `target`, an address of the proxy's own, with what `answer` says to each request.
    pub(crate) async fn serve_own<S, F>(
        self: Arc<Self>,
        stream: TcpStream,
        target: SocketAddr,
        client: SocketAddr,
        keep_alive: Option<KeepAlive>,
        answer: S,
    ) where
        S: Fn(SocketAddr, BoxedRequest) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Bytes>> + Send + 'static,
    {
        let policy = self.policy(target.port());
        let deadline = self.deadline(&policy);
        let Accepted { transport, prefix, peer, .. } = match self.accept(stream, false, deadline).await {
            Ok(accepted) => accepted,
            Err(error) => return self.failed(target, &error),
        };
        let mut io = self.io(transport, target, peer.label(), &policy);
        io.unread(prefix);
        let version = match (detect(&mut io, deadline).await, &peer) {
            (Ok(Detected::Http1), _) => Version::Http1,
            (Ok(Detected::Http2), _) => Version::Http2,
            // Nothing but HTTP comes of it, so it is what clients of the kind speak.
            (Ok(Detected::TimedOut), Peer::Mesh(_)) => Version::Http2,
            (Ok(Detected::TimedOut), _) => Version::Http1,
            (Ok(Detected::Tls | Detected::Opaque), _) => {
                return debug!(%client, "a client of the admin server speaks neither HTTP nor this proxy's TLS");
            }
            (Err(error), _) => return debug!(%client, %error, "a connection broke before its protocol was known"),
        };
        let client = Client::new(client, peer, policy);
        // Metrics can be read while the proxy stops.
        let never = Drain::default();
        serve(io, version, keep_alive, &never, move |request| {
            let (door, client, answer) = (Arc::clone(&self), client.clone(), answer.clone());
            async move {
                // Peers of which nothing is known are not told what went wrong in here.
                let respond = Respond::to(&request, client.peer.client_id().is_some());
                match door.own(target, &client, request, answer).await {
                    Ok(response) => Ok::<_, Abort>(response),
                    Err(error) => {
                        debug!(%error, client = %client.address, "a request to the admin server is refused");
                        respond.with(error)
                    }
                }
            }
        })
        .await;
    }

    async fn own<F>(
        &self,
        target: SocketAddr,
        client: &Client,
        mut request: BoxedRequest,
        answer: impl Fn(SocketAddr, BoxedRequest) -> F,
    ) -> Result<Response<ResponseBody>, ProxyError>
    where
        F: Future<Output = Response<Bytes>>,
    {
        check_head(&request)?;
        let carried = orig_proto::downgrade(&mut request);
        let permit = self.permit(target, client, &mut request)?;
        self.metrics.inbound_http_allowed.hold(&authz_labels(target, &permit.labels, &client.peer)).increment();
        let labels = inbound_labels(target, client.peer.label(), &permit.labels);
        let mut observation = self.metrics.http.scope(labels).observe(Classify::default());
        observation.sent();
        request.body_mut().proceed();
        let response = answer(client.address, request).await;
        observation.head(response.status(), response.headers());
        let mut response = response.map(ResponseBody::whole);
        response.body_mut().observe(observation);
        if carried {
            orig_proto::upgrade_response(&mut response);
        }
        Ok(response)
    }
}
