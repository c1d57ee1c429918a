//! `metadata.managedFields`: one entry per manager, operation, version and subresource.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{FieldSet, Writer};

/// How a manager came to own its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// One manager's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) operation: Operation,
    /// Empty for none, as who came by a Scale has it.
    pub(super) time: String,
    pub(super) manager: String,
    pub(super) subresource: String,
    pub(super) api_version: String,
    pub(super) fields: FieldSet,
}

impl Entry {
    /// An entry that owns nothing yet.
    pub(super) fn new(writer: Writer<'_>, operation: Operation, api_version: &str) -> Self {
        Self {
            operation,
            time: writer.time.to_owned(),
            manager: writer.manager.to_owned(),
            subresource: writer.subresource.unwrap_or_default().to_owned(),
            api_version: api_version.to_owned(),
            fields: FieldSet::default(),
        }
    }

    /// Whether two entries are of the same writer. An applier has one entry whatever version it applies in, because
    /// what it left out is found by comparing with its last entry; an updater has one per version.
    pub(super) fn same_writer(&self, other: &Self) -> bool {
        let version = self.operation == Operation::Apply || self.api_version == other.api_version;
        self.operation == other.operation
            && self.manager == other.manager
            && self.subresource == other.subresource
            && version
    }

    /// As in messages: `"hpa" with subresource "scale" using apps/v1`; appliers by name alone.
    pub(super) fn owner(&self) -> String {
        let mut owner = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            owner += &format!(" with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            owner += &format!(" using {}", self.api_version);
        }
        owner
    }

    fn parse(entry: &Value) -> Option<Self> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let operation = match entry.get("operation")?.as_str()? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        let fields = match entry.get("fieldsV1") {
            Some(Value::String(text)) => serde_json::from_str(text).ok()?,
            Some(tree) => FieldSet::deserialize(tree).ok()?,
            None => FieldSet::default(),
        };
        Some(Self {
            operation,
            time: text("time"),
            manager: text("manager"),
            subresource: text("subresource"),
            api_version: text("apiVersion"),
            fields,
        })
    }

    fn to_value(&self) -> Value {
        let mut entry = json!({
            "manager": self.manager,
            "operation": match self.operation {
                Operation::Apply => "Apply",
                Operation::Update => "Update",
            },
            "apiVersion": self.api_version,
            "fieldsType": "FieldsV1",
            // A set has nothing that JSON has no form for.
            "fieldsV1": serde_json::to_string(&self.fields).unwrap_or_default(),
        });
        // What clients read as a time is one or is not there.
        for (name, text) in [("subresource", &self.subresource), ("time", &self.time)] {
            if !text.is_empty() {
                entry[name] = text.as_str().into();
            }
        }
        entry
    }
}

/// The entries of an object; none when they cannot be understood, as in Kubernetes.
pub(super) fn read(object: &Value) -> Vec<Entry> {
    let entries = crate::at(object, "/metadata/managedFields").and_then(Value::as_array);
    entries.and_then(|entries| entries.iter().map(Entry::parse).collect()).unwrap_or_default()
}

/// Whether an object asks for its entries to be forgotten: `managedFields: [{}]`.
pub(super) fn is_reset(object: &Value) -> bool {
    crate::at(object, "/metadata/managedFields") == Some(&json!([{}]))
}

/// Writes the entries to an object, as it is stored: appliers first, then by age.
pub(super) fn write(object: &mut Value, mut entries: Vec<Entry>) {
    fn key(entry: &Entry) -> (Operation, &str, &str, &str) {
        (entry.operation, &entry.time, &entry.manager, &entry.subresource)
    }
    entries.sort_by(|a, b| key(a).cmp(&key(b)));
    let Some(object) = object.as_object_mut() else { return };
    let metadata = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    let Some(metadata) = metadata.as_object_mut() else { return };
    if entries.is_empty() {
        metadata.remove("managedFields");
    } else {
        let entries = entries.iter().map(Entry::to_value).collect();
        metadata.insert("managedFields".to_owned(), Value::Array(entries));
    }
}
