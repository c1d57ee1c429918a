//! The Services that requests are for, and how each is reached: the plan that control plane, backend and load share.

use std::net::{Ipv4Addr, SocketAddr};

/// The address of the sidecar's namespace.
pub(crate) const POD: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
/// The address of the backend's namespace, the other end of the same link.
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// Addresses at which the backend answers.
pub(crate) const ENDPOINTS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 0);
/// Addresses at which the backend answers through a proxy of its own, while there is one.
pub(crate) const MESHED: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 0);
/// Addresses that are redirected to the proxy beside the client.
pub(crate) const SERVICES: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 0);
/// The length of the prefix of all of these blocks.
pub(crate) const PREFIX: u8 = 16;

/// The port of every Service.
pub(crate) const PORT: u16 = 80;
/// The port of every endpoint.
pub(crate) const BACKEND_PORT: u16 = 8080;

/// The name in its certificate of the proxy before the backend.
pub(crate) const SERVER_NAME: &str = "server.ns.serviceaccount.identity.linkerd.cluster.local";

/// How many ServiceProfile routes, and how many endpoints, a curve has.
pub(crate) const SCALES: [usize; 4] = [1, 10, 100, 1000];

/// What stands behind a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behind {
    /// So many addresses of the backend.
    Plain(usize),
    /// The backend's own proxy.
    Meshed {
        /// Whether it is said who it is, and connections are TLS.
        tls: bool,
        /// Whether it is said to take HTTP/1 over HTTP/2, as Linkerd's control plane says of every proxy.
        http2: bool,
    },
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub name: String,
    pub ip: Ipv4Addr,
    pub routes: usize,
    pub behind: Behind,
}

impl Service {
    fn new(name: &str, number: u32, routes: usize, behind: Behind) -> Self {
        Self { name: name.to_owned(), ip: nth(SERVICES, number), routes, behind }
    }

    /// One endpoint, no routes: what every subject is measured with. HTTP/2 has an address of its own, because HAProxy needs
    /// to be told what to speak.
    pub fn plain(http2: bool) -> Self {
        match http2 {
            false => Self::new("web", 1, 0, Behind::Plain(1)),
            true => Self::new("web-http2", 2, 0, Behind::Plain(1)),
        }
    }

    pub fn with_routes(routes: usize) -> Self {
        Self::new(&format!("routes-{routes}"), 0x1000 + number(routes), routes, Behind::Plain(1))
    }

    pub fn with_endpoints(endpoints: usize) -> Self {
        Self::new(&format!("endpoints-{endpoints}"), 0x2000 + number(endpoints), 0, Behind::Plain(endpoints))
    }

    pub fn meshed(tls: bool, http2: bool) -> Self {
        let name = format!("meshed-{}-{}", if tls { "tls" } else { "plain" }, if http2 { "http2" } else { "http1" });
        let number = 0x3000 + u32::from(tls) + 2 * u32::from(http2);
        Self::new(&name, number, 0, Behind::Meshed { tls, http2 })
    }

    /// All there are.
    pub fn all() -> Vec<Self> {
        let scales = SCALES.into_iter().flat_map(|scale| [Self::with_routes(scale), Self::with_endpoints(scale)]);
        let meshed = [false, true].into_iter().flat_map(|tls| [Self::meshed(tls, false), Self::meshed(tls, true)]);
        [Self::plain(false), Self::plain(true)].into_iter().chain(scales).chain(meshed).collect()
    }

    /// The fully qualified name.
    pub fn host(&self) -> String {
        format!("{}.ns.svc.cluster.local", self.name)
    }

    /// What the client dials.
    pub fn address(&self) -> SocketAddr {
        (self.ip, PORT).into()
    }

    pub fn endpoints(&self) -> Vec<SocketAddr> {
        match self.behind {
            Behind::Plain(count) => (0..count).map(endpoint).collect(),
            Behind::Meshed { .. } => vec![(nth(MESHED, 1), BACKEND_PORT).into()],
        }
    }

    /// The path of its requests: the last route's, so that every route before it is tried.
    pub fn path(&self) -> String {
        if self.routes == 0 { "/".to_owned() } else { format!("/api/v1/{}/items", route_name(self.routes)) }
    }
}

/// An address of the backend.
pub(crate) fn endpoint(index: usize) -> SocketAddr {
    (nth(ENDPOINTS, 1 + number(index)), BACKEND_PORT).into()
}

/// The name of a route, counted from 1.
pub(crate) fn route_name(number: usize) -> String {
    format!("kind-{number}")
}

/// The paths of a route, counted from 1, as people write them in ServiceProfiles.
pub(crate) fn route_regex(number: usize) -> String {
    format!("/api/v1/{}/[^/]*", route_name(number))
}

fn nth(block: Ipv4Addr, number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(block.to_bits() + number)
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_services_share_an_address_or_a_name() {
        let services = Service::all();
        let addresses: HashSet<_> = services.iter().map(Service::address).collect();
        let names: HashSet<_> = services.iter().map(Service::host).collect();
        assert_eq!((addresses.len(), names.len()), (services.len(), services.len()));
    }

    #[test]
    fn a_thousand_endpoints_are_a_thousand_addresses() {
        let endpoints = Service::with_endpoints(1000).endpoints();
        assert_eq!(endpoints.iter().collect::<HashSet<_>>().len(), 1000);
        assert_eq!(endpoints[0], endpoint(0));
        assert_eq!(endpoints[999].to_string(), "10.1.3.232:8080");
    }

    #[test]
    fn requests_match_the_last_route() {
        assert_eq!(Service::with_routes(100).path(), "/api/v1/kind-100/items");
        assert_eq!(route_regex(100), "/api/v1/kind-100/[^/]*");
        assert_eq!(Service::plain(false).path(), "/");
    }
}
