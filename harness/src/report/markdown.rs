//! The report as Markdown: the matrix, what is not green, the findings, the claims.

use std::fmt::Write;

use crate::report::{ClaimVerdict, Report, terminal};
use crate::verdict::Verdict;

/// The Markdown text.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write(report, &mut text);
    text
}

fn write(report: &Report, out: &mut String) -> std::fmt::Result {
    let totals = &report.totals;
    writeln!(out, "# Meshgate report\n")?;
    writeln!(
        out,
        "{} · {} passed, {} findings, {} failed, {} not run, {} not applicable · {:.1} s · started {}{}\n",
        if report.is_green() { "**green**" } else { "**not green**" },
        totals.pass,
        totals.finding,
        totals.fail,
        totals.not_run,
        totals.not_applicable,
        report.environment.seconds,
        report.environment.started,
        report.places().into_iter().map(|place| format!(" · {place}")).collect::<String>(),
    )?;
    let areas = terminal::areas(report);
    writeln!(out, "| controller | recipe | mode | plane | {} |", areas.join(" | "))?;
    writeln!(out, "|---|---|---|---|{}", "---|".repeat(areas.len()))?;
    for cell in &report.cells {
        let counts: Vec<String> = areas.iter().map(|area| terminal::summary(cell, area)).collect();
        let mode = match cell.dialect {
            Some(dialect) => format!("{} ({})", cell.mode.as_str(), dialect.as_str()),
            None => cell.mode.as_str().to_owned(),
        };
        writeln!(
            out,
            "| {}@{} | {} | {mode} | {} | {} |",
            cell.controller,
            cell.version,
            cell.recipe,
            cell.implementation.control_plane,
            counts.join(" | ")
        )?;
    }
    section(report, out, "Not as promised", |verdict| matches!(verdict, Verdict::Fail | Verdict::NotRun))?;
    section(report, out, "Findings", |verdict| verdict == Verdict::Finding)?;
    writeln!(out, "\n## Claims of the page\n\n| claim | verdict | cases |\n|---|---|---|")?;
    for claim in report.claims.iter().filter(|claim| claim.verdict != ClaimVerdict::Untested) {
        let by = if report.witnesses(claim).stand_ins_alone { " (stand-in)" } else { "" };
        let verdict = match (claim.verdict, claim.documented) {
            (verdict, Some(documented)) => format!("{}{by} (documented dialect: {})", name(verdict), name(documented)),
            (verdict, None) => format!("{}{by}", name(verdict)),
        };
        writeln!(out, "| {} | {verdict} | {} |", claim.text.replace('|', "\\|"), claim.cases.join(", "))?;
    }
    let untested = report.claims.iter().filter(|claim| claim.verdict == ClaimVerdict::Untested).count();
    writeln!(out, "\n{untested} claims are untested by the cases that ran.")
}

fn section(report: &Report, out: &mut String, title: &str, wanted: impl Fn(Verdict) -> bool) -> std::fmt::Result {
    let rows: Vec<_> = report
        .cells
        .iter()
        .flat_map(|cell| cell.cases.iter().map(move |case| (cell, case)))
        .filter(|(_, case)| wanted(case.verdict))
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n## {title}\n")?;
    for (cell, case) in rows {
        let flaky = if case.flaky { " (flaky)" } else { "" };
        writeln!(out, "* `{}` `{}`: {}{flaky}", cell.id, case.id, case.reason.as_deref().unwrap_or_default())?;
        for artefact in &case.artefacts {
            writeln!(out, "  * [{artefact}]({artefact})")?;
        }
    }
    Ok(())
}

/// The word for a verdict on a claim.
pub fn name(verdict: ClaimVerdict) -> &'static str {
    match verdict {
        ClaimVerdict::Confirmed => "confirmed",
        ClaimVerdict::Refuted => "refuted",
        ClaimVerdict::Untested => "untested",
    }
}
