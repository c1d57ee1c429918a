//! Writes objects as YAML that every reader understands alike.
//!
//! Kubernetes' tools read YAML 1.1, where `yes`, `on` and `1_000` are a boolean, a boolean and a number; the YAML library
//! writes strings for YAML 1.2, where they are strings. So strings are quoted here unless they are plain words in both.

use serde_json::Value;

/// The object as one YAML document in block style, keys in the map's order.
pub(crate) fn write(object: &Value) -> String {
    let mut out = String::new();
    block(&mut out, object, 0, false);
    out
}

/// Writes `value` at `indent`. With `inline` the first line continues a line that is already there (after `- `).
fn block(out: &mut String, value: &Value, indent: usize, inline: bool) {
    let mut first = inline;
    let mut start = |out: &mut String| {
        if !std::mem::take(&mut first) {
            out.extend(std::iter::repeat_n(' ', indent));
        }
    };
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                start(out);
                out.push_str(&scalar(key));
                out.push(':');
                nested(out, value, indent);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                start(out);
                out.push_str("- ");
                block(out, item, indent + 2, true);
            }
        }
        leaf => {
            start(out);
            out.push_str(&flow(leaf));
            out.push('\n');
        }
    }
}

/// The value of a key: on the key's line if it is a leaf, in lines of its own if it is not. Lists stand under their key
/// without further indentation, as Kubernetes' tools write them.
fn nested(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            block(out, value, indent + 2, false);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            block(out, value, indent, false);
        }
        leaf => {
            out.push(' ');
            out.push_str(&flow(leaf));
            out.push('\n');
        }
    }
}

fn flow(leaf: &Value) -> String {
    match leaf {
        Value::String(text) => scalar(text),
        // Numbers, booleans, null, {} and [] are the same in JSON and YAML.
        other => other.to_string(),
    }
}

fn scalar(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { Value::from(text).to_string() }
}

/// Whether both versions of YAML read the bare text as this string.
fn is_plain(text: &str) -> bool {
    const NOT_STRINGS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./: ".contains(c))
        && !text.ends_with([':', ' '])
        && !text.contains(": ")
        && !NOT_STRINGS.iter().any(|word| word.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn words_that_old_readers_take_for_something_else_are_quoted() {
        for text in [
            "yes", "No", "on", "OFF", "y", "010", "1_000", "1e3", "12:30", "~", "null", "", "a: b", "a #b", "-x", "a:",
            "a ",
        ] {
            assert_eq!(scalar(text), format!("{text:?}"));
        }
        for text in ["web", "docker.io/library/traefik:v3.7.15", "/ready", "status.podIP", "two words"] {
            assert_eq!(scalar(text), text);
        }
    }

    #[test]
    fn blocks_nest() {
        let object = json!({"a": [{"b": 1, "c": {"d": [[true, null], {}]}}, "x"], "e": [], "f": "two\nlines"});
        let yaml = "a:\n- b: 1\n  c:\n    d:\n    - - true\n      - null\n    - {}\n- x\ne: []\nf: \"two\\nlines\"\n";
        assert_eq!(write(&object), yaml);
    }

    fn any_object() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~\n\t\u{e4}]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec(("[ -~]{0,8}", inner), 0..4)
                    .prop_map(|entries| entries.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(object in any_object()) {
            let back: Value = serde_yaml::from_str(&write(&object)).unwrap();
            prop_assert_eq!(back, object);
        }
    }
}
