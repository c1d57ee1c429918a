//! The plugin request-transformer, worked out before any request comes.
//!
//! Kong goes through a table of headers in Lua: remove, rename, replace what is there, add what is not, append. Here each step is
//! applied to an expression of nginx instead of a value. What depends on whether the client has sent a header becomes a `map`, whose
//! key is `""` when there is none. A `map` costs nginx a millisecond whenever it reads its configuration, so plugins that differ in
//! nothing but their values share theirs: the values are variables that each location sets.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::names;

/// A plugin's `config`, of which this stand-in plays the headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Transformer {
    remove: Vec<String>,
    rename: Vec<(String, String)>,
    replace: Vec<(String, String)>,
    add: Vec<(String, String)>,
    append: Vec<(String, String)>,
}

/// Which field of a `config` is not taken, and why: Kong's schema refuses it, or Kong would take it and it is not played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) field: String,
    pub(super) message: String,
}

impl Refused {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }

    fn not_played(field: impl Into<String>) -> Self {
        Self::new(field, "it is not played by this gateway")
    }
}

/// The steps and what else of a request each may change.
const STEPS: &[(&str, &[&str])] = &[
    ("remove", &["headers", "querystring", "body"]),
    ("rename", &["headers", "querystring", "body"]),
    ("replace", &["headers", "querystring", "body", "json_types", "uri"]),
    ("add", &["headers", "querystring", "body", "json_types"]),
    ("append", &["headers", "querystring", "body", "json_types"]),
];

/// What the Admin API says of the plugin's configuration, by which controllers fill in what is not said. Nothing is.
pub(super) fn schema() -> Value {
    let array = json!({"type": "array", "elements": {"type": "string"}});
    let part = |part: &&str| json!({*part: if *part == "uri" { json!({"type": "string"}) } else { array.clone() }});
    let step = |(step, parts): &(&str, &[&str])| json!({*step: {"type": "record", "fields": parts.iter().map(part).collect::<Vec<Value>>()}});
    let steps: Vec<Value> = STEPS.iter().map(step).collect();
    json!({"fields": [{"config": {"type": "record", "fields": steps}}]})
}

impl Transformer {
    pub(super) fn read(config: &Value) -> Result<Self, Refused> {
        let Some(fields) = config.as_object() else { return Ok(Self::default()) };
        if let Some(field) =
            fields.keys().find(|field| *field != "http_method" && STEPS.iter().all(|(step, _)| step != field))
        {
            return Err(Refused::new(format!("config.{field}"), "unknown field"));
        }
        if fields.get("http_method").is_some_and(|method| !method.is_null()) {
            return Err(Refused::not_played("config.http_method"));
        }
        for (step, parts) in STEPS {
            for (part, value) in config[step].as_object().into_iter().flatten() {
                if !parts.contains(&part.as_str()) {
                    return Err(Refused::new(format!("config.{step}.{part}"), "unknown field"));
                }
                if part != "headers" && value.as_array().is_none_or(|list| !list.is_empty()) && !value.is_null() {
                    return Err(Refused::not_played(format!("config.{step}.{part}")));
                }
            }
        }
        Ok(Self {
            // No request has a header of another name.
            remove: strings(config, "remove")?
                .into_iter()
                .filter(|it| names::is_header(it))
                .map(str::to_owned)
                .collect(),
            rename: pairs(config, "rename")?,
            replace: templates(config, "replace")?,
            add: templates(config, "add")?,
            append: templates(config, "append")?,
        })
    }

    /// The same with variables for its values, and what each variable is then.
    pub(super) fn shape(&self) -> (Self, Vec<(String, String)>) {
        let (mut shape, mut values) = (self.clone(), Vec::new());
        for (_, value) in shape.replace.iter_mut().chain(&mut shape.add).chain(&mut shape.append) {
            let variable = format!("$plugin_value_{}", values.len());
            values.push((variable.clone(), std::mem::replace(value, variable)));
        }
        (shape, values)
    }

