//! `InboundServerPolicies`: what is spoken at a port of a pod, and who may connect to it.
//!
//! A Server that selects the pod and the port says so, with the authorizations that target it; a port without one has the
//! pod's default policy. As with Linkerd's policy controller, the paths of a pod's probes are open to everybody, unless a
//! Server has routes of its own.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use linkerd2_proxy_api::{
    http_route as matches, http_types,
    inbound::{
        Authn, Authz, GrpcRoute, HttpLocalRateLimit, HttpRoute, Identity, IdentitySuffix, Network, ProxyProtocol,
        Server, authn,
        authn::permit_mesh_tls::{Clients, PermitClientIdentities},
        grpc_route,
        http_local_rate_limit::{Limit, Override, r#override::ClientIdentities},
        http_route,
        proxy_protocol::{Detect, Grpc, Http1, Http2, Kind, Opaque, Tls},
    },
    meta::Metadata,
    outbound,
};
use tracing::warn;

use crate::{
    Cluster, Key,
    answers::{default_ref, duration, resource},
    index::State,
    objects::{
        self, AuthenticationRef, Authorization, AuthorizationTarget, AuthorizedClients, Identities, IdentityRef,
        InboundPolicy, Networks, Pod, Protocol, RateLimit, Requires, Route, Rules,
    },
};

/// What Linkerd's policy controller sends.
const DETECT_TIMEOUT: Duration = Duration::from_secs(10);

const GROUP: &str = "policy.linkerd.io";

/// What is known of a port of a pod or an ExternalWorkload; `None` if that is not known. Its proxy may ask before the pod has come here, and has been
/// told by the injector what holds until then: any answer would take the place of that, which may be `deny`.
pub(crate) fn server(state: &State, cluster: &Cluster, id: &(crate::Kind, Key), port: u16) -> Option<Server> {
    let pod = state.pod(id)?;
    let own = state.servers(&pod.key.namespace).find(|server| server.is_for(pod, port));
    let default = pod.inbound_policy_at(port);
    let opaque = pod.opaque_ports.as_ref().unwrap_or(&cluster.opaque_ports).contains(port);
    let (protocol, labels, authorizations) = match own {
        Some(server) => {
            let for_server = |one: &&Authorization| is_for_server(one, server);
            let named = state.authorizations().filter(for_server).filter_map(|one| authz(state, cluster, one));
            let access = server.access.and_then(|policy| default_authz(cluster, policy));
            let labels = labels(GROUP, "server", &server.key.name);
            (server.protocol, labels, named.chain(access).collect())
        }
        None => {
            let protocol = if opaque { Protocol::Opaque } else { Protocol::Unknown };
            let labels = labels("", "default", default.name());
            (protocol, labels, default_authz(cluster, default).into_iter().collect())
        }
    };
    let routes = own.map(|server| state.routes_of_server(&server.key)).unwrap_or_default();
    let limit = own.and_then(|server| state.rate_limit(&server.key)).map(|limit| rate_limit(cluster, limit));
    Some(Server {
        protocol: Some(ProxyProtocol {
            kind: Some(Routes { state, cluster, pod, port, own: &routes }.of(protocol, limit)),
        }),
        server_ips: pod.ips.iter().map(|ip| (*ip).into()).collect(),
        authorizations,
        labels,
    })
}

/// The routes of a port.
struct Routes<'a> {
    state: &'a State,
    cluster: &'a Cluster,
    pod: &'a Pod,
    port: u16,
    /// Those of its Server.
    own: &'a [&'a Route],
}

