//! The way to a service of the control plane: its name is looked up, and each call goes to one of the addresses that it has.
//!
//! The power of two choices decides which, as in Linkerd's proxy (`linkerd/app/core/src/control.rs`). There the load is how fast answers
//! come; here it is how many calls have not ended, for these are streams that last for hours. An address that cannot be connected to is
//! set aside for a while, and the call goes to another one.
//!
//! The name is looked up when somebody calls, unless that was done a moment ago; while nobody calls it does not matter where it leads.
//! Streams stay where they are for as long as their connection lasts.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use http::{Request, Response, Uri};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use rand::Rng;
use tonic::{body::Body, transport::Endpoint};
use tower::Service;
use tracing::debug;

use super::dial::{Dialer, Sender};
use crate::{
    ControlAddr,
    connect::{ConnectError, Connector},
    identity::LocalIdentity,
    metrics::{BalancerScope, BalancerState, ControlClient, Metrics, Refresh, Resolutions},
    tls::ServerIdentity,
};

/// How long the addresses of a name are believed. The system's resolver does not tell how long they are good for.
const FRESH: Duration = Duration::from_secs(5);

/// How long an address that could not be connected to is set aside: at first, and at most, for it doubles each time.
const MIN_ASIDE: Duration = Duration::from_millis(100);
const MAX_ASIDE: Duration = Duration::from_secs(10);

/// As whom the proxy speaks to a service of the control plane that proves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    /// As who it is: it waits for its certificate.
    Certified,
    /// As who it is if it has a certificate that is still valid, else as nobody: who has none can get one only so.
    Anybody,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The resolver has an error for the name.
    #[error("`{authority}` cannot be looked up: {source}")]
    LookUp { authority: String, source: io::Error },
    /// The name leads nowhere.
    #[error("`{0}` has no address")]
    NoAddress(String),
    /// None of its addresses can be connected to. This is what the last that was tried said.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke.
    #[error("{0}")]
    Broken(#[source] hyper::Error),
}

/// A channel to a service of the control plane. Nothing is connected before the first call.
#[derive(Clone)]
pub(crate) struct Channel(Arc<Addresses>);

/// The addresses of a service.
struct Addresses {
    /// `host:port`.
    authority: String,
    origin: Uri,
    dialer: Arc<Dialer>,
    /// The authority is an address, so that nobody need be asked for it.
    is_address: bool,
    resolutions: Resolutions,
    /// When the name was looked up. Held by whoever does it, while others wait for what comes of it.
    looked_up: Arc<tokio::sync::Mutex<Option<Instant>>>,
    known: ArcSwap<Vec<Arc<Address>>>,
    scope: BalancerScope,
    counted: Mutex<BalancerState>,
    /// When it was tried last, none of them could be connected to.
    shut: AtomicBool,
}

/// One address, with the connection to it.
struct Address {
    address: SocketAddr,
    connection: Mutex<Connection>,
    /// How many calls have not ended.
    calls: AtomicUsize,
    aside: Mutex<Aside>,
}

type Connecting = Shared<BoxFuture<'static, Result<Sender, ConnectError>>>;

enum Connection {
    None,
    Connecting(Connecting),
    Open(Sender),
}

/// Whether an address is set aside.
#[derive(Default)]
struct Aside {
    until: Option<Instant>,
    setbacks: u32,
}

/// A call that has not ended.
struct Call(Arc<Address>);

/// The body of an answer. The call ends with it.
pub(crate) struct Answer {
    body: Incoming,
    _call: Call,
}

/// A channel to a service, for one of the proxy's clients.
pub(crate) fn lazy(
    service: &ControlAddr,
    connector: &Connector,
    identity: &LocalIdentity,
    speaker: As,
    client: ControlClient,
    metrics: &Metrics,
) -> Result<Channel, tonic::transport::Error> {
    let authority = service.authority.clone();
    let address = authority.parse::<SocketAddr>().ok();
    let addresses = Arc::new(Addresses {
        origin: Endpoint::from_shared(format!("http://{authority}"))?.uri().clone(),
        authority,
        dialer: Arc::new(Dialer {
            connector: connector.clone(),
            server: service.name.as_ref().map(ServerIdentity::named),
            identity: identity.clone(),
            speaker,
        }),
        is_address: address.is_some(),
        resolutions: metrics.control.resolutions(client),
        looked_up: Arc::default(),
        known: ArcSwap::default(),
        scope: metrics.control.balancer(client, service),
        counted: Mutex::default(),
        shut: AtomicBool::new(false),
    });
    if let Some(address) = address {
        addresses.update([address]);
    }
    let refreshed: std::sync::Weak<Addresses> = Arc::downgrade(&addresses);
    metrics.registry.refresh(refreshed);
    Ok(Channel(addresses))
}

