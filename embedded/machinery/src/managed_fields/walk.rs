//! The four walks over values that ownership needs: the set of an object's fields, what differs between two objects,
//! the merge of a configuration into an object, and the removal of a set.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{ApplyError, FieldSet, PathElement};
use crate::shape::{ListKey, ListType, Place, Shape};

/// What differs between two objects, as sets of paths.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) added: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) removed: FieldSet,
}

/// A value as ownership sees it. Null is as good as absent.
enum View<'v> {
    Absent,
    /// One value.
    Leaf,
    Map(&'v Map<String, Value>),
    /// The items of a set or associative list, by what tells them apart, in order.
    Items(Vec<(PathElement, &'v Value)>),
}

impl<'v> View<'v> {
    /// A list whose items cannot be told apart is a leaf.
    fn of(place: Place<'_>, value: Option<&'v Value>, in_list: bool) -> Self {
        match value {
            None | Some(Value::Null) => Self::Absent,
            Some(Value::Object(map)) if !place.is_atomic_map(in_list) => Self::Map(map),
            Some(Value::Array(items)) => match element_names(&place.list_type(), items) {
                Some(Ok(names)) => Self::Items(names.into_iter().zip(items).collect()),
                Some(Err(_)) | None => Self::Leaf,
            },
            Some(_) => Self::Leaf,
        }
    }
}

/// What tells the items of a list apart: `None` for an atomic list, an error when an item has no name or two have the same.
fn element_names(list: &ListType, items: &[Value]) -> Option<Result<Vec<PathElement>, String>> {
    let name = |item: &Value| match list {
        ListType::Set if item.is_object() || item.is_array() => {
            Err(format!("an item of a set must be a scalar, found {item}"))
        }
        ListType::Set | ListType::Atomic => Ok(PathElement::Value(item.to_string())),
        ListType::Map(keys) => key_of(keys, item),
    };
    if *list == ListType::Atomic {
        return None;
    }
    let names: Result<Vec<_>, _> = items.iter().map(name).collect();
    Some(names.and_then(|names| {
        let mut seen = BTreeSet::new();
        match names.iter().find(|name| !seen.insert(*name)) {
            Some(twice) => Err(format!("duplicate entries for key {twice}")),
            None => Ok(names),
        }
    }))
}

/// A key without a default may be left out as long as there is another one: whether it is required is for validation to say.
fn key_of(keys: &[ListKey], item: &Value) -> Result<PathElement, String> {
    let mut found = BTreeMap::new();
    for key in keys {
        if let Some(value) = item.get(&key.name).filter(|value| !value.is_null()).or(key.default.as_ref()) {
            found.insert(key.name.clone(), value.clone());
        }
    }
    if found.is_empty() {
        let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
        return Err(format!("element of an associative list omits all of its keys, {names:?}: {item}"));
    }
    Ok(PathElement::key(found))
}

/// The paths of all fields that a configuration sets.
pub(super) fn members(shape: Shape<'_>, object: &Value) -> Result<FieldSet, ApplyError> {
    let mut set = FieldSet::default();
    add_members(&mut set, shape.root(), object, false, "")?;
    Ok(set)
}

fn add_members(
    set: &mut FieldSet,
    place: Place<'_>,
    value: &Value,
    in_list: bool,
    path: &str,
) -> Result<(), ApplyError> {
    match value {
        Value::Object(map) if !map.is_empty() && !place.is_atomic_map(in_list) => {
            for (name, value) in map.iter().filter(|(_, value)| !value.is_null()) {
                let child = set.child(PathElement::Field(name.clone()));
                add_members(child, place.field(name), value, false, &format!("{path}.{name}"))?;
                if place.is_entry(name) {
                    child.own();
                }
                // An empty set or associative list is nobody's.
                set.drop_empty_child(&PathElement::Field(name.clone()));
            }
        }
        Value::Array(items) => match element_names(&place.list_type(), items) {
            None => set.own(),
            Some(names) => {
                let names = names.map_err(|problem| ApplyError::Malformed { path: path.to_owned(), problem })?;
                for (name, item) in names.into_iter().zip(items) {
                    let path = format!("{path}{name}");
                    let child = set.child(name);
                    if item.is_object() && !place.item().is_atomic_map(true) {
                        add_members(child, place.item(), item, true, &path)?;
                    }
                    child.own();
                }
            }
        },
        _ => set.own(),
    }
    Ok(())
}

impl Comparison {
    /// What one has to do to the old object to get the new one. A field that appears counts with all it is in, as far
    /// as that is new, too.
    pub(super) fn of(shape: Shape<'_>, old: &Value, new: &Value) -> Self {
        let mut comparison = Self::default();
        comparison.compare(shape.root(), Some(old), Some(new), false, &mut Vec::new());
        comparison
    }

    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    pub(super) fn each(&mut self, mut change: impl FnMut(&mut FieldSet)) {
        change(&mut self.added);
        change(&mut self.modified);
        change(&mut self.removed);
    }

    fn compare(
        &mut self,
        place: Place<'_>,
        old: Option<&Value>,
        new: Option<&Value>,
        in_list: bool,
        path: &mut Vec<PathElement>,
    ) {
        let (before, after) = (View::of(place, old, in_list), View::of(place, new, in_list));
        match (&before, &after) {
            (View::Absent, View::Absent) => return,
            (View::Absent, _) => self.added.insert(path),
            (_, View::Absent) => self.removed.insert(path),
            (View::Map(_), View::Map(_)) | (View::Items(_), View::Items(_)) => {}
            _ => {
                if old != new {
                    self.modified.insert(path);
                    // What has become something of another kind has lost, or got, what is in it.
                    self.compare_below(place, (before, old), (View::Absent, None), path);
                    self.compare_below(place, (View::Absent, None), (after, new), path);
                }
                return;
            }
        }
        if old == new {
            return;
        }
        self.compare_below(place, (before, old), (after, new), path);
    }

    /// What is in it, where it has something in it.
    fn compare_below(
        &mut self,
        place: Place<'_>,
        (before, old): (View<'_>, Option<&Value>),
        (after, new): (View<'_>, Option<&Value>),
        path: &mut Vec<PathElement>,
    ) {
        match (before, after) {
            (View::Items(_), _) | (_, View::Items(_)) => self.compare_items(place, old, new, path),
            (View::Map(before), View::Map(after)) => {
                for (name, value) in before {
                    self.compare_field(place, name, Some(value), after.get(name), path);
                }
                for (name, value) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
                    self.compare_field(place, name, None, Some(value), path);
                }
            }
            (View::Map(before), _) => {
                before.iter().for_each(|(name, value)| self.compare_field(place, name, Some(value), None, path));
            }
            (_, View::Map(after)) => {
                after.iter().for_each(|(name, value)| self.compare_field(place, name, None, Some(value), path));
            }
            _ => {}
        }
    }

    fn compare_field(
        &mut self,
        place: Place<'_>,
        name: &str,
        old: Option<&Value>,
        new: Option<&Value>,
        path: &mut Vec<PathElement>,
    ) {
        path.push(PathElement::Field(name.to_owned()));
        self.compare(place.field(name), old, new, false, path);
        path.pop();
    }

    fn compare_items(
        &mut self,
        place: Place<'_>,
        old: Option<&Value>,
        new: Option<&Value>,
        path: &mut Vec<PathElement>,
    ) {
        let items = |value| match View::of(place, value, false) {
            View::Items(items) => items,
            _ => Vec::new(),
        };
        let (before, after) = (items(old), items(new));
        let mut pairs: BTreeMap<PathElement, (Option<&Value>, Option<&Value>)> = BTreeMap::new();
        for (name, item) in before {
            pairs.entry(name).or_default().0 = Some(item);
        }
        for (name, item) in after {
            pairs.entry(name).or_default().1 = Some(item);
        }
        for (name, (old, new)) in pairs {
            path.push(name);
            self.compare(place.item(), old, new, true, path);
            path.pop();
        }
    }
}

/// Merges a configuration into an object. The order of the configuration's items wins; other items keep their places.
pub(super) fn merge(shape: Shape<'_>, live: &Value, applied: &Value) -> Value {
    merge_value(shape.root(), Some(live), applied, false)
}

fn merge_value(place: Place<'_>, live: Option<&Value>, applied: &Value, in_list: bool) -> Value {
    match (View::of(place, live, in_list), View::of(place, Some(applied), in_list)) {
        (View::Map(live), View::Map(applied)) => {
            let mut merged = live.clone();
            for (name, value) in applied {
                let value = merge_value(place.field(name), live.get(name), value, false);
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (View::Items(live), View::Items(applied)) => Value::Array(merge_items(place, &live, &applied)),
        _ => applied.clone(),
    }
}

/// Items of the configuration keep its order, items of others that of the live list. Where the two differ about items that both
/// have, the live list gives way: see `mergingWalker.visitListItems` in structured-merge-diff.
fn merge_items(place: Place<'_>, live: &[(PathElement, &Value)], applied: &[(PathElement, &Value)]) -> Vec<Value> {
    let wanted: BTreeSet<&PathElement> = applied.iter().map(|(name, _)| name).collect();
    let current: BTreeMap<&PathElement, &Value> = live.iter().map(|(name, item)| (name, *item)).collect();
    let mut shared = applied.iter().map(|(name, _)| name).filter(|name| current.contains_key(*name)).peekable();
    let mut merged = Vec::with_capacity(live.len().max(applied.len()));
    let mut done: BTreeSet<&PathElement> = BTreeSet::new();
    let (mut left, mut right) = (live.iter().peekable(), applied.iter().peekable());
    while left.peek().is_some() || right.peek().is_some() {
        if let (Some((here, _)), Some((next, _))) = (left.peek(), right.peek()) {
            let awaited = shared.peek().is_some_and(|name| *name != here);
            if here != next && wanted.contains(here) && awaited {
                // Its turn comes later.
                left.next();
                continue;
            }
            if here == next {
                left.next();
            } else if !wanted.contains(here) {
                merged.extend(left.next().map(|(_, item)| (*item).clone()));
                continue;
            } else if done.contains(here) {
                left.next();
            }
        } else if let Some((here, item)) = left.peek() {
            if !wanted.contains(here) {
                merged.push((*item).clone());
            }
            left.next();
            continue;
        }
        if let Some((name, item)) = right.next() {
            merged.push(merge_value(place.item(), current.get(name).copied(), item, true));
            done.insert(name);
            shared.next_if(|next| *next == name);
        }
    }
    merged
}

/// Removes a set of paths, each with all that is in it.
pub(super) fn remove(shape: Shape<'_>, object: &mut Value, gone: &FieldSet) {
    remove_value(shape.root(), object, gone);
}

fn remove_value(place: Place<'_>, value: &mut Value, gone: &FieldSet) {
    match value {
        Value::Object(map) => {
            for (element, below) in gone.children() {
                let PathElement::Field(name) = element else { continue };
                if below.is_owned() {
                    map.remove(name);
                } else if let Some(value) = map.get_mut(name) {
                    remove_value(place.field(name), value, below);
                }
            }
        }
        Value::Array(items) => {
            let Some(Ok(names)) = element_names(&place.list_type(), items) else { return };
            let below = |name: &PathElement| gone.children().find(|(element, _)| *element == name).map(|(_, set)| set);
            let kept = names.iter().zip(std::mem::take(items)).filter_map(|(name, mut item)| match below(name) {
                Some(below) if below.is_owned() => None,
                Some(below) => {
                    remove_value(place.item(), &mut item, below);
                    Some(item)
                }
                None => Some(item),
            });
            *items = kept.collect();
        }
        _ => {}
    }
}

/// The configuration without null fields, which set nothing.
pub(super) fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let fields = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(fields.map(|(name, value)| (name.clone(), without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        scalar => scalar.clone(),
    }
}
