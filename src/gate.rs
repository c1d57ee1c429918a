//! `meshgate gate`: may this upgrade go ahead?

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::Arg;
use meshgate_clusters::{Kind, told};
use meshgate_harness::matrix;
use meshgate_harness::report::expected::{Verdicts, is_expected};
use meshgate_harness::report::gate::Comparison;

use crate::run::Ran;
use crate::target::{Install, Target};
use crate::{fail, output, run};

/// Two versions of a controller, or two reports.
#[derive(clap::Args)]
// Said again, for the arguments of `run` bring that of theirs along.
#[command(after_help = EXIT_STATUS, mut_args(meaningless_beside_reports))]
pub struct Args {
    /// A report to compare with: a `report.json`, or an expected report (YAML), from which every difference counts
    #[arg(requires = "candidate")]
    baseline: Option<PathBuf>,
    /// The report that is to pass
    candidate: Option<PathBuf>,
    /// The controller to upgrade
    #[arg(long, requires = "from", requires = "to", conflicts_with = "controllers")]
    controller: Option<String>,
    /// The version in use
    #[arg(long, value_name = "VERSION")]
    from: Option<String>,
    /// The version to move to
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
    /// The version of the chart in use, with `--install helm`; the one that is known to install the controller's version when left out
    #[arg(long, value_name = "VERSION", requires = "controller", conflicts_with = "chart_version")]
    from_chart: Option<String>,
    /// The version of the chart to move to
    #[arg(long, value_name = "VERSION", requires = "controller", conflicts_with = "chart_version")]
    to_chart: Option<String>,
    #[command(flatten)]
    run: run::Args,
}

/// Of two reports nothing is run, so whatever says what to run, and how, would mean nothing.
fn meaningless_beside_reports(argument: Arg) -> Arg {
    match argument.get_id().as_str() {
        "baseline" | "candidate" => argument,
        _ => argument.conflicts_with("baseline"),
    }
}

const EXIT_STATUS: &str = "\
Exit status:
  0  no regression; compared with an expected report: no difference
  1  a regression, or something that ran before is gone; compared with an expected report: any difference
  2  nothing could be compared: bad arguments, a file that is no report, something missing on this machine, a version of which no cell \
came up or to which no case applies, or an interruption";

/// Compares and ends with the status that [`EXIT_STATUS`] explains.
pub fn main(args: Args) -> ExitCode {
    match execute(args) {
        Ok(Gated { text, status }) => match output::print(&text) {
            Ok(()) => ExitCode::from(status),
            Err(error) => fail(2, &error),
        },
        Err(error) => fail(2, &error),
    }
}

/// What came of a comparison.
struct Gated {
    /// For a person.
    text: String,
    /// The exit status.
    status: u8,
}

impl Gated {
    fn of(text: String, open: bool) -> Self {
        Self { text, status: u8::from(!open) }
    }

    /// Of two runs. What there is to compare is told even where it decides nothing.
    fn of_runs(text: String, comparison: &Comparison, undecided: &str) -> Self {
        match (undecided, comparison.judged) {
            ("", true) => Self::of(text, !comparison.regressed()),
            ("", false) => Self { text: text + "undecided   no case was judged on either side\n", status: 2 },
            _ => Self { text: text + undecided, status: 2 },
        }
    }
}

