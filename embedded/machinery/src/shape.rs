//! What patches and server-side apply must know about an object: how its lists merge, and which maps are one value.
//!
//! Kubernetes carries this in its Go structs and OpenAPI extensions. Here it is a table for built-in kinds
//! ([`Shape::Builtin`]) and is read from the schema for custom ones ([`Shape::Custom`]).

mod builtin;

use serde_json::Value;

/// The shape of the objects of one kind.
#[derive(Clone, Copy, Debug)]
pub enum Shape<'a> {
    /// A built-in kind, e.g. `Deployment`.
    Builtin(&'a str),
    /// The `openAPIV3Schema` of a CRD's version.
    Custom(&'a Value),
    /// Nothing is known but `metadata`: maps merge, lists are replaced.
    Unknown,
}

/// How a list is merged and owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListType {
    /// As a whole.
    Atomic,
    /// Each item for itself; items are scalars.
    Set,
    /// Each item for itself; items are objects told apart by these keys.
    Map(Vec<ListKey>),
}

/// A key of an associative list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListKey {
    /// The field of an item.
    pub name: String,
    /// What it is when an item leaves it out; without a default it must be there.
    pub default: Option<Value>,
}

/// A place in the shape of an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a>(Inner<'a>);

#[derive(Clone, Copy, Debug)]
enum Inner<'a> {
    /// In a built-in type: the kind, the field, and the field that holds the object which has it. Items of a list
    /// have the place of the list.
    Builtin { kind: &'a str, parent: &'a str, field: &'a str },
    /// In a custom object: the schema of the value.
    Custom { schema: &'a Value, root: bool },
    /// Under no schema.
    Unknown { root: bool },
}

/// The kind under which fields of every object's `metadata` are looked up.
const ANY_KIND: &str = "";

impl<'a> Shape<'a> {
    /// The place of the whole object.
    pub(crate) fn root(self) -> Place<'a> {
        Place(match self {
            Shape::Builtin(kind) => Inner::Builtin { kind, parent: "", field: "" },
            Shape::Custom(schema) => Inner::Custom { schema, root: true },
            Shape::Unknown => Inner::Unknown { root: true },
        })
    }
}

impl<'a> Place<'a> {
    /// The place of a field of the object that is here.
    pub(crate) fn field(self, name: &'a str) -> Self {
        Self(match self.0 {
            Inner::Builtin { kind, field, .. } => Inner::Builtin { kind, parent: field, field: name },
            Inner::Custom { root: true, .. } | Inner::Unknown { root: true } if name == "metadata" => {
                Inner::Builtin { kind: ANY_KIND, parent: "", field: name }
            }
            Inner::Unknown { .. } => Inner::Unknown { root: false },
            Inner::Custom { schema, .. } => {
                let property = schema.get("properties").and_then(|properties| properties.get(name));
                match property.or_else(|| schema.get("additionalProperties").filter(|other| other.is_object())) {
                    Some(schema) => Inner::Custom { schema, root: false },
                    None => Inner::Unknown { root: false },
                }
            }
        })
    }

    /// Whether a field is an entry of a map rather than one of a struct: owned itself, with all that is in it.
    pub(crate) fn is_entry(self, name: &str) -> bool {
        match self.0 {
            Inner::Custom { schema, .. } => {
                schema.get("properties").and_then(|properties| properties.get(name)).is_none()
            }
            Inner::Unknown { .. } => true,
            Inner::Builtin { .. } => false,
        }
    }

    /// The place of the items of the list that is here.
    pub(crate) fn item(self) -> Self {
        Self(match self.0 {
            Inner::Custom { schema, .. } => match schema.get("items") {
                Some(schema) => Inner::Custom { schema, root: false },
                None => Inner::Unknown { root: false },
            },
            same => same,
        })
    }

    /// How the list that is here is owned.
    pub(crate) fn list_type(self) -> ListType {
        match self.0 {
            Inner::Builtin { kind, parent, field } => builtin::list_type(kind, parent, field),
            Inner::Custom { schema, .. } => custom_list_type(schema),
            Inner::Unknown { .. } => ListType::Atomic,
        }
    }