impl Channel {
    /// What its requests are for: the scheme and the authority.
    pub(crate) fn origin(&self) -> Uri {
        self.0.origin.clone()
    }

    /// Sends a request to one address, and to another as long as nothing could be sent.
    async fn send(self, mut request: Request<Body>) -> Result<Response<Answer>, CallError> {
        let addresses = &self.0;
        let mut repeated = false;
        loop {
            let (mut sender, call) = match addresses.open() {
                Some(open) => {
                    addresses.scope.passed();
                    self.look_up_soon();
                    open
                }
                None => {
                    let _waits = addresses.scope.waits();
                    let connected = addresses.connect().await;
                    addresses.set_shut(connected.is_err());
                    connected?
                }
            };
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(response.map(|body| Answer { body, _call: call })),
                Err(mut error) => match error.take_message() {
                    // It has ended, or takes no more: nothing was sent on it.
                    Some(unsent) if !repeated => {
                        call.0.forget();
                        (request, repeated) = (unsent, true);
                    }
                    _ => return Err(CallError::Broken(error.into_error())),
                },
            }
        }
    }

    /// Looks the name up if that was not done for a while, without anybody waiting for it.
    fn look_up_soon(&self) {
        let Ok(mut looked_up) = Arc::clone(&self.0.looked_up).try_lock_owned() else { return };
        if self.0.is_fresh(*looked_up) {
            return;
        }
        let addresses = Arc::clone(&self.0);
        tokio::spawn(async move {
            if let Err(error) = addresses.look_up(&mut looked_up).await {
                debug!(%error, "a name of the control plane was looked up in vain");
            }
        });
    }
}

impl Addresses {
    /// A connection that is there already, if the address that is chosen has one.
    fn open(&self) -> Option<(Sender, Call)> {
        let address = self.choose(&[])?;
        let sender = address.open()?;
        Some((sender, Call::begin(address)))
    }

    /// A connection to the first address that can be connected to, of those that are chosen one after the other.
    async fn connect(&self) -> Result<(Sender, Call), CallError> {
        self.dialer.ready().await;
        self.look_up(&mut *self.looked_up.lock().await).await?;
        let mut tried = Vec::new();
        let mut last = CallError::NoAddress(self.authority.clone());
        while let Some(address) = self.choose(&tried) {
            let call = Call::begin(Arc::clone(&address));
            match address.connect(&self.dialer).await {
                Ok(sender) => return Ok((sender, call)),
                Err(error) => {
                    debug!(%error, authority = self.authority, "the control plane is not reached at one of its addresses");
                    tried.push(address.address);
                    last = error.into();
                }
            }
        }
        // Perhaps it has moved.
        *self.looked_up.lock().await = None;
        Err(last)
    }

    fn is_fresh(&self, looked_up: Option<Instant>) -> bool {
        self.is_address || looked_up.is_some_and(|at| at.elapsed() < FRESH)
    }

    /// Looks the name up, unless that was done a moment ago. What was known stays known if nothing is found.
    async fn look_up(&self, looked_up: &mut Option<Instant>) -> Result<(), CallError> {
        if self.is_fresh(*looked_up) {
            return Ok(());
        }
        let found = self.dialer.connector.look_up(&self.authority).await;
        self.resolutions.count(&self.authority, &found);
        match found {
            Ok(found) if !found.is_empty() => {
                self.update(found);
                *looked_up = Some(Instant::now());
                Ok(())
            }
            _ if !self.known.load().is_empty() => Ok(()),
            Ok(_) => Err(CallError::NoAddress(self.authority.clone())),
            Err(source) => Err(CallError::LookUp { authority: self.authority.clone(), source }),
        }
    }

    /// These are the addresses now. Those that stay keep their connections.
    fn update(&self, found: impl IntoIterator<Item = SocketAddr>) {
        let known = self.known.load_full();
        let found: BTreeSet<_> = found.into_iter().collect();
        let same = found.len() == known.len() && known.iter().all(|known| found.contains(&known.address));
        let next = found.into_iter().map(|address| {
            let stays = known.iter().find(|known| known.address == address);
            stays.map_or_else(|| Arc::new(Address::new(address)), Arc::clone)
        });
        self.known.store(Arc::new(next.collect()));
        self.count(|state| state.reset += u64::from(!same));
    }

