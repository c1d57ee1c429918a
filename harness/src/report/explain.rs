//! What a case is about, and what a verdict rests on, as text for a terminal.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use meshgate_fixtures::{Claims, Recipe, Version, did_you_mean};

use crate::case::{Case, Evidence};
use crate::matrix::{Cell, Dialect};
use crate::observations::{Arrived, Observations, Sample, Share};
use crate::report::{CaseAbout, CaseReport, CellReport, ClaimVerdict, Report, markdown};

/// Candidates that an ambiguous name is answered with.
const NAMED: usize = 5;

/// What a pass does with a claim that only the documented dialect bears out.
const AS_DOCUMENTED: &str = "confirms under the dialect documented, else refutes";

/// Why a name says nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is called so.
    #[error("nothing is called \"{name}\"{meant}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What may be meant: see [`did_you_mean`].
        meant: String,
    },
    /// Several are.
    #[error("\"{name}\" may be any of {count}: {some}; say more of the one that is meant")]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// How many there are.
        count: usize,
        /// Some of them.
        some: String,
    },
    /// There is such a case and such a cell, but the report says nothing of it.
    #[error("{case} in {cell} is not in this report: it was not in that run. To run it:\n\n  {repeat} --case {case}\n")]
    NotInRun {
        /// The case.
        case: String,
        /// The cell.
        cell: String,
        /// The command line that runs the cell.
        repeat: String,
    },
    /// It is a cell of which the report says nothing.
    #[error("{cell} is a cell that was not in that run. To run it:\n\n  {repeat}\n")]
    CellNotInRun {
        /// The cell.
        cell: String,
        /// The command line that runs it.
        repeat: String,
    },
}

/// The one that a name means: the name itself, else the only one that ends with it after a slash, else the only one of which it is whole
/// parts, else the only one that begins or ends with it, else the only one that has it in it. The version in a cell's name goes without
/// saying.
pub fn resolve<'a>(name: &str, candidates: &[&'a str]) -> Result<&'a str, NameError> {
    let after_slash = format!("/{name}");
    let ways: [&dyn Fn(&str) -> bool; 5] = [
        &|candidate| candidate == name,
        &|candidate| candidate.ends_with(&after_slash),
        &|candidate| has_parts(candidate, name),
        &|candidate| candidate.starts_with(name) || candidate.ends_with(name),
        &|candidate| candidate.contains(name),
    ];
    let short: Vec<String> = candidates.iter().map(|candidate| unversioned(candidate)).collect();
    for is_meant in ways {
        let all = candidates.iter().zip(&short);
        let meant: Vec<&'a str> =
            all.filter(|(whole, short)| is_meant(whole) || is_meant(short)).map(|(whole, _)| *whole).collect();
        match meant.as_slice() {
            [] => {}
            [only] => return Ok(only),
            several => {
                let dots = if several.len() > NAMED { ", ..." } else { "" };
                let some = several.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ") + dots;
                return Err(NameError::Ambiguous { name: name.to_owned(), count: several.len(), some });
            }
        }
    }
    Err(NameError::Unknown { name: name.to_owned(), meant: did_you_mean(name, candidates.iter().copied()) })
}

/// Whether what lies between slashes in `name` does so, one after the other, in another name.
fn has_parts(other: &str, name: &str) -> bool {
    format!("/{other}/").contains(&format!("/{name}/"))
}

/// `traefik/ingress-middleware/modern` of `traefik@3.7.15/ingress-middleware/modern`: the beginning is what `list recipes` prints.
fn unversioned(name: &str) -> String {
    let Some((controller, rest)) = name.split_once('@') else { return name.to_owned() };
    rest.split_once('/').map_or_else(|| controller.to_owned(), |(_, rest)| format!("{controller}/{rest}"))
}

/// What a case is about: what it needs, what it says of the page, where it applies, and how to run only it.
pub fn case(case: &Case, cells: &[(&Cell, &Recipe)], claims: &Claims) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_case(case, cells, claims, &mut text);
    text
}

