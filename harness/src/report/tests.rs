use meshgate_fixtures::{Claim, Claims, Implementation, Mode, Version};

use super::expected::Verdicts;
use super::gate::{Comparison, Kind};
use super::*;
use crate::observations::{Arrived, Latency, Sample, Share};

fn compare(baseline: &Report, candidate: &Report) -> Comparison {
    Comparison::of(&Verdicts::of(baseline), &Verdicts::of(candidate))
}

pub(super) fn case(id: &str, verdict: Verdict) -> CaseReport {
    CaseReport {
        id: id.into(),
        verdict,
        seconds: 0.5,
        attempts: 1,
        flaky: false,
        reason: (verdict != Verdict::Pass).then(|| format!("because {verdict}")),
        claims: BTreeMap::new(),
        artefacts: vec![],
        observations: None,
    }
}

/// A case with evidence of each kind, some of it hostile.
pub(super) fn with_evidence(id: &str, verdict: Verdict) -> CaseReport {
    let strings = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
    let sample = Sample {
        from: "outside".into(),
        times: 3,
        answers: BTreeMap::from([("200 from echo-a".into(), 2), ("200 from echo-b".into(), 1)]),
        controller: true,
        sent: "GET http://a.test/x".into(),
        target: "203.0.113.10:80".into(),
        headers: strings(&["X-Own: 1", "l5d-dst-override: echo-b"]),
        body: Some("<b>body</b>".into()),
        outcome: "200".into(),
        ms: 3.25,
        answer: strings(&["content-type: text/html"]),
        text: None,
        seen: Some(Arrived {
            service: "echo-a".into(),
            pod: "echo-a-1".into(),
            line: "HTTP/1.1 a.test/x".into(),
            headers: strings(&["host: a.test", "x-own: 1", "x-forwarded-for: 198.51.100.10"]),
        }),
    };
    let lost = Sample {
        times: 1,
        answers: BTreeMap::new(),
        outcome: "502".into(),
        answer: strings(&["l5d-proxy-error: no endpoint"]),
        text: Some("<script>document.title = \"taken over\"</script>".into()),
        seen: None,
        ..sample.clone()
    };
    let share = Share {
        what: "the requests that echo-a answered".into(),
        n: 1000,
        count: 702,
        expected: 0.7,
        off: 0.15,
        accepted: Some([650, 750]),
        false_alarm: 1e-6,
        miss: 1e-3,
        held: true,
    };
    let observations = Observations {
        requests: 1004,
        samples: vec![sample, lost],
        shares: vec![share],
        latency: Latency::of((0..1000).map(|n| 400 + n * n / 100).collect()),
    };
    CaseReport { observations: Some(observations), ..case(id, verdict) }
}

pub(super) fn cell(recipe: &str, dialect: Option<Dialect>, cases: Vec<CaseReport>) -> CellReport {
    CellReport {
        id: format!("c@1.0.0/{recipe}/{}", dialect.map_or("default", Dialect::as_str)),
        controller: "c".into(),
        version: Version("1.0.0".into()),
        recipe: recipe.into(),
        mode: if dialect.is_some() { Mode::Ingress } else { Mode::Default },
        dialect,
        cluster: "embedded".into(),
        mesh: Mesh::Bundled,
        implementation: Implementation { control_plane: "real".into(), data_plane: "d".into() },
        repeat: Some(format!("meshgate run --controllers c@1.0.0 --recipe {recipe}")),
        setup_seconds: Some(1.5),
        broken: None,
        cases,
    }
}

pub(super) fn report(cells: Vec<CellReport>) -> Report {
    let environment = Environment {
        meshgate: "0.1.0".into(),
        started: "2026-01-02T03:04:05Z".into(),
        seconds: 12.0,
        os: "linux x86_64".into(),
        kernel: "6.1".into(),
        cpus: 2,
    };
    let claim = |id: &str| Claim {
        id: id.into(),
        section: "s".into(),
        text: format!("{id} | holds"),
        instead: None,
        untestable: None,
    };
    Report::new(environment, cells, &Claims(vec![claim("one"), claim("two")]))
}

