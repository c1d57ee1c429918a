//! The node's network: its addresses, the outside world, and the pods' namespaces.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::links::{GATEWAY, Links};
use crate::services::Rules;
use crate::{Dialer, Dns, Netns, Service};

/// The API server's address, the Service `kubernetes`.
pub const API: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The DNS server's address.
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The node's InternalIP.
pub const NODE: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);
/// The clients outside.
pub const CLIENTS: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 51, 100, 10), Ipv4Addr::new(198, 51, 100, 11)];

/// What the network needs.
#[derive(Clone, Debug, Default)]
pub struct NetworkConfig {
    /// The program `nft`.
    pub nft: PathBuf,
    /// Environment that it needs to run (`LD_LIBRARY_PATH` of an unpacked package).
    pub nft_env: Vec<(String, String)>,
}

/// Why the network could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A link, address, route or socket.
    #[error("the cluster's network: {step}: {source}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// `nft` refused rules or could not be run.
    #[error("nft refused the Service rules: {0}")]
    Nft(String),
}

/// A pod's place in the network.
#[derive(Clone, Debug)]
pub struct PodNet {
    /// Its only address.
    pub ip: Ipv4Addr,
    /// Its namespace.
    pub netns: Arc<Netns>,
    link: u32,
}

/// The network of one cluster. Everything goes with the process's namespaces.
pub struct Network {
    links: Links,
    rules: Rules,
    dns: Dns,
    outside: Dialer,
    pods: Mutex<Pods>,
}

#[derive(Default)]
struct Pods {
    by_key: HashMap<String, PodNet>,
    next: u32,
    /// Addresses of pods that are gone, oldest first; used again only when the fresh ones have run out.
    free: VecDeque<Ipv4Addr>,
}

/// Pods begin at 10.244.0.2; the last usable number keeps them below 10.244.255.255.
const FIRST: u32 = 2;
const LAST: u32 = 0xfffe;

impl Pods {
    fn address(&mut self) -> Option<Ipv4Addr> {
        if self.next + FIRST <= LAST {
            let [_, _, high, low] = (self.next + FIRST).to_be_bytes();
            self.next += 1;
            return Some(Ipv4Addr::new(10, 244, high, low));
        }
        self.free.pop_front()
    }
}

fn step<T>(step: &'static str, result: io::Result<T>) -> Result<T, NetworkError> {
    result.map_err(|source| NetworkError::Step { step, source })
}

impl Network {
    /// Sets up the namespace that this process is in as the node, and an outside beside it.
    ///
    /// # Errors
    /// The step that the kernel refused.
    pub async fn start(config: NetworkConfig) -> Result<Self, NetworkError> {
        let links = step("opening netlink", Links::here())?;
        step("addresses of the node", Self::node(&links).await)?;
        // Each of these only widens a limit; where one is not writable the default does for all but the heaviest load.
        for (name, value) in [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv4/ip_local_port_range", "1024 65000"),
            ("net/ipv4/tcp_tw_reuse", "1"),
            ("net/core/somaxconn", "4096"),
        ] {
            if let Err(error) = std::fs::write(format!("/proc/sys/{name}"), value) {
                tracing::debug!(name, %error, "sysctl");
            }
        }
        let outside = step("the outside", Self::make_outside(&links).await)?;
        let rules = Rules::start(&config).await?;
        let dns = step("listening for DNS", Dns::start(DNS).await)?;
        Ok(Self { links, rules, dns, outside, pods: Mutex::default() })
    }

    async fn node(links: &Links) -> io::Result<()> {
        let loopback = links.index("lo").await?;
        links.up(loopback).await?;
        for address in [GATEWAY, API, DNS, NODE] {
            links.address(loopback, address, 32).await?;
        }
        let services = links.bridge("svc0").await?;
        links.route(Ipv4Addr::new(10, 96, 0, 0), 16, services, Some(NODE)).await?;
        links.route(Ipv4Addr::new(203, 0, 113, 0), 24, services, Some(NODE)).await?;
        links.unreachable_default().await
    }

