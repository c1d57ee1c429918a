//! Linkerd's past, by the dialects of the bundled proxy: the cases report the defects of each era, and no others.

use meshgate_harness::report::Report;
use meshgate_harness::verdict::Verdict;

use crate::bench::{Bench, edit};

/// The recipe that sets the header, and the page's, whose annotation sets none.
const WITH_HEADER: &str = "ingress-middleware";
const WITHOUT: &str = "page-ingress-1x";

/// A host that leads back to the ingress, wherever that is followed.
const LEADS_BACK: &str = "loops/page-example-com";

/// What is not HTTP: passed on without discovery, or not at all.
const NOT_HTTP: &str = "modes/not-http";

/// What people who met linkerd2#6650 did: the controller's connections to the API server, which are TLS, go past its proxy.
const PAST_THE_PROXY: &str = "      annotations:\n        config.linkerd.io/skip-outbound-ports: \"443\"\n";

/// A folder with fixtures in which the controller reaches the API server whatever its proxy does.
fn with_the_workaround() -> Bench {
    let bench = Bench::new();
    let template = "  template:\n    metadata:\n";
    let workload = bench.fixtures().join("traefik/install/workload.yaml");
    edit(&workload, template, &format!("{template}{PAST_THE_PROXY}"));
    bench
}

fn defects(bench: &Bench, era: &str, recipe: &str, further: &str) -> Vec<String> {
    bench.run(&format!(
        "run --controllers traefik --recipe {recipe} --dialect {era} --case modes/,{LEADS_BACK} {further}"
    ));
    let report = Report::read(&bench.join("report/report.json")).unwrap();
    let cell = &report.cells[0];
    assert!(cell.setup_seconds.is_some(), "{cell:#?}");
    // That none of the cases is judged would look like an era without defects.
    let judged = |id: &str| cell.cases.iter().any(|case| case.id == id && case.verdict != Verdict::NotApplicable);
    assert!(judged(NOT_HTTP) && judged(LEADS_BACK), "{cell:#?}");
    let bad = cell.cases.iter().filter(|case| matches!(case.verdict, Verdict::Fail | Verdict::NotRun));
    let mut bad: Vec<String> = bad.map(|case| case.id.clone()).collect();
    bad.sort();
    bad
}

#[test]
fn every_era_has_its_defects() {
    let nothing: &[&str] = &[];
    let table = [
        ("modern", WITH_HEADER, nothing),
        ("modern", WITHOUT, nothing),
        // What the page says is what its cases hold it to.
        ("documented", WITH_HEADER, nothing),
        ("documented", WITHOUT, nothing),
        // Whoever is named by `Host` is asked, wherever that leads.
        (
            "2.8",
            WITH_HEADER,
            &[
                LEADS_BACK,
                "modes/authority",
                "modes/header-absent",
                "modes/header-ip",
                NOT_HTTP,
                "modes/override-wins-over-host",
            ],
        ),
        ("2.9", WITH_HEADER, &[NOT_HTTP]),
        ("2.9", WITHOUT, &[NOT_HTTP]),
        // linkerd2#5975
        (
            "2.10.0",
            WITHOUT,
            &["modes/header-unknown-service", "modes/http2-overrides", NOT_HTTP, "modes/two-overrides-one-connection"],
        ),
        // linkerd2#10908: a pod that is dialled without the header.
        ("2.13.0", WITH_HEADER, &[LEADS_BACK]),
    ];
    for (era, recipe, expected) in table {
        assert_eq!(defects(&Bench::new(), era, recipe, ""), expected, "{recipe} under {era}");
    }
}

/// linkerd2#6650: as it comes, the controller knows no route, because it reaches no API server.
#[test]
fn what_is_not_http_is_refused_in_2_11() {
    let of = |era| defects(&with_the_workaround(), era, WITH_HEADER, "--fixtures fixtures");
    assert_eq!(of("2.11"), [NOT_HTTP]);
    // The control: with the workaround alone there is none.
    assert_eq!(of("modern"), [""; 0]);
}
