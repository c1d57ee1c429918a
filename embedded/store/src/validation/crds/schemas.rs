//! Whether the schema of a custom kind is one that Kubernetes takes.
//!
//! It must be structural: every value has its type where the value stands, so that it is clear what is pruned, defaulted and
//! merged. What `allOf`, `anyOf`, `oneOf` and `not` say are limits of values that stand elsewhere. Rules in CEL and regular
//! expressions are not looked at.

use meshgate_machinery::schema::custom;
use serde_json::{Map, Value, json};

use crate::invalid::FieldErrors;
use crate::json::{items, str_at};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

const OPEN: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";
const LIST_TYPE: &str = "x-kubernetes-list-type";
const LIST_KEYS: &str = "x-kubernetes-list-map-keys";
const MAP_TYPE: &str = "x-kubernetes-map-type";

/// What a limit may not say, and how it has to be instead.
const NO_LIMITS: [(&str, &str); 13] = [
    ("type", "empty"),
    ("additionalProperties", "undefined"),
    ("default", "undefined"),
    ("title", "empty"),
    ("description", "empty"),
    ("nullable", "false"),
    (OPEN, "false"),
    (EMBEDDED, "false"),
    (INT_OR_STRING, "false"),
    (LIST_KEYS, "empty"),
    (LIST_TYPE, "undefined"),
    (MAP_TYPE, "undefined"),
    ("x-kubernetes-validations", "empty"),
];

/// Everything that is wrong with the schema of a version.
pub(super) fn schema(schema: &Value, path: &str, errors: &mut FieldErrors) {
    if is_set(schema, "nullable") {
        errors.forbidden(format!("{path}.nullable"), "nullable cannot be true at the root");
    }
    let mut found = FieldErrors::default();
    structure(schema, Level::Root, path, &mut found);
    if found.is_empty() {
        defaults(schema, path, &mut found);
    }
    errors.append(found);
    keywords(schema, path, errors);
    for name in ["apiVersion", "kind", "metadata"] {
        if let Some(property) = schema.pointer(&format!("/properties/{name}")) {
            no_defaults(property, &format!("{path}.properties[{name}]"), name, errors);
        }
    }
}

/// Where a schema stands in the one that it is part of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Types are said and go together.
fn structure(schema: &Value, level: Level, path: &str, errors: &mut FieldErrors) {
    let of = str_at(schema, "/type");
    let (open, embedded, either) = (is_set(schema, OPEN), is_set(schema, EMBEDDED), is_set(schema, INT_OR_STRING));
    if of == "array" && !says(schema, "items") {
        errors.required(format!("{path}.items"), "must be specified");
    }
    if let Some(item) = subschema(schema, "items") {
        structure(item, Level::Item, &format!("{path}.items"), errors);
    }
    for (name, property) in properties(schema) {
        structure(property, Level::Field, &format!("{path}.properties[{name}]"), errors);
    }
    let others = format!("{path}.additionalProperties");
    if let Some(other) = subschema(schema, "additionalProperties") {
        structure(other, Level::Field, &others, errors);
    }
    if schema.get("additionalProperties").is_some_and(|other| !other.is_null()) {
        if level == Level::Root {
            errors.forbidden(others.as_str(), "must not be used at the root");
        }
        if embedded {
            errors.forbidden(others.as_str(), "must not be used if x-kubernetes-embedded-resource is set");
        }
    }
    for (name, set) in [(OPEN, open), (EMBEDDED, embedded)] {
        if either && set {
            errors.invalid(
                format!("{path}.{name}"),
                &json!(true),
                &format!("must be false if {INT_OR_STRING} is true"),
            );
        }
    }
    let field = format!("{path}.type");
    let missing = match level {
        Level::Root => "must not be empty at the root",
        Level::Item => "must not be empty for specified array items",
        Level::Field => "must not be empty for specified object fields",
    };
    if embedded {
        of_type(schema, "object", &format!("must be object if {EMBEDDED} is true"), path, errors);
    } else if of.is_empty() && !either && !open {
        errors.required(field.as_str(), missing);
    }
    if level == Level::Root && !of.is_empty() && of != "object" {
        errors.invalid(field, &json!(of), "must be object at the root");
    }
    if embedded && !open && properties(schema).next().is_none() {
        let why = format!("must not be empty if {EMBEDDED} is true without {OPEN}");
        errors.required(format!("{path}.properties"), &why);
    }
    if level == Level::Root || embedded {
        own_fields(schema, level, path, errors);
    }
    let exempt = Exempt {
        any_of: is_int_or_string(schema),
        first_all_of: items(schema, "/allOf").first().is_some_and(is_int_or_string),
    };
    // Kubernetes asks only limits of the root whether what they are about has a schema.
    let home = Some(schema).filter(|_| level == Level::Root);
    combinations(schema, (home, path), path, exempt, errors);
}

