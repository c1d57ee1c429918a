//! `io.linkerd.proxy.inbound.InboundServerPolicies`.

use futures::{StreamExt, future, stream::BoxStream};
use linkerd2_proxy_api::inbound::{self, PortSpec, inbound_server_policies_server::InboundServerPolicies};
use tonic::{Request, Response, Status};

use crate::{
    Key, Kind, Server,
    answers::inbound::server,
    grpc::Workload,
    index::Topic,
    metrics::{Rpc, counted},
};

fn pod_and_port(spec: &PortSpec) -> Result<((Kind, Key), u16), Status> {
    let workload = Workload::parse(&spec.workload).ok_or_else(|| {
        Status::invalid_argument(format!("expected `namespace:pod` as workload, found `{}`", spec.workload))
    })?;
    match u16::try_from(spec.port) {
        Ok(port) if port != 0 => Ok((workload.id(), port)),
        _ => Err(Status::invalid_argument(format!("expected a port from 1 to 65535, found {}", spec.port))),
    }
}

#[tonic::async_trait]
impl InboundServerPolicies for Server {
    type WatchPortStream = BoxStream<'static, Result<inbound::Server, Status>>;

    async fn get_port(&self, request: Request<PortSpec>) -> Result<Response<inbound::Server>, Status> {
        let (pod, port) = pod_and_port(request.get_ref())?;
        let found = self.index.answer(|state, cluster| server(state, cluster, &pod, port)).await;
        found.map(Response::new).ok_or_else(|| Status::not_found(format!("{:?} {} does not exist", pod.0, pod.1)))
    }

    /// Nothing is said of a pod that is not known, and the stream stays open for it: a proxy keeps to what it was started with, and
    /// then to what it was told last, without asking again and again. Linkerd's policy controller answers with `NotFound`.
    async fn watch_port(&self, request: Request<PortSpec>) -> Result<Response<Self::WatchPortStream>, Status> {
        let (pod, port) = pod_and_port(request.get_ref())?;
        let topic = Topic::Pod(pod.clone());
        let servers = self
            .index
            .follow(topic, move |state, cluster| server(state, cluster, &pod, port))
            .filter_map(future::ready);
        Ok(Response::new(counted(&self.index, Rpc::WatchPort, servers).map(Ok).boxed()))
    }
}
