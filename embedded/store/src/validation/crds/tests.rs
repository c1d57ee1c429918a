use serde_json::{Value, json};

use crate::{GroupResource, Store, WriteOptions};

/// A definition of widgets with a schema in each of its versions.
fn widgets(schemas: &[Value]) -> Value {
    let version = |(index, schema): (usize, &Value)| json!({"name": format!("v{}", index + 1), "served": true, "storage": index == 0, "schema": {"openAPIV3Schema": schema}});
    json!({"metadata": {"name": "widgets.e.io"}, "spec": {
        "group": "e.io", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
        "versions": schemas.iter().enumerate().map(version).collect::<Vec<_>>(),
    }})
}

/// What a definition is refused with, without the part that is always the same.
fn refusal(crd: Value) -> Option<String> {
    let crds = GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions");
    let error = Store::new().create(&crds, "", crd, &WriteOptions::default()).err()?;
    assert_eq!((error.code, error.reason.as_str()), (422, "Invalid"), "{error}");
    let (_, problem) = error.message.split_once(" is invalid: ").unwrap();
    Some(problem.to_owned())
}

/// The refusal of a schema that has a property `a`, with the path to it cut off.
fn of_property(a: &Value) -> Option<String> {
    let schema = json!({"type": "object", "properties": {"a": a}});
    Some(refusal(widgets(&[schema]))?.replace("spec.validation.openAPIV3Schema.properties[a]", "a"))
}

#[test]
fn structural_schemas_are_taken() {
    for a in [
        json!({"type": "object", "additionalProperties": {"type": "string"}}),
        json!({"type": "object", "additionalProperties": true}),
        json!({"x-kubernetes-preserve-unknown-fields": true}),
        json!({"x-kubernetes-int-or-string": true, "default": "50%"}),
        json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
        json!({"x-kubernetes-int-or-string": true, "allOf": [
            {"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"pattern": "^[0-9]"},
        ]}),
        json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
        json!({"type": "object", "properties": {"b": {"type": "string"}}, "oneOf": [
            {"required": ["b"]}, {"not": {"properties": {"b": {"enum": ["x"]}}}},
        ]}),
        json!({"type": "object", "oneOf": [{"properties": {"unknown": {"enum": ["x"]}}}]}),
        json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}),
        json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n", "p"], "items": {
            "type": "object", "required": ["n"],
            "properties": {"n": {"type": "string"}, "p": {"type": "string", "default": "TCP"}},
        }}),
        json!({"type": "array", "items": {"type": "integer"}, "default": [1, 2]}),
    ] {
        assert_eq!(of_property(&a), None, "{a}");
    }
    let metadata = json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}}});
    let root = json!({"type": "object", "properties": {"metadata": metadata, "kind": {"type": "string"}}});
    assert_eq!(refusal(widgets(&[root])), None);
}

#[test]
fn every_value_has_a_type_where_it_stands() {
    for (a, problem) in [
        (json!({}), "a.type: Required value: must not be empty for specified object fields"),
        (json!({"type": "array"}), "a.items: Required value: must be specified"),
        (
            json!({"type": "array", "items": {}}),
            "a.items.type: Required value: must not be empty for specified array items",
        ),
        (
            json!({"type": "object", "additionalProperties": {}}),
            "a.additionalProperties.type: Required value: must not be empty for specified object fields",
        ),
        (
            json!({"type": "foo"}),
            "a.type: Unsupported value: \"foo\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
        ),
        (
            json!({"type": "string", "anyOf": [{"type": "string"}]}),
            "a.anyOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true}),
            "a.properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ),
    ] {
        assert_eq!(of_property(&a).as_deref(), Some(problem), "{a}");
    }
    let root = "spec.validation.openAPIV3Schema";
    for (schema, problem) in [
        (json!({"type": "string"}), format!("{root}.type: Invalid value: \"string\": must be object at the root")),
        (
            json!({"type": "object", "oneOf": [{"properties": {"b": {"enum": ["x"]}}}]}),
            format!("{root}.properties[b]: Required value: because it is defined in {root}.oneOf[0].properties[b]"),
        ),
        (
            json!({"type": "object", "nullable": true}),
            format!("{root}.nullable: Forbidden: nullable cannot be true at the root"),
        ),
        (
            json!({"type": "object", "additionalProperties": true}),
            format!("{root}.additionalProperties: Forbidden: must not be used at the root"),
        ),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
            format!(
                "{root}.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified"
            ),
        ),
    ] {
        assert_eq!(refusal(widgets(&[schema])), Some(problem));
    }
}

