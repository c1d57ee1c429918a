//! `io.linkerd.proxy.destination.Destination`.

use futures::{StreamExt, stream::BoxStream};
use linkerd2_proxy_api::destination::{DestinationProfile, GetDestination, Update, destination_server::Destination};
use tonic::{Request, Response, Status};

use crate::{
    Server,
    answers::profile,
    grpc::Client,
    index::Topic,
    metrics::{Rpc, counted},
    names::Target,
};

#[tonic::async_trait]
impl Destination for Server {
    type GetStream = BoxStream<'static, Result<Update, Status>>;
    type GetProfileStream = BoxStream<'static, Result<DestinationProfile, Status>>;

    async fn get(&self, request: Request<GetDestination>) -> Result<Response<Self::GetStream>, Status> {
        let GetDestination { path, context_token, .. } = request.into_inner();
        let Some(Target::Service(name, port)) = Target::parse(&path, &self.index.cluster().domain) else {
            return Err(invalid(&path, &self.index.cluster().domain));
        };
        let updates = self.index.follow_endpoints(name, port, Client::parse(&context_token).node);
        Ok(Response::new(counted(&self.index, Rpc::Get, updates).map(Ok).boxed()))
    }

    async fn get_profile(&self, request: Request<GetDestination>) -> Result<Response<Self::GetProfileStream>, Status> {
        let GetDestination { path, context_token, .. } = request.into_inner();
        let client = Client::parse(&context_token).namespace;
        let profiles = match Target::parse(&path, &self.index.cluster().domain) {
            Some(Target::Service(name, port)) => self
                .index
                .follow(Topic::Service(name.service.clone()), move |state, cluster| {
                    profile::by_name(state, cluster, &name, port, client.as_deref())
                })
                .boxed(),
            Some(Target::Address(address)) => {
                // As with Linkerd, this is looked at once: what comes to pass while a proxy listens takes nothing from it.
                if let Some(conflict) = self.index.answer(|state, _| state.conflict(address)).await {
                    return Err(Status::failed_precondition(conflict));
                }
                let profiles = self.index.follow(Topic::Address(address.ip()), move |state, cluster| {
                    profile::by_address(state, cluster, address, client.as_deref())
                });
                profiles.boxed()
            }
            Some(Target::Foreign) | None => return Err(invalid(&path, &self.index.cluster().domain)),
        };
        Ok(Response::new(counted(&self.index, Rpc::GetProfile, profiles).map(Ok).boxed()))
    }
}

/// `InvalidArgument` is one of the two codes that a proxy does not retry; the other is `FailedPrecondition`.
fn invalid(path: &str, domain: &str) -> Status {
    Status::invalid_argument(format!("expected `service.namespace.svc.{domain}:port`, found `{path}`"))
}