    /// Of two random addresses the one with fewer calls. One that is set aside is only chosen if all are, and then the one that is due
    /// soonest; one that was tried is not chosen again.
    fn choose(&self, tried: &[SocketAddr]) -> Option<Arc<Address>> {
        let known = self.known.load();
        let untried = || known.iter().filter(move |address| !tried.contains(&address.address));
        let ready: Vec<_> = untried().filter(|address| address.is_ready()).collect();
        let chosen = match &ready[..] {
            [] => untried().min_by_key(|address| address.aside.lock().until)?,
            [only] => *only,
            several => {
                let mut rng = rand::rng();
                let first = rng.random_range(0..several.len());
                let second = (first + rng.random_range(1..several.len())) % several.len();
                let [first, second] = [several[first], several[second]];
                if second.calls.load(Relaxed) < first.calls.load(Relaxed) { second } else { first }
            }
        };
        Some(Arc::clone(chosen))
    }

    fn set_shut(&self, shut: bool) {
        if self.shut.swap(shut, Relaxed) != shut {
            if shut { self.scope.shut() } else { self.scope.opened() }
        }
    }

    /// Changes what is counted of the addresses, of which some may be set aside or so no longer.
    fn count(&self, change: impl FnOnce(&mut BalancerState)) {
        let mut counted = self.counted.lock();
        let before = *counted;
        let known = self.known.load();
        let ready = known.iter().filter(|address| address.is_ready()).count();
        change(&mut counted);
        counted.endpoints = known.len() as u64;
        counted.ready = ready as u64;
        counted.pending = (known.len() - ready) as u64;
        self.scope.changed(&before, &counted);
    }
}

impl Refresh for Addresses {
    /// Whether an address is set aside depends on the time.
    fn refresh(&self) {
        self.count(|_| {});
    }
}

impl Address {
    fn new(address: SocketAddr) -> Self {
        let (connection, aside) = (Mutex::new(Connection::None), Mutex::default());
        Self { address, connection, calls: AtomicUsize::new(0), aside }
    }

    fn is_ready(&self) -> bool {
        self.aside.lock().until.is_none_or(|until| until <= Instant::now())
    }

    /// The connection to it, if there is one.
    fn open(&self) -> Option<Sender> {
        match &*self.connection.lock() {
            Connection::Open(sender) if !sender.is_closed() => Some(sender.clone()),
            Connection::Open(_) | Connection::Connecting(_) | Connection::None => None,
        }
    }

    /// The connection to it, made by whoever comes first while the others wait for it.
    async fn connect(&self, dialer: &Arc<Dialer>) -> Result<Sender, ConnectError> {
        let connecting = {
            let mut connection = self.connection.lock();
            match &*connection {
                Connection::Open(sender) if !sender.is_closed() => return Ok(sender.clone()),
                Connection::Connecting(connecting) => connecting.clone(),
                Connection::Open(_) | Connection::None => {
                    let connecting = Arc::clone(dialer).connect(self.address).boxed().shared();
                    *connection = Connection::Connecting(connecting.clone());
                    connecting
                }
            }
        };
        let result = connecting.clone().await;
        let mut connection = self.connection.lock();
        if matches!(&*connection, Connection::Connecting(current) if current.ptr_eq(&connecting)) {
            self.aside.lock().tried(result.is_ok());
            *connection = match &result {
                Ok(sender) => Connection::Open(sender.clone()),
                Err(_) => Connection::None,
            };
        }
        result
    }

    /// The connection takes no more calls.
    fn forget(&self) {
        let mut connection = self.connection.lock();
        if matches!(&*connection, Connection::Open(_)) {
            *connection = Connection::None;
        }
    }
}

impl Aside {
    /// Somebody has tried to connect.
    fn tried(&mut self, connected: bool) {
        if connected {
            *self = Self::default();
            return;
        }
        let aside = MIN_ASIDE.saturating_mul(1 << self.setbacks.min(16)).min(MAX_ASIDE);
        self.until = Some(Instant::now() + aside);
        self.setbacks += 1;
    }
}

impl Call {
    fn begin(address: Arc<Address>) -> Self {
        address.calls.fetch_add(1, Relaxed);
        Self(address)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Relaxed);
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Answer>;
    type Error = CallError;
    type Future = BoxFuture<'static, Result<Response<Answer>, CallError>>;

    /// Who waits is counted by the call.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.clone().send(request).boxed()
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
