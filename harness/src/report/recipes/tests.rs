use meshgate_fixtures::{Bad, Became, Fixtures, Mode, SILENT_ON_BAD, Version};

use super::*;
use crate::matrix::Dialect;
use crate::report::CaseReport;
use crate::report::tests::{case, cell, report};

/// A cell of a recipe that there is.
fn of(path: &str, dialect: Option<Dialect>, cases: Vec<CaseReport>) -> CellReport {
    let (controller, recipe) = path.split_once('/').unwrap();
    let mut cell = cell(recipe, dialect, cases);
    cell.controller = controller.into();
    cell.version = Version("3.7.15".into());
    cell
}

fn passed() -> Vec<CaseReport> {
    vec![case("a/b", Verdict::Pass)]
}

fn rendered(cells: Vec<CellReport>) -> String {
    render(&report(cells), &Fixtures::built_in().unwrap())
}

/// What stands between a heading and the next of its rank or above.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, after) =
        text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("expected {heading}, found {text}"));
    let rank = heading.find(' ').unwrap();
    let (mut end, mut fenced) = (0, false);
    for line in after.split_inclusive('\n') {
        // A comment in YAML looks like a heading.
        fenced ^= line.starts_with("```");
        if !fenced && line.starts_with('#') && line.find(' ').is_some_and(|it| it <= rank) {
            break;
        }
        end += line.len();
    }
    &after[..end]
}

const MODERN: Option<Dialect> = Some(Dialect::Modern);
const ALL: [&str; 4] = ["ingress-middleware", "ingressroute-middleware", "ingressroute-weighted", "page-ingress-1x"];

#[test]
fn the_recipe_to_use_is_the_one_that_promises_most_and_keeps_it() {
    let with = |recipe: &str, cases: Vec<CaseReport>| {
        let cases = |name: &str| if name == recipe { cases.clone() } else { passed() };
        rendered(ALL.iter().map(|name| of(&format!("traefik/{name}"), MODERN, cases(name))).collect())
    };
    let uses = |text: &str| {
        let section = section(text, "### traefik in ingress mode").to_owned();
        section.split("**Use [traefik/").nth(1).map(|rest| rest.split(']').next().unwrap().to_owned())
    };
    assert_eq!(uses(&with("", vec![])).as_deref(), Some("ingressroute-weighted"), "its weights count");
    for verdict in [Verdict::Fail, Verdict::NotRun] {
        let text = with("ingressroute-weighted", vec![case("a/b", Verdict::Pass), case("a/c", verdict)]);
        assert_eq!(uses(&text).as_deref(), Some("ingressroute-middleware"), "{verdict}");
        assert!(section(&text, "#### traefik/ingressroute-weighted").contains("**not to be used**: the report does"));
    }
    // What it leaves to another recipe that promises the same speaks of it, too.
    let mut left = case("a/c", Verdict::NotApplicable);
    left.reason = Some("the same for every recipe of the controller, and judged in page-ingress-1x".into());
    let leaving = |verdict| {
        let mut cells: Vec<CellReport> = ALL.map(|name| of(&format!("traefik/{name}"), MODERN, passed())).into();
        cells[2].cases.push(left.clone());
        cells[3].cases.push(case("a/c", verdict));
        uses(&rendered(cells))
    };
    assert_eq!(leaving(Verdict::Pass).as_deref(), Some("ingressroute-weighted"));
    assert_eq!(leaving(Verdict::Fail).as_deref(), Some("ingressroute-middleware"));
    let text = with("ingressroute-weighted", vec![case("a/b", Verdict::NotApplicable)]);
    assert_eq!(uses(&text).as_deref(), Some("ingressroute-middleware"), "nothing speaks for it");
    // A weakness that is observed as declared is no reason against it.
    let text = with("ingressroute-weighted", vec![case("a/b", Verdict::Finding)]);
    assert_eq!(uses(&text).as_deref(), Some("ingressroute-weighted"));
    let relay = section(&text, "#### traefik/page-ingress-1x");
    assert!(relay.contains("**not to be used**: a client chooses the destination"), "{relay}");
    // The one to use comes first.
    let order: Vec<usize> = ["ingressroute-weighted", "ingress-middleware"]
        .iter()
        .map(|name| text.find(&format!("#### traefik/{name}\n")).unwrap())
        .collect();
    assert!(order.is_sorted(), "{order:?}");
    assert!(text.contains("| traefik | ingress | [traefik/ingressroute-weighted](#traefikingressroute-weighted) |"));
    let only = rendered(vec![of("traefik/page-ingress-1x", MODERN, passed())]);
    assert_eq!(uses(&only), None);
    assert!(only.contains("**Use none of these.**") && only.contains("| traefik | ingress | none |"), "{only}");
}

