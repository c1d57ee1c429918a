//! Validation, worded as Kubernetes does.

use regex::Regex;
use serde_json::{Map, Value};

use super::{FieldError, field_schema, is_set};
use crate::schema::join;

/// Everything in an object that breaks a rule of its schema. `metadata` is not looked at, apart from rules on its name
/// that the schema may have.
pub fn validate(schema: &Value, object: &Value) -> Vec<FieldError> {
    let mut errors = Errors(Vec::new());
    errors.check(schema, object, "");
    errors.0
}

struct Errors(Vec<FieldError>);

impl Errors {
    fn push(&mut self, reason: &'static str, path: &str, message: String) {
        self.0.push(FieldError { reason, field: path.to_owned(), message });
    }

    /// `Invalid value: 0: spec.port in body should be ...`
    fn invalid(&mut self, path: &str, shown: &Value, rule: &str) {
        let subject = if path.is_empty() { String::new() } else { format!("{path} in body ") };
        self.push("FieldValueInvalid", path, format!("Invalid value: {shown}: {subject}{rule}"));
    }

    fn check(&mut self, schema: &Value, value: &Value, path: &str) {
        if value.is_null() && is_set(schema, "nullable") {
            return;
        }
        if !self.check_type(schema, value, path) {
            return;
        }
        self.check_enum(schema, value, path);
        self.check_combinations(schema, value, path);
        match value {
            Value::Object(map) => self.check_object(schema, map, value, path),
            Value::Array(items) => self.check_list(schema, items, value, path),
            Value::String(text) => self.check_string(schema, text, value, path),
            Value::Number(number) => self.check_number(schema, number.as_f64().unwrap_or_default(), value, path),
            Value::Bool(_) | Value::Null => {}
        }
    }

    fn check_type(&mut self, schema: &Value, value: &Value, path: &str) -> bool {
        let found = type_of(value);
        let fits = if is_set(schema, "x-kubernetes-int-or-string") {
            matches!(found, "integer" | "string")
        } else {
            match schema.get("type").and_then(Value::as_str) {
                None => !value.is_null() || is_set(schema, "x-kubernetes-preserve-unknown-fields"),
                Some("number") => matches!(found, "integer" | "number"),
                // 3.0 is an integer, as in JSON Schema.
                Some("integer") => value.as_f64().is_some_and(|number| number.fract() == 0.0),
                Some(expected) => expected == found,
            }
        };
        if !fits {
            let expected = match schema.get("type").and_then(Value::as_str) {
                Some(expected) => expected,
                None if is_set(schema, "x-kubernetes-int-or-string") => "integer,string",
                None => "any but null",
            };
            self.push(
                "FieldValueTypeInvalid",
                path,
                format!("Invalid value: {found:?}: {path} in body must be of type {expected}: {found:?}"),
            );
        }
        fits
    }

    fn check_enum(&mut self, schema: &Value, value: &Value, path: &str) {
        let Some(allowed) = schema.get("enum").and_then(Value::as_array) else { return };
        if !allowed.contains(value) {
            let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
            let message = format!("Unsupported value: {value}: supported values: {}", allowed.join(", "));
            self.push("FieldValueNotSupported", path, message);
        }
    }

    fn check_combinations(&mut self, schema: &Value, value: &Value, path: &str) {
        // The branches say nothing about types or pruning, so a branch is just another schema.
        let fits = |branch: &Value| {
            let mut errors = Errors(Vec::new());
            errors.check(branch, value, path);
            errors.0.is_empty()
        };
        let branches = |name: &str| schema.get(name).and_then(Value::as_array).map(Vec::as_slice);
        for branch in branches("allOf").unwrap_or_default() {
            self.check(branch, value, path);
        }
        if let Some(any) = branches("anyOf")
            && !any.iter().any(fits)
        {
            self.invalid(path, value, "must validate at least one schema (anyOf)");
        }
        if let Some(one) = branches("oneOf") {
            let found = one.iter().filter(|branch| fits(branch)).count();
            if found != 1 {
                let found = if found == 0 { "none".to_owned() } else { found.to_string() };
                let rule = format!("must validate one and only one schema (oneOf). Found {found} valid alternatives");
                self.invalid(path, value, &rule);
            }
        }
        if let Some(not) = schema.get("not")
            && fits(not)
        {
            self.invalid(path, value, "must not validate the schema (not)");
        }
    }

