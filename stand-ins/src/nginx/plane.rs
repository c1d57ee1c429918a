//! nginx itself: tested, started, reloaded.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use rcgen::{CertificateParams, DnType, KeyPair};
use tempfile::TempDir;
use tokio::process::Command;

use super::endpoints::{Endpoints, Zone};
use super::older::{self, Older};
use super::render::{ENDPOINTS, HEADERS, MAIN};
use crate::data_plane::{self, DataPlane, Files, Program};

/// The program's name, as the image brings it.
const NGINX: &str = "nginx";

/// The configuration that is tested.
const NEXT: &str = "nginx.conf.next";

/// nginx in a folder of its own.
pub(crate) struct Nginx {
    folder: TempDir,
    endpoints: Endpoints,
    /// Whether it has to be told the addresses in its configuration, and what else it lacks.
    older: Option<Older>,
    running: Option<Program>,
    /// What it serves, without the endpoints that it asks for, and with the custom headers as they were when it read the rest.
    served: Files,
}

impl Nginx {
    pub(crate) async fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("a folder for nginx")?;
        std::fs::create_dir(folder.path().join("temp"))?;
        let told = Command::new(NGINX).arg("-v").output().await.context("cannot start nginx -v")?;
        let told = String::from_utf8_lossy(&told.stderr);
        let older = older::is(&told);
        if let Some(older) = older {
            let http2 = if older.http2_by_server { "" } else { "HTTP/2 with TLS only, and " };
            tracing::warn!("{}: {http2}a reload for every pod that comes or goes", told.trim());
        }
        Ok(Self { folder, endpoints: Endpoints::start().await?, older, running: None, served: Files::new() })
    }

    fn command(&self, file: &str) -> Command {
        let mut command = Command::new(NGINX);
        command.arg("-p").arg(self.folder.path()).args(["-c", file, "-e", "stderr"]).stdin(Stdio::null());
        command
    }

    /// The files in this nginx' words, and the addresses that it asks for.
    fn spelled(&self, files: &Files) -> anyhow::Result<(Files, Zone)> {
        let mut files = files.clone();
        let zone = files.remove(Path::new(ENDPOINTS)).unwrap_or_default();
        let zone: Zone = serde_json::from_str(&zone).context(ENDPOINTS)?;
        if let Some(older) = self.older
            && let Some(main) = files.get_mut(Path::new(MAIN))
        {
            *main = older::spelled(main, &zone, older);
        }
        Ok((files, zone))
    }

    /// Tests files under another name, so that what nginx reads at a reload has always passed.
    async fn tested(&self, mut files: Files) -> anyhow::Result<()> {
        let main = files.remove(Path::new(MAIN)).unwrap_or_default();
        files.insert(NEXT.into(), main);
        data_plane::write(self.folder.path(), &files)?;
        let output = self.command(NEXT).arg("-t").output().await.context("cannot start nginx -t")?;
        if !output.status.success() {
            // One line: it is told in events and in the log.
            let said: Vec<String> = String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect();
            bail!("nginx -t: {}", said.join("; "));
        }
        Ok(())
    }
}

impl DataPlane for Nginx {
    async fn apply(&mut self, files: &Files) -> anyhow::Result<()> {
        let (files, zone) = self.spelled(files)?;
        if reasons(&files).eq(reasons(&self.served)) {
            self.endpoints.set(zone);
            return Ok(());
        }
        // Before the endpoints: while a configuration is refused, the real controller does not tell nginx of pods either.
        self.tested(files.clone()).await?;
        self.endpoints.set(zone);
        std::fs::rename(self.folder.path().join(NEXT), self.folder.path().join(MAIN))?;
        match &self.running {
            Some(nginx) => nginx.signal(Signal::SIGHUP)?,
            None => self.running = Some(Program::start(NGINX, &mut self.command(MAIN))?),
        }
        self.served = files;
        Ok(())
    }

    async fn test(&mut self, files: &Files) -> anyhow::Result<()> {
        self.tested(self.spelled(files)?.0).await
    }

    async fn ended(&mut self) -> anyhow::Error {
        data_plane::ended(&mut self.running).await
    }

    async fn stop(&mut self) {
        data_plane::stop(&mut self.running, Signal::SIGQUIT).await;
    }
}

/// The files whose change is a reason to have nginx read all of them.
fn reasons(files: &Files) -> impl Iterator<Item = (&PathBuf, &String)> {
    files.iter().filter(|(path, _)| !path.starts_with(HEADERS))
}

/// The certificate of hosts without one, chain and key as PEM, under the name that the real controller gives it.
pub(crate) fn fake_certificate() -> anyhow::Result<String> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(["ingress.local".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, "Kubernetes Ingress Controller Fake Certificate");
    Ok(params.self_signed(&key)?.pem() + &key.serialize_pem())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn custom_headers_are_no_reason_to_read_the_configuration() {
        let files = |main: &str, headers: &str| {
            Files::from([(MAIN.into(), main.to_owned()), (Path::new(HEADERS).join("a.conf"), headers.to_owned())])
        };
        let same = |one: Files, other: Files| reasons(&one).eq(reasons(&other));
        assert!(same(files("a", "x"), files("a", "y")));
        assert!(!same(files("a", "x"), files("b", "x")));
        assert!(!same(files("a", "x"), Files::new()));
    }
}