/// One recipe of each controller has the objects that show what the controller says of nonsense, and so its findings.
#[test]
fn what_is_said_of_the_controller_speaks_against_none_of_its_recipes() {
    let fixtures = Fixtures::built_in().unwrap();
    let has = |recipe: &str| fixtures.controllers["kong"].recipes[recipe].findings.contains_key(SILENT_ON_BAD);
    assert_eq!([has("plugin-remove-add"), has("plugin-replace")], [true, false]);
    let text = rendered(
        ["plugin-remove-add", "plugin-replace"].map(|name| of(&format!("kong/{name}"), MODERN, passed())).into(),
    );
    let mode = section(&text, "### kong in ingress mode");
    assert!(mode.contains("**Use [kong/plugin-remove-add](#kongplugin-remove-add)**"), "{mode}");
    assert!(mode.contains("; as good: [kong/plugin-replace](#kongplugin-replace).\n"), "{mode}");
}

#[test]
fn what_becomes_of_a_route_that_turns_bad_is_told_where_it_does_not_follow() {
    let bad = Bad {
        wrong: "A port".into(),
        since: None,
        refused: None,
        told: Some("told".into()),
        serves: false,
        freezes: false,
        became: None,
    };
    let told = "| A port | told by a status, an event or the log; it does not serve";
    assert_eq!(fate(&bad), format!("{told} |"));
    let turned = fate(&Bad { became: Some(Became::AsBefore), ..bad });
    assert_eq!(turned, format!("{told}, and a route that is changed into it goes on as it was |"));
}

#[test]
fn who_plays_a_controller_stands_beside_its_name() {
    let mut played = of("kong/plugin-replace", MODERN, passed());
    played.implementation.control_plane = "stand-in".into();
    let text = rendered(vec![played, of("traefik/ingress-nativelb", None, passed())]);
    assert!(text.contains("\n| kong (stand-in, d) | ingress | [kong/plugin-replace]"), "{text}");
    assert!(text.contains("\n| traefik | default | [traefik/ingress-nativelb]"), "the control: {text}");
    assert!(text.contains(" Control plane: stand-in; data plane: d.\n"), "{text}");
}

#[test]
fn a_documented_row_says_where_the_rest_is_judged() {
    let left = |to: &str| {
        let mut case = case("a/c", Verdict::NotApplicable);
        case.reason = Some(to.to_owned());
        case
    };
    let cases = vec![
        case("a/b", Verdict::Pass),
        left("the same under every dialect, and judged under modern"),
        left("the same under every dialect, and judged under modern"),
        left("the same for every recipe of the controller that promises the same, and judged in ingress-middleware"),
        left("only in default mode"),
    ];
    let cells = vec![
        of("traefik/ingressroute-weighted", Some(Dialect::Documented), cases),
        of("traefik/ingressroute-weighted", MODERN, passed()),
    ];
    let text = rendered(cells);
    let line = section(&text, "#### traefik/ingressroute-weighted").lines().find(|line| line.contains("`documented`"));
    let measured = line.unwrap().split_once("; measured: ").unwrap().1;
    assert_eq!(
        measured,
        "1 as promised, 2 that come to the same are judged under `modern`, 1 that come to the same are judged in recipe [traefik/ingress-middleware](#traefikingress-middleware)"
    );
}

