//! Envoy itself: started, unless somebody else does that, handed files, asked whether it has taken them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::Instant;

use super::model::Config;
use super::render::{self, CLUSTERS, LISTENERS, PLAIN, ROUTES};
use crate::data_plane::{self, DataPlane, Files, Program};

/// The program's name, as the image brings it.
const ENVOY: &str = "envoy";

/// Its administration, on the pod's loopback.
const ADMIN: u16 = 9001;

const BOOTSTRAP: &str = "bootstrap.json";

/// How long it may take to start as a child, or to take files.
const TAKES: Duration = Duration::from_secs(10);

/// Between the first two questions whether it has; each further pause is twice as long, up to the longest.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(160);

/// What is asked: the few texts, which cost nothing, and those of the thousands of counters that tell of refusals.
const VERSIONS: &str = "type=TextReadouts&filter=version_text$";
const REFUSALS: &str = "type=Counters&filter=(lds|cds|rds.*).update_rejected$";

/// Where Envoy's files are, and by that whose process it is.
enum Folder {
    /// A child has it to itself, and it goes with the child.
    Own(TempDir),
    /// One that is started elsewhere shares it with this process.
    Shared(PathBuf),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Own(folder) => folder.path(),
            Self::Shared(folder) => folder,
        }
    }
}

/// Envoy, as a child or elsewhere.
pub(crate) struct Envoy {
    folder: Folder,
    /// The child, once it is started.
    running: Option<Program>,
    /// What it serves, as it was handed in.
    served: Files,
    admin: Client<hyper_util::client::legacy::connect::HttpConnector, String>,
    /// Where `admin` asks.
    admin_port: u16,
}

/// Writes what an Envoy that is started elsewhere begins with: the bootstrap, as this file, and beside it the files that it watches, for
/// without them it does not start. They have nothing in them yet.
pub(crate) fn bootstrap(file: &Path) -> anyhow::Result<()> {
    let file = std::path::absolute(file).with_context(|| file.display().to_string())?;
    let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else {
        bail!("expected the path of a file for Envoy's bootstrap, found {}", file.display());
    };
    let mut files = render::files(&Config::default());
    files.insert(name.into(), render::bootstrap(Some(&*folder.to_string_lossy()), ADMIN));
    data_plane::write(folder, &files)
}

