//! The policies that have a name and need no control plane.

/// Who may connect to a port that has no Server: `LINKERD2_PROXY_INBOUND_DEFAULT_POLICY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultPolicy {
    /// Everybody.
    AllUnauthenticated,
    /// Whoever speaks the mesh's TLS.
    AllMtlsUnauthenticated,
    /// Whoever has an identity of the mesh.
    AllAuthenticated,
    /// Everybody in the cluster's networks.
    ClusterUnauthenticated,
    /// Whoever speaks the mesh's TLS and is in the cluster's networks.
    ClusterMtlsUnauthenticated,
    /// Whoever has an identity and is in the cluster's networks.
    ClusterAuthenticated,
    /// Nobody but the pod itself.
    Deny,
    /// Everybody; what a policy would have refused is counted under this name.
    Audit,
}

impl DefaultPolicy {
    const ALL: [Self; 8] = [
        Self::AllUnauthenticated,
        Self::AllMtlsUnauthenticated,
        Self::AllAuthenticated,
        Self::ClusterUnauthenticated,
        Self::ClusterMtlsUnauthenticated,
        Self::ClusterAuthenticated,
        Self::Deny,
        Self::Audit,
    ];

    pub(super) const EXPECTED: &str = "`all-unauthenticated`, `all-authenticated`, `all-mtls-unauthenticated`, the same \
                                       with `cluster-`, `deny` or `audit`";

    pub(super) fn parse(value: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.name() == value)
    }

    /// Linkerd's name for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AllUnauthenticated => "all-unauthenticated",
            Self::AllMtlsUnauthenticated => "all-mtls-unauthenticated",
            Self::AllAuthenticated => "all-authenticated",
            Self::ClusterUnauthenticated => "cluster-unauthenticated",
            Self::ClusterMtlsUnauthenticated => "cluster-mtls-unauthenticated",
            Self::ClusterAuthenticated => "cluster-authenticated",
            Self::Deny => "deny",
            Self::Audit => "audit",
        }
    }

    /// Whether clients have to be in the cluster's networks.
    pub(crate) fn is_for_cluster(self) -> bool {
        matches!(self, Self::ClusterUnauthenticated | Self::ClusterMtlsUnauthenticated | Self::ClusterAuthenticated)
    }
}
