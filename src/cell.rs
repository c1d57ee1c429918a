//! The role `cell`: one cell of the matrix in a process of its own.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Instant;

use meshgate_clusters::told;
use meshgate_harness::cell::{self, Assignment, Spec, Teller};
use meshgate_harness::event::Event;
use meshgate_net::namespaces;

use crate::{fail, roles};

/// The name of the role.
pub const ROLE: &str = "cell";

/// Enters namespaces where the cluster is to be inside them, then runs the cell.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    crate::log();
    let started = Instant::now();
    let teller = Teller::default();
    match execute(&arguments, started, &teller) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            teller.tell(&Event::Broken { reason: told(error.as_ref()), artefacts: Vec::new() });
            fail(1, &error)
        }
    }
}

fn execute(arguments: &[OsString], started: Instant, teller: &Teller) -> anyhow::Result<()> {
    let spec: Spec = roles::spec(arguments)?;
    // No thread may exist before this.
    if spec.backend.needs_namespaces() {
        namespaces::enter()?;
    }
    namespaces::exit_when_stdin_closes();
    let fixtures = crate::run::fixtures(spec.fixtures.as_deref())?;
    let controller = spec.controller(&fixtures)?;
    let recipe = spec.recipe(&controller)?;
    let cases: Vec<_> = meshgate_suites::cases().into_iter().copied().collect();
    // Cells run beside each other; a second worker in one would cost more in waking it than it does.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let assignment = Assignment { spec: &spec, fixtures: &fixtures, controller: &controller, recipe: &recipe };
    runtime.block_on(cell::run(&assignment, &cases, started, teller))?;
    // What still runs of an embedded cluster ends with this process: it is the first of its PID namespace.
    runtime.shutdown_background();
    Ok(())
}
