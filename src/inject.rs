//! `meshgate inject [--ingress] FILE|-`: the page's command; `meshgate inject --control-plane`: what the proxies ask.

use std::io::Read;
use std::process::ExitCode;

use anyhow::Context;
use meshgate_inject::{Identity, Mode, Options, Webhook};

use crate::{fail, output};

/// Which manifests, and how.
#[derive(clap::Args)]
pub struct Args {
    /// Run the proxy in ingress mode
    #[arg(long)]
    ingress: bool,
    /// Print the mesh's control plane instead, with an injector that adds the proxy to annotated pods
    ///
    /// The manifests have a certificate authority and keys, made anew each time: apply them and keep them nowhere. Once the Deployments in
    /// the namespace `linkerd` are available, pods that have the annotation `linkerd.io/inject`, or whose namespace has it, get the proxy
    /// as they are created. Apply it again only to a control plane that is to forget its proxies: they trust the authority that they began with.
    ///
    ///   meshgate inject --control-plane | kubectl apply --server-side -f -
    #[arg(long, verbatim_doc_comment, conflicts_with_all = ["ingress", "files"])]
    control_plane: bool,
    /// Manifests to inject; `-` reads standard input
    #[arg(required_unless_present = "control_plane", value_name = "FILE|-")]
    files: Vec<String>,
}

/// Manifests to standard output, what was injected to standard error.
pub fn main(args: Args) -> ExitCode {
    let done = if args.control_plane { print_control_plane() } else { execute(&args) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error),
    }
}

fn print_control_plane() -> anyhow::Result<()> {
    let options = Options::default();
    let options = Options {
        identity: Some(Identity::generate(&options.cluster_domain)?),
        webhook: Some(Webhook::generate(&options.control_plane_namespace)?),
        ..options
    };
    output::print(&meshgate_inject::to_yaml(&meshgate_inject::control_plane_manifests(&options)))
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
