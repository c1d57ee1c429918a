//! Which clusters on this machine belong to whom, so that none is left over and none is taken away from a run that needs it.
//!
//! Every cluster that a command makes has a folder `<state>/meshgate/clusters.d/<name>/` with a record ([`Lease`]), its kubeconfig and a
//! lock, which its owner holds as long as it lives. The kernel gives the lock back with the owner's last breath, so a dead owner is
//! known without asking whether a process id is still the same process. The record is written before the cluster is made: what dies in
//! between is found by the next run, which [sweeps](Leases::leftovers) it.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// What the name of every cluster that Meshgate makes begins with. Nothing else is ever swept.
pub const PREFIX: &str = "meshgate-";

/// The longest name: kind appends `-control-plane` and makes it a host name, which may have 64 characters.
pub const LONGEST: usize = 50;

/// Beside the folders of `meshgate cluster`, and no name that one of those could have.
const FOLDER: &str = "clusters.d";

/// Why a cluster cannot be leased.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// It would not be a name.
    #[error(
        "a cluster cannot be named \"{name}\": expected \"{PREFIX}\" and then lower-case letters, digits and single '-', at most {LONGEST} \
         characters in all"
    )]
    Name {
        /// What was asked for.
        name: String,
    },
    /// There is no folder for it.
    #[error("neither XDG_STATE_HOME nor HOME is set, so there is no place for a cluster's state; set one of them")]
    NoHome,
    /// Somebody alive has it.
    #[error("the cluster \"{name}\" is in use by process {pid}; wait until that ends, or choose another name")]
    InUse {
        /// Which.
        name: String,
        /// Whose, as its record says.
        pid: u32,
    },
    /// A file or folder.
    #[error("{}: {cause}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What was wrong.
        cause: io::Error,
    },
}

/// The record of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The cluster's name.
    pub name: String,
    /// What made it, as `--cluster` names it: `kind`, `k3s`.
    pub backend: String,
    /// The process that made it, for messages; the lock says whether it lives.
    pub pid: u32,
    /// When, in seconds since 1970.
    pub started: u64,
    /// For how long it is kept after its owner has ended, in seconds from `started`. 0: not at all.
    pub ttl: u64,
    /// Its kubeconfig.
    pub kubeconfig: PathBuf,
}

impl Lease {
    /// Whether it was to be kept and its time is not over.
    fn kept(&self, now: u64) -> bool {
        now < self.started.saturating_add(self.ttl)
    }
}

/// Where Meshgate keeps what outlives a process: `meshgate` below `XDG_STATE_HOME`, else below `~/.local/state`.
///
/// # Errors
/// [`LeaseError::NoHome`].
pub fn state_folder() -> Result<PathBuf, LeaseError> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = variable("XDG_STATE_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/state")));
    Ok(state.ok_or(LeaseError::NoHome)?.join("meshgate"))
}

/// The folder of all leases of a user.
#[derive(Clone, Debug)]
pub struct Leases {
    root: PathBuf,
}

impl Leases {
    /// The user's own, in the [`state_folder`].
    ///
    /// # Errors
    /// [`LeaseError::NoHome`].
    pub fn usual() -> Result<Self, LeaseError> {
        Ok(Self::at(state_folder()?.join(FOLDER)))
    }

    /// In a folder, which need not be there.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Takes the lease of a cluster that is about to be made, or of one that is there and to be used again. What its record says is so far as
    /// it was: see [`Held::record`]. `ttl` is how long the cluster is kept after this process; zero if it ends with it.
    ///
    /// # Errors
    /// [`LeaseError::Name`], [`LeaseError::InUse`] if somebody else holds it, [`LeaseError::Io`].
    pub fn take(&self, name: &str, backend: &str, ttl: Duration) -> Result<Held, LeaseError> {
        check_name(name)?;
        let dir = self.root.join(name);
        let lock = match lock(&dir, true)? {
            Some(lock) => lock,
            None => {
                let pid = read(&dir).map_or(0, |lease| lease.pid);
                return Err(LeaseError::InUse { name: name.to_owned(), pid });
            }
        };
        let lease = Lease {
            name: name.to_owned(),
            backend: backend.to_owned(),
            pid: std::process::id(),
            started: now(),
            ttl: ttl.as_secs(),
            kubeconfig: dir.join("kubeconfig"),
        };
        Ok(Held { lease, dir, _lock: lock })
    }

