//! The kinds that say who may connect to a pod: Servers, and what authorizes clients of them.
//!
//! A network or an identity that cannot be read is left out with a warning, and lets nobody in: what is written to keep
//! somebody out must not let them in because of a mistake in it.

use std::collections::BTreeMap;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};

use crate::{
    Key, Kind,
    objects::{
        InboundPolicy, Pod,
        wire::{self, NumberOrString, policy as api},
    },
};

/// A port of some pods, or of some ExternalWorkloads.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    pub(crate) key: Key,
    pub(crate) labels: BTreeMap<String, String>,
    /// `None` selects no pod.
    pods: Option<Selector>,
    /// `None` selects no ExternalWorkload.
    external_workloads: Option<Selector>,
    pub(crate) port: Port,
    pub(crate) protocol: Protocol,
    /// Who may connect besides those whom authorizations name.
    pub(crate) access: Option<InboundPolicy>,
}

/// A container's port.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Port {
    Number(u16),
    Name(String),
}

/// What is spoken at a Server's port: `spec.proxyProtocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Unknown,
    Http1,
    Http2,
    Grpc,
    Opaque,
    Tls,
}

/// Whom an object lets in, and to what.
#[derive(Debug, Clone, PartialEq)]
pub struct Authorization {
    /// ServerAuthorization or AuthorizationPolicy.
    pub(crate) kind: Kind,
    pub(crate) key: Key,
    pub(crate) target: AuthorizationTarget,
    pub(crate) clients: AuthorizedClients,
}

/// What an authorization is for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AuthorizationTarget {
    Server(Key),
    Servers(String, Selector),
    Namespace(String),
    Route(Kind, Key),
    /// Something that is not authorized like this.
    Nothing,
}

/// Whom an authorization lets in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AuthorizedClients {
    /// These, as it says itself.
    Here(Networks, Identities),
    /// Who satisfies all of these.
    All(Vec<AuthenticationRef>),
}

/// What an AuthorizationPolicy requires of a client.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AuthenticationRef {
    Object(Kind, Key),
    ServiceAccount(Key),
    /// Nothing that is known: no client satisfies it.
    Unknown,
}

/// Networks with their exceptions; `None` is every network.
pub(crate) type Networks = Option<Vec<(IpNet, Vec<IpNet>)>>;

/// Who a client has to be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Identities {
    Anybody,
    /// Whoever speaks the mesh's TLS.
    Mesh,
    Named(Vec<IdentityRef>),
}

/// An identity, or all of some kind.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum IdentityRef {
    /// A name, `*`, or `*.` and the end of names.
    Pattern(String),
    ServiceAccount(Key),
    Namespace(String),
}

/// A MeshTLSAuthentication or a NetworkAuthentication.
#[derive(Debug, Clone, PartialEq)]
pub struct Authentication {
    pub(crate) kind: Kind,
    pub(crate) key: Key,
    pub(crate) requires: Requires,
}

/// What an authentication requires.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Requires {
    Identities(Vec<IdentityRef>),
    Networks(Vec<(IpNet, Vec<IpNet>)>),
}

impl Server {
    /// Whether this is the Server of a pod's port.
    pub(crate) fn is_for(&self, pod: &Pod, port: u16) -> bool {
        let port = match &self.port {
            Port::Number(number) => *number == port,
            Port::Name(name) => pod.named_ports.iter().any(|(own, number)| *number == port && own == name),
        };
        port && self.selects(pod)
    }

    /// Whether it can be the Server of a port of this number: of one that has a name only its pod knows.
    pub(crate) fn may_be_for(&self, port: u16) -> bool {
        match &self.port {
            Port::Number(number) => *number == port,
            Port::Name(_) => true,
        }
    }

    /// Whether it is for ports of a pod.
    pub(crate) fn selects(&self, pod: &Pod) -> bool {
        let selector = if pod.kind == Kind::ExternalWorkload { &self.external_workloads } else { &self.pods };
        self.key.namespace == pod.key.namespace && selector.as_ref().is_some_and(|pods| pods.matches(&pod.labels))
    }
}

impl From<api::Server> for Server {
    fn from(server: api::Server) -> Self {
        let api::Server { metadata, spec } = server;
        let key = wire::key(&metadata);
        Self {
            labels: metadata.labels.unwrap_or_default(),
            pods: spec.pod_selector.and_then(|pods| selector(&key, pods)),
            external_workloads: spec.external_workload_selector.and_then(|pods| selector(&key, pods)),
            port: match spec.port {
                NumberOrString::Number(number) => Port::Number(number as u16),
                NumberOrString::String(name) => name.parse().map_or(Port::Name(name), Port::Number),
            },
            protocol: match &*spec.proxy_protocol {
                "HTTP/1" => Protocol::Http1,
                "HTTP/2" => Protocol::Http2,
                "gRPC" => Protocol::Grpc,
                "opaque" => Protocol::Opaque,
                "TLS" => Protocol::Tls,
                _ => Protocol::Unknown,
            },
            access: InboundPolicy::parse(&spec.access_policy).filter(|policy| *policy != InboundPolicy::Deny),
            key,
        }
    }
}

