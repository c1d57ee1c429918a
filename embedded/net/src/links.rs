//! Links, addresses and routes, by rtnetlink, in whichever namespace they belong to.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};

use futures::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::packet_route::route::{RouteScope, RouteType};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection};

use crate::Netns;

/// The gateway that every pod sees; it is on the node's `lo`, and the kernel answers for it on every link.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// rtnetlink in the namespace in which it was made.
pub struct Links {
    handle: Handle,
}

fn other(error: rtnetlink::Error) -> io::Error {
    match &error {
        rtnetlink::Error::NetlinkError(message) => {
            io::Error::new(message.to_io().kind(), format!("netlink: {}", message.to_io()))
        }
        _ => io::Error::other(error.to_string()),
    }
}

impl Links {
    /// In this thread's namespace, driven by this thread's runtime.
    pub fn here() -> io::Result<Self> {
        let (connection, handle, _) = new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Runs a small program of changes inside a namespace, on a thread and a runtime of its own.
    pub fn inside<F>(netns: &Netns, changes: F) -> io::Result<()>
    where
        F: AsyncFnOnce(Links) -> io::Result<()> + Send,
    {
        netns.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
            runtime.block_on(async { changes(Links::here()?).await })
        })
    }

    /// The index of a link.
    pub async fn index(&self, name: &str) -> io::Result<u32> {
        let mut found = self.handle.link().get().match_name(name.to_owned()).execute();
        let link = found.try_next().await.map_err(other)?;
        link.map(|link| link.header.index)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no link {name}")))
    }

    /// Takes a link up.
    pub async fn up(&self, index: u32) -> io::Result<()> {
        self.handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await.map_err(other)
    }

    /// A veth whose far end `peer` begins its life inside a namespace. Returns the index of the near end, which is up.
    pub async fn veth(&self, name: &str, peer: &str, netns: &Netns) -> io::Result<u32> {
        let far = LinkMessageBuilder::<LinkUnspec>::new()
            .name(peer.to_owned())
            .setns_by_fd(netns.as_fd().as_raw_fd())
            .build();
        let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(rtnetlink::packet_route::link::InfoKind::Veth)
            .name(name.to_owned())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
            .up()
            .build();
        self.handle.link().add(message).execute().await.map_err(other)?;
        self.index(name).await
    }

    /// A bridge without members, which stands in for a dummy link: kernels exist without the latter.
    pub async fn bridge(&self, name: &str) -> io::Result<u32> {
        self.handle.link().add(LinkBridge::new(name).up().build()).execute().await.map_err(other)?;
        self.index(name).await
    }

    /// Removes a link, and with it its far end.
    pub async fn remove(&self, index: u32) -> io::Result<()> {
        self.handle.link().del(index).execute().await.map_err(other)
    }

    /// Adds an address.
    pub async fn address(&self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        self.handle.address().add(index, address.into(), prefix).execute().await.map_err(other)
    }

    /// A route to a network over a link, with a source address to prefer.
    pub async fn route(&self, to: Ipv4Addr, prefix: u8, index: u32, source: Option<Ipv4Addr>) -> io::Result<()> {
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to, prefix)
            .output_interface(index)
            .scope(RouteScope::Link);
        if let Some(source) = source {
            route = route.pref_source(source);
        }
        self.handle.route().add(route.build()).execute().await.map_err(other)
    }

    /// A route to a network through a gateway.
    pub async fn route_via(&self, to: Ipv4Addr, prefix: u8, gateway: Ipv4Addr) -> io::Result<()> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, prefix).gateway(gateway).build();
        self.handle.route().add(route).execute().await.map_err(other)
    }

    /// Everything else is unreachable, told at once instead of by a time-out.
    pub async fn unreachable_default(&self) -> io::Result<()> {
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(Ipv4Addr::UNSPECIFIED, 0)
            .kind(RouteType::Unreachable)
            .build();
        route.header.address_family = AddressFamily::Inet;
        self.handle.route().add(route).execute().await.map_err(other)
    }

    /// Gives a pod's namespace its address: `lo` and `eth0` up, everything by the gateway.
    pub async fn set_up_pod(&self, address: Ipv4Addr) -> io::Result<()> {
        let loopback = self.index("lo").await?;
        self.up(loopback).await?;
        let eth0 = self.index("eth0").await?;
        self.address(eth0, address, 32).await?;
        self.up(eth0).await?;
        self.route(GATEWAY, 32, eth0, None).await?;
        self.route_via(Ipv4Addr::UNSPECIFIED, 0, GATEWAY).await
    }
}
