//! The ledger of the page's claims, and the remedies that it and the recipes' findings name, hold together.

use std::collections::{BTreeMap, BTreeSet};

use meshgate_fixtures::{ClientOverride, Fixtures, Mode, Recipe, Says, Weights};
use meshgate_harness::matrix::{self, Cell, Dialect, Place, Selection};

use crate::cases;

/// The page's sentences are all accounted for, and none is said to be beyond test that something tests.
#[test]
fn every_claim_is_cited_or_untestable() {
    let fixtures = Fixtures::built_in().unwrap();
    let recipes = fixtures.controllers.values().flat_map(|controller| controller.recipes.values());
    let by_recipes = recipes.flat_map(|recipe| recipe.claims.values()).flat_map(Says::claims);
    let by_cases = cases().into_iter().flat_map(|case| case.claims).map(|evidence| evidence.claim());
    let cited: BTreeSet<&str> = by_recipes.chain(by_cases).collect();
    for claim in &fixtures.claims.0 {
        match (cited.contains(claim.id.as_str()), &claim.untestable) {
            (true, Some(_)) => panic!("{}: cited, and untestable", claim.id),
            (false, None) => panic!("{}: neither cited by anything nor untestable", claim.id),
            _ => {}
        }
    }
}

/// What is cited where it never runs says nothing.
#[test]
fn every_citation_is_judged_somewhere() {
    let fixtures = Fixtures::built_in().unwrap();
    let cells = matrix::cells(&fixtures, &Selection::default(), Place::USUAL).unwrap();
    let cells: Vec<(&Cell, &Recipe)> =
        cells.iter().map(|cell| (cell, &fixtures.controllers[&cell.controller].recipes[&cell.recipe])).collect();
    let mut judged: BTreeMap<String, bool> = BTreeMap::new();
    for case in cases() {
        for (cell, recipe) in &cells {
            let runs = case.not_applicable(cell, recipe).is_none();
            let mut note = |citation: String| *judged.entry(citation).or_default() |= runs;
            for evidence in case.claims {
                note(format!("{} of {}", evidence.claim(), case.id));
            }
            // What is said of a controller is said in all of its recipes; one of them that judges the case is enough.
            let says = recipe.claims.get(case.id);
            for claim in says.iter().flat_map(|says| says.claims()) {
                note(format!("{claim} of {} with {}", case.id, cell.controller));
            }
        }
    }
    let never: Vec<&String> = judged.iter().filter(|(_, judged)| !**judged).map(|(citation, _)| citation).collect();
    assert!(never.is_empty(), "cited where the case is not judged: {never:?}");
}

fn known<'a>(fixtures: &'a Fixtures, (controller, recipe): (&str, &str), text: &str) -> &'a Recipe {
    let known = fixtures.controllers.get(controller).and_then(|known| known.recipes.get(recipe));
    known.unwrap_or_else(|| panic!("{controller} has no recipe {recipe}, which is named in: {text}"))
}

/// Whoever takes the recipe that a refuted sentence or a finding names is rid of the trouble, by what that recipe promises.
#[test]
fn recipes_that_are_named_as_remedies_are_remedies() {
    let fixtures = Fixtures::built_in().unwrap();
    for claim in &fixtures.claims.0 {
        if let Some(text) = &claim.instead {
            for path in fixtures.recipes_named(text, "") {
                let promises = known(&fixtures, path, text).promises(Dialect::Modern.as_str());
                let cures = promises.serves && promises.route_metrics && promises.split;
                assert!(cures, "{}: {path:?} does not promise what the page wants", claim.id);
            }
        }
        if let Some(text) = &claim.untestable {
            fixtures.recipes_named(text, "").into_iter().for_each(|path| _ = known(&fixtures, path, text));
        }
    }
    for controller in fixtures.controllers.values() {
        for (recipe, finding, text) in controller
            .recipes
            .values()
            .flat_map(|recipe| recipe.findings.iter().map(move |(finding, text)| (&recipe.name, finding, text)))
        {
            for path in fixtures.recipes_named(text, &controller.name) {
                let other = known(&fixtures, path, text);
                let promises = other.promises(Dialect::Modern.as_str());
                let replaced = promises.client_override == ClientOverride::Replaced;
                let cures = match finding.as_str() {
                    // In default mode nobody follows a header, a client's or another.
                    "open-relay"
                    | "host-chooses"
                    | "default-backend-chosen"
                    | "error-page-chosen"
                    | "auth-bypass"
                    | "override-erased" => other.mode != Mode::Ingress || replaced,
                    "weights-void" => promises.weights == Some(Weights::Honoured),
                    "header-reaches-application" => replaced,
                    "header-void" => other.mode == Mode::Ingress && promises.sets_override,
                    // No promise speaks of the others; that it does not have the weakness itself is what it can say.
                    _ => true,
                };
                let cures = cures && promises.serves && !other.findings.contains_key(finding);
                assert!(cures, "{}/{recipe}: {path:?} does not cure {finding}", controller.name);
            }
        }
    }
}
