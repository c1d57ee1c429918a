//! The recipes as a page for people, `docs/recipes.md`: for each controller and mode the recipe to use, what was measured, and what the
//! documentation says that no longer holds.

use std::collections::BTreeMap;
use std::fmt::Write;

use indexmap::IndexMap;
use meshgate_fixtures::{
    Bad, Balances, Became, ClientOverride, Controller, Fixtures, Implementation, Mode, Promises, Version, Weights,
};

use crate::case::LeftTo;
use crate::report::{CellReport, Report};
use crate::verdict::Verdict;

mod choice;
mod head;
mod page;
mod parts;

use choice::{Judged, as_good, best, variant};
pub use head::PLACEHOLDERS;
use page::Refuted;
pub use parts::{Part, installed, mode, parts};

/// The command that writes the page, after a run of everything.
pub const COMMAND: &str = "meshgate report --format recipes > docs/recipes.md";

/// Further templates that a reader may want, with what they are for.
const EXTRAS: [(&str, &str); 6] = [
    ("grpc", "gRPC"),
    ("weighted", "weights of the controller's own"),
    ("auth", "asking another Service whether a request may pass"),
    ("error-page", "error pages by another Service"),
    ("default-backend", "a default backend"),
    ("tls", "TLS that ends at the controller"),
];

/// The Markdown text, of what the report and the fixtures have in common.
pub fn render(report: &Report, fixtures: &Fixtures) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write(report, fixtures, &mut text);
    text
}

fn write(report: &Report, fixtures: &Fixtures, out: &mut String) -> std::fmt::Result {
    head::write(report, out)?;
    let controllers: Vec<Seen<'_>> = seen(report, fixtures);
    head::overview(&controllers, out)?;
    let refuted = Refuted::of(report, fixtures);
    for seen in &controllers {
        controller(seen, &refuted, out)?;
    }
    refuted.in_general(out)
}

/// A controller with what a report has of it.
struct Seen<'a> {
    controller: &'a Controller,
    version: &'a Version,
    /// Who played it in the report.
    planes: &'a Implementation,
    recipes: Vec<Judged<'a>>,
}

impl<'a> Seen<'a> {
    /// Its recipes of one mode whose routes answer.
    fn working(&self, mode: Mode) -> Vec<&Judged<'a>> {
        let working = |judged: &&Judged<'_>| judged.recipe.mode == mode && judged.promises().serves;
        self.recipes.iter().filter(working).collect()
    }
}

/// The controllers of a report, each at the newest version that it has of it.
fn seen<'a>(report: &'a Report, fixtures: &'a Fixtures) -> Vec<Seen<'a>> {
    let mut controllers: IndexMap<&str, Vec<&CellReport>> = IndexMap::new();
    for cell in &report.cells {
        controllers.entry(&cell.controller).or_default().push(cell);
    }
    let seen = |(name, cells): (&str, Vec<&'a CellReport>)| {
        let controller = fixtures.controllers.get(name)?;
        let newest = cells.iter().copied().max_by_key(|cell| &cell.version)?;
        let (version, planes) = (&newest.version, &newest.implementation);
        let mut recipes: BTreeMap<&str, Vec<&CellReport>> = BTreeMap::new();
        for cell in cells.into_iter().filter(|cell| cell.version == *version) {
            recipes.entry(&cell.recipe).or_default().push(cell);
        }
        let all: Vec<&CellReport> = recipes.values().flatten().copied().collect();
        let judged = |(name, cells)| Judged::of(controller.recipes.get(name)?, cells, &all);
        Some(Seen { controller, version, planes, recipes: recipes.into_iter().filter_map(judged).collect() })
    };
    controllers.into_iter().filter_map(seen).collect()
}

/// `[controller/recipe](#...)`, which leads to the heading of that text.
fn link(controller: &str, recipe: &str) -> String {
    format!("[{controller}/{recipe}](#{controller}{recipe})")
}

