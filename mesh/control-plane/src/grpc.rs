//! The gRPC services over the index.

mod destination;
mod inbound;
mod outbound;

use std::io;

use linkerd2_proxy_api::{
    destination::destination_server::DestinationServer, identity::identity_server::IdentityServer,
    inbound::inbound_server_policies_server::InboundServerPoliciesServer,
    outbound::outbound_policies_server::OutboundPoliciesServer,
};
use serde::Deserialize;
use tokio::net::TcpListener;
use tonic::transport::server::{Router, TcpIncoming};

use crate::{Authority, Index, Key};

/// Serves Linkerd's gRPC API from an index.
#[derive(Debug, Clone)]
pub struct Server {
    index: Index,
}

impl Server {
    /// A server over the index.
    pub fn new(index: Index) -> Self {
        Self { index }
    }

    /// Serves `Destination` until the listener fails.
    pub async fn serve_destination(self, listener: TcpListener) -> io::Result<()> {
        serve(builder().add_service(DestinationServer::new(self)), listener).await
    }

    /// Serves `OutboundPolicies` and `InboundServerPolicies` until the listener fails.
    pub async fn serve_policy(self, listener: TcpListener) -> io::Result<()> {
        let services = builder().add_service(OutboundPoliciesServer::new(self.clone()));
        serve(services.add_service(InboundServerPoliciesServer::new(self)), listener).await
    }
}

/// Serves `Identity` until the listener fails.
pub async fn serve_identity(authority: Authority, listener: TcpListener) -> io::Result<()> {
    serve(builder().add_service(IdentityServer::new(authority)), listener).await
}

fn builder() -> tonic::transport::Server {
    tonic::transport::Server::builder()
}

async fn serve(services: Router, listener: TcpListener) -> io::Result<()> {
    // Without this a change could wait for the acknowledgement of the one before it.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    services.serve_with_incoming(incoming).await.map_err(io::Error::other)
}

/// The workload that asks, as proxies name it: `{"ns":"default","pod":"web-0"}`, or `default:web-0` in older ones.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
struct Workload {
    ns: String,
    pod: String,
}

impl Workload {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.starts_with('{') {
            return serde_json::from_str(text).ok();
        }
        let (ns, pod) = text.split_once(':')?;
        Some(Self { ns: ns.into(), pod: pod.into() })
    }

    fn key(&self) -> Key {
        Key::new(&self.ns, &self.pod)
    }
}

/// The client's namespace in a destination's context token: `{"ns":"default",...}`, or `ns:default` in older proxies.
fn client_namespace(token: &str) -> Option<String> {
    let workload = Workload::parse(token)?;
    let namespace = if workload.ns == "ns" { workload.pod } else { workload.ns };
    (!namespace.is_empty()).then_some(namespace)
}

#[cfg(test)]
mod tests;
