//! The report of a real run, and the gate between two.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use meshgate_harness::report::{JSON_SCHEMA, Report, Totals};
use meshgate_harness::verdict::Verdict;
use serde_json::Value;

use crate::bench::{Bench, Done, SMALL};

/// Two runs of the same, once for all tests: the folder, and what each run printed.
fn two_runs() -> &'static (Bench, [Done; 2]) {
    static RUNS: OnceLock<(Bench, [Done; 2])> = OnceLock::new();
    RUNS.get_or_init(|| {
        let bench = Bench::new();
        let runs = ["a", "b"].map(|dir| bench.run(&format!("run {SMALL} --report-dir {dir}")));
        runs.iter().for_each(|done| {
            done.expect(0, &[]);
        });
        (bench, runs)
    })
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Leaves out what may differ between two runs of the same.
fn without_times(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for key in ["environment", "seconds", "setup_seconds", "observations"] {
                fields.remove(key);
            }
            fields.values_mut().for_each(without_times);
        }
        Value::Array(items) => items.iter_mut().for_each(without_times),
        _ => {}
    }
}

#[test]
fn the_report_follows_its_schema_and_two_runs_agree() {
    let (bench, _) = two_runs();
    let schema: Value = serde_json::from_str(JSON_SCHEMA).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let [mut first, mut second] = ["a", "b"].map(|dir| json(&bench.join(dir).join("report.json")));
    let errors: Vec<String> = validator.iter_errors(&first).map(|error| error.to_string()).collect();
    assert_eq!(errors, [""; 0]);
    without_times(&mut first);
    without_times(&mut second);
    assert_eq!(first.to_string(), second.to_string());
    assert!(!validator.is_valid(&first), "the control: a report without its environment is none");
    for file in ["report.md", "report.html", "junit.xml"] {
        assert!(bench.join("a").join(file).exists(), "{file}");
    }
}

#[test]
fn a_log_is_told_what_is_worth_a_line() {
    let (_, [done, _]) = two_runs();
    assert!(!done.stderr.contains('\x1b') && !done.stderr.contains('\r'), "{}", done.stderr);
    let lines: Vec<&str> = done.stderr.lines().filter(|line| !line.contains("fetching")).collect();
    let [start, ready, end] = lines[..] else { panic!("{lines:#?}") };
    assert!(start.ends_with("1 cell, 1 case"), "{start}");
    assert!(ready.contains("/ingress-middleware/modern: ready after "), "{ready}");
    assert!(end.contains("/ingress-middleware/modern: done, 1 passed, 0 findings, 0 not as promised, in "), "{end}");
    assert!(done.stdout.contains("1 passed") && done.stdout.contains("report: a/report.html"), "{}", done.stdout);
}

#[test]
fn a_report_is_printed_in_every_format() {
    let (bench, _) = two_runs();
    for (format, shown) in [
        ("matrix", "  ingress-middleware/modern  1\n"),
        ("markdown", "# "),
        ("html", "<!DOCTYPE html>"),
        ("recipes", "#### traefik/ingress-middleware"),
        ("badge", "\"schemaVersion\":1"),
    ] {
        let done = bench.run(&format!("report --report-dir a --format {format}"));
        done.expect(0, &[]);
        assert!(done.stdout.contains(shown), "{format}: {}", done.stdout);
    }
}

#[test]
fn claims_come_with_their_verdicts_and_what_to_do_instead() {
    let (bench, _) = two_runs();
    let done = bench.run("claims --report-dir a");
    done.expect(0, &[]);
    for part in
        ["untested             modes.two-ways", " claims: ", "untestable           gce.certificate-time", "why: "]
    {
        assert!(done.stdout.contains(part), "{part}: {}", done.stdout);
    }
    assert!(!done.stdout.contains("instead:"), "nothing is refuted by one case: {}", done.stdout);
    let missing = bench.run("claims --report-dir nowhere");
    missing.expect(2, &["nowhere/report.json"]);
}

/// A copy of the report in which the case has another verdict.
fn with_verdict(verdict: Verdict) -> (tempfile::TempDir, PathBuf) {
    let (bench, _) = two_runs();
    let mut report = Report::read(&bench.join("a/report.json")).unwrap();
    let case = &mut report.cells[0].cases[0];
    case.verdict = verdict;
    case.reason = Some("as the test wants it".into());
    report.totals = Totals::of(&report.cells);
    let dir = tempfile::tempdir().unwrap();
    report.write(dir.path()).unwrap();
    let path = dir.path().join("report.json");
    (dir, path)
}

