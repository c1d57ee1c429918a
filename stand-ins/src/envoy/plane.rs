//! Envoy itself: started, handed files, asked whether it has taken them.

use std::collections::BTreeSet;
use std::path::Path;
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

use super::render::{self, CLUSTERS, LISTENERS, PLAIN, ROUTES};
use crate::data_plane::{self, DataPlane, Files, Program};

/// The program's name, as the image brings it.
const ENVOY: &str = "envoy";

/// Its administration, on the pod's loopback.
const ADMIN: u16 = 9001;

const BOOTSTRAP: &str = "bootstrap.json";

/// How long it may take to start, or to take files.
const TAKES: Duration = Duration::from_secs(10);

/// Between the first two questions whether it has; each further pause is twice as long, up to the longest.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(160);

/// What is asked: the few texts, which cost nothing, and those of the thousands of counters that tell of refusals.
const VERSIONS: &str = "type=TextReadouts&filter=version_text$";
const REFUSALS: &str = "type=Counters&filter=(lds|cds|rds.*).update_rejected$";

/// Envoy in a folder of its own.
pub(crate) struct Envoy {
    folder: TempDir,
    running: Option<Program>,
    /// What it serves, as it was handed in.
    served: Files,
    admin: Client<hyper_util::client::legacy::connect::HttpConnector, String>,
}

impl Envoy {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("a folder for Envoy")?;
        data_plane::write(folder.path(), &Files::from([(BOOTSTRAP.into(), render::bootstrap(ADMIN))]))?;
        let admin = Client::builder(TokioExecutor::new()).build_http();
        Ok(Self { folder, running: None, served: Files::new(), admin })
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
        let deadline = Instant::now() + TAKES;
        let mut pause = PAUSE;
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
            if Instant::now() >= deadline {
                bail!("Envoy has not taken {file} within {TAKES:?}");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// What Envoy says of its versions and refusals, by name.
    async fn state(&self, what: &str) -> anyhow::Result<Vec<(String, String)>> {
        let uri = format!("http://127.0.0.1:{ADMIN}/stats?{what}").parse()?;
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
        if self.running.is_none() {
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
    use super::*;

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