    /// The outcome as expressions; `prefix` begins the names of the variables that they need.
    pub(super) fn outcome(&self, prefix: &str) -> Outcome {
        let mut steps = Steps { prefix, maps: Vec::new(), headers: BTreeMap::new() };
        let mut host = None;
        for name in &self.remove {
            steps.set(name, Vec::new());
        }
        for (old, new) in &self.rename {
            steps.rename(old, new);
        }
        for (name, value) in &self.replace {
            if name.eq_ignore_ascii_case("host") {
                host = Some(value.clone());
            } else {
                steps.replace(name, value);
            }
        }
        for (name, value) in self.add.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
            steps.add(name, value);
        }
        for (name, value) in self.append.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
            steps.append(name, value);
        }
        steps.erase_nominated();
        let headers = steps.headers.into_values();
        let headers =
            headers.map(|(name, lines)| (name, lines.into_iter().map(|line| line.expression).collect())).collect();
        Outcome { maps: steps.maps, headers, host }
    }
}

fn strings<'a>(config: &'a Value, step: &str) -> Result<Vec<&'a str>, Refused> {
    let list = &config[step]["headers"];
    let invalid = |what: &str| Refused::new(headers(step), what);
    match list {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => {
            list.iter().map(|text| text.as_str().ok_or_else(|| invalid("expected a string"))).collect()
        }
        _ => Err(invalid("expected an array")),
    }
}

fn headers(step: &str) -> String {
    format!("config.{step}.headers")
}

/// `NAME:VALUE`.
fn pairs(config: &Value, step: &str) -> Result<Vec<(String, String)>, Refused> {
    let read = |text: &str| {
        let (name, value) =
            text.split_once(':').ok_or_else(|| Refused::new(headers(step), format!("invalid value: {text}")))?;
        if !names::is_header(name) {
            return Err(Refused::new(headers(step), format!("'{name}' is not a valid header name")));
        }
        Ok((name.to_owned(), value.trim_start_matches(':').to_owned()))
    };
    strings(config, step)?.into_iter().map(read).collect()
}

/// Pairs whose values are templates, as expressions. An empty value does nothing.
fn templates(config: &Value, step: &str) -> Result<Vec<(String, String)>, Refused> {
    let pairs = pairs(config, step)?.into_iter().filter(|(_, value)| !value.is_empty());
    let read = |(name, value): (String, String)| {
        expression(&value).map(|it| (name, it)).map_err(|why| Refused::new(headers(step), why))
    };
    pairs.map(read).collect()
}

/// A template as an expression of nginx. Kong's are Lua; what people write in them are headers and parameters.
fn expression(template: &str) -> Result<String, String> {
    let mut result = String::new();
    let mut rest = template;
    while let Some(start) = rest.find('$') {
        result.push_str(&rest[..start]);
        rest = &rest[start + 1..];
        let Some(inner) = rest.strip_prefix('(') else {
            // nginx has no other way to say it.
            result.push_str("${dollar}");
            continue;
        };
        let (inner, after) = inner.split_once(')').ok_or_else(|| format!("the template {template:?} does not end"))?;
        let unplayable = || format!("the template $({inner}) is not played by this gateway");
        let (table, key) = lookup(inner.trim()).ok_or_else(unplayable)?;
        let variable = match table {
            "headers" => format!("http_{}", key.to_lowercase().replace('-', "_")),
            // nginx has no variable with a hyphen.
            "query_params" if !key.contains('-') => format!("arg_{key}"),
            _ => return Err(unplayable()),
        };
        result.push_str(&format!("${{{variable}}}"));
        rest = after;
    }
    Ok(result + rest)
}

/// `table.key` and `table["key"]`.
fn lookup(text: &str) -> Option<(&str, &str)> {
    let (table, key) = match text.split_once('[') {
        Some((table, key)) => (table, key.strip_suffix(']')?.trim().trim_matches(['"', '\''])),
        None => text.split_once('.')?,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (!key.is_empty() && key.chars().all(plain)).then_some((table, key))
}

/// What a transformer comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) maps: Vec<Map>,
    /// Names of headers, and an expression per line; a line that comes out empty is not sent.
    pub(super) headers: Vec<(String, Vec<String>)>,
    /// Another Host than the client's.
    pub(super) host: Option<String>,
}