/// What every object has.
fn own_fields(schema: &Value, level: Level, path: &str, errors: &mut FieldErrors) {
    for (name, expected) in [("kind", "string"), ("apiVersion", "string"), ("metadata", "object")] {
        let Some(property) = schema.pointer(&format!("/properties/{name}")) else { continue };
        let of = str_at(property, "/type");
        if of != expected {
            let field = format!("{path}.properties[{name}].type");
            errors.invalid(field, &json!(of), &format!("must be {expected}"));
        }
    }
    let Some(metadata) = schema.pointer("/properties/metadata").filter(|_| level == Level::Root) else { return };
    let more = metadata.as_object().into_iter().flatten().any(|(name, _)| match name.as_str() {
        "type" | "default" => false,
        "properties" => properties(metadata).any(|(name, _)| name != "name" && name != "generateName"),
        "additionalProperties" => !metadata["additionalProperties"].is_null(),
        name => says(metadata, name),
    });
    if more {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.forbidden(format!("{path}.properties[metadata]"), why);
    }
}

/// Where types may stand although they are limits: the two ways to write what an integer or a string is.
#[derive(Clone, Copy, Default)]
struct Exempt {
    any_of: bool,
    first_all_of: bool,
}

fn is_int_or_string(schema: &Value) -> bool {
    schema.get("anyOf") == Some(&json!([{"type": "integer"}, {"type": "string"}]))
}

/// The limits that a schema, or a limit, is made of. `home` is the schema of the values that they are about, with its path;
/// `None` when nobody asks for it, or it was told that there is none.
fn combinations(part: &Value, home: (Option<&Value>, &str), path: &str, exempt: Exempt, errors: &mut FieldErrors) {
    for name in ["anyOf", "allOf", "oneOf"] {
        if name == "anyOf" && exempt.any_of {
            continue;
        }
        for (index, branch) in items(part, &format!("/{name}")).iter().enumerate() {
            let exempt = Exempt { any_of: name == "allOf" && index == 0 && exempt.first_all_of, first_all_of: false };
            limit(branch, home, &format!("{path}.{name}[{index}]"), exempt, errors);
        }
    }
    if let Some(not) = subschema(part, "not") {
        limit(not, home, &format!("{path}.not"), Exempt::default(), errors);
    }
}

fn limit(part: &Value, home: (Option<&Value>, &str), path: &str, exempt: Exempt, errors: &mut FieldErrors) {
    combinations(part, home, path, exempt, errors);
    if let Some(item) = subschema(part, "items") {
        let known = home.0.and_then(|schema| subschema(schema, "items"));
        part_of(item, home.0.is_some(), known, (&format!("{}.items", home.1), &format!("{path}.items")), errors);
    }
    for (name, property) in properties(part) {
        let known = home.0.and_then(|schema| schema.get("properties")?.get(name));
        let at = |path: &str| format!("{path}.properties[{name}]");
        part_of(property, home.0.is_some(), known, (&at(home.1), &at(path)), errors);
    }
    for (name, instead) in NO_LIMITS {
        if says(part, name) {
            errors.forbidden(format!("{path}.{name}"), &format!("must be {instead} to be structural"));
        }
    }
    if part.pointer("/properties/metadata").is_some() {
        errors.forbidden(format!("{path}.properties[metadata]"), "must not be specified in a nested context");
    }
}

/// A limit one step further down. `paths` are where its values should have a schema, and where it stands itself.
fn part_of(part: &Value, tell: bool, known: Option<&Value>, paths: (&str, &str), errors: &mut FieldErrors) {
    if tell && known.is_none() {
        errors.required(paths.0, &format!("because it is defined in {}", paths.1));
    }
    limit(part, (known, paths.0), paths.1, Exempt::default(), errors);
}

