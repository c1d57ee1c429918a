use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Bodies that kubectl 1.37.1 sent, with what it prints for the same command and `--dry-run=client -o json`.
fn recorded() -> Vec<(String, Vec<u8>, Value)> {
    let lines = include_str!("recorded.jsonl").lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .map(|line| {
            let body = STANDARD.decode(line["body"].as_str().unwrap()).unwrap();
            (line["command"].as_str().unwrap().to_owned(), body, line["object"].clone())
        })
        .collect()
}

/// Go prints empty structs and null times; neither says anything.
fn without_empty(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let fields = map.iter().map(|(name, value)| (name.clone(), without_empty(value)));
            Value::Object(fields.filter(|(_, value)| !value.is_null() && *value != json!({})).collect())
        }
        Value::Array(items) => items.iter().map(without_empty).collect(),
        scalar => scalar.clone(),
    }
}

#[test]
fn bodies_of_kubectl_are_what_it_prints() {
    for (command, body, object) in recorded() {
        let mut decoded = without_empty(&decode_envelope(&body).unwrap());
        let mut printed = without_empty(&object);
        // Printed objects carry the namespace of the kubeconfig, sent ones need not. Status means nothing on creation,
        // but is printed with zeroes that say nothing.
        for object in [&mut decoded, &mut printed] {
            if let Some(object) = object.as_object_mut() {
                object.remove("status");
            }
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("namespace");
            }
        }
        assert_eq!(decoded, printed, "{command}");
    }
}

#[test]
fn zeroes_of_pointers_are_kept_and_others_dropped() {
    let all = recorded();
    let (_, body, _) = all.iter().find(|(command, ..)| command.contains("create deployment")).unwrap();
    let deployment = decode_envelope(body).unwrap();
    assert_eq!(deployment["spec"]["replicas"], 0, "a pointer");
    assert!(deployment["spec"].get("paused").is_none(), "no pointer");
    assert!(deployment["metadata"].get("creationTimestamp").is_none());
}

/// Encodes fields by hand: `(number, bytes)` and `(number, varint)`.
fn message(fields: &[(u8, Result<u64, &[u8]>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let varint = |bytes: &mut Vec<u8>, mut value: u64| {
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
    };
    for (number, value) in fields {
        match value {
            Ok(value) => {
                bytes.push(number << 3);
                varint(&mut bytes, *value);
            }
            Err(value) => {
                bytes.push(number << 3 | 2);
                varint(&mut bytes, value.len() as u64);
                bytes.extend(*value);
            }
        }
    }
    bytes
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = message(&[(1, Err(api_version.as_bytes())), (2, Err(kind.as_bytes()))]);
    let mut body = MAGIC.to_vec();
    body.extend(message(&[(1, Err(&meta)), (2, Err(raw))]));
    body
}

#[test]
fn special_types() {
    let time = message(&[(1, Ok(1_795_341_600)), (2, Ok(123_456_789))]);
    let spec = message(&[(1, Err(b"me")), (2, Ok(15)), (3, Err(&time)), (5, Ok(0))]);
    let lease = decode_envelope(&envelope("coordination.k8s.io/v1", "Lease", &message(&[(2, Err(&spec))]))).unwrap();
    assert_eq!(
        lease["spec"],
        json!({"holderIdentity": "me", "leaseDurationSeconds": 15, "acquireTime": "2026-11-22T10:00:00.123456Z", "leaseTransitions": 0})
    );
}

#[test]
fn delete_options_come_in_any_version() {
    let options =
        decode_envelope(&envelope("apps/v1", "DeleteOptions", &message(&[(1, Ok(0)), (4, Err(b"Background"))])));
    assert_eq!(
        options.unwrap(),
        json!({"apiVersion": "apps/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "propagationPolicy": "Background"})
    );
}

#[test]
fn wrong_bodies_are_refused() {
    assert_eq!(decode_envelope(b"{}"), Err(DecodeError::NotAnEnvelope));
    assert!(matches!(decode_envelope(&envelope("a/v1", "Widget", &[])), Err(DecodeError::UnknownKind { .. })));
    assert_eq!(decode_envelope(&envelope("v1", "ConfigMap", &[0x0a, 5, 1])), Err(DecodeError::Truncated));
    let number = message(&[(1, Ok(1))]);
    assert_eq!(
        decode_envelope(&envelope("v1", "ConfigMap", &number)).unwrap_err().to_string(),
        "core.v1.ConfigMap.metadata: expected meta.v1.ObjectMeta on the wire, found something else"
    );
    let unknown_field = message(&[(15, Ok(1))]);
    assert!(decode_envelope(&envelope("v1", "ConfigMap", &unknown_field)).is_ok(), "skipped, as in Kubernetes");
}

proptest! {
    #[test]
    fn decoding_never_panics(raw in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = decode_envelope(&envelope("apps/v1", "Deployment", &raw));
        let _ = decode_envelope(&raw);
    }
}
