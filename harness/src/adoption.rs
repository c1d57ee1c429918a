//! Ingresses of other people that a controller would take for its own.
//!
//! A controller takes what names its class, whoever made that: a run would serve it, and write its own address into its status. By an
//! IngressClass that is somebody else's a run is stopped anyway, since that object has the place of one of its own; but an annotation
//! names a class of which there is no object, and so does an Ingress whose class is gone.

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::Ingress;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use meshgate_clusters::remote::is_owned;
use serde_json::Value;

/// The older way to name a class, which many controllers still follow.
const ANNOTATION: &str = "kubernetes.io/ingress.class";

/// Those of the cluster that name a class of these objects, as `Ingress namespace/name (class nginx)`.
///
/// # Errors
/// When the API server does not list them.
pub(crate) async fn adopted<'a>(
    client: &kube::Client,
    objects: impl Iterator<Item = &'a Value>,
) -> Result<Vec<String>, kube::Error> {
    let classes = classes(objects);
    if classes.is_empty() {
        return Ok(Vec::new());
    }
    let api: Api<Ingress> = Api::all(client.clone());
    let found = api.list(&ListParams::default()).await?;
    Ok(found.items.iter().filter_map(|ingress| adopted_by(&classes, ingress)).collect())
}

/// The classes that objects are, or name.
fn classes<'a>(objects: impl Iterator<Item = &'a Value>) -> BTreeSet<&'a str> {
    let named = |object: &'a Value| match object["kind"].as_str() {
        Some("IngressClass") => [object["metadata"]["name"].as_str(), None],
        Some("Ingress") => {
            [object["spec"]["ingressClassName"].as_str(), object["metadata"]["annotations"][ANNOTATION].as_str()]
        }
        _ => [None, None],
    };
    objects.flat_map(named).flatten().collect()
}

fn adopted_by(classes: &BTreeSet<&str>, ingress: &Ingress) -> Option<String> {
    if is_owned(&ingress.metadata) {
        return None;
    }
    let by_field = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref());
    let by_annotation = ingress.annotations().get(ANNOTATION).map(String::as_str);
    let class = by_field.into_iter().chain(by_annotation).find(|class| classes.contains(class))?;
    let namespace = ingress.namespace().unwrap_or_default();
    Some(format!("Ingress {namespace}/{} (class {class})", ingress.name_any()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_names_a_class_of_the_run_would_be_adopted() {
        let objects = [
            json!({"kind": "IngressClass", "metadata": {"name": "nginx"}}),
            json!({"kind": "Ingress", "spec": {"ingressClassName": "contour"}}),
            json!({"kind": "Ingress", "metadata": {"annotations": {ANNOTATION: "gce"}}}),
            json!({"kind": "Service", "metadata": {"name": "web"}}),
        ];
        let classes = classes(objects.iter());
        assert_eq!(classes, ["contour", "gce", "nginx"].into());
        let of = |labels: Value, annotations: Value, spec: Value| {
            let metadata = json!({"name": "theirs", "namespace": "shop", "labels": labels, "annotations": annotations});
            adopted_by(&classes, &serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
        };
        let found = of(json!({}), json!({ANNOTATION: "nginx"}), json!({}));
        assert_eq!(found.as_deref(), Some("Ingress shop/theirs (class nginx)"));
        assert!(of(json!({}), json!({}), json!({"ingressClassName": "contour"})).is_some());
        assert_eq!(of(json!({}), json!({}), json!({"ingressClassName": "other"})), None);
        assert_eq!(of(json!({}), json!({}), json!({})), None, "one without a class is nobody's");
        assert_eq!(of(json!({"meshgate.dev/owned": "true"}), json!({ANNOTATION: "nginx"}), json!({})), None);
    }
}
