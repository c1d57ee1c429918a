//! What is to be run: controllers x versions x recipes x dialects.

use std::fmt;

use meshgate_clusters::{Kind, Lack};
use meshgate_fixtures::{Controller, Fixtures, Mode, Recipe, Version, did_you_mean};
use serde::{Deserialize, Serialize};

/// Which routing rule the bundled proxy follows in ingress mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// Linkerd 2.8's. Each era has the defects of its time.
    #[serde(rename = "2.8")]
    V2_8,
    /// Linkerd 2.9's.
    #[serde(rename = "2.9")]
    V2_9,
    /// Linkerd 2.10.0's.
    #[serde(rename = "2.10.0")]
    V2_10_0,
    /// Linkerd 2.11's.
    #[serde(rename = "2.11")]
    V2_11,
    /// Linkerd 2.13.0's.
    #[serde(rename = "2.13.0")]
    V2_13_0,
    /// The page's: override, then `:authority`, then `Host`.
    Documented,
    /// Today's Linkerd: override, else the original destination.
    Modern,
}

impl Dialect {
    /// Those that a run judges when it is not asked for others: the page's and today's.
    const USUAL: [Self; 2] = [Self::Documented, Self::Modern];

    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::V2_8, Self::V2_9, Self::V2_10_0, Self::V2_11, Self::V2_13_0, Self::Documented, Self::Modern];

    /// As it stands in reports and annotations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2_8 => "2.8",
            Self::V2_9 => "2.9",
            Self::V2_10_0 => "2.10.0",
            Self::V2_11 => "2.11",
            Self::V2_13_0 => "2.13.0",
            Self::Documented => "documented",
            Self::Modern => "modern",
        }
    }
}

/// Whose mesh the cells are in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mesh {
    /// Meshgate's own: its control plane, its proxy, put into manifests by its injector.
    #[default]
    Bundled,
    /// Linkerd's, whose webhook puts its proxy into pods.
    Linkerd,
}

impl Mesh {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Bundled, Self::Linkerd];

    /// As reports and the command line name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bundled => "bundled",
            Self::Linkerd => "linkerd",
        }
    }
}

/// The unit that is set up, run and torn down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// The controller's name.
    pub controller: String,
    /// Its version.
    pub version: Version,
    /// The recipe's name.
    pub recipe: String,
    /// How the proxy beside the controller runs.
    pub mode: Mode,
    /// The proxy's dialect; only ingress mode has several.
    pub dialect: Option<Dialect>,
    /// The dialect under which another cell of the run judges the same recipe, which promises the same. Cases that
    /// come to the same under every dialect are left to that cell.
    pub beside: Option<Dialect>,
    /// The recipe in whose cell this run judges what does not come near the controller, and so is the same for all its recipes in
    /// this mode and dialect. `None` when it is this one.
    pub shared_in: Option<String>,
    /// The recipe in whose cell this run judges what comes to the same for all of the controller's recipes that promise the same
    /// in this mode and dialect. `None` when it is this one.
    pub alike_in: Option<String>,
    /// The cluster's kind.
    pub cluster: Kind,
    /// The mesh.
    pub mesh: Mesh,
    /// What the controller's data plane cannot do, as far as that is known: none where the cluster gets it by itself.
    pub lacks: Vec<Lack>,
}

impl Cell {
    /// `traefik@3.7.15/ingress-middleware/modern`, in which a mode without dialects stands for itself.
    pub fn id(&self) -> String {
        format!("{}@{}/{}/{}", self.controller, self.version, self.recipe, self.variant())
    }

    /// `documented` or `modern` in ingress mode, else the mode: `default`, `outside`.
    pub fn variant(&self) -> &'static str {
        self.dialect.map_or(self.mode.as_str(), Dialect::as_str)
    }

    /// The id as one path element.
    pub fn slug(&self) -> String {
        self.id().replace(['/', '@'], "_")
    }

    /// Leaves nothing to other cells of the run, even what comes to the same there.
    pub fn judge_everything(&mut self) {
        (self.beside, self.shared_in, self.alike_in) = (None, None, None);
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id())
    }
}

/// Where cells are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The cluster's kind.
    pub cluster: Kind,
    /// The mesh.
    pub mesh: Mesh,
}

impl Place {
    /// Where they are when nothing else is asked for.
    pub const USUAL: Self = Self { cluster: Kind::Embedded, mesh: Mesh::Bundled };
}

/// What was asked for. Empty lists mean all.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Controllers, each `name` or `name@version`.
    pub controllers: Vec<String>,
    /// Recipes by name.
    pub recipes: Vec<String>,
    /// Modes by name.
    pub modes: Vec<String>,
    /// Dialects by name.
    pub dialects: Vec<String>,
}