    /// The clusters of a backend whose owner is dead and whose time is over. Each is held from now on, so that two runs that begin at
    /// once do not sweep the same; whoever has brought it down [forgets](Held::forget) it.
    ///
    /// A folder without a readable record is none of them: it is somebody's who is just about to write one, or not ours.
    ///
    /// # Errors
    /// [`LeaseError::Io`].
    pub fn leftovers(&self, backend: &str) -> Result<Vec<Held>, LeaseError> {
        let entries = match std::fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(at(&self.root)(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let dir = entry.map_err(at(&self.root))?.path();
            // Looked at twice: without the lock, so that nothing is touched that is no leftover, and with it, because only then it stays so.
            let over = || read(&dir).filter(|lease| self.is_leftover(lease, &dir, backend));
            if over().is_none() {
                continue;
            }
            if let Some(lock) = lock(&dir, false)?
                && let Some(lease) = over()
            {
                found.push(Held { lease, dir, _lock: lock });
            }
        }
        Ok(found)
    }

    /// One process' turn at what two cannot do at once on a machine, until it is dropped; `None` while it is another's. Two `kind create
    /// cluster` at once take the same ports and make the same network.
    ///
    /// # Errors
    /// [`LeaseError::Io`].
    pub fn turn(&self) -> Result<Option<Lock>, LeaseError> {
        lock(&self.root, true)
    }

    fn is_leftover(&self, lease: &Lease, dir: &Path, backend: &str) -> bool {
        lease.backend == backend
            && check_name(&lease.name).is_ok()
            && dir == self.root.join(&lease.name)
            && !lease.kept(now())
    }
}

/// A lease that this process holds until it drops it. A record stays, unless it is [forgotten](Self::forget): what was not brought down is
/// then a leftover.
#[derive(Debug)]
pub struct Held {
    lease: Lease,
    dir: PathBuf,
    _lock: Lock,
}

/// A lock that is given up when it is dropped. Closing the file would not do: a process that is just being started has a copy of it until
/// its program runs.
#[derive(Debug)]
pub struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // The kernel does it in the end.
        let _ = self.0.unlock();
    }
}

impl Held {
    /// What it is of.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The folder of the cluster, where other files of it may lie. Only its owner may look into it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether there is a record, of this process or one before.
    pub fn is_recorded(&self) -> bool {
        read(&self.dir).is_some()
    }

    /// Gives back what nothing was made of: a record that was there before stays.
    ///
    /// # Errors
    /// [`LeaseError::Io`].
    pub fn give_back(self) -> Result<(), LeaseError> {
        if self.is_recorded() { Ok(()) } else { self.forget() }
    }

    /// Removes the record and everything else in the folder: the cluster is gone. Doing so again does nothing.
    ///
    /// # Errors
    /// [`LeaseError::Io`].
    pub fn forget(&self) -> Result<(), LeaseError> {
        match std::fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&self.dir)(error)),
            _ => Ok(()),
        }
    }

    /// Writes the record. To be done before the cluster is made, so that it is found whatever happens then.
    ///
    /// # Errors
    /// [`LeaseError::Io`].
    pub fn record(&self) -> Result<(), LeaseError> {
        let path = self.dir.join("lease.json");
        // Whole or not at all, for whoever reads it without the lock.
        let write = || -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
            serde_json::to_writer_pretty(&mut file, &self.lease)?;
            file.persist(&path)?;
            Ok(())
        };
        write().map_err(at(&path))
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> LeaseError {
    let path = path.to_owned();
    |cause| LeaseError::Io { path, cause }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn read(dir: &Path) -> Option<Lease> {
    serde_json::from_slice(&std::fs::read(dir.join("lease.json")).ok()?).ok()
}

fn check_name(name: &str) -> Result<(), LeaseError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let rest = name.strip_prefix(PREFIX).unwrap_or_default();
    let fits = !rest.is_empty() && name.len() <= LONGEST && rest.chars().all(plain);
    if fits && !name.contains("--") && !name.ends_with('-') {
        Ok(())
    } else {
        Err(LeaseError::Name { name: name.to_owned() })
    }
}

