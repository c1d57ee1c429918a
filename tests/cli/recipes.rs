//! Recipes and fixtures of one's own, sound and broken.

use std::path::Path;

use meshgate_harness::report::{CaseReport, CellReport, Report};
use meshgate_harness::verdict::Verdict;

use crate::bench::{Bench, FIXTURES, copy_tree, edit};

const ON_TRAEFIK: &str = "run --controllers traefik --dialect modern --case routing/host";

/// A copy of a built-in recipe, as a folder of the user's.
fn own_recipe(bench: &Bench) -> std::path::PathBuf {
    let recipe = bench.join("my-recipe");
    copy_tree(&Path::new(FIXTURES).join("traefik/recipes/ingress-middleware"), &recipe);
    recipe
}

fn report(bench: &Bench) -> Report {
    Report::read(&bench.join("report/report.json")).unwrap()
}

/// The only case of a cell that could not be set up.
#[track_caller]
fn not_run(cell: &CellReport) -> (&CaseReport, &str) {
    let case = &cell.cases[0];
    assert_eq!((cell.setup_seconds, case.verdict), (None, Verdict::NotRun), "{cell:#?}");
    (case, case.reason.as_deref().unwrap())
}

#[test]
fn a_recipe_of_ones_own_is_judged_with_the_same_cases() {
    let bench = Bench::new();
    own_recipe(&bench);
    bench.run(&format!("{ON_TRAEFIK} --recipe ./my-recipe")).expect(0, &[]);
    let cell = &report(&bench).cells[0];
    assert_eq!((cell.recipe.as_str(), cell.cases[0].verdict), ("my-recipe", Verdict::Pass));
}

#[test]
fn a_recipe_that_cannot_be_read_is_told_before_anything_runs() {
    let bench = Bench::new();
    let recipe = own_recipe(&bench);
    let run = || bench.run(&format!("{ON_TRAEFIK} --recipe ./my-recipe"));
    edit(&recipe.join("recipe.yaml"), "  split: true", "  splitt: true");
    run().expect(2, &["my-recipe/recipe.yaml: promises: unknown field `splitt`"]);
    edit(&recipe.join("recipe.yaml"), "  splitt: true", "  split: true");
    edit(&recipe.join("recipe.yaml"), "mode: ingress", "mode: egress");
    run().expect(2, &["my-recipe/recipe.yaml: mode: unknown variant `egress`"]);
    edit(&recipe.join("recipe.yaml"), "mode: egress", "mode: ingress");
    for (name, slip, answer) in [
        ("auth-bypass:", "auth-bypas:", "findings: no case looks for \"auth-bypas\"; did you mean \"auth-bypass\"?"),
        ("modes/balances-itself", "modes/balances-itslef", "claims: no case \"modes/balances-itslef\"; did you mean "),
        (
            "ingress.annotation",
            "ingress.anotation",
            "claims: modes/balances-itself: no claim \"ingress.anotation\"; did you mean ",
        ),
    ] {
        edit(&recipe.join("recipe.yaml"), name, slip);
        run().expect(2, &["my-recipe/recipe.yaml: ", answer]);
        edit(&recipe.join("recipe.yaml"), slip, name);
    }
    std::fs::remove_file(recipe.join("route.yaml")).unwrap();
    std::fs::write(recipe.join("route.yaml"), "# To do.\n").unwrap();
    run().expect(2, &["my-recipe/route.yaml: expected an object, found none"]);
    std::fs::remove_file(recipe.join("route.yaml")).unwrap();
    run().expect(2, &["my-recipe/route.yaml is missing"]);
    assert!(!bench.join("report").exists());
}

