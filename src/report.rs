//! `meshgate report`: what a report says.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use meshgate_harness::report::{Report, html, markdown, recipes, terminal};

use crate::{fail, output, run};

/// Which report, and how.
#[derive(clap::Args)]
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
}

/// Prints the report; exits as `run` did.
pub fn main(args: Args) -> ExitCode {
    let report = match Report::read(&args.report_dir.join("report.json")) {
        Ok(report) => report,
        Err(error) => return fail(2, &error.into()),
    };
    let text = match args.format {
        Format::Matrix => terminal::render(&report, output::width()),
        Format::Markdown => markdown::render(&report),
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
