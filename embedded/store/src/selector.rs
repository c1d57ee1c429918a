//! Selectors until the machinery has them.
use serde_json::Value;

pub(crate) struct LabelSelector(Vec<(String, &'static str, Vec<String>)>);

impl LabelSelector {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut terms = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let end = match (rest.find(','), rest.find('(')) {
                (Some(comma), Some(open)) if open < comma => {
                    rest[open..].find(')').map(|at| open + at + 1).unwrap_or(rest.len())
                }
                (Some(comma), _) => comma,
                (None, _) => rest.len(),
            };
            let term = rest[..end].trim();
            rest = rest[end..].trim_start_matches([',', ' ']);
            let words = |list: &str| {
                list.trim_matches(|c| c == '(' || c == ')' || c == ' ')
                    .split(',')
                    .map(|w| w.trim().to_owned())
                    .collect::<Vec<_>>()
            };
            let one = |key: &str, op, value: &str| (key.trim().to_owned(), op, vec![value.trim().to_owned()]);
            terms.push(if let Some((key, list)) = term.split_once(" notin ") {
                (key.trim().to_owned(), "notin", words(list))
            } else if let Some((key, list)) = term.split_once(" in ") {
                (key.trim().to_owned(), "in", words(list))
            } else if let Some((key, value)) = term.split_once("!=") {
                one(key, "notin", value)
            } else if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
                one(key, "in", value)
            } else if let Some(key) = term.strip_prefix('!') {
                (key.trim().to_owned(), "absent", vec![])
            } else {
                (term.to_owned(), "exists", vec![])
            });
        }
        Ok(Self(terms))
    }
    pub(crate) fn from_value(selector: &Value) -> Result<Self, String> {
        let mut terms = Vec::new();
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            terms.push((key.clone(), "in", vec![value.as_str().unwrap_or_default().to_owned()]));
        }
        for term in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let values =
                term["values"].as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect();
            let op = match term["operator"].as_str() {
                Some("In") => "in",
                Some("NotIn") => "notin",
                Some("Exists") => "exists",
                _ => "absent",
            };
            terms.push((term["key"].as_str().unwrap_or_default().to_owned(), op, values));
        }
        Ok(Self(terms))
    }
    pub(crate) fn matches(&self, labels: &Value) -> bool {
        self.0.iter().all(|(key, op, values)| {
            let found = labels.get(key).and_then(Value::as_str);
            match *op {
                "in" => found.is_some_and(|found| values.iter().any(|v| v == found)),
                "notin" => found.is_none_or(|found| values.iter().all(|v| v != found)),
                "exists" => found.is_some(),
                _ => found.is_none(),
            }
        })
    }
}

pub(crate) struct FieldSelector(Vec<(String, bool, String)>);

impl FieldSelector {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let terms = text
            .split(',')
            .filter(|t| !t.trim().is_empty())
            .map(|term| {
                let (key, equal, value) = if let Some((key, value)) = term.split_once("!=") {
                    (key, false, value)
                } else if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
                    (key, true, value)
                } else {
                    return Err(format!("invalid selector: '{text}'; can't understand '{term}'"));
                };
                Ok((format!("/{}", key.trim().replace('.', "/")), equal, value.trim().to_owned()))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self(terms))
    }
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(path, equal, value)| (crate::json::str_at(object, path) == value) == *equal)
    }
}
