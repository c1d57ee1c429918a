//! Watches of the API server that keep the index up to date.

mod guard;

use std::{fmt::Debug, time::Duration};

use futures::{StreamExt, future, pin_mut};
use kube::{
    Api, Client, Resource,
    core::{ApiResource, DynamicResourceScope, GroupVersionKind},
    runtime::watcher::{self, Event},
};
use serde::de::DeserializeOwned;
use tokio::{sync::oneshot, task::JoinSet};

use crate::{
    Index, Kind, Object,
    objects::{Route, wire},
};
use guard::{Guarded, Unreadable};

/// How long to wait after the first error, and at most. Kinds that are not installed are asked for again at the longest
/// interval, so that they are found within a second of being installed.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Watches every kind, and marks the index as synced once each has been listed or found not to be installed.
///
/// Needs a Tokio runtime. The watches run for ever, through every error, and end when the set is dropped.
pub fn watch(client: &Client, index: &Index) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let mut listed = Vec::new();
    let mut start = |kind| {
        let (sender, receiver) = oneshot::channel();
        listed.push(receiver);
        Watch { client: client.clone(), index: index.clone(), kind, listed: Some(sender) }
    };
    let core = |kind: &str, plural: &str| vec![api("", "v1", kind, plural)];
    tasks.spawn(
        start(Kind::Service).run::<wire::Service>(core("Service", "services"), |object| Object::Service(object.into())),
    );
    tasks.spawn(start(Kind::Pod).run::<wire::Pod>(core("Pod", "pods"), |object| Object::Pod(object.into())));
    tasks.spawn(start(Kind::ExternalWorkload).run::<wire::ExternalWorkload>(
        vec![api("workload.linkerd.io", "v1beta1", "ExternalWorkload", "externalworkloads")],
        |object| Object::Pod(object.into()),
    ));
    tasks.spawn(start(Kind::Node).run::<wire::Node>(core("Node", "nodes"), |object| Object::Node(object.into())));
    tasks.spawn(start(Kind::EndpointSlice).run::<wire::EndpointSlice>(
        vec![api("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")],
        |object| Object::EndpointSlice(object.into()),
    ));
    tasks.spawn(start(Kind::ServiceProfile).run::<wire::ServiceProfile>(
        vec![api("linkerd.io", "v1alpha2", "ServiceProfile", "serviceprofiles")],
        |object| Object::ServiceProfile(object.into()),
    ));
    tasks.spawn(start(Kind::TrafficSplit).run::<wire::TrafficSplit>(
        versions("split.smi-spec.io", &["v1alpha2", "v1alpha1"], "TrafficSplit", "trafficsplits"),
        |object| Object::TrafficSplit(object.into()),
    ));
    tasks.spawn(
        start(Kind::PolicyHttpRoute).run::<wire::route::HttpRoute>(versions_of(Kind::PolicyHttpRoute), |object| {
            Object::Route(Route::http(Kind::PolicyHttpRoute, object))
        }),
    );
    tasks.spawn(
        start(Kind::GatewayHttpRoute).run::<wire::route::HttpRoute>(versions_of(Kind::GatewayHttpRoute), |object| {
            Object::Route(Route::http(Kind::GatewayHttpRoute, object))
        }),
    );
    tasks.spawn(
        start(Kind::GatewayGrpcRoute).run::<wire::route::GrpcRoute>(versions_of(Kind::GatewayGrpcRoute), |object| {
            Object::Route(Route::grpc(object))
        }),
    );
    tasks.spawn(
        start(Kind::GatewayTlsRoute).run::<wire::route::TcpRoute>(versions_of(Kind::GatewayTlsRoute), |object| {
            Object::Route(Route::of_connections(Kind::GatewayTlsRoute, object))
        }),
    );
    tasks.spawn(
        start(Kind::GatewayTcpRoute).run::<wire::route::TcpRoute>(versions_of(Kind::GatewayTcpRoute), |object| {
            Object::Route(Route::of_connections(Kind::GatewayTcpRoute, object))
        }),
    );
    let policy = |served: &[&str], kind: &str, plural: &str| versions("policy.linkerd.io", served, kind, plural);
    tasks.spawn(
        start(Kind::Server)
            .run::<wire::policy::Server>(policy(&["v1beta3", "v1beta2", "v1beta1"], "Server", "servers"), |object| {
                Object::Server(object.into())
            }),
    );
    tasks.spawn(start(Kind::ServerAuthorization).run::<wire::policy::ServerAuthorization>(
        policy(&["v1beta1"], "ServerAuthorization", "serverauthorizations"),
        |object| Object::Authorization(object.into()),
    ));
    tasks.spawn(start(Kind::AuthorizationPolicy).run::<wire::policy::AuthorizationPolicy>(
        policy(&["v1alpha1"], "AuthorizationPolicy", "authorizationpolicies"),
        |object| Object::Authorization(object.into()),
    ));
    tasks.spawn(start(Kind::MeshTlsAuthentication).run::<wire::policy::MeshTLSAuthentication>(
        policy(&["v1alpha1"], "MeshTLSAuthentication", "meshtlsauthentications"),
        |object| Object::Authentication(object.into()),
    ));
    tasks.spawn(start(Kind::NetworkAuthentication).run::<wire::policy::NetworkAuthentication>(
        policy(&["v1alpha1"], "NetworkAuthentication", "networkauthentications"),
        |object| Object::Authentication(object.into()),
    ));
    tasks.spawn(start(Kind::HttpLocalRateLimitPolicy).run::<wire::policy::HttpLocalRateLimitPolicy>(
        policy(&["v1alpha1"], "HTTPLocalRateLimitPolicy", "httplocalratelimitpolicies"),
        |object| Object::RateLimit(object.into()),
    ));
    tasks.spawn(
        start(Kind::EgressNetwork).run::<wire::policy::EgressNetwork>(versions_of(Kind::EgressNetwork), |object| {
            Object::EgressNetwork(object.into())
        }),
    );
    let index = index.clone();
    tasks.spawn(async move {
        // A watch drops its sender only when it is ended itself.
        if future::join_all(listed).await.iter().all(Result::is_ok) {
            index.mark_synced();
            tracing::info!("every kind has been listed; answering");
        }
        future::pending::<()>().await;
    });
    tasks
}

