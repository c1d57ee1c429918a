//! Protobuf bodies, which client-go's typed clients send: `kubectl create`, Traefik's Ingress status, leader election.
//!
//! A body is the magic `k8s\0` and a `runtime.Unknown` message, which names the kind and holds the object's own
//! message. [`decode_envelope`] turns it into the JSON that the same client would have sent, led by a table
//! (`messages.txt`) of field numbers and JSON names.

mod messages;
mod values;
mod wire;

use serde_json::{Map, Value};

use messages::Messages;
use wire::{Field, Payload};

/// What a body of the content type `application/vnd.kubernetes.protobuf` begins with.
pub const MAGIC: [u8; 4] = *b"k8s\0";

/// Why a body could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The magic is missing.
    #[error("the body is not in the Kubernetes protobuf format: expected it to begin with \"k8s\\0\"")]
    NotAnEnvelope,
    /// The envelope says how the object is encoded or compressed, and it is not plain protobuf.
    #[error("unsupported content in the protobuf envelope: {0:?}; send plain protobuf, or JSON")]
    Content(String),
    /// No table for this kind.
    #[error("no protobuf decoder for {kind:?} in version {api_version:?}; send it as application/json")]
    UnknownKind {
        /// The envelope's `apiVersion`.
        api_version: String,
        /// The envelope's `kind`.
        kind: String,
    },
    /// The bytes end in the middle of a field.
    #[error("the protobuf message ends in the middle of a field")]
    Truncated,
    /// The bytes are no protobuf message.
    #[error("malformed protobuf message: {0}")]
    Malformed(&'static str),
    /// A field is not of the type that the table says.
    #[error("{message}.{field}: expected {expected} on the wire, found something else")]
    FieldType {
        /// The message.
        message: &'static str,
        /// The field's JSON name.
        field: &'static str,
        /// Its type in the table.
        expected: &'static str,
    },
}

/// Decodes a body into the object it holds, with `apiVersion` and `kind`.
pub fn decode_envelope(body: &[u8]) -> Result<Value, DecodeError> {
    let unknown = body.strip_prefix(&MAGIC).ok_or(DecodeError::NotAnEnvelope)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in wire::fields(unknown) {
        match field? {
            Field { number: 1, payload: Payload::Bytes(type_meta) } => {
                for field in wire::fields(type_meta) {
                    match field? {
                        Field { number: 1, payload: Payload::Bytes(text) } => api_version = values::text(text)?,
                        Field { number: 2, payload: Payload::Bytes(text) } => kind = values::text(text)?,
                        _ => {}
                    }
                }
            }
            Field { number: 2, payload: Payload::Bytes(bytes) } => raw = bytes,
            Field { number: 3 | 4, payload: Payload::Bytes(content) } if !content.is_empty() => {
                return Err(DecodeError::Content(values::text(content)?));
            }
            _ => {}
        }
    }
    let messages = Messages::shared();
    let Some(message) = messages.of_kind(&api_version, &kind) else {
        return Err(DecodeError::UnknownKind { api_version, kind });
    };
    let mut object = Map::new();
    values::decode_into(messages, message, raw, &mut object)?;
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(object))
}

#[cfg(test)]
mod tests;
