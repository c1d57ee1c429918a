//! `meshgate inject [--ingress] FILE|-`: the page's command; `meshgate inject --control-plane`: what the proxies ask.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use meshgate_inject::{Identity, Issuer, Mode, Options, Webhook};

use crate::{fail, output};

/// Which manifests, and how.
#[derive(clap::Args)]
pub struct Args {
    /// Run the proxy in ingress mode
    #[arg(long)]
    ingress: bool,
    /// Print the mesh's control plane instead, with an injector that adds the proxy to annotated pods
    ///
    /// The manifests have a certificate authority, made anew each time unless files have one, and keys: apply them and keep them nowhere. Once the Deployments in
    /// the namespace `linkerd` are available, pods that have the annotation `linkerd.io/inject`, or whose namespace has it, get the proxy
    /// as they are created. Apply it again only to a control plane that is to forget its proxies: they trust the authority that they began with.
    ///
    ///   meshgate inject --control-plane | kubectl apply --server-side -f -
    #[arg(long, verbatim_doc_comment, conflicts_with_all = ["ingress", "files"])]
    control_plane: bool,
    /// Make the proxy an init container that stays, where a workload's annotation does not say otherwise, as Linkerd does since 2.20
    #[arg(long)]
    native_sidecar: bool,
    #[command(flatten)]
    authority: Authority,
    /// Manifests to inject; `-` reads standard input
    #[arg(required_unless_present = "control_plane", value_name = "FILE|-")]
    files: Vec<String>,
}

/// The mesh's certificates, by the options of `linkerd install`: all of them or none.
#[derive(clap::Args)]
struct Authority {
    /// The control plane's trust anchors, as PEM: what proxies trust
    #[arg(long = "identity-trust-anchors-file", value_name = "FILE", requires_all = ["control_plane", "certificate", "key"], conflicts_with = "files")]
    anchors: Option<PathBuf>,
    /// The certificate, as PEM, of who issues the proxies' certificates; a trust anchor has signed it
    #[arg(long = "identity-issuer-certificate-file", value_name = "FILE", requires = "anchors")]
    certificate: Option<PathBuf>,
    /// That certificate's key, as PEM
    #[arg(long = "identity-issuer-key-file", value_name = "FILE", requires = "anchors")]
    key: Option<PathBuf>,
}

impl Authority {
    /// What the files say, or a new one.
    fn identity(&self, cluster_domain: &str) -> anyhow::Result<Identity> {
        let Self { anchors: Some(anchors), certificate: Some(certificate), key: Some(key) } = self else {
            return Ok(Identity::generate(cluster_domain)?);
        };
        let read =
            |path: &Path| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        let issuer = Issuer { certificate: read(certificate)?, key: read(key)? };
        Ok(Identity::of_issuer(read(anchors)?, issuer)?)
    }
}

/// Manifests to standard output, what was injected to standard error.
pub fn main(args: Args) -> ExitCode {
    let done = if args.control_plane { print_control_plane(&args) } else { execute(&args) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(2, &error),
    }
}

fn print_control_plane(args: &Args) -> anyhow::Result<()> {
    let options = Options::default();
    let options = Options {
        identity: Some(args.authority.identity(&options.cluster_domain)?),
        webhook: Some(Webhook::generate(&options.control_plane_namespace)?),
        native_sidecar: args.native_sidecar,
        ..options
    };
    output::print(&meshgate_inject::to_yaml(&meshgate_inject::control_plane_manifests(&options)))
}

fn execute(args: &Args) -> anyhow::Result<()> {
    let mode = if args.ingress { Mode::Ingress } else { Mode::Enabled };
    let options = Options { mode, native_sidecar: args.native_sidecar, ..Options::default() };
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
