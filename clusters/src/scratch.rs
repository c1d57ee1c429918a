//! Files that hold credentials, or are large, and that no other user and no later run is to find: all in one folder, so that who ends the process
//! without running destructors can take them away, and the next process those of one that was killed.

use std::fs::{DirEntry, Permissions};
use std::io::{self, Write};
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use nix::unistd::geteuid;
use tempfile::{TempDir, TempPath};

use crate::lease::{Lock, lock};

/// What the folders of all processes are called, for the sweeping.
const PREFIX: &str = "meshgate-scratch-";

/// How often the folder is tried to be removed, and how long is waited in between.
const TRIES: usize = 100;
const PAUSE: Duration = Duration::from_millis(5);

/// The folder of this process, as long as there is a file in it.
static CURRENT: Mutex<Weak<Folder>> = Mutex::new(Weak::new());

/// A file that goes when it is dropped, and with the last one their folder.
#[derive(Debug)]
pub struct Scratch {
    path: TempPath,
    _folder: Arc<Folder>,
}

impl Scratch {
    /// Writes one that nobody else reads.
    ///
    /// # Errors
    /// It cannot be written where the system has its temporary files, or `TMPDIR` says that they are.
    pub fn new(suffix: &str, content: &[u8]) -> io::Result<Self> {
        let folder = folder()?;
        let mut file = tempfile::Builder::new().suffix(suffix).tempfile_in(&folder.dir)?;
        file.write_all(content)?;
        Ok(Self { path: file.into_temp_path(), _folder: folder })
    }
}

impl Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for Scratch {
    fn as_ref(&self) -> &Path {
        self
    }
}

/// A folder for the temporary files of another process. What that leaves, being killed, goes when this is dropped.
#[derive(Debug)]
pub struct Room {
    dir: TempDir,
    _folder: Arc<Folder>,
}

impl Room {
    /// Makes one.
    ///
    /// # Errors
    /// As [`Scratch::new`].
    pub fn new() -> io::Result<Self> {
        let folder = folder()?;
        Ok(Self { dir: tempfile::tempdir_in(&folder.dir)?, _folder: folder })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Takes all of this process' files away. For before [`std::process::exit`], which drops nothing.
pub fn discard() {
    let Some(folder) = current().upgrade() else { return };
    // Another thread may still be making files there, which fails once the folder is gone.
    for _ in 0..TRIES {
        match std::fs::remove_dir_all(&folder.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => std::thread::sleep(PAUSE),
            _ => return,
        }
    }
    tracing::warn!(folder = %folder.dir.path().display(), "temporary files are left");
}

/// One process' folder. Its lock says that the process lives.
#[derive(Debug)]
struct Folder {
    dir: TempDir,
    _lock: Lock,
}

fn current() -> MutexGuard<'static, Weak<Folder>> {
    CURRENT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn folder() -> io::Result<Arc<Folder>> {
    let mut current = current();
    if let Some(folder) = current.upgrade() {
        return Ok(folder);
    }
    let root = std::env::temp_dir();
    sweep(&root);
    let made = made(&root).map_err(|error| {
        let place = root.display();
        io::Error::new(error.kind(), format!("a folder for temporary files in {place} (TMPDIR names another): {error}"))
    });
    let folder = Arc::new(made?);
    *current = Arc::downgrade(&folder);
    Ok(folder)
}

fn made(root: &Path) -> io::Result<Folder> {
    loop {
        let builder = &mut tempfile::Builder::new();
        let dir = builder.prefix(PREFIX).permissions(Permissions::from_mode(0o700)).tempdir_in(root)?;
        // Another process that sweeps may take it for left over until it is locked.
        if let Some(lock) = lock(dir.path(), false).map_err(io::Error::other)? {
            return Ok(Folder { dir, _lock: lock });
        }
    }
}

/// Takes away the folders of this user's processes that were killed.
fn sweep(root: &Path) {
    let own = |entry: &DirEntry| {
        entry.file_name().to_string_lossy().starts_with(PREFIX)
            && entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw())
    };
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten().filter(own) {
        if let Ok(Some(_lock)) = lock(&entry.path(), false)
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::debug!(folder = %entry.path().display(), %error, "left over, and not to be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_reads_it_and_it_goes_when_it_is_dropped() {
        let file = Scratch::new(".json", b"secret").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let folder = file.parent().unwrap().to_owned();
        assert_eq!((mode(&file), mode(&folder)), (0o600, 0o700));
        assert!(file.to_str().unwrap().ends_with(".json"));
        assert_eq!(std::fs::read(&file).unwrap(), b"secret");
        let path = file.to_path_buf();
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_process_left_is_swept_and_what_a_live_one_has_is_not() {
        let root = tempfile::tempdir().unwrap();
        let alive = made(root.path()).unwrap();
        let killed = made(root.path()).unwrap();
        let left = killed.dir.path().to_owned();
        std::fs::write(left.join("token"), "secret").unwrap();
        std::mem::forget(killed.dir);
        let other = root.path().join("meshgate-other");
        std::fs::create_dir(&other).unwrap();
        sweep(root.path());
        assert!(left.exists(), "the control: it is held");
        drop(killed._lock);
        sweep(root.path());
        assert!(!left.exists());
        assert!(alive.dir.path().exists() && other.exists());
        let path = alive.dir.path().to_owned();
        drop(alive);
        assert!(!path.exists(), "and by itself");
    }
}
