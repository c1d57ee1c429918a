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
    if controllers.is_empty() {
        left_out.push("the fixtures have no controllers".to_owned());
    }
    for (controller, version) in &controllers {
        if controller.recipes.is_empty() {
            left_out.push(format!("{} has no recipes", controller.name));
        }
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
mod tests;