impl Routes<'_> {
    /// What is spoken, and the routes for that: HTTPRoutes unless it is known to be gRPC, and then GRPCRoutes.
    fn of(&self, protocol: Protocol, limit: Option<HttpLocalRateLimit>) -> Kind {
        match protocol {
            Protocol::Unknown => Kind::Detect(Detect {
                timeout: duration(DETECT_TIMEOUT),
                http_routes: self.http(),
                http_local_rate_limit: limit,
            }),
            Protocol::Http1 => Kind::Http1(Http1 { routes: self.http(), local_rate_limit: limit }),
            Protocol::Http2 => Kind::Http2(Http2 { routes: self.http(), local_rate_limit: limit }),
            // The message has no field for limits.
            Protocol::Grpc => Kind::Grpc(Grpc { routes: self.grpc() }),
            Protocol::Opaque => Kind::Opaque(Opaque {}),
            Protocol::Tls => Kind::Tls(Tls {}),
        }
    }

    fn http(&self) -> Vec<HttpRoute> {
        let routes = self.own.iter().filter_map(|route| {
            let Rules::Http(rules) = &route.rules else { return None };
            let rules = rules.iter().map(|rule| http_route::Rule {
                matches: rule.matches.clone(),
                filters: rule.filters.iter().filter_map(|filter| http_filter(&route.key, filter)).collect(),
            });
            let (metadata, authorizations) = self.about(route);
            Some(HttpRoute { metadata, hosts: route.hosts.clone(), authorizations, rules: rules.collect() })
        });
        let routes: Vec<_> = routes.collect();
        if routes.is_empty() { default_routes(self.pod, self.port) } else { routes }
    }

    fn grpc(&self) -> Vec<GrpcRoute> {
        let routes = self.own.iter().filter_map(|route| {
            let Rules::Grpc(rules) = &route.rules else { return None };
            let rules = rules.iter().map(|rule| grpc_route::Rule {
                matches: rule.matches.clone(),
                filters: rule.filters.iter().filter_map(grpc_filter).collect(),
            });
            let (metadata, authorizations) = self.about(route);
            Some(GrpcRoute { metadata, hosts: route.hosts.clone(), authorizations, rules: rules.collect() })
        });
        let routes: Vec<_> = routes.collect();
        if routes.is_empty() {
            let all = grpc_route::Rule { matches: vec![Default::default()], filters: Vec::new() };
            return vec![GrpcRoute { metadata: Some(default_ref("default")), rules: vec![all], ..Default::default() }];
        }
        routes
    }

    /// Which route it is, and whom it lets in besides those whom the Server does.
    fn about(&self, route: &Route) -> (Option<Metadata>, Vec<Authz>) {
        let (group, kind) = route.resource();
        let is_for = |one: &&Authorization| matches!(&one.target, AuthorizationTarget::Route(kind, key) if *kind == route.kind && *key == route.key);
        let authorizations = self.state.authorizations().filter(is_for);
        let authorizations = authorizations.filter_map(|one| authz(self.state, self.cluster, one)).collect();
        (Some(resource(group, kind, &route.key, 0)), authorizations)
    }
}

fn rate_limit(cluster: &Cluster, limit: &RateLimit) -> HttpLocalRateLimit {
    let at_most = |requests_per_second| Limit { requests_per_second };
    let overrides = limit.overrides.iter().map(|(requests, clients)| Override {
        limit: Some(at_most(*requests)),
        clients: Some(ClientIdentities {
            identities: clients.iter().filter_map(|account| account_identity(cluster, account)).collect(),
        }),
    });
    HttpLocalRateLimit {
        metadata: Some(resource(GROUP, "HTTPLocalRateLimitPolicy", &limit.key, 0)),
        total: limit.total.map(at_most),
        identity: limit.identity.map(at_most),
        overrides: overrides.collect(),
    }
}

/// Everything, under the Server's own authorizations, and the probes' paths, under one of their own.
fn default_routes(pod: &Pod, port: u16) -> Vec<HttpRoute> {
    let rule = |matches| http_route::Rule { matches, filters: Vec::new() };
    let all = vec![objects::match_everything()];
    let mut routes =
        vec![HttpRoute { metadata: Some(default_ref("default")), rules: vec![rule(all)], ..Default::default() }];
    let probes: Vec<_> = pod
        .probes
        .iter()
        .filter(|(at, _)| *at == port)
        .map(|(_, path)| matches::HttpRouteMatch {
            path: Some(matches::PathMatch { kind: Some(matches::path_match::Kind::Exact(path.clone())) }),
            method: Some(http_types::HttpMethod {
                r#type: Some(http_types::http_method::Type::Registered(
                    http_types::http_method::Registered::Get.into(),
                )),
            }),
            ..Default::default()
        })
        .collect();
    if !probes.is_empty() {
        let authz = Authz {
            networks: network_messages(&None),
            authentication: permit(authn::Permit::Unauthenticated(authn::PermitUnauthenticated {})),
            labels: labels("", "default", "probe"),
            metadata: Some(default_ref("probe")),
        };
        routes.push(HttpRoute {
            metadata: Some(default_ref("probe")),
            authorizations: vec![authz],
            rules: vec![rule(probes)],
            ..Default::default()
        });
    }
    routes
}

