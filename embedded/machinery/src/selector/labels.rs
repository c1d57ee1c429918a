//! Label selectors, from a query string and from a `metav1.LabelSelector`.

use serde_json::Value;

use super::SelectorError;

/// A conjunction of requirements on labels. The empty one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
}

impl LabelSelector {
    /// Parses a query string: `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b,c)`, `a`, `!a`, `a>1`, `a<1`, joined by commas.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Parser::new(text).selector()
    }

    /// From a `metav1.LabelSelector` object. Null and `{}` select everything.
    pub fn from_object(selector: &Value) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(Requirement::new(key, Operator::In(vec![value]))?);
        }
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            requirements.push(from_expression(expression)?);
        }
        Ok(Self(requirements))
    }

    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object's `metadata.labels` satisfy every requirement.
    pub fn matches(&self, object: &Value) -> bool {
        self.is_empty() || self.matches_labels(crate::at(object, "/metadata/labels").unwrap_or(&Value::Null))
    }

    /// Whether a map of labels satisfies every requirement.
    pub fn matches_labels(&self, labels: &Value) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels.get(&requirement.key).and_then(Value::as_str)))
    }
}

impl Requirement {
    fn new(key: &str, operator: Operator) -> Result<Self, SelectorError> {
        check_key(key)?;
        if let Operator::In(values) | Operator::NotIn(values) = &operator {
            values.iter().try_for_each(|value| check_value(value))?;
        }
        Ok(Self { key: key.to_owned(), operator })
    }

