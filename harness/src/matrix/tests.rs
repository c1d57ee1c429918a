use super::*;

fn select(controllers: &[&str], recipes: &[&str], dialects: &[&str]) -> Result<Vec<Cell>, SelectionError> {
    let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    let selection = Selection {
        controllers: own(controllers),
        recipes: own(recipes),
        dialects: own(dialects),
        ..Selection::default()
    };
    cells(&Fixtures::built_in().unwrap(), &selection, Place::USUAL)
}

#[test]
fn ingress_cells_run_under_every_dialect() {
    let cells = select(&["traefik"], &["ingress-middleware", "ingress-pod-ip"], &[]).unwrap();
    let ids: Vec<_> = cells.iter().map(|cell| format!("{}/{}", cell.recipe, cell.variant())).collect();
    assert_eq!(ids, ["ingress-middleware/documented", "ingress-middleware/modern", "ingress-pod-ip/default"]);
}

#[test]
fn what_is_asked_for_twice_is_one_cell() {
    let newest = format!("traefik@{}", Fixtures::built_in().unwrap().controller("traefik").unwrap().newest());
    let recipes = ["ingress-middleware", "ingress-middleware", "ingress-pod-ip"];
    let once = select(&["traefik"], &recipes, &["modern"]).unwrap();
    assert_eq!(once.len(), 2, "{once:#?}");
    assert_eq!(select(&["traefik", &newest, "traefik"], &recipes, &["modern", "modern"]).unwrap(), once);
    let older = select(&["traefik", "traefik@3.7.9"], &recipes, &["modern"]).unwrap();
    assert_eq!(older.len(), 4, "the control: {older:#?}");
}

#[test]
fn todays_dialect_judges_a_recipe_whole_and_the_others_beside_it() {
    let beside = |recipe, dialects: &[&str]| -> Vec<Option<Dialect>> {
        select(&["traefik"], &[recipe], dialects).unwrap().iter().map(|cell| cell.beside).collect()
    };
    assert_eq!(beside("ingress-middleware", &[]), [Some(Dialect::Modern), None]);
    assert_eq!(beside("ingress-middleware", &["documented"]), [None]);
    // It promises something else under each.
    assert_eq!(beside("page-ingress-1x", &[]), [None, None]);
    assert_eq!(beside("ingress-pod-ip", &[]), [None]);
}

#[test]
fn one_recipe_of_each_mode_and_dialect_judges_what_does_not_come_near_the_controller() {
    for version in ["3.0.4", "3.7.15"] {
        let cells = select(&[&format!("traefik@{version}")], &[], &[]).unwrap();
        let judges: Vec<String> = cells
            .iter()
            .filter(|cell| cell.shared_in.is_none())
            .map(|cell| format!("{}/{}", cell.recipe, cell.variant()))
            .collect();
        let expected = ["ingress-middleware/documented", "ingress-middleware/modern", "ingress-nativelb/default"];
        assert_eq!(judges, expected, "{version}");
        for cell in &cells {
            let judge = cell.shared_in.as_ref().unwrap_or(&cell.recipe);
            assert!(judges.contains(&format!("{judge}/{}", cell.variant())), "{cell}: {judge}");
        }
    }
    // Whoever asks for one recipe has it judged whole.
    let cells = select(&["traefik"], &["ingressroute-weighted"], &[]).unwrap();
    assert!(cells.iter().all(|cell| cell.shared_in.is_none()));
    // The only recipe of a mode is its own judge, even one that needs a later version.
    let cells = select(&["traefik"], &["ingressroute-weighted", "ingress-pod-ip"], &[]).unwrap();
    assert!(cells.iter().all(|cell| cell.shared_in.is_none()));
}

#[test]
fn of_recipes_that_promise_the_same_one_judges_what_lies_behind_their_routes() {
    let fixtures = Fixtures::built_in().unwrap();
    let all = cells(&fixtures, &Selection::default(), Place::USUAL).unwrap();
    let class = |cell: &Cell, recipe: &str| {
        let recipe = fixtures.controllers[&cell.controller].recipes[recipe].clone();
        format!("{:?}", recipe.class(cell.variant()))
    };
    let mut left = 0;
    for cell in &all {
        let Some(judge) = &cell.alike_in else { continue };
        left += 1;
        assert_eq!(class(cell, &cell.recipe), class(cell, judge), "{cell}: {judge}");
        let judge = all.iter().find(|other| {
            (&other.controller, &other.recipe, other.variant()) == (&cell.controller, judge, cell.variant())
        });
        assert_eq!(judge.and_then(|judge| judge.alike_in.as_deref()), None, "{cell}");
    }
    assert!(left > 0 && left < all.len(), "{left}");
    // Whoever asks for one recipe, or for everything, has it judged whole.
    let mut one = select(&["traefik"], &["ingressroute-middleware"], &["modern"]).unwrap();
    assert_eq!(one[0].alike_in, None);
    let mut two = select(&["traefik"], &["ingress-middleware", "ingressroute-middleware"], &["modern"]).unwrap();
    assert_eq!(two[1].alike_in.as_deref(), Some("ingress-middleware"));
    two[1].judge_everything();
    one[0].recipe = two[1].recipe.clone();
    assert_eq!(one[0], two[1]);
}

#[test]
fn a_dialect_that_changes_nothing_is_told() {
    let told = |recipes: &[&str], dialects: &[&str]| {
        let wanted: Vec<String> = dialects.iter().map(|name| (*name).to_owned()).collect();
        without_dialect(&select(&["traefik@3.7.15"], recipes, dialects).unwrap(), &wanted)
    };
    let said = "--dialect 2.8 changes nothing: none of the cells is in ingress mode";
    assert_eq!(told(&["ingress-nativelb"], &["2.8"]).as_deref(), Some(said));
    assert_eq!(told(&["ingress-nativelb"], &[]), None);
    assert_eq!(told(&["ingress-nativelb", "ingress-middleware"], &["2.8"]), None);
}

