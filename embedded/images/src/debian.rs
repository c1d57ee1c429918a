//! Tools from Debian's packages, unpacked without root.

use std::fs;
use std::path::{Path, PathBuf};

use duct::cmd;

use crate::catalogue::executable;
use crate::{ImageError, Tool};

/// `nft` from PATH, from the usual folders of administrators' programs, or unpacked into the cache.
pub(crate) fn nft(cache: &Path, packages: &[String], progress: &dyn Fn(&str)) -> Result<Tool, ImageError> {
    if let Some(path) = on_path("nft") {
        return Ok(Tool { path, env: Vec::new() });
    }
    unpacked(cache, packages, progress)
}

/// `nft` unpacked into the cache, where it is usable without being installed.
fn unpacked(cache: &Path, packages: &[String], progress: &dyn Fn(&str)) -> Result<Tool, ImageError> {
    let home = cache.join("nft");
    let path = home.join("usr/sbin/nft");
    if !executable(&path) {
        progress("fetching nft from Debian's packages");
        unpack(cache, &home, packages).map_err(|problem| ImageError::Nft { problem })?;
    }
    let libraries = ["usr/lib", "lib"]
        .map(|lib| home.join(lib).join(format!("{}-linux-gnu", std::env::consts::ARCH)).display().to_string())
        .join(":");
    Ok(Tool { path, env: vec![("LD_LIBRARY_PATH".into(), libraries)] })
}

/// A program on PATH or in an administrator's folder, which an ordinary user's PATH often lacks.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|path| executable(path))
}

fn unpack(cache: &Path, home: &Path, packages: &[String]) -> Result<(), String> {
    fs::create_dir_all(cache).map_err(|error| format!("{}: {error}", cache.display()))?;
    let work = tempfile::tempdir_in(cache).map_err(|error| format!("{}: {error}", cache.display()))?;
    let run = |command: duct::Expression| match command.stdout_capture().stderr_capture().unchecked().run() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let arguments = ["download"].into_iter().chain(packages.iter().map(String::as_str));
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
        Err(_) if executable(&home.join("usr/sbin/nft")) => Ok(()),
        result => result.map_err(|error| format!("{}: {error}", home.display())),
    }
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
        let error = unpack(cache.path(), &cache.path().join("nft"), &["no-such-package-at-all".into()]).unwrap_err();
        assert!(error.contains("no-such-package-at-all") && error.contains("apt-get update"), "{error}");
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
    }

    #[test]
    #[ignore = "needs Debian's archive and lists fetched by apt-get update"]
    fn nft_is_unpacked_and_runs() {
        let cache = tempfile::tempdir().unwrap();
        let catalogue = crate::Catalogue::built_in("/bin/meshgate");
        let tool = unpacked(cache.path(), catalogue.nft_packages(), &|_| {}).unwrap();
        assert!(tool.path.starts_with(cache.path()));
        let version = duct::cmd!(&tool.path, "--version").env(&tool.env[0].0, &tool.env[0].1).read().unwrap();
        assert!(version.contains("nftables"), "{version}");
    }
}
