//! The counts of a report in the JSON that shields.io's endpoint badge takes.
//!
//! Source: <https://shields.io/badges/endpoint-badge>.

use std::collections::BTreeSet;

use serde_json::json;

use crate::report::Report;

/// The JSON text.
pub fn render(report: &Report) -> String {
    let totals = &report.totals;
    let judged = totals.pass + totals.finding + totals.fail;
    let counts =
        [(totals.fail, "not as promised"), (totals.not_run, "not run"), (totals.pass + totals.finding, "as promised")];
    let message: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    let (message, color) = match message.as_slice() {
        [] => ("nothing judged".to_owned(), "lightgrey"),
        counts if report.is_green() => (counts.join(", "), "brightgreen"),
        // The infrastructure failed: nothing is known of the mesh.
        counts if judged == 0 => (counts.join(", "), "lightgrey"),
        counts => (counts.join(", "), "red"),
    };
    let badge = json!({"schemaVersion": 1, "label": label(report), "message": message, "color": color});
    format!("{badge}\n")
}

/// What all cells have in common: `traefik 3.7.15 ingress`, `traefik 3.7.15`, or only that it is Meshgate that says so; and who plays the
/// controller where it is not itself.
fn label(report: &Report) -> String {
    let controllers: BTreeSet<_> = report
        .cells
        .iter()
        .map(|cell| (&cell.controller, &cell.version.0, cell.implementation.note().unwrap_or_default()))
        .collect();
    let modes: BTreeSet<_> = report.cells.iter().map(|cell| cell.mode.as_str()).collect();
    let Some((controller, version, note)) = only(controllers) else { return "meshgate".to_owned() };
    let mut label = format!("{controller} {version}");
    if let Some(mode) = only(modes) {
        label += &format!(" {mode}");
    }
    if !note.is_empty() {
        label += &format!(" ({note})");
    }
    label
}

fn only<T>(set: BTreeSet<T>) -> Option<T> {
    let mut all = set.into_iter();
    all.next().filter(|_| all.next().is_none())
}
