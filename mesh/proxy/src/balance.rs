//! The endpoints of one logical destination, and which of them gets the next request.
//!
//! The power of two choices over peak EWMA, as in Linkerd. Different from Linkerd, an endpoint that refuses connections, or
//! whose application does, is set aside for a while and its request goes to another one: measured on Linkerd, one refusing
//! endpoint of two fails two thirds of the HTTP/1 requests, because it answers so fast that it looks least loaded.

mod bias;
mod endpoint;
mod ewma;
mod health;

pub(crate) use bias::LoadBias;
pub(crate) use endpoint::{Endpoint, EndpointFactory, EndpointInfo, Hint};
pub(crate) use health::Accrual;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use http::Response;
use parking_lot::Mutex;
use rand::Rng;
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{self, Instant},
};

use crate::{
    NameAddr,
    connect::ConnectError,
    http::{BoxedRequest, ProxyError, ResponseBody, SendError},
    io::Io,
    metrics::{BalancerScope, BalancerState, Labels, PassedOn, Refresh},
    places::Places,
    profile::ResponseClasses,
};

/// A request that found nobody at home tries this many endpoints in all.
const MAX_TRIES: usize = 4;

/// How requests wait for an endpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queue {
    /// How long.
    pub(crate) timeout: Duration,
    /// How many at once. Others are refused.
    pub(crate) capacity: usize,
}

/// The endpoints of one `Destination.Get`.
pub(crate) struct Balancer {
    name: NameAddr,
    factory: EndpointFactory,
    failfast_timeout: Duration,
    /// Of those that wait for an endpoint.
    places: Places,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    /// Whether the control plane has said anything yet; a new value at each update.
    known: watch::Sender<bool>,
    /// Fail-fast: a request has waited in vain, so others do not.
    shut: AtomicBool,
    /// Since when requests wait for an endpoint. As with Linkerd's, whose queue waits by itself, a request that is given up does not
    /// make the next one wait from the beginning.
    waiting_since: Mutex<Option<Instant>>,
    /// What counts requests.
    scope: BalancerScope,
    counted: Mutex<Counted>,
    /// What keeps the endpoints current.
    follow: OnceLock<AbortHandle>,
}

/// What is counted of a balancer's endpoints.
#[derive(Default)]
struct Counted {
    state: BalancerState,
    /// What counts connections, by the labels of what they are for. Made for the first of them: most balancers are those of Services
    /// that speak HTTP.
    connections: Vec<(Labels, Arc<BalancerScope>)>,
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if let Some(follow) = self.follow.get() {
            follow.abort();
        }
        self.count(|state| (state.ready, state.pending, state.endpoints) = (0, 0, 0));
    }
}

impl Refresh for Balancer {
    /// Whether an endpoint is set aside depends on the time.
    fn refresh(&self) {
        let endpoints = self.endpoints.load();
        let ready = endpoints.iter().filter(|endpoint| endpoint.health().is_up()).count();
        self.count(|state| (state.ready, state.pending) = (ready as u64, (endpoints.len() - ready) as u64));
    }
}

/// A change to a balancer's endpoints.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum EndpointUpdate {
    /// The first of a new stream: these and no others.
    Reset(BTreeMap<SocketAddr, EndpointInfo>),
    /// These too, or known as this from now on.
    Add(BTreeMap<SocketAddr, EndpointInfo>),
    /// These no longer.
    Remove(Vec<SocketAddr>),
}

impl Balancer {
    /// Requests wait for an endpoint as `queue` says. `labels` say what it is a backend of, and which; without any it is not
    /// counted.
    pub(crate) fn new(name: NameAddr, factory: EndpointFactory, queue: Queue, labels: Option<&Labels>) -> Arc<Self> {
        let metrics = factory.metrics().clone();
        let balancer = Arc::new(Self {
            scope: metrics.balancers.scope(labels, queue.timeout),
            counted: Mutex::default(),
            name,
            factory,
            failfast_timeout: queue.timeout,
            places: Places::new(queue.capacity),
            endpoints: ArcSwap::default(),
            known: watch::Sender::new(false),
            shut: AtomicBool::new(false),
            waiting_since: Mutex::default(),
            follow: OnceLock::new(),
        });
        let refreshed: std::sync::Weak<Self> = Arc::downgrade(&balancer);
        metrics.registry.refresh(refreshed);
        balancer
    }

    pub(crate) fn name(&self) -> &NameAddr {
        &self.name
    }

