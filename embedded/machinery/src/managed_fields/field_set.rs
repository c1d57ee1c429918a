//! Sets of paths, and the `fieldsV1` form of them.

use crate::shape::Place;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

/// In `fieldsV1`, the name of what holds the other names.
const ITSELF: &str = ".";

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathElement {
    /// `f:name`: a field of an object.
    Field(String),
    /// `k:{"name":"web"}`: the item of a list with these keys. JSON with sorted names.
    Key(String),
    /// `v:"x"`: the item of a set with this value. JSON.
    Value(String),
    /// `i:0`: the item at this index. Kubernetes reads it but does not write it.
    Index(usize),
}

/// A set of paths, as a tree. An empty set is the default. Its serialized form is that of `fieldsV1`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Whether the path that ends here is in the set; never at the root.
    owned: bool,
    children: BTreeMap<PathElement, FieldSet>,
}

impl PathElement {
    fn parse(text: &str) -> Option<Self> {
        let json = |text: &str| serde_json::from_str::<Value>(text).ok();
        let (prefix, rest) = text.split_once(':')?;
        match prefix {
            "f" => Some(Self::Field(rest.to_owned())),
            "v" => Some(Self::Value(json(rest)?.to_string())),
            "i" => rest.parse().map(Self::Index).ok(),
            // Parsing and printing sorts the names.
            "k" => match json(rest)? {
                Value::Object(keys) => Some(Self::key(keys.into_iter().collect())),
                _ => None,
            },
            _ => None,
        }
    }

    /// The item of an associative list with these keys.
    pub(super) fn key(keys: BTreeMap<String, Value>) -> Self {
        let pairs: Vec<String> =
            keys.into_iter().map(|(name, value)| format!("{}:{value}", Value::String(name))).collect();
        Self::Key(format!("{{{}}}", pairs.join(",")))
    }

    fn write(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(keys) => format!("k:{keys}"),
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }
}

/// As in messages: `.spec`, `[name="web"]`, `[="x"]`, `[0]`.
impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
            Self::Key(keys) => {
                let keys: BTreeMap<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", keys.join(","))
            }
        }
    }
}

impl FieldSet {
    /// The set of one path of fields.
    pub(super) fn of(path: &[&str]) -> Self {
        let mut set = Self::default();
        set.insert(&path.iter().map(|name| PathElement::Field((*name).to_owned())).collect::<Vec<_>>());
        set
    }

    /// Whether no path is in the set.
    pub fn is_empty(&self) -> bool {
        !self.owned && self.children.values().all(Self::is_empty)
    }

    /// Adds a path.
    pub fn insert(&mut self, path: &[PathElement]) {
        match path {
            [] => self.owned = true,
            [first, rest @ ..] => self.child(first.clone()).insert(rest),
        }
    }

    /// All paths as messages show them: `.spec.containers[name="web"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect("", &mut paths);
        paths
    }

    fn collect(&self, prefix: &str, paths: &mut Vec<String>) {
        // As in Kubernetes: first the members of a level, then what is below it.
        paths.extend(
            self.children.iter().filter(|(_, child)| child.owned).map(|(element, _)| format!("{prefix}{element}")),
        );
        for (element, child) in &self.children {
            child.collect(&format!("{prefix}{element}"), paths);
        }
    }

    /// Adds the paths of another set.
    pub fn add(&mut self, other: &Self) {
        self.owned |= other.owned;
        for (element, child) in &other.children {
            self.child(element.clone()).add(child);
        }
    }

    /// Removes the paths of another set.
    pub fn subtract(&mut self, other: &Self) {
        self.owned &= !other.owned;
        for (element, theirs) in &other.children {
            if let Some(mine) = self.children.get_mut(element) {
                mine.subtract(theirs);
                if mine.is_empty() {
                    self.children.remove(element);
                }
            }
        }
    }

    /// The paths that are in both.
    pub fn intersection(&self, other: &Self) -> Self {
        let mut common = Self { owned: self.owned && other.owned, children: BTreeMap::new() };
        for (element, theirs) in &other.children {
            if let Some(both) = self.children.get(element).map(|mine| mine.intersection(theirs))
                && !both.is_empty()
            {
                common.children.insert(element.clone(), both);
            }
        }
        common
    }

    /// The set with every field that a path in it goes through. Items of lists are not fields.
    pub(super) fn with_ancestors<'a>(&'a self, place: Place<'a>) -> Self {
        let children = self.children.iter().map(|(element, child)| {
            // Entries of maps and items of lists are owned by who says so.
            let (below, is_field) = match element {
                PathElement::Field(name) => (place.field(name), !place.is_entry(name)),
                _ => (place.item(), false),
            };
            let mut child = child.with_ancestors(below);
            child.owned |= is_field && !child.children.is_empty();
            (element.clone(), child)
        });
        Self { owned: self.owned, children: children.collect() }
    }

    /// Removes a path of fields and all that goes through it.
    pub(super) fn forget(&mut self, path: &[&str]) {
        let [first, rest @ ..] = path else { return };
        let element = PathElement::Field((*first).to_owned());
        if rest.is_empty() {
            self.children.remove(&element);
        } else if let Some(child) = self.children.get_mut(&element) {
            child.forget(rest);
            if child.is_empty() {
                self.children.remove(&element);
            }
        }
    }

    /// Removes a path of fields, but not those that go through it.
    pub(super) fn disown(&mut self, path: &[&str]) {
        self.subtract(&Self::of(path));
    }

    pub(super) fn own(&mut self) {
        self.owned = true;
    }

    /// Forgets an element without a path: written out it would be one.
    pub(super) fn drop_empty_child(&mut self, element: &PathElement) {
        if self.children.get(element).is_some_and(Self::is_empty) {
            self.children.remove(element);
        }
    }

    pub(super) fn is_owned(&self) -> bool {
        self.owned
    }

    pub(super) fn children(&self) -> impl Iterator<Item = (&PathElement, &Self)> {
        self.children.iter()
    }

    /// The subtree of an element, made if need be.
    pub(super) fn child(&mut self, element: PathElement) -> &mut Self {
        self.children.entry(element).or_default()
    }
}

