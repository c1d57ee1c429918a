//! `meshgate list`: what there is to run. Creates nothing.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::ValueEnum;
use meshgate_clusters::Kind;
use meshgate_fixtures::{Controller, Fixtures, Recipe};
use meshgate_harness::jobs;
use meshgate_harness::matrix::{self, Place, Selection};

use crate::{fail, output, target};

/// What to list.
#[derive(clap::Args)]
pub struct Args {
    /// Which list
    #[arg(value_enum, default_value_t = What::Cells)]
    what: What,
    /// Fixtures from a folder instead of the built-in ones
    #[arg(long, value_name = "DIR")]
    fixtures: Option<PathBuf>,
    #[command(flatten)]
    jobs: Jobs,
}

impl Args {
    /// Refuses what the list has no place for.
    fn check(&self) -> anyhow::Result<()> {
        let given = [("--controllers", &self.jobs.controllers), ("--mode", &self.jobs.modes)];
        let given = given.into_iter().find(|(_, names)| !names.is_empty());
        match (self.what, given) {
            (What::Controllers | What::Cases | What::Claims, Some((option, _))) => {
                bail!("{option} chooses among recipes, cells and jobs; this list is the same for all: leave it out")
            }
            _ => Ok(()),
        }
    }
}

/// Which cells or jobs.
#[derive(clap::Args)]
#[group(id = "jobs")]
struct Jobs {
    /// Of recipes, cells and jobs: controllers, `name` or `name@version`; all when left out
    #[arg(long, value_delimiter = ',')]
    controllers: Vec<String>,
    /// Of recipes, cells and jobs: modes of the proxy beside the controller; all when left out
    #[arg(long = "mode", value_delimiter = ',')]
    modes: Vec<String>,
    /// Of jobs: kinds of clusters, as `run --cluster` takes them
    #[arg(long, value_delimiter = ',', value_name = "KIND", default_value = "embedded", value_parser = target::kind)]
    clusters: Vec<Kind>,
    /// Of jobs: the versions of a controller that is named without one
    #[arg(long, value_enum, default_value_t = Versions::Newest)]
    versions: Versions,
}

#[derive(Clone, Copy, ValueEnum)]
enum Versions {
    /// The newest
    Newest,
    /// Each
    All,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Controllers and their versions
    Controllers,
    /// Recipes with their promises
    Recipes,
    /// The cells of the newest versions
    Cells,
    /// The jobs that a CI service runs side by side, as a JSON array: controllers x versions x modes x clusters
    Jobs,
    /// Cases with what they show
    Cases,
    /// The claims of the page
    Claims,
}

/// Prints the list.
pub fn main(args: Args) -> ExitCode {
    let result =
        crate::run::fixtures(args.fixtures.as_deref()).and_then(|fixtures| output::print(&list(&args, &fixtures)?));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(2, &error),
    }
}

fn list(args: &Args, fixtures: &Fixtures) -> anyhow::Result<String> {
    args.check()?;
    let mut text = String::new();
    let mut line = |line: String| text.extend([line.as_str(), "\n"]);
    match args.what {
        What::Controllers => {
            for controller in fixtures.controllers.values() {
                let versions: Vec<&str> = controller.versions.iter().map(|version| version.0.as_str()).collect();
                line(format!(
                    "{}  {}{}\n  versions: {}",
                    controller.name,
                    controller.summary,
                    played(controller),
                    versions.join(", ")
                ));
            }
        }
        What::Recipes => {
            let cells = matrix::cells(fixtures, &args.jobs.selection(), Place::USUAL)?;
            for controller in fixtures.controllers.values() {
                let meant = |recipe: &&Recipe| {
                    cells.iter().any(|cell| (&cell.controller, &cell.recipe) == (&controller.name, &recipe.name))
                };
                for recipe in controller.recipes.values().filter(meant) {
                    line(format!(
                        "{}/{} ({} mode){}\n  {}",
                        controller.name,
                        recipe.name,
                        recipe.mode.as_str(),
                        played(controller),
                        recipe.summary
                    ));
                    for (name, remedy) in &recipe.findings {
                        line(format!("  finding {name}: {remedy}"));
                    }
                }
            }
        }
        What::Cells => {
            for cell in matrix::cells(fixtures, &args.jobs.selection(), Place::USUAL)? {
                line(format!("{cell}{}", played(fixtures.controller(&cell.controller)?)));
            }
        }
        What::Jobs => line(serde_json::to_string(&args.jobs.of(fixtures)?)?),
        What::Cases => {
            for case in meshgate_suites::cases() {
                line(format!("{:<44} {}", case.id, case.summary));
            }
        }
        What::Claims => {
            for claim in &fixtures.claims.0 {
                line(format!("{:<32} {}", claim.id, claim.text));
            }
        }
    }
    Ok(text)
}

/// Who plays a controller, behind its name, where that is not the controller itself.
fn played(controller: &Controller) -> String {
    controller.implementation.note().map(|note| format!(" ({note})")).unwrap_or_default()
}

impl Jobs {
    fn selection(&self) -> Selection {
        Selection { controllers: self.controllers.clone(), modes: self.modes.clone(), ..Selection::default() }
    }

    fn of(&self, fixtures: &Fixtures) -> anyhow::Result<Vec<jobs::Job>> {
        let versions = match self.versions {
            Versions::Newest => jobs::Versions::Newest,
            Versions::All => jobs::Versions::All,
        };
        Ok(jobs::jobs(fixtures, &self.selection(), versions, &self.clusters)?)
    }
}
