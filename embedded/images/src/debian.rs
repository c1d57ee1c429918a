//! Programs from Debian's packages, unpacked without root: with the libraries that they need, and a variable that finds those.

use std::fs;
use std::path::{Path, PathBuf};

use duct::cmd;

use crate::catalogue::executable;
use crate::{ImageError, Tool};

/// A program of a package.
#[derive(Clone, Copy)]
pub(crate) struct Packaged<'a> {
    /// The program's name.
    pub program: &'a str,
    /// Where its package has it, below the root.
    pub file: &'a str,
    /// The package, and after it those of its libraries.
    pub packages: &'a [String],
    /// The variable that takes another program's path.
    pub environment: &'a str,
}

impl Packaged<'_> {
    /// The program from PATH, from the usual folders of administrators' programs, or unpacked in the cache; with `progress` it is
    /// unpacked if need be.
    pub(crate) fn get(&self, cache: &Path, progress: Option<&dyn Fn(&str)>) -> Result<Tool, ImageError> {
        match on_path(self.program) {
            Some(path) => Ok(Tool::of(path)),
            None => self.unpacked(cache, progress),
        }
    }

    /// Where it is, or what will be done about it, for people.
    pub(crate) fn whereabouts(&self, cache: &Path) -> Result<String, String> {
        match self.get(cache, None) {
            Ok(tool) => Ok(tool.path.display().to_string()),
            Err(_) if on_path("apt-get").is_some() && on_path("dpkg-deb").is_some() => {
                Ok("not installed; will be unpacked from Debian's packages".to_owned())
            }
            Err(_) => Err("not on PATH, and this is no Debian to unpack it from".to_owned()),
        }
    }

    /// The program in the cache, where it is usable without being installed.
    fn unpacked(&self, cache: &Path, progress: Option<&dyn Fn(&str)>) -> Result<Tool, ImageError> {
        let home = cache.join(self.program);
        let path = home.join(self.file);
        if !executable(&path) {
            let unpacked = match progress {
                None => Err(format!("it is not in {} either", home.display())),
                Some(progress) => {
                    progress(&format!("fetching {} from Debian's packages", self.program));
                    self.unpack(cache, &home)
                }
            };
            unpacked.map_err(|problem| ImageError::Unpacked {
                program: self.program.to_owned(),
                package: self.packages.first().cloned().unwrap_or_default(),
                environment: self.environment.to_owned(),
                problem,
            })?;
        }
        let libraries = ["usr/lib", "lib"]
            .map(|lib| home.join(lib).join(format!("{}-linux-gnu", std::env::consts::ARCH)).display().to_string())
            .join(":");
        Ok(Tool { path, env: vec![("LD_LIBRARY_PATH".into(), libraries)], files: vec![home] })
    }

    fn unpack(&self, cache: &Path, home: &Path) -> Result<(), String> {
        fs::create_dir_all(cache).map_err(|error| format!("{}: {error}", cache.display()))?;
        let work = tempfile::tempdir_in(cache).map_err(|error| format!("{}: {error}", cache.display()))?;
        let run = |command: duct::Expression| match command.stdout_capture().stderr_capture().unchecked().run() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let arguments = ["download"].into_iter().chain(self.packages.iter().map(String::as_str));
        run(cmd("apt-get", arguments).dir(work.path()))
            .map_err(|error| format!("apt-get download (do the package lists exist? sudo apt-get update): {error}"))?;
        let root = work.path().join("root");
        for entry in fs::read_dir(work.path()).map_err(|error| error.to_string())?.flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "deb") {
                run(cmd!("dpkg-deb", "-x", entry.path(), &root)).map_err(|error| format!("dpkg-deb: {error}"))?;
            }
        }
        match fs::rename(&root, home) {
            // Another process was faster.
            Err(_) if executable(&home.join(self.file)) => Ok(()),
            result => result.map_err(|error| format!("{}: {error}", home.display())),
        }
    }
}

/// A program on PATH or in an administrator's folder, which an ordinary user's PATH often lacks.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|path| executable(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn administrators_folders_are_looked_into() {
        assert!(on_path("sh").is_some());
        assert!(on_path("no-such-program").is_none());
    }

    #[test]
    fn packages_that_do_not_exist_are_told_and_leave_nothing() {
        if on_path("apt-get").is_none() {
            return;
        }
        let cache = tempfile::tempdir().unwrap();
        let packages = ["no-such-package-at-all".to_owned()];
        let packaged = Packaged { program: "nothing", file: "usr/bin/nothing", packages: &packages, environment: "N" };
        let error = packaged.get(cache.path(), Some(&|_| {})).unwrap_err().to_string();
        assert!(error.contains("no-such-package-at-all") && error.contains("apt-get update"), "{error}");
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
        let error = packaged.get(cache.path(), None).unwrap_err().to_string();
        assert!(error.contains("not in") && error.contains("or set N"), "{error}");
    }

    #[test]
    #[ignore = "needs Debian's archive and lists fetched by apt-get update"]
    fn programs_are_unpacked_and_run() {
        let cache = tempfile::tempdir().unwrap();
        let catalogue = crate::Catalogue::built_in("/bin/meshgate");
        for (packaged, argument, says) in catalogue.packaged().map(|packaged| match packaged.program {
            "haproxy" => (packaged, "-v", "HAProxy version"),
            _ => (packaged, "--version", "nftables"),
        }) {
            let tool = packaged.unpacked(cache.path(), Some(&|_| {})).unwrap();
            assert!(tool.path.starts_with(cache.path()) && tool.files == [cache.path().join(packaged.program)]);
            let version = duct::cmd!(&tool.path, argument).env(&tool.env[0].0, &tool.env[0].1).read().unwrap();
            assert!(version.contains(says), "{version}");
        }
    }
}
