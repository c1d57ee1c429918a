//! `InboundServerPolicies`: who may connect to a port of a pod. There are no Servers yet, so each port has the pod's
//! default policy.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use linkerd2_proxy_api::inbound::{
    Authn, Authz, IdentitySuffix, Network, ProxyProtocol, Server, authn,
    authn::permit_mesh_tls::{Clients, PermitClientIdentities},
    proxy_protocol::{Detect, Kind, Opaque},
};

use crate::{
    Cluster, Key,
    answers::{default_ref, duration},
    index::State,
    objects::InboundPolicy,
};

/// What Linkerd's policy controller sends.
const DETECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The server behind a port of a pod. A pod that is not known yet has the default policy: its proxy asks while it starts,
/// and an answer that changes is better than none.
pub(crate) fn server(state: &State, cluster: &Cluster, pod: &Key, port: u16) -> Server {
    let pod = state.pod(pod);
    let policy = pod.map(|pod| pod.inbound_policy).unwrap_or_default();
    let opaque = pod.and_then(|pod| pod.opaque_ports.as_ref()).unwrap_or(&cluster.opaque_ports).contains(port);
    let kind = if opaque {
        Kind::Opaque(Opaque {})
    } else {
        Kind::Detect(Detect { timeout: duration(DETECT_TIMEOUT), ..Default::default() })
    };
    Server {
        protocol: Some(ProxyProtocol { kind: Some(kind) }),
        server_ips: pod.map(|pod| pod.ips.iter().map(|ip| (*ip).into()).collect()).unwrap_or_default(),
        authorizations: authorization(cluster, policy).into_iter().collect(),
        labels: labels(policy),
    }
}

fn labels(policy: InboundPolicy) -> HashMap<String, String> {
    [("group", ""), ("kind", "default"), ("name", policy.name())]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn authorization(cluster: &Cluster, policy: InboundPolicy) -> Option<Authz> {
    let everywhere = || vec![IpNet::V4(any_v4()), IpNet::V6(any_v6())];
    let (networks, authenticated) = match policy {
        InboundPolicy::AllUnauthenticated | InboundPolicy::Audit => (everywhere(), false),
        InboundPolicy::AllAuthenticated => (everywhere(), true),
        InboundPolicy::ClusterUnauthenticated => (cluster.networks.clone(), false),
        InboundPolicy::ClusterAuthenticated => (cluster.networks.clone(), true),
        InboundPolicy::Deny => return None,
    };
    let permit = if authenticated {
        // A suffix without parts is every identity.
        let identities = PermitClientIdentities { identities: Vec::new(), suffixes: vec![IdentitySuffix::default()] };
        authn::Permit::MeshTls(authn::PermitMeshTls { clients: Some(Clients::Identities(identities)) })
    } else {
        authn::Permit::Unauthenticated(authn::PermitUnauthenticated {})
    };
    Some(Authz {
        networks: networks.into_iter().map(|net| Network { net: Some(net.into()), except: Vec::new() }).collect(),
        authentication: Some(Authn { permit: Some(permit) }),
        labels: labels(policy),
        metadata: Some(default_ref(policy.name())),
    })
}

fn any_v4() -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)
}

fn any_v6() -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)
}

#[cfg(test)]
mod tests;
