//! Objects, lists and watch events in the form that a client accepts.

mod cluster;
mod config;
mod custom;
mod format;
mod json_path;
mod network;
mod printer;
mod workloads;

use std::borrow::Cow;

use http::StatusCode;
use jiff::Timestamp;
use meshgate_machinery::managed_fields::{Wire, expanded};
use meshgate_store::{Listing, Object, Status};
use serde_json::{Map, Value, json};

pub(crate) use format::selector_text;

use self::printer::Printer;
use crate::handler::Served;
use crate::negotiate::Form;
use crate::query::Query;
use crate::reply::{self, Reply};

/// `includeObject`: what of the object comes with a row of a Table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Include {
    None,
    Metadata,
    Object,
}

/// The form of the answers to one request.
pub(crate) struct Shape {
    form: Form,
    api_version: String,
    kind: String,
    include: Include,
    printer: Printer,
    /// A watch sends the column definitions once.
    columns_sent: bool,
}

impl Shape {
    /// The shape for a request. 400 for an unknown `includeObject`, 406 for a form that objects do not have.
    pub(crate) fn new(form: Form, served: &Served, query: &Query) -> Result<Self, Status> {
        if form == Form::Discovery {
            return Err(Status::new(406, "NotAcceptable", "only discovery is served as APIGroupDiscoveryList"));
        }
        let include = match query.get("includeObject") {
            None | Some("Metadata") => Include::Metadata,
            Some("None") => Include::None,
            Some("Object") => Include::Object,
            Some(other) => {
                return Err(Status::bad_request(format!(
                    "Invalid value: {other:?}: includeObject must be one of None, Metadata, Object"
                )));
            }
        };
        Ok(Self {
            form,
            api_version: served.api_version(),
            kind: served.kind.kind.clone(),
            include,
            printer: Printer::of(served),
            columns_sent: false,
        })
    }

    /// An answer with one object.
    pub(crate) fn object(&self, code: StatusCode, object: &Object) -> Reply {
        match self.form {
            Form::Table(_) => {
                let revision = object.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
                reply::json(code, &self.table(std::slice::from_ref(object), json!({"resourceVersion": revision}), true))
            }
            Form::Metadata(version) => reply::json(code, &metadata_only(object, version)),
            Form::Yaml => match serde_yaml::to_string(&expanded(&self.versioned(object))) {
                Ok(text) => reply::with_type(code, "application/yaml", text),
                Err(error) => reply::status(&Status::internal(error.to_string())),
            },
            Form::Json | Form::Discovery => reply::json(code, &Wire(&self.versioned(object))),
        }
    }

    /// An answer with a list.
    pub(crate) fn list(&self, listing: &Listing, next: Option<&str>, remaining: Option<usize>) -> Reply {
        let mut metadata = json!({"resourceVersion": listing.revision.to_string()});
        if let Some(next) = next {
            metadata["continue"] = json!(next);
        }
        if let Some(remaining) = remaining {
            metadata["remainingItemCount"] = json!(remaining);
        }
        let kind = format!("{}List", self.kind);
        match self.form {
            Form::Table(_) => reply::ok(&self.table(&listing.items, metadata, true)),
            Form::Metadata(version) => {
                let items: Vec<Value> = listing.items.iter().map(|item| metadata_only(item, version)).collect();
                let kind = "PartialObjectMetadataList";
                reply::ok(&json!({"kind": kind, "apiVersion": version, "metadata": metadata, "items": items}))
            }
            Form::Yaml | Form::Json | Form::Discovery => {
                let items: Vec<Cow<'_, Value>> = listing.items.iter().map(|item| self.versioned(item)).collect();
                let (kind, api_version) = (&kind, &self.api_version);
                if self.form != Form::Yaml {
                    let items = items.iter().map(|item| Wire(item)).collect();
                    return reply::ok(&List { kind, api_version, metadata, items });
                }
                let items = items.iter().map(|item| expanded(item)).collect();
                match serde_yaml::to_string(&List { kind, api_version, metadata, items }) {
                    Ok(text) => reply::with_type(StatusCode::OK, "application/yaml", text),
                    Err(error) => reply::status(&Status::internal(error.to_string())),
                }
            }
        }
    }

    /// The object of a watch event.
    pub(crate) fn event<'a>(&mut self, object: &'a Object) -> Cow<'a, Value> {
        match self.form {
            Form::Table(_) => {
                let first = !std::mem::replace(&mut self.columns_sent, true);
                let revision = object.pointer("/metadata/resourceVersion").cloned().unwrap_or(Value::Null);
                Cow::Owned(self.table(std::slice::from_ref(object), json!({"resourceVersion": revision}), first))
            }
            Form::Metadata(version) => Cow::Owned(metadata_only(object, version)),
            Form::Yaml | Form::Json | Form::Discovery => self.versioned(object),
        }
    }

    /// `apiVersion` and `kind` of single objects: bookmarks must have the type of the events around them.
    pub(crate) fn object_type(&self) -> (&str, &str) {
        match self.form {
            Form::Metadata(version) => (version, "PartialObjectMetadata"),
            _ => (&self.api_version, &self.kind),
        }
    }

    /// The object in the version that was asked for.
    fn versioned<'a>(&self, object: &'a Object) -> Cow<'a, Value> {
        if object["apiVersion"] == self.api_version.as_str() && object["kind"] == self.kind.as_str() {
            return Cow::Borrowed(object);
        }
        let mut versioned = Value::clone(object);
        versioned["apiVersion"] = json!(self.api_version);
        versioned["kind"] = json!(self.kind);
        Cow::Owned(versioned)
    }

    fn table(&self, objects: &[Object], metadata: Value, with_columns: bool) -> Value {
        let now = Timestamp::now();
        let version = match self.form {
            Form::Table(version) => version,
            _ => "meta.k8s.io/v1",
        };
        let rows: Vec<Value> = objects
            .iter()
            .map(|object| {
                let mut row = Map::new();
                row.insert("cells".to_owned(), Value::Array(self.printer.cells(object, now)));
                match self.include {
                    Include::None => {}
                    Include::Metadata => {
                        row.insert("object".to_owned(), metadata_only(object, version));
                    }
                    Include::Object => {
                        row.insert("object".to_owned(), expanded(&self.versioned(object)));
                    }
                }
                Value::Object(row)
            })
            .collect();
        let columns = if with_columns { self.printer.definitions() } else { Vec::new() };
        json!({"kind": "Table", "apiVersion": version, "metadata": metadata, "columnDefinitions": columns, "rows": rows})
    }
}

/// A list as Kubernetes writes it, without a copy of its items.
#[derive(serde::Serialize)]
struct List<'a, T> {
    kind: &'a str,
    #[serde(rename = "apiVersion")]
    api_version: &'a str,
    metadata: Value,
    items: Vec<T>,
}

fn metadata_only(object: &Value, version: &str) -> Value {
    let metadata = json!({"metadata": object["metadata"]});
    json!({"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": expanded(&metadata)["metadata"]})
}
