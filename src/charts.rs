//! `--install helm`: controllers as their vendors' charts install them.
//!
//! Each chart is rendered once, before there is a cluster: **cells → charts → controllers with other manifests → cells as ever**. What a
//! chart was rendered to goes to the cells as a file.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, bail};
use meshgate_clusters::helm::{Chart, Helm};
use meshgate_clusters::scratch::Scratch;
use meshgate_fixtures::{Controller, Fixtures, Rendered};
use meshgate_harness::matrix::Cell;

use crate::target::{Install, Target};

/// The fixtures without what cannot be installed as the target says: controllers without a chart, and versions that no chart is known to
/// install.
///
/// # Errors
/// A controller that was asked for has no chart, or not at its version; or one version of a chart is given for several controllers.
pub fn offered(mut fixtures: Fixtures, controllers: &[String], target: &Target) -> anyhow::Result<Fixtures> {
    if target.install != Install::Helm {
        return Ok(fixtures);
    }
    let mut names = BTreeSet::new();
    for wanted in controllers {
        let (name, version) = wanted.split_once('@').map_or((wanted.as_str(), None), |(name, at)| (name, Some(at)));
        names.insert(name);
        let Some(chart) = &fixtures.controller(name)?.chart else {
            let with = fixtures.controllers.values().filter(|controller| controller.chart.is_some());
            let with: Vec<&str> = with.map(|controller| controller.name.as_str()).collect();
            bail!(
                "--install helm: no chart is known for {name}, there is no block `helm` in {name}/controller.yaml of the fixtures; there is \
                 one for {}; use --install manifests for the others",
                with.join(", ")
            );
        };
        let known = |version: &str| chart.versions.keys().any(|known| known.0 == version);
        if let (Some(version), None) = (version.filter(|version| !known(version)), &target.chart_version) {
            let known: Vec<String> = chart.versions.iter().map(|(version, by)| format!("{version} by {by}")).collect();
            bail!(
                "--install helm: no version of the chart is known to install {name} {version} (known: {}); name one with --chart-version, \
                 or for each side of a gate with --from-chart and --to-chart",
                known.join(", ")
            );
        }
    }
    if target.chart_version.is_some() && names.len() != 1 {
        bail!("--chart-version is one chart's: give one controller with it, --controllers NAME[@VERSION]");
    }
    fixtures.controllers.retain(|_, controller| controller.chart.is_some());
    for controller in fixtures.controllers.values_mut() {
        if let (Some(chart), None) = (&controller.chart, &target.chart_version) {
            controller.versions.retain(|version| chart.versions.contains_key(version));
        }
    }
    Ok(fixtures)
}

/// What the charts of a run were rendered to; nothing where Meshgate's own manifests install controllers.
pub struct Charts(BTreeMap<(String, String), (Rendered, Scratch)>);

impl Charts {
    /// Renders the chart of each controller at each version that the cells have.
    ///
    /// # Errors
    /// A chart that is not there, that does not take the values, or that does not install the controller as the cases need it.
    pub async fn render(
        target: &Target,
        cells: &[Cell],
        fixtures: &Fixtures,
        progress: &dyn Fn(&str),
    ) -> anyhow::Result<Self> {
        let mut charts = BTreeMap::new();
        if target.install != Install::Helm {
            return Ok(Self(charts));
        }
        for cell in cells {
            if charts.contains_key(&key(cell)) {
                continue;
            }
            let controller = fixtures.controller(&cell.controller)?;
            let known = controller.chart.as_ref();
            let known = known.with_context(|| format!("no chart is known for {}", controller.name))?;
            let version = target.chart_version.as_ref().or_else(|| known.versions.get(&cell.version));
            let version = version.with_context(|| {
                format!("no chart is known for {} {}; name one by --chart-version", controller.name, cell.version)
            })?;
            let chart = Chart {
                chart: known.chart.clone(),
                repository: target.chart_repository.as_ref().unwrap_or(&known.repository).clone(),
                version: version.clone(),
                values: serde_json::from_value(known.values(&cell.version)?)?,
            };
            progress(&format!("rendering the chart {} {version} of {}", chart.chart, chart.repository));
            let objects = Helm::default().template(&chart, &controller.workload, &controller.namespace).await?;
            let rendered =
                Rendered { chart: chart.chart, version: chart.version, installs: cell.version.clone(), objects };
            // Told now rather than by every cell.
            controller.installed_by(&rendered)?;
            let file = Scratch::new(".json", &serde_json::to_vec(&rendered)?)?;
            charts.insert(key(cell), (rendered, file));
        }
        Ok(Self(charts))
    }

    /// What the chart of a cell's controller was rendered to.
    pub fn of(&self, cell: &Cell) -> Option<&Rendered> {
        self.0.get(&key(cell)).map(|(rendered, _)| rendered)
    }

    /// The file that holds it, for the cell's process.
    pub fn file(&self, cell: &Cell) -> Option<PathBuf> {
        self.0.get(&key(cell)).map(|(_, path)| path.to_path_buf())
    }

    /// A cell's controller, as it is to be installed.
    pub fn controller<'a>(&self, fixtures: &'a Fixtures, cell: &Cell) -> anyhow::Result<Cow<'a, Controller>> {
        let controller = fixtures.controller(&cell.controller)?;
        Ok(match self.of(cell) {
            Some(rendered) => Cow::Owned(controller.installed_by(rendered)?),
            None => Cow::Borrowed(controller),
        })
    }
}

fn key(cell: &Cell) -> (String, String) {
    (cell.controller.clone(), cell.version.0.clone())
}
