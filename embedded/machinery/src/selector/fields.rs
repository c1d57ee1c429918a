//! Field selectors: comparisons of single fields with strings.

use std::borrow::Cow;

use serde_json::Value;

use super::SelectorError;

/// A conjunction of comparisons. The empty one selects everything.
///
/// What is compared is named by a label: a path of the object ([`text_at`]), but for some kinds' labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<Term>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    label: String,
    value: String,
    equal: bool,
}

impl FieldSelector {
    /// Parses `metadata.name=web,status.phase!=Running`; `\\`, `\,` and `\=` escape in values.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let terms = split_terms(text).into_iter().filter(|term| !term.trim().is_empty());
        let terms = terms.map(|term| {
            let error = || SelectorError::Term { selector: text.to_owned(), term: term.to_owned() };
            let at = term.find('=').ok_or_else(error)?;
            let (label, value) = (&term[..at], &term[at + 1..]);
            let (label, equal) = label.strip_suffix('!').map_or((label, true), |label| (label, false));
            let value = if equal { value.strip_prefix('=').unwrap_or(value) } else { value };
            let value = unescape(value).ok_or_else(error)?;
            Ok(Term { label: label.trim().to_owned(), value, equal })
        });
        Ok(Self(terms.collect::<Result<_, _>>()?))
    }

    /// What is compared, in the order of the text.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|term| term.label.as_str())
    }

    /// Whether an object, of which `text` has the value of a label, satisfies every comparison.
    pub fn matches<'o>(&self, text: impl Fn(&str) -> Cow<'o, str>) -> bool {
        self.0.iter().all(|term| (text(&term.label) == term.value) == term.equal)
    }
}

/// Splits at commas that no backslash protects.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut begin, mut escaped) = (Vec::new(), 0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                terms.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[begin..]);
    terms
}

/// `None` for a lone backslash, an escape of another character or an unescaped `=`.
fn unescape(value: &str) -> Option<String> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.trim().chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.push(chars.next().filter(|c| matches!(c, '\\' | ',' | '='))?),
            '=' => return None,
            _ => plain.push(c),
        }
    }
    Some(plain)
}

/// The field at a dotted path as text; `""` when it is missing or null.
pub fn text_at<'a>(object: &'a Value, path: &str) -> Cow<'a, str> {
    let path = path.strip_prefix('.').unwrap_or(path);
    let found = path.split('.').try_fold(object, |value, key| match value {
        Value::Array(items) => items.get(key.parse::<usize>().ok()?),
        value => value.get(key),
    });
    match found {
        None | Some(Value::Null) => Cow::Borrowed(""),
        Some(Value::String(text)) => Cow::Borrowed(text),
        Some(other) => Cow::Owned(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn selects(selector: &str) -> bool {
        let pod = json!({
            "metadata": {"name": "web", "generation": 2},
            "spec": {"hostNetwork": true, "nodeName": "a,b=c"},
            "status": {"phase": null},
        });
        FieldSelector::parse(selector).unwrap().matches(|path| text_at(&pod, path))
    }

    #[test]
    fn comparisons() {
        for selector in [
            "",
            "metadata.name=web",
            "metadata.name==web,status.phase!=Running",
            "status.phase=",
            "spec.nothing.at.all=",
            "metadata.generation=2",
            "spec.hostNetwork=true",
            r"spec.nodeName=a\,b\=c",
        ] {
            assert!(selects(selector), "{selector}");
        }
        for selector in ["metadata.name=api", "metadata.name!=web", "spec.nothing!=", "status.phase=Running"] {
            assert!(!selects(selector), "{selector}");
        }
    }

    #[test]
    fn malformed_selectors_are_refused() {
        for selector in ["metadata.name", "a=b,c", r"a=\x", "a=b=c", "a=\\"] {
            assert!(FieldSelector::parse(selector).is_err(), "{selector}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,40}") {
            let _ = FieldSelector::parse(&text);
        }
    }
}
