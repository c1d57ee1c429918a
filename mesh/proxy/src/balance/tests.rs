use std::{collections::VecDeque, pin::pin};

use futures::FutureExt;

use super::*;
use crate::{
    PoolLimits, Windows,
    connect::Connector,
    http::{EndpointLoad, PoolSettings},
    identity::LocalIdentity,
    metrics::Metrics,
};

fn balancer(failfast: Duration) -> Arc<Balancer> {
    balancer_with(Queue { timeout: failfast, capacity: 10 })
}

fn balancer_with(queue: Queue) -> Arc<Balancer> {
    let settings = PoolSettings {
        connector: Connector::new(None, Duration::from_secs(1)),
        identity: LocalIdentity::none(),
        limits: PoolLimits { idle_timeout: Duration::from_secs(3), max_idle: 1 },
        windows: Windows { stream: 65_535, connection: 65_535 },
        keep_alive: None,
    };
    let factory = EndpointFactory::new(Metrics::new(), settings, &[]);
    Balancer::new(NameAddr::parse("web.ns.svc.cluster.local:80").unwrap(), factory, queue, None)
}

fn addresses(last: impl IntoIterator<Item = u8>) -> BTreeMap<SocketAddr, EndpointInfo> {
    last.into_iter().map(|last| (([10, 0, 0, last], 80).into(), EndpointInfo::default())).collect()
}

/// How often each endpoint is chosen, with eight requests in flight at all times.
fn shares(balancer: &Balancer, draws: usize) -> BTreeMap<SocketAddr, usize> {
    let mut shares = BTreeMap::new();
    let mut in_flight = VecDeque::new();
    for _ in 0..draws {
        let endpoint = balancer.choose(&Tried::default()).unwrap();
        *shares.entry(endpoint.address()).or_default() += 1;
        endpoint.load().begin();
        in_flight.push_back(endpoint);
        if in_flight.len() > 8
            && let Some(done) = in_flight.pop_front()
        {
            done.load().end();
            done.load().took(Duration::from_millis(1));
        }
    }
    shares
}

#[test]
fn equal_endpoints_get_similar_shares() {
    let balancer = balancer(Duration::ZERO);
    balancer.update(EndpointUpdate::Reset(addresses(1..=4)));
    for (address, share) in shares(&balancer, 8000) {
        // Not quite equal: of two endpoints that are as busy, the one that was made first has forgotten a little more.
        assert!(share.abs_diff(2000) < 600, "{address} got {share}");
    }
}

#[test]
fn the_slower_of_two_is_left_alone() {
    let balancer = balancer(Duration::ZERO);
    balancer.update(EndpointUpdate::Reset(addresses(1..=2)));
    let slow = balancer.choose(&Tried::default()).unwrap();
    slow.load().took(Duration::from_secs(4));
    assert_eq!(shares(&balancer, 100).keys().filter(|address| **address == slow.address()).count(), 0);
}

#[test]
fn what_counts_as_long_is_left_alone_however_short_it_was() {
    for counts in [true, false] {
        let balancer = balancer(Duration::ZERO);
        balancer.update(EndpointUpdate::Reset(addresses(1..=2)));
        let failing = balancer.choose(&Tried::default()).unwrap();
        let mut load = EndpointLoad::new(&failing);
        if counts {
            load.took(Duration::from_secs(5));
        }
        drop(load);
        let asked = shares(&balancer, 100).get(&failing.address()).copied().unwrap_or_default();
        assert_eq!(asked == 0, counts, "it was asked {asked} times");
    }
}

#[test]
fn updates_keep_the_endpoints_that_stay() {
    let balancer = balancer(Duration::ZERO);
    balancer.update(EndpointUpdate::Reset(addresses([1])));
    let first = balancer.choose(&Tried::default()).unwrap();
    balancer.update(EndpointUpdate::Add(addresses([2])));
    assert_eq!(shares(&balancer, 1000).len(), 2);
    balancer.update(EndpointUpdate::Remove(vec![([10, 0, 0, 2], 80).into()]));
    assert!(Arc::ptr_eq(&first, &balancer.choose(&Tried::default()).unwrap()));
    balancer.update(EndpointUpdate::Reset(addresses([3])));
    assert_eq!(shares(&balancer, 10).into_keys().collect::<Vec<_>>(), [([10, 0, 0, 3], 80).into()]);
}

