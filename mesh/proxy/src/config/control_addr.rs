//! Where a service of the control plane is, and who must be there.

use std::net::IpAddr;

use rustls::pki_types::DnsName;

use super::{
    Strings,
    parse::{self, Reader},
};

/// A service of the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlAddr {
    /// `host:port`.
    pub authority: String,
    /// The identity that it must prove in TLS. Without one it is spoken to in plaintext.
    pub name: Option<DnsName<'static>>,
}

impl ControlAddr {
    pub(super) fn read(read: &mut Reader<'_, impl Strings>, addr: &'static str, name: &'static str) -> Self {
        Self {
            authority: read.required(addr, "`host:port` of the control plane", parse::authority),
            name: read.optional(
                name,
                "a name such as `linkerd-destination.linkerd.serviceaccount.identity.linkerd.cluster.local`",
                parse::dns_name,
            ),
        }
    }

    /// Outside of the pod nobody is spoken to who does not prove who it is, as in Linkerd, unless identities are `optional`.
    pub(super) fn expected(self, read: &mut Reader<'_, impl Strings>, name: &'static str, optional: bool) -> Self {
        if self.name.is_none() && !optional && self.is_away() {
            read.miss(
                name,
                "the identity of who is at that address, which is not on loopback; with MESHGATE_PROXY_IDENTITY=optional it is spoken to \
                 in plaintext",
            );
        }
        self
    }

    /// Without the name where nothing comes of it: where the proxy `verifies` nobody, and in the proxy's own pod, in which Linkerd's
    /// proxies speak plaintext whatever the name (`linkerd/app/src/env.rs`), unless loopback is to be an address as any other.
    pub(super) fn verified(self, verifies: bool, loopback: bool) -> Self {
        let name = self.name.clone().filter(|_| verifies && (loopback || !self.is_loopback()));
        Self { name, ..self }
    }

    /// Whether it is known and not in the proxy's own pod.
    pub(super) fn is_away(&self) -> bool {
        !self.authority.is_empty() && !self.is_loopback()
    }

    /// Whether it is in the proxy's own pod.
    pub(crate) fn is_loopback(&self) -> bool {
        let host = self.authority.rsplit_once(':').map_or(&*self.authority, |(host, _)| host);
        let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
        ip.map_or(host.trim_end_matches('.').eq_ignore_ascii_case("localhost"), |ip| ip.to_canonical().is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_must_be_there_is_asked_outside_of_the_pod_and_by_who_can_tell() {
        let at = |authority: &str| ControlAddr { authority: authority.to_owned(), name: parse::dns_name("linkerd") };
        let named = |authority, verifies, loopback| at(authority).verified(verifies, loopback).name.is_some();
        for away in ["linkerd-dst.linkerd.svc.cluster.local.:8086", "10.0.0.1:8086", "[fd00::1]:8086"] {
            assert!(named(away, true, false) && named(away, true, true) && !named(away, false, true), "{away}");
        }
        for here in ["localhost:8086", "localhost.:8086", "127.0.0.2:8086", "[::1]:8086"] {
            assert!(!named(here, true, false) && named(here, true, true) && !named(here, false, true), "{here}");
        }
    }
}
