//! The gRPC services over the index.

mod destination;
mod inbound;
pub(crate) mod incoming;
mod outbound;

use std::{io, sync::Arc};

use linkerd2_proxy_api::{
    destination::destination_server::DestinationServer, identity::identity_server::IdentityServer,
    inbound::inbound_server_policies_server::InboundServerPoliciesServer,
    outbound::outbound_policies_server::OutboundPoliciesServer,
};
use serde::Deserialize;
use tokio::net::TcpListener;
use tonic::transport::server::Router;

use crate::{Authority, Index, Key, Kind, Tls};

/// Serves Linkerd's gRPC API from an index.
#[derive(Debug, Clone)]
pub struct Server {
    index: Index,
    tls: Option<Tls>,
}

impl Server {
    /// A server over the index, in plaintext.
    pub fn new(index: Index) -> Self {
        Self { index, tls: None }
    }

    /// The same, and in TLS for whoever speaks that.
    pub fn with_tls(self, tls: Option<Tls>) -> Self {
        Self { tls, ..self }
    }

    /// Serves `Destination` until the listener fails.
    pub async fn serve_destination(self, listener: TcpListener) -> io::Result<()> {
        let tls = self.tls.clone();
        serve(builder().add_service(DestinationServer::new(self)), listener, tls).await
    }

    /// Serves `OutboundPolicies` and `InboundServerPolicies` until the listener fails.
    pub async fn serve_policy(self, listener: TcpListener) -> io::Result<()> {
        let tls = self.tls.clone();
        let services = builder().add_service(OutboundPoliciesServer::new(self.clone()));
        serve(services.add_service(InboundServerPoliciesServer::new(self)), listener, tls).await
    }
}

/// Serves `Identity` until the listener fails, in plaintext and in TLS.
pub async fn serve_identity(authority: Arc<Authority>, tls: Tls, listener: TcpListener) -> io::Result<()> {
    serve(builder().add_service(IdentityServer::from_arc(authority)), listener, Some(tls)).await
}

fn builder() -> tonic::transport::Server {
    tonic::transport::Server::builder()
}

async fn serve(services: Router, listener: TcpListener, tls: Option<Tls>) -> io::Result<()> {
    services.serve_with_incoming(incoming::incoming(listener, tls)).await.map_err(io::Error::other)
}

/// The workload that asks, as proxies name it: `{"ns":"default","pod":"web-0"}`, or `default:web-0` in older ones; outside of the cluster
/// `{"ns":"default","external_workload":"vm-0"}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
struct Workload {
    ns: String,
    pod: String,
    external_workload: String,
    #[serde(rename = "nodeName")]
    node_name: String,
}

impl Workload {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.starts_with('{') {
            return serde_json::from_str(text).ok();
        }
        let (ns, pod) = text.split_once(':')?;
        Some(Self { ns: ns.into(), pod: pod.into(), ..Self::default() })
    }

    fn id(&self) -> (Kind, Key) {
        match &*self.external_workload {
            "" => (Kind::Pod, Key::new(&self.ns, &self.pod)),
            name => (Kind::ExternalWorkload, Key::new(&self.ns, name)),
        }
    }
}

/// Who asks for a destination.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Client {
    namespace: Option<String>,
    /// The name of the node that it is on.
    node: Option<String>,
}

impl Client {
    /// Reads a context token: `{"ns":"default","nodeName":"node",...}`, or `ns:default` in older proxies.
    fn parse(token: &str) -> Self {
        let workload = Workload::parse(token).unwrap_or_default();
        let namespace = if workload.ns == "ns" { workload.pod } else { workload.ns };
        let told = |text: String| (!text.is_empty()).then_some(text);
        Self { namespace: told(namespace), node: told(workload.node_name) }
    }
}

#[cfg(test)]
mod tests;