/// On arrival there are all filters but those of responses.
fn http_filter(route: &Key, filter: &outbound::http_route::Filter) -> Option<http_route::Filter> {
    use http_route::filter::Kind as Arrival;
    use outbound::http_route::filter::Kind;
    let kind = match filter.kind.clone()? {
        Kind::FailureInjector(fail) => Arrival::FailureInjector(fail),
        Kind::RequestHeaderModifier(change) => Arrival::RequestHeaderModifier(change),
        Kind::Redirect(to) => Arrival::Redirect(to),
        Kind::ResponseHeaderModifier(_) => {
            warn!(%route, "a Server's route cannot change headers of responses; the filter is ignored");
            return None;
        }
    };
    Some(http_route::Filter { kind: Some(kind) })
}

fn grpc_filter(filter: &outbound::grpc_route::Filter) -> Option<grpc_route::Filter> {
    use grpc_route::filter::Kind as Arrival;
    use outbound::grpc_route::filter::Kind;
    let kind = match filter.kind.clone()? {
        Kind::FailureInjector(fail) => Arrival::FailureInjector(fail),
        Kind::RequestHeaderModifier(change) => Arrival::RequestHeaderModifier(change),
    };
    Some(grpc_route::Filter { kind: Some(kind) })
}

fn is_for_server(authorization: &Authorization, server: &objects::Server) -> bool {
    match &authorization.target {
        AuthorizationTarget::Server(key) => *key == server.key,
        AuthorizationTarget::Servers(namespace, selector) => {
            use kube::core::SelectorExt;
            **namespace == *server.key.namespace && selector.matches(&server.labels)
        }
        AuthorizationTarget::Namespace(namespace) => **namespace == *server.key.namespace,
        AuthorizationTarget::Route(..) | AuthorizationTarget::Nothing => false,
    }
}

/// What an object lets in; `None` if it is nobody, since something that it requires is not there.
fn authz(state: &State, cluster: &Cluster, authorization: &Authorization) -> Option<Authz> {
    let key = &authorization.key;
    let kind = match authorization.kind {
        crate::Kind::ServerAuthorization => "serverauthorization",
        _ => "authorizationpolicy",
    };
    let (networks, identities) = match &authorization.clients {
        AuthorizedClients::Here(networks, identities) => (networks.clone(), identities.clone()),
        AuthorizedClients::All(required) => required_clients(state, key, required)?,
    };
    Some(Authz {
        networks: network_messages(&networks),
        authentication: permit(identity_permit(cluster, &identities)),
        labels: labels(GROUP, kind, &key.name),
        metadata: Some(resource(GROUP, kind, key, 0)),
    })
}

/// As Linkerd's policy controller: of each kind of authentication at most one.
fn required_clients(state: &State, key: &Key, required: &[AuthenticationRef]) -> Option<(Networks, Identities)> {
    let (mut networks, mut identities) = (None, Identities::Anybody);
    for one in required {
        let requires = match one {
            AuthenticationRef::Object(kind, name) => match state.authentication(*kind, name) {
                Some(found) => found.requires.clone(),
                None => {
                    warn!(%key, ?kind, %name, "an authentication that is required does not exist; nobody is authorized");
                    return None;
                }
            },
            AuthenticationRef::ServiceAccount(account) => {
                Requires::Identities(vec![IdentityRef::ServiceAccount(account.clone())])
            }
            AuthenticationRef::Unknown => return None,
        };
        let twice = match requires {
            Requires::Networks(list) => networks.replace(list).is_some(),
            Requires::Identities(list) => {
                std::mem::replace(&mut identities, Identities::Named(list)) != Identities::Anybody
            }
        };
        if twice {
            warn!(%key, "two authentications of one kind cannot both be required; nobody is authorized");
            return None;
        }
    }
    Some((networks, identities))
}

