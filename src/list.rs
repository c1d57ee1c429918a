//! `meshgate list`: what there is to run. Creates nothing.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use meshgate_fixtures::Fixtures;
use meshgate_harness::matrix::{self, Place, Selection};

use crate::{fail, output};

/// What to list.
#[derive(clap::Args)]
pub struct Args {
    /// Which list
    #[arg(value_enum, default_value_t = What::Cells)]
    what: What,
    /// Fixtures from a folder instead of the built-in ones
    #[arg(long, value_name = "DIR")]
    fixtures: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Controllers and their versions
    Controllers,
    /// Recipes with their promises
    Recipes,
    /// The cells of the newest versions
    Cells,
    /// Cases with what they show
    Cases,
    /// The claims of the page
    Claims,
}

/// Prints the list.
pub fn main(args: Args) -> ExitCode {
    let result =
        crate::run::fixtures(args.fixtures.as_deref()).and_then(|fixtures| output::print(&list(args.what, &fixtures)?));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(2, &error),
    }
}

fn list(what: What, fixtures: &Fixtures) -> anyhow::Result<String> {
    let mut text = String::new();
    let mut line = |line: String| text.extend([line.as_str(), "\n"]);
    match what {
        What::Controllers => {
            for controller in fixtures.controllers.values() {
                let versions: Vec<&str> = controller.versions.iter().map(|version| version.0.as_str()).collect();
                line(format!("{}  {}\n  versions: {}", controller.name, controller.summary, versions.join(", ")));
            }
        }
        What::Recipes => {
            for controller in fixtures.controllers.values() {
                for recipe in controller.recipes.values() {
                    line(format!(
                        "{}/{} ({} mode)\n  {}",
                        controller.name,
                        recipe.name,
                        recipe.mode.as_str(),
                        recipe.summary
                    ));
                    for (name, remedy) in &recipe.findings {
                        line(format!("  finding {name}: {remedy}"));
                    }
                }
            }
        }
        What::Cells => {
            for cell in matrix::cells(fixtures, &Selection::default(), Place::USUAL)? {
                line(cell.id());
            }
        }
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
