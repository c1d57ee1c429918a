//! The documents that say what the fixtures say.

use std::collections::BTreeSet;
use std::path::Path;

use meshgate_fixtures::{Controller, Fixtures, Mode, Recipe};
use meshgate_harness::report::recipes;

fn document(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)).expect(name)
}

/// What is wrong with the page of the recipes, one line each.
fn wrong(page: &str, fixtures: &Fixtures) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut known = BTreeSet::new();
    for controller in fixtures.controllers.values() {
        let name = &controller.name;
        let Some(own) = section(page, &format!("## {name} {}", controller.newest())) else {
            wrong.push(format!("{name} {} is missing", controller.newest()));
            continue;
        };
        let mut shows = |what: String, text: &str, shown: &str| {
            if !text.contains(shown) {
                wrong.push(format!("{what} lacks: {shown}"));
            }
        };
        let modes: BTreeSet<Mode> = serving(controller).map(|recipe| recipe.mode).collect();
        let modes: Vec<String> =
            modes.into_iter().filter_map(|mode| recipes::mode(controller, mode)).map(yaml).collect();
        modes.iter().for_each(|shown| shows(name.clone(), own, shown));
        known.extend(modes);
        let installed: Vec<String> = recipes::installed(controller).into_iter().map(|part| yaml(part.text)).collect();
        installed.iter().for_each(|shown| shows(name.clone(), own, shown));
        known.extend(installed);
        shows(name.clone(), own, &controller.summary);
        for recipe in controller.recipes.values() {
            let path = format!("{name}/{}", recipe.name);
            let text = section(own, &format!("#### {path}")).unwrap_or_default();
            shows(path.clone(), text, &recipe.summary);
            if !recipe.source.is_empty() {
                shows(path.clone(), text, &format!("From {}.\n", recipe.source));
            }
            for variant in variants(recipe) {
                let promises = recipes::promises(recipe.promises(variant));
                shows(path.clone(), text, &format!("* `{variant}` promises {promises}; measured: "));
            }
            for (finding, remedy) in &recipe.findings {
                shows(path.clone(), text, &format!("* finding `{finding}`, observed: {remedy}\n"));
            }
            recipe.bad.values().for_each(|bad| shows(path.clone(), text, &format!("{}\n", recipes::fate(bad))));
            for part in recipes::parts(recipe, false) {
                shows(path.clone(), text, &yaml(part.text));
            }
            known.extend(recipes::parts(recipe, true).into_iter().map(|part| yaml(part.text)));
        }
    }
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("\n```")).map(|(text, _)| text);
    let strange = blocks.map(|text| yaml(text.to_owned())).filter(|block| !known.contains(block));
    wrong.extend(strange.map(|block| format!("no recipe has: {block}")));
    wrong
}

fn serving(controller: &Controller) -> impl Iterator<Item = &Recipe> {
    controller.recipes.values().filter(|recipe| variants(recipe).iter().any(|variant| recipe.promises(variant).serves))
}

fn variants(recipe: &Recipe) -> &'static [&'static str] {
    match recipe.mode {
        Mode::Ingress => &["documented", "modern"],
        Mode::Default => &["default"],
        Mode::Outside => &["outside"],
    }
}

fn yaml(text: String) -> String {
    format!("```yaml\n{text}\n```")
}

/// What stands between a heading and the next of its rank or above.
fn section<'a>(text: &'a str, heading: &str) -> Option<&'a str> {
    let after = text.split_once(&format!("\n{heading}\n"))?.1;
    let rank = heading.find(' ')?;
    // A comment in YAML may look like a heading.
    let mut at = 0;
    let mut fenced = false;
    for line in after.split_inclusive('\n') {
        fenced ^= line.starts_with("```");
        let ends = line.starts_with('#') && line.find(' ').is_some_and(|it| it <= rank);
        if ends && !fenced {
            break;
        }
        at += line.len();
    }
    Some(&after[..at])
}

#[test]
fn the_page_of_the_recipes_is_of_todays_fixtures() {
    let found = wrong(&document("docs/recipes.md"), &Fixtures::built_in().unwrap());
    assert!(
        found.is_empty(),
        "docs/recipes.md is not of today's fixtures; after `meshgate run` write it anew by `{}`:\n{}",
        recipes::COMMAND,
        found.join("\n")
    );
}

#[test]
fn a_page_of_other_fixtures_is_not_of_todays() {
    let page = document("docs/recipes.md");
    let fixtures = Fixtures::built_in().unwrap();
    let annotation = "    traefik.ingress.kubernetes.io/service.nativelb: \"true\"\n";
    assert!(page.contains(annotation));
    let without = wrong(&page.replace(annotation, ""), &fixtures);
    assert!(without[0].starts_with("traefik/ingress-nativelb lacks: ```yaml\n# A Service"), "{without:#?}");
    assert!(without.iter().any(|line| line.starts_with("no recipe has: ")), "{without:#?}");
    let mut renamed = fixtures.clone();
    let traefik = &mut renamed.controllers["traefik"];
    let mut recipe = traefik.recipes.shift_remove("ingress-nativelb").unwrap();
    recipe.name = "other".into();
    traefik.recipes.insert("other".into(), recipe);
    assert!(wrong(&page, &renamed).iter().any(|line| line.starts_with("traefik/other lacks: ")));
}

/// The rows of README's table, and whose they are.
const ROWS: [(&str, &[&str]); 9] = [
    ("Traefik 3 (Ingress, IngressRoute), Traefik with the Gateway API", &["traefik", "traefik-gateway"]),
    ("ingress-nginx", &["ingress-nginx"]),
    ("Emissary", &["emissary"]),
    ("Gloo", &["gloo"]),
    ("Contour", &["contour"]),
    ("Kong", &["kong"]),
    ("GKE's Ingress, whose load balancer is outside the cluster", &["gce"]),
    ("HAProxy Technologies' controller", &["haproxytech"]),
    ("Traefik 1.x", &["traefik-1x"]),
];

#[test]
fn the_table_of_the_readme_is_of_todays_fixtures() {
    let readme = document("README.md");
    let fixtures = Fixtures::built_in().unwrap();
    let table = readme.split_once("| controller | control plane | data plane | recipes |\n").unwrap().1;
    let rows: Vec<Vec<&str>> = table
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let names: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(names, ROWS.map(|(name, _)| name));
    let listed: BTreeSet<&str> = ROWS.iter().flat_map(|(_, controllers)| controllers.iter().copied()).collect();
    assert_eq!(listed, fixtures.controllers.keys().map(String::as_str).collect());
    for (row, (name, controllers)) in rows.iter().zip(ROWS) {
        let controllers: Vec<&Controller> = controllers.iter().map(|name| fixtures.controller(name).unwrap()).collect();
        let recipes: usize = controllers.iter().map(|controller| controller.recipes.len()).sum();
        assert_eq!(row[3], recipes.to_string(), "{name}: how many recipes");
        for controller in controllers {
            assert_eq!(row[1], controller.implementation.control_plane, "{name}");
            let plane = row[2].to_lowercase();
            assert!(plane.starts_with(&controller.implementation.data_plane), "{name}: {plane}");
        }
    }
}