#[test]
fn what_is_wrong_with_a_recipe_says_which_file_and_field_and_the_others_go_on() {
    let bench = Bench::new();
    let recipes = bench.fixtures().join("traefik/recipes");
    for (name, from, to) in [
        ("bad-field", "ingressClassName:", "ingressClazzName:"),
        ("bad-namespace", "namespace: ${namespace}", "namespace: nowhere"),
        ("bad-placeholder", "${host}", "${hostname}"),
    ] {
        copy_tree(&recipes.join("ingress-middleware"), &recipes.join(name));
        edit(&recipes.join(name).join("route.yaml"), from, to);
    }
    let recipes = "ingress-middleware,bad-field,bad-namespace,bad-placeholder";
    let done = bench.run(&format!("{ON_TRAEFIK} --fixtures fixtures --recipe {recipes}"));
    done.expect(1, &["bad-placeholder/modern: not-run: "]);
    let report = report(&bench);
    let names: Vec<&str> = report.cells.iter().map(|cell| cell.recipe.as_str()).collect();
    assert_eq!(names, ["bad-field", "bad-namespace", "bad-placeholder", "ingress-middleware"]);
    for (cell, parts) in [
        (0, ["traefik/recipes/bad-field/route.yaml", "ingressClazzName"]),
        (1, ["traefik/recipes/bad-namespace/route.yaml", "namespaces \"nowhere\" not found"]),
        (2, ["traefik/recipes/bad-placeholder/route.yaml", "no value for ${hostname}"]),
    ] {
        // What an API server takes is what a version of a controller brings; what is no object at all is nobody's behaviour.
        let case = &report.cells[cell].cases[0];
        let reason = if cell == 2 { not_run(&report.cells[cell]).1 } else { case.reason.as_deref().unwrap() };
        assert_eq!(case.verdict, if cell == 2 { Verdict::NotRun } else { Verdict::Fail }, "{case:#?}");
        assert!(parts.iter().all(|part| reason.contains(part)), "expected {parts:?} in {reason}");
        assert!(!reason.contains("Status {"), "a message for people: {reason}");
    }
    assert_eq!(report.cells[3].cases[0].verdict, Verdict::Pass);
}

#[test]
fn what_one_case_lacks_costs_no_other_its_verdict() {
    let bench = Bench::new();
    let recipe = own_recipe(&bench);
    edit(&recipe.join("tls.yaml"), "secretName:", "secretNam:");
    edit(&recipe.join("grpc.yaml"), "name: ${service}", "name: nobody");
    let cases = "routing/host,routing/grpc-unary,tls/terminated";
    let done = bench.run(&format!("run --controllers traefik --dialect modern --case {cases} --recipe ./my-recipe"));
    done.expect(
        1,
        &[
            "routing-grpc-unary-a",
            "did not answer while others did, and its case is judged all the same; last seen: ",
            "secretNam",
        ],
    );
    let report = report(&bench);
    let judged = report.cells[0].cases.iter().filter(|case| case.verdict != Verdict::NotApplicable);
    let verdicts: Vec<_> = judged.map(|case| (case.id.as_str(), case.verdict)).collect();
    let expected =
        [("routing/host", Verdict::Pass), ("routing/grpc-unary", Verdict::Fail), ("tls/terminated", Verdict::Fail)];
    assert_eq!(verdicts, expected);
    let reason = |case: usize| report.cells[0].cases[case].reason.as_deref().unwrap();
    assert!(reason(1).contains("expected an answer from echo-a"), "{}", reason(1));
    assert!(reason(2).contains("tls.yaml") && reason(2).contains("secretNam"), "{}", reason(2));
}

#[test]
fn a_controller_that_never_becomes_ready_leaves_its_log_and_events() {
    let bench = Bench::new();
    let workload = bench.fixtures().join("traefik/install/workload.yaml");
    edit(&workload, "path: /ping", "path: /never");
    let started = std::time::Instant::now();
    let done = bench.run(&format!(
        "{ON_TRAEFIK} --fixtures fixtures --recipe ingress-middleware,ingress-pod-ip --setup-timeout 15"
    ));
    // No cell came up: nothing was judged.
    done.expect(2, &["ingress-middleware/modern: not-run: ", "ingress-pod-ip/default: not-run: "]);
    assert!(started.elapsed().as_secs() < 60, "after {:?}", started.elapsed());
    for cell in &report(&bench).cells {
        let (case, reason) = not_run(cell);
        assert!(reason.contains("traefik/traefik 0/1"), "{reason}");
        let folder = format!("artefacts/{}/setup", cell.id.replace(['/', '@'], "_"));
        assert!(reason.contains(&folder), "{reason}");
        for part in ["events.txt", "_traefik.log"] {
            let file = case.artefacts.iter().find(|file| file.starts_with(&folder) && file.ends_with(part));
            let file = file.unwrap_or_else(|| panic!("{part} in {:?}", case.artefacts));
            let text = std::fs::read_to_string(bench.join("report").join(file)).unwrap();
            assert!(!text.is_empty(), "{file}");
            assert!(part != "events.txt" || text.contains("Readiness probe failed"), "{text}");
        }
    }
}

#[test]
fn an_image_that_nothing_stands_for_is_told_before_anything_runs() {
    let bench = Bench::new();
    let workload = bench.fixtures().join("traefik/install/workload.yaml");
    edit(&workload, "docker.io/library/traefik:", "docker.io/library/traffic:");
    let done = bench.run(&format!("{ON_TRAEFIK} --fixtures fixtures"));
    done.expect(2, &["no native program is known for the image \"docker.io/library/traffic:v", "known: "]);
}
