//! `fieldValidation=Strict` refuses keys that occur twice. `serde_json` keeps the last of them and says nothing, so a
//! second look at the bytes finds them.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use meshgate_store::Status;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// 400 with every duplicate, worded as Kubernetes' strict decoder does.
pub(super) fn check(bytes: &[u8]) -> Result<(), Status> {
    let found = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = Look { path: String::new(), found: &found }.deserialize(&mut deserializer);
    read.map_err(|error| Status::bad_request(error.to_string()))?;
    let found = found.into_inner();
    if found.is_empty() {
        return Ok(());
    }
    let fields: Vec<String> = found.iter().map(|path| format!("duplicate field \"{path}\"")).collect();
    Err(Status::bad_request(format!("strict decoding error: {}", fields.join(", "))))
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
            let path = if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
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
        let error = check(br#"{"a": 1, "spec": {"x": [{"b": 1, "b": null}], "x": 2.5}}"#).unwrap_err();
        assert_eq!(error.message, "strict decoding error: duplicate field \"spec.x[0].b\", duplicate field \"spec.x\"");
        assert!(check(br#"{"a": {"b": true}, "b": {"a": "text"}}"#).is_ok());
    }
}
