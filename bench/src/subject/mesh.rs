//! Proxies that take Linkerd's environment: the bundled one, and any that is named by its path.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    authority::{Authority, write_identity},
    control_plane,
    process::Running,
    services::{BACKEND_PORT, POD, SERVER_NAME},
    world::{Cores, INBOUND_PORT, OUTBOUND_PORT, World},
};

const CLIENT_NAME: &str = "client.ns.serviceaccount.identity.linkerd.cluster.local";

/// Beside whom a proxy runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The client.
    Outbound { ingress: bool },
    /// The backend.
    Inbound,
}

/// Starts a proxy before the backend, on the core of the load.
pub(crate) fn inbound(
    command: &[PathBuf],
    world: &World,
    cores: Cores,
    authority: &Authority,
    folder: &Path,
) -> anyhow::Result<Running> {
    let mut command = self::command(command, Role::Inbound, authority, folder)?;
    command.current_dir(folder);
    Running::start(command, &world.node, cores.load, &folder.join("log"))
}

pub(super) fn command(
    command: &[PathBuf],
    role: Role,
    authority: &Authority,
    folder: &Path,
) -> anyhow::Result<Command> {
    let mut command = super::program(command)?;
    let name = match role {
        Role::Outbound { .. } => CLIENT_NAME,
        Role::Inbound => SERVER_NAME,
    };
    write_identity(folder, name)?;
    command.env_clear().envs(environment(role, name, authority.anchor(), folder));
    Ok(command)
}

/// The variables that Linkerd's injector writes.
fn environment(role: Role, name: &str, anchor: &str, folder: &Path) -> Vec<(&'static str, String)> {
    let mut variables = vec![
        ("LINKERD2_PROXY_LOG", "warn".to_owned()),
        ("LINKERD2_PROXY_CORES", "1".to_owned()),
        ("LINKERD2_PROXY_OUTBOUND_LISTEN_ADDRS", format!("127.0.0.1:{OUTBOUND_PORT}")),
        ("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", format!("0.0.0.0:{INBOUND_PORT}")),
        ("LINKERD2_PROXY_CONTROL_LISTEN_ADDR", "127.0.0.1:4190".to_owned()),
        ("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", "127.0.0.1:4191".to_owned()),
        ("LINKERD2_PROXY_INBOUND_DEFAULT_POLICY", "all-unauthenticated".to_owned()),
        ("LINKERD2_PROXY_INBOUND_PORTS", BACKEND_PORT.to_string()),
        ("LINKERD2_PROXY_DESTINATION_SVC_ADDR", control_plane::ADDRESS.to_owned()),
        ("LINKERD2_PROXY_DESTINATION_CONTEXT", r#"{"ns":"ns","nodeName":"node","pod":"pod"}"#.to_owned()),
        ("LINKERD2_PROXY_DESTINATION_PROFILE_SUFFIXES", "svc.cluster.local.".to_owned()),
        ("LINKERD2_PROXY_DESTINATION_PROFILE_NETWORKS", "10.0.0.0/8".to_owned()),
        ("LINKERD2_PROXY_POLICY_SVC_ADDR", control_plane::ADDRESS.to_owned()),
        ("LINKERD2_PROXY_POLICY_WORKLOAD", "ns:pod".to_owned()),
        ("LINKERD2_PROXY_POLICY_CLUSTER_NETWORKS", "10.0.0.0/8".to_owned()),
        ("LINKERD2_PROXY_IDENTITY_SVC_ADDR", control_plane::ADDRESS.to_owned()),
        ("LINKERD2_PROXY_IDENTITY_LOCAL_NAME", name.to_owned()),
        ("LINKERD2_PROXY_IDENTITY_DIR", folder.display().to_string()),
        ("LINKERD2_PROXY_IDENTITY_TOKEN_FILE", folder.join("token").display().to_string()),
        ("LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS", anchor.to_owned()),
    ];
    if let Role::Outbound { ingress } = role {
        variables.push(("LINKERD2_PROXY_INBOUND_IPS", POD.to_string()));
        if ingress {
            variables.push(("LINKERD2_PROXY_INGRESS_MODE", "true".to_owned()));
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use meshgate_proxy::Config;

    use super::*;

    #[test]
    fn the_bundled_proxy_understands_the_environment() {
        for role in [Role::Outbound { ingress: false }, Role::Outbound { ingress: true }, Role::Inbound] {
            let variables: HashMap<String, String> = environment(role, "a.b", "anchor", Path::new("/folder"))
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect();
            let config = Config::from_strings(&variables).unwrap();
            assert_eq!(config.ingress_mode, role == Role::Outbound { ingress: true });
            assert!(config.identity.is_some() && config.policy_addr.is_some());
        }
    }
}
