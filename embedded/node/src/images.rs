//! What the node needs to know of an image.

use std::path::PathBuf;

use meshgate_images::{Catalogue, Program};

/// A program that stands for a container image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// What `imageID` says: the image with a digest or another exact origin.
    pub id: String,
    /// `ENTRYPOINT`: what runs unless the container has a `command`. Programs are named as in `programs`, by path, or by a name in `PATH`.
    pub entrypoint: Vec<String>,
    /// `CMD`: arguments unless the container has `command` or `args`.
    pub arguments: Vec<String>,
    /// Programs of the image: the name a manifest calls them by, and the file on this machine. The file is seen in
    /// the container under the same path.
    pub programs: Vec<(String, PathBuf)>,
    /// Arguments that come before a container's own when it runs the first of the programs.
    pub role: Vec<String>,
    /// Further files and directories of this machine that the programs need, seen under the same path.
    pub files: Vec<PathBuf>,
    /// `ENV`, overridden by the container's own.
    pub env: Vec<(String, String)>,
    /// `WORKDIR`, `/` when `None`.
    pub working_dir: Option<String>,
    /// Whether the program is Meshgate itself; it then gets [`crate::NodeConfig::own`] as well.
    pub own: bool,
}

/// Where images come from.
pub trait ImageSource: Send + Sync {
    /// The program for an image name as a manifest writes it. May block (it runs on a blocking thread), e.g. to fetch.
    ///
    /// # Errors
    /// A sentence for the pod's events that names the image and what to do about it.
    fn resolve(&self, image: &str) -> Result<Image, String>;
}

impl From<Program> for Image {
    fn from(program: Program) -> Self {
        Self {
            entrypoint: vec![program.name.clone()],
            programs: [vec![(program.name, program.path)], program.beside].concat(),
            role: program.arguments,
            files: program.files,
            env: program.env,
            id: program.id,
            own: program.own,
            ..Default::default()
        }
    }
}

impl ImageSource for Catalogue {
    fn resolve(&self, image: &str) -> Result<Image, String> {
        Catalogue::resolve(self, image).map(Image::from).map_err(|error| error.to_string())
    }
}
