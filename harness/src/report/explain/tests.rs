use meshgate_fixtures::Fixtures;

use super::*;
use crate::case::{Need, Stage};
use crate::matrix::{self, Dialect, Place, Selection};
use crate::report::tests::{case as case_of, cell, report, with_evidence};
use crate::verdict::{Outcome, Verdict};

const NAMES: [&str; 4] = ["routing/host", "routing/hosts-many", "tls/host-name", "loops/hairpin"];

#[test]
fn a_name_may_be_as_short_as_it_is_unique() {
    assert_eq!(resolve("routing/host", &NAMES), Ok("routing/host"));
    assert_eq!(resolve("host", &NAMES), Ok("routing/host"), "it ends with it after the slash");
    assert_eq!(resolve("loops", &NAMES), Ok("loops/hairpin"));
    assert_eq!(resolve("airp", &NAMES), Ok("loops/hairpin"));
}

#[test]
fn other_names_are_answered_with_those_that_may_be_meant() {
    let message = |name| resolve(name, &NAMES).unwrap_err().to_string();
    assert_eq!(message("routing/hots"), "nothing is called \"routing/hots\"; did you mean \"routing/host\"?");
    assert_eq!(message("nonsense"), "nothing is called \"nonsense\"");
    let several = "\"routing\" may be any of 2: routing/host, routing/hosts-many; say more of the one that is meant";
    assert_eq!(message("routing"), several);
}

