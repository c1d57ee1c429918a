//! The recipes as a page for people, `docs/recipes.md`: how to wire each controller, what was measured, and what the documentation
//! says that no longer holds.

use std::fmt::Write;

use indexmap::IndexMap;
use meshgate_fixtures::{Balances, ClientOverride, Fixtures, Promises, Recipe, Weights};

use crate::report::{CellReport, ClaimVerdict, Report};
use crate::verdict::Verdict;

/// The Markdown text, of what the report and the fixtures have in common.
pub fn render(report: &Report, fixtures: &Fixtures) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write(report, fixtures, &mut text);
    text
}

fn write(report: &Report, fixtures: &Fixtures, out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "# Recipes, as measured\n\n\
         Written by `meshgate report --format recipes` from a report. A recipe's promises are what its cases assert; under each stands what was\n\
         measured. In ingress mode a recipe runs under two dialects of the proxy: `documented` routes as the page says, `modern` as today's Linkerd.\n\
         In outside mode there is no proxy beside what carries the traffic."
    )?;
    let mut controllers: IndexMap<&str, IndexMap<&str, Vec<&CellReport>>> = IndexMap::new();
    for cell in &report.cells {
        controllers.entry(&cell.controller).or_default().entry(&cell.recipe).or_default().push(cell);
    }
    for (name, recipes) in controllers {
        let Some(controller) = fixtures.controllers.get(name) else { continue };
        let cell = recipes.values().flatten().next();
        let version = cell.map(|cell| cell.version.to_string()).unwrap_or_default();
        let planes = &controller.implementation;
        writeln!(
            out,
            "\n## {name} {version}\n\n{}. Control plane: {}; data plane: {}.",
            controller.summary, planes.control_plane, planes.data_plane
        )?;
        for (name, cells) in recipes {
            if let Some(recipe) = controller.recipes.get(name) {
                self::recipe(recipe, &cells, out)?;
            }
        }
    }
    refuted(report, fixtures, out)
}

fn recipe(recipe: &Recipe, cells: &[&CellReport], out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n### {} ({} mode)\n\n{}.", recipe.name, recipe.mode.as_str(), recipe.summary)?;
    if !recipe.source.is_empty() {
        writeln!(out, "From {}.", recipe.source)?;
    }
    writeln!(out)?;
    for cell in cells {
        let variant = cell.dialect.map_or(cell.mode.as_str(), |dialect| dialect.as_str());
        writeln!(out, "* `{variant}`: promises {}; measured: {}", promises(recipe.promises(variant)), measured(cell))?;
    }
    for (name, remedy) in &recipe.findings {
        let seen = |cell: &&&CellReport| {
            let says = |reason: &Option<String>| {
                reason.as_deref().is_some_and(|reason| reason.starts_with(&format!("{name}:")))
            };
            cell.cases.iter().any(|case| case.verdict == Verdict::Finding && says(&case.reason))
        };
        let observed = if cells.iter().any(|cell| seen(&cell)) { "observed" } else { "declared" };
        writeln!(out, "* finding `{name}`, {observed}: {remedy}")?;
    }
    let shown = recipe.install.iter().chain(recipe.templates.get("route")).chain(&recipe.manifests);
    for template in shown {
        writeln!(out, "\n```yaml\n{}\n```", template.text().trim_end())?;
    }
    Ok(())
}

fn promises(promises: &Promises) -> String {
    if !promises.serves {
        return "no working route".to_owned();
    }
    let mut said = vec![
        match promises.balances {
            Balances::Proxy => "the proxy balances",
            Balances::Controller => "the controller balances",
        },
        if promises.route_metrics { "route metrics" } else { "no route metrics" },
        if promises.split { "traffic splits" } else { "no traffic splits" },
        match promises.client_override {
            ClientOverride::Replaced => "a client's header is replaced",
            ClientOverride::Passed => "a client's header is passed on",
        },
    ];
    said.extend(promises.weights.map(|weights| match weights {
        Weights::Honoured => "the controller's weights count",
        Weights::Void => "the controller's weights are void",
    }));
    said.join(", ")
}

fn measured(cell: &CellReport) -> String {
    let count = |verdict| cell.cases.iter().filter(|case| case.verdict == verdict).count();
    let named = [
        (Verdict::Pass, "as promised"),
        (Verdict::Finding, "findings"),
        (Verdict::Fail, "**not as promised**"),
        (Verdict::NotRun, "**not run**"),
    ];
    let parts = named.into_iter().map(|(verdict, name)| (count(verdict), name)).filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts.map(|(count, name)| format!("{count} {name}")).collect();
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
}

fn refuted(report: &Report, fixtures: &Fixtures, out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n## What the page says that no longer holds\n\n| section | the page | instead |\n|---|---|---|")?;
    for claim in report.claims.iter().filter(|claim| claim.verdict == ClaimVerdict::Refuted) {
        let known = fixtures.claims.get(&claim.id);
        let section = known.map_or("", |claim| claim.section.as_str());
        let instead = known.and_then(|claim| claim.instead.as_deref()).unwrap_or_default();
        writeln!(out, "| {section} | {} | {} |", claim.text.replace('|', "\\|"), instead.replace('|', "\\|"))?;
    }
    Ok(())
}
