use futures::{Stream, StreamExt, stream};
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use linkerd2_proxy_api::destination::{
    DestinationProfile, GetDestination, Update,
    destination_client::DestinationClient,
    destination_server::{Destination, DestinationServer},
};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time,
};
use tonic::{Code, Status, Streaming};

use super::*;
use crate::{
    StreamLimits,
    control::follow::{Event, Follow, Next, Streams},
};

const PATIENCE: Duration = Duration::from_secs(10);

/// Says who it is, on streams that do not end before it does.
struct Who(&'static str);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Destination for Who {
    type GetStream = Answers<Update>;
    type GetProfileStream = Answers<DestinationProfile>;

    async fn get(&self, _: tonic::Request<GetDestination>) -> Result<tonic::Response<Self::GetStream>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn get_profile(
        &self,
        _: tonic::Request<GetDestination>,
    ) -> Result<tonic::Response<Self::GetProfileStream>, Status> {
        let profile = DestinationProfile { fully_qualified_name: self.0.to_owned(), ..Default::default() };
        Ok(tonic::Response::new(Box::pin(stream::iter([Ok::<_, Status>(profile)]).chain(stream::pending()))))
    }
}

/// A replica of the control plane.
struct Replica {
    address: SocketAddr,
    task: AbortHandle,
}

impl Replica {
    async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = TowerToHyperService::new(DestinationServer::new(Who(name)));
        let serve = async move {
            // They end with the task that this is in.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let server = http2::Builder::new(TokioExecutor::new());
                connections.spawn(server.serve_connection(TokioIo::new(stream), service.clone()));
            }
        };
        Self { address, task: tokio::spawn(serve).abort_handle() }
    }

    fn stop(&self) {
        self.task.abort();
    }
}

/// An address that refuses connections.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.2.1:0").await.unwrap().local_addr().unwrap()
}

const SERVICE: &str = "127.0.0.1:1";

/// A channel to these addresses, as if the service's name had led to them.
fn channel(addresses: &[SocketAddr]) -> (Channel, Metrics) {
    let metrics = Metrics::new();
    let service = ControlAddr { authority: SERVICE.to_owned(), name: None };
    let (connector, identity) = (Connector::new(None, Duration::from_secs(1)), LocalIdentity::none());
    let channel = lazy(&service, &connector, &identity, As::Certified, ControlClient::Destination, &metrics).unwrap();
    channel.0.update(addresses.iter().copied());
    (channel, metrics)
}

fn client(channel: &Channel) -> DestinationClient<Channel> {
    DestinationClient::with_origin(channel.clone(), channel.origin())
}

/// Who has answered, and what is still to come.
async fn ask(channel: &Channel) -> Result<(String, Streaming<DestinationProfile>), Status> {
    let mut answers = client(channel).get_profile(GetDestination::default()).await?.into_inner();
    let profile = answers.message().await?.unwrap();
    Ok((profile.fully_qualified_name, answers))
}

/// What is counted, by name and the labels before the service's.
fn value(metrics: &Metrics, name: &str, labels: &str) -> Option<f64> {
    let series = format!("control_destination_balancer_{name}{{{labels}addr=\"{SERVICE}\"}} ");
    let text = metrics.registry.render(|_, _| false);
    text.lines().find_map(|line| line.strip_prefix(&series).map(|value| value.parse().unwrap()))
}

/// The addresses that are ready, those that are set aside, and all.
fn endpoints(metrics: &Metrics) -> [Option<f64>; 3] {
    let state = |state| value(metrics, "endpoints", &format!("endpoint_state=\"{state}\","));
    [state("ready"), state("pending"), value(metrics, "p2c_endpoints", "")]
}

#[tokio::test]
async fn calls_are_shared_among_the_addresses() {
    let (one, two) = (Replica::start("one").await, Replica::start("two").await);
    let (channel, metrics) = channel(&[one.address, two.address]);
    let mut open = Vec::new();
    for _ in 0..20 {
        open.push(ask(&channel).await.unwrap());
    }
    let of = |name: &str| open.iter().filter(|(who, _)| who == name).count();
    assert_eq!((of("one"), of("two")), (10, 10), "each call goes where fewer are");

    assert_eq!(endpoints(&metrics), [Some(2.0), Some(0.0), Some(2.0)]);
    // The address that the service has by itself, and these.
    let updates = ["Reset", "Add", "Remove"].map(|op| value(&metrics, "p2c_updates_total", &format!("op=\"{op}\",")));
    assert_eq!(updates, [Some(2.0), Some(0.0), Some(0.0)]);
    let queue = ["requests_total", "length", "latency_seconds_count", "gate_open_total", "gate_shut_total"]
        .map(|name| value(&metrics, &format!("queue_{name}"), ""));
    assert_eq!(queue, [Some(20.0), Some(0.0), Some(20.0), Some(1.0), Some(0.0)]);
    assert!(value(&metrics, "queue_gate_open_time_seconds", "").unwrap() > 0.0);
    assert_eq!(value(&metrics, "queue_gate_timeout_seconds", ""), None);
}

