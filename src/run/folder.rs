//! The folder that a run's report goes to: one run's at a time, and tried before it begins.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use meshgate_harness::report::Report;

/// The file that a run locks, with the name of who did. It stays: another could lock one that takes its place.
const LOCK: &str = ".meshgate.lock";

/// A report folder that nobody else writes a report to. The kernel gives it back when the process ends, however it does.
pub struct Folder {
    dir: PathBuf,
    /// Whether an earlier run had it.
    ours: bool,
    _lock: File,
}

impl Folder {
    /// Makes the folder, locks it, and tries whether anything can be written there: after the run it would be too late.
    ///
    /// # Errors
    /// It is another run's, or cannot be written to.
    pub fn take(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make the report folder {}", dir.display()))?;
        let path = dir.join(LOCK);
        let ours = path.exists() || Report::read(&dir.join("report.json")).is_ok();
        let unwritable = || {
            format!(
                "cannot write to the report folder {}; give one that can be written with --report-dir",
                dir.display()
            )
        };
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut lock: File = open.with_context(unwritable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who it is says less than that it is somebody.
                let _ = lock.read_to_string(&mut holder);
                bail!(
                    "the report folder {} is in use by another run ({}); wait until that ends, or give this one a folder of its own with \
                     --report-dir",
                    dir.display(),
                    holder.trim()
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock the report folder {}", dir.display()));
            }
        }
        let mut sign = || -> std::io::Result<()> {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "process {}", std::process::id())
        };
        // Reports are files that take the place of others, and so need more than one that can be written.
        sign().and_then(|()| tempfile::NamedTempFile::new_in(dir).map(drop)).with_context(unwritable)?;
        Ok(Self { dir: dir.to_owned(), ours, _lock: lock })
    }

    /// Removes what shows the failures of an earlier run, which this one's report would not speak of. Where no run was before, whatever
    /// has that name is somebody else's.
    pub fn clear(&self) -> anyhow::Result<()> {
        if !self.ours {
            return Ok(());
        }
        let artefacts = self.dir.join("artefacts");
        match std::fs::remove_dir_all(&artefacts) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove what an earlier run left, {}", artefacts.display()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_runs_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let report = dir.path().join("a/report");
        let first = Folder::take(&report).unwrap();
        let refused = Folder::take(&report).err().unwrap().to_string();
        let holder = format!("in use by another run (process {});", std::process::id());
        assert!(refused.contains(&holder), "{refused}");
        drop(first);
        Folder::take(&report).unwrap();
    }

    #[test]
    fn only_what_an_earlier_run_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let artefacts = dir.path().join("artefacts/cell");
        std::fs::create_dir_all(&artefacts).unwrap();
        let cleared = || {
            Folder::take(dir.path()).unwrap().clear().unwrap();
            !artefacts.exists()
        };
        assert!(!cleared(), "no run was here before");
        assert!(cleared());
        assert!(dir.path().exists());
        Folder::take(dir.path()).unwrap().clear().unwrap();
        // As in a folder of others.
        std::fs::remove_file(dir.path().join(LOCK)).unwrap();
        std::fs::create_dir_all(&artefacts).unwrap();
        std::fs::write(dir.path().join("report.json"), "{\"schema\": \"another/v1\"}").unwrap();
        assert!(!cleared(), "somebody else's report");
    }
}