#[test]
fn the_annotations_that_make_a_recipe_work_are_shown() {
    let text = rendered(vec![of("traefik/ingress-nativelb", None, passed())]);
    let mode = section(&text, "### traefik in default mode");
    assert!(mode.contains("        linkerd.io/inject: enabled\n"), "{mode}");
    let recipe = section(&text, "#### traefik/ingress-nativelb");
    assert!(recipe.contains("kind: Service\n"), "{recipe}");
    assert!(recipe.contains("    traefik.ingress.kubernetes.io/service.nativelb: \"true\"\n"), "{recipe}");
    let ingress = rendered(vec![of("traefik/ingress-middleware", MODERN, passed())]);
    assert!(ingress.contains("        linkerd.io/inject: ingress\n"), "{ingress}");
}

#[test]
fn what_does_not_work_stands_at_the_end_with_its_answer_and_its_manifests() {
    let mut printed = crate::report::tests::with_evidence("recipe/as-printed", Verdict::Pass);
    // As printed, and the control, for which they are mended.
    let samples = printed.observations.iter_mut().flat_map(|observations| &mut observations.samples);
    samples.zip(["404", "200"]).for_each(|(sample, outcome)| sample.outcome = outcome.into());
    let text = rendered(vec![
        of("traefik/page-ingressroute", MODERN, vec![printed]),
        of("traefik/ingress-middleware", MODERN, passed()),
        of("contour/httpproxy-as-printed", MODERN, passed()),
    ]);
    let works = text.find("#### traefik/ingress-middleware\n").unwrap();
    let end = text.find("### traefik: what does not work\n").unwrap();
    assert!(works < end);
    let printed = section(&text, "#### traefik/page-ingressroute");
    assert!(printed.contains("requests are answered 404\n") && printed.contains("kind: IngressRoute"), "{printed}");
    let refused = section(&text, "#### contour/httpproxy-as-printed");
    assert!(refused.contains("the API server refuses") && refused.contains("kind: HTTPProxy"), "{refused}");
}

#[test]
fn what_no_longer_holds_stands_with_its_controller() {
    let says = |claim: &str| {
        let mut case = case("a/b", Verdict::Pass);
        case.claims.insert(claim.into(), crate::report::ClaimVerdict::Refuted);
        vec![case]
    };
    let fixtures = Fixtures::built_in().unwrap();
    let cells = vec![
        of("traefik/page-ingress-1x", MODERN, says("traefik.annotation")),
        of("traefik/ingress-pod-ip", None, says("notes.numeric-port")),
    ];
    let report = Report::new(report(vec![]).environment, cells, &fixtures.claims);
    let text = render(&report, &fixtures);
    let own = section(&text, "### traefik: what the page says that no longer holds");
    assert!(own.contains("[traefik/ingress-middleware](#traefikingress-middleware)"), "{own}");
    assert!(!own.contains("servicePort"), "{own}");
    let general = section(&text, "## What the page says of all controllers that no longer holds");
    assert!(general.contains("only numeric servicePort") && !general.contains("custom-request-headers"), "{general}");
}

#[test]
fn every_placeholder_that_is_shown_is_explained() {
    for controller in Fixtures::built_in().unwrap().controllers.values() {
        let texts = controller.recipes.values().flat_map(|recipe| parts(recipe, true)).chain(installed(controller));
        for text in texts.map(|part| part.text) {
            for name in text.split("${").skip(1).map(|rest| rest.split('}').next().unwrap()) {
                // Of the installation, and about TLS.
                let known = PLACEHOLDERS.iter().any(|(known, _)| *known == name);
                assert!(known, "{}: ${{{name}}} in {text}", controller.name);
            }
        }
    }
}

#[test]
fn a_mode_is_got_by_an_annotation_where_there_is_a_proxy() {
    for controller in Fixtures::built_in().unwrap().controllers.values() {
        assert_eq!(mode(controller, Mode::Outside), None);
        assert!(mode(controller, Mode::Ingress).unwrap().ends_with("linkerd.io/inject: ingress"));
    }
}
