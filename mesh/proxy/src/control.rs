//! The client of the control plane: four streams of answers that reconnect for as long as somebody listens.

pub(crate) mod channel;
mod dial;
mod follow;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use linkerd2_proxy_api::{
    destination::{
        DestinationProfile, GetDestination, Update, WeightedAddrSet, destination_client::DestinationClient, update,
    },
    inbound::{PortSpec, Server, inbound_server_policies_client::InboundServerPoliciesClient},
    outbound::{
        OutboundPolicy, TrafficSpec, outbound_policies_client::OutboundPoliciesClient,
        traffic_spec::Target as ApiTarget,
    },
};
use tokio::sync::watch;
use tonic::{Code, Response, Status, Streaming};
use tracing::warn;

use crate::{
    Config, ControlAddr, NameAddr, StreamLimits, Target,
    balance::{Balancer, EndpointInfo, EndpointUpdate},
    connect::Connector,
    identity::LocalIdentity,
    metrics::{ControlClient, Metrics},
};
use channel::{As, Channel};
use follow::{Event, Follow, Next, Streams};

/// What the control plane says about a target.
#[derive(Debug, Clone)]
pub(crate) enum Answer<T> {
    /// This.
    Found(Arc<T>),
    /// Nothing: there is no such thing, or it was not asked, by configuration.
    Nothing,
    /// An error that asking again would not mend soon.
    Failed(Status),
}

/// Answers as they change; `None` before the first.
pub(crate) type Answers<T> = watch::Receiver<Option<Answer<T>>>;

/// The control plane.
#[derive(Clone)]
pub(crate) struct Control {
    destination: DestinationClient<Channel>,
    policies: Option<PolicyService>,
    facts: Arc<Facts>,
}

#[derive(Clone)]
struct PolicyService {
    outbound: OutboundPoliciesClient<Channel>,
    inbound: InboundServerPoliciesClient<Channel>,
    streams: Streams,
}

struct Facts {
    context: String,
    workload: String,
    suffixes: Vec<String>,
    networks: Vec<ipnet::IpNet>,
    /// Those of the destination service.
    destination: Streams,
}

impl Control {
    /// Connects when it is first asked.
    pub(crate) fn new(
        config: &Config,
        connector: &Connector,
        identity: &LocalIdentity,
        metrics: &Metrics,
    ) -> Result<Self, tonic::transport::Error> {
        let channel =
            |client, service: &ControlAddr| channel::lazy(service, connector, identity, As::Certified, client, metrics);
        let streams = |service: &ControlAddr| Streams {
            scope: metrics.control.scope(service),
            // As Linkerd's, which none of this pod's answers must keep to.
            limits: if service.is_loopback() && !config.allow_loopback {
                StreamLimits::default()
            } else {
                config.stream_limits
            },
        };
        let policies = match &config.policy_addr {
            Some(service) => {
                let channel = channel(ControlClient::Policy, service)?;
                let origin = channel.origin();
                Some(PolicyService {
                    outbound: OutboundPoliciesClient::with_origin(channel.clone(), origin.clone()),
                    inbound: InboundServerPoliciesClient::with_origin(channel, origin),
                    streams: streams(service),
                })
            }
            None => None,
        };
        let destination = channel(ControlClient::Destination, &config.destination_addr)?;
        let origin = destination.origin();
        Ok(Self {
            destination: DestinationClient::with_origin(destination, origin),
            policies,
            facts: Arc::new(Facts {
                context: config.destination_context.clone(),
                workload: config.policy_workload.clone(),
                suffixes: config.profile_suffixes.clone(),
                networks: config.profile_networks.clone(),
                destination: streams(&config.destination_addr),
            }),
        })
    }

