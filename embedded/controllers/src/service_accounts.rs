//! What every namespace has: the ServiceAccount `default` and the ConfigMap `kube-root-ca.crt`.

use async_trait::async_trait;
use meshgate_store::{GroupResource, Status, Store};
use serde_json::json;

use crate::objects::{self, deleting, find, name, namespace, resources};
use crate::runner::{Controller, Key, Next, Seen, Watched};

const ACCOUNT: &str = "default";
const CERTIFICATE: &str = "kube-root-ca.crt";

const DESCRIPTION: &str = "The certificate that pods verify the API server by";

/// The controller; its keys are namespaces.
pub(crate) struct ServiceAccounts {
    store: Store,
    ca_pem: String,
}

impl ServiceAccounts {
    pub(crate) fn new(store: Store, ca_pem: String) -> Self {
        Self { store, ca_pem }
    }
}

#[async_trait]
impl Controller for ServiceAccounts {
    fn name(&self) -> &'static str {
        "serviceaccounts"
    }

    fn watched(&self) -> Watched {
        Watched::Some(vec![resources::namespaces(), resources::service_accounts(), resources::config_maps()])
    }

    fn keys(&mut self, seen: &Seen) -> Vec<Key> {
        let namespace = match (seen.resource == resources::namespaces(), name(&seen.object)) {
            (true, name) => name,
            (false, ACCOUNT | CERTIFICATE) => namespace(&seen.object),
            (false, _) => return Vec::new(),
        };
        vec![Key::new(resources::namespaces(), "", namespace)]
    }

    async fn reconcile(&mut self, key: &Key) -> Result<Next, Status> {
        let Some(namespace) = find(&self.store, &key.resource, "", &key.name)? else { return Ok(Next::Done) };
        if deleting(&namespace) {
            return Ok(Next::Done);
        }
        self.ensure(&resources::service_accounts(), &key.name, json!({"metadata": {"name": ACCOUNT}}))?;
        let map = json!({
            "metadata": {"name": CERTIFICATE, "annotations": {
                "kubernetes.io/description": DESCRIPTION,
            }},
            "data": {"ca.crt": self.ca_pem},
        });
        let data = map["data"].clone();
        self.ensure(&resources::config_maps(), &key.name, map.clone())?;
        objects::change(&self.store, &resources::config_maps(), &with_namespace(map, &key.name), |map| {
            map["data"] = data.clone();
        })?;
        Ok(Next::Done)
    }
}

impl ServiceAccounts {
    fn ensure(&self, resource: &GroupResource, namespace: &str, object: serde_json::Value) -> Result<(), Status> {
        if find(&self.store, resource, namespace, name(&object))?.is_some() {
            return Ok(());
        }
        match objects::create(&self.store, resource, namespace, object) {
            Err(error) if error.code != 409 => Err(error),
            _ => Ok(()),
        }
    }
}

fn with_namespace(mut object: serde_json::Value, namespace: &str) -> serde_json::Value {
    object["metadata"]["namespace"] = json!(namespace);
    object
}
