//! The whole network of one cluster.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use nix::sched::{CloneFlags, unshare};
use parking_lot::Mutex;
use tokio::runtime;

use crate::Dialer;
use crate::addresses::{self, Block};
use crate::dns::{Dns, DnsError};
use crate::links::{Connection, ETH0, LOOPBACK, Links};
use crate::netns::{self, Netns};
use crate::nft::{Nft, NftError};
use crate::services::{Service, ServiceRules};
use crate::sysctl;

/// The number of the bridge without ports through which the node itself reaches Service addresses.
const SERVICE_LINK: u32 = 900;
/// The number of the node's link to the outside world.
const OUTSIDE_LINK: u32 = 901;
/// The number of the node's link to the first pod; the address decides the rest.
const FIRST_POD_LINK: u32 = 10_000;

/// What a network needs.
#[derive(Clone, Debug, Default)]
pub struct NetworkConfig {
    /// The program `nft`.
    pub nft: PathBuf,
    /// Environment it needs, e.g. `LD_LIBRARY_PATH` when it was unpacked into a cache.
    pub nft_env: Vec<(String, String)>,
}

/// Why the network, or a part of it, could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A network namespace could not be made or entered.
    #[error("cannot make a network namespace: {0}; see `sysctl user.max_net_namespaces` and the limit of open files")]
    Namespace(#[source] io::Error),
    /// The kernel cannot be asked about links.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[source] io::Error),
    /// Packets are not passed on between pods.
    #[error(
        "cannot switch on net.ipv4.ip_forward: {0}; in a container, /proc/sys has to be writable (docker run --security-opt systempaths=unconfined)"
    )]
    Forwarding(#[source] io::Error),
    /// A change of links, addresses or routes was refused.
    #[error("cannot {what}: {cause}")]
    Netlink {
        /// What was tried.
        what: String,
        /// What the kernel said.
        cause: rtnetlink::Error,
    },
    /// The Service rules were refused.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// DNS cannot listen.
    #[error(transparent)]
    Dns(#[from] DnsError),
    /// The pod is being added by somebody else.
    #[error("the pod {0} is being given a place in the network already; add it once")]
    PodExists(String),
    /// All addresses are taken.
    #[error("no address left in {block} for the pod {0}", block = addresses::PODS)]
    NoAddress(String),
}

impl NetworkError {
    pub(crate) fn netlink(what: String, cause: rtnetlink::Error) -> Self {
        Self::Netlink { what, cause }
    }
}

/// A pod's place in the network.
#[derive(Clone, Debug)]
pub struct PodNet {
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its namespace.
    pub netns: Arc<Netns>,
}

/// The network of one cluster. Dropping it ends DNS and the conversation with the kernel; links and rules go with the
/// namespace of the process.
pub struct Network {
    links: Links,
    _connection: Connection,
    outside: Dialer,
    pods: Mutex<Pods>,
    services: tokio::sync::Mutex<ServiceRules>,
    dns: Dns,
}

impl Network {
    /// Makes the network in the namespace of the calling thread, which becomes the node's (see
    /// [`crate::namespaces::enter`]).
    ///
    /// # Errors
    /// When the kernel or `nft` refuses a part of it.
    pub async fn start(config: NetworkConfig) -> Result<Self, NetworkError> {
        sysctl::set_node().map_err(NetworkError::Forwarding)?;
        let (links, connection) = Links::open().map_err(NetworkError::Socket)?;
        links.up(LOOPBACK).await?;
        for address in [addresses::NODE, addresses::GATEWAY, addresses::API_SERVER, addresses::DNS] {
            links.address(LOOPBACK, address).await?;
        }
        // The node's own packets to Service addresses need a route before the rules of the output hook see them. The
        // packets never leave: rules send them elsewhere or refuse them.
        links.bridge("svc0", SERVICE_LINK).await?;
        for block in [addresses::SERVICES, addresses::LOAD_BALANCERS] {
            links.route(block, SERVICE_LINK, Some(addresses::NODE)).await?;
        }
        links.nothing_else().await?;
        let outside = outside(&links).await?;

        let mut services = ServiceRules::new(Nft { path: config.nft, env: config.nft_env });
        services.set(&[]).await?;
        let dns = Dns::start(SocketAddr::from((addresses::DNS, 53))).await?;
        Ok(Self {
            links,
            _connection: connection,
            outside,
            pods: Mutex::default(),
            services: tokio::sync::Mutex::new(services),
            dns,
        })
    }

    /// Connects from outside the cluster; its addresses are [`addresses::CLIENTS`]. From there lead routes to the node and
    /// to load balancer addresses, and to nothing else.
    pub fn outside(&self) -> &Dialer {
        &self.outside
    }

    /// The cluster's DNS.
    pub fn dns(&self) -> &Dns {
        &self.dns
    }

    /// Gives a pod a namespace and an address; the same again for a key that has one. Takes a few milliseconds; pods may
    /// be added concurrently.
    ///
    /// # Errors
    /// When the kernel refuses, or the same pod is being added elsewhere.
    pub async fn add_pod(&self, key: &str) -> Result<PodNet, NetworkError> {
        let ip = match self.pods.lock().reserve(key)? {
            Reserved::Fresh(ip) => ip,
            Reserved::Placed(pod) => return Ok(pod),
        };
        // Taken back on failure, and when this future is dropped half way. What exists of the link goes with the namespace.
        let _reservation = Reservation { pods: &self.pods, key };
        let links = self.links.clone();
        let netns = in_thread(move || pod(&links, ip)).await?;
        let pod = PodNet { ip, netns: Arc::new(netns) };
        self.pods.lock().place(key, pod.clone());
        Ok(pod)
    }

    /// Takes a pod out of the network: from now on its address is unreachable. Its namespace lives on as long as
    /// somebody holds it. A pod that is not there is fine.
    pub async fn remove_pod(&self, key: &str) {
        let Some(ip) = self.pods.lock().free(key) else { return };
        if let Err(error) = self.links.remove(link(ip)).await {
            tracing::warn!(key, %error, "a pod's link stays");
        }
    }

    /// Brings the rules in step with these Services, all there are. When it returns, new connections go where these
    /// Services say.
    ///
    /// # Errors
    /// When `nft` cannot be run or refuses; the next call then starts afresh.
    pub async fn set_services(&self, services: Vec<Service>) -> Result<(), NetworkError> {
        Ok(self.services.lock().await.set(&services).await?)
    }
}

/// The number of the node's link to a pod.
fn link(ip: Ipv4Addr) -> u32 {
    FIRST_POD_LINK + (ip.to_bits() - addresses::PODS.network.to_bits())
}

/// Makes a namespace and leaves the calling thread in it, with a runtime for what is to be set up there.
fn namespace() -> Result<(Netns, runtime::Runtime), NetworkError> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| NetworkError::Namespace(errno.into()))?;
    let netns = Netns::current().map_err(NetworkError::Namespace)?;
    sysctl::set_common();
    let runtime = runtime::Builder::new_current_thread().enable_io().build().map_err(NetworkError::Socket)?;
    Ok((netns, runtime))
}

