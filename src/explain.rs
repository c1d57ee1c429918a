//! `meshgate explain`: what a case is about, or what the verdict on it in a cell rests on.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use meshgate_fixtures::Recipe;
use meshgate_harness::matrix::{self, Cell, Place, Selection};
use meshgate_harness::report::explain::{self, Known, NameError};

use crate::{fail, output, report, run};

/// Where a report is when nothing else is said.
const REPORT: &str = "report";

/// What to explain.
#[derive(clap::Args)]
pub struct Args {
    /// A case, CELL/CASE of a report, or a CELL of it; as much of the name as tells it from others, without the version, too
    #[arg(value_name = "CASE|CELL/CASE|CELL", value_parser = without_slash)]
    name: String,
    /// The report folder in which CELL/CASE is looked up; `report` when left out
    #[arg(long = "report", visible_alias = "report-dir", value_name = "DIR")]
    report_dir: Option<PathBuf>,
    /// Fixtures from a folder instead of the built-in ones
    #[arg(long, value_name = "DIR")]
    fixtures: Option<PathBuf>,
}

/// A name, without the slash that a shell puts behind a folder's.
fn without_slash(given: &str) -> Result<String, Infallible> {
    Ok(given.trim_end_matches('/').to_owned())
}

/// Prints the explanation.
pub fn main(args: Args) -> ExitCode {
    let in_a_cell = args.name.matches('/').count() > 1;
    let text = match &args.report_dir {
        Some(dir) => verdict(&args, dir),
        None if in_a_cell => verdict(&args, Path::new(REPORT)),
        None => case(&args),
    };
    match text.and_then(|text| output::print(&text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(2, &error),
    }
}

fn verdict(args: &Args, dir: &Path) -> anyhow::Result<String> {
    let report = report::read(dir)?;
    let fixtures = run::fixtures(args.fixtures.as_deref())?;
    let cells = matrix::cells(&fixtures, &Selection::default(), Place::USUAL)?;
    Ok(explain::verdict(&report, &args.name, dir, &Known { cells: &cells, cases: &ids() })?)
}

/// The ids of the cases.
fn ids() -> Vec<&'static str> {
    meshgate_suites::cases().iter().map(|case| case.id).collect()
}

/// Whether a name is that of a cell, or of several.
fn is_cell(name: &str, cells: &[Cell]) -> bool {
    let ids: Vec<String> = cells.iter().map(Cell::id).collect();
    let found = explain::resolve(name, &ids.iter().map(String::as_str).collect::<Vec<_>>());
    !matches!(found, Err(NameError::Unknown { .. }))
}

fn case(args: &Args) -> anyhow::Result<String> {
    let fixtures = run::fixtures(args.fixtures.as_deref())?;
    let cases = meshgate_suites::cases();
    let cells = matrix::cells(&fixtures, &Selection::default(), Place::USUAL)?;
    let id = match explain::resolve(&args.name, &ids()) {
        Ok(id) => id,
        Err(NameError::Unknown { .. }) if is_cell(&args.name, &cells) => {
            if Path::new(REPORT).join("report.json").exists() {
                return verdict(args, Path::new(REPORT));
            }
            bail!(
                "{0} is a cell; name a case with it: meshgate explain {0}/CASE (see `meshgate list cases`)",
                args.name
            );
        }
        Err(error) => return Err(error.into()),
    };
    let with_recipe = |cell| -> anyhow::Result<(&Cell, &Recipe)> {
        let cell: &Cell = cell;
        Ok((cell, fixtures.controller(&cell.controller)?.recipe(&cell.recipe)?))
    };
    let cells = cells.iter().map(with_recipe).collect::<anyhow::Result<Vec<_>>>()?;
    let found = cases.into_iter().find(|case| case.id == id);
    Ok(found.map(|case| explain::case(case, &cells, &fixtures.claims)).unwrap_or_default())
}