impl Serialize for FieldSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let itself = self.owned && !self.children.is_empty();
        let mut map = serializer.serialize_map(Some(self.children.len() + usize::from(itself)))?;
        if itself {
            map.serialize_entry(ITSELF, &Self::default())?;
        }
        for (element, child) in &self.children {
            map.serialize_entry(&element.write(), child)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for FieldSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let root = Node.deserialize(deserializer)?;
        Ok(Self { owned: false, ..root })
    }
}

/// A set below the root: one without names is the path that leads to it.
struct Node;

impl<'de> DeserializeSeed<'de> for Node {
    type Value = FieldSet;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<FieldSet, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Node {
    type Value = FieldSet;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fieldsV1: an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FieldSet, A::Error> {
        let mut set = FieldSet::default();
        while let Some(name) = map.next_key::<String>()? {
            if name == ITSELF {
                map.next_value::<IgnoredAny>()?;
                set.owned = true;
            } else {
                let wanted = "a name like f:field, k:{\"key\":\"value\"}, v:value, i:0 or \".\"";
                let element = PathElement::parse(&name)
                    .ok_or_else(|| A::Error::custom(format!("fieldsV1: expected {wanted}, found {name:?}")))?;
                set.children.insert(element, map.next_value_seed(Node)?);
            }
        }
        set.owned |= set.children.is_empty();
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(fields: &Value) -> Result<FieldSet, serde_json::Error> {
        FieldSet::deserialize(fields)
    }

    #[test]
    fn fields_v1_is_read_and_written() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}, "f:finalizers": {"v:\"a/b\"": {}}},
            "f:spec": {
                "f:replicas": {},
                "f:containers": {"k:{\"name\":\"web\"}": {".": {}, "f:image": {},
                    "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}},
            },
        });
        let set = read(&fields).unwrap();
        assert_eq!(serde_json::to_value(&set).unwrap(), fields);
        assert_eq!(serde_json::to_string(&set).unwrap(), fields.to_string());
        assert_eq!(
            set.paths(),
            [
                ".metadata.labels",
                ".metadata.finalizers[=\"a/b\"]",
                ".metadata.labels.app",
                ".spec.replicas",
                ".spec.containers[name=\"web\"]",
                ".spec.containers[name=\"web\"].image",
                ".spec.containers[name=\"web\"].ports[containerPort=80,protocol=\"TCP\"]",
                ".spec.containers[name=\"web\"].ports[containerPort=80,protocol=\"TCP\"].containerPort",
            ]
        );
    }

    #[test]
    fn keys_are_sorted_whatever_order_they_come_in() {
        let a = read(&json!({"k:{\"b\":1, \"a\":2}": {}})).unwrap();
        let b = read(&json!({"k:{\"a\":2,\"b\":1}": {}})).unwrap();
        assert_eq!(a, b);
    }

    #[test]
    fn malformed_sets_are_refused() {
        for fields in [json!([]), json!({"spec": {}}), json!({"k:[]": {}}), json!({"f:a": 1}), json!({"i:x": {}})] {
            assert!(read(&fields).is_err(), "{fields}");
        }
    }

    fn set() -> impl Strategy<Value = FieldSet> {
        let element = prop_oneof![
            "[a-c]".prop_map(PathElement::Field),
            "[a-b]".prop_map(|name| PathElement::key([("name".to_owned(), name.into())].into())),
        ];
        prop::collection::vec(prop::collection::vec(element, 1..4), 0..8).prop_map(|paths| {
            let mut set = FieldSet::default();
            paths.iter().for_each(|path| set.insert(path));
            set
        })
    }

    proptest! {
        #[test]
        fn writing_and_reading_is_the_identity(set in set()) {
            prop_assert_eq!(serde_json::from_str::<FieldSet>(&serde_json::to_string(&set).unwrap()).unwrap(), set);
        }

        #[test]
        fn set_algebra_holds(a in set(), b in set()) {
            let mut union = a.clone();
            union.add(&b);
            let common = a.intersection(&b);
            let mut only_a = a.clone();
            only_a.subtract(&b);
            prop_assert!(only_a.intersection(&b).is_empty());
            let mut rebuilt = only_a;
            rebuilt.add(&common);
            prop_assert_eq!(&rebuilt, &a);
            union.subtract(&a);
            prop_assert!(union.intersection(&a).is_empty());
        }
    }
}
