//! Owners of an object's replicas, which are written by its Scale, too.
//!
//! A Scale is made of an object and not stored. It is lent the owners of the object's replicas, a write to it is noted
//! there as in any object, and then the owners go back. The rules are those of `scalehandler.go` in
//! `k8s.io/apimachinery/pkg/util/managedfields`, but for one: there an updater whose ownership a write leaves alone
//! comes back as a second entry of the same name, of which the next write forgets one.

use serde_json::Value;

use super::entries::{self, Entry};
use super::{FieldSet, api_version};

/// The version of a Scale.
const VERSION: &str = "autoscaling/v1";

/// Where a Scale has the replicas.
const REPLICAS: [&str; 2] = ["spec", "replicas"];

/// Gives a Scale the owners of its object's replicas, which the object has at a path of fields.
pub fn lend_owners(object: &Value, replicas: &[&str], scale: &mut Value) {
    let path = FieldSet::of(replicas);
    let owners = entries::read(object).into_iter().filter(|entry| owns(entry, &path));
    let lent = |owner: Entry| Entry { api_version: VERSION.to_owned(), fields: FieldSet::of(&REPLICAS), ..owner };
    entries::write(scale, owners.map(lent).collect());
}

/// Makes the owners of a Scale's replicas those of its object's. Who is new has no time, as in Kubernetes.
pub fn return_owners(scale: &Value, replicas: &[&str], object: &mut Value) {
    let (path, lent) = (FieldSet::of(replicas), FieldSet::of(&REPLICAS));
    let owners: Vec<Entry> = entries::read(scale).into_iter().filter(|entry| owns(entry, &lent)).collect();
    let mut entries = entries::read(object);
    for entry in &mut entries {
        if !owners.iter().any(|owner| same(owner, entry)) {
            entry.fields.subtract(&path);
        }
    }
    entries.retain(|entry| !entry.fields.is_empty());
    for owner in owners {
        match entries.iter_mut().find(|entry| same(&owner, entry)) {
            Some(entry) => entry.fields.add(&path),
            None => entries.push(Entry {
                api_version: api_version(object).to_owned(),
                time: String::new(),
                fields: path.clone(),
                ..owner
            }),
        }
    }
    entries::write(object, entries);
}

fn owns(entry: &Entry, path: &FieldSet) -> bool {
    !entry.fields.intersection(path).is_empty()
}