/// Defaults are valid by the schema that has them.
fn defaults(schema: &Value, path: &str, errors: &mut FieldErrors) {
    if says(schema, "default") {
        // A default may say an item of a set twice.
        let errors_of_default = custom::validate(schema, &schema["default"]).into_iter();
        for error in errors_of_default.filter(|error| error.reason != "FieldValueDuplicate") {
            let dot = if error.field.is_empty() || error.field.starts_with('[') { "" } else { "." };
            errors.other(error.reason, format!("{path}.default{dot}{}", error.field), error.message);
        }
    }
    if let Some(item) = subschema(schema, "items") {
        defaults(item, &format!("{path}.items"), errors);
    }
    for (name, property) in properties(schema) {
        defaults(property, &format!("{path}.properties[{name}]"), errors);
    }
}

/// What is of every object is not defaulted.
fn no_defaults(schema: &Value, path: &str, of: &str, errors: &mut FieldErrors) {
    if says(schema, "default") {
        errors.forbidden(format!("{path}.default"), &format!("must not be set in top-level {of}"));
    }
    each_subschema(schema, path, &mut |part, path| no_defaults(part, path, of, errors));
}

/// What single keywords may say, in schemas and limits alike.
fn keywords(schema: &Value, path: &str, errors: &mut FieldErrors) {
    let of = str_at(schema, "/type");
    if !of.is_empty() && !TYPES.contains(&of) {
        errors.unsupported(format!("{path}.type"), &json!(of), &TYPES);
    }
    if of == "null" {
        let why = "type cannot be set to null, use nullable as an alternative";
        errors.forbidden(format!("{path}.type"), why);
    }
    for name in ["id", "patternProperties", "definitions", "additionalItems", "dependencies", "$ref"] {
        // Of the first three, nothing is meant by empty ones.
        let said = match &schema[name] {
            Value::Null => false,
            Value::String(text) if name == "id" => !text.is_empty(),
            Value::Object(map) if matches!(name, "patternProperties" | "definitions") => !map.is_empty(),
            _ => true,
        };
        if said {
            errors.forbidden(format!("{path}.{name}"), &format!("{name} is not supported"));
        }
    }
    if schema["items"].is_array() {
        errors.forbidden(format!("{path}.items"), "items must be a schema object and not an array");
    }
    if is_set(schema, "uniqueItems") {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.forbidden(format!("{path}.uniqueItems"), why);
    }
    let others = &schema["additionalProperties"];
    if (others.is_object() || *others == false) && properties(schema).next().is_some() {
        let why = "additionalProperties and properties are mutual exclusive";
        errors.forbidden(format!("{path}.additionalProperties"), why);
    }
    if schema[OPEN] == false {
        errors.invalid(format!("{path}.{OPEN}"), &json!(false), "must be true or undefined");
    }
    if let Some(merged) = schema.get(MAP_TYPE).and_then(Value::as_str) {
        of_type(schema, "object", &format!("must be object if {MAP_TYPE} is specified"), path, errors);
        if !["atomic", "granular"].contains(&merged) {
            errors.unsupported(format!("{path}.{MAP_TYPE}"), &json!(merged), &["atomic", "granular"]);
        }
    }
    lists(schema, path, errors);
    each_subschema(schema, path, &mut |part, path| keywords(part, path, errors));
}

/// How lists are merged.
fn lists(schema: &Value, path: &str, errors: &mut FieldErrors) {
    let merged = schema.get(LIST_TYPE).and_then(Value::as_str);
    let keys: Vec<&str> = items(schema, &format!("/{LIST_KEYS}")).iter().filter_map(Value::as_str).collect();
    let item = subschema(schema, "items");
    if !keys.is_empty() && merged != Some("map") {
        let why = format!("must be map if {LIST_KEYS} is non-empty");
        match merged {
            None => errors.required(format!("{path}.{LIST_TYPE}"), &why),
            Some(merged) => errors.invalid(format!("{path}.{LIST_TYPE}"), &json!(merged), &why),
        }
    }
    let Some(merged) = merged else { return };
    of_type(schema, "array", &format!("must be array if {LIST_TYPE} is specified"), path, errors);
    if !["atomic", "set", "map"].contains(&merged) {
        errors.unsupported(format!("{path}.{LIST_TYPE}"), &json!(merged), &["atomic", "set", "map"]);
    }
    if matches!(merged, "set" | "map") && item.is_some_and(|item| is_set(item, "nullable")) {
        errors.forbidden(format!("{path}.items.nullable"), &format!("cannot be nullable when {LIST_TYPE} is {merged}"));
    }
    match (merged, item) {
        ("set", Some(item)) => set(schema, item, path, errors),
        ("map", item) => map(&keys, item, path, errors),
        _ => {}
    }
}