fn api(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

fn versions(group: &str, versions: &[&str], kind: &str, plural: &str) -> Vec<ApiResource> {
    versions.iter().map(|version| api(group, version, kind, plural)).collect()
}

/// The versions that are known of a kind whose objects have statuses that are written, those that are preferred first; none of any other.
pub(crate) fn versions_of(kind: Kind) -> Vec<ApiResource> {
    match kind {
        Kind::PolicyHttpRoute => versions("policy.linkerd.io", &["v1beta3", "v1beta2"], "HTTPRoute", "httproutes"),
        Kind::GatewayHttpRoute => versions("gateway.networking.k8s.io", &["v1", "v1beta1"], "HTTPRoute", "httproutes"),
        Kind::GatewayGrpcRoute => versions("gateway.networking.k8s.io", &["v1", "v1alpha2"], "GRPCRoute", "grpcroutes"),
        Kind::GatewayTlsRoute => versions("gateway.networking.k8s.io", &["v1", "v1alpha2"], "TLSRoute", "tlsroutes"),
        Kind::GatewayTcpRoute => versions("gateway.networking.k8s.io", &["v1", "v1alpha2"], "TCPRoute", "tcproutes"),
        Kind::EgressNetwork => versions("policy.linkerd.io", &["v1alpha1"], "EgressNetwork", "egressnetworks"),
        _ => Vec::new(),
    }
}

/// The watch of one kind.
struct Watch {
    client: Client,
    index: Index,
    kind: Kind,
    listed: Option<oneshot::Sender<()>>,
}

impl Watch {
    /// Watches for ever, in the first of the versions that the API server has.
    async fn run<W>(mut self, versions: Vec<ApiResource>, convert: fn(W) -> Object)
    where
        W: Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let mut wait = RETRY.0;
        for version in versions.iter().cycle() {
            // Guarded, because one object that cannot be read must not hide all the others.
            let api = Api::<Guarded<W>>::all_with(self.client.clone(), version);
            let events = watcher::watcher(api, watcher::Config::default());
            pin_mut!(events);
            let mut listing = Vec::new();
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        // A listing begins with an event too, before it is known to succeed.
                        if !matches!(event, Event::Init) {
                            wait = RETRY.0;
                        }
                        self.event(event, convert, &mut listing);
                    }
                    Err(error) if is_missing(&error) => {
                        tracing::debug!(kind = ?self.kind, version = version.version, "not installed; trying again later");
                        self.index.replace(self.kind, Vec::new());
                        // The other versions are tried before the kind is said to be missing.
                        if versions.last().is_some_and(|last| last == version) {
                            self.mark_listed();
                            tokio::time::sleep(RETRY.1).await;
                        }
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(kind = ?self.kind, error = &error as &dyn std::error::Error, "watch failed; trying again");
                        tokio::time::sleep(wait).await;
                        wait = (wait * 2).min(RETRY.1);
                    }
                }
            }
        }
    }

    fn event<W: Resource>(&mut self, event: Event<Guarded<W>>, convert: fn(W) -> Object, listing: &mut Vec<Object>) {
        match event {
            Event::Init => listing.clear(),
            Event::InitApply(object) => listing.extend(self.read(object).map(convert)),
            Event::InitDone => {
                self.index.replace(self.kind, std::mem::take(listing));
                self.mark_listed();
            }
            Event::Apply(object) => {
                let key = wire::key(object.meta());
                match self.read(object) {
                    Some(object) => self.index.apply_object(convert(object)),
                    None => self.index.delete(self.kind, &key),
                }
            }
            Event::Delete(object) => self.index.delete(self.kind, &wire::key(object.meta())),
        }
    }

    /// The object, or a warning and nothing if its fields are not what the API says.
    fn read<W>(&self, object: Guarded<W>) -> Option<W> {
        let warn = |unreadable: &Unreadable| {
            let name = wire::key(&unreadable.metadata);
            tracing::warn!(kind = ?self.kind, %name, error = %unreadable.error, "the object cannot be read and counts as absent");
        };
        object.0.inspect_err(warn).ok()
    }

    fn mark_listed(&mut self) {
        if let Some(listed) = self.listed.take() {
            // Nobody listens only when the whole set is being dropped.
            let _ = listed.send(());
        }
    }
}

/// Whether the API server does not have the kind. A listing that is forbidden is an error to report and repeat: core kinds
/// cannot be missing, and custom ones are either installed with their rights or not at all.
fn is_missing(error: &watcher::Error) -> bool {
    use kube::Error::Api;
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(Api(status)) | WatchStartFailed(Api(status)) | WatchFailed(Api(status)) => status.code == 404,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