#[tokio::test]
async fn an_address_that_refuses_connections_is_set_aside_and_no_call_fails() {
    let live = Replica::start("live").await;
    let (channel, metrics) = channel(&[live.address, nobody().await]);
    let deadline = Instant::now() + PATIENCE;
    let mut open = Vec::new();
    // It is tried once the other one has more calls, and is due again soon.
    while endpoints(&metrics) != [Some(1.0), Some(1.0), Some(2.0)] {
        assert!(Instant::now() < deadline, "it is not set aside: {:?}", endpoints(&metrics));
        let (who, answers) = ask(&channel).await.unwrap();
        assert_eq!(who, "live");
        open.push(answers);
    }
    assert_eq!(value(&metrics, "queue_gate_shut_total", ""), Some(0.0));
}

#[tokio::test]
async fn while_nobody_can_be_connected_to_the_gate_is_shut() {
    let (channel, metrics) = channel(&[nobody().await, nobody().await]);
    let error = ask(&channel).await.unwrap_err();
    assert!(std::error::Error::source(&error).is_some(), "the transport says so: {error}");
    let gate = |name: &str| value(&metrics, &format!("queue_gate_{name}"), "").unwrap();
    assert_eq!([gate("open_total"), gate("shut_total"), gate("open_time_seconds")], [1.0, 1.0, 0.0]);
    ask(&channel).await.unwrap_err();
    assert_eq!(gate("shut_total"), 1.0, "it was shut already");

    let live = Replica::start("live").await;
    channel.0.update([live.address]);
    assert_eq!(ask(&channel).await.unwrap().0, "live");
    assert_eq!([gate("open_total"), gate("shut_total"), gate("shut_time_seconds")], [2.0, 1.0, 0.0]);
    assert_eq!(endpoints(&metrics), [Some(1.0), Some(0.0), Some(1.0)]);
}

#[tokio::test]
async fn streams_move_away_from_an_address_that_goes() {
    let (one, two) = (Replica::start("one").await, Replica::start("two").await);
    let (channel, metrics) = channel(&[one.address, two.address]);
    let scope = metrics.control.scope(&ControlAddr { authority: SERVICE.to_owned(), name: None });
    let client = client(&channel);
    let open = move || {
        let mut client = client.clone();
        async move { client.get_profile(GetDestination::default()).await }
    };
    let (said, mut heard) = mpsc::unbounded_channel();
    let streams = Streams { scope, limits: StreamLimits::default() };
    let follow = Follow::new("GetProfile", "web".to_owned(), streams);
    let following = tokio::spawn(follow.run(open, move |event: Event<DestinationProfile>| {
        if let Event::Item { item, .. } = event {
            said.send(item.fully_qualified_name).unwrap();
        }
        Next::Continue
    }));
    let mut next = async || time::timeout(PATIENCE, heard.recv()).await.unwrap().unwrap();
    let first = next().await;
    let (gone, stays) = if first == "one" { (&one, "two") } else { (&two, "one") };
    gone.stop();
    assert_eq!(next().await, stays);
    following.abort();
}

#[tokio::test]
async fn streams_stay_where_the_name_leads_no_longer() {
    let (old, new) = (Replica::start("old").await, Replica::start("new").await);
    let (channel, metrics) = channel(&[old.address]);
    let (who, mut rest) = ask(&channel).await.unwrap();
    assert_eq!(who, "old");
    channel.0.update([new.address]);
    assert_eq!(ask(&channel).await.unwrap().0, "new");
    assert_eq!(endpoints(&metrics), [Some(1.0), Some(0.0), Some(1.0)]);
    // The control: it ends when who is there goes.
    assert!(rest.message().now_or_never().is_none(), "the stream goes on");
    old.stop();
    let ended = time::timeout(PATIENCE, rest.message()).await.unwrap().unwrap_err();
    assert_ne!(ended.code(), Code::Ok);
}

#[tokio::test]
async fn a_name_is_looked_up_for_the_first_call_and_not_for_the_next() {
    let replica = Replica::start("replica").await;
    let metrics = Metrics::new();
    let authority = format!("localhost:{}", replica.address.port());
    let service = ControlAddr { authority, name: None };
    let (connector, identity) = (Connector::new(None, Duration::from_secs(1)), LocalIdentity::none());
    let channel = lazy(&service, &connector, &identity, As::Certified, ControlClient::Policy, &metrics).unwrap();
    let resolutions = || {
        let text = metrics.registry.render(|_, _| false);
        text.lines()
            .filter(|line| line.starts_with("control_dns_resolutions_total"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(resolutions(), Vec::<String>::new());
    for _ in 0..3 {
        assert_eq!(ask(&channel).await.unwrap().0, "replica");
    }
    let once = "control_dns_resolutions_total{client=\"policy\",record_type=\"A/AAAA\",result=\"ok\"} 1";
    assert_eq!(resolutions(), [once]);
}
