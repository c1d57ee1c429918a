//! Columns and cells: which printer prints which kind.

use jiff::Timestamp;
use meshgate_store::PrinterColumn;
use serde_json::{Value, json};

use super::{cluster, config, custom, network, workloads};
use crate::handler::Served;

/// A column of a built-in kind, with its title.
#[derive(Clone, Copy, Debug)]
pub(super) enum Column {
    /// Text.
    Text(&'static str),
    /// Whole numbers.
    Number(&'static str),
    /// Text that is shown with `-o wide` only.
    Wide(&'static str),
}

/// Makes the cells of an object at a moment.
pub(super) type Cells = fn(&Value, Timestamp) -> Vec<Value>;

/// Columns after `Name`, and what makes their cells.
#[derive(Clone, Copy)]
pub(super) struct Builtin {
    pub(super) columns: &'static [Column],
    pub(super) cells: Cells,
}

/// How a kind is printed.
pub(super) enum Printer {
    /// By code.
    Builtin(Builtin),
    /// By `additionalPrinterColumns`.
    Custom(Vec<PrinterColumn>),
}

impl Printer {
    /// The printer of a kind; its age when nothing better is known.
    pub(super) fn of(served: &Served) -> Self {
        let resource = &served.kind.resource;
        let found = workloads::printer(&resource.group, &resource.plural)
            .or_else(|| network::printer(&resource.group, &resource.plural))
            .or_else(|| config::printer(&resource.group, &resource.plural))
            .or_else(|| cluster::printer(&resource.group, &resource.plural));
        match found {
            Some(builtin) if served.kind.builtin => Self::Builtin(builtin),
            _ if served.version.columns.is_empty() => Self::Custom(vec![age()]),
            _ => Self::Custom(served.version.columns.clone()),
        }
    }

    /// `columnDefinitions`.
    pub(super) fn definitions(&self) -> Vec<Value> {
        let definition = |name: &str, kind: &str, format: &str, priority: i64| json!({"name": name, "type": kind, "format": format, "description": "", "priority": priority});
        let mut definitions = vec![definition("Name", "string", "name", 0)];
        match self {
            Self::Builtin(builtin) => definitions.extend(builtin.columns.iter().map(|column| match column {
                Column::Text(name) => definition(name, "string", "", 0),
                Column::Number(name) => definition(name, "integer", "", 0),
                Column::Wide(name) => definition(name, "string", "", 1),
            })),
            Self::Custom(columns) => definitions
                .extend(columns.iter().map(|column| definition(&column.name, &column.kind, "", column.priority))),
        }
        definitions
    }

    /// The cells of one row.
    pub(super) fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let mut cells = vec![object["metadata"]["name"].clone()];
        match self {
            Self::Builtin(builtin) => cells.extend((builtin.cells)(object, now)),
            Self::Custom(columns) => cells.extend(columns.iter().map(|column| custom::cell(object, column, now))),
        }
        cells
    }
}

fn age() -> PrinterColumn {
    PrinterColumn {
        name: "Age".to_owned(),
        kind: "date".to_owned(),
        json_path: ".metadata.creationTimestamp".to_owned(),
        priority: 0,
    }
}