#[test]
fn defaults_are_of_their_type() {
    let string = json!({"type": "string", "default": 5});
    let problem = "a.default: Invalid value: \"integer\":  in body must be of type string: \"integer\"";
    assert_eq!(of_property(&string).as_deref(), Some(problem));
    let inner = json!({"type": "object", "properties": {"b": {"type": "integer"}}, "default": {"b": "x"}});
    let problem = "a.default.b: Invalid value: \"string\": b in body must be of type integer: \"string\"";
    assert_eq!(of_property(&inner).as_deref(), Some(problem));
    let kind = json!({"type": "object", "properties": {"kind": {"type": "string", "default": "Widget"}}});
    let problem =
        "spec.validation.openAPIV3Schema.properties[kind].default: Forbidden: must not be set in top-level kind";
    assert_eq!(refusal(widgets(&[kind])).as_deref(), Some(problem));
}

#[test]
fn lists_say_how_they_merge() {
    let map = |keys: Value, item: Value| json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys, "items": item});
    let item = json!({"type": "object", "properties": {"n": {"type": "string"}}});
    for (a, problem) in [
        (
            map(json!(["n"]), item.clone()),
            "a.items.properties[n].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
        ),
        (
            map(json!(["m"]), item.clone()),
            "a.x-kubernetes-list-map-keys: Invalid value: [\"m\"]: entries must all be names of item properties",
        ),
        (
            map(json!([]), item),
            "a.x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "object", "x-kubernetes-map-type": "granular"}}),
            "a.items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with x-kubernetes-list-type=set",
        ),
        (
            json!({"type": "string", "x-kubernetes-list-type": "atomic"}),
            "a.type: Invalid value: \"string\": must be array if x-kubernetes-list-type is specified",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}, "properties": {"b": {"type": "string"}}}),
            "a.additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
    ] {
        assert_eq!(of_property(&a).as_deref(), Some(problem), "{a}");
    }
}

#[test]
fn a_schema_of_one_version_is_told_of_by_its_version() {
    let (good, bad) = (json!({"type": "object"}), json!({"type": "object", "properties": {"a": {}}}));
    let problem = refusal(widgets(&[good, bad])).unwrap();
    assert!(problem.starts_with("spec.versions[1].schema.openAPIV3Schema.properties[a].type: Required"), "{problem}");
}

/// The refusal of a definition some of whose fields, given by pointers, have other values.
fn changed(changes: &[(&str, Value)]) -> String {
    let mut crd = widgets(&[json!({"type": "object"}), json!({"type": "object"})]);
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        crd.pointer_mut(parent).unwrap()[key] = value.clone();
    }
    refusal(crd).unwrap_or_default()
}

#[test]
fn columns_say_what_they_show() {
    let column =
        json!({"name": "Age", "type": "date", "format": "date-time", "jsonPath": ".metadata.creationTimestamp"});
    let first = "/spec/versions/0/additionalPrinterColumns";
    let second = "/spec/versions/1/additionalPrinterColumns";
    assert_eq!(changed(&[(first, json!([column])), (second, json!([column]))]), "");
    let types = "must be one of boolean,date,integer,number,string";
    for (key, value, problem) in [
        ("name", json!(""), "name: Required value".to_owned()),
        ("type", json!(""), format!("type: Required value: {types}")),
        ("type", json!("text"), format!("type: Invalid value: \"text\": {types}")),
        ("format", json!("hex"), "format: Invalid value: \"hex\": must be one of byte,date,date-time,".to_owned()),
        ("jsonPath", json!(""), "JSONPath: Required value".to_owned()),
        ("jsonPath", json!("::1"), "JSONPath: Invalid value: \"::1\": must be a simple json path".to_owned()),
    ] {
        let mut wrong = column.clone();
        wrong[key] = value;
        let both = changed(&[(first, json!([wrong])), (second, json!([wrong]))]);
        assert!(both.starts_with(&format!("spec.additionalPrinterColumns[0].{problem}")), "{both}");
        let one = changed(&[(second, json!([column, wrong]))]);
        assert!(one.starts_with(&format!("spec.versions[1].additionalPrinterColumns[1].{problem}")), "{one}");
    }
}

