//! `--cluster`, `--mesh`, `--install` and what belongs to them: where a run takes place, and how controllers come there.

use std::path::{Path, PathBuf};

use anyhow::bail;
use meshgate_clusters::remote::{By, Reach};
use meshgate_clusters::{IMAGE, Kind};
use meshgate_harness::matrix::{Mesh, Place};

/// How controllers come to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Install {
    /// By the files in `install/` of the fixtures.
    Manifests,
    /// By their vendors' charts.
    Helm,
}

impl Install {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Manifests, Self::Helm];

    /// As the command line names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manifests => "manifests",
            Self::Helm => "helm",
        }
    }
}

/// Where.
#[derive(clap::Args, Clone)]
#[group(id = "target")]
pub struct Target {
    /// The cluster: `embedded` is one per cell, inside the cell's process; `kind` and `k3s` are made in containers for the run;
    /// `existing` is the one that a kubeconfig leads to
    #[arg(long, default_value = "embedded", value_name = "KIND", value_parser = kind)]
    pub cluster: Kind,
    /// The mesh: `bundled` is Meshgate's own, `linkerd` a real one, installed by the command `linkerd` on PATH
    #[arg(long, default_value = "bundled", value_name = "MESH", value_parser = mesh)]
    pub mesh: Mesh,
    /// How controllers are installed: `manifests` are Meshgate's own, `helm` is each vendor's chart, rendered by the command `helm` on
    /// PATH
    #[arg(long, default_value = "manifests", value_name = "HOW", value_parser = install)]
    pub install: Install,
    /// The version of the chart, for one controller; the one that is known to install the controller's version when left out
    #[arg(long, value_name = "VERSION")]
    pub chart_version: Option<String>,
    /// Where the charts are, `https://...` or `oci://...`, for instance a mirror; their vendors' repositories when left out
    #[arg(long, value_name = "URL")]
    pub chart_repository: Option<String>,
    /// The kubeconfig of an existing cluster; kubectl's own when left out
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context in it; its current one when left out
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Meshgate's own image, as the nodes of an existing cluster can get it (see `meshgate image`)
    #[arg(long, value_name = "IMAGE", default_value = IMAGE)]
    pub image: String,
    /// How clients come to the controller: `cluster-ip`, `node-port` (of the first node that is ready) or `load-balancer` (the address in
    /// the Service's status); in all cases from pods of the cluster
    #[arg(long, default_value = "cluster-ip", value_name = "ADDRESS", value_parser = entrance)]
    pub entrance: By,
    /// The version of Kubernetes for kind; the newest known one when left out
    #[arg(long, value_name = "VERSION")]
    pub kubernetes: Option<String>,
    /// Have the controller of a kind cluster reached from this machine as well, on 127.0.0.1, for a person to try it: `--keep` leaves the
    /// last cell's to look at
    #[arg(long)]
    pub publish: bool,
    /// How many times as long as on the embedded cluster everything may take that is awaited; 1 there, 3 on others when left out
    #[arg(long, value_name = "TIMES", value_parser = clap::value_parser!(u32).range(1..=20))]
    pub patience: Option<u32>,
    /// Give a kind or k3s cluster the programs of the embedded cluster, stand-ins included, as the controllers' images, rather than
    /// have it pull the official ones; an existing cluster has them already, loaded from what `meshgate image` wrote
    #[arg(long)]
    pub native_images: bool,
    /// Say what would be made on an existing cluster and what is in the way there, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Leave the cluster that was made, or what the last cell made on an existing one, to look at
    #[arg(long)]
    pub keep: bool,
    /// Use the kind cluster again that an earlier run kept
    #[arg(long)]
    pub reuse: bool,
}

/// A kind of cluster by name.
///
/// # Errors
/// Those that there are, when it is none of them.
pub fn kind(name: &str) -> Result<Kind, String> {
    named(name, Kind::ALL, Kind::as_str)
}

fn mesh(name: &str) -> Result<Mesh, String> {
    named(name, Mesh::ALL, Mesh::as_str)
}

fn install(name: &str) -> Result<Install, String> {
    named(name, Install::ALL, Install::as_str)
}

fn entrance(name: &str) -> Result<By, String> {
    named(name, By::ALL, By::as_str)
}

fn named<T: Copy, const N: usize>(name: &str, known: [T; N], as_str: fn(T) -> &'static str) -> Result<T, String> {
    let names = known.map(as_str).join(", ");
    known.into_iter().find(|one| as_str(*one) == name).ok_or_else(|| format!("expected one of {names}"))
}

impl Target {
    /// Where the cells are.
    pub fn place(&self) -> Place {
        Place { cluster: self.cluster, mesh: self.mesh }
    }

