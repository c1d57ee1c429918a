//! Who may connect to a port of the pod and what is spoken there: the answer of `InboundServerPolicies`, compiled.
//!
//! An authorization of the server holds for all of its requests; one of a route for that route's only. What comes from the
//! pod itself is always let in, as in Linkerd.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use governor::clock::MonotonicClock;
use http::Request;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use linkerd2_proxy_api::{
    inbound::{self as api, authn, http_route, proxy_protocol::Kind},
    meta::{Metadata, metadata},
};
use tracing::warn;

use super::rate_limit::RateLimits;
use crate::{
    config::DefaultPolicy,
    filters::Filters,
    http::ProxyError,
    matches::{Hosts, RouteEntry, RouteTable, RuleMatches},
    metrics::{Labels, Variant},
    tls::Peer,
};

/// The policy of a port.
pub(crate) struct ServerPolicy {
    pub(crate) protocol: Protocol,
    /// `srv_group`, `srv_kind`, `srv_name`, `srv_port`.
    pub(crate) labels: Labels,
    name: Arc<str>,
    authorizations: Vec<Authorization>,
    routes: RouteTable<Route, Filters>,
    limits: Option<RateLimits>,
}

/// Why a request is not passed on, for what is counted of that.
pub(crate) enum Refusal<'a> {
    /// There is no route for it.
    Unrouted,
    /// The route with these labels does not let the client in.
    Denied(Labels),
    /// The client is let in, but with one request too many for the limit with these labels.
    Limited(&'a Permit, Labels),
    /// The client is let in, and told something by the route itself.
    Filtered(&'a Permit),
}

/// What is spoken at a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// To be found out, for as long as this at most, or the proxy's own time.
    Detect(Option<Duration>),
    /// HTTP/1, or HTTP/2 from a client's proxy.
    Http1,
    Http2,
    /// Nothing that is looked into, not even for TLS between proxies.
    Opaque,
    /// TLS of the application's own, which is passed on as it is. TLS between proxies may be around it.
    Tls,
}

struct Route {
    /// `route_group`, `route_kind`, `route_name`.
    labels: Labels,
    /// The server's and its own.
    authorizations: Vec<Authorization>,
}

struct Authorization {
    networks: Vec<(IpNet, Vec<IpNet>)>,
    clients: Clients,
    permit: Arc<Permit>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Clients {
    Anybody,
    /// Whoever speaks the mesh's TLS.
    Mesh,
    /// Whoever has one of these names, or one that ends like this. An empty end is every name.
    Identities {
        names: Vec<String>,
        ends: Vec<String>,
    },
}

/// By what a client was let in, as the labels of what is counted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Permit {
    /// Those of the server, of the route if there is one, and of the authorization.
    pub(crate) labels: Labels,
    /// Those of the route and the server that newer families have; `None` for a connection.
    pub(crate) route: Option<(Variant, Labels)>,
}

impl ServerPolicy {
    /// What holds until the control plane has said something: a policy by the name that the injector gives the proxy.
    pub(crate) fn named(policy: DefaultPolicy, cluster: &[IpNet], protocol: Protocol, port: u16) -> Self {
        let name = policy.name();
        let metadata = Metadata { kind: Some(metadata::Kind::Default(name.to_owned())) };
        let clients = match policy {
            DefaultPolicy::AllUnauthenticated | DefaultPolicy::ClusterUnauthenticated | DefaultPolicy::Audit => {
                Some(Clients::Anybody)
            }
            DefaultPolicy::AllMtlsUnauthenticated | DefaultPolicy::ClusterMtlsUnauthenticated => Some(Clients::Mesh),
            DefaultPolicy::AllAuthenticated | DefaultPolicy::ClusterAuthenticated => {
                Some(Clients::Identities { names: Vec::new(), ends: vec![String::new()] })
            }
            DefaultPolicy::Deny => None,
        };
        let networks = if policy.is_for_cluster() { cluster.to_vec() } else { everywhere() };
        let networks = networks.into_iter().map(|net| (net, Vec::new())).collect();
        let authz = clients.map(|clients| (networks, clients, metadata));
        Self::new(protocol, ["", "default", name], port, authz.into_iter().collect(), None)
    }

