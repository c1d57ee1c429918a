//! The images of a cluster that has a container runtime: the programs of the embedded cluster under the same names.
//!
//! What [`meshgate_images::Catalogue`] has for an image becomes a container image that answers to the manifest's `command` and
//! `args` as the node of the embedded cluster does: the program is called by the name that the catalogue has for it, wherever the
//! manifest says that it is, and a stand-in's data plane lies beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use meshgate_images::{Catalogue, ImageError, Program, Tool};
use meshgate_oci::{Config, Image, OciError, PROGRAMS, Tree};

pub use meshgate_oci::{Archive, Written};

/// The variable that tells this binary, called by another program's name, which role it plays: words with spaces between.
pub const ROLE: &str = "MESHGATE_ROLE";

/// The image of Meshgate's proxy for pods that Linkerd's injector makes, without its tag: what Linkerd's chart starts and finds in the image
/// of Linkerd's proxy is this binary there.
pub const LINKERD_PROXY: &str = "meshgate.dev/linkerd-proxy";

/// The programs of that image, by whose names this binary knows its roles.
const LINKERD_PROGRAMS: [&str; 2] = [LINKERD_ENTRYPOINT, "/usr/lib/linkerd/linkerd-await"];
const LINKERD_ENTRYPOINT: &str = "/usr/lib/linkerd/linkerd2-proxy-identity";

/// As in the containers of the embedded cluster.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nproxy:x:2102:2102:linkerd-proxy:/:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\nproxy:x:2102:\nnogroup:x:65534:\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files dns\n";
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";

/// Why an archive could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// No program stands for an image, or it cannot be had.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A file, a library or a name.
    #[error(transparent)]
    Oci(#[from] OciError),
}

/// Writes the images into one archive at `to`, fetching programs where need be. `program` is the file that Meshgate's own
/// image is made of. An image that is named twice is written once.
///
/// # Errors
/// See [`ArchiveError`].
pub fn archive(program: &Path, images: &[String], to: &Path, progress: &dyn Fn(&str)) -> Result<Archive, ArchiveError> {
    let created = meshgate_oci::source_date()?;
    let catalogue = Catalogue::built_in(program);
    let mut names = BTreeSet::new();
    let mut made = Vec::new();
    for name in images {
        let name = meshgate_oci::full_name(name)?;
        if !names.insert(name.clone()) {
            continue;
        }
        if name.strip_prefix(LINKERD_PROXY).is_some_and(|tag| tag.starts_with(':')) {
            progress(&format!("packing {name}"));
            made.push(linkerd_proxy(name, program)?);
        } else {
            let found = catalogue.fetch(&name, progress)?;
            let nft = if found.own { Some(catalogue.nft(progress)?) } else { None };
            progress(&format!("packing {name}"));
            made.push(image(name, &found, nft.as_ref())?);
        }
    }
    progress(&format!("writing {}", to.display()));
    Ok(meshgate_oci::write(&made, created, to)?)
}

/// Meshgate's proxy in the place of Linkerd's: the chart gives no arguments.
fn linkerd_proxy(name: String, program: &Path) -> Result<Image, OciError> {
    let mut env = BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]);
    let mut layers = vec![system(), layer("meshgate", program, &[], &mut env)?];
    let mut names = Tree::new();
    for program in LINKERD_PROGRAMS {
        names.link(program, format!("{PROGRAMS}/meshgate"));
    }
    layers.push(names);
    let description = "Meshgate's proxy in the place of Linkerd's; not the official image".to_owned();
    let config = Config {
        entrypoint: vec![LINKERD_ENTRYPOINT.to_owned()],
        env,
        labels: BTreeMap::from([("org.opencontainers.image.description".to_owned(), description)]),
        ..Config::default()
    };
    Ok(Image { references: vec![name], layers, config })
}

