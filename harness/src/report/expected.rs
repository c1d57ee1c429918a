//! The verdicts of a report and nothing else: what two reports are compared by, and what a project keeps as a committed file.
//!
//! The file is YAML: cells without versions, in each the verdicts, under each the cases, everything in order, so that a change of one
//! verdict is a change of one line. What does not apply is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::report::{CellReport, Report, ReportError};
use crate::verdict::Verdict;

/// The verdicts of a report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdicts {
    /// By cell (`controller/recipe/variant`) and case.
    pub cells: BTreeMap<String, BTreeMap<String, Judged>>,
    /// Whose mesh was judged, and where. An expected report does not say.
    pub places: BTreeSet<String>,
}

/// A verdict as far as it can be compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// The verdict.
    pub verdict: Verdict,
    /// Whether a second look differed.
    pub flaky: bool,
    /// What was found, where that is known.
    pub reason: Option<String>,
}

/// The file's shape: cell, verdict, cases.
type File = BTreeMap<String, BTreeMap<Verdict, Vec<String>>>;

impl Verdicts {
    /// Those of a report.
    pub fn of(report: &Report) -> Self {
        let cases = |cell: &CellReport| {
            let judged = |case: &super::CaseReport| Judged {
                verdict: case.verdict,
                flaky: case.flaky,
                reason: case.reason.clone(),
            };
            cell.cases.iter().map(|case| (case.id.clone(), judged(case))).collect()
        };
        let cells = report.cells.iter().map(|cell| (name(cell), cases(cell))).collect();
        Self { cells, places: report.places() }
    }

    /// Those of a file: an expected report when its name says that it is YAML, else a `report.json`. Of a folder, those of its `report.json`.
    ///
    /// # Errors
    /// A file that cannot be read or has another shape.
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        if path.is_dir() {
            return Ok(Self::of(&Report::read(&path.join("report.json"))?));
        }
        if !is_expected(path) {
            return Ok(Self::of(&Report::read(path).map_err(by_its_name)?));
        }
        let text = std::fs::read_to_string(path).map_err(|cause| ReportError::Io { path: path.to_owned(), cause })?;
        let file: File = serde_yaml::from_str(&text)
            .map_err(|error| ReportError::Expected { path: path.to_owned(), message: error.to_string() })?;
        let cases = |verdicts: BTreeMap<Verdict, Vec<String>>| {
            let judged = |verdict| Judged { verdict, flaky: false, reason: None };
            verdicts
                .into_iter()
                .flat_map(|(verdict, cases)| cases.into_iter().map(move |case| (case, judged(verdict))))
                .collect()
        };
        let cells = file.into_iter().map(|(cell, verdicts)| (cell, cases(verdicts))).collect();
        Ok(Self { cells, places: BTreeSet::new() })
    }

    /// The file's content.
    ///
    /// # Errors
    /// Never for verdicts of a report: everything in them can be written.
    pub fn render(&self) -> Result<String, serde_yaml::Error> {
        let mut file = File::new();
        for (cell, cases) in &self.cells {
            let verdicts = file.entry(cell.clone()).or_default();
            for (case, judged) in cases.iter().filter(|(_, judged)| judged.verdict != Verdict::NotApplicable) {
                verdicts.entry(judged.verdict).or_default().push(case.clone());
            }
        }
        let what = "# Every verdict that is expected. Written by `meshgate report --format expected`; `meshgate gate THIS report.json` compares.\n";
        Ok(what.to_owned() + &serde_yaml::to_string(&file)?)
    }

    pub(super) fn get(&self, cell: &str, case: &str) -> Option<&Judged> {
        self.cells.get(cell)?.get(case)
    }
}

/// What is no report may be an expected one of another name.
fn by_its_name(error: ReportError) -> ReportError {
    match error {
        ReportError::Shape { path, message } => {
            let message = format!("{message}; a file is read as an expected report if its name ends in .yaml or .yml");
            ReportError::Shape { path, message }
        }
        other => other,
    }
}

/// Whether a file is an expected report, by its name.
pub fn is_expected(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// `controller/recipe/variant`: a cell without its version.
fn name(cell: &CellReport) -> String {
    let variant = cell.dialect.map_or(cell.mode.as_str(), crate::matrix::Dialect::as_str);
    format!("{}/{}/{variant}", cell.controller, cell.recipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_by_its_name_which_is_said_when_it_is_something_else() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            Verdicts::read(&path).map(|verdicts| verdicts.cells.len()).map_err(|error| error.to_string())
        };
        let expected = "traefik/a/modern:\n  pass: [routing/host]\n";
        assert_eq!(read("expected.yaml", expected), Ok(1));
        let error = read("report.json", expected).unwrap_err();
        assert!(error.contains("report.json is not a meshgate.report/v1 report: "), "{error}");
        assert!(error.ends_with("; a file is read as an expected report if its name ends in .yaml or .yml"), "{error}");
        let error = read("expected.yml", "[]").unwrap_err();
        let begin =
            "expected.yml is not an expected report, as which a file is read whose name ends in .yaml or .yml: ";
        assert!(error.contains(begin), "{error}");
    }
}