impl Envoy {
    /// One that is a child.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("a folder for Envoy")?;
        data_plane::write(folder.path(), &Files::from([(BOOTSTRAP.into(), render::bootstrap(None, ADMIN))]))?;
        Ok(Self::of(Folder::Own(folder), Files::new()))
    }

    /// One that is started elsewhere in the pod, from what [`bootstrap`] has written into this folder. It may come after this process, and
    /// go before it.
    pub(crate) fn elsewhere(folder: &Path) -> anyhow::Result<Self> {
        // Routes that a former process left there may lead to its clusters. Everything else is handed over anew.
        let clusters = std::fs::read_to_string(folder.join(CLUSTERS)).with_context(|| {
            let folder = folder.display();
            format!("expected {CLUSTERS} in {folder}, which the pod's init container writes beside Envoy's bootstrap")
        })?;
        Ok(Self::of(Folder::Shared(folder.to_owned()), Files::from([(CLUSTERS.into(), clusters)])))
    }

    fn of(folder: Folder, served: Files) -> Self {
        let admin = Client::builder(TokioExecutor::new()).build_http();
        Self { folder, running: None, served, admin, admin_port: ADMIN }
    }

    fn is_elsewhere(&self) -> bool {
        matches!(self.folder, Folder::Shared(_))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(ENVOY);
        command.current_dir(self.folder.path()).stdin(Stdio::null()).args(["-c", BOOTSTRAP]);
        // Lines of the access log are counted soon after the requests, not ten seconds later.
        command.args([
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "-l",
            "warning",
            "--file-flush-interval-msec",
            "50",
        ]);
        command
    }

    /// Writes those of the files that are other ones than before, and waits until Envoy serves them.
    async fn hand_over(&mut self, files: &Files) -> anyhow::Result<()> {
        let changed: Files = files
            .iter()
            .filter(|(path, content)| self.served.get(*path) != Some(content))
            .map(|(path, content)| (path.clone(), content.clone()))
            .collect();
        let before = self.state(REFUSALS).await?;
        data_plane::write(self.folder.path(), &changed)?;
        self.taken(&changed, files, &before).await
    }

    /// Waits until Envoy names the versions of the changed files as what it serves.
    async fn taken(&self, changed: &Files, all: &Files, before: &[(String, String)]) -> anyhow::Result<()> {
        let mut wanted = Vec::new();
        // Without a listener that asks for the routes nobody reads them.
        let unread =
            |file: &str| file == ROUTES && !all.get(Path::new(LISTENERS)).is_some_and(|all| all.contains(ROUTES));
        for (file, statistics) in statistics().into_iter().filter(|(file, _)| !unread(file)) {
            if let Some(content) = changed.get(Path::new(file)) {
                let content: Value = serde_json::from_str(content).context(file)?;
                let version = format!("{:?}", content["version_info"].as_str().unwrap_or_default());
                wanted.push((
                    file,
                    format!("{statistics}.version_text"),
                    format!("{statistics}.update_rejected"),
                    version,
                ));
            }
        }
        let (mut waited, mut pause) = (Duration::ZERO, PAUSE);
        loop {
            let state = self.state(VERSIONS).await?;
            let is = |state: &[(String, String)], name: &str| {
                state.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone()).unwrap_or_default()
            };
            let Some((file, ..)) = wanted.iter().find(|(_, version, _, value)| is(&state, version) != *value) else {
                return Ok(());
            };
            let refusals = self.state(REFUSALS).await?;
            for (file, _, rejected, _) in &wanted {
                let (now, earlier) = (is(&refusals, rejected), is(before, rejected));
                if !["", "0", earlier.as_str()].contains(&now.as_str()) {
                    bail!("Envoy refuses {file}, and says why in its log");
                }
            }
            // Time in which nobody answers does not count: an Envoy that begins anew takes the files as it starts.
            if waited >= TAKES {
                bail!("Envoy has not taken {file} within {TAKES:?}");
            }
            tokio::time::sleep(pause).await;
            waited += pause;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// What Envoy says of its versions and refusals, by name. One that is started elsewhere is waited for while it is not there.
    async fn state(&self, what: &str) -> anyhow::Result<Vec<(String, String)>> {
        let mut told = Instant::now();
        loop {
            match self.asked(what).await {
                Err(error) if self.is_elsewhere() => {
                    if told.elapsed() >= TAKES {
                        tracing::warn!("still waiting for Envoy, which is started elsewhere: {error:#}");
                        told = Instant::now();
                    }
                    tokio::time::sleep(LONGEST_PAUSE).await;
                }
                answer => return answer,
            }
        }
    }

    async fn asked(&self, what: &str) -> anyhow::Result<Vec<(String, String)>> {
        let uri = format!("http://127.0.0.1:{}/stats?{what}", self.admin_port).parse()?;
        let answer = self.admin.get(uri).await.context("Envoy's administration")?;
        let text = answer.into_body().collect().await.context("Envoy's statistics")?.to_bytes();
        let text = String::from_utf8_lossy(&text);
        let pair = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(text.lines().filter_map(pair).collect())
    }

    async fn start(&mut self, files: &Files) -> anyhow::Result<()> {
        data_plane::write(self.folder.path(), files)?;
        self.running = Some(Program::start(ENVOY, &mut self.command())?);
        let deadline = Instant::now() + TAKES;
        while let Err(error) = self.state(VERSIONS).await {
            if Instant::now() >= deadline {
                return Err(error.context(format!("Envoy does not answer within {TAKES:?}")));
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.taken(files, files, &[]).await
    }
}

/// The statistics in which Envoy tells the version of each file.
fn statistics() -> [(&'static str, String); 3] {
    [
        (CLUSTERS, "cluster_manager.cds".to_owned()),
        (LISTENERS, "listener_manager.lds".to_owned()),
        (ROUTES, format!("http.http.rds.{PLAIN}")),
    ]
}

/// The clusters' file with those of the former one that are in it no more.
fn with_former(clusters: &str, former: &str) -> anyhow::Result<String> {
    let (mut next, former): (Value, Value) = (serde_json::from_str(clusters)?, serde_json::from_str(former)?);
    let (Some(list), Some(former)) = (next["resources"].as_array_mut(), former["resources"].as_array()) else {
        return Ok(clusters.to_owned());
    };
    let names: BTreeSet<String> = list.iter().map(|cluster| cluster["name"].to_string()).collect();
    list.extend(former.iter().filter(|cluster| !names.contains(&cluster["name"].to_string())).cloned());
    Ok(next.to_string())
}

impl DataPlane for Envoy {
    async fn apply(&mut self, files: &Files) -> anyhow::Result<()> {
        if self.running.is_none() && !self.is_elsewhere() {
            self.start(files).await?;
        } else {
            // A route never leads to a cluster that is not there: new ones come before the routes, and old ones stay until the next
            // change.
            let (mut first, mut then) = (self.served.clone(), files.clone());
            let clusters = Path::new(CLUSTERS);
            let both = match (files.get(clusters), self.served.get(clusters)) {
                (Some(next), Some(former)) if next != former => Some(with_former(next, former)?),
                _ => None,
            };
            if let Some(both) = both {
                first.insert(clusters.to_owned(), both);
                self.hand_over(&first).await?;
            }
            then.remove(clusters);
            self.hand_over(&then).await?;
        }
        self.served.clone_from(files);
        Ok(())
    }

    async fn ended(&mut self) -> anyhow::Error {
        data_plane::ended(&mut self.running).await
    }

    async fn stop(&mut self) {
        data_plane::stop(&mut self.running, Signal::SIGTERM).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::model::{Cluster, Endpoints};
    use super::*;

    /// What Envoy says once it has read the files of a folder.
    fn versions(folder: &Path) -> String {
        let line = |(file, statistics): (&str, String)| {
            let content: Value = serde_json::from_str(&std::fs::read_to_string(folder.join(file)).unwrap()).unwrap();
            format!("{statistics}.version_text: {}\n", content["version_info"])
        };
        statistics().into_iter().map(line).collect()
    }

    /// Applies files to an Envoy elsewhere, which is away when it is asked first.
    async fn apply(envoy: &mut Envoy, files: &Files) {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        envoy.admin_port = listener.local_addr().unwrap().port();
        let folder = envoy.folder.path().to_owned();
        let elsewhere = async move {
            drop(listener.accept().await.unwrap());
            let app = axum::Router::new().fallback(move || std::future::ready(versions(&folder)));
            axum::serve(listener, app).await.unwrap();
        };
        tokio::select! {
            applied = envoy.apply(files) => applied.unwrap(),
            () = elsewhere => panic!("it serves as long as it is asked"),
        }
    }

    /// Files with one cluster.
    fn with_cluster(name: &str) -> Files {
        let endpoints = Endpoints::Dns("a.b".into(), 80);
        let cluster = Cluster { endpoints, http2: false, connect_timeout: Duration::from_secs(2) };
        let clusters = BTreeMap::from([(name.to_owned(), cluster)]);
        render::files(&Config { http_port: 8080, clusters, ..Config::default() })
    }

    #[tokio::test]
    async fn one_that_is_started_elsewhere_is_waited_for_and_outlives_who_writes_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let read = |file: &str| std::fs::read_to_string(dir.path().join(file)).unwrap();
        let missing = Envoy::elsewhere(dir.path()).err().map(|error| format!("{error:#}"));
        assert!(missing.is_some_and(|missing| missing.contains("expected clusters.json in ")), "the control");
        bootstrap(&dir.path().join("envoy.json")).unwrap();
        assert!(read("envoy.json").contains(&format!("{}/{LISTENERS}", dir.path().display())));

        let mut envoy = Envoy::elsewhere(dir.path()).unwrap();
        let first = with_cluster("a");
        apply(&mut envoy, &first).await;
        for (file, content) in first.iter().filter(|(file, _)| *file != Path::new(CLUSTERS)) {
            assert_eq!(read(&file.display().to_string()), *content);
        }
        // Another process finds what the former one has left, and takes no cluster away before the routes have changed.
        drop(envoy);
        let mut envoy = Envoy::elsewhere(dir.path()).unwrap();
        apply(&mut envoy, &with_cluster("b")).await;
        let clusters: Value = serde_json::from_str(&read(CLUSTERS)).unwrap();
        let clusters = clusters["resources"].as_array().unwrap();
        let names: Vec<&str> = clusters.iter().filter_map(|cluster| cluster["name"].as_str()).collect();
        assert_eq!(names, ["b", "a"]);
        assert!(tokio::time::timeout(PAUSE, envoy.ended()).await.is_err(), "its end is not this process's");
    }

    #[test]
    fn former_clusters_stay_until_the_routes_have_changed() {
        let former = r#"{"resources": [{"name": "a", "old": true}, {"name": "b"}]}"#;
        let next = r#"{"version_info": "2", "resources": [{"name": "a"}, {"name": "c"}]}"#;
        let both: Value = serde_json::from_str(&with_former(next, former).unwrap()).unwrap();
        let names: Vec<String> = both["resources"].as_array().unwrap().iter().map(Value::to_string).collect();
        assert_eq!(names, [r#"{"name":"a"}"#, r#"{"name":"c"}"#, r#"{"name":"b"}"#]);
        assert_eq!(both["version_info"], "2");
    }
}
