//! Images as one tar: an OCI image layout, and Docker's list of images beside it.
//!
//! containerd reads `index.json` and names images by the annotation `io.containerd.image.name`; Docker before its containerd
//! store reads `manifest.json`; skopeo and podman read either. The blobs are the same. See the OCI image specification,
//! `image-layout.md` and `annotations.md`. The documents are written by hand: their bytes have to be the same each time, and the
//! types of the crate `oci-spec` hold labels and annotations in hash maps.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Value, json};
use tar::{Builder, EntryType};
use tempfile::NamedTempFile;

use crate::layer::{Blob, Layer, header};
use crate::tree::Tree;
use crate::{Config, Image, OciError, during, full_name};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The folder of the blobs in the archive.
const BLOBS: &str = "blobs/sha256";

/// An archive that was written.
#[derive(Clone, Debug)]
pub struct Archive {
    /// The file.
    pub path: PathBuf,
    /// In bytes.
    pub size: u64,
    /// The images in it, in the order given.
    pub images: Vec<Written>,
}

/// An image of an archive.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its full names.
    pub references: Vec<String>,
    /// The digest of its manifest, `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Its layers as compressed, in bytes; those that it shares with others are counted for each.
    pub size: u64,
}

/// The time that files and images are given: `SOURCE_DATE_EPOCH`, else 1970.
/// See <https://reproducible-builds.org/specs/source-date-epoch/>.
///
/// # Errors
/// [`OciError::SourceDate`].
pub fn source_date() -> Result<Timestamp, OciError> {
    let Some(value) = std::env::var_os("SOURCE_DATE_EPOCH").filter(|value| !value.is_empty()) else {
        return Ok(Timestamp::UNIX_EPOCH);
    };
    let value = value.to_string_lossy().into_owned();
    let seconds = value.parse().ok().filter(|seconds| *seconds >= 0);
    let date = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    date.ok_or(OciError::SourceDate { value })
}

/// Where an archive goes.
enum Goal {
    /// A file that it takes the place of, if there is one yet, once it is complete; behind any links.
    File(PathBuf),
    /// Something that is no file, such as a FIFO or a device, and is written into.
    Stream,
}

impl Goal {
    fn of(to: &Path) -> Result<Self, OciError> {
        match fs::metadata(to) {
            Ok(found) if !found.is_file() && !found.is_dir() => return Ok(Self::Stream),
            Ok(_) => return fs::canonicalize(to).map(Self::File).map_err(during("find", to)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(during("look at", to)(error)),
        }
        // A link may lead to a file that is not there yet.
        match fs::read_link(to) {
            Ok(target) => Self::of(&folder(to).join(target)),
            Err(_) => Ok(Self::File(to.to_owned())),
        }
    }

    /// Where files that are on their way there are kept: beside it, so that the archive can be moved into its place.
    fn folder(&self) -> PathBuf {
        match self {
            Self::File(path) => folder(path).to_owned(),
            Self::Stream => std::env::temp_dir(),
        }
    }
}

/// The folder in which a path is.
fn folder(of: &Path) -> &Path {
    match of.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Writes images into one archive. A file is there, or takes the place of the one before, when it is complete; a link is followed, and what is
/// no file, such as a FIFO, is written into.
///
/// # Errors
/// See [`OciError`].
pub fn write(images: &[Image], created: Timestamp, to: &Path) -> Result<Archive, OciError> {
    let goal = Goal::of(to)?;
    let folder = goal.folder();
    let blobs = tempfile::tempdir_in(&folder).map_err(during("create a folder in", &folder))?;
    let mut blobs = Blobs { folder: blobs.path().to_owned(), sizes: BTreeMap::new(), _owner: blobs };
    let mut layers: BTreeMap<&Tree, Layer> = BTreeMap::new();
    let (mut index, mut docker, mut written) = (Vec::new(), Vec::new(), Vec::new());
    let mut names = BTreeSet::new();
    for image in images {
        let references: Vec<String> =
            image.references.iter().map(|reference| full_name(reference)).collect::<Result<_, _>>()?;
        if let Some(reference) = references.iter().find(|reference| !names.insert((*reference).clone())) {
            return Err(OciError::Duplicate { reference: reference.clone() });
        }
        let mut own = Vec::new();
        for tree in &image.layers {
            if !layers.contains_key(tree) {
                layers.insert(tree, blobs.layer(tree, created)?);
            }
            own.push(layers[tree].clone());
        }
        let config = blobs.document(&config(&image.config, &own, created))?;
        let manifest = blobs.document(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": own.iter().map(|layer| descriptor(LAYER, &layer.blob)).collect::<Vec<_>>(),
        }))?;
        for reference in &references {
            let mut entry = descriptor(MANIFEST, &manifest);
            entry["annotations"] = json!({
                "io.containerd.image.name": reference,
                "org.opencontainers.image.ref.name": reference,
            });
            entry["platform"] = json!({"architecture": architecture(), "os": "linux"});
            index.push(entry);
        }
        docker.push(json!({
            "Config": path(&config.digest),
            "RepoTags": references,
            "Layers": own.iter().map(|layer| path(&layer.blob.digest)).collect::<Vec<_>>(),
        }));
        let size = own.iter().map(|layer| layer.blob.size).sum();
        written.push(Written { references, digest: manifest.name(), size });
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": index});
    let file = NamedTempFile::new_in(&folder).map_err(during("create a file in", &folder))?;
    let documents = [
        ("index.json", index.to_string()),
        ("manifest.json", Value::from(docker).to_string()),
        ("oci-layout", json!({"imageLayoutVersion": "1.0.0"}).to_string()),
    ];
    let mut tar = Builder::new(BufWriter::new(file));
    let packed = blobs.pack(&mut tar, &documents, seconds(created)).and_then(|()| tar.into_inner());
    let packed = packed.and_then(|buffered| buffered.into_inner().map_err(io::IntoInnerError::into_error));
    let mut file = packed.map_err(during("write", to))?;
    let size = file.as_file().metadata().map_err(during("read the size of", to))?.len();
    match goal {
        Goal::File(path) => {
            // A temporary file is its owner's alone; runtimes that read archives run as others.
            let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            file.as_file().set_permissions(readable).map_err(during("open for others", to))?;
            file.persist(path).map_err(|error| during("write", to)(error.error))?;
        }
        Goal::Stream => {
            let mut stream = File::options().write(true).open(to).map_err(during("open", to))?;
            file.rewind().and_then(|()| io::copy(&mut file, &mut stream)).map_err(during("write", to))?;
        }
    }
    Ok(Archive { path: to.to_owned(), size, images: written })
}

/// The blobs, in a folder beside the archive until they are packed: a blob's size stands before it in a tar, and is known only
/// when it is compressed.
struct Blobs {
    folder: PathBuf,
    /// By digest in hexadecimal.
    sizes: BTreeMap<String, u64>,
    _owner: tempfile::TempDir,
}

impl Blobs {
    fn layer(&mut self, tree: &Tree, created: Timestamp) -> Result<Layer, OciError> {
        let layer = Layer::write(&self.folder, tree, seconds(created))?;
        self.sizes.insert(layer.blob.digest.clone(), layer.blob.size);
        Ok(layer)
    }

