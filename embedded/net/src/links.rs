//! Links, addresses and routes, by rtnetlink.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::packet_route::route::{RouteMessage, RouteScope, RouteType};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection};
use tokio::task::JoinHandle;

use crate::addresses::{Block, GATEWAY};
use crate::network::NetworkError;

/// `lo` is the first link of every namespace.
pub(crate) const LOOPBACK: u32 = 1;
/// The number of `eth0` in every namespace but the node's. Chosen high, because some kernels put tunnel devices of
/// their own into a new namespace, which take the next low numbers.
pub(crate) const ETH0: u32 = 1000;

/// The links of one namespace.
#[derive(Clone)]
pub(crate) struct Links {
    handle: Handle,
}

/// Keeps the conversation with the kernel alive.
pub(crate) struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Links {
    /// The links of the calling thread's namespace; replies are read by a task of the current runtime.
    pub(crate) fn open() -> io::Result<(Self, Connection)> {
        let (connection, handle, _) = new_connection()?;
        Ok((Self { handle }, Connection(tokio::spawn(connection))))
    }

    pub(crate) async fn up(&self, index: u32) -> Result<(), NetworkError> {
        let link = LinkUnspec::new_with_index(index).up().build();
        let result = self.handle.link().set(link).execute().await;
        result.map_err(|cause| NetworkError::netlink(format!("set link {index} up"), cause))
    }

    pub(crate) async fn bridge(&self, name: &str, index: u32) -> Result<(), NetworkError> {
        let result = self.handle.link().add(LinkBridge::new(name).index(index).up().build()).execute().await;
        result.map_err(|cause| NetworkError::netlink(format!("add the bridge {name}"), cause))
    }

    /// Adds a pair of links: `name` here, up, and `eth0` (number [`ETH0`]) in the other namespace, still down.
    pub(crate) async fn pair(&self, name: &str, index: u32, other: BorrowedFd<'_>) -> Result<(), NetworkError> {
        let far =
            LinkMessageBuilder::<LinkUnspec>::new().name("eth0").index(ETH0).setns_by_fd(other.as_raw_fd()).build();
        let near = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(name)
            .index(index)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
            .up()
            .build();
        let result = self.handle.link().add(near).execute().await;
        result.map_err(|cause| NetworkError::netlink(format!("add the link {name}"), cause))
    }

    /// Removes a link, if it is there.
    pub(crate) async fn remove(&self, index: u32) -> Result<(), NetworkError> {
        match self.handle.link().del(index).execute().await {
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -(Errno::ENODEV as i32) => Ok(()),
            result => result.map_err(|cause| NetworkError::netlink(format!("remove link {index}"), cause)),
        }
    }

    pub(crate) async fn address(&self, index: u32, address: Ipv4Addr) -> Result<(), NetworkError> {
        let result = self.handle.address().add(index, address.into(), 32).execute().await;
        result.map_err(|cause| NetworkError::netlink(format!("add the address {address} to link {index}"), cause))
    }

    /// Routes a block to a link, with the source that this namespace's own packets get.
    pub(crate) async fn route(&self, to: Block, index: u32, source: Option<Ipv4Addr>) -> Result<(), NetworkError> {
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to.network, to.prefix)
            .output_interface(index)
            .scope(RouteScope::Link);
        if let Some(source) = source {
            route = route.pref_source(source);
        }
        self.add_route(format!("{to} to link {index}"), route.build()).await
    }

    /// Routes a block to the gateway on `eth0`.
    pub(crate) async fn route_to_gateway(&self, to: Block) -> Result<(), NetworkError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to.network, to.prefix)
            .output_interface(ETH0)
            .gateway(GATEWAY);
        self.add_route(format!("{to} to the gateway"), route.build()).await
    }

    /// Answers everything without a route at once with "unreachable".
    pub(crate) async fn nothing_else(&self) -> Result<(), NetworkError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(Ipv4Addr::UNSPECIFIED, 0)
            .kind(RouteType::Unreachable);
        self.add_route("everything else to nowhere".into(), route.build()).await
    }

    async fn add_route(&self, what: String, route: RouteMessage) -> Result<(), NetworkError> {
        let result = self.handle.route().add(route).execute().await;
        result.map_err(|cause| NetworkError::netlink(format!("route {what}"), cause))
    }
}
