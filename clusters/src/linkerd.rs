//! A real Linkerd on a cluster, in place of the bundled mesh.
//!
//! Its command line prints objects (`linkerd install`), which are applied as all others are, and says whether they work (`linkerd check`).
//! Its certificates are made here, because what `linkerd install` makes by itself is valid for a year and known to nobody.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde::Deserialize;
use serde_json::Value;

use crate::command::{Command, CommandError, Output};
use crate::manifests::{self, ManifestError};
use crate::remote::Reach;
use crate::scratch::Scratch;

/// How to get Linkerd's command line.
const INSTALL: &str = "install Linkerd's command line (https://linkerd.io/2/getting-started/#step-1-install-the-cli)";

/// How long it may take to print manifests: it asks the cluster.
const WORKS: Duration = Duration::from_secs(60);

/// How far clocks of nodes may lie behind this machine's.
const SKEW: Duration = Duration::from_secs(300);

/// Why there is no Linkerd.
#[derive(Debug, thiserror::Error)]
pub enum LinkerdError {
    /// No certificates.
    #[error("cannot make certificates for Linkerd: {0}")]
    Certificates(#[from] rcgen::Error),
    /// A file for its command line could not be written.
    #[error("a file with a certificate for `linkerd install`: {0}")]
    File(io::Error),
    /// The cluster has no Gateway API, which Linkerd needs.
    #[error(
        "Linkerd needs the CustomResourceDefinitions of the Gateway API on the cluster first; linkerd says: {said}"
    )]
    GatewayApi {
        /// What it said, which has the command that installs them.
        said: String,
    },
    /// The extension is not installed beside the command line.
    #[error(
        "TrafficSplits need Linkerd's SMI extension, and `linkerd smi` is not there; install it (https://linkerd.io/2/tasks/linkerd-smi/); \
         linkerd says: {said}"
    )]
    NoSmi {
        /// What it said.
        said: String,
    },
    /// Its command line is not there or failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// What it printed is no manifests.
    #[error("`{line}` printed no manifests: {cause}")]
    Manifest {
        /// What was run.
        line: String,
        /// What is wrong.
        cause: ManifestError,
    },
    /// What it printed is no result of checks.
    #[error("`{line}` printed no result as JSON: {cause}")]
    Check {
        /// What was run.
        line: String,
        /// What is wrong.
        cause: serde_json::Error,
    },
    /// It does not work.
    #[error("Linkerd does not work on this cluster:{}", .0.iter().map(|problem| format!("\n    {problem}")).collect::<String>())]
    Unhealthy(Vec<Problem>),
}

/// The certificates of a mesh, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// What every proxy trusts. Its key is thrown away.
    pub trust_anchor: String,
    /// Who issues the proxies' certificates, signed by the trust anchor.
    pub issuer: String,
    /// The issuer's key. A secret.
    pub issuer_key: String,
}

impl Authority {
    /// A new trust anchor and issuer, with keys on the curve P-256, the only one that Linkerd takes. Both are valid for this long; proxies get
    /// certificates that are valid for a day at most.
    ///
    /// # Errors
    /// [`LinkerdError::Certificates`].
    pub fn generate(cluster_domain: &str, validity: Duration) -> Result<Self, LinkerdError> {
        let anchor_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let anchor = authority(&format!("root.linkerd.{cluster_domain}"), 1, validity);
        let trust_anchor = anchor.self_signed(&anchor_key)?.pem();
        let issuer_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let issuer = authority(&format!("identity.linkerd.{cluster_domain}"), 0, validity);
        let issuer = issuer.signed_by(&issuer_key, &Issuer::from_params(&anchor, &anchor_key))?.pem();
        Ok(Self { trust_anchor, issuer, issuer_key: issuer_key.serialize_pem() })
    }
}

fn authority(name: &str, further: u8, validity: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(further));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = SystemTime::now();
    params.not_before = (now - SKEW).into();
    params.not_after = (now + validity).into();
    params
}

/// Something that `linkerd check` is not content with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The group of checks, for instance `linkerd-existence`.
    pub category: String,
    /// What was looked at.
    pub check: String,
    /// What is wrong.
    pub error: String,
    /// Where to read on; empty if nowhere.
    pub hint: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { category, check, error, hint } = self;
        write!(f, "{category}: {check}: {error}")?;
        if hint.is_empty() { Ok(()) } else { write!(f, " (see {hint})") }
    }
}