#[test]
fn the_gate_ends_with_what_it_found() {
    let (bench, _) = two_runs();
    let gate = |before: &Path, after: &Path| bench.run(&format!("gate {} {}", before.display(), after.display()));
    let good = bench.join("a/report.json");
    let (_keep, bad) = with_verdict(Verdict::Fail);
    let same = gate(&good, &bench.join("b/report.json"));
    same.expect(0, &[]);
    assert!(same.stdout.contains("0 regressions") && same.stdout.contains("1 unchanged"), "{}", same.stdout);
    let worse = gate(&good, &bad);
    worse.expect(1, &[]);
    assert!(worse.stdout.contains("regression  traefik/ingress-middleware/modern routing/host: pass -> fail"));
    assert!(worse.stdout.contains("as the test wants it"), "{}", worse.stdout);
    gate(&bad, &good).expect(0, &[]);
    gate(&bench.join("a"), &bench.join("b")).expect(0, &[]);
    gate(&good, &bench.join("none.json")).expect(2, &["none.json: No such file"]);
    let other = bench.join("other.json");
    std::fs::write(&other, "{\"schema\": \"something/v2\"}").unwrap();
    gate(&good, &other).expect(2, &["other.json is not a meshgate.report/v1 report", "something/v2"]);
    std::fs::write(&other, "{").unwrap();
    gate(&other, &good).expect(2, &["other.json is not a meshgate.report/v1 report"]);
}

#[test]
fn a_stand_in_is_named_in_every_row() {
    let (bench, _) = two_runs();
    // Two cells, so that what is said once for all rows does not do; of the longest names, so that the words have to fit.
    let folder = |control_plane: &str| {
        let mut report = Report::read(&bench.join("a/report.json")).unwrap();
        let cell = &mut report.cells[0];
        cell.implementation.control_plane = control_plane.into();
        (cell.controller, cell.recipe) = ("ingress-nginx".into(), "custom-headers-as-printed".into());
        report.cells.push(report.cells[0].clone());
        let dir = tempfile::tempdir().unwrap();
        report.write(dir.path()).unwrap();
        dir
    };
    let played = folder("stand-in");
    let itself = folder("real");
    let printed = |dir: &tempfile::TempDir, format: &str| {
        bench.run(&format!("report --report-dir {} --format {format}", dir.path().display())).stdout
    };
    let file = |dir: &tempfile::TempDir, name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    // For each format its rows, by what each begins with, and how many there are; the matrix and the badge have one for both.
    type Rows<'a> = (&'a str, String, String, &'a str, usize);
    let rows: [Rows<'_>; 6] = [
        ("matrix", printed(&played, "matrix"), printed(&itself, "matrix"), "ingress-nginx@", 1),
        ("badge", printed(&played, "badge"), printed(&itself, "badge"), "\"label\"", 1),
        ("report.md", file(&played, "report.md"), file(&itself, "report.md"), "| ingress-nginx@", 2),
        ("report.json", file(&played, "report.json"), file(&itself, "report.json"), "\"implementation\"", 2),
        ("report.html", file(&played, "report.html"), file(&itself, "report.html"), "<tr data-cell", 2),
        ("junit.xml", file(&played, "junit.xml"), file(&itself, "junit.xml"), "<testsuite ", 2),
    ];
    for (format, of_stand_in, of_itself, begin, count) in &rows {
        let each: Vec<&str> = of_stand_in.split(begin).skip(1).collect();
        assert_eq!(each.len(), *count, "{format}: {of_stand_in}");
        for row in each {
            // The page has its data behind its table.
            let row = row.split("<script").next().unwrap();
            assert!(row.contains("stand-in"), "{format}: {row}");
        }
        let table = of_itself.split("<script").next().unwrap();
        assert!(!table.contains("stand-in"), "the control, {format}: {table}");
    }
    let wide = rows[0].1.lines().filter(|line| line.len() > 80).count();
    assert_eq!(wide, 0, "{}", rows[0].1);
    for list in ["controllers", "recipes", "cells"] {
        let done = bench.run(&format!("list {list}"));
        let named = |line: &&str| line.contains("(stand-in, ");
        let of = |name: &str| -> Vec<String> {
            // What is said further of one is indented, and so begins with nothing.
            let begins = |line: &&str| line.split([' ', '/', '@']).next() == Some(name);
            done.stdout.lines().filter(begins).map(str::to_owned).collect()
        };
        let (played, itself) = (of("contour"), of("traefik"));
        assert!(!played.is_empty() && played.iter().all(|line| named(&line.as_str())), "{list}: {played:#?}");
        assert!(!itself.is_empty() && !itself.iter().any(|line| named(&line.as_str())), "{list}: {itself:#?}");
    }
}

