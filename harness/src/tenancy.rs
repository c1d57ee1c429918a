//! Being a guest on a cluster: what is made there is marked, and what somebody else made is left alone.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DynamicObject};
use meshgate_clusters::IMAGE;
use meshgate_clusters::remote::{ADMITS, OWNED, is_owned};
use parking_lot::Mutex;
use serde_json::Value;

use crate::kubernetes::describe;

/// How Meshgate behaves on a cluster that is not its own.
pub struct Tenancy {
    /// Meshgate's own image there.
    image: String,
    /// The labels of the nodes that pods are to be on.
    placement: BTreeMap<String, String>,
    /// Namespaces, and whether Meshgate made them.
    namespaces: Mutex<HashMap<String, bool>>,
}

/// What becomes of an object that a cell wants to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is made, or it is Meshgate's own and brought up to date.
    Made,
    /// Somebody else's definition of the same kind serves as well, and is left as it is.
    Used,
    /// Somebody else's object has its place.
    InTheWay,
}

impl Tenancy {
    /// On a cluster where Meshgate's own image has this name.
    pub fn new(image: impl Into<String>) -> Self {
        Self { image: image.into(), placement: BTreeMap::new(), namespaces: Mutex::default() }
    }

    /// The same, with pods on nodes of these labels.
    #[must_use]
    pub fn on(self, placement: BTreeMap<String, String>) -> Self {
        Self { placement, ..self }
    }

    /// The object as it is applied here: with the mark of what is Meshgate's, on its pods as well, the image by its name here, and pods where
    /// that image runs. They all are: which images Meshgate made is not known here, and of those that it did not there is one for every architecture.
    pub fn adapted(&self, object: &Value) -> Value {
        let mut object = object.clone();
        mark(&mut object["metadata"]);
        mark_pods(&mut object);
        if object["kind"] == "Namespace" && object["metadata"]["labels"][ADMITS].is_null() {
            object["metadata"]["labels"][ADMITS] = "privileged".into();
        }
        name_image(&mut object, &self.image);
        place(&mut object, &self.placement);
        object
    }

    /// What becomes of an object. `api` is its kind's, `None` if the cluster does not know the kind yet.
    ///
    /// # Errors
    /// When the API server does not say.
    pub async fn fate(
        &self,
        client: &kube::Client,
        api: Option<&Api<DynamicObject>>,
        object: &Value,
    ) -> anyhow::Result<Fate> {
        if let Some(namespace) = object["metadata"]["namespace"].as_str()
            && self.owns(client, namespace).await?
        {
            return Ok(Fate::Made);
        }
        let Some(api) = api else { return Ok(Fate::Made) };
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let found = api.get_metadata_opt(name).await.with_context(|| format!("looking for {}", describe(object)))?;
        Ok(match found {
            None => Fate::Made,
            Some(found) if is_owned(&found.metadata) => Fate::Made,
            Some(_) if object["kind"] == "CustomResourceDefinition" => Fate::Used,
            Some(_) => Fate::InTheWay,
        })
    }

    /// Refuses to go on where an object would take somebody else's place. True when it is to be applied.
    ///
    /// # Errors
    /// [`Fate::InTheWay`].
    pub async fn admits(
        &self,
        client: &kube::Client,
        api: &Api<DynamicObject>,
        object: &Value,
    ) -> anyhow::Result<bool> {
        match self.fate(client, Some(api), object).await? {
            Fate::Made => Ok(true),
            Fate::Used => Ok(false),
            Fate::InTheWay => bail!(
                "{} is on the cluster already, and Meshgate did not make it, so it is left alone: delete it, or use another cluster",
                describe(object)
            ),
        }
    }

    /// Whether Meshgate made a namespace. One that is not there yet is nobody's, and will be Meshgate's if a manifest makes it.
    pub(crate) async fn owns(&self, client: &kube::Client, name: &str) -> anyhow::Result<bool> {
        if let Some(known) = self.namespaces.lock().get(name) {
            return Ok(*known);
        }
        let api: Api<Namespace> = Api::all(client.clone());
        let found = api.get_metadata_opt(name).await.with_context(|| format!("looking for Namespace {name}"))?;
        let owns = found.is_none_or(|found| is_owned(&found.metadata));
        self.namespaces.lock().insert(name.to_owned(), owns);
        Ok(owns)
    }
}

/// Puts the mark into an object's metadata.
fn mark(metadata: &mut Value) {
    if metadata["labels"].is_null() {
        metadata["labels"] = serde_json::json!({});
    }
    metadata["labels"][OWNED] = "true".into();
}

