//! `meshgate inject [--ingress] FILE|-`: the page's command.

use std::io::Read;
use std::process::ExitCode;

use anyhow::Context;
use meshgate_inject::{Mode, Options};

use crate::{fail, output};

/// Which manifests, and how.
#[derive(clap::Args)]
pub struct Args {
    /// Run the proxy in ingress mode
    #[arg(long)]
    ingress: bool,
    /// Manifests to inject; `-` reads standard input
    #[arg(required = true, value_name = "FILE|-")]
    files: Vec<String>,
}

/// Manifests to standard output, what was injected to standard error.
pub fn main(args: Args) -> ExitCode {
    match execute(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error),
    }
}

fn execute(args: &Args) -> anyhow::Result<()> {
    let options = Options { mode: if args.ingress { Mode::Ingress } else { Mode::Enabled }, ..Options::default() };
    for file in &args.files {
        let text = if file == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            text
        } else {
            std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?
        };
        let injection = meshgate_inject::inject_with_report(&text, &options).with_context(|| file.clone())?;
        output::print(&injection.yaml)?;
        output::tell(&injection.report.to_string());
    }
    Ok(())
}
