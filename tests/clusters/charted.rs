//! `meshgate run --install helm`.

use std::process::{Command, Output};

use serde_json::Value;

use crate::bench::{Bench, holds, read_json};
use crate::charts::Repository;

const MESHGATE: &str = env!("CARGO_BIN_EXE_meshgate");

/// `meshgate run` with the controller from a chart, on the stand-in for kind.
fn run(bench: &Bench, repository: &Repository, further: &[&str]) -> Output {
    let mut command = Command::new(MESHGATE);
    command.args(["run", "--cluster", "kind", "--native-images", "--dialect", "modern"]);
    command.args(["--recipe", "ingress-middleware", "--install", "helm", "--chart-repository", &repository.url]);
    command.arg("--report-dir").arg(bench.join("report")).args(further);
    command.envs(repository.environment()).env("XDG_STATE_HOME", bench.join("home"));
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_run_with_the_vendors_chart_judges_what_the_chart_installs() {
    let bench = Bench::new();
    let repository = Repository::serve(&bench);
    // The last of these has further instances of the controller.
    let cases = ["--controllers", "traefik", "--case", "routing/host,tls/terminated,loops/override-names-ingress"];
    // The newest version, whose program other tests have already.
    let output = run(&bench, &repository, &[&cases[..], &["--chart-version", "41.1.0"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    holds(&text(&output), &[&format!("rendering the chart traefik 41.1.0 of {}", repository.url)]);
    let report = read_json(&bench.join("report/report.json"));
    let cell = &report["cells"][0];
    assert_eq!(cell["implementation"]["control_plane"], "real (chart 41.1.0)");
    let repeat = format!("--native-images --install helm --chart-version 41.1.0 --chart-repository {}", repository.url);
    holds(cell["repeat"].as_str().unwrap(), &[&repeat]);
    let verdicts = cell["cases"].as_array().unwrap().iter().map(|case| (case["id"].as_str(), case["verdict"].as_str()));
    let mut passed: Vec<_> =
        verdicts.filter(|(_, verdict)| *verdict == Some("pass")).filter_map(|(id, _)| id).collect();
    passed.sort_unstable();
    assert_eq!(passed, ["loops/override-names-ingress", "routing/host", "tls/terminated"], "{:#}", cell["cases"]);
    assert!(bench.clusters().is_empty(), "{:?}", bench.clusters());
}

#[test]
fn a_chart_that_cannot_be_had_is_told_before_a_cluster_is_made() {
    let bench = Bench::new();
    let repository = Repository::serve(&bench);
    let fails = |further: &[&str], parts: &[&str]| {
        let output = run(&bench, &repository, further);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        holds(&text(&output), parts);
        assert_eq!(bench.calls("kind"), Vec::<Value>::new());
    };
    fails(
        &["--controllers", "traefik", "--chart-version", "99.0.0"],
        &["no chart \"traefik\" at version 99.0.0", "helm search repo"],
    );
}

#[test]
fn a_dry_run_tells_of_the_charts_objects() {
    let bench = Bench::new();
    let repository = Repository::serve(&bench);
    let state = bench.state().join("state");
    let meshgate = |arguments: &[&str]| {
        let mut command = Command::new(MESHGATE);
        command.args(arguments).envs(repository.environment()).env("XDG_STATE_HOME", &state).output().unwrap()
    };
    let up = meshgate(&["cluster", "up", "--name", "theirs"]);
    assert!(up.status.success(), "{}", text(&up));
    let kubeconfig = state.join("meshgate/theirs/kubeconfig");
    let line =
        ["run", "--cluster", "existing", "--kubeconfig", kubeconfig.to_str().unwrap(), "--controllers", "traefik"];
    let line = [&line[..], &["--recipe", "ingress-middleware", "--case", "routing/host", "--dry-run"]].concat();
    let by = |install: &[&str]| {
        let outlook = meshgate(&[&line[..], install].concat());
        assert_eq!(outlook.status.code(), Some(0), "{}", text(&outlook));
        text(&outlook)
    };
    let of_chart = ["ClusterRole traefik-traefik", "2 ConfigMap: ", "1 TLSStore: default"];
    holds(&by(&["--install", "helm", "--chart-repository", &repository.url]), &of_chart);
    let own = by(&[]);
    assert!(!own.contains(of_chart[0]) && own.contains("ClusterRole traefik\n"), "the control: {own}");
}

#[test]
fn two_versions_of_a_chart_are_gated_at_the_same_version_of_the_controller() {
    let bench = Bench::new();
    let repository = Repository::serve(&bench);
    let gate = |further: &[&str]| {
        let mut command = Command::new(MESHGATE);
        command.args(["gate", "--controller", "traefik", "--from", "3.7.15", "--to", "3.7.15"]);
        command.args(["--recipe", "ingress-middleware", "--dialect", "modern", "--case", "routing/host"]);
        command.arg("--report-dir").arg(bench.join("report")).args(further);
        command.envs(repository.environment()).env("XDG_STATE_HOME", bench.join("home")).output().unwrap()
    };
    let helm = ["--install", "helm", "--chart-repository", &repository.url];
    // By the script of CI, whose summary has the report of the side that the controller is to move to.
    let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/ci/gate"));
    script.args(["traefik", "3.7.15", "3.7.15", "--from-chart", "40.1.0", "--to-chart", "41.1.0"]).args(helm);
    script.args(["--recipe", "ingress-middleware", "--dialect", "modern", "--case", "routing/host"]);
    script.current_dir(bench.join("")).envs(repository.environment()).env("XDG_STATE_HOME", bench.join("home"));
    script.env("MESHGATE", MESHGATE).env("GITHUB_STEP_SUMMARY", bench.join("summary.md"));
    let output = script.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    holds(&text(&output), &["traefik 3.7.15 (chart 40.1.0) -> 3.7.15 (chart 41.1.0)"]);
    let summary = std::fs::read_to_string(bench.join("summary.md")).unwrap();
    holds(&summary, &["<summary>The report of 3.7.15</summary>", "(chart 41.1.0)", "<summary>JUnit</summary>"]);
    for chart in ["40.1.0", "41.1.0"] {
        let report = read_json(&bench.join(&format!("report/3.7.15-chart-{chart}/report.json")));
        assert_eq!(report["cells"][0]["implementation"]["control_plane"], format!("real (chart {chart})"));
    }

    let refused = |further: &[&str], part: &str| {
        let output = gate(further);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        holds(&text(&output), &[part]);
    };
    refused(&["--to-chart", "41.1.0"], "which chart installs each side: add --install helm");
    refused(&[&helm[..], &["--to-chart", "41.1.0", "--chart-version", "41.1.0"]].concat(), "cannot be used with");
    refused(
        &[&helm[..], &["--from-chart", "41.1.0"]].concat(),
        "for each side of a gate with --from-chart and --to-chart",
    );
    let absent = ["--from-chart", "99.0.0", "--to-chart", "41.1.0"];
    refused(&[&helm[..], &absent].concat(), "no chart \"traefik\" at version 99.0.0");
}