    fn document(&mut self, document: &Value) -> Result<Blob, OciError> {
        let blob = Blob::write(&self.folder, document.to_string().as_bytes())?;
        self.sizes.insert(blob.digest.clone(), blob.size);
        Ok(blob)
    }

    fn pack(&self, tar: &mut Builder<impl Write>, documents: &[(&str, String)], seconds: u64) -> io::Result<()> {
        let header = |kind, mode, size| header(kind, mode, size, seconds);
        for folder in ["blobs/", "blobs/sha256/"] {
            tar.append_data(&mut header(EntryType::Directory, 0o755, 0), folder, io::empty())?;
        }
        for (digest, size) in &self.sizes {
            let file = File::open(self.folder.join(digest))?;
            tar.append_data(&mut header(EntryType::Regular, 0o644, *size), path(digest), file)?;
            // Half of the disk that both would take.
            fs::remove_file(self.folder.join(digest))?;
        }
        for (name, content) in documents {
            tar.append_data(&mut header(EntryType::Regular, 0o644, content.len() as u64), name, content.as_bytes())?;
        }
        Ok(())
    }
}

/// Where a blob is in the archive.
fn path(digest: &str) -> String {
    format!("{BLOBS}/{digest}")
}

fn descriptor(media_type: &str, blob: &Blob) -> Value {
    json!({"mediaType": media_type, "digest": blob.name(), "size": blob.size})
}

fn config(config: &Config, layers: &[Layer], created: Timestamp) -> Value {
    let mut process = json!({});
    if !config.entrypoint.is_empty() {
        process["Entrypoint"] = json!(config.entrypoint);
    }
    if !config.cmd.is_empty() {
        process["Cmd"] = json!(config.cmd);
    }
    if !config.env.is_empty() {
        process["Env"] = config.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    }
    if !config.user.is_empty() {
        process["User"] = json!(config.user);
    }
    if !config.labels.is_empty() {
        process["Labels"] = json!(config.labels);
    }
    if !config.exposed_ports.is_empty() {
        process["ExposedPorts"] = config.exposed_ports.iter().map(|port| (port.clone(), json!({}))).collect();
    }
    process["WorkingDir"] = json!(if config.working_dir.is_empty() { "/" } else { &config.working_dir });
    json!({
        "architecture": architecture(),
        "os": "linux",
        "created": created.to_string(),
        "config": process,
        "rootfs": {
            "type": "layers",
            "diff_ids": layers.iter().map(|layer| format!("sha256:{}", layer.diff_id)).collect::<Vec<_>>(),
        },
        "history": vec![json!({"created": created.to_string(), "created_by": "meshgate image"}); layers.len()],
    })
}

/// This machine's architecture as images name it: its programs are what images are made of.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Never negative: see [`source_date`].
fn seconds(created: Timestamp) -> u64 {
    created.as_second().try_into().unwrap_or_default()
}