/// Makes a pod's namespace.
fn pod(node: &Links, ip: Ipv4Addr) -> Result<Netns, NetworkError> {
    let (netns, runtime) = namespace()?;
    runtime.block_on(async {
        let near = link(ip);
        node.pair(&format!("pod{near}"), near, netns.as_fd()).await?;
        node.route(Block { network: ip, prefix: 32 }, near, Some(addresses::NODE)).await?;

        let (links, _connection) = Links::open().map_err(NetworkError::Socket)?;
        links.up(LOOPBACK).await?;
        links.address(ETH0, ip).await?;
        links.up(ETH0).await?;
        links.route(GATEWAY_ONLY, ETH0, None).await?;
        links.route_to_gateway(EVERYTHING).await
    })?;
    Ok(netns)
}

const GATEWAY_ONLY: Block = Block { network: addresses::GATEWAY, prefix: 32 };
const EVERYTHING: Block = Block { network: Ipv4Addr::UNSPECIFIED, prefix: 0 };

/// Makes the outside world.
async fn outside(node: &Links) -> Result<Dialer, NetworkError> {
    let node = node.clone();
    let netns = in_thread(move || {
        let (netns, runtime) = namespace()?;
        runtime.block_on(async {
            node.pair("outside", OUTSIDE_LINK, netns.as_fd()).await?;
            node.route(addresses::OUTSIDE, OUTSIDE_LINK, Some(addresses::NODE)).await?;

            let (links, _connection) = Links::open().map_err(NetworkError::Socket)?;
            links.up(LOOPBACK).await?;
            for client in addresses::CLIENTS {
                links.address(ETH0, client).await?;
            }
            links.up(ETH0).await?;
            links.route(GATEWAY_ONLY, ETH0, None).await?;
            links.route_to_gateway(addresses::LOAD_BALANCERS).await?;
            links.route_to_gateway(Block { network: addresses::NODE, prefix: 32 }).await
        })?;
        Ok(netns)
    })
    .await?;
    Dialer::new(Arc::new(netns)).map_err(NetworkError::Namespace)
}

