//! The types behind a kind, boiled down from its schemas to what decoding needs.

use std::collections::{BTreeMap, HashMap};

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

/// All structs that a kind is made of.
#[derive(Debug)]
pub(super) struct Types {
    structs: Vec<Struct>,
    root: usize,
}

/// A Go struct.
#[derive(Debug)]
pub(super) struct Struct {
    /// As in Go, e.g. `DeploymentSpec`.
    pub(super) name: String,
    pub(super) fields: BTreeMap<String, Type>,
}

/// The type of a value.
#[derive(Debug)]
pub(super) enum Type {
    /// Any JSON, kept as it is.
    Any,
    Bool,
    /// The Go type: `int32` or `int64`.
    Integer(&'static str),
    Float,
    String,
    /// Base64.
    Bytes,
    /// RFC 3339.
    Time,
    IntOrString,
    Quantity,
    List(Box<Type>),
    Map(Box<Type>),
    /// By its place in [`Types::structs`].
    Struct(usize),
}

/// Where schemas refer to.
const REFERENCE: &str = "#/components/schemas/";

impl Types {
    /// The types of the schema with a name, as `generate` makes it.
    pub(super) fn new(name: &str, generate: fn(&mut SchemaGenerator)) -> Self {
        let mut generator = SchemaSettings::openapi3().into_generator();
        generate(&mut generator);
        let schemas = generator.take_definitions(true);
        let names = schemas.iter().filter(|(_, schema)| schema.get("properties").is_some()).map(|(name, _)| name);
        let places: HashMap<&str, usize> = names.enumerate().map(|(place, name)| (name.as_str(), place)).collect();
        let reader = Reader { schemas: &schemas, places: &places };
        let mut structs: Vec<(usize, Struct)> =
            places.iter().map(|(name, place)| (*place, reader.read_struct(name))).collect();
        structs.sort_by_key(|(place, _)| *place);
        Self {
            root: places.get(name).copied().unwrap_or_default(),
            structs: structs.into_iter().map(|(_, found)| found).collect(),
        }
    }

    pub(super) fn root(&self) -> Type {
        Type::Struct(self.root)
    }

    pub(super) fn get(&self, place: usize) -> Option<&Struct> {
        self.structs.get(place)
    }

    /// The name of a type in Go.
    pub(super) fn go_name(&self, of: &Type) -> String {
        match of {
            Type::Any => "interface {}".to_owned(),
            Type::Bool => "bool".to_owned(),
            Type::Integer(name) => (*name).to_owned(),
            Type::Float => "float64".to_owned(),
            Type::String => "string".to_owned(),
            Type::Bytes => "[]uint8".to_owned(),
            Type::Time => "v1.Time".to_owned(),
            Type::IntOrString => "intstr.IntOrString".to_owned(),
            Type::Quantity => "resource.Quantity".to_owned(),
            Type::List(items) => format!("[]{}", self.go_name(items)),
            Type::Map(values) => format!("map[string]{}", self.go_name(values)),
            Type::Struct(place) => format!("v1.{}", self.get(*place).map_or("", |found| &found.name)),
        }
    }
}

struct Reader<'a> {
    schemas: &'a Map<String, Value>,
    places: &'a HashMap<&'a str, usize>,
}

impl Reader<'_> {
    fn read_struct(&self, name: &str) -> Struct {
        let properties = self.schemas.get(name).and_then(|schema| schema["properties"].as_object());
        let fields = properties.into_iter().flatten().map(|(field, schema)| (field.clone(), self.read(schema)));
        Struct { name: name.rsplit('.').next().unwrap_or(name).to_owned(), fields: fields.collect() }
    }

    fn read(&self, schema: &Value) -> Type {
        // A reference with a description beside it comes inside an `allOf`.
        let inner = schema.pointer("/allOf/0").unwrap_or(schema);
        if let Some(name) = inner.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix(REFERENCE)) {
            return match (self.places.get(name), self.schemas.get(name)) {
                (Some(place), _) => Type::Struct(*place),
                (None, Some(_)) if name.ends_with(".Quantity") => Type::Quantity,
                (None, Some(schema)) => self.read(schema),
                (None, None) => Type::Any,
            };
        }
        let text = |name: &str| schema.get(name).and_then(Value::as_str).unwrap_or_default();
        match (text("type"), text("format")) {
            _ if schema.get("x-kubernetes-int-or-string").is_some() => Type::IntOrString,
            ("boolean", _) => Type::Bool,
            ("integer", "int32") => Type::Integer("int32"),
            ("integer", _) => Type::Integer("int64"),
            ("number", _) => Type::Float,
            ("string", "byte") => Type::Bytes,
            ("string", "date-time") => Type::Time,
            ("string", _) => Type::String,
            ("array", _) => Type::List(Box::new(schema.get("items").map_or(Type::Any, |items| self.read(items)))),
            // Without either it is JSON that only the schema's owner understands.
            ("object", _) => {
                schema.get("additionalProperties").map_or(Type::Any, |of| Type::Map(Box::new(self.read(of))))
            }
            _ => Type::Any,
        }
    }
}