/// The items of a set are compared as a whole.
fn set(schema: &Value, item: &Value, path: &str, errors: &mut FieldErrors) {
    let why = format!("must be atomic as item of a list with {LIST_TYPE}=set");
    let merged = |name: &str| item.get(name).and_then(Value::as_str);
    match str_at(item, "/type") {
        _ if str_at(schema, "/type") != "array" => {}
        "array" if merged(LIST_TYPE).is_some_and(|merged| merged != "atomic") => {
            errors.invalid(format!("{path}.items.{LIST_TYPE}"), &item[LIST_TYPE], &why);
        }
        "object" if merged(MAP_TYPE) != Some("atomic") => {
            errors.invalid(format!("{path}.items.{MAP_TYPE}"), &item[LIST_TYPE], &why);
        }
        _ => {}
    }
}

/// The items of a list that is merged as a map are told apart by their keys, which all of them must have.
fn map(keys: &[&str], item: Option<&Value>, path: &str, errors: &mut FieldErrors) {
    let said = format!("{path}.{LIST_KEYS}");
    if keys.is_empty() {
        errors.required(said.as_str(), &format!("must not be empty if {LIST_TYPE} is map"));
    }
    let Some(item) = item else {
        errors.required(format!("{path}.items"), &format!("must have a schema if {LIST_TYPE} is map"));
        return;
    };
    let of = str_at(item, "/type");
    let parent = format!("if parent array's {LIST_TYPE} is map");
    if of != "object" {
        errors.invalid(format!("{path}.items.type"), &json!(of), &format!("must be object {parent}"));
    }
    for (index, key) in keys.iter().enumerate() {
        if keys[..index].contains(key) {
            errors.invalid(said.as_str(), &json!(keys), "must not contain duplicate entries");
        }
        let Some(property) = item.get("properties").and_then(|properties| properties.get(key)) else {
            if of == "object" {
                errors.invalid(said.as_str(), &json!(keys), "entries must all be names of item properties");
            }
            continue;
        };
        let field = format!("{path}.items.properties[{key}]");
        if of == "object" && matches!(str_at(property, "/type"), "array" | "object") {
            errors.invalid(format!("{field}.type"), &json!(of), &format!("must be a scalar type {parent}"));
        }
        if !items(item, "/required").iter().any(|required| required == key) && !says(property, "default") {
            let why = format!("this property is in {LIST_KEYS}, so it must have a default or be a required property");
            errors.required(format!("{field}.default"), &why);
        }
        if is_set(property, "nullable") {
            let why = format!("this property is in {LIST_KEYS}, so it cannot be nullable");
            errors.forbidden(format!("{field}.nullable"), &why);
        }
    }
}

/// An error unless the schema has the type.
fn of_type(schema: &Value, expected: &str, why: &str, path: &str, errors: &mut FieldErrors) {
    match str_at(schema, "/type") {
        of if of == expected => {}
        "" => errors.required(format!("{path}.type"), why),
        of => errors.invalid(format!("{path}.type"), &json!(of), why),
    }
}

/// Calls `visit` with everything that is a schema or a limit within a schema, and its path.
fn each_subschema(schema: &Value, path: &str, visit: &mut dyn FnMut(&Value, &str)) {
    for name in ["additionalProperties", "items", "not"] {
        if let Some(part) = subschema(schema, name) {
            visit(part, &format!("{path}.{name}"));
        }
    }
    for (name, part) in properties(schema) {
        visit(part, &format!("{path}.properties[{name}]"));
    }
    for name in ["allOf", "oneOf", "anyOf"] {
        for (index, part) in items(schema, &format!("/{name}")).iter().enumerate() {
            visit(part, &format!("{path}.{name}[{index}]"));
        }
    }
}

fn subschema<'s>(schema: &'s Value, name: &str) -> Option<&'s Value> {
    schema.get(name).filter(|part| part.is_object())
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

fn is_set(schema: &Value, name: &str) -> bool {
    schema.get(name) == Some(&Value::Bool(true))
}

/// Whether a keyword says anything: for Go, what is false or empty does not, unless it is a default.
fn says(schema: &Value, name: &str) -> bool {
    match schema.get(name) {
        None | Some(Value::Null) => false,
        Some(_) if name == "default" => true,
        Some(Value::Bool(set)) => *set,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Number(_) | Value::Object(_)) => true,
    }
}
