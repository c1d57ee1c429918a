//! The endpoints of one logical destination, and which of them gets the next request.
//!
//! The power of two choices over peak EWMA, as in Linkerd. Different from Linkerd, an endpoint that refuses connections, or
//! whose application does, is set aside for a while and its request goes to another one: measured on Linkerd, one refusing
//! endpoint of two fails two thirds of the HTTP/1 requests, because it answers so fast that it looks least loaded.

mod endpoint;
mod ewma;
mod health;

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
    metrics::{BalancerScope, Labels, Refresh},
    profile::ResponseClasses,
};

/// A request that found nobody at home tries this many endpoints in all.
const MAX_TRIES: usize = 4;

/// The endpoints of one `Destination.Get`.
pub(crate) struct Balancer {
    name: NameAddr,
    factory: EndpointFactory,
    failfast_timeout: Duration,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    /// Whether the control plane has said anything yet; a new value at each update.
    known: watch::Sender<bool>,
    /// Fail-fast: a request has waited in vain, so others do not.
    shut: AtomicBool,
    /// Since when requests wait for an endpoint. As with Linkerd's, whose queue waits by itself, a request that is given up does not
    /// make the next one wait from the beginning.
    waiting_since: Mutex<Option<Instant>>,
    scope: BalancerScope,
    /// How many endpoints are counted as ready, and as pending.
    counted: Mutex<[i64; 2]>,
    /// What keeps the endpoints current.
    follow: OnceLock<AbortHandle>,
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if let Some(follow) = self.follow.get() {
            follow.abort();
        }
        self.scope.endpoints.add(-(self.endpoints.load().len() as i64));
        self.count([0, 0]);
    }
}

impl Refresh for Balancer {
    /// Whether an endpoint is set aside depends on the time.
    fn refresh(&self) {
        let endpoints = self.endpoints.load();
        let ready = endpoints.iter().filter(|endpoint| endpoint.health().is_up()).count();
        self.count([ready as i64, (endpoints.len() - ready) as i64]);
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
    /// Requests wait for an endpoint for as long as `failfast_timeout` says. `labels` say what it is a backend of, and
    /// which; without any it is not counted.
    pub(crate) fn new(
        name: NameAddr,
        factory: EndpointFactory,
        failfast_timeout: Duration,
        labels: Option<&Labels>,
    ) -> Arc<Self> {
        let metrics = factory.metrics().clone();
        let balancer = Arc::new(Self {
            scope: metrics.balancers.scope(labels, failfast_timeout),
            counted: Mutex::default(),
            name,
            factory,
            failfast_timeout,
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

    /// Differences, since another balancer may have the same labels.
    fn count(&self, now: [i64; 2]) {
        let before = std::mem::replace(&mut *self.counted.lock(), now);
        self.scope.ready.add(now[0] - before[0]);
        self.scope.pending.add(now[1] - before[1]);
    }

    /// Keeps the task that updates this balancer for as long as the balancer itself.
    pub(crate) fn keep(&self, follow: AbortHandle) {
        if let Err(second) = self.follow.set(follow) {
            second.abort();
        }
    }

    /// Whether a split should consider this leg: it has endpoints, or might have.
    ///
    /// Linkerd passes a leg over only after a request has waited for it in vain, so that of each client's connection one
    /// request fails.
    pub(crate) fn is_available(&self) -> bool {
        !self.endpoints.load().is_empty() || !*self.known.borrow()
    }

    /// Applies what the control plane says. Endpoints that stay keep their connections and their load.
    pub(crate) fn update(&self, update: EndpointUpdate) {
        let current = self.endpoints.load_full();
        let mut before: BTreeMap<SocketAddr, Arc<Endpoint>> =
            current.iter().map(|endpoint| (endpoint.address(), Arc::clone(endpoint))).collect();
        let mut next = BTreeMap::new();
        match update {
            EndpointUpdate::Reset(added) => {
                let changed = self.add(&mut next, &before, added);
                if changed > 0 || next.len() < before.len() {
                    self.scope.reset.increment();
                }
            }
            EndpointUpdate::Add(added) => {
                next.clone_from(&before);
                self.scope.added.add(self.add(&mut next, &before, added));
            }
            EndpointUpdate::Remove(removed) => {
                for address in removed {
                    if before.remove(&address).is_some() {
                        self.scope.removed.increment();
                    }
                }
                next = before;
            }
        }
        self.scope.endpoints.add(next.len() as i64 - current.len() as i64);
        if !next.is_empty() {
            if self.shut.swap(false, Ordering::Relaxed) {
                self.scope.opened();
            }
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
        let mut endpoint = self.next(Some(&self.scope)).await?;
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

    /// A connection to one endpoint, for anything but HTTP, and the endpoint.
    pub(crate) async fn connect(&self) -> Result<(Io, Arc<Endpoint>), ProxyError> {
        let mut tried = Tried::default();
        let mut endpoint = self.next(None).await?;
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

    /// The endpoint for a request or a connection, as soon as there is one. `scope` counts requests.
    async fn next(&self, scope: Option<&BalancerScope>) -> Result<Arc<Endpoint>, ProxyError> {
        let first = Tried::default();
        if let Some(endpoint) = self.choose(&first) {
            scope.inspect(|scope| scope.passed());
            return Ok(endpoint);
        }
        if self.shut.load(Ordering::Relaxed) {
            return Err(ProxyError::LoadShed(self.name.clone()));
        }
        let _waits = scope.map(BalancerScope::waits);
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
            if !self.shut.swap(true, Ordering::Relaxed) {
                self.scope.shut();
            }
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
