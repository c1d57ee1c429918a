//! `meshgate claims`: what a report says of the page, sentence by sentence, and of the weaknesses it found.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use meshgate_fixtures::Fixtures;
use meshgate_harness::report::{CellReport, ClaimVerdict, Report, markdown};
use meshgate_harness::verdict::Verdict;

use crate::{fail, output, run};

/// Which report.
#[derive(clap::Args)]
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
        let report = Report::read(&args.report_dir.join("report.json"))?;
        output::print(&(claims(&report, &fixtures) + &findings(&report)))?;
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
fn findings(report: &Report) -> String {
    let mut found: BTreeMap<String, (Vec<String>, Vec<&str>)> = BTreeMap::new();
    for cell in &report.cells {
        for case in cell.cases.iter().filter(|case| case.verdict == Verdict::Finding) {
            let reason = case.reason.as_deref().unwrap_or_default();
            // `NAME: OBSERVED. REMEDY`
            let (name, rest) = reason.split_once(": ").unwrap_or((reason, ""));
            let remedy = rest.split_once(". ").map_or(rest, |(_, remedy)| remedy);
            let (remedies, cases) =
                found.entry(format!("{}/{}  {name}: {remedy}", cell.controller, cell.recipe)).or_default();
            *remedies = named(remedy).map(|recipe| stands(report, cell, recipe)).collect();
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

/// The recipes in a sentence: `use recipe A or B`, `use recipe A or a TrafficSplit`.
fn named(remedy: &str) -> impl Iterator<Item = &str> {
    let mut words =
        remedy.split(|c: char| !c.is_ascii_alphanumeric() && !"-'/".contains(c)).filter(|word| !word.is_empty());
    let mut before = "";
    let mut listed = false;
    std::iter::from_fn(move || {
        for word in words.by_ref() {
            let follows = before.eq_ignore_ascii_case("recipe") || listed && before == "or" && word != "a";
            // `A or B`: the word between does not end the list.
            listed = follows || listed && word == "or";
            before = word;
            if follows {
                return Some(word);
            }
        }
        None
    })
}

/// Whether a recipe of the cell's controller, or that of another, does what it promises, as far as the report goes.
fn stands(report: &Report, cell: &CellReport, recipe: &str) -> String {
    let (controller, name) = recipe.split_once('/').unwrap_or((&cell.controller, recipe));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipes_of_a_remedy_are_found() {
        let named = |text| named(text).collect::<Vec<_>>();
        assert_eq!(
            named("No header is set; use recipe httpproxy-services or ingress-policy."),
            ["httpproxy-services", "ingress-policy"]
        );
        assert_eq!(named("void; use recipe mapping or a TrafficSplit."), ["mapping"]);
        assert_eq!(named("3 does it first, so use recipe traefik/ingress-middleware."), ["traefik/ingress-middleware"]);
        assert_eq!(
            named("use service-level middlewares (recipe ingressroute-weighted, Traefik 3.7 and later)"),
            ["ingressroute-weighted"]
        );
        assert_eq!(named("Recipe backend-config puts a value of one's own in its place."), ["backend-config"]);
        assert_eq!(named("as this recipe's template does, or use recipe pod-ip"), ["pod-ip"]);
        assert_eq!(named("or use a TrafficSplit"), [""; 0]);
    }

    /// What is said of a weakness is worth something only where the way out exists.
    #[test]
    fn every_recipe_that_a_remedy_names_exists() {
        let fixtures = Fixtures::built_in().unwrap();
        let mut found = 0;
        for controller in fixtures.controllers.values() {
            for (recipe, remedy) in
                controller.recipes.values().flat_map(|it| it.findings.values().map(|to| (&it.name, to)))
            {
                for name in named(remedy) {
                    let (of, other) = name.split_once('/').unwrap_or((&controller.name, name));
                    let known = fixtures.controllers.get(of).is_some_and(|of| of.recipes.contains_key(other));
                    assert!(known, "{}/{recipe}: {remedy}: {name:?}", controller.name);
                    found += 1;
                }
            }
        }
        assert!(found > 10, "{found}");
    }
}
