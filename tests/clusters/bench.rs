//! A folder of its own for a test, with the stand-in commands first on PATH and what is to go wrong with them.

use std::cell::RefCell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use meshgate_clusters::lease::Leases;
use serde_json::Value;

const MESHGATE: &str = env!("CARGO_BIN_EXE_meshgate");
pub const COMMANDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clusters/tests/commands");

/// Ends with every cluster that was made in it.
pub struct Bench {
    dir: PathBuf,
    /// Removes the folder; none if that is another's.
    _own: Option<tempfile::TempDir>,
    said: RefCell<Vec<String>>,
}

impl Bench {
    pub fn new() -> Self {
        let own = tempfile::tempdir().unwrap();
        Self { dir: own.path().to_owned(), _own: Some(own), said: RefCell::default() }
    }

    /// In the folder of another one.
    pub fn of(dir: PathBuf) -> Self {
        Self { dir, _own: None, said: RefCell::default() }
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The environment of commands with these faults, comma-separated.
    pub fn environment(&self, faults: &str) -> Vec<(OsString, OsString)> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(PathBuf::from(COMMANDS)).chain(std::env::split_paths(&path));
        vec![
            ("PATH".into(), std::env::join_paths(paths).unwrap()),
            ("MESHGATE_STANDIN_STATE".into(), self.state().into()),
            ("MESHGATE_STANDIN_MESHGATE".into(), MESHGATE.into()),
            ("MESHGATE_STANDIN_FAULTS".into(), faults.into()),
        ]
    }

    /// Where the stand-ins remember.
    pub fn state(&self) -> PathBuf {
        self.join("commands")
    }

    pub fn leases(&self) -> Leases {
        Leases::at(self.join("leases"))
    }

    /// Hears what is being done.
    pub fn note(&self, text: &str) {
        self.said.borrow_mut().push(text.to_owned());
    }

    /// Everything that was said so far.
    pub fn said(&self) -> String {
        self.said.borrow().join("\n")
    }

    /// The calls of a stand-in so far: its arguments and what it saw of its environment.
    pub fn calls(&self, command: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.state().join("calls.jsonl")).unwrap_or_default();
        let calls = text.lines().map(|line| serde_json::from_str(line).unwrap());
        calls.filter(|call: &Value| call["command"] == command).collect()
    }

    /// The clusters that the stand-in for kind knows.
    pub fn clusters(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.state().join("kind")).into_iter().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names.iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    }

    /// What the stand-in for kind remembers of a cluster.
    pub fn remembered(&self, cluster: &str) -> Value {
        read_json(&self.state().join("kind").join(format!("{cluster}.json")))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let state = self.state().join("state");
        for entry in std::fs::read_dir(state.join("meshgate")).into_iter().flatten().flatten() {
            let mut down = Command::new(MESHGATE);
            down.args(["cluster", "down", "--name"]).arg(entry.file_name()).env("XDG_STATE_HOME", &state);
            let _ = down.output();
        }
    }
}

pub fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Asserts that a text holds all of these.
#[track_caller]
pub fn holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "expected {part:?} in: {text}");
    }
}

/// Waits until something is so.
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
