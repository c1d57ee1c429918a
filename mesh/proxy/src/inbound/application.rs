//! The applications of the pod, and by what each client may use them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    policy::{Permit, ServerPolicy},
    ports::Policy,
};
use crate::{
    balance::{Endpoint, EndpointFactory},
    cache::Cache,
    metrics::{Counter, Labels, StreamScope},
    tls::Peer,
};

/// Tells the application who the client is, if that has been proven.
const CLIENT_ID: HeaderName = HeaderName::from_static("l5d-client-id");

/// An application as the requests of one identity reach it, under one permit.
pub(super) struct Application {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) allowed: Arc<Counter>,
    /// What counts the requests of the route, unless it is a connection that was let in.
    pub(super) stream: Option<Arc<StreamScope>>,
}

/// An address, the identity of a client and the labels of its permit, which is all that what is counted depends on.
type Key = (SocketAddr, Option<Arc<str>>, Labels);

/// Every application in use.
pub(super) struct Applications {
    factory: EndpointFactory,
    known: Arc<Cache<Key, Application>>,
}

/// Whose connection it is, and what it was let in by.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) address: SocketAddr,
    pub(super) peer: Arc<Peer>,
    /// Tells the application who the client is.
    header: Option<HeaderValue>,
    /// That of the port, as it changes.
    pub(super) policy: Policy,
    /// What the last request used, which the next one does as well unless the policy or the route changes.
    last: Arc<ArcSwapOption<(Arc<Permit>, Arc<Application>)>>,
}

impl Client {
    pub(super) fn new(address: SocketAddr, peer: Peer, policy: Policy) -> Self {
        let header = peer.client_id().and_then(|id| HeaderValue::from_str(id).ok());
        Self { address, header, peer: Arc::new(peer), policy, last: Arc::default() }
    }

    /// Says in a request who the client is: what it says itself of that counts for nothing.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        match &self.header {
            Some(id) => headers.insert(CLIENT_ID, id.clone()),
            None => headers.remove(CLIENT_ID),
        };
    }

    /// Ends when the port's policy, which has let the client in, does so no more.
    pub(super) async fn refused(&mut self) {
        let let_in = |policy: &Arc<ServerPolicy>| policy.permit(self.address, &self.peer).is_some();
        if self.policy.wait_for(|policy| !let_in(policy)).await.is_err() {
            std::future::pending().await
        }
    }
}

impl Applications {
    pub(super) fn new(factory: EndpointFactory, idle: Duration) -> Self {
        Self { factory, known: Cache::new(idle) }
    }

    /// The application at an address, for a client that is let in by `permit`.
    pub(super) fn get(&self, address: SocketAddr, client: &Client, permit: &Arc<Permit>) -> Arc<Application> {
        if let Some((by, application)) = client.last.load().as_deref()
            && Arc::ptr_eq(by, permit)
        {
            return Arc::clone(application);
        }
        let key = (address, client.peer.client_id().cloned(), permit.labels.clone());
        let application = self.known.get_or_make(&key, || {
            let endpoint = Arc::new(self.factory.application(address, &client.peer, &permit.labels));
            let labels = authz_labels(address, &permit.labels, &client.peer);
            let metrics = self.factory.metrics();
            let stream = permit.route.as_ref().map(|(variant, labels)| {
                let families = &metrics.policies(*variant).inbound;
                families.scope(labels.clone())
            });
            Application { endpoint, allowed: metrics.inbound_http_allowed.hold(&labels), stream }
        });
        client.last.store(Some(Arc::new((Arc::clone(permit), Arc::clone(&application)))));
        application
    }
}

/// The labels of what was let in or refused.
pub(super) fn authz_labels(target: SocketAddr, by: &Labels, peer: &Peer) -> Labels {
    peer.label().on(Labels::new().with_target(target).followed_by(by))
}
