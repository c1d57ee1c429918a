//! The control plane of the proxies that take one: Linkerd's API over a fixed set of Services.

mod policy;

use std::{collections::HashMap, pin::Pin, sync::Arc};

use futures::{Stream, StreamExt, stream};
use linkerd2_proxy_api::{
    destination::{
        DestinationProfile, GetDestination, PathMatch, ProtocolHint, RequestMatch, RetryBudget, Route, TlsIdentity,
        Update, WeightedAddr, WeightedAddrSet,
        destination_server::{Destination, DestinationServer},
        protocol_hint, request_match, tls_identity, update,
    },
    inbound::{
        PortSpec, Server as ServerPolicy,
        inbound_server_policies_server::{InboundServerPolicies, InboundServerPoliciesServer},
    },
    outbound::{
        OutboundPolicy, TrafficSpec,
        outbound_policies_server::{OutboundPolicies, OutboundPoliciesServer},
        traffic_spec,
    },
};
use prost_types::Duration;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use crate::{
    authority::Authority,
    services::{Behind, PORT, SERVER_NAME, Service, route_name, route_regex},
};

/// Where proxies find it, each in its own namespace.
pub(crate) const ADDRESS: &str = "127.0.0.1:8086";

type Streaming<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The Services, by name and by address.
#[derive(Clone)]
struct Services(Arc<HashMap<String, Service>>);

/// Serves on a listener for as long as the runtime lives.
pub(crate) fn start(listener: TcpListener, authority: &Authority) {
    let by_key = Service::all().into_iter().flat_map(|service| {
        let name = format!("{}:{PORT}", service.host());
        [(name, service.clone()), (service.address().to_string(), service)]
    });
    let services = Services(Arc::new(by_key.collect()));
    let server = Server::builder()
        .add_service(DestinationServer::new(services.clone()))
        .add_service(OutboundPoliciesServer::new(services.clone()))
        .add_service(InboundServerPoliciesServer::new(services))
        .add_service(authority.service());
    tokio::spawn(async move {
        if let Err(error) = server.serve_with_incoming(TcpListenerStream::new(listener)).await {
            eprintln!("the control plane ended: {error}");
        }
    });
}

impl Services {
    fn get(&self, key: &str) -> Option<&Service> {
        self.0.get(key)
    }
}

/// Says one thing and nothing more; the end of a stream would make the proxy ask again.
fn always<T: Send + 'static>(item: T) -> Streaming<T> {
    Box::pin(stream::iter([Ok(item)]).chain(stream::pending()))
}

#[tonic::async_trait]
impl Destination for Services {
    type GetStream = Streaming<Update>;
    type GetProfileStream = Streaming<DestinationProfile>;

    async fn get(&self, request: Request<GetDestination>) -> Result<Response<Self::GetStream>, Status> {
        let path = request.into_inner().path;
        let service = self.get(&path).ok_or_else(|| Status::not_found(path))?;
        Ok(Response::new(always(endpoints(service))))
    }

    async fn get_profile(&self, request: Request<GetDestination>) -> Result<Response<Self::GetProfileStream>, Status> {
        let path = request.into_inner().path;
        // An address that is no Service's has a profile that says nothing.
        Ok(Response::new(always(self.get(&path).map(profile).unwrap_or_default())))
    }
}

#[tonic::async_trait]
impl OutboundPolicies for Services {
    type WatchStream = Streaming<OutboundPolicy>;

    async fn get(&self, _: Request<TrafficSpec>) -> Result<Response<OutboundPolicy>, Status> {
        Err(Status::unimplemented("proxies watch"))
    }