/// The image for a program; `nft` for Meshgate's own, whose role `proxy-init` runs it.
fn image(name: String, program: &Program, nft: Option<&Tool>) -> Result<Image, OciError> {
    let mut env = BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]);
    let mut layers = vec![system()];
    let folders = library_folders(&program.env);
    env.extend(program.env.iter().filter(|(name, _)| name != LIBRARY_PATH).cloned());
    // A stand-in is this binary under the name of the program that it stands for; the layer with the binary is the same in
    // all of them and in Meshgate's own image.
    let file = if program.arguments.is_empty() { program.name.as_str() } else { "meshgate" };
    layers.push(layer(file, &program.path, &folders, &mut env)?);
    for (name, path) in &program.beside {
        layers.push(layer(name, path, &folders, &mut env)?);
    }
    if let Some(nft) = nft {
        layers.push(layer("nft", &nft.path, &library_folders(&nft.env), &mut env)?);
        env.insert("MESHGATE_NFT".to_owned(), format!("{PROGRAMS}/nft"));
    }
    let mut names = Tree::new();
    let target = format!("{PROGRAMS}/{file}");
    // Manifests name a program by its path in the official image, which is a folder of PATH or the root.
    names.link(format!("/{}", program.name), &target);
    let mut description = "a program of this machine, packed by Meshgate; not the official image".to_owned();
    if !program.arguments.is_empty() {
        names.link(format!("{PROGRAMS}/{}", program.name), &target);
        env.insert(ROLE.to_owned(), program.arguments.join(" "));
        description = format!("Meshgate's {}; not the official image", program.arguments.join(" "));
    }
    if program.own {
        description = "Meshgate".to_owned();
    } else {
        layers.push(names);
    }
    let config = Config {
        entrypoint: vec![format!("{PROGRAMS}/{}", program.name)],
        env,
        labels: BTreeMap::from([("org.opencontainers.image.description".to_owned(), description)]),
        ..Config::default()
    };
    Ok(Image { references: vec![name], layers, config })
}

/// What programs expect of any system.
fn system() -> Tree {
    let mut tree = Tree::new();
    tree.folder("/tmp", 0o1777);
    tree.folder("/var/tmp", 0o1777);
    tree.folder("/run", 0o755);
    tree.folder("/root", 0o700);
    tree.text("/etc/passwd", PASSWD);
    tree.text("/etc/group", GROUP);
    tree.text("/etc/nsswitch.conf", NSSWITCH);
    if Path::new(CERTIFICATES).is_file() {
        tree.file(CERTIFICATES, CERTIFICATES, false);
    }
    tree
}

/// A layer with a program and its libraries; the folder of those that the loader has to be told of goes into `env`.
fn layer(name: &str, path: &Path, folders: &[PathBuf], env: &mut BTreeMap<String, String>) -> Result<Tree, OciError> {
    let mut tree = Tree::new();
    if let Some(folder) = tree.program(name, path, folders)? {
        let all = env.entry(LIBRARY_PATH.to_owned()).or_default();
        *all = if all.is_empty() { folder } else { format!("{all}:{folder}") };
    }
    Ok(tree)
}

/// Where a program's variables say that its libraries are.
fn library_folders(env: &[(String, String)]) -> Vec<PathBuf> {
    let value = env.iter().find(|(name, _)| name == LIBRARY_PATH);
    value.map(|(_, folders)| folders.split(':').map(PathBuf::from).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that every machine has, with libraries.
    fn program(name: &str, arguments: &[&str]) -> Program {
        Program {
            id: String::new(),
            name: name.to_owned(),
            path: PathBuf::from("/bin/sh"),
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            beside: Vec::new(),
            files: Vec::new(),
            env: vec![(LIBRARY_PATH.to_owned(), "/nowhere".to_owned()), ("A".to_owned(), "b".to_owned())],
            own: false,
        }
    }

    #[test]
    fn a_program_answers_to_its_name() {
        let made = image("a:b".to_owned(), &program("thing", &[]), None).unwrap();
        assert_eq!(made.config.entrypoint, ["/usr/local/bin/thing"]);
        assert_eq!(made.config.env["A"], "b");
        assert!(!made.config.env.contains_key(ROLE));
        assert!(!made.config.env.contains_key(LIBRARY_PATH), "a folder of this machine is none of the image");
    }

    #[test]
    fn a_stand_in_is_this_binary_under_another_name() {
        let mut standing_in = program("thing", &["stand-in", "other"]);
        standing_in.beside = vec![("plane".to_owned(), PathBuf::from("/bin/sh"))];
        let made = image("a:b".to_owned(), &standing_in, None).unwrap();
        assert_eq!(made.config.entrypoint, ["/usr/local/bin/thing"]);
        assert_eq!(made.config.env[ROLE], "stand-in other");
        let mut expected = Tree::new();
        expected.program("meshgate", Path::new("/bin/sh"), &[]).unwrap();
        assert_eq!(made.layers[1], expected, "shared with Meshgate's own image");
        let mut names = Tree::new();
        names.link("/thing", "/usr/local/bin/meshgate");
        names.link("/usr/local/bin/thing", "/usr/local/bin/meshgate");
        assert_eq!(made.layers.last(), Some(&names));
        assert!(made.config.labels.values().any(|label| label.contains("not the official image")));
    }

    #[test]
    fn an_unknown_image_is_told_with_those_that_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("a.tar");
        let error = archive(Path::new("/bin/sh"), &["nobody/knows:1".to_owned()], &to, &|_| {}).unwrap_err();
        assert!(matches!(error, ArchiveError::Image(ImageError::Unknown { .. })), "{error}");
        assert!(!to.exists());
    }
}
