//! The files of a layer.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::{OciError, during, elf};

/// Where programs are in an image.
pub const PROGRAMS: &str = "/usr/local/bin";
/// Where libraries are that an image's loader would not look for: one folder below it for each program.
pub const LIBRARIES: &str = "/usr/local/lib";

/// More links on the way to a file are a circle; the kernel stops there, too.
const MOST_LINKS: usize = 40;

/// The mode of an ordinary folder.
const FOLDER: u32 = 0o755;

/// The files of a layer. Paths are absolute, as containers see them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tree {
    /// By path below the root, so that a folder comes before what is in it.
    pub(crate) entries: BTreeMap<PathBuf, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Entry {
    Folder {
        mode: u32,
    },
    /// A file of this machine, read when the layer is written. Its own mode and times do not count.
    Host {
        source: PathBuf,
        executable: bool,
    },
    Text(String),
    Link(PathBuf),
}

impl Tree {
    /// An empty layer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a folder with a mode, such as `0o1777`.
    pub fn folder(&mut self, path: impl AsRef<Path>, mode: u32) {
        self.insert(path.as_ref(), Entry::Folder { mode });
    }

    /// Adds a file of this machine.
    pub fn file(&mut self, path: impl AsRef<Path>, source: impl Into<PathBuf>, executable: bool) {
        self.insert(path.as_ref(), Entry::Host { source: source.into(), executable });
    }

    /// Adds a small file with its content.
    pub fn text(&mut self, path: impl AsRef<Path>, content: impl Into<String>) {
        self.insert(path.as_ref(), Entry::Text(content.into()));
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: impl AsRef<Path>, target: impl Into<PathBuf>) {
        self.insert(path.as_ref(), Entry::Link(target.into()));
    }

    /// Adds a file of this machine under the path that it has here, with every link on the way to it: where `/lib64` leads to
    /// `usr/lib64`, it does so in the image.
    ///
    /// # Errors
    /// [`OciError::Io`]: it is not there.
    pub fn copy(&mut self, path: &Path) -> Result<(), OciError> {
        let mut at = PathBuf::from("/");
        let mut ahead = steps(path);
        let mut links = 0;
        while let Some(step) = ahead.pop_front() {
            if step == ".." {
                at.pop();
                continue;
            }
            let next = at.join(step);
            let metadata = next.symlink_metadata().map_err(during("find", &next))?;
            if !metadata.is_symlink() {
                at = next;
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                let circle = io::Error::other("its links lead in a circle");
                return Err(during("follow", path)(circle));
            }
            let target = fs::read_link(&next).map_err(during("read the link", &next))?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            let mut detour = steps(&target);
            detour.append(&mut ahead);
            ahead = detour;
            self.link(&next, target);
        }
        self.file(at.clone(), at, true);
        Ok(())
    }

    /// Adds a program as `/usr/local/bin/NAME` with every shared library that it needs, and returns the folder of those that
    /// an image's loader would not look for: it belongs into `LD_LIBRARY_PATH`. `folders` are where the program's libraries are
    /// looked for first, as `LD_LIBRARY_PATH` has them here.
    ///
    /// # Errors
    /// It is no program, or a library is missing: see [`OciError`].
    pub fn program(&mut self, name: &str, source: &Path, folders: &[PathBuf]) -> Result<Option<String>, OciError> {
        let needed = elf::needed(source, folders)?;
        self.file(Path::new(PROGRAMS).join(name), source, true);
        if let Some(interpreter) = &needed.interpreter {
            self.copy(interpreter)?;
        }
        let home = format!("{LIBRARIES}/{name}");
        let mut gathered = false;
        for library in needed.libraries {
            if library.system {
                self.copy(&library.path)?;
            } else {
                self.file(Path::new(&home).join(&library.name), library.path, true);
                gathered = true;
            }
        }
        Ok(gathered.then_some(home))
    }

    fn insert(&mut self, path: &Path, entry: Entry) {
        let path: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            self.entries.entry(parent.to_owned()).or_insert(Entry::Folder { mode: FOLDER });
        }
        self.entries.insert(path, entry);
    }
}

/// The names and `..` of a path.
fn steps(path: &Path) -> VecDeque<OsString> {
    let named = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    path.components().filter(named).map(|part| part.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_on_the_way_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("usr/lib/triple")).unwrap();
        fs::write(root.join("usr/lib/triple/libx.so.1.2"), "x").unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
        symlink("libx.so.1.2", root.join("usr/lib/triple/libx.so.1")).unwrap();
        symlink("../lib/triple/../triple/libx.so.1", root.join("usr/loader")).unwrap();
        let mut tree = Tree::new();
        tree.copy(&root.join("lib/triple/libx.so.1")).unwrap();
        tree.copy(&root.join("usr/loader")).unwrap();
        let below = |path: &str| root.strip_prefix("/").unwrap().join(path);
        let link = |path: &str| match &tree.entries[&below(path)] {
            Entry::Link(target) => target.display().to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(link("lib"), "usr/lib");
        assert_eq!(link("usr/lib/triple/libx.so.1"), "libx.so.1.2");
        assert_eq!(link("usr/loader"), "../lib/triple/../triple/libx.so.1");
        assert!(matches!(tree.entries[&below("usr/lib/triple/libx.so.1.2")], Entry::Host { .. }));
        assert!(!tree.entries.contains_key(&below("lib/triple")), "nothing is behind a link");
    }

    #[test]
    fn a_circle_is_told() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        let error = Tree::new().copy(&dir.path().join("a")).unwrap_err().to_string();
        assert!(error.contains("in a circle"), "{error}");
    }
}