/// Whether an entry of a Scale is of the writer of one of its object, whose version is another.
fn same(lent: &Entry, entry: &Entry) -> bool {
    lent.operation == entry.operation && lent.manager == entry.manager && lent.subresource == entry.subresource
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::managed_fields::{ApplyError, Writer, apply, expanded, track_update};
    use crate::shape::Shape;

    const TIME: &str = "2026-01-01T00:00:00Z";
    const KIND: Shape<'static> = Shape::Builtin("Scale");

    fn writer(manager: &str) -> Writer<'_> {
        Writer { manager, subresource: Some("scale"), has_status: false, time: "2026-01-02T00:00:00Z" }
    }

    fn entry(manager: &str, operation: &str, fields: &Value) -> Value {
        json!({
            "manager": manager, "operation": operation, "apiVersion": "apps/v1", "time": TIME,
            "fieldsType": "FieldsV1", "fieldsV1": fields,
        })
    }

    /// A Deployment with two replicas and these entries.
    fn deployment(entries: &Value) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "managedFields": entries},
            "spec": {"replicas": 2, "paused": true},
        })
    }

    fn scale(spec: Value) -> Value {
        json!({
            "apiVersion": VERSION, "kind": "Scale", "metadata": {"name": "web"},
            "spec": spec, "status": {"replicas": 1, "selector": "app=web"},
        })
    }

    fn lent(object: &Value) -> Value {
        let mut scale = scale(json!({"replicas": 2}));
        lend_owners(object, &REPLICAS, &mut scale);
        scale
    }

    fn updated(mut object: Value, spec: Value, manager: &str) -> Value {
        let (old, mut new) = (lent(&object), scale(spec));
        track_update(KIND, Some(&old), &mut new, writer(manager));
        return_owners(&new, &REPLICAS, &mut object);
        object
    }

    fn applied(object: &mut Value, spec: Value, manager: &str, force: bool) -> Result<(), ApplyError> {
        let configuration = json!({"apiVersion": VERSION, "kind": "Scale", "metadata": {"name": "web"}, "spec": spec});
        let new = apply(KIND, Some(&lent(object)), &configuration, writer(manager), force)?;
        return_owners(&new, &REPLICAS, object);
        Ok(())
    }

    fn entries_of(object: &Value) -> Value {
        expanded(object)["metadata"]["managedFields"].take()
    }

    /// The entry of who has nothing but the replicas, by a Scale.
    fn scaler(manager: &str, operation: &str) -> Value {
        json!({
            "manager": manager, "operation": operation, "apiVersion": "apps/v1", "subresource": "scale",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}},
        })
    }

    #[test]
    fn a_scale_has_the_owners_of_the_replicas() {
        let both = json!({"f:spec": {"f:replicas": {}, "f:paused": {}}});
        let other = entry("other", "Update", &json!({"f:spec": {"f:paused": {}}}));
        let scale = lent(&deployment(&json!([entry("one", "Apply", &both), other])));
        let mut expected = entry("one", "Apply", &json!({"f:spec": {"f:replicas": {}}}));
        expected["apiVersion"] = json!(VERSION);
        assert_eq!(entries_of(&scale), json!([expected]));
    }

    #[test]
    fn who_updates_a_scale_takes_the_replicas() {
        let both = json!({"f:spec": {"f:replicas": {}, "f:paused": {}}});
        let left = json!({"f:spec": {"f:paused": {}}});
        let only = json!({"f:spec": {"f:replicas": {}}});
        let object = deployment(&json!([entry("one", "Apply", &both), entry("two", "Update", &only)]));
        let scaled = updated(object.clone(), json!({"replicas": 5}), "hpa");
        let expected = json!([entry("one", "Apply", &left), scaler("hpa", "Update")]);
        assert_eq!(entries_of(&scaled), expected);
        assert_eq!(entries_of(&updated(scaled, json!({"replicas": 6}), "hpa")), expected, "once more");
        let expected = json!([entry("one", "Apply", &both), entry("two", "Update", &only)]);
        assert_eq!(
            entries_of(&updated(object.clone(), json!({"replicas": 2}), "hpa")),
            expected,
            "what is there already"
        );
        // Go leaves out a 0.
        assert_eq!(entries_of(&updated(object, json!({}), "hpa")), json!([entry("one", "Apply", &left)]));
        let nobodys = deployment(&json!([entry("one", "Apply", &left)]));
        let scaled = updated(nobodys, json!({"replicas": 5}), "hpa");
        assert_eq!(
            entries_of(&scaled),
            json!([entry("one", "Apply", &left)]),
            "as with any first write that is no apply"
        );
    }

    #[test]
    fn who_applies_a_scale_meets_the_owners_of_the_replicas() {
        let only = json!({"f:spec": {"f:replicas": {}}});
        let mut object = deployment(&json!([entry("one", "Update", &only)]));
        let conflict = |result: Result<(), ApplyError>| match result {
            Err(ApplyError::Conflicts(conflicts)) => conflicts[0].message() + " at " + &conflicts[0].field,
            other => panic!("expected conflicts, found {other:?}"),
        };
        let found = conflict(applied(&mut object, json!({"replicas": 3}), "two", false));
        assert_eq!(found, "conflict with \"one\" using autoscaling/v1 at .spec.replicas");
        applied(&mut object, json!({"replicas": 2}), "two", false).unwrap();
        assert_eq!(entries_of(&object), json!([scaler("two", "Apply"), entry("one", "Update", &only)]), "shared");
        applied(&mut object, json!({"replicas": 3}), "two", true).unwrap();
        assert_eq!(entries_of(&object), json!([scaler("two", "Apply")]));
        applied(&mut object, json!({"replicas": 2}), "three", false).unwrap();
        applied(&mut object, json!({}), "two", false).unwrap();
        assert_eq!(entries_of(&object), json!([scaler("three", "Apply")]), "given up");
        let mut nobodys = deployment(&json!([entry("one", "Apply", &json!({"f:spec": {"f:paused": {}}}))]));
        let found = conflict(applied(&mut nobodys, json!({"replicas": 3}), "two", false));
        let owner = "\"before-first-apply\" with subresource \"scale\" using autoscaling/v1";
        assert_eq!(found, format!("conflict with {owner} at .spec.replicas"));
    }

    #[test]
    fn replicas_are_where_their_kind_has_them() {
        let path = ["spec", "web", "size"];
        let mut object = deployment(&json!([entry("one", "Update", &json!({"f:spec": {"f:web": {"f:size": {}}}}))]));
        let mut scale = scale(json!({"replicas": 2}));
        lend_owners(&object, &path, &mut scale);
        assert_eq!(entries_of(&scale)[0]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
        let back = entries_of(&object);
        return_owners(&scale, &path, &mut object);
        assert_eq!(entries_of(&object), back);
    }
}
