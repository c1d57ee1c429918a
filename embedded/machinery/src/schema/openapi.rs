//! The schemas of built-in kinds as OpenAPI documents show them, for `kubectl explain`.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::Builtin;

/// The name of a built-in kind's schema, e.g. `io.k8s.api.apps.v1.Deployment`.
pub fn name(group: &str, version: &str, kind: &str) -> Option<String> {
    Some(Builtin::find(group, version, kind)?.schema_name())
}

/// `components.schemas` for kinds of one group and version: their schemas, named as upstream and marked with
/// `x-kubernetes-group-version-kind`, and all that they refer to. Kinds that are not built in are left out.
pub fn components<'a>(group: &str, version: &str, kinds: impl IntoIterator<Item = &'a str>) -> Map<String, Value> {
    let mut generator = SchemaSettings::openapi3().into_generator();
    let kinds: Vec<&Builtin> = kinds.into_iter().filter_map(|kind| Builtin::find(group, version, kind)).collect();
    kinds.iter().for_each(|kind| kind.generate(&mut generator));
    let mut schemas = generator.take_definitions(true);
    for kind in kinds {
        if let Some(schema) = schemas.get_mut(&kind.schema_name()) {
            schema["x-kubernetes-group-version-kind"] =
                json!([{"group": group, "version": version, "kind": kind.kind()}]);
        }
    }
    schemas
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_lead_somewhere() {
        fn check(schemas: &Map<String, Value>, value: &Value) {
            match value {
                Value::Object(map) => {
                    if let Some(target) = map.get("$ref").and_then(Value::as_str) {
                        let name = target.strip_prefix("#/components/schemas/");
                        assert!(name.is_some_and(|name| schemas.contains_key(name)), "{target}");
                    }
                    map.values().for_each(|value| check(schemas, value));
                }
                Value::Array(items) => items.iter().for_each(|value| check(schemas, value)),
                _ => {}
            }
        }
        let schemas = components("apps", "v1", ["Deployment", "DaemonSet", "Widget"]);
        check(&schemas, &Value::Object(schemas.clone()));
        let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
        assert_eq!(
            deployment["x-kubernetes-group-version-kind"],
            json!([{"group": "apps", "version": "v1", "kind": "Deployment"}])
        );
        assert!(deployment["description"].is_string());
        assert!(schemas.contains_key("io.k8s.api.core.v1.PodSpec"));
        assert!(!schemas.contains_key("io.k8s.api.batch.v1.Job"));
        assert_eq!(name("", "v1", "Pod").as_deref(), Some("io.k8s.api.core.v1.Pod"));
        assert_eq!(name("", "v2", "Pod"), None);
    }
}
