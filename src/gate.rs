//! `meshgate gate`: may this upgrade go ahead?

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use meshgate_harness::matrix;
use meshgate_harness::report::expected::{Verdicts, is_expected};
use meshgate_harness::report::gate::Comparison;

use crate::{fail, output, run};

/// Two versions of a controller, or two reports.
#[derive(clap::Args)]
pub struct Args {
    /// A report to compare with: a `report.json`, or an expected report (YAML), from which every difference counts
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
        Ok(Gated { text, open }) => match output::print(&text) {
            Ok(()) => ExitCode::from(u8::from(!open)),
            Err(error) => fail(2, &error),
        },
        Err(error) => fail(2, &error),
    }
}

/// What came of a comparison.
struct Gated {
    /// For a person.
    text: String,
    /// Whether the candidate may pass.
    open: bool,
}

fn execute(args: Args) -> anyhow::Result<Gated> {
    if let (Some(baseline), Some(candidate)) = (&args.baseline, &args.candidate) {
        let comparison = Comparison::of(&Verdicts::read(baseline)?, &Verdicts::read(candidate)?);
        let mut text = format!("{} -> {}\n{}", baseline.display(), candidate.display(), comparison.render());
        if !is_expected(baseline) {
            return Ok(Gated { text, open: !comparison.regressed() });
        }
        if !comparison.is_same() {
            let dir = candidate.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            text += &format!(
                "to expect this from now on: meshgate report --report-dir {} --format expected > {}\n",
                dir.display(),
                baseline.display()
            );
        }
        return Ok(Gated { text, open: comparison.is_same() });
    }
    let (Some(controller), Some(from), Some(to)) = (args.controller, args.from, args.to) else {
        bail!("expected BASELINE CANDIDATE.json, or --controller NAME --from VERSION --to VERSION");
    };
    let mut run = args.run.clone();
    run.controllers = [&from, &to].map(|version| format!("{controller}@{version}")).into();
    let fixtures = run::fixtures_of(&run)?;
    // Both names are checked before the first of two runs begins.
    for version in [&from, &to] {
        matrix::known_version(fixtures.controller(&controller)?, version)?;
    }
    let side = |version: &str| {
        let mut run = run.clone();
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
    let comparison = Comparison::of(&Verdicts::of(&side(&from)?), &Verdicts::of(&side(&to)?));
    let text = format!("{controller} {from} -> {to}\n{}", comparison.render());
    Ok(Gated { text, open: !comparison.regressed() })
}