#[tokio::test]
async fn without_endpoints_the_first_request_waits_and_the_next_do_not() {
    const FAILFAST: Duration = Duration::from_millis(50);
    let balancer = balancer(FAILFAST);
    assert!(balancer.is_available(), "nothing is known yet");
    balancer.update(EndpointUpdate::Reset(BTreeMap::new()));
    assert!(!balancer.is_available());

    let start = time::Instant::now();
    assert!(matches!(balancer.next(&balancer.scope).await, Err(ProxyError::FailFast(_))));
    assert!(start.elapsed() >= FAILFAST);
    assert!(matches!(balancer.next(&balancer.scope).now_or_never(), Some(Err(ProxyError::LoadShed))));

    balancer.update(EndpointUpdate::Add(addresses([1])));
    assert!(matches!(balancer.next(&balancer.scope).now_or_never(), Some(Ok(_))));
}

#[tokio::test]
async fn what_nothing_becomes_known_of_makes_way_for_others() {
    let balancer = balancer(Duration::from_millis(50));
    assert!(balancer.is_available() && balancer.is_unknown());
    assert!(!balancer.becomes_known().await);
    assert!(matches!(balancer.next(&balancer.scope).await, Err(ProxyError::FailFast(_))));
    assert!(!balancer.is_available() && !balancer.is_unknown());
    balancer.update(EndpointUpdate::Add(addresses([1])));
    assert!(balancer.is_available());
}

#[tokio::test]
async fn a_request_that_is_given_up_does_not_make_the_next_wait_from_the_beginning() {
    const FAILFAST: Duration = Duration::from_millis(300);
    const GIVEN_UP: Duration = Duration::from_millis(200);
    let balancer = balancer(FAILFAST);
    balancer.update(EndpointUpdate::Reset(BTreeMap::new()));
    assert!(time::timeout(GIVEN_UP, balancer.next(&balancer.scope)).await.is_err());
    // The time is over whenever the next one comes.
    time::sleep_until(time::Instant::now() + FAILFAST - GIVEN_UP).await;
    assert!(matches!(balancer.next(&balancer.scope).now_or_never(), Some(Err(ProxyError::FailFast(_)))));

    // Once there was an endpoint, the time begins anew.
    balancer.update(EndpointUpdate::Add(addresses([1])));
    balancer.update(EndpointUpdate::Reset(BTreeMap::new()));
    let start = time::Instant::now();
    assert!(matches!(balancer.next(&balancer.scope).await, Err(ProxyError::FailFast(_))));
    assert!(start.elapsed() >= FAILFAST);
}

#[tokio::test]
async fn a_waiting_request_gets_the_first_endpoint_that_comes() {
    let balancer = balancer(Duration::from_secs(60));
    let (endpoint, ()) = tokio::join!(balancer.next(&balancer.scope), async {
        tokio::task::yield_now().await;
        balancer.update(EndpointUpdate::Add(addresses([1])));
    });
    assert_eq!(endpoint.unwrap().address(), ([10, 0, 0, 1], 80).into());
}

#[tokio::test]
async fn as_many_wait_as_the_queue_has_places() {
    let balancer = balancer_with(Queue { timeout: Duration::from_secs(60), capacity: 2 });
    let refused = || matches!(balancer.next(&balancer.scope).now_or_never(), Some(Err(ProxyError::LoadShed)));
    let mut first = pin!(balancer.next(&balancer.scope));
    assert!(first.as_mut().now_or_never().is_none());
    {
        let mut second = pin!(balancer.next(&balancer.scope));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(refused());
    }
    // The second is given up, and there is a place again.
    let mut third = pin!(balancer.next(&balancer.scope));
    assert!(third.as_mut().now_or_never().is_none());
    assert!(refused());

    balancer.update(EndpointUpdate::Add(addresses([1])));
    assert!(first.await.is_ok() && third.await.is_ok());
    // Whoever need not wait needs no place.
    let found = [(); 5].map(|()| balancer.next(&balancer.scope).now_or_never());
    assert!(found.iter().all(|found| matches!(found, Some(Ok(_)))));
}
