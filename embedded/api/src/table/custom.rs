//! Cells of custom resources, by `additionalPrinterColumns`.

use jiff::Timestamp;
use meshgate_store::PrinterColumn;
use serde_json::{Value, json};

use super::{format, json_path};

/// The cell of a column; null when there is nothing at its path, or something of another type.
pub(super) fn cell(object: &Value, column: &PrinterColumn, now: Timestamp) -> Value {
    let found = json_path::find(object, &column.json_path);
    let Some(&first) = found.first() else { return Value::Null };
    match column.kind.as_str() {
        "integer" => first.as_i64().map_or(Value::Null, Value::from),
        "number" => first.as_f64().map_or(Value::Null, Value::from),
        "boolean" => first.as_bool().map_or(Value::Null, Value::from),
        "date" => match first.as_str() {
            Some(time) => json!(format::since(time, now)),
            None => Value::Null,
        },
        _ => json!(found.iter().map(|value| plain(value)).collect::<Vec<_>>().join(",")),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
