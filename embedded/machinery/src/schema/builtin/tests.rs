use serde_json::json;

use super::*;

fn find(group: &str, kind: &str) -> &'static Builtin {
    Builtin::find(group, "v1", kind).unwrap()
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "creationTimestamp": null, "labels": {"app": "web"}},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
            "template": {"spec": {"containers": [{
                "name": "web", "image": "x",
                "ports": [{"containerPort": 80}],
                "livenessProbe": {"httpGet": {"port": "http"}},
                "resources": {"limits": {"cpu": "100m", "memory": 1024}},
            }]}},
        },
    })
}

#[test]
fn valid_objects_stay_as_they_are_but_for_nulls() {
    let mut object = deployment();
    assert_eq!(find("apps", "Deployment").decode(&mut object), Ok(vec![]));
    let mut expected = deployment();
    expected["metadata"].as_object_mut().unwrap().remove("creationTimestamp");
    assert_eq!(object, expected);
}

#[test]
fn unknown_fields_are_named_and_taken_out() {
    let mut object = deployment();
    object["spec"]["replicaz"] = json!(3);
    object["spec"]["template"]["spec"]["containers"][0]["imagee"] = json!("x");
    object["Metadata"] = json!({});
    let unknown = find("apps", "Deployment").decode(&mut object).unwrap();
    assert_eq!(unknown, ["Metadata", "spec.replicaz", "spec.template.spec.containers[0].imagee"]);
    assert_eq!(crate::schema::unknown_field(&unknown[1]), "unknown field \"spec.replicaz\"");
    assert_eq!(find("apps", "Deployment").decode(&mut object), Ok(vec![]), "they are gone");
}

#[test]
fn wrong_types_are_worded_as_go_does() {
    let refuse = |path: &str, value: Value| {
        let mut object = deployment();
        *object.pointer_mut(path).unwrap() = value;
        find("apps", "Deployment").decode(&mut object).unwrap_err().to_string()
    };
    assert_eq!(
        refuse("/spec/replicas", json!("three")),
        "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into \
         Go struct field DeploymentSpec.spec.replicas of type int32"
    );
    assert!(refuse("/spec/replicas", json!(1.5)).contains("cannot unmarshal number 1.5 into"));
    assert!(refuse("/spec/replicas", json!(3_000_000_000_i64)).contains("of type int32"));
    assert!(
        refuse("/spec/template/spec/containers/0/image", json!(7))
            .contains("number into Go struct field Container.spec.template.spec.containers.image of type string")
    );
    assert!(
        refuse("/spec/template/spec/containers", json!({}))
            .contains("object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container")
    );
    assert!(
        refuse("/metadata/labels/app", json!(true))
            .contains("bool into Go struct field ObjectMeta.metadata.labels of type string")
    );
    assert!(
        refuse("/spec/template/spec/containers/0/resources/limits/cpu", json!("lots"))
            .contains("quantities must match")
    );
    assert!(refuse("/spec/strategy/rollingUpdate/maxSurge", json!([])).contains("intstr.IntOrString"));
    assert!(refuse("/metadata/creationTimestamp", json!("yesterday")).contains("parsing time"));
    assert!(refuse("/spec", json!("x")).contains("of type v1.DeploymentSpec"));
    assert!(find("apps", "Deployment").decode(&mut json!([])).is_err());
}

#[test]
fn free_form_json_is_kept() {
    let schema =
        json!({"type": "object", "default": null, "properties": {"a": {"anything": null, "default": {"x": null}}}});
    let crd = json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}});
    let mut object = crd.clone();
    let unknown = find("apiextensions.k8s.io", "CustomResourceDefinition").decode(&mut object).unwrap();
    assert_eq!(unknown, ["spec.versions[0].schema.openAPIV3Schema.properties.a.anything"]);
    let default = &object["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["a"]["default"];
    assert_eq!(*default, json!({"x": null}));
    let mut revision = json!({"revision": 1, "data": {"any": {"thing": null}}});
    assert_eq!(find("apps", "ControllerRevision").decode(&mut revision), Ok(vec![]));
    assert_eq!(revision["data"], json!({"any": {"thing": null}}));
}

#[test]
fn secrets_hold_base64() {
    let secret = find("", "Secret");
    assert_eq!(secret.decode(&mut json!({"data": {"a": "aHVudGVyMg=="}, "stringData": {"b": "!"}})), Ok(vec![]));
    assert!(secret.decode(&mut json!({"data": {"a": "hunter 2"}})).is_err());
}

#[test]
fn every_kind_has_types() {
    for kind in &KINDS {
        let mut object = json!({"apiVersion": "x", "kind": kind.kind});
        assert_eq!(kind.decode(&mut object), Ok(vec![]), "{}", kind.kind);
        assert_eq!(kind.decode(&mut json!({"bogus": 1})), Ok(vec!["bogus".to_owned()]), "{}", kind.kind);
    }
}
