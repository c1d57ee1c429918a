//! `meshgate claims`: what a report says of the page, sentence by sentence, and of the weaknesses it found.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use meshgate_fixtures::Fixtures;
use meshgate_harness::report::{CellReport, ClaimVerdict, Report, markdown};
use meshgate_harness::verdict::Verdict;

use crate::{fail, output, report, run};

/// Which report.
#[derive(clap::Args)]
#[command(after_help = report::EXIT_STATUS)]
pub struct Args {
    /// The report folder
    #[arg(long, default_value = "report", value_name = "DIR")]
    report_dir: PathBuf,
    /// Fixtures from a folder instead of the built-in ones
    #[arg(long, value_name = "DIR")]
    fixtures: Option<PathBuf>,
}

/// Prints the claims; exits as `run` did.
pub fn main(args: Args) -> ExitCode {
    let read = || {
        let fixtures = run::fixtures(args.fixtures.as_deref())?;
        let report = report::read(&args.report_dir)?;
        output::print(&(claims(&report, &fixtures) + &findings(&report, &fixtures)))?;
        anyhow::Ok(run::status(&report))
    };
    match read() {
        Ok(status) => ExitCode::from(status),
        Err(error) => fail(2, &error),
    }
}

fn claims(report: &Report, fixtures: &Fixtures) -> String {
    let mut text = String::new();
    let mut totals: BTreeMap<&str, usize> = BTreeMap::new();
    for claim in &report.claims {
        let known = fixtures.claims.get(&claim.id);
        let untestable = known.and_then(|claim| claim.untestable.as_deref());
        let name = match (claim.verdict, untestable) {
            (ClaimVerdict::Untested, Some(_)) => "untestable",
            (verdict, _) => markdown::name(verdict),
        };
        *totals.entry(name).or_default() += 1;
        // A stand-in can be wrong about the controller that it plays.
        let by = if report.witnesses(claim).stand_ins_alone { format!("{name} (stand-in)") } else { name.to_owned() };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{by:<20} {:<32} {}", claim.id, claim.text);
        let mut also = |what: &str, line: &str| {
            let _ = writeln!(text, "{:<20} {what}: {line}", "");
        };
        if let Some(verdict) = claim.documented {
            also("under the documented dialect", markdown::name(verdict));
        }
        match (claim.verdict, known.and_then(|claim| claim.instead.as_deref())) {
            (ClaimVerdict::Refuted, Some(instead)) => also("instead", instead),
            (ClaimVerdict::Untested, _) => untestable.into_iter().for_each(|why| also("why", why)),
            _ => {}
        }
    }
    let totals: Vec<String> = totals.into_iter().map(|(name, count)| format!("{count} {name}")).collect();
    let _ = writeln!(text, "\n{} claims: {}", report.claims.len(), totals.join(", "));
    text
}

/// Each weakness once per recipe, with the remedy that the recipe names and whether the recipes that the remedy names do what they promise.
fn findings(report: &Report, fixtures: &Fixtures) -> String {
    let mut found: BTreeMap<String, (Vec<String>, Vec<&str>)> = BTreeMap::new();
    for cell in &report.cells {
        for case in cell.cases.iter().filter(|case| case.verdict == Verdict::Finding) {
            let reason = case.reason.as_deref().unwrap_or_default();
            // `NAME: OBSERVED. REMEDY`
            let (name, rest) = reason.split_once(": ").unwrap_or((reason, ""));
            let remedy = rest.split_once(". ").map_or(rest, |(_, remedy)| remedy);
            let (remedies, cases) =
                found.entry(format!("{}/{}  {name}: {remedy}", cell.controller, cell.recipe)).or_default();
            let named = fixtures.recipes_named(remedy, &cell.controller);
            *remedies = named.into_iter().map(|recipe| stands(report, cell, recipe)).collect();
            if !cases.contains(&case.id.as_str()) {
                cases.push(&case.id);
            }
        }
    }
    if found.is_empty() {
        return String::new();
    }
    let lines = found.into_iter().map(|(finding, (remedies, cases))| {
        let remedies: String = remedies.into_iter().map(|line| format!("    {line}\n")).collect();
        format!("  {finding}\n    seen by {}\n{remedies}", cases.join(", "))
    });
    format!("\nfindings, each with its remedy:\n{}", lines.collect::<String>())
}

/// Whether a recipe of the cell's controller, or that of another, does what it promises, as far as the report goes.
fn stands(report: &Report, cell: &CellReport, (controller, name): (&str, &str)) -> String {
    let recipe = if controller == cell.controller { name.to_owned() } else { format!("{controller}/{name}") };
    let cells = report.cells.iter().filter(|other| {
        let at_this_version = other.controller != cell.controller || other.version == cell.version;
        other.controller == controller && other.recipe == name && at_this_version
    });
    let (mut green, mut red) = (0, 0);
    for case in cells.flat_map(|cell| &cell.cases) {
        match case.verdict {
            Verdict::Pass | Verdict::Finding => green += 1,
            Verdict::Fail | Verdict::NotRun => red += 1,
            Verdict::NotApplicable => {}
        }
    }
    match (green, red) {
        (0, 0) => format!("recipe {recipe}: not in this report"),
        (_, 0) => format!("recipe {recipe}: does as it promises, in {green} cases"),
        _ => format!("recipe {recipe}: not as it promises, in {red} of {} cases", green + red),
    }
}
