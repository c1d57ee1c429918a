//! A folder of its own for a test, and `meshgate` run in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The binary under test.
pub const MESHGATE: &str = env!("CARGO_BIN_EXE_meshgate");

/// The selection of one cell and one case.
pub const SMALL: &str = "--controllers traefik --recipe ingress-middleware --dialect modern --case routing/host";

/// The fixtures as they lie in the repository.
pub const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");

/// A folder that goes with the test.
pub struct Bench {
    dir: tempfile::TempDir,
}

/// What a command came to.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Done {
    /// Asserts the exit code and that standard error holds all of these.
    #[track_caller]
    pub fn expect(&self, code: i32, said: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for part in said {
            assert!(self.stderr.contains(part), "expected {part:?} in {self:#?}");
        }
        self
    }
}

impl Bench {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// `meshgate` with arguments that hold no spaces, in this folder, with standard input closed.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(MESHGATE);
        command.args(arguments.split_whitespace()).current_dir(self.path()).stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &str) -> Done {
        self.command(arguments).output().unwrap().into()
    }

    /// The names of everything in the folder.
    pub fn entries(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// A copy of the fixtures in the folder.
    pub fn fixtures(&self) -> PathBuf {
        let copy = self.join("fixtures");
        copy_tree(Path::new(FIXTURES), &copy);
        copy
    }
}

/// Copies a folder with everything in it.
pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_tree(&path, &target);
        } else if std::fs::hard_link(&path, &target).is_err() {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// Replaces text in a file, which has to be there. The file becomes a new one: a copy may share its content with the original.
pub fn edit(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from:?} in {}:\n{text}", path.display());
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, text.replace(from, to)).unwrap();
}

/// Waits until something is so.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
