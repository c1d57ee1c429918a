//! What field selectors may name, kind by kind.
//!
//! Kubernetes indexes a few fields of each kind and refuses selectors over others. The store itself selects by any path of an
//! object; clients of the API are held to the few, so that what selects here selects on a real cluster, too.

use std::borrow::Cow;

use meshgate_machinery::selector::{FieldSelector, text_at};
use serde_json::Value;

use crate::{GroupResource, ResourceType, ResourceVersion, Status};

/// Group, plural and the labels beyond name and namespace, of the built-in kinds that have any.
const BUILT_IN: &[(&str, &str, &[&str])] = &[
    (
        "",
        "pods",
        &[
            "spec.nodeName",
            "spec.host",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
    ),
    ("", "nodes", &["spec.unschedulable"]),
    ("", "namespaces", &["status.phase"]),
    ("", "secrets", &["type"]),
    ("", "services", &["spec.clusterIP", "spec.type"]),
    ("", "replicationcontrollers", &["status.replicas"]),
    (
        "",
        "events",
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
    ),
    (
        "events.k8s.io",
        "events",
        &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
    ),
    ("batch", "jobs", &["status.successful"]),
];

impl ResourceType {
    /// 400 when a client's field selector names what objects of this kind cannot be selected by in this version.
    pub fn check_field_selector(&self, version: &ResourceVersion, fields: &str) -> Result<(), Status> {
        let selector = FieldSelector::parse(fields).map_err(|error| Status::bad_request(error.to_string()))?;
        match selector.labels().find(|label| !self.is_selectable(version, label)) {
            None => Ok(()),
            Some(label) if self.builtin && self.own_labels().is_none() => Err(Status::bad_request(format!(
                "{label:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
            ))),
            Some(label) => Err(Status::bad_request(format!("field label not supported: {label}"))),
        }
    }

    fn is_selectable(&self, version: &ResourceVersion, label: &str) -> bool {
        match label {
            "metadata.name" => true,
            // The kinds without labels of their own share a rule that does not ask whether there are namespaces.
            "metadata.namespace" => self.namespaced || self.builtin && self.own_labels().is_none(),
            label if self.builtin => self.own_labels().is_some_and(|labels| labels.contains(&label)),
            label => version.selectable.iter().any(|field| field == label),
        }
    }

    fn own_labels(&self) -> Option<&'static [&'static str]> {
        let GroupResource { group, plural } = &self.resource;
        BUILT_IN.iter().find(|row| row.0 == group && row.1 == plural).map(|row| row.2)
    }
}

