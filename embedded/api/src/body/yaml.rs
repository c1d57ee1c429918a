//! YAML to JSON, with merge keys as Kubernetes reads them.
//!
//! A merge key (`<<`) sets where it stands what its map has: over the keys before it, and under those after it. Of
//! several maps the first wins. That is `sigs.k8s.io/yaml` with its go-yaml of version 2, as kubectl was observed; by
//! <https://yaml.org/type/merge.html> the keys beside it win wherever they stand. Not as there: the library does not say
//! whether `<<` was quoted, which makes it a key like any other, nor whether a list of maps is an alias, which is
//! refused.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::duplicates::{member, worded};

/// The key whose value is merged into the map that has it.
const MERGE: &str = "<<";

/// What is said of a merge key whose value is something else.
const WANTS_MAPS: &str = "map merge requires map or sequence of maps as the value";

/// The value of a document, and every duplicate in it, worded as by [`super::duplicates::find`]. What is set again by a
/// merge, or after it, is one, too.
pub(super) fn read(bytes: &[u8]) -> Result<(Value, Vec<String>), serde_yaml::Error> {
    let found = RefCell::new(Vec::new());
    let document = serde_yaml::Deserializer::from_slice(bytes);
    let value = Read { path: String::new(), found: &found }.deserialize(document)?;
    Ok((value, found.into_inner()))
}

/// Reads the value at a path.
struct Read<'a> {
    path: String,
    found: &'a RefCell<Vec<String>>,
}

impl Read<'_> {
    /// Gives the map at the path a member.
    fn set(&self, map: &mut Map<String, Value>, key: String, value: Value) {
        if map.contains_key(&key) {
            self.found.borrow_mut().push(worded(&member(&self.path, &key)));
        }
        map.insert(key, value);
    }
}

impl<'de> DeserializeSeed<'de> for Read<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Read<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON has a form for")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if key == MERGE {
                // What is wrong in there is wrong here.
                let merged = access.next_value_seed(Read { path: self.path.clone(), found: self.found })?;
                for (key, value) in maps(merged).ok_or_else(|| A::Error::custom(WANTS_MAPS))?.into_iter().flatten() {
                    self.set(&mut map, key, value);
                }
            } else {
                let path = member(&self.path, &key);
                let value = access.next_value_seed(Read { path, found: self.found })?;
                self.set(&mut map, key, value);
            }
        }
        Ok(Value::Object(map))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, items.len());
            match access.next_element_seed(Read { path, found: self.found })? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    /// A document without anything in it.
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

/// The maps that are merged, in the order in which they are set: the first comes last and overwrites. `None` when they
/// are no maps.
fn maps(merged: Value) -> Option<Vec<Map<String, Value>>> {
    let map = |value: Value| match value {
        Value::Object(map) => Some(map),
        _ => None,
    };
    match merged {
        Value::Array(items) => items.into_iter().rev().map(map).collect(),
        one => Some(vec![map(one)?]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const BASE: &str = "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\n";

    /// What becomes of the key `m`, and the duplicates.
    fn merged(m: &str) -> (Value, Vec<String>) {
        let (mut value, found) = read(format!("{BASE}m: {m}\n").as_bytes()).unwrap();
        (value["m"].take(), found)
    }

    #[test]
    fn a_merge_key_sets_what_its_maps_have_where_it_stands() {
        assert_eq!(merged("{<<: *x, d: 3}"), (json!({"a": 1, "b": 1, "d": 3}), vec![]));
        assert_eq!(merged("{<<: {d: [1]}, e: {<<: *x}}"), (json!({"d": [1], "e": {"a": 1, "b": 1}}), vec![]));
        assert_eq!(merged("{<<: []}"), (json!({}), vec![]));
        let twice = vec!["duplicate field \"m.b\"".to_owned()];
        assert_eq!(merged("{<<: *x, b: 3}"), (json!({"a": 1, "b": 3}), twice.clone()));
        assert_eq!(merged("{b: 3, <<: *x}"), (json!({"a": 1, "b": 1}), twice.clone()));
        assert_eq!(merged("{<<: [*x, *y]}"), (json!({"a": 1, "b": 1, "c": 2}), twice.clone()));
        assert_eq!(merged("{<<: *x, <<: *y}"), (json!({"a": 1, "b": 2, "c": 2}), twice.clone()));
        assert_eq!(
            merged("[{<<: {<<: *x, b: 3}}]"),
            (json!([{"a": 1, "b": 3}]), vec!["duplicate field \"m[0].b\"".to_owned()])
        );
        // Merging is no deeper than the map.
        assert_eq!(merged("{<<: {b: {c: 1, d: 1}}, b: {c: 2}}"), (json!({"b": {"c": 2}}), twice));
    }

    #[test]
    fn what_is_merged_is_maps() {
        for wrong in ["{<<: x}", "{<<: ~}", "{<<: [x]}", "{<<: [[*x]]}", "{<<: 1}"] {
            let error = read(format!("{BASE}m: {wrong}\n").as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("m: {WANTS_MAPS} at line 3")), "{wrong}: {error}");
        }
        assert!(read(b"m: {<<: *nobody}").unwrap_err().to_string().contains("unknown anchor"));
        assert!(read(b"m: &m {<<: *m}").is_err(), "it contains itself");
    }

    #[test]
    fn all_else_is_as_it_is_in_yaml() {
        let text = "a: 1\nspec:\n  x: {b: -1, 2: true, b: ~, f: 2.5, t: 'true'}\na: [18446744073709551615, a, ]\n";
        let (value, found) = read(text.as_bytes()).unwrap();
        let x = json!({"b": null, "2": true, "f": 2.5, "t": "true"});
        assert_eq!(value, json!({"a": [u64::MAX, "a"], "spec": {"x": x}}));
        assert_eq!(found, ["duplicate field \"spec.x.b\"", "duplicate field \"a\""]);
        assert_eq!(read(b"# nothing\n").unwrap(), (Value::Null, vec![]));
        assert!(read(b"a: !tagged {}").is_err() && read(b"a: {").is_err() && read(b"a: 1\n---\nb: 1\n").is_err());
    }
}