fn write_case(case: &Case, cells: &[(&Cell, &Recipe)], claims: &Claims, out: &mut String) -> std::fmt::Result {
    let about = CaseAbout::of(case);
    writeln!(out, "{}\n  {}\n", about.id, about.summary)?;
    writeln!(out, "area   {}", case.area())?;
    writeln!(
        out,
        "needs  {}",
        if about.needs.is_empty() { "nothing".to_owned() } else { about.needs.join("\n       ") }
    )?;
    let stage = match about.stage.as_str() {
        "waiting" => "begun at once, and waits while others run",
        "alone" => "alone, after the others: it breaks or reconfigures what they use",
        _ => "beside others",
    };
    writeln!(out, "runs   {stage}")?;
    let mut said: Vec<(String, &str)> = Vec::new();
    for evidence in case.claims {
        let how = match evidence {
            Evidence::Confirms(_) => "confirms",
            Evidence::Refutes(_) => "refutes",
            Evidence::HoldsAsDocumented(_) => AS_DOCUMENTED,
        };
        said.push((how.to_owned(), evidence.claim()));
    }
    let mut recipes: Vec<(String, &Recipe)> =
        cells.iter().map(|(cell, recipe)| (format!("{}/{}", cell.controller, cell.recipe), *recipe)).collect();
    recipes.dedup_by(|one, other| one.0 == other.0);
    for (name, recipe) in &recipes {
        let Some(says) = recipe.claims.get(case.id) else { continue };
        said.extend(says.confirms.iter().map(|claim| (format!("confirms in {name}"), claim.as_str())));
        said.extend(says.refutes.iter().map(|claim| (format!("refutes in {name}"), claim.as_str())));
        said.extend(
            says.holds_as_documented.iter().map(|claim| (format!("in {name} {AS_DOCUMENTED}"), claim.as_str())),
        );
    }
    if !said.is_empty() {
        writeln!(out, "\nWhen it passes it\n")?;
    }
    for (how, claim) in said {
        let sentence = claims.get(claim).map_or("", |claim| claim.text.as_str());
        writeln!(out, "  {how} {claim}\n    \"{sentence}\"")?;
    }
    let mut applies: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut not: BTreeMap<String, usize> = BTreeMap::new();
    let mut count = 0;
    for (cell, recipe) in cells {
        match case.not_applicable(cell, recipe) {
            None => {
                let controller = format!("{}@{}", cell.controller, cell.version);
                applies.entry(controller).or_default().push(format!("{}/{}", cell.recipe, cell.variant()));
                count += 1;
            }
            Some(reason) => *not.entry(reason).or_default() += 1,
        }
    }
    writeln!(out, "\nIt applies to {count} of {} cells\n", cells.len())?;
    for (controller, cells) in applies {
        writeln!(out, "  {controller}\n    {}", cells.join("\n    "))?;
    }
    if !not.is_empty() {
        writeln!(out, "\nand not to\n")?;
    }
    for (reason, count) in not {
        writeln!(out, "  {count:>3}  {reason}")?;
    }
    writeln!(out, "\nTo run only it\n\n  meshgate run --case {}", case.id)
}

/// What there is to run, whether or not a report has it.
pub struct Known<'a> {
    /// The cells.
    pub cells: &'a [Cell],
    /// The ids of the cases.
    pub cases: &'a [&'a str],
}

/// What the verdict on `CELL/CASE`, or on as much of it as tells it from others, rests on; of a `CELL` alone, what was judged in it. `dir` is
/// the report folder.
pub fn verdict(report: &Report, name: &str, dir: &Path, known: &Known<'_>) -> Result<String, NameError> {
    let all: Vec<(String, &CellReport, &CaseReport)> = report
        .cells
        .iter()
        .flat_map(|cell| cell.cases.iter().map(move |case| (format!("{}/{}", cell.id, case.id), cell, case)))
        .collect();
    let names: Vec<&str> = all.iter().map(|(name, ..)| name.as_str()).collect();
    let mut text = String::new();
    match resolve(name, &names) {
        Ok(meant) => {
            if let Some((_, cell, case)) = all.iter().find(|(name, ..)| name == meant) {
                let _ = write_verdict(report, cell, case, dir, &mut text);
            }
        }
        Err(error) => match cell_called(report, name) {
            Ok(cell) => _ = write_cell(cell, &mut text),
            Err(several @ NameError::Ambiguous { .. }) if means_cells(report, name) => return Err(several),
            Err(_) => {
                let unknown = matches!(error, NameError::Unknown { .. });
                let told = not_in_run(report, name, known);
                // What is in the report comes first.
                let told = told.filter(|told| unknown || !matches!(told, NameError::Ambiguous { .. }));
                return Err(told.unwrap_or(error));
            }
        },
    }
    Ok(text)
}

/// The one cell of a report that a name means.
fn cell_called<'a>(report: &'a Report, name: &str) -> Result<&'a CellReport, NameError> {
    let ids: Vec<&str> = report.cells.iter().map(|cell| cell.id.as_str()).collect();
    let id = resolve(name, &ids)?;
    let unknown = || NameError::Unknown { name: name.to_owned(), meant: String::new() };
    report.cells.iter().find(|cell| cell.id == id).ok_or_else(unknown)
}

