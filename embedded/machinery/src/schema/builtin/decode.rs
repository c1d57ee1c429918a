//! Decoding an object by its types, as Go's JSON decoder would.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::types::{Struct, Type, Types};
use crate::schema::join;

/// Decodes a whole object.
pub(super) fn decode(types: &Types, object: &mut Value) -> Result<Vec<String>, String> {
    decode_at(types, "", object)
}

/// Decodes a value at a path of an object.
pub(super) fn decode_at(types: &Types, path: &str, value: &mut Value) -> Result<Vec<String>, String> {
    let mut decoder = Decoder { types, unknown: Vec::new(), fields: path.to_owned(), within: String::new() };
    decoder.value(&types.root(), path, value)?;
    Ok(decoder.unknown)
}

struct Decoder<'t> {
    types: &'t Types,
    unknown: Vec<String>,
    /// The path as Go's errors name it: fields only, no indexes.
    fields: String,
    /// The struct that has the current field.
    within: String,
}

impl Decoder<'_> {
    fn value(&mut self, of: &Type, path: &str, value: &mut Value) -> Result<(), String> {
        match (of, &mut *value) {
            // Null leaves a Go value as it is.
            (Type::Any, _) | (_, Value::Null) => {}
            (Type::Struct(place), Value::Object(map)) => {
                if let Some(of) = self.types.get(*place) {
                    self.object(of, path, map)?;
                }
            }
            (Type::Map(of), Value::Object(map)) => {
                map.retain(|_, value| !value.is_null());
                for (key, value) in map {
                    self.value(of, &join(path, key), value)?;
                }
            }
            (Type::List(of), Value::Array(items)) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.value(of, &format!("{path}[{index}]"), item)?;
                }
            }
            (Type::Bool, Value::Bool(_))
            | (Type::String, Value::String(_))
            | (Type::IntOrString | Type::Quantity, Value::String(_)) => {}
            (Type::Quantity | Type::Float, Value::Number(_)) => {}
            (Type::Integer("int32") | Type::IntOrString, Value::Number(number))
                if number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()) => {}
            (Type::Integer("int64"), Value::Number(number)) if number.is_i64() => {}
            (Type::Bytes, Value::String(text)) => {
                if STANDARD.decode(text.as_bytes()).is_err() {
                    return Err(format!("illegal base64 data in field {:?}", self.fields));
                }
            }
            (Type::Time, Value::String(text)) => {
                if text.parse::<jiff::Timestamp>().is_err() {
                    return Err(format!(
                        "parsing time {text:?} in field {:?} as RFC 3339: cannot parse it",
                        self.fields
                    ));
                }
            }
            (_, found) => return Err(self.wrong_type(of, found)),
        }
        if let (Type::Quantity, Value::String(text)) = (of, &*value)
            && !is_quantity(text)
        {
            return Err(
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'".into()
            );
        }
        Ok(())
    }

    fn object(&mut self, of: &Struct, path: &str, map: &mut Map<String, Value>) -> Result<(), String> {
        let outer = (self.fields.clone(), std::mem::replace(&mut self.within, of.name.clone()));
        let mut gone = Vec::new();
        for (name, value) in map.iter_mut() {
            match of.fields.get(name) {
                None => {
                    self.unknown.push(join(path, name));
                    gone.push(name.clone());
                }
                Some(Type::Any) => {}
                Some(_) if value.is_null() => gone.push(name.clone()),
                Some(of_field) => {
                    self.fields = join(&outer.0, name);
                    self.within.clone_from(&of.name);
                    self.value(of_field, &join(path, name), value)?;
                }
            }
        }
        gone.iter().for_each(|name| {
            map.remove(name);
        });
        (self.fields, self.within) = outer;
        Ok(())
    }

    fn wrong_type(&self, expected: &Type, found: &Value) -> String {
        let found = match found {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(number) if number.is_i64() && !matches!(expected, Type::Integer(_)) => "number".to_owned(),
            Value::Number(number) => format!("number {number}"),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        let expected = self.types.go_name(expected);
        if self.within.is_empty() {
            return format!("json: cannot unmarshal {found} into Go value of type {expected}");
        }
        format!(
            "json: cannot unmarshal {found} into Go struct field {}.{} of type {expected}",
            self.within, self.fields
        )
    }
}

/// `[sign]number[suffix]`, the suffix binary (`Ki`), decimal (`m`, `k`) or an exponent (`e3`).
fn is_quantity(text: &str) -> bool {
    const SUFFIXES: [&str; 16] = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let is_exponent = || suffix.strip_prefix(['e', 'E']).is_some_and(|exponent| exponent.parse::<i32>().is_ok());
    number.bytes().any(|c| c.is_ascii_digit())
        && number.matches('.').count() <= 1
        && (SUFFIXES.contains(&suffix) || is_exponent())
}
