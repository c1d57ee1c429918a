//! `meshgate doctor`: what is missing on this machine, why it matters, and the command that mends it.

use std::process::ExitCode;

use anyhow::bail;
use meshgate_clusters::{Kind, kind};
use meshgate_images::{Catalogue, Check};
use meshgate_net::namespaces;

use crate::interruption::unless_interrupted;
use crate::{fail, output, target, variables};

/// For what.
#[derive(clap::Args)]
pub struct Args {
    /// For runs on this kind of cluster: `embedded` or `kind`
    #[arg(long, default_value = "embedded", value_name = "KIND", value_parser = target::kind)]
    cluster: Kind,
}

/// 0 when everything is there, 1 otherwise.
pub fn main(args: Args) -> ExitCode {
    let result = checks(args.cluster).and_then(|checks| {
        output::print(&checks.iter().map(line).collect::<String>())?;
        Ok(checks.iter().any(|check| check.found.is_err()))
    });
    match result {
        Ok(missing) => ExitCode::from(u8::from(missing)),
        Err(error) => fail(2, &error),
    }
}

fn line(check: &Check) -> String {
    let Check { what, found, why, remedy } = check;
    match found {
        Ok(found) => format!("ok       {what}: {found}\n"),
        Err(problem) => format!("missing  {what}: {problem}\n         it {why}; mend it: {remedy}\n"),
    }
}

fn checks(cluster: Kind) -> anyhow::Result<Vec<Check>> {
    match cluster {
        Kind::Embedded => embedded(),
        Kind::Kind => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(unless_interrupted(async { anyhow::Ok(kind::preflight(&[]).await) }))
        }
        Kind::K3s => bail!(
            "--cluster k3s needs a container engine and no command, and a run looks for that first: meshgate run --cluster k3s"
        ),
        Kind::Existing => bail!("an existing cluster is looked at by: meshgate run --cluster existing --dry-run"),
    }
}

fn embedded() -> anyhow::Result<Vec<Check>> {
    let fixtures = crate::run::fixtures(None)?;
    let mut images = Vec::new();
    for controller in fixtures.controllers.values() {
        images.extend(meshgate_harness::blueprint::images(controller, controller.newest())?);
    }
    let namespaces = Check {
        what: "user namespaces".to_owned(),
        found: namespaces::check().map(|()| "may be entered".to_owned()).map_err(|error| error.to_string()),
        why: "is what the embedded cluster lives in",
        remedy: "see the message".to_owned(),
    };
    let mut checks = vec![namespaces];
    let catalogue = Catalogue::built_in(std::env::current_exe()?);
    if let Err(error) = variables::check(&catalogue) {
        checks.push(Check {
            what: "variables of programs".to_owned(),
            found: Err(error.to_string()),
            why: "puts no program of yours in any place",
            remedy: "see the message".to_owned(),
        });
    }
    checks.extend(catalogue.check(&images));
    Ok(checks)
}
