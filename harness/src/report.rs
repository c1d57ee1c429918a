//! The report: `meshgate.report/v1`, written as JSON, JUnit, Markdown and a page for browsers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use meshgate_fixtures::{Claims, Implementation, Mode, Version};
use serde::{Deserialize, Serialize};

use crate::case::{Case, Stage};
use crate::matrix::{Dialect, Mesh};
use crate::observations::Observations;
use crate::verdict::Verdict;

pub mod badge;
pub mod expected;
pub mod explain;
pub mod gate;
pub mod html;
pub mod junit;
pub mod markdown;
pub mod recipes;
pub mod terminal;
mod witnesses;

pub use witnesses::Witnesses;

/// The value of `schema`.
pub const SCHEMA: &str = "meshgate.report/v1";

/// The JSON schema of the report, which `report.json` is tested against.
pub const JSON_SCHEMA: &str = include_str!("report/schema.json");

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Where and when it ran. The only place with a date.
    pub environment: Environment,
    /// In the order of the matrix.
    pub cells: Vec<CellReport>,
    /// What the cases are about that ran, in the order of the suite. Reports of earlier versions do not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cases: Vec<CaseAbout>,
    /// Every claim of the page, in its order.
    pub claims: Vec<ClaimReport>,
    /// Counts over all cells.
    pub totals: Totals,
}

/// What a case is about, wherever it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseAbout {
    /// The case's id.
    pub id: String,
    /// One sentence that is true when it passes.
    pub summary: String,
    /// What a cell must have for it to apply, each as the end of "it needs ...".
    pub needs: Vec<String>,
    /// When it runs: `waiting`, `shared` or `alone`.
    pub stage: String,
}

impl CaseAbout {
    /// What a case says of itself.
    pub fn of(case: &Case) -> Self {
        let stage = match case.stage {
            Stage::Waiting => "waiting",
            Stage::Shared => "shared",
            Stage::Alone => "alone",
        };
        Self {
            id: case.id.to_owned(),
            summary: case.summary.to_owned(),
            needs: case.needs.iter().map(ToString::to_string).collect(),
            stage: stage.to_owned(),
        }
    }
}

/// Where and when a run took place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Version of Meshgate.
    pub meshgate: String,
    /// When the run started, RFC 3339, UTC.
    pub started: String,
    /// Wall-clock seconds of the whole run.
    pub seconds: f64,
    /// Operating system and architecture.
    pub os: String,
    /// The kernel's release.
    pub kernel: String,
    /// Processors that the run could use.
    pub cpus: usize,
}

/// A cell and its cases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellReport {
    /// The cell's id, `controller@version/recipe/variant`.
    pub id: String,
    /// The controller.
    pub controller: String,
    /// Its version.
    pub version: Version,
    /// The recipe.
    pub recipe: String,
    /// `default`, `ingress` or `outside`.
    pub mode: Mode,
    /// The proxy's dialect; `null` but in ingress mode.
    pub dialect: Option<Dialect>,
    /// The cluster's kind.
    pub cluster: String,
    /// Whose mesh it was in; reports of a time before there was a choice do not say.
    #[serde(default)]
    pub mesh: Mesh,
    /// Who played the controller.
    pub implementation: Implementation,
    /// The command line that runs the cell again; with `--case ID` one case of it. Reports of earlier versions do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<String>,
    /// Seconds until the first case could begin; `null` when it never could.
    pub setup_seconds: Option<f64>,
    /// Why the cell broke, when it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
    /// In the order of the suite.
    pub cases: Vec<CaseReport>,
}

impl CellReport {
    /// Whose mesh it was in, and where.
    pub fn place(&self) -> String {
        format!("mesh {}, cluster {}", self.mesh.as_str(), self.cluster)
    }
}

/// A case in a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseReport {
    /// The case's id.
    pub id: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Seconds that the case took, all attempts together.
    pub seconds: f64,
    /// How often it was looked at: 1, or 2 after a failure; 0 when it did not run.
    pub attempts: u32,
    /// Whether the second look differed from the first. Never green.
    #[serde(default, skip_serializing_if = "is_false")]
    pub flaky: bool,
    /// What was found, unless it simply passed.
    pub reason: Option<String>,
    /// What its verdict says about claims: claim id to `confirmed` or `refuted`; empty unless it passed.
    pub claims: BTreeMap<String, ClaimVerdict>,
    /// Files that show a failure, relative to the report folder.
    pub artefacts: Vec<String>,
    /// What it observed, in little; `null` when it did not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observations: Option<Observations>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// The verdict on a sentence of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClaimVerdict {
    /// Cases that passed say it holds.
    Confirmed,
    /// Cases that passed say it does not hold.
    Refuted,
    /// No case that ran says anything.
    Untested,
}

/// A sentence of the page with its verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClaimReport {
    /// Its id.
    pub id: String,
    /// The sentence.
    pub text: String,
    /// The verdict under today's proxy: where the dialects disagree, `modern` decides.
    pub verdict: ClaimVerdict,
    /// Whether cells under the documented dialect say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documented: Option<ClaimVerdict>,
    /// The cases that say so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cases: Vec<String>,
}

/// Counts of verdicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Totals {
    /// `pass`.
    pub pass: usize,
    /// `finding`.
    pub finding: usize,
    /// `not-applicable`.
    pub not_applicable: usize,
    /// `fail`.
    pub fail: usize,
    /// `not-run`.
    pub not_run: usize,
    /// Of the failures, those that changed on a second look.
    pub flaky: usize,
}