    /// What counts connections, with labels that say what they are for and which backend of it this is. To be kept: it is not found
    /// without a lock.
    pub(crate) fn connections(&self, what: PassedOn, labels: &Labels) -> Arc<BalancerScope> {
        let mut counted = self.counted.lock();
        if let Some((_, known)) = counted.connections.iter().find(|(of, _)| of == labels) {
            return Arc::clone(known);
        }
        let scope = self.factory.metrics().balancers_of(what).scope(Some(labels), self.failfast_timeout);
        scope.changed(&BalancerState::default(), &counted.state);
        if self.shut.load(Ordering::Relaxed) {
            scope.shut();
        }
        let scope = Arc::new(scope);
        counted.connections.push((labels.clone(), Arc::clone(&scope)));
        scope
    }

    /// Changes what is counted of the endpoints.
    fn count(&self, change: impl FnOnce(&mut BalancerState)) {
        let mut counted = self.counted.lock();
        let before = counted.state;
        change(&mut counted.state);
        counted.each(&self.scope, |scope| scope.changed(&before, &counted.state));
    }

    /// Requests and connections are refused from now on, or taken again.
    fn set_shut(&self, shut: bool) {
        let counted = self.counted.lock();
        if self.shut.swap(shut, Ordering::Relaxed) != shut {
            counted.each(&self.scope, |scope| if shut { scope.shut() } else { scope.opened() });
        }
    }

    /// Keeps the task that updates this balancer for as long as the balancer itself.
    pub(crate) fn keep(&self, follow: AbortHandle) {
        if let Err(second) = self.follow.set(follow) {
            second.abort();
        }
    }

    /// Whether a split should consider this leg: it has endpoints, or might have and was not yet waited for in vain.
    ///
    /// Linkerd passes a leg over only after a request has waited for it in vain, so that of each client's connection one
    /// request fails.
    pub(crate) fn is_available(&self) -> bool {
        !self.endpoints.load().is_empty() || self.is_unknown()
    }

    /// Whether the control plane has said nothing yet, and it is worth to wait for it.
    pub(crate) fn is_unknown(&self) -> bool {
        self.endpoints.load().is_empty() && !*self.known.borrow() && !self.shut.load(Ordering::Relaxed)
    }

    /// Waits until the control plane has said something, for as long as a request waits for an endpoint. Whether it has.
    pub(crate) async fn becomes_known(&self) -> bool {
        // Without a place there is nothing to wait for: the endpoint will be refused for the same reason.
        let Some(_place) = self.places.take() else { return false };
        let began = Instant::now();
        let mut known = self.known.subscribe();
        let is_known = time::timeout_at(began + self.failfast_timeout, known.wait_for(|known| *known)).await.is_ok();
        if !is_known {
            // Whoever asks for an endpoint all the same has waited for it already.
            self.waiting_since.lock().get_or_insert(began);
        }
        is_known
    }

    /// Applies what the control plane says. Endpoints that stay keep their connections and their load.
    pub(crate) fn update(&self, update: EndpointUpdate) {
        let current = self.endpoints.load_full();
        let mut before: BTreeMap<SocketAddr, Arc<Endpoint>> =
            current.iter().map(|endpoint| (endpoint.address(), Arc::clone(endpoint))).collect();
        let mut next = BTreeMap::new();
        let (mut reset, mut added, mut removed) = (0, 0, 0);
        match update {
            EndpointUpdate::Reset(all) => {
                let changed = self.add(&mut next, &before, all);
                reset = u64::from(changed > 0 || next.len() < before.len());
            }
            EndpointUpdate::Add(others) => {
                next.clone_from(&before);
                added = self.add(&mut next, &before, others);
            }
            EndpointUpdate::Remove(gone) => {
                removed = gone.iter().filter(|address| before.remove(address).is_some()).count() as u64;
                next = before;
            }
        }
        self.count(|state| {
            state.endpoints = next.len() as u64;
            state.reset += reset;
            state.added += added;
            state.removed += removed;
        });
        if !next.is_empty() {
            self.set_shut(false);
            *self.waiting_since.lock() = None;
        }
        self.endpoints.store(Arc::new(next.into_values().collect()));
        self.known.send_replace(true);
    }

    /// Adds endpoints to `next`, those of `before` if they are known as the same. How many are not.
    fn add(
        &self,
        next: &mut BTreeMap<SocketAddr, Arc<Endpoint>>,
        before: &BTreeMap<SocketAddr, Arc<Endpoint>>,
        added: BTreeMap<SocketAddr, EndpointInfo>,
    ) -> u64 {
        let mut changed = 0;
        for (address, info) in added {
            let endpoint = match before.get(&address).filter(|endpoint| *endpoint.info() == info) {
                Some(endpoint) => Arc::clone(endpoint),
                None => {
                    changed += 1;
                    Arc::new(self.factory.make(address, Some(&self.name), info))
                }
            };
            next.insert(address, endpoint);
        }
        changed
    }