/// `linkerd check --output json`, one document for Linkerd and one for each extension.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Checked {
    #[serde(default)]
    categories: Option<Vec<Category>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Category {
    category_name: String,
    #[serde(default)]
    checks: Option<Vec<OneCheck>>,
}

#[derive(Deserialize)]
struct OneCheck {
    description: String,
    result: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    hint: String,
}

/// The warnings and the errors, in this order.
fn problems(text: &str) -> Result<(Vec<Problem>, Vec<Problem>), serde_json::Error> {
    let (mut warnings, mut errors) = (Vec::new(), Vec::new());
    for checked in serde_json::Deserializer::from_str(text).into_iter::<Checked>() {
        for Category { category_name, checks } in checked?.categories.unwrap_or_default() {
            for OneCheck { description, result, error, hint } in checks.unwrap_or_default() {
                let problem = Problem { category: category_name.clone(), check: description, error, hint };
                match result.as_str() {
                    "success" => {}
                    "warning" => warnings.push(problem),
                    _ => errors.push(problem),
                }
            }
        }
    }
    Ok((warnings, errors))
}

/// Linkerd's command line, for one cluster.
#[derive(Clone, Debug)]
pub struct Linkerd {
    environment: Vec<(OsString, OsString)>,
    kubeconfig: PathBuf,
    context: String,
}

impl Linkerd {
    /// For a cluster, with further environment of every command, for instance a PATH.
    pub fn new(reach: &Reach, environment: Vec<(OsString, OsString)>) -> Self {
        Self { environment, kubeconfig: reach.kubeconfig.clone(), context: reach.context.clone() }
    }

    /// Linkerd's definitions, and with `gateway_api` those of the Gateway API, its own copies: for a cluster that has none of others.
    ///
    /// # Errors
    /// [`LinkerdError::GatewayApi`] and others.
    pub async fn crds(&self, gateway_api: bool) -> Result<Vec<Value>, LinkerdError> {
        let command = self.command(["install", "--crds"]);
        self.objects(if gateway_api { command.args(["--set", "installGatewayAPI=true"]) } else { command }).await
    }

    /// Its control plane with these certificates; nothing of it need be on the cluster yet, and so the
    /// command does not look. `settings` are what `--set` takes, as `name=value`.
    ///
    /// # Errors
    /// [`LinkerdError`].
    pub async fn control_plane(&self, authority: &Authority, settings: &[String]) -> Result<Vec<Value>, LinkerdError> {
        let file = |content: &str| Scratch::new(".pem", content.as_bytes()).map_err(LinkerdError::File);
        let (anchors, issuer) = (file(&authority.trust_anchor)?, file(&authority.issuer)?);
        let key = file(&authority.issuer_key)?;
        let command = self
            .command(["install", "--ignore-cluster"])
            .arg("--identity-trust-anchors-file")
            .arg(&*anchors)
            .arg("--identity-issuer-certificate-file")
            .arg(&*issuer)
            .arg("--identity-issuer-key-file")
            .arg(&*key)
            .args(settings.iter().flat_map(|setting| ["--set", setting]));
        self.objects(command).await
    }

    /// The SMI extension, which recipes with TrafficSplits need since Linkerd 2.12. By itself the command waits for a control plane that runs;
    /// it is asked before anything is applied, and so is told not to look.
    ///
    /// # Errors
    /// [`LinkerdError::NoSmi`] and others.
    pub async fn smi(&self) -> Result<Vec<Value>, LinkerdError> {
        self.objects(self.command(["smi", "install", "--skip-checks"])).await
    }

    /// Asks Linkerd's own checks, which wait this long for what is coming up. Returns what they warn of.
    ///
    /// # Errors
    /// [`LinkerdError::Unhealthy`] with everything that is wrong.
    pub async fn check(&self, within: Duration) -> Result<Vec<Problem>, LinkerdError> {
        let wait = format!("{}s", within.as_secs());
        let command = self.command(["check", "--output", "json", "--wait", &wait]).within(within + WORKS);
        // It says the same in its exit status, and why only here.
        let text = match command.run().await {
            Ok(Output { stdout, .. }) => stdout,
            Err(CommandError::Failed { stdout, .. }) if stdout.trim_start().starts_with('{') => stdout,
            Err(error) => return Err(error.into()),
        };
        match problems(&text) {
            Ok((warnings, errors)) if errors.is_empty() => Ok(warnings),
            Ok((_, errors)) => Err(LinkerdError::Unhealthy(errors)),
            Err(cause) => Err(LinkerdError::Check { line: command.line(), cause }),
        }
    }