/// Whether a name that several cells of a report have in theirs is about these, rather than about a case in each of them.
fn means_cells(report: &Report, name: &str) -> bool {
    let mut cells = report.cells.iter().map(|cell| cell.id.as_str());
    let cases = || report.cells.iter().flat_map(|cell| cell.cases.iter().map(|case| case.id.as_str()));
    let of_cells = cells.any(|id| has_parts(id, name) || has_parts(&unversioned(id), name));
    of_cells && !cases().any(|id| has_parts(id, name)) || !cases().any(|id| id.contains(name))
}

/// Why a report says nothing of a cell that there is, or of a case in one; or which cells that are there may be meant.
fn not_in_run(report: &Report, name: &str, known: &Known<'_>) -> Option<NameError> {
    let with_case = known.cases.iter().find_map(|&case| Some((name.strip_suffix(case)?.strip_suffix('/')?, case)));
    let cell = with_case.map_or(name, |(cell, _)| cell);
    let (cell, repeat) = match cell_called(report, cell) {
        Ok(cell) => (cell.id.clone(), repeat(cell)),
        Err(_) => {
            let ids: Vec<String> = known.cells.iter().map(Cell::id).collect();
            let id = match resolve(cell, &ids.iter().map(String::as_str).collect::<Vec<_>>()) {
                Ok(id) => id.to_owned(),
                Err(several @ NameError::Ambiguous { .. }) => return Some(several),
                Err(_) => return None,
            };
            let cell = known.cells.iter().find(|cell| cell.id() == id)?;
            let repeat = command(&cell.controller, &cell.version, &cell.recipe, cell.dialect);
            (id, repeat)
        }
    };
    Some(match with_case {
        Some((_, case)) => NameError::NotInRun { case: case.to_owned(), cell, repeat },
        None => NameError::CellNotInRun { cell, repeat },
    })
}

fn write_cell(cell: &CellReport, out: &mut String) -> std::fmt::Result {
    writeln!(out, "{} ({})\n", cell.id, cell.place())?;
    if let Some(broken) = &cell.broken {
        writeln!(out, "  it broke: {broken}\n")?;
    }
    for case in &cell.cases {
        let flaky = if case.flaky { ", flaky" } else { "" };
        writeln!(out, "  {:<14} {}{flaky}", case.verdict.as_str(), case.id)?;
    }
    writeln!(out, "\nWhat one of the verdicts rests on\n\n  meshgate explain {}/CASE", cell.id)
}

fn write_verdict(
    report: &Report,
    cell: &CellReport,
    case: &CaseReport,
    dir: &Path,
    out: &mut String,
) -> std::fmt::Result {
    let flaky = if case.flaky { ", flaky" } else { "" };
    writeln!(out, "{}{flaky}  {} in {} ({})", case.verdict, case.id, cell.id, cell.place())?;
    if let Some(about) = report.cases.iter().find(|about| about.id == case.id) {
        writeln!(out, "  {}", about.summary)?;
    }
    match case.reason.as_deref().map(|reason| (reason, parts(reason))) {
        Some((_, Some([what, expected, found]))) => {
            writeln!(out, "\n  {what}\n    expected  {expected}\n    found     {found}")?;
        }
        Some((reason, None)) => writeln!(out, "\n  {reason}")?,
        None => {}
    }
    if case.attempts > 0 {
        let looks = if case.attempts > 1 { ", looked at twice" } else { "" };
        writeln!(out, "\n  took {:.2} s{looks}; the cell ran {} with {}", case.seconds, mode(cell), planes(cell))?;
    }
    for (claim, verdict) in &case.claims {
        let sentence = report.claims.iter().find(|known| known.id == *claim).map_or("", |known| known.text.as_str());
        let how = if *verdict == ClaimVerdict::Refuted { "refutes" } else { markdown::name(*verdict) };
        writeln!(out, "  {how} {claim}: \"{sentence}\"")?;
    }
    if let Some(observations) = &case.observations {
        write_observations(observations, cell, out)?;
    }
    if !case.artefacts.is_empty() {
        writeln!(out, "\nFiles\n")?;
        for name in &case.artefacts {
            let path = dir.join(name);
            let size = std::fs::metadata(&path).map_or("not there".to_owned(), |file| format!("{} bytes", file.len()));
            writeln!(out, "  {}  ({size})", path.display())?;
        }
    }
    writeln!(out, "\nTo repeat it\n\n  {} --case {}", repeat(cell), case.id)
}