    /// `!=` and `notin` are satisfied by an object without the label, as in Kubernetes.
    fn matches(&self, label: Option<&str>) -> bool {
        let number = || label.and_then(|label| label.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => label.is_some_and(|label| values.iter().any(|value| value == label)),
            Operator::NotIn(values) => label.is_none_or(|label| values.iter().all(|value| value != label)),
            Operator::Exists => label.is_some(),
            Operator::Absent => label.is_none(),
            Operator::Greater(bound) => number().is_some_and(|number| number > *bound),
            Operator::Less(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

fn from_expression(expression: &Value) -> Result<Requirement, SelectorError> {
    let key = expression.get("key").and_then(Value::as_str).unwrap_or_default();
    let operator = expression.get("operator").and_then(Value::as_str).unwrap_or_default();
    let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
    let values: Vec<String> = values.filter_map(Value::as_str).map(str::to_owned).collect();
    let problem = |problem: String| SelectorError::Expression { key: key.to_owned(), problem };
    let operator = match (operator, values.is_empty()) {
        ("In", false) => Operator::In(values),
        ("NotIn", false) => Operator::NotIn(values),
        ("Exists", true) => Operator::Exists,
        ("DoesNotExist", true) => Operator::Absent,
        ("In" | "NotIn", true) => return Err(problem(format!("operator {operator} needs at least one value"))),
        ("Exists" | "DoesNotExist", false) => {
            return Err(problem(format!("operator {operator} takes no values")));
        }
        _ => {
            let problem = problem(format!("{operator:?} is not a valid label selector operator"));
            return Err(problem);
        }
    };
    Requirement::new(key, operator)
}

/// `[prefix/]name`: the prefix a DNS name, the name as a value but not empty.
fn check_key(key: &str) -> Result<(), SelectorError> {
    let error = |rule| Err(SelectorError::Label { part: "key", text: key.to_owned(), rule });
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let dns = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if prefix.is_some_and(|prefix| prefix.is_empty() || prefix.len() > 253 || !prefix.chars().all(dns)) {
        return error("the part before '/' must be a lower case DNS name of at most 253 characters");
    }
    if name.is_empty() || !is_label(name) {
        return error(
            "the name must be 1 to 63 letters, digits, '-', '_' or '.', and begin and end with a letter or digit",
        );
    }
    Ok(())
}

fn check_value(value: &str) -> Result<(), SelectorError> {
    if is_label(value) {
        return Ok(());
    }
    Err(SelectorError::Label {
        part: "value",
        text: value.to_owned(),
        rule: "it must be at most 63 letters, digits, '-', '_' or '.', and begin and end with a letter or digit",
    })
}

fn is_label(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'a str),
    End,
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, rest: text.trim() }
    }

    fn selector(mut self) -> Result<LabelSelector, SelectorError> {
        let mut requirements = Vec::new();
        if self.rest.is_empty() {
            return Ok(LabelSelector::default());
        }
        loop {
            requirements.push(self.requirement()?);
            match self.next() {
                Token::End => return Ok(LabelSelector(requirements)),
                Token::Symbol(",") => {}
                found => return Err(self.error(found, "',' or the end")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        match self.next() {
            Token::Symbol("!") => match self.next() {
                Token::Word(key) => Requirement::new(key, Operator::Absent),
                found => Err(self.error(found, "a label key after '!'")),
            },
            Token::Word(key) => {
                let operator = self.operator()?;
                Requirement::new(key, operator)
            }
            found => Err(self.error(found, "a label key or '!'")),
        }
    }

    fn operator(&mut self) -> Result<Operator, SelectorError> {
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Ok(Operator::Exists);
        }
        Ok(match self.next() {
            Token::Symbol("=" | "==") => Operator::In(vec![self.value()?]),
            Token::Symbol("!=") => Operator::NotIn(vec![self.value()?]),
            Token::Symbol(">") => Operator::Greater(self.number()?),
            Token::Symbol("<") => Operator::Less(self.number()?),
            Token::Word("in") => Operator::In(self.values()?),
            Token::Word("notin") => Operator::NotIn(self.values()?),
            found => return Err(self.error(found, "'=', '==', '!=', '>', '<', 'in', 'notin', ',' or the end")),
        })
    }

    /// `a=` compares with the empty value.
    fn value(&mut self) -> Result<String, SelectorError> {
        match self.peek() {
            Token::End | Token::Symbol(",") => Ok(String::new()),
            Token::Word(word) => {
                self.next();
                Ok(word.to_owned())
            }
            found => Err(self.error(found, "a label value")),
        }
    }

    fn number(&mut self) -> Result<i64, SelectorError> {
        let text = self.value()?;
        text.parse().map_err(|_| SelectorError::NotANumber(text))
    }

    /// `(a,b)`; `(a,)` contains the empty value.
    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        match self.next() {
            Token::Symbol("(") => {}
            found => return Err(self.error(found, "'('")),
        }
        let mut values = Vec::new();
        let mut word = None;
        loop {
            match self.next() {
                Token::Word(value) if word.is_none() => word = Some(value.to_owned()),
                Token::Symbol(",") => values.push(word.take().unwrap_or_default()),
                Token::Symbol(")") => {
                    values.push(word.unwrap_or_default());
                    return Ok(values);
                }
                found => return Err(self.error(found, "',', ')' or a label value")),
            }
        }
    }

    fn peek(&self) -> Token<'a> {
        Self { text: self.text, rest: self.rest }.next()
    }

    fn next(&mut self) -> Token<'a> {
        self.rest = self.rest.trim_start();
        let length = match self.rest.as_bytes() {
            [] => return Token::End,
            [b'=', b'=', ..] | [b'!', b'=', ..] => 2,
            [b'!' | b'=' | b'>' | b'<' | b'(' | b')' | b',', ..] => 1,
            _ => {
                let end = self.rest.find(|c: char| c.is_whitespace() || "!=><(),".contains(c));
                let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
                self.rest = rest;
                return Token::Word(word);
            }
        };
        let (symbol, rest) = self.rest.split_at(length);
        self.rest = rest;
        Token::Symbol(symbol)
    }

    fn error(&self, found: Token<'_>, expected: &'static str) -> SelectorError {
        let found = match found {
            Token::Word(text) | Token::Symbol(text) => text.to_owned(),
            Token::End => String::new(),
        };
        SelectorError::Syntax { selector: self.text.to_owned(), found, expected }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn selects(selector: &str, labels: Value) -> bool {
        LabelSelector::parse(selector).unwrap().matches(&json!({"metadata": {"labels": labels}}))
    }

    #[test]
    fn every_operator() {
        let web = || json!({"app": "web", "tier": "front", "size": "7"});
        for selector in [
            "",
            " ",
            "app",
            "app=web",
            "app==web",
            "app = web , tier=front",
            "app in (web, api)",
            "app in (web)",
            "app notin (api,db)",
            "!legacy",
            "! legacy",
            "owner!=helm",
            "size>6",
            "size<8",
            "app,tier!=back,size",
        ] {
            assert!(selects(selector, web()), "{selector}");
        }
        for selector in [
            "app=api",
            "app!=web",
            "app in (api,)",
            "!app",
            "legacy",
            "app notin (web)",
            "size>7",
            "app<3",
            "none in (x)",
        ] {
            assert!(!selects(selector, web()), "{selector}");
        }
    }

    #[test]
    fn missing_labels_satisfy_inequality_only() {
        let bare = json!({"metadata": {"name": "x"}});
        assert!(LabelSelector::parse("owner!=helm").unwrap().matches(&bare));
        assert!(LabelSelector::parse("owner notin (helm)").unwrap().matches(&bare));
        assert!(!LabelSelector::parse("owner=").unwrap().matches(&bare));
    }

    #[test]
    fn empty_values_are_values() {
        assert!(selects("a=", json!({"a": ""})));
        assert!(selects("a in (x,)", json!({"a": ""})));
        assert!(selects("a=,b", json!({"a": "", "b": "c"})));
    }

    #[test]
    fn malformed_selectors_are_refused() {
        for selector in [
            "a=b,", ",a", "a in b", "a in (b", "a=(b)", "a b", "!a=b", "a>x", "a=b c", "a=b=c", "-a=b", "a=-b", "/a",
            "A/b",
        ] {
            assert!(LabelSelector::parse(selector).is_err(), "{selector}");
        }
    }

    #[test]
    fn from_objects() {
        let selector = json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["front", "back"]},
                {"key": "legacy", "operator": "DoesNotExist"},
            ],
        });
        let selector = LabelSelector::from_object(&selector).unwrap();
        assert!(selector.matches_labels(&json!({"app": "web", "tier": "back"})));
        assert!(!selector.matches_labels(&json!({"app": "web", "tier": "back", "legacy": ""})));
        assert!(!selector.matches_labels(&json!({"app": "web"})));
        assert!(LabelSelector::from_object(&Value::Null).unwrap().is_empty());
        for operator in ["In", "Is"] {
            let wrong = json!({"matchExpressions": [{"key": "a", "operator": operator}]});
            assert!(LabelSelector::from_object(&wrong).is_err());
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,40}") {
            let _ = LabelSelector::parse(&text);
        }

        #[test]
        fn equality_and_inequality_are_opposites(key in "[a-z]{1,3}", value in "[a-z]{0,2}", label in "[a-z]{0,2}") {
            let labels = json!({&key: label});
            let equal = LabelSelector::parse(&format!("{key}={value}")).unwrap();
            let unequal = LabelSelector::parse(&format!("{key}!={value}")).unwrap();
            prop_assert_ne!(equal.matches_labels(&labels), unequal.matches_labels(&labels));
        }
    }
}
