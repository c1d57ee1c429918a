//! Strategic merge patch: a merge patch that merges lists by key and understands directives.
//!
//! | directive | meaning |
//! |---|---|
//! | `$patch: replace` | the map, or as an item of a list the list, is replaced by what else is there |
//! | `$patch: delete` | the map is emptied; as an item of a list, the item with the same key is removed |
//! | `$patch: merge` | the default; not for items of a list |
//! | `$retainKeys: [..]` | all other keys of the old map go |
//! | `$setElementOrder/x: [..]` | the order of the items of list `x` after the merge |
//! | `$deleteFromPrimitiveList/x: [..]` | scalars to be removed from list `x` |

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{PatchError, type_name};
use crate::shape::{PatchStrategy, Place, Shape};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";

/// Applies a strategic merge patch to an object of a built-in kind. On an error the target may be partly changed.
pub fn strategic_merge_patch(kind: &str, target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let Value::Object(patch) = patch else { return Err(PatchError::NotAnObject(type_name(patch))) };
    if !target.is_object() {
        *target = json!({});
    }
    let Value::Object(target) = target else { return Ok(()) };
    merge_map(Shape::Builtin(kind).root(), "", target, patch)
}

/// What `$patch` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Directive {
    Merge,
    Replace,
    Delete,
}

fn directive(path: &str, patch: &Map<String, Value>) -> Result<Directive, PatchError> {
    match patch.get(PATCH).map(|value| value.as_str().ok_or(value)) {
        None | Some(Ok("merge")) => Ok(Directive::Merge),
        Some(Ok("replace")) => Ok(Directive::Replace),
        Some(Ok("delete")) => Ok(Directive::Delete),
        Some(Ok(other)) => {
            Err(invalid(PATCH, path, format!("expected \"merge\", \"replace\" or \"delete\", found {other:?}")))
        }
        Some(Err(other)) => Err(invalid(PATCH, path, format!("expected a string, found {}", type_name(other)))),
    }
}

fn invalid(directive: &str, path: &str, problem: String) -> PatchError {
    PatchError::Directive { directive: directive.to_owned(), path: path.to_owned(), problem }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A directive's value, which must be a list.
fn list<'p>(patch: &'p Map<String, Value>, name: &str, path: &str) -> Result<Option<&'p Vec<Value>>, PatchError> {
    match patch.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(list)) => Ok(Some(list)),
        Some(other) => Err(invalid(name, path, format!("expected an array, found {}", type_name(other)))),
    }
}