    async fn watch(&self, request: Request<TrafficSpec>) -> Result<Response<Self::WatchStream>, Status> {
        let key = match request.into_inner().target {
            Some(traffic_spec::Target::Authority(authority)) => authority,
            Some(traffic_spec::Target::Addr(address)) => match std::net::SocketAddr::try_from(address) {
                Ok(address) => address.to_string(),
                Err(error) => return Err(Status::invalid_argument(error.to_string())),
            },
            None => return Err(Status::invalid_argument("no target")),
        };
        let service = self.get(&key).ok_or_else(|| Status::not_found(key))?;
        Ok(Response::new(always(policy::of(service))))
    }
}

/// Proxies keep the default that their environment gives them.
#[tonic::async_trait]
impl InboundServerPolicies for Services {
    type WatchPortStream = Streaming<ServerPolicy>;

    async fn get_port(&self, _: Request<PortSpec>) -> Result<Response<ServerPolicy>, Status> {
        Err(Status::unimplemented("proxies watch"))
    }

    async fn watch_port(&self, _: Request<PortSpec>) -> Result<Response<Self::WatchPortStream>, Status> {
        Ok(Response::new(Box::pin(stream::pending())))
    }
}

fn endpoints(service: &Service) -> Update {
    let (tls_identity, protocol_hint) = match service.behind {
        Behind::Plain(_) => (None, None),
        Behind::Meshed { tls, http2 } => (tls.then(identity), http2.then(http2_hint)),
    };
    let addrs = service.endpoints().into_iter().map(|address| WeightedAddr {
        addr: Some(address.into()),
        weight: 10_000,
        metric_labels: [("pod".to_owned(), format!("{}-{}", service.name, address.ip()))].into(),
        tls_identity: tls_identity.clone(),
        protocol_hint,
        ..Default::default()
    });
    let metric_labels =
        [("namespace".to_owned(), "ns".to_owned()), ("service".to_owned(), service.name.clone())].into();
    Update { update: Some(update::Update::Add(WeightedAddrSet { addrs: addrs.collect(), metric_labels })) }
}

fn identity() -> TlsIdentity {
    let name = tls_identity::DnsLikeIdentity { name: SERVER_NAME.to_owned() };
    TlsIdentity { server_name: Some(name.clone()), strategy: Some(tls_identity::Strategy::DnsLikeIdentity(name)) }
}

fn http2_hint() -> ProtocolHint {
    let protocol = Some(protocol_hint::Protocol::H2(protocol_hint::H2 {}));
    ProtocolHint { protocol, opaque_transport: None }
}

fn profile(service: &Service) -> DestinationProfile {
    let ttl = Some(Duration { seconds: 10, nanos: 0 });
    DestinationProfile {
        fully_qualified_name: service.host(),
        retry_budget: Some(RetryBudget { retry_ratio: 0.2, min_retries_per_second: 10, ttl }),
        routes: (1..=service.routes).map(route).collect(),
        ..Default::default()
    }
}

fn route(number: usize) -> Route {
    let path = PathMatch { regex: route_regex(number) };
    Route {
        condition: Some(RequestMatch { r#match: Some(request_match::Match::Path(path)) }),
        metrics_labels: [("route".to_owned(), route_name(number))].into(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_in_order_and_the_last_is_the_requests() {
        let service = Service::with_routes(10);
        let profile = profile(&service);
        assert_eq!(profile.routes.len(), 10);
        assert_eq!(profile.routes[9].metrics_labels["route"], "kind-10");
        assert!(service.path().starts_with("/api/v1/kind-10/"));
    }

    #[test]
    fn only_meshed_endpoints_say_who_they_are() {
        let identified = |service: &Service| match endpoints(service).update {
            Some(update::Update::Add(set)) => {
                set.addrs.iter().map(|one| (one.tls_identity.is_some(), one.protocol_hint.is_some())).collect()
            }
            _ => Vec::new(),
        };
        assert_eq!(identified(&Service::with_endpoints(10)), [(false, false); 10]);
        assert_eq!(identified(&Service::meshed(true, true)), [(true, true)]);
        assert_eq!(identified(&Service::meshed(false, false)), [(false, false)]);
    }
}