impl From<api::ServerAuthorization> for Authorization {
    fn from(authorization: api::ServerAuthorization) -> Self {
        let api::ServerAuthorization { metadata, spec } = authorization;
        let key = wire::key(&metadata);
        let target = match (spec.server.name, spec.server.selector) {
            (Some(name), _) => AuthorizationTarget::Server(Key::new(&key.namespace, &name)),
            (None, Some(servers)) => selector(&key, servers).map_or(AuthorizationTarget::Nothing, |servers| {
                AuthorizationTarget::Servers(key.namespace.to_string(), servers)
            }),
            (None, None) => AuthorizationTarget::Nothing,
        };
        let identities = match spec.client.mesh_tls {
            _ if spec.client.unauthenticated => Identities::Anybody,
            Some(mesh) if mesh.unauthenticated_tls => Identities::Mesh,
            Some(mesh) => {
                let accounts = mesh.service_accounts.iter().map(|account| account_ref(&key, account));
                Identities::Named(mesh.identities.into_iter().map(IdentityRef::Pattern).chain(accounts).collect())
            }
            None => Identities::Named(Vec::new()),
        };
        let networks = spec.client.networks.map(|list| networks(&key, &list));
        Self { kind: Kind::ServerAuthorization, target, clients: AuthorizedClients::Here(networks, identities), key }
    }
}

impl From<api::AuthorizationPolicy> for Authorization {
    fn from(policy: api::AuthorizationPolicy) -> Self {
        let api::AuthorizationPolicy { metadata, spec } = policy;
        let key = wire::key(&metadata);
        let at = spec.target_ref;
        let target = match (at.group.as_deref().unwrap_or_default(), &*at.kind) {
            ("policy.linkerd.io", "Server") => AuthorizationTarget::Server(Key::new(&key.namespace, &at.name)),
            ("policy.linkerd.io", "HTTPRoute") => {
                AuthorizationTarget::Route(Kind::PolicyHttpRoute, Key::new(&key.namespace, &at.name))
            }
            ("gateway.networking.k8s.io", "HTTPRoute") => {
                AuthorizationTarget::Route(Kind::GatewayHttpRoute, Key::new(&key.namespace, &at.name))
            }
            ("gateway.networking.k8s.io", "GRPCRoute") => {
                AuthorizationTarget::Route(Kind::GatewayGrpcRoute, Key::new(&key.namespace, &at.name))
            }
            ("" | "core", "Namespace") if *at.name == *key.namespace => AuthorizationTarget::Namespace(at.name),
            (group, kind) => {
                tracing::warn!(%key, group, kind, "expected a Server, a route or the own Namespace as target; nothing is authorized");
                AuthorizationTarget::Nothing
            }
        };
        let required = spec.required_authentication_refs.iter().map(|one| {
            let named = Key::new(one.namespace.as_deref().unwrap_or(&key.namespace), &one.name);
            match (one.group.as_deref().unwrap_or_default(), &*one.kind) {
                ("policy.linkerd.io", "MeshTLSAuthentication") => {
                    AuthenticationRef::Object(Kind::MeshTlsAuthentication, named)
                }
                ("policy.linkerd.io", "NetworkAuthentication") => {
                    AuthenticationRef::Object(Kind::NetworkAuthentication, named)
                }
                ("" | "core", "ServiceAccount") => AuthenticationRef::ServiceAccount(named),
                (group, kind) => {
                    tracing::warn!(%key, group, kind, "the authentication is of no kind that is known; nobody satisfies it");
                    AuthenticationRef::Unknown
                }
            }
        });
        Self { kind: Kind::AuthorizationPolicy, target, clients: AuthorizedClients::All(required.collect()), key }
    }
}

impl From<api::MeshTLSAuthentication> for Authentication {
    fn from(authentication: api::MeshTLSAuthentication) -> Self {
        let api::MeshTLSAuthentication { metadata, spec } = authentication;
        let key = wire::key(&metadata);
        let references = spec.identity_refs.iter().map(|one| match &*one.kind {
            "Namespace" => IdentityRef::Namespace(one.name.clone()),
            _ => account_ref(&key, one),
        });
        let identities = spec.identities.into_iter().map(IdentityRef::Pattern).chain(references).collect();
        Self { kind: Kind::MeshTlsAuthentication, requires: Requires::Identities(identities), key }
    }
}

impl From<api::NetworkAuthentication> for Authentication {
    fn from(authentication: api::NetworkAuthentication) -> Self {
        let api::NetworkAuthentication { metadata, spec } = authentication;
        let key = wire::key(&metadata);
        Self { kind: Kind::NetworkAuthentication, requires: Requires::Networks(networks(&key, &spec.networks)), key }
    }
}

fn account_ref(from: &Key, account: &api::Reference) -> IdentityRef {
    IdentityRef::ServiceAccount(Key::new(account.namespace.as_deref().unwrap_or(&from.namespace), &account.name))
}

fn selector(key: &Key, labels: LabelSelector) -> Option<Selector> {
    let read = Selector::try_from(labels);
    read.inspect_err(|error| tracing::warn!(%key, %error, "a selector cannot be read and selects nothing")).ok()
}

pub(super) fn networks(key: &Key, list: &[api::Network]) -> Vec<(IpNet, Vec<IpNet>)> {
    // An address alone is a network as well.
    let read = |text: &String| text.parse().ok().or_else(|| text.parse().ok().map(|ip: std::net::IpAddr| ip.into()));
    let networks = list.iter().filter_map(|network| {
        let net = read(&network.cidr).zip(network.except.iter().map(read).collect());
        if net.is_none() {
            tracing::warn!(%key, ?network, "a network cannot be read and is left out");
        }
        net
    });
    networks.collect()
}