    /// `Destination.GetProfile`, for names and addresses that may have one.
    pub(crate) fn profile(&self, target: &Target) -> Answers<DestinationProfile> {
        let (answers, listener) = watch::channel(None);
        let facts = &self.facts;
        let asked = match target {
            Target::Name(name) => facts.suffixes.iter().any(|suffix| name.is_within(suffix)),
            Target::Address(address) => facts.networks.iter().any(|network| network.contains(&address.ip())),
        };
        if !asked {
            answers.send_replace(Some(Answer::Nothing));
            return listener;
        }
        let request = self.request(target.to_string());
        let client = self.destination.clone();
        let open = move || {
            let (mut client, request) = (client.clone(), request.clone());
            async move { client.get_profile(request).await }
        };
        let follow = Follow::new("GetProfile", target.to_string(), facts.destination.clone());
        tokio::spawn(pass_on(follow, open, answers, &[]));
        listener
    }

    /// `OutboundPolicies.Watch`.
    pub(crate) fn policy(&self, target: &Target) -> Answers<OutboundPolicy> {
        let (answers, listener) = watch::channel(None);
        let Some(PolicyService { outbound: client, streams, .. }) = self.policies.clone() else {
            answers.send_replace(Some(Answer::Nothing));
            return listener;
        };
        let request = TrafficSpec {
            source_workload: self.facts.workload.clone(),
            target: Some(match target {
                Target::Name(name) => ApiTarget::Authority(name.to_string()),
                Target::Address(address) => ApiTarget::Addr((*address).into()),
            }),
        };
        let open = move || {
            let (mut client, request) = (client.clone(), request.clone());
            async move { client.watch(request).await }
        };
        let follow = Follow::new("Watch", target.to_string(), streams);
        tokio::spawn(pass_on(follow, open, answers, &UNKNOWN));
        listener
    }

    /// `InboundServerPolicies.WatchPort`, for a port of this pod.
    pub(crate) fn server(&self, port: u16) -> Answers<Server> {
        let (answers, listener) = watch::channel(None);
        let Some(PolicyService { inbound: client, streams, .. }) = self.policies.clone() else {
            answers.send_replace(Some(Answer::Nothing));
            return listener;
        };
        let request = PortSpec { workload: self.facts.workload.clone(), port: port.into() };
        let open = move || {
            let (mut client, request) = (client.clone(), request.clone());
            async move { client.watch_port(request).await }
        };
        let follow = Follow::new("WatchPort", port.to_string(), streams);
        // Unlike a destination, the proxy's own pod is one that there is: whoever does not know it yet will, and is asked again.
        tokio::spawn(pass_on(follow, open, answers, &[Code::Unimplemented]));
        listener
    }

    /// `Destination.Get`: keeps the balancer's endpoints current until the returned future is dropped.
    pub(crate) fn endpoints(
        &self,
        name: &NameAddr,
        balancer: std::sync::Weak<Balancer>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let request = self.request(name.to_string());
        let client = self.destination.clone();
        let open = move || {
            let (mut client, request) = (client.clone(), request.clone());
            async move { client.get(request).await }
        };
        let follow = Follow::new("Get", name.to_string(), self.facts.destination.clone());
        follow.run(open, move |event| {
            let Some(balancer) = balancer.upgrade() else { return Next::Stop };
            match event {
                Event::Item { item, first } => {
                    if let Some(update) = endpoint_update(item, first) {
                        balancer.update(update);
                    }
                    Next::Continue
                }
                Event::Failed(status) => {
                    let next = next(status.code(), &[Code::InvalidArgument, Code::FailedPrecondition]);
                    if next == Next::Stop {
                        balancer.update(EndpointUpdate::Reset(BTreeMap::new()));
                    }
                    next
                }
            }
        })
    }

    fn request(&self, path: String) -> GetDestination {
        GetDestination { path, context_token: self.facts.context.clone(), ..Default::default() }
    }
}

/// What a policy service says of a destination that it knows nothing about, or where it has no such call.
const UNKNOWN: [Code; 2] = [Code::NotFound, Code::Unimplemented];

