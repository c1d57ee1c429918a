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
    use meshgate_fixtures::{Fixtures, Says};
    use meshgate_harness::case::{Evidence, Need};
    use std::collections::BTreeSet;

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
