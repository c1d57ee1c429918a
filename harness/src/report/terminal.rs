//! The matrix on the terminal: a row per cell, a column per area.

use std::fmt::Write;

use crate::report::{CellReport, Report};
use crate::verdict::Verdict;

/// The areas of a report's cases, in the order of their first case.
pub fn areas(report: &Report) -> Vec<String> {
    let mut areas = Vec::new();
    for case in report.cells.iter().flat_map(|cell| &cell.cases) {
        let area = case.id.split('/').next().unwrap_or_default().to_owned();
        if !areas.contains(&area) {
            areas.push(area);
        }
    }
    areas
}

/// What came of the cases of one area in a cell: `12`, `11 +1` (a finding), `10 !2` (failures), `-`.
pub fn summary(cell: &CellReport, area: &str) -> String {
    let count = |verdict: Verdict| {
        let prefix = format!("{area}/");
        cell.cases.iter().filter(|case| case.id.starts_with(&prefix) && case.verdict == verdict).count()
    };
    let (pass, finding) = (count(Verdict::Pass), count(Verdict::Finding));
    let (fail, not_run) = (count(Verdict::Fail), count(Verdict::NotRun));
    if pass + finding + fail + not_run == 0 {
        return "-".to_owned();
    }
    let mut text = pass.to_string();
    for (mark, count) in [('+', finding), ('!', fail), ('?', not_run)] {
        if count > 0 {
            // Writing to a String cannot fail.
            let _ = write!(text, " {mark}{count}");
        }
    }
    text
}

/// The matrix with its legend and totals.
pub fn render(report: &Report) -> String {
    let areas = areas(report);
    let mut rows =
        vec![["cell".to_owned()].into_iter().chain(areas.iter().map(|area| short(area))).collect::<Vec<_>>()];
    for cell in &report.cells {
        let mut row = vec![cell.id.clone()];
        row.extend(areas.iter().map(|area| summary(cell, area)));
        rows.push(row);
    }
    let widths: Vec<usize> =
        (0..=areas.len()).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let line: Vec<String> =
            row.iter().zip(&widths).map(|(value, width)| format!("{value:<width$}", width = *width)).collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    let totals = &report.totals;
    let _ = writeln!(
        text,
        "\n{} passed, {} findings (+), {} failed (!), {} not run (?), {} not applicable, in {:.1} s",
        totals.pass, totals.finding, totals.fail, totals.not_run, totals.not_applicable, report.environment.seconds
    );
    text
}

/// Column titles of at most seven characters.
fn short(area: &str) -> String {
    area.chars().take(7).collect()
}