    /// From the control plane's answer.
    pub(crate) fn compile(server: &api::Server, port: u16) -> Self {
        let label = |key: &str| server.labels.get(key).map_or("", String::as_str);
        let kind = server.protocol.as_ref().and_then(|protocol| protocol.kind.as_ref());
        let (protocol, routes) = match kind {
            Some(Kind::Detect(detect)) => {
                let timeout = detect.timeout.and_then(|timeout| Duration::try_from(timeout).ok());
                (Protocol::Detect(timeout), Some(Routes::Http(&detect.http_routes)))
            }
            Some(Kind::Http1(http)) => (Protocol::Http1, Some(Routes::Http(&http.routes))),
            Some(Kind::Http2(http)) => (Protocol::Http2, Some(Routes::Http(&http.routes))),
            Some(Kind::Grpc(grpc)) => (Protocol::Http2, Some(Routes::Grpc(&grpc.routes))),
            Some(Kind::Opaque(_)) => (Protocol::Opaque, None),
            Some(Kind::Tls(_)) => (Protocol::Tls, None),
            None => (Protocol::Detect(None), None),
        };
        let limits = match kind {
            Some(Kind::Detect(detect)) => detect.http_local_rate_limit.as_ref(),
            Some(Kind::Http1(http)) => http.local_rate_limit.as_ref(),
            Some(Kind::Http2(http)) => http.local_rate_limit.as_ref(),
            _ => None,
        };
        let authorizations = server.authorizations.iter().filter_map(read).collect();
        let policy = Self::new(protocol, ["group", "kind", "name"].map(label), port, authorizations, routes);
        Self { limits: limits.map(|limits| RateLimits::compile(limits, &MonotonicClock)), ..policy }
    }

    fn new(
        protocol: Protocol,
        server: [&str; 3],
        port: u16,
        authorizations: Vec<Read>,
        routes: Option<Routes<'_>>,
    ) -> Self {
        let (labels, parent) = (self::server("srv", server, port), self::server("parent", server, port));
        let variant = if matches!(routes, Some(Routes::Grpc(_))) { Variant::Grpc } else { Variant::Http };
        let build = |start: &Labels, counted: Option<Labels>, own: &[Read]| -> Vec<Authorization> {
            // The pod's own come last, so that a client is counted under what its owner wrote.
            let each = authorizations.iter().chain(own).cloned().chain([local()]);
            each.map(|(networks, clients, metadata)| {
                let labels = start.clone().followed_by(&reference("authz", &metadata));
                let route = counted.clone().map(|labels| (variant, labels));
                Authorization { networks, clients, permit: Arc::new(Permit { labels, route }) }
            })
            .collect()
        };
        let route = |metadata: Option<&Metadata>, own: &[api::Authz]| {
            let route = reference("route", metadata.unwrap_or(&Metadata::default()));
            let own: Vec<_> = own.iter().filter_map(read).collect();
            let counted = parent.clone().followed_by(&route);
            Route { authorizations: build(&labels.clone().followed_by(&route), Some(counted), &own), labels: route }
        };
        let table = match routes {
            Some(Routes::Http(routes)) if !routes.is_empty() => {
                let each = routes.iter().map(|one| {
                    let entry = route(one.metadata.as_ref(), &one.authorizations);
                    let rules = one.rules.iter().filter_map(|rule| {
                        Some((RuleMatches::of_http(&rule.matches, &entry.labels)?, http_filters(&rule.filters)))
                    });
                    RouteEntry { rules: rules.collect(), hosts: Hosts::of(&one.hosts), route: entry }
                });
                each.collect()
            }
            Some(Routes::Grpc(routes)) if !routes.is_empty() => {
                let each = routes.iter().map(|one| {
                    let entry = route(one.metadata.as_ref(), &one.authorizations);
                    let rules = one.rules.iter().filter_map(|rule| {
                        Some((RuleMatches::of_grpc(&rule.matches, &entry.labels)?, grpc_filters(&rule.filters)))
                    });
                    RouteEntry { rules: rules.collect(), hosts: Hosts::of(&one.hosts), route: entry }
                });
                each.collect()
            }
            _ => {
                let all = Metadata { kind: Some(metadata::Kind::Default("default".to_owned())) };
                let rules = vec![(RuleMatches::default(), Filters::default())];
                vec![RouteEntry { route: route(Some(&all), &[]), hosts: Hosts::default(), rules }]
            }
        };
        let authorizations = build(&labels, None, &[]);
        Self { protocol, labels, name: server[2].into(), authorizations, routes: RouteTable(table), limits: None }
    }