    /// Whether the object that is here is one value, owned as a whole. `in_list` for items of a list.
    pub(crate) fn is_atomic_map(self, in_list: bool) -> bool {
        match self.0 {
            Inner::Builtin { kind, field, .. } if in_list => builtin::items_are_atomic(kind, field),
            Inner::Builtin { kind, parent, field } => builtin::is_atomic_map(kind, parent, field),
            Inner::Custom { schema, .. } => schema.get("x-kubernetes-map-type").is_some_and(|kind| kind == "atomic"),
            Inner::Unknown { .. } => false,
        }
    }

    /// Whether a strategic merge patch replaces the map that is here.
    pub(crate) fn patch_replaces_map(self) -> bool {
        matches!(self.0, Inner::Builtin { kind: "PodDisruptionBudget", parent: "spec", field: "selector" })
    }

    /// How a strategic merge patch treats the list that is here.
    pub(crate) fn patch_strategy(self) -> PatchStrategy {
        match self.0 {
            Inner::Builtin { kind, parent, field } => builtin::patch_strategy(kind, parent, field),
            Inner::Custom { .. } | Inner::Unknown { .. } => PatchStrategy::Replace,
        }
    }
}

/// How a strategic merge patch treats a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchStrategy {
    /// The patch's list replaces the old one.
    Replace,
    /// Scalars are added.
    MergePrimitives,
    /// Objects with the same value of this key are merged, others added.
    MergeBy(&'static str),
}

fn custom_list_type(schema: &Value) -> ListType {
    match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListType::Set,
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten();
            let default = |key: &str| schema.pointer("/items/properties")?.get(key)?.get("default").cloned();
            let keys = keys.filter_map(Value::as_str);
            ListType::Map(keys.map(|key| ListKey { name: key.to_owned(), default: default(key) }).collect())
        }
        _ => ListType::Atomic,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(list: ListType) -> Vec<String> {
        match list {
            ListType::Map(keys) => keys.into_iter().map(|key| key.name).collect(),
            other => panic!("not a map list: {other:?}"),
        }
    }

    fn at<'a>(shape: Shape<'a>, path: &[&'a str]) -> Place<'a> {
        path.iter().fold(shape.root(), |place, name| place.field(name))
    }

    #[test]
    fn ports_differ_by_their_owner() {
        let service = at(Shape::Builtin("Service"), &["spec", "ports"]);
        assert_eq!(keys(service.list_type()), ["port", "protocol"]);
        assert_eq!(service.patch_strategy(), PatchStrategy::MergeBy("port"));
        let container =
            at(Shape::Builtin("Deployment"), &["spec", "template", "spec", "containers"]).item().field("ports");
        assert_eq!(keys(container.list_type()), ["containerPort", "protocol"]);
        assert_eq!(container.patch_strategy(), PatchStrategy::MergeBy("containerPort"));
        let slice = at(Shape::Builtin("EndpointSlice"), &["ports"]);
        assert_eq!(slice.list_type(), ListType::Atomic);
        assert_eq!(slice.patch_strategy(), PatchStrategy::Replace);
    }

    #[test]
    fn metadata_is_the_same_everywhere() {
        let schema = json!({"type": "object"});
        for shape in [Shape::Builtin("Pod"), Shape::Custom(&schema), Shape::Unknown] {
            assert_eq!(at(shape, &["metadata", "finalizers"]).list_type(), ListType::Set);
            assert_eq!(keys(at(shape, &["metadata", "ownerReferences"]).list_type()), ["uid"]);
        }
    }

    #[test]
    fn custom_lists_follow_their_schema() {
        let schema = json!({"properties": {"spec": {"properties": {
            "routes": {"type": "array", "items": {"type": "object"}},
            "tags": {"type": "array", "x-kubernetes-list-type": "set"},
            "ports": {
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["port", "protocol"],
                "items": {"properties": {"protocol": {"default": "TCP"}}},
            },
            "ref": {"x-kubernetes-map-type": "atomic"},
        }}}});
        let shape = Shape::Custom(&schema);
        assert_eq!(at(shape, &["spec", "routes"]).list_type(), ListType::Atomic);
        assert_eq!(at(shape, &["spec", "tags"]).list_type(), ListType::Set);
        let ports = at(shape, &["spec", "ports"]).list_type();
        let ListType::Map(ports) = ports else { panic!("not a map") };
        assert_eq!(ports[1].default, Some(json!("TCP")));
        assert!(at(shape, &["spec", "ref"]).is_atomic_map(false));
        assert!(!at(shape, &["spec"]).is_atomic_map(false));
    }
}