fn controller(seen: &Seen<'_>, refuted: &Refuted<'_>, out: &mut String) -> std::fmt::Result {
    let Seen { controller, version, planes, recipes } = seen;
    let name = &controller.name;
    writeln!(
        out,
        "\n## {name} {version}\n\n{}. Control plane: {}; data plane: {}.",
        controller.summary, planes.control_plane, planes.data_plane
    )?;
    let installed = installed(controller);
    if !installed.is_empty() {
        let mut kinds: Vec<&str> = installed.iter().flat_map(|part| parts::kinds(&part.text)).collect();
        kinds.dedup();
        writeln!(out, "\nBesides the controller itself, its classes and its rights, it was measured with")?;
        folded(&kinds.join(", "), &installed, out)?;
    }
    for mode in Mode::ALL {
        let working = seen.working(mode);
        if working.is_empty() {
            continue;
        }
        writeln!(out, "\n### {name} in {} mode", mode.as_str())?;
        match self::mode(controller, mode) {
            Some(text) => yaml(&text, out)?,
            None => writeln!(out, "\nWhat carries the traffic is outside the cluster: there is no pod to annotate.")?,
        }
        let best = best(&working);
        match best {
            Some(judged) if working.len() == 1 => {
                writeln!(out, "\n**Use {}**, the only recipe of this mode.", link(name, &judged.recipe.name))?;
            }
            Some(judged) => {
                let of = working.len();
                let others: Vec<String> =
                    as_good(judged, &working).iter().map(|other| link(name, &other.recipe.name)).collect();
                let others = match others.as_slice() {
                    [] => String::new(),
                    others => format!("; as good: {}", others.join(", ")),
                };
                writeln!(
                    out,
                    "\n**Use {}**: of the {of} recipes of this mode that work it promises most{others}.",
                    link(name, &judged.recipe.name)
                )?;
            }
            None => writeln!(out, "\n**Use none of these.**")?,
        }
        // The one to use comes first.
        let is_best = |judged: &Judged<'_>| best.is_some_and(|best| best.recipe.name == judged.recipe.name);
        let (first, others): (Vec<&Judged<'_>>, Vec<&Judged<'_>>) =
            working.iter().copied().partition(|judged| is_best(judged));
        for judged in first {
            recipe(controller, judged, true, out)?;
        }
        for judged in others {
            recipe(controller, judged, false, out)?;
        }
    }
    let broken: Vec<&Judged<'_>> = recipes.iter().filter(|judged| !judged.promises().serves).collect();
    if !broken.is_empty() {
        writeln!(out, "\n### {name}: what does not work")?;
        for judged in broken {
            recipe(controller, judged, false, out)?;
        }
    }
    refuted.of_controller(controller, out)
}

fn recipe(controller: &Controller, judged: &Judged<'_>, to_use: bool, out: &mut String) -> std::fmt::Result {
    let Judged { recipe, cells, .. } = judged;
    let serves = judged.promises().serves;
    let mode = if serves { String::new() } else { format!(" ({} mode)", recipe.mode.as_str()) };
    writeln!(out, "\n#### {}/{}\n\n{}{mode}.", controller.name, recipe.name, recipe.summary)?;
    if !recipe.source.is_empty() {
        writeln!(out, "From {}.", recipe.source)?;
    }
    if let Some(since) = &recipe.since {
        writeln!(out, "Since {} {since}.", controller.name)?;
    }
    if let Some(host) = &recipe.host {
        writeln!(out, "Clients have to ask for the host `{host}`.")?;
    }
    writeln!(out)?;
    match judged.objection() {
        Some(objection) if serves => writeln!(out, "* **not to be used**: {objection}")?,
        _ => {}
    }
    if !serves {
        writeln!(out, "* {}", answered(judged))?;
    }
    for cell in cells {
        let variant = variant(cell);
        let promises = promises(recipe.promises(variant));
        writeln!(out, "* `{variant}` promises {promises}; measured: {}", measured(&controller.name, cell))?;
    }
    for (name, remedy) in &recipe.findings {
        let mut cases = cells.iter().flat_map(|cell| &cell.cases).filter(|case| case.verdict == Verdict::Finding);
        let begins = format!("{name}: ");
        let seen = cases.any(|case| case.reason.as_deref().is_some_and(|reason| reason.starts_with(&begins)));
        writeln!(out, "* finding `{name}`, {}: {remedy}", if seen { "observed" } else { "declared" })?;
    }
    let (own, extras): (Vec<Part>, Vec<Part>) =
        parts(recipe, to_use).into_iter().partition(|part| part.title.is_none());
    if serves {
        own.iter().try_for_each(|part| yaml(&part.text, out))?;
    } else {
        folded("the manifests", &own, out)?;
    }
    let mut titled: IndexMap<&str, Vec<Part>> = IndexMap::new();
    for part in extras {
        titled.entry(part.title.unwrap_or_default()).or_default().push(part);
    }
    titled.iter().try_for_each(|(title, parts)| folded(title, parts, out))?;
    if !recipe.bad.is_empty() {
        writeln!(
            out,
            "\nWhat becomes of objects that make no sense:\n\n| what is wrong | what becomes of it |\n|---|---|"
        )?;
    }
    recipe.bad.values().try_for_each(|bad| writeln!(out, "{}", fate(bad)))
}

