//! Controllers as their vendors ship them: Helm charts, rendered and not installed.
//!
//! `helm template` turns a [`Chart`] into objects, which are then injected, applied and cleaned up as every other manifest is: what Helm would
//! add is a second way of doing all that. What is lost is what only an installation knows: charts that look things up in the cluster, and the
//! order of hooks. Hooks of an installation are rendered as plain objects, those of everything else are left out.

use std::ffi::OsString;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::command::{Command, CommandError, Output};
use crate::manifests::{self, ManifestError};
use crate::scratch::Scratch;

/// How to get Helm.
const INSTALL: &str = "install Helm (https://helm.sh/docs/intro/install/)";

/// How long a chart may take to be fetched and rendered.
const WORKS: Duration = Duration::from_secs(180);

/// A chart at a version, as `controller.yaml` names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chart {
    /// Its name in the repository.
    pub chart: String,
    /// Where it is: `https://...`, or `oci://...` without the chart's name.
    pub repository: String,
    /// The chart's own version, exactly; that of the program in it is another.
    pub version: String,
    /// What is different from the chart's own values.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub values: Map<String, Value>,
}

/// What a chart says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The version of the program that it installs.
    #[serde(default)]
    pub app_version: Option<String>,
}

/// Why a chart gives no objects.
#[derive(Debug, thiserror::Error)]
pub enum HelmError {
    /// The repository has no such chart or version.
    #[error("there is no chart \"{}\" at version {} in {}; look: {look}\n  helm says: {said}", chart.chart, chart.version, chart.repository)]
    NotFound {
        /// Which.
        chart: Box<Chart>,
        /// The command that shows what there is.
        look: String,
        /// What Helm said.
        said: String,
    },
    /// Helm is not there, cannot reach the repository, or the chart does not take the values.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// What it printed is no manifests.
    #[error("the chart \"{chart}\" at version {version}: {cause}")]
    Manifest {
        /// Which.
        chart: String,
        /// At which version.
        version: String,
        /// What is wrong.
        cause: ManifestError,
    },
    /// What it printed is no description of a chart.
    #[error("the chart \"{chart}\" describes itself in a way that is not understood: {cause}")]
    Description {
        /// Which.
        chart: String,
        /// What is wrong.
        cause: serde_yaml::Error,
    },
    /// The values could not be passed on.
    #[error("a file for the values of the chart \"{chart}\": {cause}")]
    Values {
        /// Whose.
        chart: String,
        /// Why not.
        cause: io::Error,
    },
}

/// Helm, as it is to be called.
#[derive(Clone, Debug, Default)]
pub struct Helm {
    environment: Vec<(OsString, OsString)>,
}

impl Helm {
    /// Helm with further environment, for instance a PATH.
    pub fn new(environment: Vec<(OsString, OsString)>) -> Self {
        Self { environment }
    }

    /// What a chart says of itself, which it can only if it is there.
    ///
    /// # Errors
    /// [`HelmError::NotFound`] and others.
    pub async fn describe(&self, chart: &Chart) -> Result<Description, HelmError> {
        let output = self.run(chart, &["show", "chart"], Vec::new()).await?;
        serde_yaml::from_str(&output.stdout)
            .map_err(|cause| HelmError::Description { chart: chart.chart.clone(), cause })
    }

    /// The objects of a chart, its CustomResourceDefinitions first; what names no namespace of its own is in `namespace`.
    ///
    /// # Errors
    /// [`HelmError`].
    pub async fn template(&self, chart: &Chart, release: &str, namespace: &str) -> Result<Vec<Value>, HelmError> {
        let failed = |cause| HelmError::Values { chart: chart.chart.clone(), cause };
        // JSON is YAML, which Helm reads.
        let values = Value::Object(chart.values.clone()).to_string();
        let values = Scratch::new(".json", values.as_bytes()).map_err(failed)?;
        let mut options: Vec<OsString> =
            ["--include-crds", "--skip-tests", "--namespace", namespace].map(Into::into).into();
        options.extend(["--values".into(), values.as_os_str().into()]);
        let output = self.run(chart, &["template", release], options).await?;
        let mut objects = manifests::objects(&output.stdout).map_err(|cause| HelmError::Manifest {
            chart: chart.chart.clone(),
            version: chart.version.clone(),
            cause,
        })?;
        objects.retain(is_installed);
        manifests::into_namespace(&mut objects, namespace);
        Ok(objects)
    }

