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
    /// An error instead, that nobody waits for.
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
        let told = match target {
            Target::Name(_) => of_name,
            Target::Address(_) => of_address,
        };
        tokio::spawn(pass_on(follow, open, answers, told));
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
        tokio::spawn(pass_on(follow, open, answers, of_policy));
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
        tokio::spawn(pass_on(follow, open, answers, of_server));
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
                    let next = next(status.code());
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

/// What an error of the control plane says, as long as there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// That there is nothing. It is not asked again.
    Nothing,
    /// That there is no answer.
    Failure,
    /// Not enough: whoever wants to know waits until it is asked again.
    Later,
}

/// Of a destination's policy. As with Linkerd's proxy, only somebody who knows of no policy, or of no policies at all, lets traffic go on
/// without one.
fn of_policy(code: Code) -> Told {
    match code {
        Code::NotFound | Code::Unimplemented => Told::Nothing,
        code => of_address(code),
    }
}

/// Of an address's profile. It may be a pod's, to which nothing is to be sent in plaintext only because it could not be asked who it is.
fn of_address(code: Code) -> Told {
    if LAST.contains(&code) { Told::Failure } else { Told::Later }
}

/// Of a name's profile. Different from Linkerd, whose proxy lets requests wait for a Service that does not exist, they are told at once.
fn of_name(code: Code) -> Told {
    if code == Code::Unavailable { Told::Later } else { Told::Failure }
}

/// Of a port of the proxy's own pod. Unlike a destination, that is one that there is: whoever does not know it yet will.
fn of_server(code: Code) -> Told {
    if code == Code::Unimplemented { Told::Nothing } else { of_name(code) }
}

/// After these it is of no use to ask again.
const LAST: [Code; 2] = [Code::InvalidArgument, Code::FailedPrecondition];

/// Passes the answers of a stream on, until nobody listens. `told` reads errors.
async fn pass_on<T, F>(
    follow: Follow,
    open: impl Fn() -> F,
    answers: watch::Sender<Option<Answer<T>>>,
    told: fn(Code) -> Told,
) where
    F: Future<Output = Result<Response<Streaming<T>>, Status>>,
{
    let on = |event| match event {
        Event::Item { item, .. } => {
            answers.send_replace(Some(Answer::Found(Arc::new(item))));
            Next::Continue
        }
        Event::Failed(status) => {
            // An error with a source was made by the transport, whatever its code.
            let from_afar = std::error::Error::source(&status).is_none();
            let code = Some(status.code()).filter(|_| from_afar);
            let told = code.map_or(Told::Later, told);
            // What was known stays known.
            let unknown = answers.borrow().is_none();
            match told {
                Told::Nothing if unknown => drop(answers.send_replace(Some(Answer::Nothing))),
                Told::Failure if unknown => drop(answers.send_replace(Some(Answer::Failed(status.clone())))),
                _ => {}
            }
            if told == Told::Nothing { Next::Stop } else { code.map_or(Next::Continue, next) }
        }
    };
    tokio::select! {
        () = follow.run(open, on) => answers.closed().await,
        () = answers.closed() => {}
    }
}

fn next(code: Code) -> Next {
    if LAST.contains(&code) { Next::Stop } else { Next::Continue }
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
    fn an_error_is_no_leave_to_do_without_an_answer() {
        let all = (0..=16).map(Code::from_i32).filter(|code| *code != Code::Ok);
        for code in all {
            let last = LAST.contains(&code);
            let nothing = matches!(code, Code::NotFound | Code::Unimplemented);
            let expected = match (last, nothing) {
                (true, _) => Told::Failure,
                (_, true) => Told::Nothing,
                _ => Told::Later,
            };
            assert_eq!(of_policy(code), expected, "{code:?}");
            assert_eq!(of_address(code), if last { Told::Failure } else { Told::Later }, "{code:?}");
            assert_eq!(of_name(code) == Told::Later, code == Code::Unavailable, "{code:?}");
        }
        assert_eq!([Code::Unimplemented, Code::NotFound].map(of_server), [Told::Nothing, Told::Failure]);
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