    /// A namespace with two clients, which knows the way to the node's external addresses and nothing else.
    async fn make_outside(links: &Links) -> io::Result<Dialer> {
        let netns = Arc::new(Netns::create()?);
        let near = links.veth("outside", "eth0", &netns).await?;
        for client in CLIENTS {
            links.route(client, 32, near, Some(NODE)).await?;
        }
        let inside = Arc::clone(&netns);
        tokio::task::spawn_blocking(move || {
            Links::inside(&inside, async |links: Links| {
                let loopback = links.index("lo").await?;
                links.up(loopback).await?;
                let eth0 = links.index("eth0").await?;
                links.up(eth0).await?;
                for client in CLIENTS {
                    links.address(eth0, client, 32).await?;
                }
                links.route(NODE, 32, eth0, Some(CLIENTS[0])).await?;
                links.route_via(Ipv4Addr::new(203, 0, 113, 0), 24, NODE).await
            })
        })
        .await
        .map_err(io::Error::other)??;
        Dialer::new(netns)
    }

    /// A namespace and an address for a pod; the same again for a key that has one.
    ///
    /// # Errors
    /// The step that the kernel refused; addresses that ran out.
    pub async fn add_pod(&self, key: &str) -> Result<PodNet, NetworkError> {
        let (ip, number) = {
            let mut pods = self.pods.lock();
            if let Some(pod) = pods.by_key.get(key) {
                return Ok(pod.clone());
            }
            let ip = pods.address().ok_or_else(|| NetworkError::Step {
                step: "an address for a pod",
                source: io::Error::other("10.244.0.0/16 is used up"),
            })?;
            (ip, u32::from(ip) & 0xffff)
        };
        let netns = tokio::task::spawn_blocking(|| {
            let netns = Netns::create()?;
            // Pods have IPv4 only; and programs that may not be root listen on low ports as in a container.
            netns.run(|| {
                let _ = std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
                let _ = std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
                let _ = std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "10000 65000");
                let _ = std::fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1");
                Ok(())
            })?;
            Ok(Arc::new(netns))
        })
        .await
        .map_err(io::Error::other)
        .and_then(|result| result);
        let netns = step("a pod's namespace", netns)?;
        let link = step("a pod's link", self.links.veth(&format!("pod{number}"), "eth0", &netns).await)?;
        step("the route to a pod", self.links.route(ip, 32, link, Some(NODE)).await)?;
        let inside = Arc::clone(&netns);
        let set_up = tokio::task::spawn_blocking(move || {
            Links::inside(&inside, async move |links: Links| links.set_up_pod(ip).await)
        });
        step("a pod's address", set_up.await.map_err(io::Error::other).and_then(|result| result))?;
        let pod = PodNet { ip, netns, link };
        self.pods.lock().by_key.insert(key.to_owned(), pod.clone());
        Ok(pod)
    }

    /// Takes a pod's link and address away. Its namespace goes with its last process.
    pub async fn remove_pod(&self, key: &str) {
        let Some(pod) = self.pods.lock().by_key.remove(key) else { return };
        if let Err(error) = self.links.remove(pod.link).await {
            tracing::debug!(key, %error, "removing a pod's link");
        }
        self.pods.lock().free.push_back(pod.ip);
    }

    /// Makes the Service rules what is asked for. Returns when they are in force.
    ///
    /// # Errors
    /// [`NetworkError::Nft`]; the rules are then as before.
    pub async fn set_services(&self, services: Vec<Service>) -> Result<(), NetworkError> {
        self.rules.set(services).await
    }

    /// The DNS server.
    pub fn dns(&self) -> &Dns {
        &self.dns
    }

    /// Connects from outside the cluster; its source addresses are [`CLIENTS`].
    pub fn outside(&self) -> &Dialer {
        &self.outside
    }
}
