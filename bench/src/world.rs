//! The namespaces: one for the client with the proxy beside it, one for what they talk to, and a link between the two.
//!
//! ```text
//! sidecar 10.9.0.2 ────veth──── 10.9.0.1 node
//!   client ─ 10.96/16 is redirected ─> proxy :4140      backend :8080 at every address of 10.1/16
//!                                                       (10.2/16 is redirected -> its own proxy :4143)
//! ```
//!
//! Only Service addresses are redirected, and no proxy dials those, so that none needs to be exempt by mark or user.

use std::{io, io::Write, net::Ipv4Addr, os::fd::AsRawFd, process::Command, process::Stdio};

use anyhow::{Context, bail};
use meshgate_images::Tool;
use meshgate_net::Netns;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::packet_route::route::{RouteScope, RouteType};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection};

use crate::services::{ENDPOINTS, MESHED, NODE, POD, PREFIX, SERVICES, Service};

/// `lo` is the first link of every namespace.
const LOOPBACK: u32 = 1;
/// Chosen high, because some kernels put tunnel devices of their own into a new namespace.
const LINK: u32 = 1000;
/// `RT_TABLE_LOCAL`, in which the kernel looks for addresses of its own.
const LOCAL_TABLE: u32 = 255;

/// Where proxies listen for what is redirected.
pub(crate) const OUTBOUND_PORT: u16 = 4140;
/// Where proxies listen for HTTP/2 that is redirected, if they cannot tell it from HTTP/1 themselves.
pub(crate) const OUTBOUND_HTTP2_PORT: u16 = 4141;
/// Where the backend's own proxy listens.
pub(crate) const INBOUND_PORT: u16 = 4143;

/// The two namespaces.
pub(crate) struct World {
    pub node: Netns,
    pub sidecar: Netns,
    nft: Tool,
}

impl World {
    /// Makes them. The calling thread's namespace becomes the node's.
    pub fn make(nft: Tool) -> anyhow::Result<Self> {
        let node = Netns::current().context("this network namespace")?;
        let sidecar = Netns::create().context("a network namespace for the sidecar")?;
        runtime()?.block_on(async {
            let handle = open()?;
            up(&handle, LOOPBACK).await?;
            pair(&handle, &sidecar).await?;
            address(&handle, NODE).await?;
            for block in [ENDPOINTS, MESHED] {
                local(&handle, block).await?;
            }
            anyhow::Ok(())
        })?;
        let inside = sidecar.run(|| {
            Ok(runtime()?.block_on(async {
                let handle = open()?;
                up(&handle, LOOPBACK).await?;
                address(&handle, POD).await?;
                up(&handle, LINK).await?;
                let gateway = RouteMessageBuilder::<Ipv4Addr>::new().gateway(NODE).build();
                handle.route().add(gateway).execute().await.context("the route to the node")
            }))
        });
        inside.context("cannot enter the sidecar's namespace")??;
        Ok(Self { node, sidecar, nft })
    }

    /// Redirects Services to the proxy beside the client, HTTP/2's to a port of its own, until it is dropped.
    pub fn redirect_outbound(&self, http2_port: u16) -> anyhow::Result<Redirect<'_>> {
        let http2 = Service::plain(true).ip;
        let rules = format!(
            "type nat hook output priority -100; ip daddr {http2} meta l4proto tcp redirect to :{http2_port}; \
             ip daddr {SERVICES}/{PREFIX} meta l4proto tcp redirect to :{OUTBOUND_PORT};"
        );
        Redirect::set(self, &self.sidecar, &rules)
    }

    /// Redirects the backend's meshed addresses to its own proxy, until it is dropped.
    pub fn redirect_inbound(&self) -> anyhow::Result<Redirect<'_>> {
        let rules = format!(
            "type nat hook prerouting priority -100; iifname \"lo\" accept; \
             ip daddr {MESHED}/{PREFIX} meta l4proto tcp redirect to :{INBOUND_PORT};"
        );
        Redirect::set(self, &self.node, &rules)
    }

    fn nft(&self, netns: &Netns, script: &str) -> anyhow::Result<()> {
        let output = netns.run(|| {
            let mut child = Command::new(&self.nft.path)
                .args(["-f", "-"])
                .envs(self.nft.env.iter().map(|(key, value)| (key, value)))
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                // When it ends early, its own message is the better one.
                let _ = stdin.write_all(script.as_bytes());
            }
            child.wait_with_output()
        });
        let output = output.with_context(|| format!("cannot run {}", self.nft.path.display()))?;
        if !output.status.success() {
            bail!("nft refused to redirect: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}

/// Rules in a namespace. Without them the kernel does not track connections there, so that they are present only while they
/// are needed.
pub(crate) struct Redirect<'a> {
    world: &'a World,
    netns: &'a Netns,
}

impl<'a> Redirect<'a> {
    fn set(world: &'a World, netns: &'a Netns, rules: &str) -> anyhow::Result<Self> {
        world.nft(netns, &format!("table ip bench {{\n chain to_proxy {{ {rules} }}\n}}\n"))?;
        Ok(Self { world, netns })
    }
}

impl Drop for Redirect<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.world.nft(self.netns, "delete table ip bench") {
            eprintln!("the redirection stays: {error:#}");
        }
    }
}

/// Which core runs what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    /// Load, backend, and everything else.
    pub load: usize,
    /// The proxy that is measured.
    pub proxy: usize,
}

impl Cores {
    /// The first two that this process may use; the same one twice if there is only one.
    pub fn choose() -> Self {
        let usable = sched_getaffinity(Pid::from_raw(0)).ok();
        let usable: Vec<usize> = usable
            .map(|set| (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect())
            .unwrap_or_default();
        let load = usable.first().copied().unwrap_or_default();
        Self { load, proxy: usable.get(1).copied().unwrap_or(load) }
    }

    /// Whether the proxy has one for itself.
    pub fn are_two(self) -> bool {
        self.load != self.proxy
    }
}

/// Keeps the calling thread, and the processes and threads it starts from now on, on one core.
pub(crate) fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// The links of this thread's namespace.
fn open() -> anyhow::Result<Handle> {
    let (connection, handle, _) = new_connection().context("a netlink socket")?;
    tokio::spawn(connection);
    Ok(handle)
}

async fn up(handle: &Handle, index: u32) -> anyhow::Result<()> {
    let link = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(link).execute().await.with_context(|| format!("link {index}"))
}

async fn pair(handle: &Handle, other: &Netns) -> anyhow::Result<()> {
    use std::os::fd::AsFd;
    let far =
        LinkMessageBuilder::<LinkUnspec>::new().name("eth0").index(LINK).setns_by_fd(other.as_fd().as_raw_fd()).build();
    let near = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name("sidecar")
        .index(LINK)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
        .up()
        .build();
    handle.link().add(near).execute().await.context("the link between the namespaces")
}

async fn address(handle: &Handle, address: Ipv4Addr) -> anyhow::Result<()> {
    handle.address().add(LINK, address.into(), 24).execute().await.with_context(|| format!("the address {address}"))
}

/// Makes every address of a block this namespace's own.
async fn local(handle: &Handle, block: Ipv4Addr) -> anyhow::Result<()> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(block, PREFIX)
        .output_interface(LOOPBACK)
        .table_id(LOCAL_TABLE)
        .scope(RouteScope::Host)
        .kind(RouteType::Local);
    handle.route().add(route.build()).execute().await.with_context(|| format!("the addresses {block}/{PREFIX}"))
}