    /// What lets a connection in that is not looked into.
    pub(crate) fn permit(&self, client: SocketAddr, peer: &Peer) -> Option<&Arc<Permit>> {
        permit(&self.authorizations, client.ip(), peer)
    }

    /// Applies the route of a request.
    ///
    /// # Errors
    /// There is none, or it does not let the client in, or says itself what the client is told; or there are too many requests.
    pub(crate) fn request<B>(
        &self,
        client: SocketAddr,
        peer: &Peer,
        request: &mut Request<B>,
    ) -> Result<&Arc<Permit>, (Refusal<'_>, ProxyError)> {
        let unrouted = || (Refusal::Unrouted, ProxyError::NoInboundRoute);
        let chosen = self.routes.choose(request).ok_or_else(unrouted)?;
        let Some(permit) = permit(&chosen.route.authorizations, client.ip(), peer) else {
            let labels = self.labels.clone().followed_by(&chosen.route.labels);
            let error = ProxyError::Unauthorized { client, server: Arc::clone(&self.name) };
            return Err((Refusal::Denied(labels), error));
        };
        if let Some(limits) = &self.limits {
            limits.check(peer.client_id()).map_err(|exceeded| {
                let labels = self.labels.clone().followed_by(&limits.labels(exceeded));
                (Refusal::Limited(permit, labels), ProxyError::RateLimited(exceeded))
            })?;
        }
        let filtered = |error| (Refusal::Filtered(permit), error);
        chosen.rule.on_request(request, chosen.prefix()).map_err(filtered)?;
        Ok(permit)
    }
}

fn permit<'a>(authorizations: &'a [Authorization], client: IpAddr, peer: &Peer) -> Option<&'a Arc<Permit>> {
    authorizations.iter().find(|one| one.includes(client) && one.clients.include(peer)).map(|one| &one.permit)
}

impl Authorization {
    fn includes(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        let within = |net: &IpNet| net.contains(&client);
        self.networks.iter().any(|(net, except)| within(net) && !except.iter().any(within))
    }
}

impl Clients {
    fn include(&self, peer: &Peer) -> bool {
        match self {
            Self::Anybody => true,
            Self::Mesh => matches!(peer, Peer::Mesh(_)),
            Self::Identities { names, ends } => peer.client_id().is_some_and(|id| {
                let ends_with =
                    |end: &String| id.strip_suffix(&**end).is_some_and(|rest| end.is_empty() || rest.ends_with('.'));
                names.iter().any(|name| **name == **id) || ends.iter().any(ends_with)
            }),
        }
    }
}

/// An authorization before it has the labels of what it is for.
type Read = (Vec<(IpNet, Vec<IpNet>)>, Clients, Metadata);

