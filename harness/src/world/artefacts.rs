//! What a person needs to understand a failure, as files in the report folder.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context as _;
use meshgate_clusters::told;
use meshgate_inject::PROXY_CONTAINER;

use crate::context::Context;
use crate::metrics::{Families, Metrics};
use crate::world::World;

mod pods;

/// The port of the proxy's admin server.
pub const ADMIN_PORT: u16 = 4191;

impl World {
    /// The metrics of the proxy in a pod, scraped from the node.
    pub async fn metrics_of(&self, pod: Ipv4Addr, families: Families) -> anyhow::Result<Metrics> {
        Ok(Metrics::parse(self.metrics_text(pod, &families).await?)?.of(families))
    }

    async fn metrics_text(&self, pod: Ipv4Addr, families: &Families) -> anyhow::Result<String> {
        self.prober.fetch(SocketAddr::from((pod, ADMIN_PORT)), &families.path()).await
    }

    /// The log of the container that carries an instance's traffic, which has the access log; all its pods.
    pub async fn access_log(&self, workload: &str) -> anyhow::Result<String> {
        self.logs_of(workload, |container| container == self.controller.container).await
    }

    /// Everything that an instance of the controller says: the logs of all its containers but the mesh's, all its pods.
    pub async fn controller_log(&self, workload: &str) -> anyhow::Result<String> {
        self.logs_of(workload, |container| container != PROXY_CONTAINER).await
    }

    async fn logs_of(&self, workload: &str, wanted: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        let instance = format!("app.kubernetes.io/instance={workload}");
        self.kubernetes.logs_of(&self.controller.namespace, &instance, wanted).await
    }

    /// Keeps what shows a failed case: requests and answers, the objects, the metrics, the logs, and a line that repeats it.
    /// Returns the files, relative to the report folder.
    pub async fn keep_artefacts(&self, context: &Context, attempt: u32, reason: Option<&str>) -> Vec<String> {
        let folder = format!("artefacts/{}/{}-{attempt}", self.cell.slug(), context.id.replace('/', "_"));
        let mut files = Files::new(self.report_dir.clone(), folder);
        files.keep(
            "README.md",
            format!(
                "# {id} in {}\n\n{}\n\nTo repeat it:\n\n    {} --case {id}\n",
                self.cell,
                reason.unwrap_or_default(),
                self.repeat,
                id = context.id,
            ),
        );
        files.keep("requests.json", serde_json::to_string_pretty(&context.trace()).unwrap_or_default());
        let mut objects = String::new();
        for route in context.plan.routes.values() {
            for object in route.objects(&self.recipe).unwrap_or_default() {
                objects += &format!("---\n{}", serde_yaml::to_string(&object).unwrap_or_default());
            }
        }
        for object in &context.plan.objects {
            objects += &format!("---\n{}", serde_yaml::to_string(object).unwrap_or_default());
        }
        files.keep("objects.yaml", objects);
        if self.cell.mode.has_proxy()
            && let Ok(pod) = self.controller_pod(&self.controller.workload).await
            && let Ok(text) = self.metrics_text(pod, &Families::All).await
        {
            files.keep("controller-proxy-metrics.txt", text);
        }
        self.keep_state(&mut files).await;
        files.kept
    }

    /// Keeps what shows why the cell could not be set up. Returns the folder and the files, relative to the report folder.
    pub(super) async fn keep_setup_artefacts(&self, error: &anyhow::Error) -> (String, Vec<String>) {
        let folder = format!("artefacts/{}/setup", self.cell.slug());
        let mut files = Files::new(self.report_dir.clone(), folder.clone());
        let why = told(error.as_ref());
        let readme = format!("# {} was not ready\n\n{why}\n\nTo repeat it:\n\n    {}\n", self.cell, self.repeat);
        files.keep("README.md", readme);
        self.keep_state(&mut files).await;
        (folder, files.kept)
    }

    /// Pods, events and logs.
    async fn keep_state(&self, files: &mut Files) {
        if let Ok(events) = self.kubernetes.events().await {
            files.keep("events.txt", events.join("\n"));
        }
        let Ok(pods) = self.kubernetes.all_pods().await else { return };
        files.keep("pods.txt", pods::table(&pods));
        for pod in pods {
            let (Some(name), Some(namespace)) = (pod.metadata.name, pod.metadata.namespace) else { continue };
            let Some(spec) = pod.spec else { continue };
            for container in spec.init_containers.into_iter().flatten().chain(spec.containers) {
                if let Ok(log) = self.kubernetes.logs(&namespace, &name, &container.name).await
                    && !log.is_empty()
                {
                    files.keep(&format!("logs/{namespace}_{name}_{}.log", container.name), log);
                }
            }
        }
    }
}

/// Writes files below the report folder; a file that cannot be written is told on standard error and is no reason to fail.
struct Files {
    report_dir: PathBuf,
    folder: String,
    kept: Vec<String>,
}

impl Files {
    fn new(report_dir: PathBuf, folder: String) -> Self {
        Self { report_dir, folder, kept: Vec::new() }
    }

    fn keep(&mut self, name: &str, text: String) {
        let relative = format!("{}/{name}", self.folder);
        let path = self.report_dir.join(&relative);
        let written = path
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::write(&path, text))
            .with_context(|| format!("cannot keep {}", path.display()));
        match written {
            Ok(()) => self.kept.push(relative),
            Err(error) => eprintln!("{}", told(error.as_ref())),
        }
    }
}
