//! `meshgate run` on a cluster that is made for it.

use std::process::{Command, Output};

use crate::bench::{Bench, holds};

const MESHGATE: &str = env!("CARGO_BIN_EXE_meshgate");

fn run(bench: &Bench, faults: &str, further: &[&str]) -> Output {
    let mut command = Command::new(MESHGATE);
    command.args(["run", "--cluster", "kind", "--controllers", "traefik", "--recipe", "ingress-nativelb"]);
    command.args(["--case", "routing/host,routing/path,headers/outbound-port-closed"]);
    command.arg("--report-dir").arg(bench.join("report")).args(further);
    command.envs(bench.environment(faults)).env("XDG_STATE_HOME", bench.join("home"));
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_run_makes_its_cluster_gives_it_the_images_judges_and_leaves_nothing() {
    let bench = Bench::new();
    let output = run(&bench, "kind-load:fails-twice", &["--native-images"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    holds(
        &text(&output),
        &["kind creates the cluster meshgate-", "packing docker.io/library/traefik:v", "try 2 of 3", " passed"],
    );
    assert!(bench.clusters().is_empty(), "{:?}", bench.clusters());
    // The archives that it was given hold both images.
    let loads = bench.calls("kind").into_iter().filter(|call| call["arguments"][0] == "load").count();
    assert_eq!(loads, 3);
    let report = std::fs::read_to_string(bench.join("report/report.json")).unwrap();
    holds(&report, &["\"cluster\": \"kind\"", "\"mesh\": \"bundled\"", "\"control_plane\": \"real\""]);
}

#[test]
fn a_run_whose_cluster_does_not_come_up_says_why_and_leaves_nothing() {
    let bench = Bench::new();
    let output = run(&bench, "kind-load:fails", &[]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    holds(&text(&output), &["kind did not load", "3 times"]);
    assert!(bench.clusters().is_empty(), "{:?}", bench.clusters());
}
