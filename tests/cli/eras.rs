//! Linkerd's past, by the dialects of the bundled proxy: the cases report the defects of each era, and no others.

use meshgate_harness::report::Report;
use meshgate_harness::verdict::Verdict;

use crate::bench::Bench;

/// The recipe that sets the header, and the page's, whose annotation sets none.
const WITH_HEADER: &str = "ingress-middleware";
const WITHOUT: &str = "page-ingress-1x";

/// A host that leads back to the ingress, wherever that is followed.
const LEADS_BACK: &str = "loops/page-example-com";

fn defects(era: &str, recipe: &str) -> Vec<String> {
    let bench = Bench::new();
    bench.run(&format!("run --controllers traefik --recipe {recipe} --dialect {era} --case modes/,{LEADS_BACK}"));
    let report = Report::read(&bench.join("report/report.json")).unwrap();
    let cell = &report.cells[0];
    assert!(cell.setup_seconds.is_some(), "{cell:#?}");
    let bad = cell.cases.iter().filter(|case| matches!(case.verdict, Verdict::Fail | Verdict::NotRun));
    bad.map(|case| case.id.clone()).collect()
}

#[test]
fn every_era_has_its_defects() {
    let nothing: &[&str] = &[];
    let table = [
        ("modern", WITH_HEADER, nothing),
        ("modern", WITHOUT, nothing),
        // Whoever is named by `Host` is asked, wherever that leads.
        (
            "2.8",
            WITH_HEADER,
            &[LEADS_BACK, "modes/authority", "modes/header-absent", "modes/header-ip", "modes/override-wins-over-host"],
        ),
        ("2.9", WITH_HEADER, nothing),
        // linkerd2#5975
        (
            "2.10.0",
            WITHOUT,
            &["modes/header-unknown-service", "modes/http2-overrides", "modes/two-overrides-one-connection"],
        ),
        // linkerd2#10908: a pod that is dialled without the header.
        ("2.13.0", WITH_HEADER, &[LEADS_BACK]),
    ];
    for (era, recipe, expected) in table {
        let mut found = defects(era, recipe);
        found.sort();
        assert_eq!(found, expected, "{recipe} under {era}");
    }
}
