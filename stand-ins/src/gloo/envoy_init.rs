//! What starts Envoy in the image `gloo-envoy-wrapper` (`projects/envoyinit`): it fills into the bootstrap what it is told of the pod, and
//! becomes Envoy.
//!
//! ```text
//! /etc/envoy/envoy.yaml ─ who opens the port of xDS? ─┬─ Gloo: that is what Envoy begins with
//!                                                     └─ its stand-in: what that has written beside the files that Envoy watches
//! ```

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use serde_json::Value;

use super::player::{Player, player};
use super::{BOOTSTRAP, FOLDER};
use crate::flags::Flags;
use crate::objects::{items, text};

/// The role.
pub(crate) async fn main(flags: Flags) -> anyhow::Result<()> {
    let file = std::env::var("INPUT_CONF").unwrap_or_else(|_| "/etc/envoy/envoy.yaml".to_owned());
    let template = std::fs::read_to_string(&file).with_context(|| file.clone())?;
    let of_pod = |name: &str| std::env::var(name).unwrap_or_default();
    let bootstrap = Bootstrap::read(&template, &of_pod("POD_NAME"), &of_pod("POD_NAMESPACE")).context(file)?;
    let begins = bootstrap.begins(Path::new(FOLDER)).await;
    let error = Command::new("envoy").args(begins).args(flags.given()).exec();
    Err(error).context("cannot start envoy")
}

/// What Envoy begins with.
#[derive(Debug)]
struct Bootstrap {
    text: String,
    /// Where it looks for xDS.
    xds: (String, u16),
}

impl Bootstrap {
    fn read(template: &str, pod: &str, namespace: &str) -> anyhow::Result<Self> {
        let text = template.replace("{{.PodName}}", pod).replace("{{.PodNamespace}}", namespace);
        let value: Value = serde_yaml::from_str(&text)?;
        let xds =
            xds(&value).context("dynamic_resources.ads_config: expected a cluster with an address, found none")?;
        Ok(Self { text, xds })
    }

    /// The arguments that tell Envoy so.
    async fn begins(self, folder: &Path) -> [String; 2] {
        let (address, port) = &self.xds;
        let plays = player((address.as_str(), *port), folder).await;
        match plays {
            Player::Gloo => ["--config-yaml".to_owned(), self.text],
            Player::StandIn => ["-c".to_owned(), folder.join(BOOTSTRAP).display().to_string()],
        }
    }
}

/// The address of the cluster that `ads_config` names.
fn xds(bootstrap: &Value) -> Option<(String, u16)> {
    let named = &bootstrap["dynamic_resources"]["ads_config"]["grpc_services"][0]["envoy_grpc"]["cluster_name"];
    let cluster = items(bootstrap, "/static_resources/clusters").find(|cluster| cluster["name"] == *named)?;
    let endpoint = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
    let address = &endpoint["address"]["socket_address"];
    let port = address["port_value"].as_u64().and_then(|port| u16::try_from(port).ok())?;
    Some((text(address, "/address").to_owned(), port))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::XDS_PORT;
    use super::*;

    /// The bootstrap that is installed.
    fn installed() -> String {
        let fixtures = meshgate_fixtures::Fixtures::built_in().unwrap();
        let gloo = fixtures.controller("gloo").unwrap();
        let values = BTreeMap::from([("workload", "w".to_owned()), ("version", "1".to_owned())]);
        let objects = gloo.instance.instantiate(&values).unwrap();
        let settings = objects.iter().find(|object| object["kind"] == "ConfigMap").unwrap();
        settings["data"]["envoy.yaml"].as_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn what_is_installed_leads_to_the_pods_own_gloo_unless_the_stand_in_plays_it() {
        let mut bootstrap = Bootstrap::read(&installed(), "w-1", "gloo-system").unwrap();
        assert_eq!(bootstrap.xds, ("127.0.0.1".to_owned(), XDS_PORT));
        let node = &serde_yaml::from_str::<Value>(&bootstrap.text).unwrap()["node"];
        assert_eq!(node["id"], "w-1.gloo-system");
        assert_eq!(node["metadata"]["role"], "gloo-system~gateway-proxy");

        let folder = tempfile::tempdir().unwrap();
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        bootstrap.xds.1 = listener.local_addr().unwrap().port();
        let again = Bootstrap { text: bootstrap.text.clone(), xds: bootstrap.xds.clone() };
        assert_eq!(again.begins(folder.path()).await, ["--config-yaml".to_owned(), bootstrap.text.clone()]);
        let file = folder.path().join(BOOTSTRAP);
        std::fs::write(&file, "{}").unwrap();
        assert_eq!(bootstrap.begins(folder.path()).await, ["-c".to_owned(), file.display().to_string()]);
    }

    #[test]
    fn without_an_address_for_xds_it_says_so() {
        let other = installed().replace("- name: gloo.gloo-system", "- name: other");
        let error = Bootstrap::read(&other, "", "").unwrap_err().to_string();
        assert!(error.contains("dynamic_resources.ads_config"), "{error}");
    }
}