/// Why a selection means nothing.
#[derive(Debug, thiserror::Error)]
pub enum SelectionError {
    /// An unknown controller or recipe.
    #[error(transparent)]
    Fixtures(#[from] meshgate_fixtures::Error),
    /// An unknown version.
    #[error(
        "{controller} has no version \"{version}\" here{meant} (known: {known}); to have it, add it to `versions` in {controller}/controller.yaml of a copy of the fixtures and give that with --fixtures; CONTRIBUTING.md says what a new version needs besides"
    )]
    UnknownVersion {
        /// Whose.
        controller: String,
        /// What was asked for.
        version: String,
        /// What may be meant: see [`did_you_mean`].
        meant: String,
        /// All of them.
        known: String,
    },
    /// An unknown mode or dialect.
    #[error("no {what} \"{name}\"{meant} (known: {known})")]
    Unknown {
        /// `mode` or `dialect`.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// What may be meant: see [`did_you_mean`].
        meant: String,
        /// All of them.
        known: String,
    },
    /// Known names that together select nothing.
    #[error("the selection is empty: {0}")]
    Empty(String),
}

/// The cells of a selection, in a stable order; each once, however often it was asked for.
pub fn cells(fixtures: &Fixtures, selection: &Selection, place: Place) -> Result<Vec<Cell>, SelectionError> {
    let dialects = dialects(&selection.dialects)?;
    let modes = modes(&selection.modes)?;
    let wanted: Vec<String> = if selection.controllers.is_empty() {
        fixtures.controllers.keys().cloned().collect()
    } else {
        selection.controllers.clone()
    };
    let mut controllers: Vec<(&Controller, Version)> = Vec::new();
    for name in &wanted {
        let (controller, version) = controller_at(fixtures, name)?;
        // The newest version has two names.
        if !controllers.iter().any(|(known, at)| (&known.name, at) == (&controller.name, &version)) {
            controllers.push((controller, version));
        }
    }
    for name in &selection.recipes {
        // A recipe has to exist with one of the controllers asked for, not with each.
        if let Some(answer) = controllers.iter().map(|(controller, _)| controller.recipe(name)).reduce(Result::or) {
            answer?;
        }
    }
    let mut cells: Vec<Cell> = Vec::new();
    let mut left_out = Vec::new();
    for (controller, version) in &controllers {
        let from = cells.len();
        for recipe in controller.recipes.values() {
            if !selection.recipes.is_empty() && !selection.recipes.contains(&recipe.name) {
                continue;
            }
            if !modes.contains(&recipe.mode) {
                left_out.push(of_other_mode(controller, recipe));
                continue;
            }
            match &recipe.since {
                Some(since) if !recipe.supports(version) => {
                    left_out.push(format!("{} needs {} {since} or later", recipe.name, controller.name));
                }
                _ => cells.extend(of_recipe(controller, version, recipe, &dialects, place)),
            }
        }
        share(controller, &mut cells[from..]);
    }
    if cells.is_empty() {
        return Err(SelectionError::Empty(left_out.join("; ")));
    }
    Ok(cells)
}

/// The cells of a recipe that the fixtures do not hold, on one controller.
pub fn of_own_recipe(
    controller: &Controller,
    version: &Version,
    recipe: &Recipe,
    selection: &Selection,
    place: Place,
) -> Result<Vec<Cell>, SelectionError> {
    let dialects = dialects(&selection.dialects)?;
    if !modes(&selection.modes)?.contains(&recipe.mode) {
        return Err(SelectionError::Empty(of_other_mode(controller, recipe)));
    }
    Ok(of_recipe(controller, version, recipe, &dialects, place))
}

fn of_other_mode(controller: &Controller, recipe: &Recipe) -> String {
    format!("{} of {} runs in mode {}", recipe.name, controller.name, recipe.mode.as_str())
}

/// Whether whoever asked for dialects gets none, in a sentence: the bundled proxy has them in ingress mode only.
pub fn without_dialect(cells: &[Cell], wanted: &[String]) -> Option<String> {
    let none = !wanted.is_empty() && cells.iter().all(|cell| cell.dialect.is_none());
    none.then(|| format!("--dialect {} changes nothing: none of the cells is in ingress mode", wanted.join(",")))
}

