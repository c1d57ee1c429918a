//! `io.linkerd.proxy.outbound.OutboundPolicies`.

use std::net::SocketAddr;

use futures::{StreamExt, future, stream::BoxStream};
use linkerd2_proxy_api::outbound::{
    OutboundPolicy, TrafficSpec, outbound_policies_server::OutboundPolicies, traffic_spec,
};
use tonic::{Request, Response, Status};

use crate::{
    Cluster, Key, Server,
    answers::outbound,
    grpc::Workload,
    index::{State, Topic},
    metrics::{Rpc, counted},
    names::Target,
};

/// What has a policy.
#[derive(Debug, Clone)]
enum Subject {
    Service(Key, u16),
    Address(SocketAddr),
}

impl Subject {
    /// Its policy for clients in a namespace.
    fn policy(&self, state: &State, cluster: &Cluster, client: Option<&str>) -> Option<OutboundPolicy> {
        match self {
            Self::Service(service, port) => outbound::by_service(state, cluster, service, *port, client),
            Self::Address(address) => outbound::by_address(state, cluster, *address, client),
        }
    }

    fn topic(&self) -> Topic {
        match self {
            Self::Service(service, _) => Topic::Service(service.clone()),
            Self::Address(address) => Topic::Address(address.ip()),
        }
    }
}

/// The subject of a request. As in Linkerd, a name that is no Service's, or that of one endpoint, has no policy.
fn subject(spec: TrafficSpec, domain: &str) -> Result<Subject, Status> {
    match spec.target {
        Some(traffic_spec::Target::Authority(authority)) => match Target::parse(&authority, domain) {
            Some(Target::Service(name, port)) if name.hostname.is_none() => Ok(Subject::Service(name.service, port)),
            Some(Target::Address(address)) => Ok(Subject::Address(address)),
            Some(_) => Err(Status::not_found(format!("`{authority}` is not `service.namespace.svc.{domain}:port`"))),
            None => Err(Status::invalid_argument(format!("expected `host:port`, found `{authority}`"))),
        },
        Some(traffic_spec::Target::Addr(address)) => match SocketAddr::try_from(address) {
            Ok(address) if address.port() != 0 => Ok(Subject::Address(address)),
            _ => Err(Status::invalid_argument("expected an IP address and a port from 1 to 65535 as target")),
        },
        None => Err(Status::invalid_argument("expected an address or an authority as target, found none")),
    }
}

/// The namespace of who asks. Whoever does not say it has no routes but the Service's own; Linkerd refuses it.
fn client(spec: &TrafficSpec) -> Option<String> {
    Workload::parse(&spec.source_workload).map(|workload| workload.ns)
}

fn not_found(subject: &Subject) -> Status {
    Status::not_found(match subject {
        Subject::Service(service, _) => format!("Service {service} does not exist"),
        Subject::Address(address) => format!("{address} is no Service's; its profile says what it is"),
    })
}

#[tonic::async_trait]
impl OutboundPolicies for Server {
    type WatchStream = BoxStream<'static, Result<OutboundPolicy, Status>>;

    async fn get(&self, request: Request<TrafficSpec>) -> Result<Response<OutboundPolicy>, Status> {
        let client = client(request.get_ref());
        let subject = subject(request.into_inner(), &self.index.cluster().domain)?;
        let policy = self.index.answer(|state, cluster| subject.policy(state, cluster, client.as_deref())).await;
        policy.map(Response::new).ok_or_else(|| not_found(&subject))
    }

    /// Once there was a policy the stream stays open, also while the Service is gone: the endpoints tell of that, and the
    /// proxy keeps the connections it has.
    async fn watch(&self, request: Request<TrafficSpec>) -> Result<Response<Self::WatchStream>, Status> {
        let client = client(request.get_ref());
        let subject = subject(request.into_inner(), &self.index.cluster().domain)?;
        let policy = self.index.answer(|state, cluster| subject.policy(state, cluster, client.as_deref())).await;
        if policy.is_none() {
            return Err(not_found(&subject));
        }
        let policies = self
            .index
            .follow(subject.topic(), move |state, cluster| subject.policy(state, cluster, client.as_deref()))
            .filter_map(future::ready);
        Ok(Response::new(counted(&self.index, Rpc::Watch, policies).map(Ok).boxed()))
    }
}
