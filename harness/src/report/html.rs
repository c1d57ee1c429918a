//! The report as one page for browsers: the matrix, and behind each of its numbers the cases with their evidence.
//!
//! The page is complete in itself and asks nobody for anything, which its own policy sees to: it runs the one script and takes the
//! one style sheet that are in it, known by their digests, and loads nothing. The matrix is written here, so that it can be read without a
//! script; the script filters it and draws what is behind it from the report, which is in the page as JSON. Whatever was received from
//! somewhere becomes text there, never markup.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use meshgate_fixtures::Implementation;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::report::{CellReport, ClaimVerdict, Report, markdown, terminal};
use crate::verdict::Verdict;

const STYLE: &str = include_str!("html/page.css");
const SCRIPT: &str = include_str!("html/page.js");

/// Bytes of a file's end that the page shows.
const TAIL: u64 = 64 * 1024;

/// Bytes of all files together: a run in which nothing works has thousands of them.
const FILES: usize = 8 * 1024 * 1024;

/// What may stand in a fragment as it is.
const FRAGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'@').remove(b'.').remove(b'-').remove(b'_');

/// The report and the files that it names, for the page's script.
#[derive(Serialize)]
struct Data<'a> {
    report: &'a Report,
    files: BTreeMap<&'a str, File>,
}

/// The end of a file.
#[derive(Serialize)]
struct File {
    text: String,
    /// Bytes before it that are left out.
    before: u64,
}

/// The page. `dir` is the report folder, in which the files are that show failures; those that are not there are only named.
pub fn render(report: &Report, dir: &Path) -> String {
    let areas = terminal::areas(report);
    let policy = format!(
        "default-src 'none'; base-uri 'none'; form-action 'none'; style-src '{}'; script-src '{}'",
        digest(STYLE),
        digest(SCRIPT)
    );
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Meshgate: " (headline(report)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a .skip href="#main" { "To the matrix" }
                (head(report))
                main #main tabindex="-1" {
                    section #overview {
                        (filters(report, &areas))
                        (matrix(report, &areas))
                        section #list aria-live="polite" {
                            noscript { p { "The evidence behind the numbers is drawn by a script; it is in report.json, too." } }
                        }
                        (claims(report))
                    }
                    section #detail hidden {}
                }
                script #data type="application/json" { (PreEscaped(data(report, dir))) }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string() + "\n"
}

/// How the page's policy knows a script or a style sheet.
fn digest(text: &str) -> String {
    format!("sha256-{}", BASE64.encode(Sha256::digest(text)))
}

fn headline(report: &Report) -> &'static str {
    if report.is_green() { "Every verdict is as promised" } else { "Not every verdict is as promised" }
}

fn head(report: &Report) -> Markup {
    let totals = &report.totals;
    let counts = [
        (Verdict::Pass, totals.pass),
        (Verdict::Finding, totals.finding),
        (Verdict::Fail, totals.fail),
        (Verdict::NotRun, totals.not_run),
        (Verdict::NotApplicable, totals.not_applicable),
    ];
    let environment = &report.environment;
    html! {
        header .top {
            div .headline {
                p .name { a href="#" { "Meshgate" } }
                h1 .(if report.is_green() { "green" } else { "red" }) {
                    span .sign aria-hidden="true" { (if report.is_green() { "✓" } else { "✕" }) } " " (headline(report))
                }
                p .facts {
                    (report.cells.len()) " cells · " @for place in report.places() { (place) " · " } "started " time datetime=(environment.started) { (environment.started) }
                    " · " (format!("{:.1}", environment.seconds)) " s · meshgate " (environment.meshgate) " · "
                    (environment.os) " · kernel " (environment.kernel) " · " (environment.cpus) " processors"
                }
            }
            ul .totals aria-label="Verdicts" {
                @for (verdict, count) in counts {
                    li { a .total .(verdict.as_str()) .none[count == 0] href={ "#verdict=" (verdict) } {
                        strong { (count) } " " span { (verdict.as_str()) }
                    } }
                }
                @if totals.flaky > 0 {
                    li { a .total .fail href="#verdict=flaky" { strong { (totals.flaky) } " " span { "flaky" } } }
                }
            }
        }
    }
}

fn filters(report: &Report, areas: &[String]) -> Markup {
    let distinct = |of: &dyn Fn(&CellReport) -> String| {
        let mut values: Vec<String> = report.cells.iter().map(of).collect();
        values.sort();
        values.dedup();
        values
    };
    let verdicts = ["pass", "finding", "fail", "flaky", "not-run", "not-applicable"].map(str::to_owned);
    let choices = [
        ("verdict", "Verdict", verdicts.to_vec()),
        ("controller", "Controller", distinct(&|cell| cell.controller.clone())),
        ("area", "Area", areas.to_vec()),
        ("mode", "Mode", distinct(&|cell| cell.mode.as_str().to_owned())),
    ];
    html! {
        form #filters role="search" aria-label="Filter" {
            label { span { "Text" } input #q name="q" type="search" autocomplete="off" placeholder="cell, case, reason"; }
            @for (name, title, values) in &choices {
                label {
                    span { (title) }
                    select name=(name) {
                        option value="" { "all" }
                        @for value in values { option value=(value) { (value) } }
                    }
                }
            }
            button type="reset" { "Clear" }
            output #matching for="q" {}
        }
    }
}

