//! The script that a job of CI runs, the reports it expects, and the list of jobs.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::bench::{Bench, Done, MESHGATE, SMALL, edit};

const CI: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/ci");

/// `ci/conformance` as a job on GitHub has it: the binary and the file of the summary come by the environment.
fn conformance(bench: &Bench, arguments: &str) -> Done {
    let mut command = Command::new(Path::new(CI).join("conformance"));
    command.args(arguments.split_whitespace()).current_dir(bench.path()).stdin(Stdio::null());
    command
        .env("MESHGATE", MESHGATE)
        .env("GITHUB_STEP_SUMMARY", bench.join("summary.md"))
        .env("GITHUB_ACTIONS", "true");
    command.output().unwrap().into()
}

/// `ci/gate` as a step of a job on GitHub has it.
fn gate(bench: &Bench, arguments: &str) -> Done {
    let mut command = Command::new(Path::new(CI).join("gate"));
    command.args(arguments.split_whitespace()).current_dir(bench.path()).stdin(Stdio::null());
    command.env("MESHGATE", MESHGATE).env("GITHUB_STEP_SUMMARY", bench.join("summary.md"));
    command.output().unwrap().into()
}

fn jobs(arguments: &str) -> Vec<Value> {
    let done = Bench::new().run(&format!("list jobs {arguments}"));
    done.expect(0, &[]);
    serde_json::from_str(&done.stdout).unwrap()
}

