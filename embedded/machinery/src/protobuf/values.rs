//! From the fields of a message to JSON, as Go would have written it.
//!
//! Go writes scalars that are no pointers even when they are zero, and pointers only when they are set. So a zero is
//! dropped unless the field is a pointer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::DecodeError;
use super::messages::{FieldType, Form, Message, Messages};
use super::wire::{self, Field, Payload};

/// Decodes a message into a JSON object.
pub(super) fn decode_into(
    messages: &Messages,
    message: &Message,
    bytes: &[u8],
    object: &mut Map<String, Value>,
) -> Result<(), DecodeError> {
    for field in wire::fields(bytes) {
        let Field { number, payload } = field?;
        let Some(field) = message.field(number) else { continue };
        let decoder = Decoder { messages, message: message.name, field };
        match field.form {
            Form::Inline => {
                let inner = messages.get(field.of).ok_or(decoder.wrong_type())?;
                decode_into(messages, inner, decoder.bytes(payload)?, object)?;
            }
            Form::List => decoder.append(payload, object)?,
            Form::Map => decoder.add_entry(payload, object)?,
            Form::Plain | Form::Pointer | Form::Struct => {
                let value = decoder.value(payload)?;
                if !decoder.is_unset(&value) {
                    object.insert(field.name.to_owned(), value);
                }
            }
        }
    }
    Ok(())
}

/// A string of the wire.
pub(super) fn text(bytes: &[u8]) -> Result<String, DecodeError> {
    let text = str::from_utf8(bytes).map_err(|_| DecodeError::Malformed("a string is not UTF-8"))?;
    Ok(text.to_owned())
}

struct Decoder<'m> {
    messages: &'m Messages,
    message: &'static str,
    field: FieldType,
}

impl Decoder<'_> {
    /// Whether Go's JSON would leave the value out.
    fn is_unset(&self, value: &Value) -> bool {
        match self.field.form {
            Form::Pointer => false,
            Form::Struct => *value == json!({}) || *value == json!(0) || value.is_null(),
            _ => match value {
                Value::Null => true,
                Value::Bool(set) => !set,
                Value::Number(number) => number.as_i64() == Some(0) && self.field.of != "IntOrString",
                Value::String(text) => text.is_empty(),
                Value::Array(_) | Value::Object(_) => false,
            },
        }
    }

    fn append(&self, payload: Payload<'_>, object: &mut Map<String, Value>) -> Result<(), DecodeError> {
        let list = object.entry(self.field.name).or_insert_with(|| json!([]));
        let Value::Array(list) = list else { return Err(self.wrong_type()) };
        match payload {
            // Numbers may come packed into one field.
            Payload::Bytes(mut packed) if matches!(self.field.of, "int32" | "int64" | "bool") => {
                while !packed.is_empty() {
                    list.push(self.value(Payload::Varint(wire::varint(&mut packed)?))?);
                }
            }
            payload => list.push(self.value(payload)?),
        }
        Ok(())
    }

    /// A map is a list of messages with the fields 1 key and 2 value.
    fn add_entry(&self, payload: Payload<'_>, object: &mut Map<String, Value>) -> Result<(), DecodeError> {
        let (mut key, mut value) = (String::new(), None);
        for field in wire::fields(self.bytes(payload)?) {
            match field? {
                Field { number: 1, payload: Payload::Bytes(bytes) } => key = text(bytes)?,
                Field { number: 2, payload } => value = Some(self.value(payload)?),
                _ => {}
            }
        }
        let value = match value {
            Some(value) => value,
            None => self.value(Payload::Bytes(&[]))?,
        };
        let map = object.entry(self.field.name).or_insert_with(|| json!({}));
        let Value::Object(map) = map else { return Err(self.wrong_type()) };
        map.insert(key, value);
        Ok(())
    }

    fn value(&self, payload: Payload<'_>) -> Result<Value, DecodeError> {
        Ok(match (self.field.of, payload) {
            ("bool", Payload::Varint(number)) => json!(number != 0),
            ("int32" | "int64", Payload::Varint(number)) => json!(signed(number)),
            ("double", Payload::Fixed64(bytes)) => json!(f64::from_le_bytes(bytes)),
            ("string", Payload::Bytes(bytes)) => json!(text(bytes)?),
            ("bytes", Payload::Bytes(bytes)) => json!(STANDARD.encode(bytes)),
            ("strings", Payload::Bytes(bytes)) => strings(bytes)?,
            ("Time", Payload::Bytes(bytes)) => time(bytes, 0)?,
            ("MicroTime", Payload::Bytes(bytes)) => time(bytes, 6)?,
            ("Duration", Payload::Bytes(bytes)) => duration(bytes)?,
            ("IntOrString", Payload::Bytes(bytes)) => int_or_string(bytes)?,
            ("Quantity", Payload::Bytes(bytes)) => quantity(bytes)?,
            ("Json", Payload::Bytes(bytes)) => raw_json(bytes)?,
            (name, Payload::Bytes(bytes)) => {
                let message = self.messages.get(name).ok_or_else(|| self.wrong_type())?;
                let mut object = Map::new();
                decode_into(self.messages, message, bytes, &mut object)?;
                Value::Object(object)
            }
            _ => return Err(self.wrong_type()),
        })
    }

    fn bytes<'a>(&self, payload: Payload<'a>) -> Result<&'a [u8], DecodeError> {
        match payload {
            Payload::Bytes(bytes) => Ok(bytes),
            _ => Err(self.wrong_type()),
        }
    }

    fn wrong_type(&self) -> DecodeError {
        DecodeError::FieldType { message: self.message, field: self.field.name, expected: self.field.of }
    }
}