#[test]
fn the_status_of_a_report_is_that_of_its_run() {
    let status = |verdict| {
        let (dir, _) = with_verdict(verdict);
        two_runs().0.run(&format!("report --report-dir {}", dir.path().display())).code
    };
    assert_eq!([Verdict::Pass, Verdict::Finding, Verdict::Fail, Verdict::NotRun].map(status), [0, 0, 1, 1].map(Some));
}

#[test]
fn a_folder_that_takes_no_report_is_told_before_the_run() {
    let bench = Bench::new();
    // There nobody makes a file, whatever their rights.
    let done = bench.run(&format!("run {SMALL} --report-dir /proc/self"));
    done.expect(2, &["cannot write to the report folder /proc/self; ", "--report-dir: "]);
    assert_eq!((done.stderr.lines().count(), done.stdout.as_str()), (1, ""), "{done:#?}");
    std::fs::write(bench.join("file"), "").unwrap();
    bench.run(&format!("run {SMALL} --report-dir file")).expect(2, &["cannot make the report folder file: "]);
}

#[test]
fn what_was_judged_is_told_even_when_the_report_cannot_be_written() {
    let bench = Bench::new();
    std::fs::create_dir_all(bench.join("report/.report.json.new")).unwrap();
    let run = bench.run(&format!("run {SMALL}"));
    run.expect(2, &["cannot write the report: report/.report.json.new: Is a directory"]);
    assert!(run.stdout.contains("1 passed") && !run.stdout.contains("report: "), "{run:#?}");
    assert_eq!(run.stderr.matches("Is a directory").count(), 1, "{run:#?}");
}

#[test]
fn a_report_folder_is_one_runs_and_holds_what_that_run_left() {
    let bench = Bench::new();
    // No cell has to come up for it.
    let run = || bench.run("run --controllers traefik --recipe ingress-pod-ip --case tls/passthrough");
    let stale = bench.join("report/artefacts/traefik_3.0.4_ingress-pod-ip_default/setup");
    std::fs::create_dir_all(&stale).unwrap();
    run().expect(2, &["no chosen case applies"]);
    assert!(stale.exists(), "no run was there before, so it is somebody else's");
    run().expect(2, &["no chosen case applies"]);
    assert!(!stale.exists() && bench.join("report/report.json").exists());

    std::fs::remove_file(bench.join("report/report.json")).unwrap();
    let another = std::fs::File::open(bench.join("report/.meshgate.lock")).unwrap();
    another.lock().unwrap();
    run().expect(2, &["the report folder report is in use by another run (process ", "--report-dir"]);
    assert!(!bench.join("report/report.json").exists());
    drop(another);
    run().expect(2, &["no chosen case applies"]);
}

#[test]
fn a_cell_in_which_no_case_applies_is_not_set_up() {
    let bench = Bench::new();
    let report = bench.join("report");
    // Pod addresses are followed by no split; the other recipe is the control.
    let run = bench.run(&format!(
        "run --controllers traefik --recipe ingress-pod-ip,ingress-nativelb --case traffic_split/zero-hundred --report-dir {}",
        report.display()
    ));
    run.expect(0, &[]);
    let report = json(&report.join("report.json"));
    let setup = |recipe: &str| {
        let cells = report["cells"].as_array().unwrap();
        cells.iter().find(|cell| cell["recipe"] == recipe).unwrap()["setup_seconds"].clone()
    };
    assert!(setup("ingress-pod-ip").is_null() && setup("ingress-nativelb").is_number(), "{report:#}");
}

#[test]
fn the_gate_runs_both_versions_into_the_report_folder() {
    let bench = Bench::new();
    let done = bench.run(
        "gate --controller traefik --from 3.7.15 --to 3.7.15 --recipe ingress-pod-ip --case routing/host --report-dir out",
    );
    done.expect(0, &[]);
    assert!(done.stdout.starts_with("traefik 3.7.15 -> 3.7.15\n"), "{}", done.stdout);
    assert!(bench.join("out/3.7.15/report.json").exists());
}
