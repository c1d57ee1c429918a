//! Definitions of kinds that are on a cluster already, made by somebody else: whether they serve what a run needs.

use std::collections::BTreeSet;

use anyhow::Context as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::Api;
use meshgate_clusters::remote::is_owned;
use serde_json::Value;

use crate::kubernetes::describe;

/// Those among these objects in whose place there is one that does not serve, a sentence each.
///
/// # Errors
/// When the API server does not say.
pub(crate) async fn unsuitable(client: &kube::Client, objects: &[&Value]) -> anyhow::Result<Vec<String>> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut found = Vec::new();
    for ours in objects.iter().filter(|object| object["kind"] == "CustomResourceDefinition") {
        let name = ours["metadata"]["name"].as_str().unwrap_or_default();
        let theirs = api.get_opt(name).await.with_context(|| format!("looking for {}", describe(ours)))?;
        if let Some(theirs) = theirs.filter(|theirs| !is_owned(&theirs.metadata)) {
            found.extend(lack(ours, &theirs, objects));
        }
    }
    Ok(found)
}

/// What a definition does not serve that a run needs: the versions of the objects that it makes, else one that a controller may watch.
fn lack(ours: &Value, theirs: &CustomResourceDefinition, objects: &[&Value]) -> Option<String> {
    let spec = &theirs.spec;
    let served: BTreeSet<&str> =
        spec.versions.iter().filter(|version| version.served).map(|version| version.name.as_str()).collect();
    let of_kind = objects.iter().filter(|object| object["kind"] == *spec.names.kind);
    let used: BTreeSet<&str> = of_kind
        .filter_map(|object| object["apiVersion"].as_str()?.split_once('/'))
        .filter(|(group, _)| *group == spec.group)
        .map(|(_, version)| version)
        .collect();
    let versions = ours["spec"]["versions"].as_array().into_iter().flatten();
    let own: BTreeSet<&str> =
        versions.filter(|version| version["served"] == true).filter_map(|version| version["name"].as_str()).collect();
    let needed: Vec<&str> = match used.is_empty() {
        true if own.is_disjoint(&served) => own.into_iter().collect(),
        true => Vec::new(),
        false => used.difference(&served).copied().collect(),
    };
    if needed.is_empty() {
        return None;
    }
    let served: Vec<&str> = served.into_iter().collect();
    Some(format!(
        "{}, which Meshgate did not make and so would use as it is: expected it to serve {}, found that it serves {}; bring it up to date, or \
         use another cluster",
        describe(ours),
        needed.join(", "),
        if served.is_empty() { "nothing".to_owned() } else { served.join(", ") }
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(versions: &[(&str, bool)]) -> Value {
        let versions: Vec<Value> =
            versions.iter().map(|(name, served)| json!({"name": name, "served": served, "storage": false})).collect();
        json!({
            "kind": "CustomResourceDefinition", "metadata": {"name": "routes.example.com"},
            "spec": {
                "group": "example.com", "scope": "Namespaced", "names": {"kind": "Route", "plural": "routes"}, "versions": versions,
            },
        })
    }

    #[test]
    fn a_definition_of_others_has_to_serve_what_is_made() {
        let ours = definition(&[("v1", true), ("v1beta1", true)]);
        let route = |version: &str| json!({"apiVersion": format!("example.com/{version}"), "kind": "Route"});
        let namesake = json!({"apiVersion": "other.example/v9", "kind": "Route"});
        let lack = |theirs: &[(&str, bool)], objects: &[Value]| {
            let theirs = serde_json::from_value(definition(theirs)).unwrap();
            lack(&ours, &theirs, &objects.iter().collect::<Vec<_>>())
        };
        let older = [("v1beta1", true), ("v1", false)];
        let said = lack(&older, &[route("v1"), namesake.clone()]).unwrap();
        assert!(
            said.contains("routes.example.com") && said.contains("serve v1, found that it serves v1beta1;"),
            "{said}"
        );
        assert_eq!(lack(&older, &[route("v1beta1"), namesake]), None);
        assert_eq!(lack(&older, &[]), None, "a controller watches one of its versions");
        assert!(lack(&[("v2", true)], &[]).unwrap().contains("serve v1, v1beta1, found that it serves v2;"));
    }
}