#[test]
fn a_recipe_outside_the_mesh_has_one_cell_whatever_the_dialects() {
    let fixtures = Fixtures::built_in().unwrap();
    for dialects in [&["modern".to_owned()][..], &[]] {
        let selection = Selection { dialects: dialects.to_vec(), ..Selection::default() };
        let cells = cells(&fixtures, &selection, Place::USUAL).unwrap();
        let outside: Vec<_> = cells.iter().filter(|cell| cell.mode == Mode::Outside).collect();
        assert!(!outside.is_empty());
        for cell in outside {
            assert_eq!((cell.dialect, cell.variant()), (None, "outside"));
            let same = |other: &&Cell| (&other.controller, &other.recipe) == (&cell.controller, &cell.recipe);
            assert_eq!(cells.iter().filter(same).count(), 1);
        }
    }
}

#[test]
fn the_cells_of_a_mode_are_the_same_with_and_without_the_others() {
    let fixtures = Fixtures::built_in().unwrap();
    let all = cells(&fixtures, &Selection::default(), Place::USUAL).unwrap();
    for mode in Mode::ALL {
        let selection = Selection { modes: vec![mode.as_str().into()], ..Selection::default() };
        let alone = cells(&fixtures, &selection, Place::USUAL).unwrap();
        // Also what a cell leaves to others: they are of its own mode.
        let expected: Vec<Cell> = all.iter().filter(|cell| cell.mode == mode).cloned().collect();
        assert_eq!(alone, expected);
        assert!(!alone.is_empty());
    }
}

#[test]
fn a_mode_without_a_recipe_is_an_empty_selection() {
    let fixtures = Fixtures::built_in().unwrap();
    let select = |recipes: &[&str], mode: &str| {
        let recipes = recipes.iter().map(|recipe| (*recipe).to_owned()).collect();
        let selection =
            Selection { controllers: vec!["traefik".into()], recipes, modes: vec![mode.into()], dialects: vec![] };
        cells(&fixtures, &selection, Place::USUAL).unwrap_err().to_string()
    };
    let message = select(&["ingress-pod-ip"], "ingress");
    assert_eq!(message, "the selection is empty: ingress-pod-ip of traefik runs in mode default");
    assert!(select(&[], "outside").starts_with("the selection is empty: "));
    assert_eq!(
        select(&[], "ingres"),
        "no mode \"ingres\"; did you mean \"ingress\"? (known: default, ingress, outside)"
    );
}

#[test]
fn a_controller_without_recipes_is_an_empty_selection() {
    let mut fixtures = Fixtures::built_in().unwrap();
    fixtures.controllers["gce"].recipes.clear();
    let select = |fixtures: &Fixtures, controllers: &[&str]| {
        let controllers = controllers.iter().map(|name| (*name).to_owned()).collect();
        let selection = Selection { controllers, ..Selection::default() };
        cells(fixtures, &selection, Place::USUAL).map_err(|error| error.to_string())
    };
    assert_eq!(select(&fixtures, &["gce"]).unwrap_err(), "the selection is empty: gce has no recipes");
    assert!(select(&fixtures, &[]).is_ok(), "the others have some");
    fixtures.controllers.clear();
    assert_eq!(select(&fixtures, &[]).unwrap_err(), "the selection is empty: the fixtures have no controllers");
}

#[test]
fn unknown_names_are_answered_with_the_nearest() {
    let message = |result: Result<Vec<Cell>, SelectionError>| result.unwrap_err().to_string();
    assert!(message(select(&["trafik"], &[], &[])).contains("did you mean \"traefik\""));
    assert!(message(select(&["traefik@3.7.99"], &[], &[])).contains("did you mean \"3.7.9\""));
    assert!(message(select(&[], &["ingres-middleware"], &[])).contains("did you mean \"ingress-middleware\""));
    assert!(message(select(&[], &[], &["moderm"])).contains("did you mean \"modern\""));
    assert!(message(select(&[], &[], &["2.10"])).contains("did you mean \"2.10.0\""));
    let latest = message(select(&["traefik@latest"], &[], &[]));
    assert!(latest.starts_with("traefik has no version \"latest\" here (known: "), "{latest}");
    assert!(latest.contains("add it to `versions` in traefik/controller.yaml"), "{latest}");
}

#[test]
fn a_recipe_is_left_out_before_its_version() {
    let message = select(&["traefik@3.0.4"], &["ingressroute-weighted"], &[]).unwrap_err().to_string();
    assert!(message.contains("needs traefik 3.7.0 or later"), "{message}");
}

/// What is the same for all recipes of a controller may need routes.
#[test]
fn a_recipe_that_serves_nothing_judges_for_no_other() {
    let fixtures = Fixtures::built_in().unwrap();
    for cell in cells(&fixtures, &Selection::default(), Place::USUAL).unwrap() {
        let serves =
            |recipe: &str| fixtures.controllers[&cell.controller].recipes[recipe].promises(cell.variant()).serves;
        // What the dialects have in common is judged under the other one.
        if cell.dialect != Some(Dialect::Documented) && serves(&cell.recipe) {
            let judge = cell.shared_in.as_deref().unwrap_or(&cell.recipe);
            assert!(serves(judge), "{cell}: {judge} comes before it by name");
        }
    }
}