/// The cells of one recipe: one per dialect in ingress mode, one in the others.
fn of_recipe(
    controller: &Controller,
    version: &Version,
    recipe: &Recipe,
    dialects: &[Dialect],
    place: Place,
) -> Vec<Cell> {
    let variants: Vec<Option<Dialect>> = match recipe.mode {
        Mode::Default | Mode::Outside => vec![None],
        Mode::Ingress => dialects.iter().copied().map(Some).collect(),
    };
    let whole = variants.iter().copied().max().flatten();
    // Dialects follow an override alike, and nothing else.
    let same = |dialect: Dialect| {
        let promises = recipe.promises(dialect.as_str());
        whole.is_some_and(|whole| promises == recipe.promises(whole.as_str()) && promises.sets_override)
    };
    variants
        .into_iter()
        .map(|dialect| Cell {
            controller: controller.name.clone(),
            version: version.clone(),
            recipe: recipe.name.clone(),
            mode: recipe.mode,
            dialect,
            shared_in: None,
            alike_in: None,
            // An era's defects are what it is run for.
            beside: whole.filter(|whole| {
                dialect.is_some_and(|dialect| dialect != *whole && Dialect::USUAL.contains(&dialect) && same(dialect))
            }),
            cluster: place.cluster,
            mesh: place.mesh,
            lacks: Vec::new(),
        })
        .collect()
}

/// Says which of a controller's cells judges what is the same in several of them.
fn share(controller: &Controller, cells: &mut [Cell]) {
    let everywhere = judges(controller, cells, |cell, _| cell.variant());
    let alike = judges(controller, cells, |cell, recipe| (cell.variant(), recipe.class(cell.variant())));
    for ((cell, everywhere), alike) in cells.iter_mut().zip(everywhere).zip(alike) {
        (cell.shared_in, cell.alike_in) = (everywhere, alike);
    }
}

/// For each cell the recipe that judges for all cells with its key, unless it does so itself: the first recipe that works with every
/// version of the controller, so that reports of two versions say the same of the same cell.
fn judges<'a, K: PartialEq>(
    controller: &'a Controller,
    cells: &'a [Cell],
    key: impl Fn(&'a Cell, &'a Recipe) -> K,
) -> Vec<Option<String>> {
    let known: Vec<(&Cell, &Recipe)> =
        cells.iter().filter_map(|cell| Some((cell, controller.recipes.get(&cell.recipe)?))).collect();
    let lasting = known.iter().filter(|(_, recipe)| recipe.since.is_none());
    let order: Vec<(K, &str)> =
        lasting.chain(&known).map(|(cell, recipe)| (key(cell, recipe), recipe.name.as_str())).collect();
    let judge = |cell: &'a Cell| {
        let key = key(cell, controller.recipes.get(&cell.recipe)?);
        let (_, judge) = order.iter().find(|(other, _)| *other == key)?;
        (*judge != cell.recipe).then(|| (*judge).to_owned())
    };
    cells.iter().map(judge).collect()
}

/// `name` or `name@version`.
pub fn controller_at<'a>(fixtures: &'a Fixtures, wanted: &str) -> Result<(&'a Controller, Version), SelectionError> {
    let (name, version) = wanted.split_once('@').map_or((wanted, None), |(name, version)| (name, Some(version)));
    let controller = fixtures.controller(name)?;
    let version = match version {
        None => controller.newest().clone(),
        Some(version) => known_version(controller, version)?,
    };
    Ok((controller, version))
}

/// A version of a controller that the fixtures know.
pub fn known_version(controller: &Controller, version: &str) -> Result<Version, SelectionError> {
    let known = || controller.versions.iter().map(|version| version.0.as_str());
    if known().any(|candidate| candidate == version) {
        return Ok(Version(version.to_owned()));
    }
    Err(SelectionError::UnknownVersion {
        controller: controller.name.clone(),
        version: version.to_owned(),
        meant: did_you_mean(version, known()),
        known: known().collect::<Vec<_>>().join(", "),
    })
}

/// Modes by name; none given means all.
fn modes(names: &[String]) -> Result<Vec<Mode>, SelectionError> {
    if names.is_empty() { Ok(Mode::ALL.to_vec()) } else { named("mode", names, Mode::ALL, Mode::as_str) }
}

/// Dialects by name; none given means those that are usual.
fn dialects(names: &[String]) -> Result<Vec<Dialect>, SelectionError> {
    if names.is_empty() { Ok(Dialect::USUAL.to_vec()) } else { named("dialect", names, Dialect::ALL, Dialect::as_str) }
}

/// Each of `names` as what has that name; what is named twice is there once.
fn named<T: Copy + PartialEq, const N: usize>(
    what: &'static str,
    names: &[String],
    all: [T; N],
    as_str: fn(T) -> &'static str,
) -> Result<Vec<T>, SelectionError> {
    let known = all.map(as_str);
    let find = |name: &String| {
        all.into_iter().find(|one| as_str(*one) == name).ok_or_else(|| SelectionError::Unknown {
            what,
            name: name.clone(),
            meant: did_you_mean(name, known),
            known: known.join(", "),
        })
    };
    let mut found = Vec::new();
    for name in names {
        let one = find(name)?;
        if !found.contains(&one) {
            found.push(one);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
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
}