    fn check_object(&mut self, schema: &Value, map: &Map<String, Value>, value: &Value, path: &str) {
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if !map.contains_key(name) {
                self.push("FieldValueRequired", &join(path, name), "Required value".to_owned());
            }
        }
        if let Some(least) = limit(schema, "minProperties")
            && map.len() < least
        {
            self.invalid(path, value, &format!("should have at least {least} properties"));
        }
        if let Some(most) = limit(schema, "maxProperties")
            && map.len() > most
        {
            self.invalid(path, value, &format!("should have at most {most} properties"));
        }
        for (name, value) in map {
            if let Some(field) = field_schema(schema, name) {
                self.check(field, value, &join(path, name));
            }
        }
    }

    fn check_list(&mut self, schema: &Value, items: &[Value], value: &Value, path: &str) {
        if let Some(least) = limit(schema, "minItems")
            && items.len() < least
        {
            self.invalid(path, value, &format!("should have at least {least} items"));
        }
        if let Some(most) = limit(schema, "maxItems")
            && items.len() > most
        {
            let message = format!("Too many: {}: must have at most {most} items", items.len());
            self.push("FieldValueTooMany", path, message);
        }
        self.check_unique(schema, items, path);
        if let Some(schema) = schema.get("items") {
            for (index, item) in items.iter().enumerate() {
                self.check(schema, item, &format!("{path}[{index}]"));
            }
        }
    }

    fn check_unique(&mut self, schema: &Value, items: &[Value], path: &str) {
        let keys: Vec<&str> = match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("set") => Vec::new(),
            Some("map") => {
                let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten();
                keys.filter_map(Value::as_str).collect()
            }
            _ if is_set(schema, "uniqueItems") => Vec::new(),
            _ => return,
        };
        let identity = |item: &Value| match keys.as_slice() {
            [] => item.clone(),
            keys => keys.iter().filter_map(|key| Some(((*key).to_owned(), item.get(key)?.clone()))).collect(),
        };
        let identities: Vec<Value> = items.iter().map(identity).collect();
        for (index, id) in identities.iter().enumerate() {
            if identities[..index].contains(id) {
                self.push("FieldValueDuplicate", &format!("{path}[{index}]"), format!("Duplicate value: {id}"));
            }
        }
    }

    fn check_string(&mut self, schema: &Value, text: &str, value: &Value, path: &str) {
        let length = text.chars().count();
        if let Some(least) = limit(schema, "minLength")
            && length < least
        {
            self.invalid(path, value, &format!("should be at least {least} chars long"));
        }
        if let Some(most) = limit(schema, "maxLength")
            && length > most
        {
            self.push("FieldValueTooLong", path, format!("Too long: may not be more than {most} characters"));
        }
        if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
            match Regex::new(pattern) {
                Ok(regex) if regex.is_match(text) => {}
                Ok(_) => self.invalid(path, value, &format!("should match '{pattern}'")),
                Err(_) => {
                    self.invalid(path, value, &format!("cannot be checked: '{pattern}' is no regular expression"))
                }
            }
        }
        let well_formed = match schema.get("format").and_then(Value::as_str) {
            Some("date-time") => text.parse::<jiff::Timestamp>().is_ok(),
            Some("date") => text.parse::<jiff::civil::Date>().is_ok(),
            Some("ipv4") => text.parse::<std::net::Ipv4Addr>().is_ok(),
            Some("ipv6") => text.parse::<std::net::Ipv6Addr>().is_ok(),
            _ => true,
        };
        if !well_formed {
            self.invalid(
                path,
                value,
                &format!("must be of type {}: {value}", schema["format"].as_str().unwrap_or_default()),
            );
        }
    }

    fn check_number(&mut self, schema: &Value, number: f64, value: &Value, path: &str) {
        let bound = |name: &str| schema.get(name).and_then(Value::as_f64).map(|bound| (bound, &schema[name]));
        if let Some((least, shown)) = bound("minimum") {
            let exclusive = is_set(schema, "exclusiveMinimum");
            if number < least || (exclusive && number == least) {
                let or_equal = if exclusive { "" } else { " or equal to" };
                self.invalid(path, value, &format!("should be greater than{or_equal} {shown}"));
            }
        }
        if let Some((most, shown)) = bound("maximum") {
            let exclusive = is_set(schema, "exclusiveMaximum");
            if number > most || (exclusive && number == most) {
                let or_equal = if exclusive { "" } else { " or equal to" };
                self.invalid(path, value, &format!("should be less than{or_equal} {shown}"));
            }
        }
        if let Some((factor, shown)) = bound("multipleOf")
            && factor > 0.0
            && (number / factor).fract() != 0.0
        {
            self.invalid(path, value, &format!("should be a multiple of {shown}"));
        }
    }
}

fn limit(schema: &Value, name: &str) -> Option<usize> {
    schema.get(name).and_then(Value::as_u64).and_then(|limit| usize::try_from(limit).ok())
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