fn slugs(arguments: &str) -> BTreeSet<String> {
    jobs(arguments).iter().map(|job| job["slug"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_job_passes_as_expected_and_fails_with_the_line_that_differs() {
    let bench = Bench::new();
    let job = format!("--expected expected --mode ingress {SMALL}");
    let file = bench.join("expected/traefik-ingress.yaml");
    let summary = || std::fs::read_to_string(bench.join("summary.md")).unwrap();

    conformance(&bench, &format!("--update {job}")).expect(0, &[]);
    let expected = std::fs::read_to_string(&file).unwrap();
    assert!(expected.contains("  pass:\n  - routing/host\n"), "{expected}");

    let same = conformance(&bench, &job);
    same.expect(0, &[]);
    assert!(same.stdout.contains("1 unchanged") && !same.stdout.contains("::error"), "{}", same.stdout);
    assert!(summary().contains("# Meshgate report") && summary().contains("As expected/traefik-ingress.yaml expects."));
    assert!(summary().contains("<details><summary>JUnit</summary>\n\n~~~xml\n<?xml "), "{}", summary());
    let badge: Value =
        serde_json::from_str(&std::fs::read_to_string(bench.join("report/badge.json")).unwrap()).unwrap();
    assert_eq!(badge["message"], "1 as promised");
    assert!(bench.join("report/junit.xml").exists());

    edit(&file, "pass:", "fail:");
    let other = conformance(&bench, &job);
    other.expect(1, &[]);
    let line = "improvement traefik/ingress-middleware/modern routing/host: fail -> pass";
    let hint = "to accept the difference: ci/conformance --update ";
    for text in [&other.stdout, &summary()] {
        assert!(text.contains(line) && text.contains(hint), "{text}");
    }
    assert!(other.stdout.contains("::error title=traefik-ingress is not as expected::"), "{}", other.stdout);
}

#[test]
fn a_job_that_could_not_run_leaves_nothing_of_the_last_one() {
    let bench = Bench::new();
    let report = bench.join("report");
    std::fs::create_dir_all(&report).unwrap();
    let of_a_run = ["report.json", "report.md", "report.html", "junit.xml", "badge.json"];
    for name in of_a_run.into_iter().chain(["notes.txt"]) {
        std::fs::write(report.join(name), "of the last night").unwrap();
    }
    conformance(&bench, "--controllers traefik --mode ingress --fixtures nowhere")
        .expect(2, &["the fixtures in nowhere"]);
    let left: Vec<&str> = of_a_run.into_iter().filter(|name| report.join(name).exists()).collect();
    assert_eq!(left, ["badge.json"]);
    let badge: Value = serde_json::from_str(&std::fs::read_to_string(report.join("badge.json")).unwrap()).unwrap();
    let shown = ["schemaVersion", "label", "message", "color"].map(|field| badge[field].to_string());
    assert_eq!(shown, ["1", "\"traefik-ingress\"", "\"could not run\"", "\"lightgrey\""]);
    assert!(report.join("notes.txt").exists(), "what is no report's stays");
}

#[test]
fn a_gate_tells_what_an_upgrade_changes_on_the_jobs_page() {
    let bench = Bench::new();
    let summary = || std::fs::read_to_string(bench.join("summary.md")).unwrap();
    let small = "--recipe ingress-middleware --dialect modern --case routing/host";
    gate(&bench, &format!("traefik 3.7.9 3.7.15 {small}")).expect(0, &[]);
    let parts = [
        "## traefik 3.7.9 -> 3.7.15\n\n~~~\ntraefik 3.7.9 -> 3.7.15\n",
        "1 unchanged",
        "<summary>The report of 3.7.15</summary>\n\n# Meshgate report",
        "<summary>JUnit</summary>",
    ];
    for part in parts {
        assert!(summary().contains(part), "{part:?} in {}", summary());
    }
    std::fs::remove_file(bench.join("summary.md")).unwrap();
    gate(&bench, &format!("traefik 3.7.9 9.9.9 {small}")).expect(2, &["9.9.9"]);
    assert!(summary().contains("could not run; the log says why"), "{}", summary());
    gate(&bench, "traefik 3.7.9").expect(2, &["expected CONTROLLER FROM TO"]);
}

#[test]
fn the_branch_of_badges_holds_those_of_the_last_night_and_nothing_else() {
    let bench = Bench::new();
    let git = |folder: &str, arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(bench.join(folder)).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    git("", &["init", "--quiet", "--bare", "origin"]);
    git("", &["clone", "--quiet", "origin", "checkout"]);
    let publish = || -> Done {
        let mut command = Command::new(Path::new(CI).join("badges"));
        command.arg(bench.join("reports")).current_dir(bench.join("checkout")).output().unwrap().into()
    };
    let night = |badges: &[(&str, &str)]| {
        let reports = bench.join("reports");
        let _ = std::fs::remove_dir_all(&reports);
        for (slug, badge) in badges {
            let folder = reports.join(format!("report-{slug}"));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("badge.json"), badge).unwrap();
        }
        publish().expect(0, &[]);
    };
    publish().expect(2, &["expected report-SLUG/badge.json in ", "found none; the branch stays as it is"]);
    night(&[("traefik-ingress", "{\"message\": \"1\"}"), ("gce-outside", "{}")]);
    assert_eq!(git("origin", &["ls-tree", "--name-only", "badges"]), "gce-outside.json\ntraefik-ingress.json\n");
    assert_eq!(git("origin", &["show", "badges:traefik-ingress.json"]), "{\"message\": \"1\"}");
    night(&[("traefik-ingress", "{\"message\": \"2\"}")]);
    assert_eq!(git("origin", &["ls-tree", "--name-only", "badges"]), "traefik-ingress.json\n");
    assert_eq!(git("origin", &["show", "badges:traefik-ingress.json"]), "{\"message\": \"2\"}");
    assert_eq!(git("origin", &["rev-list", "--count", "badges"]), "1\n", "no history to grow");
    assert_eq!(git("checkout", &["status", "--porcelain"]), "", "the checkout is as it was");
}

#[test]
fn a_jobs_help_says_how_it_is_run_and_runs_nothing() {
    let bench = Bench::new();
    for arguments in ["--help", "--controllers traefik -h"] {
        let done = conformance(&bench, arguments);
        done.expect(0, &[]);
        for part in [
            "ci/conformance [--update] [--expected DIR] --controllers NAME[@VERSION] --mode MODE",
            "Exit status: 0 as expected",
        ] {
            assert!(done.stdout.contains(part), "{part} in {}", done.stdout);
        }
    }
    assert_eq!(bench.entries(), [""; 0]);
}

#[test]
fn a_job_that_means_nothing_is_told_so_before_anything_runs() {
    let bench = Bench::new();
    for (arguments, answer) in [
        ("--controllers gce,kong --mode outside,default", "expected the arguments of one job"),
        ("--controllers trafik --mode ingress", "did you mean \"traefik\""),
        ("--controllers gce --mode inside", "(known: default, ingress, outside)"),
        ("--controllers gce --mode ingress", "the selection is empty"),
        ("--controllers gce --mode outside --case routing/host", "--expected DIR"),
    ] {
        conformance(&bench, arguments).expect(2, &[answer]);
    }
    assert_eq!(bench.entries(), [""; 0]);
}

#[test]
fn another_mesh_and_a_chart_have_expected_reports_of_their_own() {
    let bench = Bench::new();
    let summary = || std::fs::read_to_string(bench.join("summary.md")).unwrap();
    for (arguments, slug) in [
        ("--cluster=existing", "traefik-ingress-existing"),
        ("--cluster existing --mesh=linkerd", "traefik-ingress-existing-linkerd"),
        ("--cluster=existing --mesh linkerd --install=helm", "traefik-ingress-existing-linkerd-helm"),
        ("--cluster=existing --mesh=bundled --install manifests", "traefik-ingress-existing"),
    ] {
        let arguments = format!("--controllers=traefik --mode=ingress --kubeconfig=absent {arguments}");
        conformance(&bench, &arguments).expect(2, &[]);
        assert!(summary().ends_with(&format!("**{slug}** could not run; the log says why.\n")), "{}", summary());
    }
}

#[test]
fn every_job_of_a_newest_version_has_an_expected_report_and_no_other_is_left() {
    let entries = std::fs::read_dir(Path::new(CI).join("expected")).unwrap();
    let name = |path: std::path::PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let files: BTreeSet<String> = entries.map(|entry| name(entry.unwrap().path())).collect();
    let needed = slugs("");
    let known = slugs("--versions all --clusters embedded,existing");
    assert_eq!(needed.difference(&files).collect::<Vec<_>>(), [""; 0], "ci/conformance --update writes it");
    assert_eq!(files.difference(&known).collect::<Vec<_>>(), [""; 0], "of no job");
}

#[test]
fn jobs_are_listed_for_a_workflows_matrix() {
    let newest = jobs("--controllers traefik --mode ingress");
    let [job] = newest.as_slice() else { panic!("{newest:#?}") };
    assert_eq!(
        (&job["controller"], &job["mode"], &job["cluster"]),
        (&"traefik".into(), &"ingress".into(), &"embedded".into())
    );
    assert_eq!(job["slug"], "traefik-ingress");
    let all = jobs("--controllers traefik --mode ingress --versions all");
    assert!(all.len() > 1 && all.contains(job), "{all:#?}");
    let bench = Bench::new();
    bench.run("list jobs --clusters kindd").expect(2, &["expected one of embedded"]);
    bench.run("list jobs --controllers gce --mode ingress").expect(2, &["the selection is empty"]);
}