fn matrix(report: &Report, areas: &[String]) -> Markup {
    let mut groups: Vec<(&CellReport, Vec<(usize, &CellReport)>)> = Vec::new();
    for (index, cell) in report.cells.iter().enumerate() {
        match groups.last_mut() {
            Some((first, cells)) if (&first.controller, &first.version) == (&cell.controller, &cell.version) => {
                cells.push((index, cell));
            }
            _ => groups.push((cell, vec![(index, cell)])),
        }
    }
    html! {
        div .scroll role="region" aria-label="Matrix" tabindex="0" {
            table #matrix {
                caption { "Cells by area: cases as promised, " b { "+" } " findings, " b { "!" } " failures, " b { "?" } " not run" }
                thead { tr {
                    th scope="col" { "cell" }
                    @for area in areas { th scope="col" data-area=(area) { (broken(area)) } }
                } }
                @for (first, cells) in &groups {
                    tbody {
                        tr .group { th scope="rowgroup" colspan=(areas.len() + 1) {
                            span .controller { (first.controller) " " b { (first.version) } }
                            span .planes { (first.implementation.control_plane) " control plane · " (first.implementation.data_plane) " data plane" }
                        } }
                        @for (index, cell) in cells {
                            tr data-cell=(index) {
                                th scope="row" {
                                    a href={ "#cell=" (fragment(&cell.id)) } { (cell.recipe) } " "
                                    span .variant { (variant(cell)) }
                                    @if let Some(note) = cell.implementation.note() { " " (played(&cell.implementation, &note)) }
                                    @if cell.broken.is_some() { " " span .badge .not-run { "? broke" } }
                                }
                                @for area in areas { (counts(cell, area)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A name that may be broken into lines at its underscores.
fn broken(name: &str) -> Markup {
    html! { @for (index, word) in name.split('_').enumerate() { @if index > 0 { "_" wbr; } (word) } }
}

/// A mark of a row: a table is filtered and scrolled, and the group's heading may be out of sight.
fn played(by: &Implementation, note: &str) -> Markup {
    html! { abbr .played title={ "The controller is played by: " (note) } { (by.control_plane) } }
}

fn variant(cell: &CellReport) -> String {
    cell.dialect
        .map_or(cell.mode.as_str().to_owned(), |dialect| format!("{} · {}", cell.mode.as_str(), dialect.as_str()))
}

fn counts(cell: &CellReport, area: &str) -> Markup {
    let text = terminal::summary(cell, area);
    let class = match &text {
        text if text.contains('!') => "fail",
        text if text.contains('?') => "not-run",
        text if text.contains('+') => "finding",
        text if text == "-" => "not-applicable",
        _ => "pass",
    };
    html! {
        td .(class) data-area=(area) {
            @if text == "-" { "–" } @else { a href={ "#cell=" (fragment(&cell.id)) "&area=" (fragment(area)) } { (text) } }
        }
    }
}

fn claims(report: &Report) -> Markup {
    let told = report.claims.iter().filter(|claim| claim.verdict != ClaimVerdict::Untested);
    let untested = report.claims.iter().filter(|claim| claim.verdict == ClaimVerdict::Untested).count();
    html! {
        details #claims {
            summary { "Claims of the page" }
            div .scroll tabindex="0" role="region" aria-label="Claims" {
                table .claims {
                    thead { tr { th scope="col" { "verdict" } th scope="col" { "claim" } th scope="col" { "cases" } } }
                    tbody {
                        @for claim in told {
                            tr {
                                td { span .badge .(markdown::name(claim.verdict)) { (markdown::name(claim.verdict)) }
                                    @if let Some(documented) = claim.documented {
                                        small { "documented dialect: " (markdown::name(documented)) }
                                    }
                                }
                                td { (claim.text) }
                                td { @for case in &claim.cases { a href={ "#case=" (fragment(case)) } { (case) } " " } }
                            }
                        }
                    }
                }
            }
            p { (untested) " claims are untested by the cases that ran." }
        }
    }
}

fn fragment(text: &str) -> String {
    utf8_percent_encode(text, FRAGMENT).to_string()
}

/// The report as JSON that can stand in a page: no markup begins in it.
fn data(report: &Report, dir: &Path) -> String {
    let data = Data { report, files: files(report, dir) };
    serde_json::to_string(&data).unwrap_or_else(|_| "null".to_owned()).replace('<', "\\u003c")
}

/// The ends of the files that show failures, as far as there is room.
fn files<'a>(report: &'a Report, dir: &Path) -> BTreeMap<&'a str, File> {
    let mut files = BTreeMap::new();
    let mut room = FILES;
    for name in report.cells.iter().flat_map(|cell| &cell.cases).flat_map(|case| &case.artefacts) {
        if files.contains_key(name.as_str()) {
            continue;
        }
        let Some(file) = tail(dir, name).filter(|file| file.text.len() <= room) else { continue };
        room -= file.text.len();
        files.insert(name.as_str(), file);
    }
    files
}

/// The end of a file below the report folder. Reports come from elsewhere, too: no other file is read.
fn tail(dir: &Path, name: &str) -> Option<File> {
    let within = |component: Component<'_>| matches!(component, Component::Normal(_));
    if !Path::new(name).components().all(within) {
        return None;
    }
    let mut file = std::fs::File::open(dir.join(name)).ok()?;
    let before = file.metadata().ok()?.len().saturating_sub(TAIL);
    file.seek(SeekFrom::Start(before)).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    Some(File { text: String::from_utf8_lossy(&bytes).into_owned(), before })
}

#[cfg(test)]
mod tests;
