//! What `gate` says of itself, and what it does not decide.

use crate::bench::{Bench, edit};

/// What stands below this title, until the next one.
fn section<'a>(text: &'a str, title: &str) -> &'a str {
    text.split(title).nth(1).unwrap_or_else(|| panic!("{title:?} in {text}"))
}

#[test]
fn each_command_has_an_exit_status_of_its_own() {
    let bench = Bench::new();
    bench.run("man --output man").expect(0, &[]);
    for (command, its_own, of_the_other) in
        [("gate", "no regression", "as the recipes promise"), ("run", "as the recipes promise", "no regression")]
    {
        let help = bench.run(&format!("{command} --help"));
        help.expect(0, &[]);
        let page = std::fs::read_to_string(bench.join(&format!("man/meshgate-{command}.1"))).unwrap();
        for text in [&help.stdout, &page] {
            let told = section(text, "Exit status:");
            assert!(told.contains(its_own) && !told.contains(of_the_other), "{command}: {told}");
        }
    }
}

#[test]
fn what_would_mean_nothing_is_refused() {
    let bench = Bench::new();
    for file in ["a.yaml", "b.yaml"] {
        std::fs::write(bench.join(file), "c/a/default: {pass: [routing/host]}").unwrap();
    }
    for (arguments, refused) in [
        ("--controller traefik --from 3.7.9 --to 3.7.15 --controllers kong", "--controllers <CONTROLLERS>"),
        ("a.yaml b.yaml --recipe nope", "--recipe <NAME|DIR>"),
        ("a.yaml b.yaml --controllers zz", "--controllers <CONTROLLERS>"),
        ("a.yaml b.yaml --report-dir report", "--report-dir <DIR>"),
        ("a.yaml b.yaml --cluster existing", "--cluster <KIND>"),
        ("a.yaml b.yaml --dry-run", "--dry-run"),
        ("a.yaml b.yaml --keep", "--keep"),
    ] {
        let done = bench.run(&format!("gate {arguments}"));
        done.expect(2, &["cannot be used with", refused]);
        assert_eq!(done.stdout, "", "{arguments}");
    }
    bench.run("gate a.yaml b.yaml").expect(0, &[]);
}

#[test]
fn a_comparison_of_nothing_lets_nothing_pass() {
    let bench = Bench::new();
    std::fs::write(bench.join("empty.yaml"), "{}").unwrap();
    std::fs::write(bench.join("not-run.yaml"), "c/a/default: {not-run: [routing/host]}").unwrap();
    for (baseline, candidate) in [("empty.yaml", "empty.yaml"), ("not-run.yaml", "not-run.yaml")] {
        let done = bench.run(&format!("gate {baseline} {candidate}"));
        done.expect(2, &["expected the verdict on a case that ran, in ", baseline, "there is nothing to compare"]);
        assert_eq!(done.stdout, "", "{baseline}");
    }
    std::fs::write(bench.join("one.yaml"), "c/a/default: {pass: [routing/host]}").unwrap();
    bench.run("gate one.yaml one.yaml").expect(0, &[]);
}

/// In a recipe that leads by pod addresses no TLS is passed through.
const APPLIES_NOWHERE: &str = "--recipe ingress-pod-ip --case tls/passthrough";

/// How it is said of a version.
fn no_case_applies(version: &str) -> String {
    format!("no chosen case applies to any chosen cell; tls/passthrough in traefik@{version}/ingress-pod-ip/default: ")
}

#[test]
fn where_no_case_applies_that_is_the_reason() {
    let bench = Bench::new();
    let run = bench.run(&format!("run --controllers traefik@3.7.15 {APPLIES_NOWHERE}"));
    run.expect(2, &[&no_case_applies("3.7.15")]);
    let gate = bench.run(&format!("gate --controller traefik --from 3.7.9 --to 3.7.15 {APPLIES_NOWHERE}"));
    gate.expect(2, &[]);
    for version in ["3.7.9", "3.7.15"] {
        let told = format!("undecided   traefik {version}: {}", no_case_applies(version));
        assert!(gate.stdout.contains(&told), "{told:?} in {gate:#?}");
    }
    assert!(!gate.stdout.contains("could be set up"), "{gate:#?}");
}

#[test]
fn sides_of_which_no_cell_came_up_are_compared_and_decide_nothing() {
    let bench = Bench::new();
    // A template that cannot be filled in.
    let recipe = bench.fixtures().join("traefik/recipes/ingress-pod-ip/route.yaml");
    edit(&recipe, "${host}", "${hostname}");
    let small = "--fixtures fixtures --recipe ingress-pod-ip --case routing/host --report-dir out";
    let done = bench.run(&format!("gate --controller traefik --from 3.7.9 --to 3.7.15 {small}"));
    done.expect(2, &[]);
    assert!(done.stdout.starts_with("traefik 3.7.9 -> 3.7.15\n0 regressions, "), "{done:#?}");
    for version in ["3.7.9", "3.7.15"] {
        let told = format!(
            "undecided   traefik {version}: no cell could be set up; traefik@{version}/ingress-pod-ip/default: "
        );
        assert!(done.stdout.contains(&told), "{told:?} in {done:#?}");
        assert!(done.stdout.contains(&format!("; see out/{version}/report.md\n")), "{done:#?}");
    }
}
