//! The deletion of CRDs.

use super::kinds::widgets;
use super::*;

#[test]
fn a_crd_waits_for_objects_that_something_holds() {
    let store = Store::new();
    let crds = GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions");
    let resource = GroupResource::new("example.com", "widgets");
    let name = "widgets.example.com";
    let widget = |name: &str, finalizers: Value| {
        let object = json!({"metadata": {"name": name, "finalizers": finalizers}, "spec": {"size": 1}});
        store.create(&resource, "default", object, &options())
    };
    let terminating = |crd: &Value| {
        let conditions = crd["status"]["conditions"].as_array().unwrap();
        conditions
            .iter()
            .find(|condition| condition["type"] == "Terminating")
            .map(|condition| condition["status"].clone())
    };
    let release = |resource: &GroupResource, namespace: &str, name: &str| {
        let mut change = |object: &mut Value| {
            object["metadata"]["finalizers"] = json!([]);
            Ok(())
        };
        store.modify(resource, namespace, name, Subresource::Main, &options(), &mut change).unwrap()
    };
    for kept in [false, true] {
        let mut crd = widgets();
        if kept {
            crd["metadata"]["finalizers"] = json!(["example.com/kept"]);
        }
        store.create(&crds, "", crd, &options()).unwrap();
        widget("held", json!(["example.com/held"])).unwrap();
        widget("free", json!([])).unwrap();
        let dry = DeleteOptions { dry_run: true, ..DeleteOptions::default() };
        assert!(!store.delete(&crds, "", name, &dry).unwrap().1);
        assert!(store.get(&resource, "default", "free").is_ok());

        let (crd, gone) = store.delete(&crds, "", name, &DeleteOptions::default()).unwrap();
        let finalizers = crd["metadata"]["finalizers"].as_array().unwrap();
        assert_eq!((gone, finalizers.last().unwrap()), (false, &json!("customresourcecleanup.apiextensions.k8s.io")));
        assert_eq!(terminating(&crd), Some(json!("True")));
        assert!(store.get(&resource, "default", "free").unwrap_err().is_not_found());
        assert!(store.get(&resource, "default", "held").unwrap()["metadata"]["deletionTimestamp"].is_string());
        let error = widget("late", json!([])).unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (
                403,
                "widgets.example.com \"late\" is forbidden: create not allowed while custom resource definition is terminating"
            )
        );
        let mut label = |crd: &mut Value| {
            crd["metadata"]["labels"] = json!({"a": "b"});
            Ok(())
        };
        let crd = store.modify(&crds, "", name, Subresource::Main, &options(), &mut label).unwrap();
        assert_eq!(terminating(&crd), Some(json!("True")), "a later write does not lose the condition");

        let mut watch = store.watch(&crds, None, &Selectors::default(), Start::After(store.revision())).unwrap();
        release(&resource, "default", "held");
        if kept {
            let crd = store.get(&crds, "", name).unwrap();
            assert_eq!(crd["metadata"]["finalizers"], json!(["example.com/kept"]));
            assert_eq!(terminating(&crd), Some(json!("False")));
            assert!(matches!(drain(&mut watch).as_slice(), [Event::Modified(_)]));
            release(&crds, "", name);
        } else {
            assert!(matches!(drain(&mut watch).as_slice(), [Event::Deleted(_)]));
        }
        assert!(store.get(&crds, "", name).unwrap_err().is_not_found());
        assert!(store.resource(&resource).is_none());
    }
}
