//! The cases, one file per area.
//!
//! A case is data first: what it shows, what a cell must have for it to apply, which claims of the page it tests and what has
//! to exist before it can run ([`meshgate_harness::plan::Plan`]). Its body sends requests and checks what came back against
//! what the recipe promises. A check that something does *not* happen comes with a control experiment, which shows that the same
//! check fails when the safeguard is gone.

use meshgate_harness::case::Case;

mod books;
mod counters;
mod headers;
#[cfg(test)]
mod ledger;
mod loops;
mod modes;
mod policies;
mod recipe;
mod resilience;
mod route_metrics;
mod routing;
mod tls;
mod traffic_split;

/// The kinds of what cases make while they run, besides what their plans declare and further routes: for whoever lends a cluster.
pub const MADE_WHILE_RUNNING: [&str; 6] =
    ["AuthorizationPolicy", "Deployment", "GRPCRoute", "MeshTLSAuthentication", "ServiceProfile", "TrafficSplit"];

/// All cases, area by area, in the order of the report.
pub fn cases() -> Vec<&'static Case> {
    let areas = [
        // One line per area: the lists of its files.
        routing::CASES,
        modes::CASES,
        route_metrics::CASES,
        traffic_split::CASES,
        loops::CASES,
        headers::CASES,
        resilience::CASES,
        tls::CASES,
        policies::CASES,
        recipe::CASES,
    ];
    areas.into_iter().flatten().copied().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshgate_clusters::Feature;
    use meshgate_fixtures::{Fixtures, Says, TEMPLATES};
    use meshgate_harness::case::{Evidence, Need};
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn ids_are_unique_and_well_formed() {
        let mut seen = BTreeSet::new();
        for case in cases() {
            let (area, name) =
                case.id.split_once('/').unwrap_or_else(|| panic!("{}: expected area/behaviour", case.id));
            assert!(area.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{}", case.id);
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{}", case.id);
            assert!(seen.insert(case.id), "{} twice", case.id);
            assert!(case.slug().len() <= 45, "{}: its slug names objects and host labels, keep it short", case.id);
        }
    }

    #[test]
    fn every_claim_cited_exists() {
        let fixtures = Fixtures::built_in().unwrap();
        let claims = &fixtures.claims;
        for recipe in fixtures.controllers.values().flat_map(|controller| controller.recipes.values()) {
            for (case, says) in &recipe.claims {
                assert!(cases().iter().any(|known| known.id == case), "{} speaks of {case}", recipe.name);
                for claim in says.claims() {
                    assert!(claims.get(claim).is_some(), "{}, {case}: cites {claim}", recipe.name);
                }
            }
        }
        for case in cases() {
            for evidence in case.claims {
                assert!(claims.get(evidence.claim()).is_some(), "{} cites {}", case.id, evidence.claim());
            }
        }
    }

    /// What a document has in backticks, in fences or indented.
    fn code(text: &str) -> Vec<&str> {
        let mut found = Vec::new();
        let mut fenced = false;
        for line in text.lines() {
            if line.starts_with("```") || line.starts_with("~~~") {
                fenced = !fenced;
            } else if fenced || line.starts_with("    ") {
                found.push(line);
            } else {
                found.extend(line.split('`').skip(1).step_by(2));
            }
        }
        found
    }

    /// What a document names as `area/case` and is no case. An area alone, as in `--case routing/`, is none either way.
    fn unknown_cases(text: &str) -> Vec<String> {
        let ids: BTreeSet<&str> = cases().iter().map(|case| case.id).collect();
        let areas: BTreeSet<&str> = cases().iter().map(|case| case.area()).collect();
        let part = |c: char| c.is_ascii_alphanumeric() || "/_-.@".contains(c);
        let words = code(text).into_iter().flat_map(|code| code.split(move |c: char| !part(c)));
        let mut unknown = Vec::new();
        for word in words {
            let parts: Vec<&str> = word.split('/').collect();
            let pairs = parts.windows(2).filter(|pair| areas.contains(pair[0]) && !pair[1].is_empty());
            unknown.extend(pairs.map(|pair| pair.join("/")).filter(|id| !ids.contains(id.as_str())));
        }
        unknown
    }

    #[test]
    fn every_case_that_a_document_names_exists() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
        let documents = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
        let named = ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "ci/README.md"].map(|name| root.join(name));
        for path in documents.chain(named) {
            let unknown = unknown_cases(&std::fs::read_to_string(&path).unwrap());
            assert!(unknown.is_empty(), "{} names cases that there are not: {unknown:?}", path.display());
        }
        let known = "`meshgate run --case routing/` and\n\n    x@1/y/modern: fail routing/host: why\n";
        assert_eq!(unknown_cases(known), [""; 0]);
        let unknown =
            "`routing/hots`\n\n    x@1/y/modern/headers/none\n\n```\nloops/none-either: 1\n```\nrouting/in-prose\n";
        assert_eq!(unknown_cases(unknown), ["routing/hots", "headers/none", "loops/none-either"]);
    }

    /// A recipe cannot have a template of another name.
    #[test]
    fn every_template_that_a_case_asks_for_may_be_had() {
        for case in cases() {
            for need in case.needs {
                let Need::Template(name) = need else { continue };
                assert!(TEMPLATES.contains(name), "{} asks for {name}", case.id);
            }
        }
    }

    /// Whatever is sent to a recipe's gRPC routes is HTTP/2 without TLS.
    #[test]
    fn what_needs_grpc_routes_needs_a_data_plane_that_has_them_without_tls() {
        let has = |case: &Case, need| case.needs.contains(&need);
        let (grpc, http2) = (Need::Template("grpc"), Need::DataPlane(Feature::Http2WithoutTls));
        let differ: Vec<&str> =
            cases().into_iter().filter(|case| has(case, grpc) != has(case, http2)).map(|case| case.id).collect();
        assert_eq!(differ, [""; 0]);
        assert!(cases().into_iter().any(|case| has(case, http2)));
    }

    /// Who reads that a sentence of the page does not hold is told what to do.
    #[test]
    fn every_claim_that_may_be_refuted_has_a_remedy() {
        let fixtures = Fixtures::built_in().unwrap();
        let recipes = fixtures.controllers.values().flat_map(|controller| controller.recipes.values());
        let by_recipes =
            recipes.flat_map(|recipe| recipe.claims.values()).flat_map(Says::may_refute).map(str::to_owned);
        let by_cases = cases().into_iter().flat_map(|case| case.claims).filter_map(|evidence| match evidence {
            Evidence::Confirms(_) => None,
            Evidence::Refutes(id) | Evidence::HoldsAsDocumented(id) => Some((*id).to_owned()),
        });
        let refuted: BTreeSet<String> = by_recipes.chain(by_cases).collect();
        let remedy = |id: &String| fixtures.claims.get(id).and_then(|claim| claim.instead.as_deref());
        let without: Vec<&String> = refuted.iter().filter(|id| remedy(id).is_none()).collect();
        assert!(without.is_empty(), "no `instead` in claims.yaml: {without:?}");
    }
}