impl Totals {
    /// Counts the cases of cells.
    pub fn of(cells: &[CellReport]) -> Self {
        let mut totals = Self::default();
        for case in cells.iter().flat_map(|cell| &cell.cases) {
            let count = match case.verdict {
                Verdict::Pass => &mut totals.pass,
                Verdict::Finding => &mut totals.finding,
                Verdict::NotApplicable => &mut totals.not_applicable,
                Verdict::Fail => &mut totals.fail,
                Verdict::NotRun => &mut totals.not_run,
            };
            *count += 1;
            totals.flaky += usize::from(case.flaky);
        }
        totals
    }
}

/// The time of day for [`Environment::started`]: RFC 3339, UTC, to the second.
pub fn timestamp() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Why a report could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file could not be written or read.
    #[error("{path}: {cause}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// A file is not a report.
    #[error("{path} is not a {SCHEMA} report: {message}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A file is not an expected report.
    #[error("{path} is not an expected report, as which a file is read whose name ends in .yaml or .yml: {message}")]
    Expected {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

impl Report {
    /// A report of finished cells.
    pub fn new(environment: Environment, cells: Vec<CellReport>, claims: &Claims) -> Self {
        let claims = claim_reports(claims, &cells);
        let totals = Totals::of(&cells);
        Self { schema: SCHEMA.to_owned(), environment, cells, cases: Vec::new(), claims, totals }
    }

    /// With what the cases are about.
    pub fn about(mut self, cases: &[&Case]) -> Self {
        self.cases = cases.iter().map(|case| CaseAbout::of(case)).collect();
        self
    }

    /// Whose mesh was judged, and where: one place, unless somebody put reports together.
    pub fn places(&self) -> BTreeSet<String> {
        self.cells.iter().map(CellReport::place).collect()
    }

    /// Whether every cell came up where it was to, every verdict is as the recipes promise, and there is one.
    pub fn is_green(&self) -> bool {
        let cases = || self.cells.iter().flat_map(|cell| &cell.cases);
        self.cells.iter().all(|cell| cell.broken.is_none())
            && cases().all(|case| case.verdict.is_green() && !case.flaky)
            && cases().any(|case| case.verdict != Verdict::NotApplicable)
    }

    /// Writes `report.json`, `junit.xml`, `report.md` and `report.html` into a folder: all four, or those of an earlier report stay as
    /// they are, as when the disk is full.
    ///
    /// # Errors
    /// [`ReportError::Io`], with the file.
    pub fn write(&self, dir: &Path) -> Result<(), ReportError> {
        std::fs::create_dir_all(dir).map_err(|cause| ReportError::Io { path: dir.to_owned(), cause })?;
        let json = serde_json::to_string_pretty(self)
            .map_err(|error| ReportError::Shape { path: dir.join("report.json"), message: error.to_string() })?;
        let files = [
            ("report.json", json + "\n"),
            ("junit.xml", junit::render(self)),
            ("report.md", markdown::render(self)),
            ("report.html", html::render(self, dir)),
        ];
        let new = |name: &str| dir.join(format!(".{name}.new"));
        let write = || -> Result<(), ReportError> {
            for (name, text) in &files {
                let path = new(name);
                written(&path, text).map_err(|cause| ReportError::Io { path, cause })?;
            }
            for (name, _) in &files {
                let path = dir.join(name);
                std::fs::rename(new(name), &path).map_err(|cause| ReportError::Io { path, cause })?;
            }
            Ok(())
        };
        let done = write();
        if done.is_err() {
            for (name, _) in &files {
                let _ = std::fs::remove_file(new(name));
            }
        }
        done
    }

    /// Reads a `report.json`.
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        let shape = |message: String| ReportError::Shape { path: path.to_owned(), message };
        let text = std::fs::read_to_string(path).map_err(|cause| ReportError::Io { path: path.to_owned(), cause })?;
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| shape(error.to_string()))?;
        match value.get("schema").and_then(serde_json::Value::as_str) {
            Some(SCHEMA) => {}
            found => return Err(shape(format!("expected \"schema\": \"{SCHEMA}\", found {found:?}"))),
        }
        serde_json::from_value(value).map_err(|error| shape(error.to_string()))
    }
}

/// Writes a file down to the disk, which may say only then that it is full.
fn written(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The verdict on each claim: refuted if any cell that speaks for today refutes it, else confirmed if one confirms it.
fn claim_reports(claims: &Claims, cells: &[CellReport]) -> Vec<ClaimReport> {
    let verdict = |id: &str, dialects: &dyn Fn(Option<Dialect>) -> bool| {
        let said: Vec<ClaimVerdict> = cells
            .iter()
            .filter(|cell| dialects(cell.dialect))
            .flat_map(|cell| &cell.cases)
            .filter_map(|case| case.claims.get(id).copied())
            .collect();
        if said.contains(&ClaimVerdict::Refuted) {
            ClaimVerdict::Refuted
        } else if said.contains(&ClaimVerdict::Confirmed) {
            ClaimVerdict::Confirmed
        } else {
            ClaimVerdict::Untested
        }
    };
    claims
        .0
        .iter()
        .map(|claim| {
            let today = verdict(&claim.id, &|dialect| matches!(dialect, None | Some(Dialect::Modern)));
            let documented = verdict(&claim.id, &|dialect| dialect == Some(Dialect::Documented));
            let mut cases: Vec<String> = cells
                .iter()
                .flat_map(|cell| &cell.cases)
                .filter(|case| case.claims.contains_key(&claim.id))
                .map(|case| case.id.clone())
                .collect();
            cases.sort();
            cases.dedup();
            ClaimReport {
                id: claim.id.clone(),
                text: claim.text.clone(),
                verdict: if today == ClaimVerdict::Untested { documented } else { today },
                documented: (documented != ClaimVerdict::Untested && documented != today).then_some(documented),
                cases,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