fn execute(args: Args) -> anyhow::Result<Gated> {
    if let (Some(baseline), Some(candidate)) = (&args.baseline, &args.candidate) {
        let comparison = Comparison::of(&Verdicts::read(baseline)?, &Verdicts::read(candidate)?);
        if !comparison.judged {
            bail!(
                "expected the verdict on a case that ran, in {} or in {}; found none, so there is nothing to compare",
                baseline.display(),
                candidate.display()
            );
        }
        let mut text = format!("{} -> {}\n{}", baseline.display(), candidate.display(), comparison.render());
        if !is_expected(baseline) {
            return Ok(Gated::of(text, !comparison.regressed()));
        }
        if !comparison.is_same() {
            let dir = folder(candidate);
            text += &format!(
                "to expect this from now on: meshgate report --report-dir {} --format expected > {}\n",
                dir.display(),
                baseline.display()
            );
        }
        return Ok(Gated::of(text, comparison.is_same()));
    }
    let (Some(controller), Some(from), Some(to)) = (args.controller, args.from, args.to) else {
        bail!("expected BASELINE CANDIDATE.json, or --controller NAME --from VERSION --to VERSION");
    };
    if args.run.target.install != Install::Helm && (args.from_chart.is_some() || args.to_chart.is_some()) {
        bail!("--from-chart and --to-chart say which chart installs each side: add --install helm");
    }
    if let Target { cluster: made @ (Kind::Kind | Kind::K3s), keep: true, reuse: false, .. } = args.run.target {
        bail!(
            "--keep: expected a gate without it: each side makes a {made} cluster of its own, and the second could not be kept under the name of \
             the first; keep one side's with `meshgate run --keep`"
        );
    }
    let [from, to] = [(from, args.from_chart), (to, args.to_chart)]
        .map(|(version, chart)| Side::of(&args.run, &controller, version, chart));
    // Both are checked before the first of two runs begins.
    for side in [&from, &to] {
        matrix::known_version(run::fixtures_of(&side.run, &|_| {})?.controller(&controller)?, &side.version)?;
    }
    if args.run.target.dry_run {
        return outlook(&controller, [&from, &to]);
    }
    let (before, after) = (from.judged(&controller)?, to.judged(&controller)?);
    let comparison = Comparison::of(&before.verdicts, &after.verdicts);
    let text = format!("{controller} {} -> {}\n{}", from.name, to.name, comparison.render());
    let undecided: String = [before.undecided, after.undecided].into_iter().flatten().collect();
    let mut gated = Gated::of_runs(text, &comparison, &undecided);
    for error in [before.ended, after.ended].into_iter().filter_map(Result::err) {
        output::tell(&format!("meshgate: {}\n", told(error.as_ref())));
        gated.status = 2;
    }
    Ok(gated)
}

/// What the runs of both sides would make, in place of a comparison.
fn outlook(controller: &str, sides: [&Side; 2]) -> anyhow::Result<Gated> {
    let mut gated = Gated { text: String::new(), status: 0 };
    for side in sides {
        let run::Outlook { text, blocked } = run::outlook(&side.run)?;
        gated.text += &format!("{controller} {}:\n{text}", side.name);
        if blocked {
            gated.status = 2;
        }
    }
    Ok(gated)
}

/// One of the two that are compared.
struct Side {
    /// The controller's version.
    version: String,
    /// The version, and the chart where one was named.
    name: String,
    /// What is run of it.
    run: run::Args,
}

impl Side {
    fn of(run: &run::Args, controller: &str, version: String, chart: Option<String>) -> Self {
        let mut run = run.clone();
        run.controllers = vec![format!("{controller}@{version}")];
        let (name, folder) = match &chart {
            Some(chart) => (format!("{version} (chart {chart})"), format!("{version}-chart-{chart}")),
            None => (version.clone(), version.clone()),
        };
        run.report_dir = run.report_dir.join(folder);
        run.target.chart_version = chart.or(run.target.chart_version);
        Self { version, name, run }
    }

    fn judged(&self, controller: &str) -> anyhow::Result<Judged> {
        output::tell(&format!("{controller} {}:\n", self.name));
        let Ran { report, ended } = run::execute(&self.run)?;
        let undecided = run::nothing_judged(&report).map(|why| {
            let path = self.run.report_dir.join("report.md");
            format!("undecided   {controller} {}: {why}; see {}\n", self.name, path.display())
        });
        Ok(Judged { verdicts: Verdicts::of(&report), undecided, ended })
    }
}

/// What came of a side's run.
struct Judged {
    verdicts: Verdicts,
    /// Why nothing can be said of it, where nothing was judged.
    undecided: Option<String>,
    /// Whether its run ended as it should.
    ended: anyhow::Result<()>,
}

/// The folder of a report that is named by it or by its file.
fn folder(report: &Path) -> &Path {
    if report.is_dir() {
        return report;
    }
    report.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_named_by_its_folder_or_its_file() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!([folder(dir.path()), folder(&dir.path().join("report.json"))], [dir.path(); 2]);
        assert_eq!(folder(Path::new("report.json")), Path::new("."));
    }

    #[test]
    fn two_runs_in_which_nothing_was_judged_decide_nothing() {
        let nothing = Verdicts::default();
        let gated = Gated::of_runs(String::new(), &Comparison::of(&nothing, &nothing), "");
        assert_eq!((gated.text.as_str(), gated.status), ("undecided   no case was judged on either side\n", 2));
        let mut comparison = Comparison::of(&nothing, &nothing);
        comparison.judged = true;
        let of = |undecided: &str| Gated::of_runs("same\n".to_owned(), &comparison, undecided);
        assert_eq!((of("").text.as_str(), of("").status), ("same\n", 0));
        assert_eq!((of("why\n").text.as_str(), of("why\n").status), ("same\nwhy\n", 2));
    }
}
