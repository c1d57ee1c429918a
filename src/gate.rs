//! `meshgate gate`: may this upgrade go ahead?

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use meshgate_harness::matrix;
use meshgate_harness::report::Report;
use meshgate_harness::report::gate::Comparison;

use crate::{fail, output, run};

/// Two versions of a controller, or two reports.
#[derive(clap::Args)]
pub struct Args {
    /// A report to compare with
    #[arg(requires = "candidate", conflicts_with_all = ["controller", "from", "to"])]
    baseline: Option<PathBuf>,
    /// The report that is to pass
    candidate: Option<PathBuf>,
    /// The controller to upgrade
    #[arg(long, requires = "from", requires = "to")]
    controller: Option<String>,
    /// The version in use
    #[arg(long, value_name = "VERSION")]
    from: Option<String>,
    /// The version to move to
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
    #[command(flatten)]
    run: run::Args,
}

/// 0 no regression, 1 regression, 2 could not run.
pub fn main(args: Args) -> ExitCode {
    match execute(args) {
        Ok((title, comparison)) => match output::print(&(title + &comparison.render())) {
            Ok(()) => ExitCode::from(u8::from(comparison.regressed())),
            Err(error) => fail(2, &error),
        },
        Err(error) => fail(2, &error),
    }
}

/// What is compared, as a line, and what came of it.
fn execute(args: Args) -> anyhow::Result<(String, Comparison)> {
    if let (Some(baseline), Some(candidate)) = (&args.baseline, &args.candidate) {
        let title = format!("{} -> {}\n", baseline.display(), candidate.display());
        return Ok((title, Comparison::of(&Report::read(baseline)?, &Report::read(candidate)?)));
    }
    let (Some(controller), Some(from), Some(to)) = (args.controller, args.from, args.to) else {
        bail!("expected BASELINE.json CANDIDATE.json, or --controller NAME --from VERSION --to VERSION");
    };
    let fixtures = run::fixtures(args.run.fixtures.as_deref())?;
    // Both names are checked before the first of two runs begins.
    for version in [&from, &to] {
        matrix::known_version(fixtures.controller(&controller)?, version)?;
    }
    let side = |version: &str| {
        let mut run = args.run.clone();
        run.controllers = vec![format!("{controller}@{version}")];
        run.report_dir = args.run.report_dir.join(version);
        output::tell(&format!("{controller} {version}:\n"));
        let report = run::execute(&run)?;
        if run::nothing_ran(&report) {
            bail!(
                "no cell of {controller} {version} could be set up; see {}",
                run.report_dir.join("report.md").display()
            );
        }
        Ok(report)
    };
    let (baseline, candidate) = (side(&from)?, side(&to)?);
    Ok((format!("{controller} {from} -> {to}\n"), Comparison::of(&baseline, &candidate)))
}