#[test]
fn every_report_follows_its_schema() {
    let mut failed = case("routing/host", Verdict::Fail);
    failed.flaky = true;
    failed.attempts = 2;
    failed.artefacts.push("artefacts/x/requests.json".into());
    failed.claims.insert("one".into(), ClaimVerdict::Confirmed);
    let mut broken = cell("b", Some(Dialect::Modern), vec![case("routing/host", Verdict::NotRun)]);
    broken.broken = Some("the controller never became ready".into());
    broken.setup_seconds = None;
    let seen = with_evidence("traffic_split/shares", Verdict::Pass);
    let mut report =
        report(vec![cell("a", None, vec![failed, seen, case("loops/hairpin", Verdict::NotApplicable)]), broken]);
    report.cases.push(CaseAbout {
        id: "routing/host".into(),
        summary: "A host finds its Service".into(),
        needs: vec!["a recipe whose routes answer".into()],
        stage: "shared".into(),
    });
    let schema: serde_json::Value = serde_json::from_str(JSON_SCHEMA).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let value = serde_json::to_value(&report).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(&value).map(|error| format!("{} {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    for played in ["stand-in", "image", "real (chart 41.1.0)", "stand-in (chart 1.52.1)", "/opt/own controller"] {
        let mut other = value.clone();
        other["cells"][0]["implementation"]["control_plane"] = played.into();
        assert!(validator.is_valid(&other), "{played}");
    }
    // The control: the schema refuses what is not a report.
    let mut wrong = value.clone();
    wrong["cells"][0]["cases"][0]["verdict"] = "green".into();
    assert!(!validator.is_valid(&wrong));
}

#[test]
fn reports_survive_a_round_trip_and_others_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let report = report(vec![cell("a", None, vec![case("routing/host", Verdict::Pass)])]);
    report.write(dir.path()).unwrap();
    assert_eq!(Report::read(&dir.path().join("report.json")).unwrap(), report);
    let markdown = std::fs::read_to_string(dir.path().join("report.md")).unwrap();
    assert!(markdown.contains("**green**"), "{markdown}");
    let junit = std::fs::read_to_string(dir.path().join("junit.xml")).unwrap();
    assert!(junit.contains("routing/host"), "{junit}");
    let other = dir.path().join("other.json");
    std::fs::write(&other, "{\"schema\": \"x\"}").unwrap();
    assert!(Report::read(&other).unwrap_err().to_string().contains("expected \"schema\""));
}

#[test]
fn a_report_that_cannot_be_written_leaves_the_earlier_one_whole() {
    let dir = tempfile::tempdir().unwrap();
    let of = |verdict| report(vec![cell("a", None, vec![case("routing/host", verdict)])]);
    of(Verdict::Pass).write(dir.path()).unwrap();
    let content = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let files = || ["report.json", "junit.xml", "report.md", "report.html"].map(content);
    let before = files();
    // In the place of the last file that is written; no right lets anybody open a folder for writing.
    let obstacle = dir.path().join(".report.html.new");
    std::fs::create_dir(&obstacle).unwrap();
    let error = of(Verdict::Fail).write(dir.path()).unwrap_err();
    assert!(error.to_string().contains("/.report.html.new: Is a directory"), "{error}");
    assert_eq!(files(), before);
    std::fs::remove_dir(&obstacle).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4, "what was begun is gone");
    of(Verdict::Fail).write(dir.path()).unwrap();
    assert_ne!(files(), before, "the control");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4);
}

#[test]
fn only_promised_verdicts_are_green() {
    let green = |verdicts: &[Verdict]| {
        report(vec![cell("a", None, verdicts.iter().map(|verdict| case("a/b", *verdict)).collect())]).is_green()
    };
    assert!(green(&[Verdict::Pass, Verdict::Finding, Verdict::NotApplicable]));
    assert!(!green(&[Verdict::Pass, Verdict::NotRun]));
    assert!(!green(&[Verdict::Pass, Verdict::Fail]));
    assert!(!green(&[Verdict::NotApplicable]), "nothing was judged");
    let mut broken = cell("b", None, vec![case("a/b", Verdict::NotApplicable)]);
    let passed = || cell("a", None, vec![case("a/b", Verdict::Pass)]);
    assert!(report(vec![passed(), broken.clone()]).is_green(), "the control");
    broken.broken = Some("it never came up".into());
    assert!(!report(vec![passed(), broken]).is_green(), "nobody knows what would have been judged");
}