/// A variable and what it is made from. Keys and values are unquoted; keys that begin with `~` are patterns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Map {
    pub(super) source: String,
    pub(super) variable: String,
    pub(super) entries: Vec<(String, String)>,
}

/// A line of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    expression: String,
    /// Whether it is there whatever the client sent.
    certain: bool,
}

struct Steps<'a> {
    prefix: &'a str,
    maps: Vec<Map>,
    /// By the name in lower case: the name and its lines, of headers that are no longer just the client's.
    headers: BTreeMap<String, (String, Vec<Line>)>,
}

impl Steps<'_> {
    fn map(&mut self, source: &str, entries: &[(&str, &str)]) -> String {
        let variable = format!("${}_{}", self.prefix, self.maps.len());
        let entries = entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.maps.push(Map { source: source.to_owned(), variable: variable.clone(), entries });
        variable
    }

    fn set(&mut self, name: &str, lines: Vec<Line>) {
        self.headers.insert(name.to_lowercase(), (name.to_owned(), lines));
    }

    /// The lines as they are by now. nginx knows several lines of a client by one variable, joined by `, `: the first is what
    /// counts for whoever reads only one, so it is taken apart again from the rest.
    fn lines(&mut self, name: &str) -> Vec<Line> {
        if let Some((_, lines)) = self.headers.get(&name.to_lowercase()) {
            return lines.clone();
        }
        let joined = format!("$http_{}", name.to_lowercase().replace('-', "_"));
        let count = self.maps.len();
        let (one, two) = (format!("{}_{count}_one", self.prefix), format!("{}_{count}_two", self.prefix));
        let first = self.map(&joined, &[("default", &joined), (&format!("~^(?<{one}>.+?), "), &format!("${one}"))]);
        let rest = self.map(&joined, &[("default", ""), (&format!("~^.+?, (?<{two}>.+)$"), &format!("${two}"))]);
        [first, rest].map(|expression| Line { expression, certain: false }).into()
    }

    fn rename(&mut self, old: &str, new: &str) {
        let (from, to) = (self.lines(old), self.lines(new));
        let Some(first) = from.first() else { return };
        let none = Line { expression: String::new(), certain: false };
        let lines = (0..from.len().max(to.len()))
            .map(|index| {
                let (from, to) = (from.get(index).unwrap_or(&none), to.get(index).unwrap_or(&none));
                let entries = [("default", from.expression.as_str()), ("", &to.expression)];
                Line { expression: self.map(&first.expression, &entries), certain: to.certain }
            })
            .collect();
        self.set(old, Vec::new());
        self.set(new, lines);
    }

    fn replace(&mut self, name: &str, value: &str) {
        let line = match self.lines(name).first() {
            None => return,
            Some(Line { certain: true, .. }) => Line { expression: value.to_owned(), certain: true },
            Some(line) => {
                let expression = self.map(&line.expression, &[("default", value), ("", "")]);
                Line { expression, certain: false }
            }
        };
        self.set(name, vec![line]);
    }

    fn add(&mut self, name: &str, value: &str) {
        let mut lines = self.lines(name);
        match lines.first_mut() {
            None => lines.push(Line { expression: value.to_owned(), certain: true }),
            Some(line) if line.certain => {}
            Some(line) => {
                let expression = self.map(&line.expression, &[("default", &line.expression), ("", value)]);
                *line = Line { expression, certain: true };
            }
        }
        self.set(name, lines);
    }

    fn append(&mut self, name: &str, value: &str) {
        let mut lines = self.lines(name);
        lines.push(Line { expression: value.to_owned(), certain: true });
        self.set(name, lines);
    }

    /// After its plugins Kong clears what the client's `Connection` names, a plugin's own header too. Headers that no plugin touches
    /// cannot be cleared here; the mesh proxy in front has done so already, unless it saw nothing but TLS.
    fn erase_nominated(&mut self) {
        for (name, (_, mut lines)) in self.headers.clone() {
            let named = format!("~*(^|,)\\s*{name}\\s*(,|$)");
            for line in &mut lines {
                line.expression = self.map("$http_connection", &[("default", &line.expression), (&named, "")]);
            }
            if let Some(header) = self.headers.get_mut(&name) {
                header.1 = lines;
            }
        }
    }
}
