//! Keys that occur twice in JSON. `serde_json` keeps the last of them and says nothing, so a second look at the bytes
//! finds them.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Every duplicate of a document that can be read.
pub(super) fn find<'de, D: Deserializer<'de>>(document: D) -> Vec<String> {
    let found = RefCell::new(Vec::new());
    // What cannot be looked through to its end has told what it has.
    if let Err(error) = (Look { path: String::new(), found: &found }).deserialize(document) {
        tracing::debug!(%error, "a body is not looked through for duplicates");
    }
    found.into_inner().iter().map(|path: &String| worded(path)).collect()
}

/// What is said of a path that occurs twice, as Kubernetes' strict decoder says it.
pub(super) fn worded(path: &str) -> String {
    format!("duplicate field {path:?}")
}

/// The path of a member of the map at a path.
pub(super) fn member(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Looks through the value at a path.
struct Look<'a> {
    path: String,
    found: &'a RefCell<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let path = member(&self.path, &key);
            if !seen.insert(key) {
                self.found.borrow_mut().push(path.clone());
            }
            map.next_value_seed(Look { path, found: self.found })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut index = 0;
        while items.next_element_seed(Look { path: format!("{}[{index}]", self.path), found: self.found })?.is_some() {
            index += 1;
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_named_by_their_path() {
        let json = |text: &'static str| find(&mut serde_json::Deserializer::from_str(text));
        let found = json(r#"{"a": 1, "spec": {"x": [{"b": 1, "b": null}], "x": 2.5}}"#);
        assert_eq!(found, ["duplicate field \"spec.x[0].b\"", "duplicate field \"spec.x\""]);
        assert!(json(r#"{"a": {"b": true}, "b": {"a": "text"}}"#).is_empty());
    }
}