    /// Sends a request to one endpoint, and to another as long as nothing could be sent.
    pub(crate) async fn send(
        &self,
        mut request: BoxedRequest,
        classes: Option<&Arc<ResponseClasses>>,
    ) -> Result<Response<ResponseBody>, ProxyError> {
        let mut tried = Tried::default();
        let mut endpoint = self.next(&self.scope).await?;
        loop {
            match endpoint.send(request, classes.cloned()).await {
                Ok(response) => return Ok(response),
                Err(SendError::Broken(error)) => return Err(ProxyError::Broken(error)),
                Err(SendError::NotSent(unsent, error)) => {
                    tried.add(endpoint.address());
                    match self.choose(&tried) {
                        Some(another) => (endpoint, request) = (another, unsent),
                        None => {
                            let error = ProxyError::Connect(error);
                            endpoint.count_unsent(&error);
                            return Err(error);
                        }
                    }
                }
            }
        }
    }

    /// A connection to one endpoint, for anything but HTTP, and the endpoint. `scope` counts it.
    pub(crate) async fn connect(&self, scope: &BalancerScope) -> Result<(Io, Arc<Endpoint>), ProxyError> {
        let mut tried = Tried::default();
        let mut endpoint = self.next(scope).await?;
        loop {
            match endpoint.connect().await {
                Ok(io) => return Ok((io, endpoint)),
                Err(error) => endpoint = self.after(&mut tried, &endpoint, error)?,
            }
        }
    }

    fn after(&self, tried: &mut Tried, failed: &Endpoint, error: ConnectError) -> Result<Arc<Endpoint>, ProxyError> {
        tried.add(failed.address());
        self.choose(tried).ok_or(ProxyError::Connect(error))
    }

    /// The endpoint for a request or a connection, as soon as there is one. `scope` counts it.
    async fn next(&self, scope: &BalancerScope) -> Result<Arc<Endpoint>, ProxyError> {
        let first = Tried::default();
        if let Some(endpoint) = self.choose(&first) {
            scope.passed();
            return Ok(endpoint);
        }
        if self.shut.load(Ordering::Relaxed) {
            return Err(ProxyError::LoadShed);
        }
        let _place = self.places.take().ok_or(ProxyError::LoadShed)?;
        let _waits = scope.waits();
        let mut known = self.known.subscribe();
        let since = *self.waiting_since.lock().get_or_insert_with(Instant::now);
        let waiting = async {
            loop {
                if let Some(endpoint) = self.choose(&first) {
                    return endpoint;
                }
                // The sender lives as long as `self`.
                let _ = known.changed().await;
            }
        };
        time::timeout_at(since + self.failfast_timeout, waiting).await.map_err(|_| {
            self.set_shut(true);
            ProxyError::FailFast(self.name.clone())
        })
    }

    /// Of two random endpoints the less loaded. One that is set aside is only chosen if all are, and then the one that is
    /// due soonest; one that was tried is not chosen again.
    fn choose(&self, tried: &Tried) -> Option<Arc<Endpoint>> {
        let endpoints = self.endpoints.load();
        if tried.is_exhausted() {
            return None;
        }
        let usable = |endpoint: &&Arc<Endpoint>| endpoint.health().is_up() && !tried.contains(endpoint.address());
        let drawn = match endpoints.len() {
            0 => return None,
            1 => [0, 0],
            count => {
                let mut rng = rand::rng();
                let first = rng.random_range(0..count);
                let second = (first + rng.random_range(1..count)) % count;
                [first, second]
            }
        };
        let [first, second] = drawn.map(|index| Some(&endpoints[index]).filter(usable));
        let lighter = match (first, second) {
            (Some(first), Some(second)) if second.load().current() < first.load().current() => Some(second),
            (first, second) => first.or(second),
        };
        let chosen = lighter.or_else(|| endpoints.iter().find(usable)).or_else(|| {
            let untried = endpoints.iter().filter(|endpoint| !tried.contains(endpoint.address()));
            untried.min_by_key(|endpoint| endpoint.health().due())
        })?;
        chosen.health().chosen();
        Some(Arc::clone(chosen))
    }
}

impl Counted {
    fn each(&self, requests: &BalancerScope, count: impl Fn(&BalancerScope)) {
        count(requests);
        self.connections.iter().for_each(|(_, scope)| count(scope));
    }
}

/// The endpoints that a request could not be sent to.
#[derive(Default)]
struct Tried {
    addresses: [Option<SocketAddr>; MAX_TRIES],
    count: usize,
}

impl Tried {
    fn add(&mut self, address: SocketAddr) {
        if let Some(slot) = self.addresses.get_mut(self.count) {
            *slot = Some(address);
            self.count += 1;
        }
    }

    fn contains(&self, address: SocketAddr) -> bool {
        self.addresses[..self.count].contains(&Some(address))
    }

    fn is_exhausted(&self) -> bool {
        self.count == MAX_TRIES
    }
}

#[cfg(test)]
mod tests;