fn merge_map(
    place: Place<'_>,
    path: &str,
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<(), PatchError> {
    match directive(path, patch)? {
        Directive::Merge => {}
        Directive::Delete => {
            target.clear();
            return Ok(());
        }
        Directive::Replace => {
            *target = patch
                .iter()
                .filter(|(key, _)| *key != PATCH)
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            return Ok(());
        }
    }
    if let Some(keep) = list(patch, RETAIN_KEYS, path)? {
        let directive = |key: &str| key.starts_with(ORDER) || key.starts_with(DELETE_PRIMITIVES) || key == RETAIN_KEYS;
        let kept = |key: &str| keep.iter().any(|kept| kept == key);
        if let Some((key, _)) = patch.iter().find(|(key, value)| !value.is_null() && !directive(key) && !kept(key)) {
            return Err(invalid(RETAIN_KEYS, path, format!("{key:?} is in the patch but not in it")));
        }
        target.retain(|key, _| kept(key));
    }
    // The order before the merge, of lists that are to be brought into one.
    let mut lives: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for name in patch.keys().filter_map(|key| key.strip_prefix(ORDER)) {
        if let Some(Value::Array(items)) = target.get(name) {
            let strategy = place.field(name).patch_strategy();
            lives.insert(name, items.iter().filter_map(|item| identity(strategy, item)).collect());
        }
    }
    for (key, value) in patch {
        if let Some(name) = key.strip_prefix(DELETE_PRIMITIVES) {
            let gone = list(patch, key, path)?.map_or(&[][..], Vec::as_slice);
            if let Some(Value::Array(items)) = target.get_mut(name) {
                items.retain(|item| !gone.contains(item));
            }
        } else if !key.starts_with(ORDER) && key != PATCH && key != RETAIN_KEYS {
            merge_field(place.field(key), &join(path, key), target, key, value)?;
        }
    }
    for (key, _) in patch.iter().filter(|(key, _)| key.starts_with(ORDER)) {
        let name = &key[ORDER.len()..];
        let order = list(patch, key, path)?.map_or(&[][..], Vec::as_slice);
        if let Some(Value::Array(items)) = target.get_mut(name) {
            let strategy = place.field(name).patch_strategy();
            let identity = |item: &Value| identity(strategy, item);
            let order: Vec<Value> = order.iter().filter_map(identity).collect();
            let live = lives.get(name).map_or(&[][..], Vec::as_slice);
            reorder(items, &order, live, identity);
        }
    }
    Ok(())
}

fn is_directive(key: &str) -> bool {
    key == PATCH || key == RETAIN_KEYS || key.starts_with(ORDER) || key.starts_with(DELETE_PRIMITIVES)
}

/// What becomes of a patch where there is nothing to merge it with: maps with a `$patch` are left out, however deep.
fn to_nothing(patch: &Value) -> Option<Value> {
    match patch {
        Value::Object(map) if map.contains_key(PATCH) => None,
        Value::Object(map) => {
            let fields = map.iter().filter(|(key, value)| !is_directive(key) && !value.is_null());
            Some(Value::Object(fields.filter_map(|(key, value)| Some((key.clone(), to_nothing(value)?))).collect()))
        }
        Value::Array(items) => Some(Value::Array(items.iter().filter_map(to_nothing).collect())),
        scalar => Some(scalar.clone()),
    }
}

/// A new item of a list is taken as it is: its directives go, and not what stands beside them.
fn as_item(patch: &Value) -> Value {
    match patch {
        Value::Object(map) => {
            let fields = map.iter().filter(|(key, value)| !is_directive(key) && !value.is_null());
            Value::Object(fields.map(|(key, value)| (key.clone(), as_item(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(as_item).collect()),
        scalar => scalar.clone(),
    }
}

/// What tells the items of a list apart.
fn identity(strategy: PatchStrategy, item: &Value) -> Option<Value> {
    match strategy {
        PatchStrategy::MergeBy(merge_key) => item.get(merge_key).cloned(),
        PatchStrategy::MergePrimitives | PatchStrategy::Replace => Some(item.clone()),
    }
}

fn merge_field(
    place: Place<'_>,
    path: &str,
    target: &mut Map<String, Value>,
    key: &str,
    patch: &Value,
) -> Result<(), PatchError> {
    if patch.is_null() {
        target.remove(key);
        return Ok(());
    }
    match (target.get_mut(key), patch) {
        (Some(Value::Object(old)), Value::Object(patch)) if place.patch_replaces_map() => {
            *old = patch.clone();
            Ok(())
        }
        (Some(Value::Object(old)), Value::Object(patch)) => merge_map(place, path, old, patch),
        (_, Value::Object(_)) => {
            match to_nothing(patch) {
                Some(new) => drop(target.insert(key.to_owned(), new)),
                None => drop(target.remove(key)),
            }
            Ok(())
        }
        (old, Value::Array(patch)) => {
            let old = match old {
                // Go's types do not tell an empty list from none.
                Some(Value::Array(old)) if !old.is_empty() => std::mem::take(old),
                _ => {
                    target.insert(key.to_owned(), Value::Array(patch.iter().filter_map(to_nothing).collect()));
                    return Ok(());
                }
            };
            let merged = merge_list(place, path, old, patch)?;
            target.insert(key.to_owned(), Value::Array(merged));
            Ok(())
        }
        (_, scalar) => {
            target.insert(key.to_owned(), scalar.clone());
            Ok(())
        }
    }
}

fn merge_list(place: Place<'_>, path: &str, old: Vec<Value>, patch: &[Value]) -> Result<Vec<Value>, PatchError> {
    match place.patch_strategy() {
        PatchStrategy::Replace => Ok(patch.to_vec()),
        PatchStrategy::MergePrimitives => {
            let mut merged: Vec<Value> = Vec::with_capacity(old.len() + patch.len());
            for item in old.iter().chain(patch) {
                if !merged.contains(item) {
                    merged.push(item.clone());
                }
            }
            reorder(&mut merged, patch, &old, |item| Some(item.clone()));
            Ok(merged)
        }
        PatchStrategy::MergeBy(key) => merge_objects(place, path, key, old, patch),
    }
}

fn merge_objects(
    place: Place<'_>,
    path: &str,
    key: &str,
    old: Vec<Value>,
    patch: &[Value],
) -> Result<Vec<Value>, PatchError> {
    let mut merged = old;
    let mut changes = Vec::new();
    let mut replaced = false;
    for item in patch {
        let Value::Object(map) = item else {
            let problem = format!("expected a list of objects, found {}", type_name(item));
            return Err(invalid("item", path, problem));
        };
        match directive(path, map)? {
            // `$patch: replace` says that the rest of this list replaces the old one.
            Directive::Replace => replaced = true,
            Directive::Merge if map.contains_key(PATCH) => {
                return Err(invalid(PATCH, path, "lists cannot be merged by it".to_owned()));
            }
            directive => changes.push((directive, map)),
        }
    }
    if replaced {
        let rest = changes.into_iter().filter(|(directive, _)| *directive == Directive::Merge);
        return Ok(rest.map(|(_, map)| Value::Object(map.clone())).collect());
    }
    // Deletions first: the order of the live list is that of what they leave.
    changes.sort_by_key(|(directive, _)| *directive != Directive::Delete);
    let mut live = None;
    for (directive, map) in changes {
        let Some(id) = map.get(key) else {
            let item = Value::Object(map.clone()).to_string();
            return Err(PatchError::MergeKey { path: path.to_owned(), key: key.to_owned(), item });
        };
        if directive != Directive::Delete {
            live.get_or_insert_with(|| merged.iter().filter_map(|item| item.get(key).cloned()).collect::<Vec<_>>());
        }
        let found = merged.iter().position(|item| item.get(key) == Some(id));
        match (directive, found) {
            (Directive::Delete, _) => merged.retain(|item| item.get(key) != Some(id)),
            (_, Some(at)) => {
                if let Value::Object(old) = &mut merged[at] {
                    merge_map(place.item(), path, old, map)?;
                }
            }
            (_, None) => merged.push(as_item(&Value::Object(map.clone()))),
        }
    }
    let order: Vec<Value> =
        patch.iter().filter(|item| item.get(PATCH).is_none()).filter_map(|item| item.get(key).cloned()).collect();
    if let Some(live) = live {
        reorder(&mut merged, &order, &live, |item| item.get(key).cloned());
    }
    Ok(merged)
}

/// Brings the items that `order` names into that order. The others keep the order of `live`, the list before the merge; each of them
/// comes before the first ordered item that followed it there.
fn reorder(items: &mut Vec<Value>, order: &[Value], live: &[Value], identity: impl Fn(&Value) -> Option<Value>) {
    let at = |list: &[Value], item: &Value| {
        let id = identity(item)?;
        list.iter().position(|other| *other == id)
    };
    let (mut ordered, mut others): (Vec<_>, Vec<_>) =
        std::mem::take(items).into_iter().partition(|item| at(order, item).is_some());
    ordered.sort_by_key(|item| at(order, item));
    others.sort_by_key(|item| at(live, item));
    let mut others = others.into_iter().peekable();
    for item in ordered {
        let here = at(live, &item);
        while let Some(other) =
            others.next_if(|other| here.is_some_and(|here| at(live, other).is_some_and(|there| there < here)))
        {
            items.push(other);
        }
        items.push(item);
    }
    items.extend(others);
}

#[cfg(test)]
mod tests;