/// The value of a label in a stored object. Most labels are paths of the object; a field that is left out has the zero of its type.
pub(crate) fn text<'o>(resource: &GroupResource, label: &str, object: &'o Value) -> Cow<'o, str> {
    let (path, zero) = match (resource.group.as_str(), resource.plural.as_str(), label) {
        ("", "pods", "spec.host") => ("spec.nodeName", ""),
        ("", "pods", "spec.hostNetwork") | ("", "nodes", "spec.unschedulable") => (label, "false"),
        ("", "replicationcontrollers", "status.replicas") => (label, "0"),
        ("batch", "jobs", "status.successful") => ("status.succeeded", "0"),
        ("", "events", "source") if text_at(object, "source.component").is_empty() => ("reportingComponent", ""),
        ("", "events", "source") => ("source.component", ""),
        _ => (label, ""),
    };
    match text_at(object, path) {
        found if found.is_empty() => Cow::Borrowed(zero),
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{builtin, crds};

    fn refusal(kind: &ResourceType, fields: &str) -> Option<String> {
        let refused = kind.check_field_selector(&kind.versions[0], fields).err()?;
        assert_eq!((refused.code, refused.reason.as_str()), (400, "BadRequest"));
        Some(refused.message)
    }

    #[test]
    fn only_labels_of_the_kind_may_be_named() {
        let refusal = |group: &str, plural: &str, fields: &str| {
            let resource = GroupResource::new(group, plural);
            refusal(&builtin::types().find(|kind| kind.resource == resource).unwrap(), fields)
        };
        for (group, plural, fields) in [
            ("", "pods", ""),
            ("", "pods", "metadata.name=a,metadata.namespace!=b,spec.nodeName=c,status.phase!=Failed"),
            ("", "events", "involvedObject.name=a,involvedObject.uid=b,source=c"),
            ("events.k8s.io", "events", "regarding.name=a,reportingController=b"),
            ("", "nodes", "metadata.name=a,spec.unschedulable=false"),
            ("apps", "deployments", "metadata.name=a"),
            ("rbac.authorization.k8s.io", "clusterroles", "metadata.namespace=a"),
        ] {
            assert_eq!(refusal(group, plural, fields), None, "{plural} {fields}");
        }
        for (group, plural, fields, label) in [
            ("", "pods", "status.phase=Running,spec.priority=1", "spec.priority"),
            ("", "pods", "=x", ""),
            ("", "nodes", "metadata.namespace=a", "metadata.namespace"),
            ("", "events", "regarding.name=a", "regarding.name"),
            ("events.k8s.io", "events", "involvedObject.name=a", "involvedObject.name"),
        ] {
            let expected = format!("field label not supported: {label}");
            assert_eq!(refusal(group, plural, fields), Some(expected), "{plural} {fields}");
        }
        let plain = "\"spec.replicas\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"";
        assert_eq!(refusal("apps", "deployments", "spec.replicas=1").as_deref(), Some(plain));
        assert!(refusal("", "pods", "spec.nodeName").is_some(), "a selector without an operator");
    }

    #[test]
    fn every_row_is_a_built_in_kind() {
        for (group, plural, _) in BUILT_IN {
            let resource = GroupResource::new(*group, *plural);
            assert!(builtin::types().any(|kind| kind.resource == resource), "{resource}");
        }
    }

    #[test]
    fn a_custom_kind_says_itself_what_it_is_selected_by() {
        let kind = |scope: &str| {
            crds::resource_type(&json!({"spec": {
                "group": "e.io", "scope": scope, "names": {"plural": "widgets", "kind": "Widget"},
                "versions": [{"name": "v1", "served": true, "selectableFields": [{"jsonPath": ".spec.size"}]}],
            }}))
        };
        let (namespaced, cluster) = (kind("Namespaced"), kind("Cluster"));
        assert_eq!(refusal(&namespaced, "metadata.name=a,metadata.namespace=b,spec.size=1"), None);
        let unsupported = |label: &str| Some(format!("field label not supported: {label}"));
        assert_eq!(refusal(&namespaced, "spec.colour=red"), unsupported("spec.colour"));
        assert_eq!(refusal(&cluster, "metadata.namespace=b"), unsupported("metadata.namespace"));
    }

    #[test]
    fn labels_read_what_kubernetes_reads() {
        let value = |group: &str, plural: &str, label: &str, object: Value| {
            text(&GroupResource::new(group, plural), label, &object).into_owned()
        };
        assert_eq!(value("", "nodes", "spec.unschedulable", json!({})), "false");
        assert_eq!(value("", "nodes", "spec.unschedulable", json!({"spec": {"unschedulable": true}})), "true");
        assert_eq!(value("", "pods", "spec.host", json!({"spec": {"nodeName": "n"}})), "n");
        assert_eq!(value("", "replicationcontrollers", "status.replicas", json!({})), "0");
        assert_eq!(value("batch", "jobs", "status.successful", json!({"status": {"succeeded": 2}})), "2");
        assert_eq!(value("", "events", "source", json!({"source": {"component": "kubelet"}})), "kubelet");
        assert_eq!(value("", "events", "source", json!({"source": {}, "reportingComponent": "c"})), "c");
        assert_eq!(value("e.io", "widgets", "spec.unschedulable", json!({})), "");
    }
}
