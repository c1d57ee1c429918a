//! `meshgate explain`: what a case is about, or what the verdict on it in a cell rests on.

use std::path::PathBuf;
use std::process::ExitCode;

use meshgate_fixtures::Recipe;
use meshgate_harness::matrix::{self, Cell, Place, Selection};
use meshgate_harness::report::explain;

use crate::{fail, output, report, run};

/// What to explain.
#[derive(clap::Args)]
pub struct Args {
    /// A case, or CELL/CASE of a report; as much of the name as tells it from others
    #[arg(value_name = "CASE|CELL/CASE")]
    name: String,
    /// The report folder in which CELL/CASE is looked up; `report` when left out
    #[arg(long = "report", visible_alias = "report-dir", value_name = "DIR")]
    report_dir: Option<PathBuf>,
    /// Fixtures from a folder instead of the built-in ones
    #[arg(long, value_name = "DIR")]
    fixtures: Option<PathBuf>,
}

/// Prints the explanation.
pub fn main(args: Args) -> ExitCode {
    let in_a_cell = args.name.matches('/').count() > 1;
    let text = match &args.report_dir {
        Some(dir) => verdict(&args.name, dir.clone()),
        None if in_a_cell => verdict(&args.name, PathBuf::from("report")),
        None => case(&args),
    };
    match text.and_then(|text| output::print(&text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(2, &error),
    }
}

fn verdict(name: &str, dir: PathBuf) -> anyhow::Result<String> {
    Ok(explain::verdict(&report::read(&dir)?, name, &dir)?)
}

fn case(args: &Args) -> anyhow::Result<String> {
    let fixtures = run::fixtures(args.fixtures.as_deref())?;
    let cases = meshgate_suites::cases();
    let ids: Vec<&str> = cases.iter().map(|case| case.id).collect();
    let id = explain::resolve(&args.name, &ids)?;
    let cells = matrix::cells(&fixtures, &Selection::default(), Place::USUAL)?;
    let with_recipe = |cell| -> anyhow::Result<(&Cell, &Recipe)> {
        let cell: &Cell = cell;
        Ok((cell, fixtures.controller(&cell.controller)?.recipe(&cell.recipe)?))
    };
    let cells = cells.iter().map(with_recipe).collect::<anyhow::Result<Vec<_>>>()?;
    let found = cases.into_iter().find(|case| case.id == id);
    Ok(found.map(|case| explain::case(case, &cells, &fixtures.claims)).unwrap_or_default())
}