#[test]
fn what_scales_objects_is_in_them() {
    let scale = |spec: &str, status: &str, labels: &str| {
        let paths = json!({"specReplicasPath": spec, "statusReplicasPath": status, "labelSelectorPath": labels});
        changed(&[("/spec/versions/0/subresources", json!({"scale": paths}))])
    };
    let path = "spec.versions[0].subresources.scale";
    assert_eq!(scale(".spec.replicas", ".status.replicas", ""), "");
    assert_eq!(scale(".spec.replicas", ".status.replicas", ".spec.labels"), "");
    for (found, problem) in [
        (scale("", ".status.a", ""), "specReplicasPath: Required value"),
        (scale("spec.a", ".status.a", ""), "specReplicasPath: Invalid value: \"spec.a\": must be a simple json path"),
        (scale(".status.a", ".status.a", ""), "specReplicasPath: Invalid value: \".status.a\": should be a json path"),
        (scale(".spec.a", ".spec.a", ""), "statusReplicasPath: Invalid value: \".spec.a\": should be a json path"),
        (scale(".spec.a", ".status.a", ".a"), "labelSelectorPath: Invalid value: \".a\": should be a json path"),
    ] {
        assert!(found.starts_with(&format!("{path}.{problem}")), "{found}");
    }
}

#[test]
fn versions_are_different_and_one_is_stored() {
    assert_eq!(
        changed(&[("/spec/versions", json!([]))]),
        "spec.versions: Invalid value: []: must have exactly one version marked as storage version"
    );
    assert_eq!(
        changed(&[("/spec/versions/1/name", json!("v1"))]),
        "spec.versions: Invalid value: [\"v1\",\"v1\"]: must contain unique version names"
    );
    assert!(
        changed(&[("/spec/versions/1/name", json!("1h"))]).starts_with("spec.versions[1].name: Invalid value: \"1h\"")
    );
    let names = changed(&[("/spec/names", json!({}))]);
    for field in ["plural", "singular", "kind", "listKind"] {
        assert!(names.contains(&format!("spec.names.{field}: Required value")), "{names}");
    }
}

#[test]
fn conversions() {
    let conversion = |conversion: Value| changed(&[("/spec/conversion", conversion)]);
    let webhook = |config: Value| {
        conversion(
            json!({"strategy": "Webhook", "webhook": {"clientConfig": config, "conversionReviewVersions": ["v1"]}}),
        )
    };
    let service = json!({"service": {"name": "a", "namespace": "b", "path": "/convert"}});
    assert_eq!(conversion(json!({"strategy": "None"})), "");
    assert_eq!(webhook(service.clone()), "");
    let path = "spec.conversion";
    for (found, problem) in [
        (conversion(json!({})), "strategy: Required value"),
        (
            conversion(json!({"strategy": "Copy"})),
            "strategy: Unsupported value: \"Copy\": supported values: \"None\", \"Web",
        ),
        (
            conversion(json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"]}})),
            "webhookClientConfig: Required value: required when strategy is set to Webhook",
        ),
        (
            conversion(json!({"strategy": "Webhook", "webhook": {"clientConfig": service}})),
            "conversionReviewVersions: Required value",
        ),
        (webhook(json!({"url": "http://e.io"})), "webhookClientConfig.url: Invalid value: \"http\""),
        (
            conversion(json!({"strategy": "None", "webhook": {"clientConfig": service}})),
            "webhookClientConfig: Forbidden: should not be set when strategy is not set to Webhook",
        ),
    ] {
        assert!(found.starts_with(&format!("{path}.{problem}")), "{found}");
    }
}

#[test]
fn names_are_labels() {
    let named = |field: &str, name: Value| {
        let mut crd = widgets(&[json!({"type": "object"})]);
        crd["spec"]["names"]["singular"] = json!("widget");
        crd["spec"]["names"][field] = name;
        refusal(crd).unwrap_or_default()
    };
    assert_eq!(named("kind", json!("WiDget")), "");
    let problem = named("kind", json!("bad kind"));
    assert!(
        problem.contains(
            "spec.names.kind: Invalid value: \"bad kind\": may have mixed case, but should otherwise match: a DNS-1035"
        ),
        "{problem}"
    );
    assert!(
        named("shortNames", json!(["Wd"])).starts_with("spec.names.shortNames[0]: Invalid value: \"Wd\": a DNS-1035")
    );
    assert!(named("listKind", json!("Widget")).ends_with("kind and listKind may not be the same"));
    let mut crd = widgets(&[json!({"type": "object"})]);
    crd["spec"]["preserveUnknownFields"] = json!(true);
    assert!(refusal(crd).unwrap().starts_with("spec.preserveUnknownFields: Invalid value: true: cannot set to true"));
}