/// The API's integers are plain varints; negative ones take ten bytes.
fn signed(number: u64) -> i64 {
    number.cast_signed()
}

/// `meta.v1.Verbs`, `authentication.v1.ExtraValue`: 1 items.
fn strings(bytes: &[u8]) -> Result<Value, DecodeError> {
    let mut items = Vec::new();
    for field in wire::fields(bytes) {
        if let Field { number: 1, payload: Payload::Bytes(item) } = field? {
            items.push(json!(text(item)?));
        }
    }
    Ok(Value::Array(items))
}

/// `meta.v1.Time` and `MicroTime`: 1 seconds, 2 nanoseconds. The empty message is the unset time: null.
fn time(bytes: &[u8], digits: u8) -> Result<Value, DecodeError> {
    let (mut seconds, mut nanoseconds) = (None, 0);
    for field in wire::fields(bytes) {
        match field? {
            Field { number: 1, payload: Payload::Varint(number) } => seconds = Some(signed(number)),
            Field { number: 2, payload: Payload::Varint(number) } => nanoseconds = signed(number),
            _ => {}
        }
    }
    let Some(seconds) = seconds else { return Ok(Value::Null) };
    let nanoseconds = i32::try_from(nanoseconds).map_err(|_| OUT_OF_RANGE)?;
    let time = jiff::Timestamp::new(seconds, if digits == 0 { 0 } else { nanoseconds }).map_err(|_| OUT_OF_RANGE)?;
    Ok(json!(format!("{time:.*}", usize::from(digits))))
}

const OUT_OF_RANGE: DecodeError = DecodeError::Malformed("a time is out of range");

/// `meta.v1.Duration`: 1 nanoseconds. As Go writes whole seconds.
fn duration(bytes: &[u8]) -> Result<Value, DecodeError> {
    let mut nanoseconds = 0;
    for field in wire::fields(bytes) {
        if let Field { number: 1, payload: Payload::Varint(number) } = field? {
            nanoseconds = signed(number);
        }
    }
    Ok(json!(format!("{}s", nanoseconds / 1_000_000_000)))
}

/// 1 type (0 integer, 1 string), 2 integer, 3 string.
fn int_or_string(bytes: &[u8]) -> Result<Value, DecodeError> {
    let (mut is_string, mut number, mut string) = (false, 0, String::new());
    for field in wire::fields(bytes) {
        match field? {
            Field { number: 1, payload: Payload::Varint(kind) } => is_string = kind == 1,
            Field { number: 2, payload: Payload::Varint(value) } => number = signed(value),
            Field { number: 3, payload: Payload::Bytes(value) } => string = text(value)?,
            _ => {}
        }
    }
    Ok(if is_string { json!(string) } else { json!(number) })
}

/// 1 the text.
fn quantity(bytes: &[u8]) -> Result<Value, DecodeError> {
    let mut quantity = String::from("0");
    for field in wire::fields(bytes) {
        if let Field { number: 1, payload: Payload::Bytes(value) } = field?
            && !value.is_empty()
        {
            quantity = text(value)?;
        }
    }
    Ok(json!(quantity))
}

/// `FieldsV1` and `RawExtension`: 1 JSON.
fn raw_json(bytes: &[u8]) -> Result<Value, DecodeError> {
    let mut json = Value::Null;
    for field in wire::fields(bytes) {
        if let Field { number: 1, payload: Payload::Bytes(raw) } = field?
            && !raw.is_empty()
        {
            json = serde_json::from_slice(raw).map_err(|_| DecodeError::Malformed("an embedded object is not JSON"))?;
        }
    }
    Ok(json)
}