fn identity_permit(cluster: &Cluster, identities: &Identities) -> authn::Permit {
    let clients = match identities {
        Identities::Anybody => return authn::Permit::Unauthenticated(authn::PermitUnauthenticated {}),
        Identities::Mesh => Clients::Unauthenticated(authn::PermitUnauthenticated {}),
        Identities::Named(list) => {
            let mut named = PermitClientIdentities::default();
            for one in list {
                add_identity(&mut named, cluster, one);
            }
            Clients::Identities(named)
        }
    };
    authn::Permit::MeshTls(authn::PermitMeshTls { clients: Some(clients) })
}

fn add_identity(named: &mut PermitClientIdentities, cluster: &Cluster, identity: &IdentityRef) {
    let parts = |text: &str| IdentitySuffix { parts: text.split('.').map(str::to_owned).collect() };
    let domain = cluster.identity.as_ref().map(|domain| domain.suffix());
    match (identity, domain) {
        (IdentityRef::Pattern(pattern), _) => match pattern.strip_prefix('*') {
            // A suffix without parts is every identity.
            Some("") => named.suffixes.push(IdentitySuffix::default()),
            Some(end) => named.suffixes.push(parts(end.trim_start_matches('.'))),
            None => named.identities.push(Identity { name: pattern.clone() }),
        },
        (IdentityRef::ServiceAccount(account), _) => named.identities.extend(account_identity(cluster, account)),
        (IdentityRef::Namespace(namespace), Some(domain)) => {
            named.suffixes.push(parts(&format!("{namespace}.{domain}")));
        }
        // Where nobody has an identity, nobody has this one.
        (IdentityRef::Namespace(_), None) => {}
    }
}

/// `None` where nobody has an identity.
fn account_identity(cluster: &Cluster, account: &Key) -> Option<Identity> {
    let domain = cluster.identity.as_ref()?.suffix();
    Some(Identity { name: format!("{}.{}.{domain}", account.name, account.namespace) })
}

/// What a policy by name lets in: nobody if it is `deny`.
fn default_authz(cluster: &Cluster, policy: InboundPolicy) -> Option<Authz> {
    let cluster_only = || Some(cluster.networks.iter().map(|net| (*net, Vec::new())).collect());
    let anyone_identified = || Identities::Named(vec![IdentityRef::Pattern("*".to_owned())]);
    let (networks, identities) = match policy {
        InboundPolicy::AllUnauthenticated | InboundPolicy::Audit => (None, Identities::Anybody),
        InboundPolicy::AllAuthenticated => (None, anyone_identified()),
        InboundPolicy::ClusterUnauthenticated => (cluster_only(), Identities::Anybody),
        InboundPolicy::ClusterAuthenticated => (cluster_only(), anyone_identified()),
        InboundPolicy::Deny => return None,
    };
    Some(Authz {
        networks: network_messages(&networks),
        authentication: permit(identity_permit(cluster, &identities)),
        labels: labels("", "default", policy.name()),
        metadata: Some(default_ref(policy.name())),
    })
}

fn permit(permit: authn::Permit) -> Option<Authn> {
    Some(Authn { permit: Some(permit) })
}

fn network_messages(networks: &Networks) -> Vec<Network> {
    let everywhere = || {
        vec![
            (IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)), Vec::new()),
            (IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)), Vec::new()),
        ]
    };
    let list = networks.clone().unwrap_or_else(everywhere);
    list.into_iter()
        .map(|(net, except)| Network { net: Some(net.into()), except: except.into_iter().map(Into::into).collect() })
        .collect()
}

fn labels(group: &str, kind: &str, name: &str) -> HashMap<String, String> {
    [("group", group), ("kind", kind), ("name", name)].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

#[cfg(test)]
mod tests;