    async fn run(&self, chart: &Chart, verb: &[&str], options: Vec<OsString>) -> Result<Output, HelmError> {
        let command = self
            .environment
            .iter()
            .fold(Command::new("helm", INSTALL), |command, (name, value)| command.env(name, value));
        let command =
            command.args(verb).args(place(chart)).args(["--version", &chart.version]).args(options).within(WORKS);
        command.run().await.map_err(|error| match &error {
            CommandError::Failed { stderr, .. } if stderr.lines().any(is_missing) => HelmError::NotFound {
                chart: Box::new(chart.clone()),
                look: look(chart),
                said: stderr.trim().to_owned(),
            },
            _ => error.into(),
        })
    }
}

/// Whether Helm says that there is no such chart or version: in an index, or in a registry.
fn is_missing(line: &str) -> bool {
    line.starts_with("Error:") && (line.contains("not found in ") || line.trim_end().ends_with(": not found"))
}

/// The arguments that say where a chart is. One in a registry has no index, so no `--repo`.
fn place(chart: &Chart) -> Vec<String> {
    if chart.repository.starts_with("oci://") {
        vec![format!("{}/{}", chart.repository.trim_end_matches('/'), chart.chart)]
    } else {
        vec![chart.chart.clone(), "--repo".to_owned(), chart.repository.clone()]
    }
}

/// The command that shows what there is instead.
fn look(chart: &Chart) -> String {
    let Chart { chart: name, repository, .. } = chart;
    match repository.strip_prefix("oci://") {
        Some(_) => format!("helm show chart {repository}/{name}"),
        None => format!("helm repo add {name} {repository} && helm search repo {name}/{name} --versions"),
    }
}

/// Whether an installation has the object: it is no hook, or one of an installation.
fn is_installed(object: &Value) -> bool {
    let hooks = object["metadata"]["annotations"]["helm.sh/hook"].as_str();
    hooks.is_none_or(|hooks| {
        hooks.split(',').any(|hook| matches!(hook.trim(), "pre-install" | "post-install" | "crd-install"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chart(text: &str) -> Result<Chart, serde_yaml::Error> {
        serde_yaml::from_str(text)
    }

    #[test]
    fn a_chart_is_read_from_yaml_and_nothing_else_is() {
        let text = "{chart: traefik, repository: 'https://traefik.github.io/charts', version: 39.0.1, values: {service: {type: NodePort}}}";
        let read = chart(text).unwrap();
        assert_eq!(read.values["service"]["type"], "NodePort");
        assert!(chart("{chart: x, repository: y, version: z}").unwrap().values.is_empty());
        let error = chart("{chart: x, repository: y, version: z, valeus: {}}").unwrap_err().to_string();
        assert!(error.contains("unknown field `valeus`"), "{error}");
        assert!(chart("{chart: x, repository: y}").unwrap_err().to_string().contains("missing field `version`"));
    }

    #[test]
    fn a_chart_of_a_registry_has_no_repository() {
        let of = |repository: &str| Chart {
            chart: "x".to_owned(),
            repository: repository.to_owned(),
            version: "1".to_owned(),
            values: Map::new(),
        };
        assert_eq!(place(&of("https://charts.example")), ["x", "--repo", "https://charts.example"]);
        assert_eq!(place(&of("oci://ghcr.io/charts/")), ["oci://ghcr.io/charts/x"]);
    }

    #[test]
    fn what_is_not_there_is_told_from_what_cannot_be_asked() {
        // An index; a registry, as Helm 3 and Helm 4 say it.
        for line in [
            "Error: chart \"x\" version \"1.0.0\" not found in https://charts.example repository",
            "Error: registry.example/charts/x:1.0.0: not found",
            "Error: failed to perform \"FetchReference\" on source: registry.example/charts/x:1.0.0: not found",
        ] {
            assert!(is_missing(line), "{line}");
        }
        for line in [
            "Error: looks like \"https://charts.example\" is not a valid chart repository or cannot be reached: failed to fetch \
             https://charts.example/index.yaml : 404 Not Found",
            "Error: values don't meet the specifications of the schema(s) in the following chart(s):",
        ] {
            assert!(!is_missing(line), "{line}");
        }
    }

    #[test]
    fn only_hooks_of_an_installation_are_installed() {
        let hooked = |hooks: &str| json!({"metadata": {"annotations": {"helm.sh/hook": hooks}}});
        for object in [json!({"metadata": {}}), hooked("pre-install,pre-upgrade"), hooked("post-install")] {
            assert!(is_installed(&object), "{object}");
        }
        for object in [hooked("test"), hooked("pre-delete"), hooked("post-upgrade, pre-rollback")] {
            assert!(!is_installed(&object), "{object}");
        }
    }
}