enum Routes<'a> {
    Http(&'a [api::HttpRoute]),
    Grpc(&'a [api::GrpcRoute]),
}

/// `None` for one that lets nobody in, as one that cannot be read does.
fn read(authz: &api::Authz) -> Option<Read> {
    let net = |net: &linkerd2_proxy_api::net::IpNetwork| IpNet::try_from(*net).ok();
    let networks = authz.networks.iter().filter_map(|network| {
        // An exception that cannot be read must not let in what it was to keep out.
        let except = network.except.iter().map(net).collect::<Option<Vec<_>>>()?;
        Some((net(network.net.as_ref()?)?, except))
    });
    let networks: Vec<_> = networks.collect();
    if networks.len() < authz.networks.len() {
        warn!(?authz, "a network of an authorization cannot be read and lets nobody in");
    }
    let clients = match authz.authentication.as_ref()?.permit.as_ref()? {
        authn::Permit::Unauthenticated(_) => Clients::Anybody,
        authn::Permit::MeshTls(mesh) => match mesh.clients.as_ref()? {
            authn::permit_mesh_tls::Clients::Unauthenticated(_) => Clients::Mesh,
            authn::permit_mesh_tls::Clients::Identities(identities) => Clients::Identities {
                names: identities.identities.iter().map(|identity| identity.name.clone()).collect(),
                ends: identities.suffixes.iter().map(|suffix| suffix.parts.join(".")).collect(),
            },
        },
    };
    let named = || {
        let label = |key: &str| authz.labels.get(key).cloned().unwrap_or_default();
        Metadata { kind: Some(metadata::Kind::Default(label("name"))) }
    };
    Some((networks, clients, authz.metadata.clone().unwrap_or_else(named)))
}

/// Clients in the pod.
fn local() -> Read {
    let v4 = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8));
    let v6 = IpNet::from(IpAddr::from(Ipv6Addr::LOCALHOST));
    let name = Metadata { kind: Some(metadata::Kind::Default("localhost".to_owned())) };
    (vec![(v4, Vec::new()), (v6, Vec::new())], Clients::Anybody, name)
}

fn everywhere() -> Vec<IpNet> {
    vec![IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())]
}

/// `srv_group`, `srv_kind`, `srv_name`, `srv_port`, or the same by another prefix.
fn server(prefix: &str, [group, kind, name]: [&str; 3], port: u16) -> Labels {
    Labels::new()
        .with(&format!("{prefix}_group"), group)
        .with(&format!("{prefix}_kind"), kind)
        .with(&format!("{prefix}_name"), name)
        .with_display(&format!("{prefix}_port"), port)
}

/// `route_group`, `route_kind`, `route_name`, or the same of an authorization or of limits.
pub(super) fn reference(prefix: &str, metadata: &Metadata) -> Labels {
    let (group, kind, name) = match &metadata.kind {
        Some(metadata::Kind::Resource(resource)) => (&*resource.group, &*resource.kind, &*resource.name),
        Some(metadata::Kind::Default(name)) => ("", "default", &**name),
        None => ("", "", ""),
    };
    Labels::new()
        .with(&format!("{prefix}_group"), group)
        .with(&format!("{prefix}_kind"), kind)
        .with(&format!("{prefix}_name"), name)
}

fn http_filters(filters: &[http_route::Filter]) -> Filters {
    let mut all = Filters::default();
    for filter in filters.iter().filter_map(|filter| filter.kind.as_ref()) {
        match filter {
            http_route::filter::Kind::FailureInjector(fail) => all.fail(fail),
            http_route::filter::Kind::RequestHeaderModifier(change) => all.change_request(change),
            http_route::filter::Kind::Redirect(to) => all.redirect(to),
        }
    }
    all
}

fn grpc_filters(filters: &[api::grpc_route::Filter]) -> Filters {
    use api::grpc_route::filter::Kind;
    let mut all = Filters::default();
    for filter in filters.iter().filter_map(|filter| filter.kind.as_ref()) {
        match filter {
            Kind::FailureInjector(fail) => all.fail_grpc(fail),
            Kind::RequestHeaderModifier(change) => all.change_request(change),
        }
    }
    all
}

#[cfg(test)]
mod tests;