/// `WHAT: expected X, found Y`, taken apart.
fn parts(reason: &str) -> Option<[&str; 3]> {
    let (what, rest) = reason.split_once(": expected ")?;
    let (expected, found) = rest.rsplit_once(", found ")?;
    Some([what, expected, found])
}

fn mode(cell: &CellReport) -> String {
    match cell.dialect {
        Some(dialect) => format!("in {} mode, dialect {}", cell.mode.as_str(), dialect.as_str()),
        None => format!("in mode {}", cell.mode.as_str()),
    }
}

fn planes(cell: &CellReport) -> String {
    let planes = &cell.implementation;
    format!("control plane {}, data plane {}", planes.control_plane, planes.data_plane)
}

/// The command line that runs a cell again; reports of earlier versions do not say it.
fn repeat(cell: &CellReport) -> String {
    let made = || command(&cell.controller, &cell.version, &cell.recipe, cell.dialect);
    cell.repeat.clone().unwrap_or_else(made)
}

fn command(controller: &str, version: &Version, recipe: &str, dialect: Option<Dialect>) -> String {
    let dialect = dialect.map_or(String::new(), |dialect| format!(" --dialect {}", dialect.as_str()));
    format!("meshgate run --controllers {controller}@{version} --recipe {recipe}{dialect}")
}

fn write_observations(observations: &Observations, cell: &CellReport, out: &mut String) -> std::fmt::Result {
    for share in &observations.shares {
        write_share(share, out)?;
    }
    if let Some(latency) = &observations.latency {
        writeln!(
            out,
            "\n{} answers: half within {:.1} ms, 90 % within {:.1} ms, 99 % within {:.1} ms, the longest {:.1} ms",
            latency.n, latency.p50, latency.p90, latency.p99, latency.max
        )?;
    }
    if observations.samples.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nRequests and answers, {} in all", observations.requests)?;
    for sample in &observations.samples {
        write_sample(sample, cell, out)?;
    }
    Ok(())
}

fn write_share(share: &Share, out: &mut String) -> std::fmt::Result {
    let found = share.count as f64 / share.n as f64;
    writeln!(out, "\nShare of {}", share.what)?;
    writeln!(out, "  found     {} of {}, {:.1} %", share.count, share.n, found * 100.0)?;
    writeln!(
        out,
        "  expected  {:.1} %, told from {:.0} points more or less",
        share.expected * 100.0,
        share.off * 100.0
    )?;
    if let Some([least, most]) = share.accepted {
        writeln!(out, "  accepted  {least} to {most} after so many; others take more requests to judge")?;
    }
    writeln!(out, "  errors    false alarm at most {:.0e}, miss {:.0e}", share.false_alarm, share.miss)
}

fn write_sample(sample: &Sample, cell: &CellReport, out: &mut String) -> std::fmt::Result {
    let times = if sample.times > 1 { format!(", {} times", sample.times) } else { String::new() };
    writeln!(out, "\n  {}  ->  {}{times}  ({:.1} ms)", sample.sent, sample.outcome, sample.ms)?;
    writeln!(out, "    way      {}", way(sample, cell).join(" -> "))?;
    for (answer, times) in &sample.answers {
        writeln!(out, "    answers  {times} x {answer}")?;
    }
    for line in &sample.headers {
        writeln!(out, "    sent     {line}")?;
    }
    if let Some(seen) = &sample.seen {
        writeln!(out, "    arrived  {}", seen.line)?;
        for line in &seen.headers {
            writeln!(out, "    arrived  {line}")?;
        }
    }
    for line in &sample.answer {
        writeln!(out, "    answer   {line}")?;
    }
    if let Some(text) = &sample.text {
        writeln!(out, "    body     {}", text.trim_end().replace('\n', "\n             "))?;
    }
    Ok(())
}

/// The hops of a request, as far as is known.
fn way(sample: &Sample, cell: &CellReport) -> Vec<String> {
    let mut hops = vec![sample.from.clone()];
    let proxy = format!("proxy ({})", cell.dialect.map_or(cell.mode.as_str(), |dialect| dialect.as_str()));
    if sample.from == "the probe pod" {
        hops.push(proxy.clone());
    }
    if sample.controller {
        hops.push(format!("{} at {}", cell.controller, sample.target));
        hops.extend(cell.mode.has_proxy().then_some(proxy));
    } else {
        hops.push(sample.target.clone());
    }
    match &sample.seen {
        Some(Arrived { service, .. }) if sample.answers.len() > 1 => hops.push(format!("{service} and others")),
        Some(Arrived { service, pod, .. }) => hops.push(format!("{service} (pod {pod})")),
        None => hops.push("no backend told".to_owned()),
    }
    hops
}

#[cfg(test)]
mod tests;
