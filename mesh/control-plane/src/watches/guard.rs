//! Objects of a list or an event that may be unreadable each.

use std::{borrow::Cow, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use crate::objects::wire;

/// An object, or why it is none.
///
/// As `kube::core::DeserializeGuard`, which keeps two copies of all that the API serves while it reads an object. Thousands are
/// listed when the control plane starts, and most of what is served is `managedFields`, which nothing reads.
#[derive(Debug, Clone)]
pub(super) struct Guarded<W>(pub(super) Result<W, Unreadable>);

/// An object whose fields are not what the API says.
#[derive(Debug, Clone)]
pub(super) struct Unreadable {
    pub(super) error: String,
    pub(super) metadata: ObjectMeta,
}

impl<'de, W: DeserializeOwned> Deserialize<'de> for Guarded<W> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Named {
            metadata: ObjectMeta,
        }
        let object = Kept.deserialize(deserializer)?;
        let guarded = wire::read::<W>(&object).map(Ok).or_else(|error| {
            // An object without even a name cannot be told from the others.
            let Named { metadata } = wire::read(&object).map_err(D::Error::custom)?;
            Ok(Err(Unreadable { error: error.to_string(), metadata }))
        });
        guarded.map(Self)
    }
}

impl<W: Resource> Resource for Guarded<W> {
    type DynamicType = W::DynamicType;
    type Scope = W::Scope;

    fn kind(api: &W::DynamicType) -> Cow<'_, str> {
        W::kind(api)
    }

    fn group(api: &W::DynamicType) -> Cow<'_, str> {
        W::group(api)
    }

    fn version(api: &W::DynamicType) -> Cow<'_, str> {
        W::version(api)
    }

    fn plural(api: &W::DynamicType) -> Cow<'_, str> {
        W::plural(api)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|unreadable| &unreadable.metadata, W::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|unreadable| &mut unreadable.metadata, W::meta_mut)
    }
}

/// Reads a value without the `managedFields` in it.
struct Kept;

impl<'de> DeserializeSeed<'de> for Kept {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Kept {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut kept = Vec::new();
        while let Some(item) = items.next_element_seed(Self)? {
            kept.push(item);
        }
        Ok(kept.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut kept = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            if name == "managedFields" {
                fields.next_value::<IgnoredAny>()?;
            } else {
                kept.insert(name, fields.next_value_seed(Self)?);
            }
        }
        Ok(kept.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_nothing_reads_is_left_out_and_nothing_else_changes() {
        let mut object = json!({
            "metadata": {"name": "a", "labels": {"b": "c"}, "finalizers": []},
            "spec": {"numbers": [1, -2, 0.5, 18_446_744_073_709_551_615_u64], "yes": true, "none": null, "empty": {}},
        });
        let without = object.clone();
        object["metadata"]["managedFields"] = json!([{"manager": "m", "fieldsV1": {"f:spec": {}}}]);
        let text = object.to_string();
        assert_eq!(Kept.deserialize(&mut serde_json::Deserializer::from_str(&text)).unwrap(), without);
    }

    #[test]
    fn an_object_that_cannot_be_read_keeps_its_name() {
        let read = |spec| {
            let object = json!({"metadata": {"name": "a", "namespace": "b"}, "spec": spec});
            serde_json::from_value::<Guarded<wire::Service>>(object).unwrap()
        };
        assert_eq!(read(json!({"ports": [{"port": 80}]})).0.unwrap().spec.ports[0].port, 80);
        let unreadable = read(json!({"ports": 80})).0.unwrap_err();
        assert_eq!(unreadable.metadata.namespace.as_deref(), Some("b"));
        assert!(unreadable.error.contains("expected a sequence"), "{}", unreadable.error);
    }
}
