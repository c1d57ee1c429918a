//! `meshgate report`: what a report says.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::ValueEnum;
use meshgate_harness::report::expected::Verdicts;
use meshgate_harness::report::{Report, ReportError, badge, html, markdown, recipes, terminal};

use crate::{fail, output, run};

/// How a command ends that prints a report.
pub const EXIT_STATUS: &str = "\
Exit status, where it could be printed, is that of its run:
  0  every verdict is as the recipes promise
  1  a verdict is not, or a cell could not be judged while others were
  2  nothing could be judged, or there is no report to print";

/// Which report, and how.
#[derive(clap::Args)]
#[command(after_help = EXIT_STATUS)]
pub struct Args {
    /// The report folder
    #[arg(long, default_value = "report", value_name = "DIR")]
    report_dir: PathBuf,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Matrix)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// The matrix
    Matrix,
    /// The whole report as Markdown
    Markdown,
    /// The whole report as a page for browsers, with the evidence
    Html,
    /// The recipes as a page, with what was measured
    Recipes,
    /// The verdicts alone, as a file to commit and to compare with: `meshgate gate FILE report/report.json`
    Expected,
    /// The counts as JSON that shields.io makes a badge of
    Badge,
}

/// The report in a folder.
pub fn read(dir: &Path) -> anyhow::Result<Report> {
    Report::read(&dir.join("report.json")).map_err(|error| {
        let missing = matches!(&error, ReportError::Io { cause, .. } if cause.kind() == ErrorKind::NotFound);
        let hint = if missing { "; run `meshgate run` first, or say with --report-dir where a report is" } else { "" };
        anyhow!("{error}{hint}")
    })
}

/// Prints the report; exits as `run` did.
pub fn main(args: Args) -> ExitCode {
    let report = match read(&args.report_dir) {
        Ok(report) => report,
        Err(error) => return fail(2, &error),
    };
    let text = match args.format {
        Format::Matrix => terminal::render(&report, output::width()),
        Format::Markdown => markdown::render(&report),
        Format::Expected => match Verdicts::of(&report).render() {
            Ok(text) => text,
            Err(error) => return fail(2, &error.into()),
        },
        Format::Badge => badge::render(&report),
        Format::Html => html::render(&report, &args.report_dir),
        Format::Recipes => match run::fixtures(None) {
            Ok(fixtures) => recipes::render(&report, &fixtures),
            Err(error) => return fail(2, &error),
        },
    };
    match output::print(&text) {
        Ok(()) => ExitCode::from(run::status(&report)),
        Err(error) => fail(2, &error),
    }
}
