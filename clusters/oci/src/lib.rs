//! Container images without Docker: archives of programs with the libraries that they need.
//!
//! An [`Image`] is layers and a configuration; a layer is a [`Tree`] of files, most of them this machine's.
//! [`Tree::program`] adds a program with every shared library that it needs. [`write`] makes one tar of several images that
//! containerd (`ctr images import`, and with it kind and k3s), Docker (`docker load`) and skopeo read alike.
//!
//! The bytes depend on the content of the files and on nothing else: times, owners and modes are fixed, so the same programs
//! give the same digests on another day and for another user.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

mod archive;
mod elf;
mod layer;
mod reference;
mod tree;

pub use archive::{Archive, Written, source_date, write};
pub use elf::{Library, Needed, needed};
pub use reference::full_name;
pub use tree::{LIBRARIES, PROGRAMS, Tree};

/// An image to be written.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// Its names, such as `docker.io/library/traefik:v3.7.15`; short ones are completed as Docker completes them.
    pub references: Vec<String>,
    /// Its files, from the lowest layer to the highest. Equal layers are written once, whichever images they belong to.
    pub layers: Vec<Tree>,
    /// How its containers start.
    pub config: Config,
}

/// How the containers of an image start.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// What runs unless the container has a `command`.
    pub entrypoint: Vec<String>,
    /// Arguments unless the container has `command` or `args`.
    pub cmd: Vec<String>,
    /// Variables.
    pub env: BTreeMap<String, String>,
    /// Folder to start in; `/` when empty.
    pub working_dir: String,
    /// User, as a number, a name or `user:group`; root when empty.
    pub user: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Ports that the image is known to listen on, such as `8000/tcp`.
    pub exposed_ports: BTreeSet<String>,
}

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// A file of this machine or of the archive.
    #[error("cannot {action} {path}: {cause}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        cause: io::Error,
    },
    /// What should be a program is something else, such as a script, which would need a shell in the image.
    #[error(
        "{path}: expected a 64-bit ELF program or library, found something else ({problem}); give the program itself",
        path = path.display()
    )]
    NotElf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A program of this machine lacks a library here, so it would in the image.
    #[error(
        "{library} is needed by {needed_by} and is in none of {folders}; install the package that has it, or name its folder in LD_LIBRARY_PATH",
        needed_by = needed_by.display()
    )]
    MissingLibrary {
        /// Its name, as the program has it.
        library: String,
        /// The program or library that needs it.
        needed_by: PathBuf,
        /// Where it was looked for, in order.
        folders: String,
    },
    /// A name that no runtime takes.
    #[error("\"{reference}\" is no name for an image: {problem}; write it as in registry/path:tag")]
    Reference {
        /// The name.
        reference: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Two images of one archive have the same name, and only one would be found by it.
    #[error("\"{reference}\" is the name of two images; leave one out")]
    Duplicate {
        /// The name.
        reference: String,
    },
    /// `SOURCE_DATE_EPOCH` is no time.
    #[error("SOURCE_DATE_EPOCH={value}: expected the seconds since 1970 as a whole number; correct or unset it")]
    SourceDate {
        /// Its value.
        value: String,
    },
}

/// Says what was tried when an operation on a file fails.
fn during(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> OciError {
    let path = path.into();
    move |cause| OciError::Io { action, path, cause }
}