/// Locks a folder; `None` while another process has it, and, unless it is to be made, if it is not there.
pub(crate) fn lock(dir: &Path, make: bool) -> Result<Option<Lock>, LeaseError> {
    let path = dir.join("lock");
    loop {
        if make {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at(dir))?;
        }
        let file = match File::options().create(true).truncate(false).write(true).open(&path) {
            Ok(file) => file,
            // Forgotten by its owner in between.
            Err(error) if error.kind() == io::ErrorKind::NotFound && make => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(&path)(error)),
        };
        let lock = match file.try_lock() {
            Ok(()) => Lock(file),
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
        };
        // A lock on a file that was removed before it was locked keeps nobody out.
        let own = lock.0.metadata().map_err(at(&path))?;
        if std::fs::metadata(&path).is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino())) {
            return Ok(Some(lock));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn leases() -> (tempfile::TempDir, Leases) {
        let dir = tempfile::tempdir().unwrap();
        let leases = Leases::at(dir.path().join("clusters"));
        (dir, leases)
    }

    /// A lease with a record.
    fn made(leases: &Leases, name: &str, ttl: Duration) -> Held {
        let held = leases.take(name, "kind", ttl).unwrap();
        held.record().unwrap();
        held
    }

    fn names(found: &[Held]) -> Vec<&str> {
        found.iter().map(|held| held.lease().name.as_str()).collect()
    }

    #[test]
    fn what_its_owner_holds_is_no_leftover_and_what_it_dropped_is() {
        let (_dir, leases) = leases();
        let held = made(&leases, "meshgate-a", Duration::ZERO);
        assert!(leases.leftovers("kind").unwrap().is_empty());
        drop(held);
        assert!(leases.leftovers("k3s").unwrap().is_empty(), "another backend's");
        let found = leases.leftovers("kind").unwrap();
        assert_eq!(names(&found), ["meshgate-a"]);
        assert!(leases.leftovers("kind").unwrap().is_empty(), "one sweeper at a time");
        found[0].forget().unwrap();
        found[0].forget().unwrap();
        drop(found);
        assert!(leases.leftovers("kind").unwrap().is_empty(), "forgotten");
    }

    #[test]
    fn what_is_to_be_kept_is_no_leftover_until_its_time_is_over() {
        let (_dir, leases) = leases();
        drop(made(&leases, "meshgate-kept", HOUR));
        assert!(leases.leftovers("kind").unwrap().is_empty());
        let mut again = made(&leases, "meshgate-kept", HOUR);
        again.lease.started -= 2 * HOUR.as_secs();
        again.record().unwrap();
        assert!(leases.leftovers("kind").unwrap().is_empty(), "over, but its owner lives");
        drop(again);
        assert_eq!(names(&leases.leftovers("kind").unwrap()), ["meshgate-kept"]);
    }

    #[test]
    fn what_is_given_back_is_as_it_was() {
        let (dir, leases) = leases();
        leases.take("meshgate-a", "kind", Duration::ZERO).unwrap().give_back().unwrap();
        assert!(!dir.path().join("clusters/meshgate-a").exists(), "nothing was made of it");
        drop(made(&leases, "meshgate-a", HOUR));
        leases.take("meshgate-a", "kind", Duration::ZERO).unwrap().give_back().unwrap();
        assert!(leases.leftovers("kind").unwrap().is_empty(), "still to be kept");
        assert!(leases.take("meshgate-a", "kind", HOUR).unwrap().is_recorded());
    }

    #[test]
    fn only_one_has_its_turn() {
        let (_dir, leases) = leases();
        let turn = leases.turn().unwrap();
        assert!(turn.is_some());
        assert!(leases.turn().unwrap().is_none());
        drop(turn);
        assert!(leases.turn().unwrap().is_some());
    }

    #[test]
    fn a_lease_is_one_owners() {
        let (_dir, leases) = leases();
        let held = made(&leases, "meshgate-a", Duration::ZERO);
        let error = leases.take("meshgate-a", "kind", Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        held.forget().unwrap();
        leases
            .take("meshgate-a", "kind", Duration::ZERO)
            .expect("forgotten, so free, though the old lock is still held");
    }

    #[test]
    fn a_child_that_is_just_being_started_holds_nothing() {
        let (_dir, leases) = leases();
        let held = made(&leases, "meshgate-a", Duration::ZERO);
        // What a child has between its beginning and its program.
        let copy = held._lock.0.try_clone().unwrap();
        assert!(leases.leftovers("kind").unwrap().is_empty(), "the control: it is held");
        drop(held);
        assert_eq!(names(&leases.leftovers("kind").unwrap()), ["meshgate-a"]);
        drop(copy);
    }

    #[test]
    fn an_owner_that_was_killed_holds_nothing() {
        let (dir, leases) = leases();
        // A process that is alive with the lock, as another run is.
        drop(made(&leases, "meshgate-a", Duration::ZERO));
        let lock = dir.path().join("clusters/meshgate-a/lock");
        let mut other = Command::new("flock");
        other.arg("--no-fork").arg(&lock).args(["sh", "-c", "echo locked; exec sleep 60"]);
        let mut other = other.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(other.stdout.take().unwrap()), &mut line).unwrap();
        assert_eq!(line, "locked\n");
        assert!(leases.leftovers("kind").unwrap().is_empty(), "the control: it lives");
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(names(&leases.leftovers("kind").unwrap()), ["meshgate-a"]);
    }

    #[test]
    fn nothing_without_our_prefix_is_ever_swept() {
        let (dir, leases) = leases();
        let place = |folder: &str, name: &str| {
            let folder = dir.path().join("clusters").join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            let lease = Lease {
                name: name.to_owned(),
                backend: "kind".to_owned(),
                pid: 1,
                started: 0,
                ttl: 0,
                kubeconfig: PathBuf::new(),
            };
            std::fs::write(folder.join("lease.json"), serde_json::to_vec(&lease).unwrap()).unwrap();
        };
        place("production", "production");
        place("meshgate-x", "production");
        place("meshgate-control", "meshgate-control");
        assert_eq!(names(&leases.leftovers("kind").unwrap()), ["meshgate-control"]);
    }

    #[test]
    fn names_are_what_a_host_name_takes() {
        let longest = format!("{PREFIX}{}", "x".repeat(LONGEST - PREFIX.len()));
        for name in ["meshgate-a", "meshgate-a-1", longest.as_str()] {
            check_name(name).expect(name);
        }
        let too_long = format!("{longest}x");
        for name in [
            "",
            "kind",
            "meshgate-",
            "meshgate-A",
            "meshgate-a--b",
            "meshgate-a-",
            "meshgate-a.b",
            "meshgate-../x",
            &too_long,
        ] {
            check_name(name).expect_err(name);
        }
    }
}