#[test]
fn a_badge_says_what_was_judged_and_how_it_went() {
    let badge = |cells| badge::render(&report(cells));
    let judged = |verdicts: &[Verdict]| verdicts.iter().map(|verdict| case("a/b", *verdict)).collect::<Vec<_>>();
    assert_eq!(
        badge(vec![cell("a", None, judged(&[Verdict::Pass, Verdict::Finding, Verdict::NotApplicable]))]),
        "{\"color\":\"brightgreen\",\"label\":\"c 1.0.0 default\",\"message\":\"2 as promised\",\"schemaVersion\":1}\n"
    );
    let red = badge(vec![
        cell("a", None, judged(&[Verdict::Pass, Verdict::Fail])),
        cell("b", Some(Dialect::Modern), judged(&[Verdict::NotRun])),
    ]);
    assert!(red.contains("\"label\":\"c 1.0.0\""), "{red}");
    assert!(red.contains("\"message\":\"1 not as promised, 1 not run, 1 as promised\""), "{red}");
    assert!(red.contains("\"color\":\"red\""), "{red}");
    // Nothing is known of the mesh where the infrastructure failed.
    assert!(badge(vec![cell("a", None, judged(&[Verdict::NotRun]))]).contains("\"color\":\"lightgrey\""));
    let none = badge(vec![]);
    assert!(none.contains("\"label\":\"meshgate\"") && none.contains("nothing judged"), "{none}");
}

#[test]
fn claims_are_decided_by_today() {
    let mut documented = case("loops/page", Verdict::Pass);
    documented.claims.insert("one".into(), ClaimVerdict::Confirmed);
    let mut modern = case("loops/page", Verdict::Pass);
    modern.claims.insert("one".into(), ClaimVerdict::Refuted);
    let report = report(vec![
        cell("a", Some(Dialect::Documented), vec![documented]),
        cell("a", Some(Dialect::Modern), vec![modern]),
    ]);
    assert_eq!(report.claims[0].verdict, ClaimVerdict::Refuted);
    assert_eq!(report.claims[0].documented, Some(ClaimVerdict::Confirmed));
    assert_eq!(report.claims[1].verdict, ClaimVerdict::Untested);
}

#[test]
fn the_gate_names_what_changed() {
    let side = |verdict| report(vec![cell("a", None, vec![case("routing/host", verdict), case("x/y", Verdict::Pass)])]);
    let same = compare(&side(Verdict::Pass), &side(Verdict::Pass));
    assert!(!same.regressed() && same.changes.is_empty());
    let worse = compare(&side(Verdict::Pass), &side(Verdict::Fail));
    assert!(worse.regressed());
    assert_eq!(worse.changes[0].kind, Kind::Regression);
    assert!(worse.render().starts_with("regression  c/a/default routing/host: pass -> fail"), "{}", worse.render());
    let better = compare(&side(Verdict::Fail), &side(Verdict::Pass));
    assert!(!better.regressed());
    assert_eq!(better.changes[0].kind, Kind::Improvement);
    let gone = compare(&side(Verdict::Pass), &report(vec![]));
    assert!(gone.regressed(), "what is gone cannot vouch for an upgrade");
    assert!(gone.render().starts_with("lost        c/a/default: the whole cell, 2 cases"), "{}", gone.render());
    // A new cell is one line, but not what is red in it.
    let new = compare(&report(vec![]), &side(Verdict::Fail)).render();
    assert!(new.starts_with("new         c/a/default: the whole cell, 1 cases"), "{new}");
    assert!(new.contains("regression  c/a/default routing/host: absent -> fail"), "{new}");
}

#[test]
fn what_did_not_run_and_is_gone_is_not_lost() {
    let side = |cases: &[(&str, Verdict)]| {
        report(vec![cell("a", None, cases.iter().map(|(id, verdict)| case(id, *verdict)).collect())])
    };
    let kept = ("routing/host", Verdict::Pass);
    for (before, lost) in [
        (Verdict::NotRun, false),
        (Verdict::NotApplicable, false),
        (Verdict::Pass, true),
        (Verdict::Finding, true),
        (Verdict::Fail, true),
    ] {
        let comparison = compare(&side(&[kept, ("tls/mutual", before)]), &side(&[kept]));
        assert_eq!(comparison.regressed(), lost, "{}", comparison.render());
        assert_eq!(comparison.is_same(), before == Verdict::NotApplicable, "{}", comparison.render());
    }
    let told = compare(&side(&[("tls/mutual", Verdict::NotRun)]), &report(vec![])).render();
    assert!(told.starts_with("changed     c/a/default: the whole cell, 1 cases, in the baseline only"), "{told}");
}