/// Pods and their addresses.
#[derive(Default)]
struct Pods {
    /// `None` while a pod is being made.
    by_key: HashMap<String, (Ipv4Addr, Option<PodNet>)>,
    taken: HashSet<Ipv4Addr>,
    /// The last address given out, as an offset. Addresses are given out in turn, so that one is used again as late
    /// as possible: clients may still remember who had it.
    last: u32,
}

impl Pods {
    fn reserve(&mut self, key: &str) -> Result<Reserved, NetworkError> {
        match self.by_key.get(key) {
            Some((_, Some(pod))) => return Ok(Reserved::Placed(pod.clone())),
            Some((_, None)) => return Err(NetworkError::PodExists(key.to_owned())),
            None => {}
        }
        // The first two and the last one are left out, as the network's, the bridge's and the broadcast address elsewhere.
        let (first, end) = (2, (1 << (32 - addresses::PODS.prefix)) - 1);
        let ip = (0..end - first)
            .map(|step| first + (self.last.max(first - 1) + 1 - first + step) % (end - first))
            .map(|offset| Ipv4Addr::from_bits(addresses::PODS.network.to_bits() + offset))
            .find(|ip| !self.taken.contains(ip))
            .ok_or_else(|| NetworkError::NoAddress(key.to_owned()))?;
        self.last = ip.to_bits() - addresses::PODS.network.to_bits();
        self.taken.insert(ip);
        self.by_key.insert(key.to_owned(), (ip, None));
        Ok(Reserved::Fresh(ip))
    }

    fn place(&mut self, key: &str, pod: PodNet) {
        self.taken.insert(pod.ip);
        self.by_key.insert(key.to_owned(), (pod.ip, Some(pod)));
    }

    fn free(&mut self, key: &str) -> Option<Ipv4Addr> {
        let (ip, _) = self.by_key.remove(key)?;
        self.taken.remove(&ip);
        Some(ip)
    }
}

/// What a key may have.
enum Reserved {
    /// An address that is the caller's to use.
    Fresh(Ipv4Addr),
    /// A pod, made earlier.
    Placed(PodNet),
}

/// Gives an address back unless its pod was placed meanwhile.
struct Reservation<'a> {
    pods: &'a Mutex<Pods>,
    key: &'a str,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut pods = self.pods.lock();
        if let Some((_, None)) = pods.by_key.get(self.key) {
            pods.free(self.key);
        }
    }
}

/// Runs blocking work that may change its thread's namespaces.
async fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    let thread = tokio::task::spawn_blocking(|| netns::in_thread(|| Ok(work())));
    thread.await.map_err(io::Error::other).flatten().map_err(NetworkError::Namespace)?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(pods: &mut Pods, key: &str) -> Ipv4Addr {
        match pods.reserve(key).unwrap() {
            Reserved::Fresh(ip) => ip,
            Reserved::Placed(pod) => panic!("{pod:?}"),
        }
    }

    #[test]
    fn an_address_is_used_again_as_late_as_possible() {
        let mut pods = Pods::default();
        assert_eq!(fresh(&mut pods, "a"), Ipv4Addr::new(10, 244, 0, 2));
        assert!(matches!(pods.reserve("a"), Err(NetworkError::PodExists(_))));
        pods.free("a");
        assert_eq!(fresh(&mut pods, "a"), Ipv4Addr::new(10, 244, 0, 3));
        pods.last = 0xfffe;
        assert_eq!(fresh(&mut pods, "b"), Ipv4Addr::new(10, 244, 0, 2));
        assert_eq!(fresh(&mut pods, "c"), Ipv4Addr::new(10, 244, 0, 4), "10.244.0.3 is a's");
    }

    #[test]
    fn a_pod_that_did_not_come_to_be_gives_its_address_back() {
        let pods = Mutex::new(Pods::default());
        fresh(&mut pods.lock(), "a");
        drop(Reservation { pods: &pods, key: "a" });
        assert!(pods.lock().taken.is_empty());
    }
}
