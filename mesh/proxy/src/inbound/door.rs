//! How a connection to the pod begins, whatever it is for: who is there, what holds at its port, and what is counted of that.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use http::Request;
use tokio::{net::TcpStream, time::Instant};
use tracing::debug;

use super::{
    application::{Client, authz_labels},
    policy::{Permit, Protocol, Refusal},
    ports::{Policy, Ports},
};
use crate::{
    Config,
    control::Control,
    http::ProxyError,
    identity::LocalIdentity,
    io::{Io, Transport},
    metrics::{Counter, Family, Labels, Metrics, Tls, inbound_source_labels},
    tls::{self, Accepted},
};

/// Lets connections to the pod in: to its applications, and to the proxy's own admin port.
pub(crate) struct Door {
    identity: LocalIdentity,
    ports: Ports,
    pub(super) metrics: Metrics,
    detect_timeout: Duration,
}

impl Door {
    /// `own` are the ports that the proxy answers at itself.
    pub(crate) fn new(
        config: &Arc<Config>,
        own: &[u16],
        identity: LocalIdentity,
        control: Control,
        metrics: Metrics,
    ) -> Self {
        Self {
            identity,
            ports: Ports::new(config, own, control),
            metrics,
            detect_timeout: config.inbound_detect_timeout,
        }
    }

    /// The policy of a port, as it changes.
    pub(super) fn policy(&self, port: u16) -> Policy {
        self.ports.of(port)
    }

    /// Until when a client that has just come has to show what it speaks.
    pub(super) fn deadline(&self, policy: &Policy) -> Instant {
        let patience = match policy.borrow().protocol {
            Protocol::Detect(Some(timeout)) => timeout,
            _ => self.detect_timeout,
        };
        Instant::now() + patience
    }

    /// Finds out who is there. A connection is `direct` when it is for the proxy's inbound port.
    pub(super) async fn accept(&self, stream: TcpStream, direct: bool, deadline: Instant) -> io::Result<Accepted> {
        let credentials = self.identity.credentials();
        tls::accept(stream, credentials.as_deref(), direct, deadline).await
    }

    /// The connection, from now on counted.
    pub(super) fn io(&self, transport: Transport, target: SocketAddr, tls: Tls<'_>, policy: &Policy) -> Io {
        let label = inbound_source_labels(target, tls, &policy.borrow().labels);
        Io::new(transport, self.metrics.tcp.scope(label).opened())
    }

    /// Counts a connection that was not accepted.
    pub(super) fn failed(&self, target: SocketAddr, error: &io::Error) {
        debug!(%target, %error, "a client was not let in");
        let error = match error.kind() {
            io::ErrorKind::TimedOut => "tls detection timeout",
            io::ErrorKind::ConnectionRefused => "gateway identity required",
            _ => "tls",
        };
        let labels = Labels::new().with_target(target).with("error", error);
        self.metrics.inbound_tcp_errors.hold(&labels).increment();
    }

    /// What lets a request in, by the port's policy as it is now.
    pub(super) fn permit<B>(
        &self,
        target: SocketAddr,
        client: &Client,
        request: &mut Request<B>,
    ) -> Result<Arc<Permit>, ProxyError> {
        let policy = Arc::clone(&client.policy.borrow());
        match policy.request(client.address, &client.peer, request) {
            Ok(permit) => Ok(Arc::clone(permit)),
            Err((refusal, error)) => {
                let count = |family: &Family<Counter>, by| {
                    family.hold(&authz_labels(target, by, &client.peer)).increment();
                };
                match &refusal {
                    Refusal::Unrouted => count(&self.metrics.inbound_http_unrouted, &policy.labels),
                    Refusal::Denied(route) => count(&self.metrics.inbound_http_denied, route),
                    Refusal::Filtered(permit) => count(&self.metrics.inbound_http_allowed, &permit.labels),
                    Refusal::Limited(permit, limit) => {
                        count(&self.metrics.inbound_http_allowed, &permit.labels);
                        count(&self.metrics.inbound_http_limited, limit);
                    }
                }
                Err(error)
            }
        }
    }
}