#[test]
fn a_comparison_of_nothing_knows_that_it_is_one() {
    let of = |verdict| report(vec![cell("a", None, vec![case("routing/host", verdict)])]);
    for nothing in [report(vec![]), of(Verdict::NotApplicable), of(Verdict::NotRun)] {
        assert!(!compare(&nothing, &nothing).judged, "{nothing:?}");
        for judged in [Verdict::Pass, Verdict::Finding, Verdict::Fail].map(of) {
            assert!(compare(&judged, &nothing).judged && compare(&nothing, &judged).judged, "{nothing:?} {judged:?}");
        }
    }
}

#[test]
fn an_expected_report_says_every_verdict_on_a_line_of_its_own() {
    let cases = vec![
        case("routing/host", Verdict::Pass),
        case("headers/x", Verdict::Finding),
        case("loops/hairpin", Verdict::NotApplicable),
        case("modes/y", Verdict::Pass),
    ];
    let judged = report(vec![cell("a", None, cases)]);
    let text = Verdicts::of(&judged).render().unwrap();
    let body: String = text.lines().skip(1).map(|line| line.to_owned() + "\n").collect();
    assert_eq!(body, "c/a/default:\n  pass:\n  - modes/y\n  - routing/host\n  finding:\n  - headers/x\n", "{text}");

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("expected.yaml");
    std::fs::write(&path, text).unwrap();
    let expected = Verdicts::read(&path).unwrap();
    assert!(Comparison::of(&expected, &Verdicts::of(&judged)).is_same());
    // What did not apply and does now is a difference too, though it is no regression.
    let more = report(vec![cell(
        "a",
        None,
        ["routing/host", "modes/y", "loops/hairpin"]
            .map(|id| case(id, Verdict::Pass))
            .into_iter()
            .chain([case("headers/x", Verdict::Finding)])
            .collect(),
    )]);
    let comparison = Comparison::of(&expected, &Verdicts::of(&more));
    assert!(!comparison.is_same() && !comparison.regressed(), "{}", comparison.render());
    // What applied and does not any more is lost.
    let less = report(vec![cell("a", None, vec![case("routing/host", Verdict::NotApplicable)])]);
    assert!(Comparison::of(&expected, &Verdicts::of(&less)).regressed());

    std::fs::write(&path, "c/a/default: {green: [x]}").unwrap();
    assert!(Verdicts::read(&path).unwrap_err().to_string().contains("expected.yaml"));
}

#[test]
fn every_report_for_a_person_says_whose_mesh_was_judged_and_where() {
    let mut of_linkerd = cell("a", None, vec![case("routing/host", Verdict::Pass)]);
    of_linkerd.mesh = Mesh::Linkerd;
    of_linkerd.cluster = "kind".into();
    let linkerd = report(vec![of_linkerd]);
    let place = "mesh linkerd, cluster kind";
    for text in [
        markdown::render(&linkerd),
        html::render(&linkerd, Path::new(".")),
        terminal::render(&linkerd, terminal::WIDTH),
        explain::verdict(&linkerd, "routing/host", Path::new("."), &explain::Known { cells: &[], cases: &[] }).unwrap(),
    ] {
        assert!(text.contains(place), "{text}");
    }
    let junit = junit::render(&linkerd);
    assert!(
        junit.contains("name=\"mesh\" value=\"linkerd\"") && junit.contains("name=\"cluster\" value=\"kind\""),
        "{junit}"
    );

    let bundled = report(vec![cell("a", None, vec![case("routing/host", Verdict::Pass)])]);
    let noted = compare(&bundled, &linkerd);
    let note = "note        not judged in the same place: the baseline in mesh bundled, cluster embedded, the candidate in mesh linkerd, cluster kind\n";
    assert!(noted.render().starts_with(note), "{}", noted.render());
    assert!(!noted.regressed(), "{noted:?}");
    assert_eq!(compare(&linkerd, &linkerd).elsewhere, None);
}
