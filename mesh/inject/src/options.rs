//! What the caller decides: the mode, the image, and where the control plane is.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Identity, Webhook};

/// How the proxy routes what its pod sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// By the address the application dials (`linkerd.io/inject: enabled`).
    #[default]
    Enabled,
    /// By each request's `l5d-dst-override` header (`linkerd.io/inject: ingress`).
    Ingress,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enabled => "enabled",
            Self::Ingress => "ingress",
        })
    }
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(value: &str) -> Result<Self, ()> {
        match value {
            "enabled" => Ok(Self::Enabled),
            "ingress" => Ok(Self::Ingress),
            _ => Err(()),
        }
    }
}

/// Which workloads are injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// Every workload that does not say `linkerd.io/inject: disabled`, as the command line does.
    #[default]
    All,
    /// Only workloads whose pod template asks for it by annotation, as an admission webhook does.
    Annotated,
}

/// The caller's decisions. [`Options::default`] fits the embedded cluster. As JSON they are what an injector in the cluster is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Options {
    /// The mode for workloads that do not name one. [`Mode::Ingress`] (`--ingress`) also overrules `enabled` on the
    /// workload.
    pub mode: Mode,
    /// Which workloads are injected.
    pub scope: Scope,
    /// Whether proxies are init containers that stay (`restartPolicy: Always`), where the workload does not say: Linkerd's default since 2.20.
    /// An application then starts once its proxy is ready, as do the init containers of its own, and a Job ends.
    pub native_sidecar: bool,
    /// The image of the proxy, of proxy-init and of the control plane.
    pub image: String,
    /// The version written to `linkerd.io/proxy-version`.
    pub version: String,
    /// The namespace of the control plane.
    pub control_plane_namespace: String,
    /// The cluster's DNS domain, without a dot at its end.
    pub cluster_domain: String,
    /// Networks (CIDR) in which the proxy asks the control plane about addresses.
    pub cluster_networks: Vec<String>,
    /// The proxy's log filter, where the workload names none.
    pub log_level: String,
    /// Namespaces whose pods are never injected.
    pub skipped_namespaces: Vec<String>,
    /// Who proxies are; without it they have no identity.
    pub identity: Option<Identity>,
    /// Whether [`control_plane_manifests`](crate::control_plane_manifests) bring Gateway API's HTTPRoute, GRPCRoute, TLSRoute and TCPRoute along.
    /// Leave it out where the cluster has Gateway API already.
    pub gateway_api: bool,
    /// Whether the control plane has an injector that the API server asks about every new pod, and who that is.
    pub webhook: Option<Webhook>,
}

impl Options {
    /// What an injector in the cluster has to know: all but the keys, for pods that ask for a proxy.
    pub(crate) fn of_webhook(&self) -> Self {
        let identity = self.identity.clone().map(|identity| Identity { issuer: None, ..identity });
        Self { scope: Scope::Annotated, identity, webhook: None, ..self.clone() }
    }
}

impl Default for Options {
    fn default() -> Self {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        Self {
            mode: Mode::default(),
            scope: Scope::default(),
            native_sidecar: false,
            image: "meshgate.dev/meshgate:dev".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            control_plane_namespace: "linkerd".into(),
            cluster_domain: "cluster.local".into(),
            // Linkerd's Helm chart counts these private networks as the cluster's.
            cluster_networks: owned(&["10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8"]),
            log_level: "warn,linkerd=info,meshgate=info".into(),
            // Linkerd's documentation of ingress controllers names both as never injected.
            skipped_namespaces: owned(&["kube-system", "cert-manager"]),
            identity: None,
            gateway_api: false,
            webhook: None,
        }
    }
}
