//! The part of JSONPath that `additionalPrinterColumns` use: fields, indexes, `[*]`, and filters by equality.

use serde_json::Value;

/// The values at a path such as `.status.conditions[?(@.type=="Ready")].status`. Nothing for a path that cannot be read.
pub(super) fn find<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    let Some(steps) = parse(path) else { return Vec::new() };
    steps.iter().fold(vec![value], |found, step| found.into_iter().flat_map(|value| step.select(value)).collect())
}

#[derive(Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// Items whose field (a path of its own) is equal, or not equal, to a value.
    Filter {
        path: String,
        equal: bool,
        value: String,
    },
}

impl Step {
    fn select<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Index(index) => {
                let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                let index = if *index < 0 {
                    items.len().checked_add_signed(*index as isize)
                } else {
                    usize::try_from(*index).ok()
                };
                index.and_then(|index| items.get(index)).into_iter().collect()
            }
            Self::All => match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(map) => map.values().collect(),
                _ => Vec::new(),
            },
            Self::Filter { path, equal, value: wanted } => {
                let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                let matches = |item: &&Value| find(item, path).iter().any(|found| is(found, wanted)) == *equal;
                items.iter().filter(matches).collect()
            }
        }
    }
}

/// Whether a value prints as a text.
fn is(value: &Value, text: &str) -> bool {
    match value {
        Value::String(value) => value == text,
        other => serde_json::from_str::<Value>(text).is_ok_and(|text| text == *other),
    }
}

fn parse(path: &str) -> Option<Vec<Step>> {
    let path = path.trim();
    let mut rest = path.strip_prefix('{').and_then(|path| path.strip_suffix('}')).unwrap_or(path);
    rest = rest.strip_prefix('$').unwrap_or(rest);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let end = closing(inner)?;
            steps.push(bracket(&inner[..end])?);
            rest = &inner[end + 1..];
            continue;
        }
        rest = rest.strip_prefix('.')?;
        let (name, length) = field(rest);
        rest = &rest[length..];
        match name.as_str() {
            "" if rest.starts_with('[') || rest.is_empty() => {}
            "" => return None,
            "*" => steps.push(Step::All),
            _ => steps.push(Step::Field(name)),
        }
    }
    Some(steps)
}

/// A field name, with `\.` for a dot in it, and how long it is as written.
fn field(text: &str) -> (String, usize) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '.' | '[' => return (name, at),
            '\\' => name.extend(chars.next().map(|(_, char)| char)),
            _ => name.push(char),
        }
    }
    (name, text.len())
}

/// Where the bracket that was opened before `text` closes. Quoted brackets do not count.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, char) in text.char_indices() {
        match (quote, char) {
            (None, ']') => return Some(at),
            (None, '"' | '\'') => quote = Some(char),
            (Some(open), char) if open == char => quote = None,
            _ => {}
        }
    }
    None
}

fn bracket(text: &str) -> Option<Step> {
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|text| text.strip_suffix(')')) {
        let (equal, operator) = if filter.contains("==") { (true, "==") } else { (false, "!=") };
        let (path, value) = filter.split_once(operator)?;
        let path = path.trim().strip_prefix('@')?.to_owned();
        return Some(Step::Filter { path, equal, value: unquoted(value.trim()).to_owned() });
    }
    match text.parse() {
        Ok(index) => Some(Step::Index(index)),
        Err(_) => Some(Step::Field(unquoted(text).to_owned())),
    }
}

fn unquoted(text: &str) -> &str {
    let inner = |quote| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_of_printer_columns() {
        let object = json!({
            "metadata": {"annotations": {"a.b/c": "dotted"}},
            "spec": {"hosts": ["x", "y"], "port": 80},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Synced", "status": "False"}]},
        });
        let found = |path: &str| find(&object, path).into_iter().cloned().collect::<Vec<_>>();
        assert_eq!(found(".spec.port"), [json!(80)]);
        assert_eq!(found("{.spec.port}"), [json!(80)]);
        assert_eq!(found("$.spec.hosts[0]"), [json!("x")]);
        assert_eq!(found(".spec.hosts[-1]"), [json!("y")]);
        assert_eq!(found(".spec.hosts[-3]"), [] as [Value; 0]);
        assert_eq!(found(".spec.hosts[*]"), [json!("x"), json!("y")]);
        assert_eq!(found(".metadata.annotations.a\\.b/c"), [json!("dotted")]);
        assert_eq!(found(".metadata.annotations['a.b/c']"), [json!("dotted")]);
        assert_eq!(found(".status.conditions[?(@.type==\"Ready\")].status"), [json!("True")]);
        assert_eq!(found(".status.conditions[?(@.type == 'Synced')].status"), [json!("False")]);
        assert_eq!(found(".status.missing.deep"), [] as [Value; 0]);
        assert_eq!(found("no dot"), [] as [Value; 0]);
    }
    proptest! {
        #[test]
        fn no_path_does_harm(path in "[.a\\[\\]?(@=!*'\"\\\\0-9äß{}$-]{0,24}") {
            find(&json!({"a": [{"a": 1}, {"b": "ä"}]}), &path);
        }
    }
}