/// A row of the table of what becomes of bad objects.
pub fn fate(bad: &Bad) -> String {
    let fate = match (&bad.refused, &bad.told) {
        (Some(_), _) => "the API server refuses it".to_owned(),
        (None, _) if bad.freezes => "**nothing that comes later is taken** until it is gone".to_owned(),
        (None, told) => {
            let told = told.as_ref().map_or("**nobody tells**", |_| "told by a status, an event or the log");
            let new = if bad.serves { "it serves as if that were not there" } else { "it does not serve" };
            // Only where a route that turns into it fares otherwise.
            let turned = match bad.became {
                Some(Became::AsBefore) => ", and a route that is changed into it goes on as it was",
                Some(Became::Serves) => ", and a route that is changed into it serves as if that were not there",
                Some(Became::Stops) => ", and a route that is changed into it does not serve any more",
                None => "",
            };
            format!("{told}; {new}{turned}")
        }
    };
    format!("| {} | {fate} |", bad.wrong)
}

/// What comes back where nothing works. The first request of a case is what the page's reader would send; those after it are the case's
/// control, which mends the manifests, and what becomes of that.
fn answered(judged: &Judged<'_>) -> String {
    if !judged.recipe.refused.is_empty() {
        return "**does not work**: the API server refuses the manifest".to_owned();
    }
    let mut outcomes: IndexMap<&str, ()> = IndexMap::new();
    for case in judged.cells.iter().flat_map(|cell| &cell.cases).filter(|case| case.id.starts_with("recipe/")) {
        let mut samples = case.observations.iter().flat_map(|observations| &observations.samples);
        outcomes.extend(samples.find(|sample| sample.controller).map(|sample| (sample.outcome.as_str(), ())));
    }
    let outcomes: Vec<&str> = outcomes.into_keys().collect();
    match outcomes.as_slice() {
        [] => "**does not work**".to_owned(),
        outcomes => format!("**does not work**: requests are answered {}", outcomes.join(", ")),
    }
}

fn yaml(text: &str, out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n```yaml\n{text}\n```")
}

fn folded(title: &str, parts: &[Part], out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n<details><summary>{title}</summary>")?;
    parts.iter().try_for_each(|part| yaml(&part.text, out))?;
    writeln!(out, "\n</details>")
}

/// A recipe's promises in words, one after the other.
pub fn promises(promises: &Promises) -> String {
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

/// What a cell of a controller judged, and where the rest is judged that holds for it as well.
fn measured(controller: &str, cell: &CellReport) -> String {
    let count = |verdict| cell.cases.iter().filter(|case| case.verdict == verdict).count();
    let named = [
        (Verdict::Pass, "as promised"),
        (Verdict::Finding, "findings"),
        (Verdict::Fail, "**not as promised**"),
        (Verdict::NotRun, "**not run**"),
    ];
    let parts = named.into_iter().map(|(verdict, name)| (count(verdict), name)).filter(|(count, _)| *count > 0);
    let said = |(count, name)| match (count, name) {
        (1, "findings") => "1 finding".to_owned(),
        (count, name) => format!("{count} {name}"),
    };
    let mut parts: Vec<String> = parts.map(said).collect();
    if parts.is_empty() {
        parts.push("nothing".to_owned());
    }
    let mut left: IndexMap<LeftTo<'_>, usize> = IndexMap::new();
    for case in cell.cases.iter().filter(|case| case.verdict == Verdict::NotApplicable) {
        if let Some(to) = case.reason.as_deref().and_then(LeftTo::of) {
            *left.entry(to).or_default() += 1;
        }
    }
    parts.extend(left.into_iter().map(|(to, count)| match to {
        LeftTo::Dialect(name) => format!("{count} that come to the same are judged under `{name}`"),
        LeftTo::Recipe(name) => {
            format!("{count} that come to the same are judged in recipe {}", link(controller, name))
        }
    }));
    parts.join(", ")
}

#[cfg(test)]
mod tests;