    /// Checks that the arguments belong together.
    pub fn check(&self) -> anyhow::Result<()> {
        use Kind::{Embedded, Existing, K3s, Kind as InKind};
        let flags: [(&str, bool, &[Kind]); 10] = [
            ("--kubeconfig", self.kubeconfig.is_some(), &[Existing]),
            ("--context", self.context.is_some(), &[Existing]),
            ("--image", self.image != IMAGE, &[Existing]),
            ("--dry-run", self.dry_run, &[Existing]),
            ("--entrance", self.entrance != By::default(), &[Existing, InKind, K3s]),
            ("--kubernetes", self.kubernetes.is_some(), &[InKind]),
            ("--reuse", self.reuse, &[InKind]),
            ("--publish", self.publish, &[InKind]),
            ("--native-images", self.native_images, &[Existing, InKind, K3s]),
            ("--keep", self.keep, &[Existing, InKind, K3s]),
        ];
        for (flag, given, fits) in flags {
            if given && !fits.contains(&self.cluster) {
                let fits: Vec<String> = fits.iter().map(|kind| format!("--cluster {kind}")).collect();
                bail!("{flag} goes with {}, not with --cluster {}", fits.join(" or "), self.cluster);
            }
        }
        for (flag, given) in
            [("--chart-version", self.chart_version.is_some()), ("--chart-repository", self.chart_repository.is_some())]
        {
            if given && self.install != Install::Helm {
                bail!("{flag} goes with --install helm, not with --install {}", self.install.as_str());
            }
        }
        let host = self.chart_repository.as_deref().and_then(|url| url.split_once("://")?.1.split('/').next());
        if host.is_some_and(|host| host.contains('@')) {
            bail!(
                "--chart-repository: expected a URL without a user's name and password, which would stand in every report; for oci:// log in \
                 beforehand (helm registry login), for https:// use a mirror that asks for none"
            );
        }
        if matches!(self.cluster, InKind | K3s) && self.entrance == By::LoadBalancer {
            let own = match self.cluster {
                InKind => "run cloud-provider-kind beside a cluster of your own and use that",
                _ => "use a cluster of your own that has one",
            };
            bail!(
                "--entrance load-balancer: a {} cluster has none, so the controller's Service would never get an address; come by another \
                 (--entrance node-port, or the cluster IP), or {own} with --cluster existing",
                self.cluster
            );
        }
        if self.mesh == Mesh::Linkerd && self.cluster == Embedded {
            bail!("--mesh linkerd needs a cluster that runs Linkerd's images: --cluster kind, k3s or existing");
        }
        Ok(())
    }

    /// How to reach an existing cluster.
    pub fn existing(&self) -> anyhow::Result<Reach> {
        Ok(Reach::existing(self.kubeconfig.as_deref(), self.context.as_deref(), &self.image, self.entrance)?)
    }

    /// Whether the cluster gets the controllers' images by itself.
    pub fn runs_official_images(&self) -> bool {
        self.cluster != Kind::Embedded && !self.native_images
    }

    /// What there is to do beside `--native-images`, as the end of a message.
    pub fn how_native_images_come(&self) -> &'static str {
        match self.cluster {
            Kind::Existing => ": write it with `meshgate image --controllers NAME`, and load it on the nodes",
            _ => "",
        }
    }

    /// How many times as long as on the embedded cluster what is awaited may take.
    pub fn pace(&self) -> u32 {
        self.patience.unwrap_or_else(|| self.cluster.pace())
    }

    /// How long setting a cell up may take where nothing else is said: other clusters pull images and have more to do.
    pub fn usual_setup_seconds(&self) -> u64 {
        match self.cluster {
            Kind::Embedded => 60,
            _ => 300,
        }
    }

    /// The arguments that lead to the same place again.
    pub fn repeat(&self) -> String {
        let path = |path: &Path| path.display().to_string();
        let flags = [
            (self.cluster != Kind::Embedded).then(|| format!(" --cluster {}", self.cluster)),
            (self.mesh != Mesh::Bundled).then(|| format!(" --mesh {}", self.mesh.as_str())),
            self.kubeconfig.as_deref().map(|file| format!(" --kubeconfig {}", path(file))),
            self.context.as_deref().map(|context| format!(" --context {context}")),
            (self.image != IMAGE).then(|| format!(" --image {}", self.image)),
            (self.entrance != By::default()).then(|| format!(" --entrance {}", self.entrance)),
            self.kubernetes.as_deref().map(|version| format!(" --kubernetes {version}")),
            self.patience.map(|times| format!(" --patience {times}")),
            self.native_images.then(|| " --native-images".to_owned()),
            (self.install != Install::Manifests).then(|| format!(" --install {}", self.install.as_str())),
            self.chart_version.as_deref().map(|version| format!(" --chart-version {version}")),
            self.chart_repository.as_deref().map(|repository| format!(" --chart-repository {repository}")),
        ];
        flags.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        target: Target,
    }

    fn target(line: &str) -> Target {
        Line::parse_from(std::iter::once("meshgate").chain(line.split_whitespace())).target
    }

    #[test]
    fn a_cluster_that_is_made_has_no_load_balancer() {
        for kind in ["kind", "k3s"] {
            let refused =
                target(&format!("--cluster {kind} --entrance load-balancer")).check().unwrap_err().to_string();
            assert!(refused.contains(&format!("a {kind} cluster has none")), "{refused}");
        }
        target("--cluster existing --entrance load-balancer").check().unwrap();
    }

    #[test]
    fn other_clusters_are_given_more_time_and_the_line_that_repeats_says_how_much() {
        assert_eq!((target("").pace(), target("--cluster kind").pace()), (1, 3));
        let patient = target("--cluster existing --patience 5");
        assert_eq!((patient.pace(), patient.repeat().as_str()), (5, " --cluster existing --patience 5"));
    }
}
