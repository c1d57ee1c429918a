//! The running proxy: its listeners, and how it starts and stops.

use std::{io, net::SocketAddr, num::NonZeroUsize, process::ExitCode, sync::Arc, thread, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{self, Runtime},
    signal::unix::{SignalKind, signal},
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use crate::{
    Config, OriginalDst, ProcessEnvironment,
    admin::Admin,
    connect::{self, Connector},
    control::Control,
    identity::{self, IdentityError, LocalIdentity},
    inbound::{Door, Inbound},
    log::{self, LogLevel},
    loop_guard,
    metrics::Metrics,
    outbound::Outbound,
};

/// The exit code for an unusable environment, as Linkerd's (`EX_USAGE`).
const BAD_CONFIG: u8 = 64;

/// Stops a proxy without cutting its connections.
#[derive(Debug, Clone, Default)]
pub(crate) struct Drain {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Drain {
    /// Runs a task that stopping waits for.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Ends when the proxy is to stop.
    pub(crate) async fn stopping(&self) {
        self.token.cancelled().await;
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.token.is_cancelled()
    }

    pub(crate) fn stop(&self) {
        self.token.cancel();
    }
}

/// Where a proxy listens, with the ports that it was given.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// For the application's connections.
    pub outbound: Vec<SocketAddr>,
    /// For connections to the pod.
    pub inbound: SocketAddr,
    /// `/metrics` and the rest.
    pub admin: SocketAddr,
}

/// Why a proxy does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is taken, or not this machine's.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
    /// The proxy cannot prove who it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The control plane's address is not one.
    #[error("cannot make a client of the control plane: {0}")]
    Control(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A running proxy. It runs in the background until it is stopped or its runtime ends.
pub struct Proxy {
    addresses: Addresses,
    drain: Drain,
}

impl Proxy {
    /// Opens the listeners and starts to serve. Needs a tokio runtime. `log` is the filter of the log that the proxy writes to, if
    /// that is the proxy's to change.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub async fn start(config: Config, original: OriginalDst, log: Option<LogLevel>) -> Result<Self, StartError> {
        let mark = config.socket_mark.filter(|mark| match connect::check_mark(*mark) {
            Ok(()) => true,
            Err(error) => {
                info!(
                    mark = format!("{mark:#x}"),
                    %error,
                    "connections of this proxy are not marked, which takes CAP_NET_ADMIN, and go past redirection by its user id"
                );
                false
            }
        });
        let config = Arc::new(config);
        let metrics = Metrics::retaining(config.metrics_retain_idle).naming_hosts(config.outbound_hostname_labels);
        let drain = Drain::default();
        let connector = Connector::new(mark, config.outbound_connect_timeout);
        let identity = match &config.identity {
            Some(identity) => identity::start(identity, &connector, &metrics)?,
            None => LocalIdentity::none(),
        };
        let control = Control::new(&config, &connector, &identity, &metrics)
            .map_err(|error| StartError::Control(error.into()))?;

        let admin = listen(config.admin_listen_addr).await?;
        let inbound_listener = listen(config.inbound_listen_addr).await?;
        let mut outbound_listeners = Vec::new();
        for address in &config.outbound_listen_addrs {
            outbound_listeners.push(listen(*address).await?);
        }
        let address = |listener: &TcpListener| {
            listener.local_addr().map_err(|source| StartError::Listen { address: config.inbound_listen_addr, source })
        };
        let addresses = Addresses {
            outbound: outbound_listeners.iter().map(address).collect::<Result<_, _>>()?,
            inbound: address(&inbound_listener)?,
            admin: address(&admin)?,
        };

        let id = config.loop_guard.then(loop_guard::random_id);
        let mut own = vec![addresses.admin.port()];
        if !config.inbound_gateway_suffixes.is_empty() {
            own.push(addresses.inbound.port());
        }
        let door = Arc::new(Door::new(&config, &own, identity.clone(), control.clone(), metrics.clone()));
        let outbound = Arc::new(Outbound::new(
            &config,
            id.clone(),
            mark,
            identity.clone(),
            control.clone(),
            metrics.clone(),
            original.clone(),
            drain.clone(),
        ));
        let inbound = Arc::new(Inbound::new(
            &config,
            addresses.inbound.port(),
            id,
            mark,
            Arc::clone(&door),
            control,
            Arc::clone(&outbound),
            original.clone(),
            drain.clone(),
        ));
        accept(inbound_listener, identity.clone(), &drain, move |stream| Arc::clone(&inbound).connection(stream));
        for listener in outbound_listeners {
            let outbound = Arc::clone(&outbound);
            accept(listener, identity.clone(), &drain, move |stream| Arc::clone(&outbound).connection(stream));
        }
        let answers = Admin { config: Arc::clone(&config), metrics, identity, log, drain: drain.clone() };
        answers.serve(admin, addresses.admin, door, original);
        info!(?addresses, ingress = config.ingress_mode, dialect = ?config.dialect, "the proxy serves");
        Ok(Self { addresses, drain })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Ends when somebody has asked the proxy to stop at `/shutdown`.
    pub async fn stopping(&self) {
        self.drain.stopping().await;
    }

    /// Stops accepting and waits for requests and connections in flight, for at most `grace`. Whether all of them ended.
    pub async fn stop(self, grace: Duration) -> bool {
        self.drain.stop();
        self.drain.tasks.close();
        time::timeout(grace, self.drain.tasks.wait()).await.is_ok()
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}

/// Serves each connection in a task of its own, from when the proxy is certified until it is to stop. Connections before that wait.
fn accept<F>(
    listener: TcpListener,
    identity: LocalIdentity,
    drain: &Drain,
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let drain = drain.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = identity.certified() => {}
            () = drain.stopping() => return,
        }
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = drain.stopping() => return,
            };
            match accepted {
                Ok((stream, _)) => drain.spawn(serve(stream)),
                Err(error) => {
                    // Out of files, or the client left already. The former takes a while to pass.
                    warn!(%error, "a connection could not be accepted");
                    time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    });
}

/// The role `meshgate proxy`: runs until SIGTERM or SIGINT, then lets requests in flight finish. Exits with 64 if the
/// environment is not usable, with 1 if the proxy cannot start, else with 0.
pub fn main_from_env() -> ExitCode {
    main_with(OriginalDst::Socket)
}

/// The same with another source of original destinations, for a process that the kernel redirects nothing to.
pub fn main_with(original: OriginalDst) -> ExitCode {
    let config = match Config::from_strings(&ProcessEnvironment) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("meshgate proxy: {errors}");
            return ExitCode::from(BAD_CONFIG);
        }
    };
    let log = log::init(&config);
    for name in &config.cores.ignored {
        warn!(variable = name, "a variable is passed over, for its value means nothing");
    }
    let runtime = match runtime(&config) {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("meshgate proxy: cannot start a runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(config, original, log)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%error, "the proxy cannot start");
            eprintln!("meshgate proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One thread does without what lets several share their work.
fn runtime(config: &Config) -> io::Result<Runtime> {
    let processors = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let mut builder = match config.cores.of(processors) {
        1 => runtime::Builder::new_current_thread(),
        workers => {
            let mut builder = runtime::Builder::new_multi_thread();
            builder.worker_threads(workers);
            builder
        }
    };
    builder.enable_all().build()
}

async fn run(config: Config, original: OriginalDst, log: Option<LogLevel>) -> Result<(), anyhow::Error> {
    let grace = config.shutdown_grace_period;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let proxy = Proxy::start(config, original, log).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = proxy.stopping() => {}
    }
    info!(?grace, "the proxy stops; connections in flight may finish");
    if !proxy.stop(grace).await {
        warn!("connections were still open at the end of the grace period");
    }
    Ok(())
}
