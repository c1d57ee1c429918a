//! What other programs print as manifests, as objects.

use serde::Deserialize;
use serde_json::Value;

/// A document that is no YAML.
#[derive(Debug, thiserror::Error)]
#[error("document {number}: expected a Kubernetes object as YAML: {cause}")]
pub struct ManifestError {
    /// Which, from 1.
    number: usize,
    /// What the parser found.
    cause: serde_yaml::Error,
}

/// The objects of a YAML stream; those of lists one by one, empty documents not at all.
///
/// These programs write for kubectl, which reads YAML 1.1: a file mode with a leading zero is a number there and text in YAML 1.2.
///
/// # Errors
/// [`ManifestError`].
pub fn objects(text: &str) -> Result<Vec<Value>, ManifestError> {
    let mut objects = Vec::new();
    for (index, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
        let failed = |cause| ManifestError { number: index + 1, cause };
        let mut value = serde_yaml::Value::deserialize(document).map_err(failed)?;
        value.apply_merge().map_err(failed)?;
        let mut object: Value = serde_yaml::from_value(value).map_err(failed)?;
        file_modes(&mut object);
        push(object, &mut objects);
    }
    Ok(objects)
}

fn push(object: Value, objects: &mut Vec<Value>) {
    let is_list = object["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    match object {
        Value::Null => {}
        Value::Object(mut list) if is_list && list.get("items").is_some_and(Value::is_array) => {
            if let Some(Value::Array(items)) = list.remove("items") {
                items.into_iter().for_each(|item| push(item, objects));
            }
        }
        object => objects.push(object),
    }
}

/// Makes numbers of `defaultMode: 0644` and `mode: 0644`.
fn file_modes(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(file_modes),
        Value::Object(fields) => {
            for (name, value) in fields {
                let text = value
                    .as_str()
                    .filter(|text| text.starts_with('0') && matches!(name.as_str(), "defaultMode" | "mode"));
                match text.and_then(|text| i64::from_str_radix(text, 8).ok()) {
                    Some(mode) => *value = mode.into(),
                    None => file_modes(value),
                }
            }
        }
        _ => {}
    }
}

/// The groups of Kubernetes itself that have namespaced kinds, and the kinds in them that are not.
const GROUPS: [&str; 9] = [
    "",
    "apps",
    "autoscaling",
    "batch",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
];
const CLUSTER_WIDE: [&str; 6] =
    ["Namespace", "Node", "PersistentVolume", "ClusterRole", "ClusterRoleBinding", "IngressClass"];

/// Puts objects that name no namespace into this one, as `kubectl apply --namespace` and `helm install` do.
///
/// Of custom resources nothing is known but to the cluster; they stay as they are.
pub fn into_namespace(objects: &mut [Value], namespace: &str) {
    for object in objects {
        let group =
            object["apiVersion"].as_str().and_then(|version| version.split_once('/')).map_or("", |(group, _)| group);
        let kind = object["kind"].as_str().unwrap_or_default();
        let names_one = object["metadata"]["namespace"].is_string();
        if !names_one && GROUPS.contains(&group) && !CLUSTER_WIDE.contains(&kind) && object["metadata"].is_object() {
            object["metadata"]["namespace"] = namespace.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_taken_apart_and_nothing_is_no_object() {
        let text = "---\n# only a comment\n---\nkind: A\n---\nkind: List\nitems: [{kind: B}, {kind: CList, items: [{kind: C}]}]\n---\n";
        let kinds: Vec<Value> = objects(text).unwrap().into_iter().map(|object| object["kind"].clone()).collect();
        assert_eq!(kinds, ["A", "B", "C"]);
        assert!(objects("").unwrap().is_empty());
    }

    #[test]
    fn file_modes_are_numbers_as_kubectl_reads_them() {
        let text = "volumes: [{secret: {defaultMode: 0644, items: [{mode: 0400, path: '0644'}]}}, {configMap: {defaultMode: 420}}]";
        let expected = json!({"volumes": [
            {"secret": {"defaultMode": 420, "items": [{"mode": 256, "path": "0644"}]}},
            {"configMap": {"defaultMode": 420}},
        ]});
        assert_eq!(objects(text).unwrap(), [expected]);
    }

    #[test]
    fn what_is_no_yaml_is_told_by_its_number() {
        let error = objects("a: 1\n---\nb: [\n").unwrap_err().to_string();
        assert!(error.starts_with("document 2: expected a Kubernetes object as YAML"), "{error}");
    }

    #[test]
    fn only_what_has_a_namespace_is_put_into_one() {
        let object =
            |version: &str, kind: &str| json!({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}});
        let mut all = [
            object("v1", "Service"),
            object("apps/v1", "Deployment"),
            object("rbac.authorization.k8s.io/v1", "RoleBinding"),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "theirs"}}),
            object("v1", "Namespace"),
            object("networking.k8s.io/v1", "IngressClass"),
            object("gateway.networking.k8s.io/v1", "GatewayClass"),
            object("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        ];
        into_namespace(&mut all, "ours");
        let namespaces: Vec<_> = all.iter().map(|object| object["metadata"]["namespace"].as_str()).collect();
        assert_eq!(namespaces, [Some("ours"), Some("ours"), Some("ours"), Some("theirs"), None, None, None, None]);
    }
}