/// Puts it on pods, wherever one is described: in a namespace of others nothing else tells them from theirs.
fn mark_pods(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields.get("spec").is_some_and(|spec| spec["containers"].is_array()) {
                mark(fields.entry("metadata").or_insert_with(|| Value::Object(serde_json::Map::new())));
            }
            fields.values_mut().for_each(mark_pods);
        }
        Value::Array(items) => items.iter_mut().for_each(mark_pods),
        _ => {}
    }
}

/// Puts an image's name in place of [`IMAGE`], wherever a container has it.
fn name_image(value: &mut Value, image: &str) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(named) if key == "image" && named == IMAGE => image.clone_into(named),
                    value => name_image(value, image),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| name_image(item, image)),
        _ => {}
    }
}

/// Has pods on nodes of these labels, wherever a pod is described and says nothing else of them.
fn place(value: &mut Value, placement: &BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            if fields.get("containers").is_some_and(Value::is_array) && !placement.is_empty() {
                let selector = fields.entry("nodeSelector").or_insert_with(|| Value::Object(serde_json::Map::new()));
                for (key, label) in placement {
                    if selector[key].is_null() {
                        selector[key] = label.as_str().into();
                    }
                }
            }
            fields.values_mut().for_each(|value| place(value, placement));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| place(item, placement)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_applied_is_marked_and_has_the_image_of_the_place() {
        let deployment = json!({
            "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {"template": {"spec": {
                "initContainers": [{"name": "init", "image": IMAGE}],
                "containers": [{"name": "web", "image": IMAGE}, {"name": "theirs", "image": "docker.io/library/traefik:v3"}],
            }}},
        });
        let adapted = Tenancy::new("registry.example/meshgate:1").adapted(&deployment);
        assert_eq!(adapted["metadata"]["labels"], json!({"app": "web", OWNED: "true"}));
        let pod = &adapted["spec"]["template"]["spec"];
        assert_eq!(pod["initContainers"][0]["image"], "registry.example/meshgate:1");
        assert_eq!(pod["containers"][0]["image"], "registry.example/meshgate:1");
        assert_eq!(pod["containers"][1]["image"], "docker.io/library/traefik:v3");
        assert!(pod["nodeSelector"].is_null(), "where all nodes are alike");
        assert_eq!(adapted["spec"]["template"]["metadata"]["labels"], json!({OWNED: "true"}), "its pods");
        assert_eq!(meshgate_inject::Options::default().image, IMAGE, "what the injector names is found again here");
        let unlabelled = Tenancy::new(IMAGE).adapted(&json!({"kind": "Namespace", "metadata": {"name": "n"}}));
        assert_eq!(unlabelled["metadata"]["labels"], json!({OWNED: "true", ADMITS: "privileged"}));
        let own = json!({"kind": "Namespace", "metadata": {"name": "n", "labels": {ADMITS: "baseline"}}});
        assert_eq!(
            Tenancy::new(IMAGE).adapted(&own)["metadata"]["labels"][ADMITS],
            "baseline",
            "who says so knows why"
        );
    }

    #[test]
    fn pods_are_placed_where_their_images_run_unless_they_say_where() {
        let placement = BTreeMap::from([("kubernetes.io/arch".to_owned(), "arm64".to_owned())]);
        let adapted = |pod: Value| {
            let object =
                json!({"kind": "Deployment", "metadata": {"name": "web"}, "spec": {"template": {"spec": pod}}});
            let adapted = Tenancy::new(IMAGE).on(placement.clone()).adapted(&object);
            adapted["spec"]["template"]["spec"]["nodeSelector"].clone()
        };
        let containers = json!([{"name": "web", "image": IMAGE}]);
        assert_eq!(adapted(json!({"containers": containers})), json!({"kubernetes.io/arch": "arm64"}));
        let own = json!({"containers": containers, "nodeSelector": {"kubernetes.io/arch": "amd64", "disk": "ssd"}});
        assert_eq!(adapted(own), json!({"kubernetes.io/arch": "amd64", "disk": "ssd"}));
        let crd =
            json!({"kind": "CustomResourceDefinition", "spec": {"properties": {"containers": {"type": "array"}}}});
        let adapted = Tenancy::new(IMAGE).on(placement.clone()).adapted(&crd);
        assert_eq!(adapted["spec"], crd["spec"], "what only looks like a pod");
    }
}