/// Passes the answers of a stream on, until nobody listens. The codes of `nothing` are an answer, and the last one.
async fn pass_on<T, F>(
    follow: Follow,
    open: impl Fn() -> F,
    answers: watch::Sender<Option<Answer<T>>>,
    nothing: &'static [Code],
) where
    F: Future<Output = Result<Response<Streaming<T>>, Status>>,
{
    let on = |event| match event {
        Event::Item { item, .. } => {
            answers.send_replace(Some(Answer::Found(Arc::new(item))));
            Next::Continue
        }
        Event::Failed(status) => {
            let nothing = nothing.contains(&status.code());
            // What was known stays known. What never was is told at once, unless it may come back soon.
            if answers.borrow().is_none() && !is_transient(&status) {
                answers.send_replace(Some(if nothing { Answer::Nothing } else { Answer::Failed(status.clone()) }));
            }
            if nothing { Next::Stop } else { next(status.code(), &[Code::InvalidArgument, Code::FailedPrecondition]) }
        }
    };
    tokio::select! {
        () = follow.run(open, on) => answers.closed().await,
        () = answers.closed() => {}
    }
}

/// Whether the control plane is away, rather than sure of its answer.
fn is_transient(status: &Status) -> bool {
    // An error with a source was made by the transport, whatever its code.
    status.code() == Code::Unavailable || std::error::Error::source(status).is_some()
}

fn next(code: Code, last: &[Code]) -> Next {
    if last.contains(&code) { Next::Stop } else { Next::Continue }
}

fn endpoint_update(update: Update, first: bool) -> Option<EndpointUpdate> {
    match update.update? {
        update::Update::Add(added) => {
            let added = weighted(added);
            Some(if first { EndpointUpdate::Reset(added) } else { EndpointUpdate::Add(added) })
        }
        update::Update::Remove(removed) => {
            let removed: Vec<_> =
                removed.addrs.into_iter().filter_map(|addr| SocketAddr::try_from(addr).ok()).collect();
            Some(if first { EndpointUpdate::Reset(BTreeMap::new()) } else { EndpointUpdate::Remove(removed) })
        }
        update::Update::NoEndpoints(_) => Some(EndpointUpdate::Reset(BTreeMap::new())),
    }
}

fn weighted(set: WeightedAddrSet) -> BTreeMap<SocketAddr, EndpointInfo> {
    let WeightedAddrSet { addrs, metric_labels } = set;
    let endpoint = |addr: linkerd2_proxy_api::destination::WeightedAddr| {
        let Some(Ok(address)) = addr.addr.map(SocketAddr::try_from) else {
            warn!(?addr.addr, "an endpoint without a valid address is ignored");
            return None;
        };
        Some((address, EndpointInfo::of(&addr, metric_labels.clone())))
    };
    addrs.into_iter().filter_map(endpoint).collect()
}

#[cfg(test)]
mod tests {
    use linkerd2_proxy_api::{
        destination::{AddrSet, NoEndpoints, WeightedAddr},
        net::TcpAddress,
    };

    use super::*;

    fn address(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 80).into()
    }

    #[test]
    fn the_first_update_of_a_stream_replaces_what_was_known() {
        let add = || Update {
            update: Some(update::Update::Add(WeightedAddrSet {
                addrs: vec![WeightedAddr {
                    addr: Some(TcpAddress::from(address(1))),
                    metric_labels: [("pod".to_owned(), "web-1".to_owned())].into(),
                    ..Default::default()
                }],
                metric_labels: [("service".to_owned(), "web".to_owned())].into(),
            })),
        };
        let labels = BTreeMap::from([("pod".to_owned(), "web-1".to_owned()), ("service".to_owned(), "web".to_owned())]);
        let info = EndpointInfo { metric_labels: labels, ..Default::default() };
        let endpoints = BTreeMap::from([(address(1), info)]);
        assert_eq!(endpoint_update(add(), true), Some(EndpointUpdate::Reset(endpoints.clone())));
        assert_eq!(endpoint_update(add(), false), Some(EndpointUpdate::Add(endpoints)));

        let remove = AddrSet { addrs: vec![TcpAddress::from(address(1))] };
        let remove = Update { update: Some(update::Update::Remove(remove)) };
        assert_eq!(endpoint_update(remove, false), Some(EndpointUpdate::Remove(vec![address(1)])));
        let none = Update { update: Some(update::Update::NoEndpoints(NoEndpoints { exists: true })) };
        assert_eq!(endpoint_update(none, false), Some(EndpointUpdate::Reset(BTreeMap::new())));
        assert_eq!(endpoint_update(Update { update: None }, false), None);
    }
}