    /// A command with these arguments, complete but for further options.
    fn command<const N: usize>(&self, arguments: [&str; N]) -> Command {
        let command = Command::new("linkerd", INSTALL);
        let command = self.environment.iter().fold(command, |command, (name, value)| command.env(name, value));
        command
            .args(arguments)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(["--context", &self.context])
            .within(WORKS)
    }

    async fn objects(&self, command: Command) -> Result<Vec<Value>, LinkerdError> {
        let output = command.run().await.map_err(|error| {
            let said = error.stderr().trim().to_owned();
            if said.contains("Gateway API CRDs must be installed") {
                LinkerdError::GatewayApi { said }
            } else if said.contains("unknown command \"smi\"") {
                LinkerdError::NoSmi { said }
            } else {
                error.into()
            }
        })?;
        manifests::objects(&output.stdout).map_err(|cause| LinkerdError::Manifest { line: command.line(), cause })
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, UnixTime};
    use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    /// Whether a proxy's certificate from this issuer leads to the trust anchor, that long from now.
    fn verifies(authority: &Authority, later: Duration) -> Result<(), webpki::Error> {
        let name = "web.emojivoto.serviceaccount.identity.linkerd.cluster.local";
        let key = KeyPair::generate().unwrap();
        let issuer_key = KeyPair::from_pem(&authority.issuer_key).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&authority.issuer, issuer_key).unwrap();
        let leaf = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let (anchor, intermediate) = (der(&authority.trust_anchor), der(&authority.issuer));
        let anchors = [anchor_from_trusted_cert(&anchor).unwrap()];
        let now = UnixTime::since_unix_epoch(
            UnixTime::now().as_secs().checked_add(later.as_secs()).map(Duration::from_secs).unwrap(),
        );
        let leaf = EndEntityCert::try_from(leaf.der()).unwrap();
        let algorithms = [webpki::ring::ECDSA_P256_SHA256];
        leaf.verify_for_usage(&algorithms, &anchors, &[intermediate], now, KeyUsage::server_auth(), None, None)
            .map(|_| ())
    }

    #[test]
    fn proxies_that_trust_the_anchor_trust_what_the_issuer_issues() {
        let authority = Authority::generate("cluster.local", YEAR).unwrap();
        verifies(&authority, Duration::ZERO).unwrap();
        verifies(&authority, YEAR / 2).unwrap();
        assert!(matches!(verifies(&authority, 2 * YEAR).unwrap_err(), webpki::Error::CertExpired { .. }));
        let other = Authority::generate("cluster.local", YEAR).unwrap();
        let mixed = Authority { trust_anchor: other.trust_anchor, ..authority };
        verifies(&mixed, Duration::ZERO).unwrap_err();
    }

    #[test]
    fn what_the_checks_say_is_told_apart() {
        let text = r#"
            {"success": false, "categories": [
              {"categoryName": "kubernetes-api", "checks": [{"description": "can query the Kubernetes API", "result": "success"}]},
              {"categoryName": "linkerd-version", "checks": [
                {"description": "cli is up-to-date", "result": "warning", "hint": "https://h", "error": "is running 1 but 2 is out"}]},
              {"categoryName": "linkerd-existence", "checks": [
                {"description": "control plane pods are ready", "result": "error", "error": "no running pods"}]}
            ]}
            {"success": true, "categories": null}"#;
        let (warnings, errors) = problems(text).unwrap();
        assert_eq!(
            warnings[0].to_string(),
            "linkerd-version: cli is up-to-date: is running 1 but 2 is out (see https://h)"
        );
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].to_string(), "linkerd-existence: control plane pods are ready: no running pods");
        let error = LinkerdError::Unhealthy(errors).to_string();
        assert_eq!(
            error,
            "Linkerd does not work on this cluster:\n    linkerd-existence: control plane pods are ready: no running pods"
        );
        problems("Linkerd core checks").unwrap_err();
    }
}