#[test]
fn a_case_says_where_it_applies_and_what_of_the_page_it_tests() {
    let fixtures = Fixtures::built_in().unwrap();
    let claim = &fixtures.claims.0[0];
    let evidence: &'static [Evidence] = Box::leak(Box::new([Evidence::Confirms(claim.id.clone().leak())]));
    let subject = Case {
        id: "routing/host",
        summary: "A host finds its Service",
        needs: &[Need::Serves, Need::Dialect(Dialect::Modern)],
        claims: evidence,
        stage: Stage::Alone,
        plan: |_| {},
        run: |_| Box::pin(async { Ok(Outcome::Pass) }),
    };
    let selection = Selection { recipes: vec!["ingress-middleware".into()], ..Selection::default() };
    let cells = matrix::cells(&fixtures, &selection, Place::USUAL).unwrap();
    let of = |cell: &Cell| &fixtures.controllers[&cell.controller].recipes[&cell.recipe];
    let cells: Vec<(&Cell, &Recipe)> = cells.iter().map(|cell| (cell, of(cell))).collect();
    let text = case(&subject, &cells, &fixtures.claims);
    for part in [
        "routing/host\n  A host finds its Service\n",
        "needs  a recipe whose routes answer\n       the dialect modern\n",
        "runs   alone, after the others",
        &format!("confirms {}\n    \"{}\"", claim.id, claim.text),
        "    ingress-middleware/modern\n",
        "  only under the dialect modern\n",
        "meshgate run --case routing/host\n",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert!(!text.contains("ingress-middleware/documented"), "{text}");
}

const NOTHING: Known<'_> = Known { cells: &[], cases: &[] };

#[test]
fn a_cell_is_told_with_what_was_judged_in_it() {
    let cases = vec![case_of("routing/host", Verdict::Pass), case_of("tls/host-name", Verdict::Fail)];
    let report = report(vec![cell("a", Some(Dialect::Modern), cases)]);
    let text = verdict(&report, "a/modern", Path::new("report"), &NOTHING).unwrap();
    for part in [
        "c@1.0.0/a/modern (mesh bundled, cluster embedded)\n",
        "  pass           routing/host\n",
        "  fail           tls/host-name\n",
        "  meshgate explain c@1.0.0/a/modern/CASE\n",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn a_recipe_that_is_several_cells_is_answered_with_these() {
    let cases = || vec![case_of("routing/host", Verdict::Pass), case_of("tls/host-name", Verdict::Fail)];
    let cells = vec![
        cell("a", Some(Dialect::Documented), cases()),
        cell("a", Some(Dialect::Modern), cases()),
        cell("b", None, cases()),
    ];
    let report = report(cells);
    let explained = |name| verdict(&report, name, Path::new("report"), &NOTHING).map_err(|error| error.to_string());
    // As `list recipes` prints it, too.
    for name in ["c/a", "c@1.0.0/a", "a"] {
        let both = "may be any of 2: c@1.0.0/a/documented, c@1.0.0/a/modern; say more of the one that is meant";
        assert_eq!(explained(name).unwrap_err(), format!("\"{name}\" {both}"));
    }
    for (name, begins) in
        [("c/b", "c@1.0.0/b/default ("), ("c/a/modern/routing/host", "pass  routing/host in c@1.0.0/a/modern ")]
    {
        let text = explained(name).unwrap();
        assert!(text.starts_with(begins), "{name}: {text}");
    }
    for case in ["host", "routing/host"] {
        let told = explained(case).unwrap_err();
        assert!(told.contains("may be any of 3: c@1.0.0/a/documented/routing/host, "), "{told}");
    }
}

#[test]
fn what_was_not_in_the_run_is_answered_with_how_to_run_it() {
    let fixtures = Fixtures::built_in().unwrap();
    let selection = Selection { recipes: vec!["ingress-middleware".into()], ..Selection::default() };
    let cells = matrix::cells(&fixtures, &selection, Place::USUAL).unwrap();
    let known = Known { cells: &cells, cases: &NAMES };
    let report = report(vec![cell("a", Some(Dialect::Modern), vec![case_of("routing/host", Verdict::Pass)])]);
    let message = |name| verdict(&report, name, Path::new("report"), &known).unwrap_err().to_string();
    let other_case = message("a/modern/loops/hairpin");
    assert!(other_case.starts_with("loops/hairpin in c@1.0.0/a/modern is not in this report"), "{other_case}");
    assert!(other_case.contains("  meshgate run --controllers c@1.0.0 --recipe a"), "{other_case}");
    assert!(other_case.ends_with(" --case loops/hairpin\n"), "{other_case}");
    let version = fixtures.controllers["traefik"].newest();
    let run = format!("  meshgate run --controllers traefik@{version} --recipe ingress-middleware --dialect modern");
    let other_cell = message("ingress-middleware/modern/routing/host");
    assert!(other_cell.contains(&format!("{run} --case routing/host\n")), "{other_cell}");
    let several = message("traefik/ingress-middleware");
    assert!(several.starts_with("\"traefik/ingress-middleware\" may be any of "), "{several}");
    let cell_alone = message("ingress-middleware/modern");
    assert!(cell_alone.contains("is a cell that was not in that run") && cell_alone.contains(&run), "{cell_alone}");
    assert_eq!(message("ingress-middleware/moderm/none"), "nothing is called \"ingress-middleware/moderm/none\"");
}

#[test]
fn a_verdict_is_told_with_what_it_rests_on() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("artefacts")).unwrap();
    std::fs::write(dir.path().join("artefacts/log"), "12345").unwrap();
    let mut failed = with_evidence("traffic_split/shares", Verdict::Fail);
    failed.reason = Some("the answers: expected \"a, b\", found \"b\"".into());
    failed.artefacts = vec!["artefacts/log".into(), "artefacts/gone".into()];
    let report = report(vec![cell("a", Some(Dialect::Modern), vec![failed])]);
    let text = verdict(&report, "a/modern/traffic_split/shares", dir.path(), &NOTHING).unwrap();
    for part in [
        "fail  traffic_split/shares in c@1.0.0/a/modern (mesh bundled, cluster embedded)\n",
        "  the answers\n    expected  \"a, b\"\n    found     \"b\"\n",
        "  found     702 of 1000, 70.2 %\n",
        "GET http://a.test/x  ->  200, 3 times",
        "    way      outside -> c at 203.0.113.10:80 -> proxy (modern) -> echo-a and others\n",
        "    answers  2 x 200 from echo-a\n    answers  1 x 200 from echo-b\n",
        "    arrived  x-forwarded-for: 198.51.100.10\n",
        "artefacts/log  (5 bytes)\n",
        "artefacts/gone  (not there)\n",
        "meshgate run --controllers c@1.0.0 --recipe a --case traffic_split/shares\n",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert!(verdict(&report, "nonsense", dir.path(), &NOTHING).is_err());
}
