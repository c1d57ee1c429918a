//! Archives as runtimes read them: from the index to the files.

// Clippy knows tests by their attribute; the helpers of tests are tests as well.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use flate2::read::GzDecoder;
use jiff::Timestamp;
use meshgate_oci::{Config, Image, OciError, Tree, write};
use ring::digest::{SHA256, digest};
use serde_json::Value;

/// An archive's entries in order: name and content.
fn entries(archive: &Path) -> Vec<(String, Vec<u8>)> {
    let mut tar = tar::Archive::new(File::open(archive).unwrap());
    let entries = tar.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.path().unwrap().display().to_string(), content)
    });
    entries.collect()
}

fn sha256(bytes: &[u8]) -> String {
    let hex: String = digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// What a descriptor points to, after its digest and size were found to be true.
fn follow(files: &BTreeMap<String, Vec<u8>>, descriptor: &Value) -> Vec<u8> {
    let name = descriptor["digest"].as_str().unwrap();
    let content = &files[&format!("blobs/{}", name.replace(':', "/"))];
    assert_eq!(sha256(content), name);
    assert_eq!(descriptor["size"], content.len());
    content.clone()
}

/// An image with one layer of every kind of entry; its file is `folder/program`.
fn image(reference: &str, folder: &Path) -> Image {
    let mut tree = Tree::new();
    tree.folder("/tmp", 0o1777);
    tree.text("/etc/passwd", "root:x:0:0::/:\n");
    tree.file("/usr/bin/program", folder.join("program"), true);
    tree.link("/program", "/usr/bin/program");
    let config = Config {
        entrypoint: vec!["/program".into()],
        cmd: vec!["--help".into()],
        env: BTreeMap::from([("A".into(), "b".into())]),
        exposed_ports: ["8000/tcp".to_owned()].into(),
        ..Config::default()
    };
    Image { references: vec![reference.to_owned()], layers: vec![tree], config }
}

fn folder_with_program(mode: u32, age: Duration) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program");
    fs::write(&path, "a program".repeat(10_000)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(SystemTime::now() - age).unwrap();
    folder
}

#[test]
fn every_digest_is_true_from_the_index_to_the_layers() {
    let folder = folder_with_program(0o755, Duration::ZERO);
    let to = folder.path().join("images.tar");
    let archive = write(&[image("thing:1", folder.path())], Timestamp::UNIX_EPOCH, &to).unwrap();
    assert_eq!(archive.size, fs::metadata(&to).unwrap().len());
    let files: BTreeMap<_, _> = entries(&to).into_iter().collect();
    let document = |content: &[u8]| serde_json::from_slice::<Value>(content).unwrap();
    assert_eq!(document(&files["oci-layout"])["imageLayoutVersion"], "1.0.0");

    let index = document(&files["index.json"]);
    let descriptor = &index["manifests"][0];
    assert_eq!(descriptor["digest"], archive.images[0].digest.as_str());
    for annotation in ["io.containerd.image.name", "org.opencontainers.image.ref.name"] {
        assert_eq!(descriptor["annotations"][annotation], "docker.io/library/thing:1");
    }
    let manifest = document(&follow(&files, descriptor));
    let config = document(&follow(&files, &manifest["config"]));
    assert_eq!(config["os"], "linux");
    assert_eq!(config["created"], "1970-01-01T00:00:00Z");
    assert_eq!(config["config"]["Entrypoint"][0], "/program");
    assert_eq!(config["config"]["Env"][0], "A=b");
    assert!(config["config"]["ExposedPorts"]["8000/tcp"].is_object());
    let layers = manifest["layers"].as_array().unwrap();
    let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    assert_eq!((layers.len(), diff_ids.len()), (1, 1));
    let mut layer = Vec::new();
    GzDecoder::new(follow(&files, &layers[0]).as_slice()).read_to_end(&mut layer).unwrap();
    assert_eq!(sha256(&layer), diff_ids[0].as_str().unwrap());

    // Docker's list leads to the same blobs.
    let docker = &document(&files["manifest.json"])[0];
    assert_eq!(docker["RepoTags"][0], "docker.io/library/thing:1");
    let blob = |descriptor: &Value| format!("blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/"));
    assert_eq!(docker["Config"], blob(&manifest["config"]));
    assert_eq!(docker["Layers"][0], blob(&layers[0]));

    let mut tar = tar::Archive::new(layer.as_slice());
    let listed: Vec<(String, u32, u64)> = tar
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
            (entry.path().unwrap().display().to_string(), header.mode().unwrap(), header.size().unwrap())
        })
        .collect();
    let expected = [
        ("etc/", 0o755, 0),
        ("etc/passwd", 0o644, 15),
        ("program", 0o777, 0),
        ("tmp/", 0o1777, 0),
        ("usr/", 0o755, 0),
        ("usr/bin/", 0o755, 0),
        ("usr/bin/program", 0o755, 90_000),
    ];
    assert_eq!(listed, expected.map(|(path, mode, size)| (path.to_owned(), mode, size)));
}

#[test]
fn the_same_content_gives_the_same_bytes() {
    let bytes = |mode: u32, age: u64, created: i64| {
        let folder = folder_with_program(mode, Duration::from_secs(age));
        let to = folder.path().join("images.tar");
        let images = [image("thing:1", folder.path()), image("other:1", folder.path())];
        let archive = write(&images, Timestamp::from_second(created).unwrap(), &to).unwrap();
        (archive.images[0].digest.clone(), fs::read(&to).unwrap())
    };
    let (digest, first) = bytes(0o755, 0, 0);
    // Made by another user at another time, elsewhere.
    let (_, second) = bytes(0o700, 1_000_000, 0);
    assert!(first == second, "an archive depends on more than its content");
    // The control: the comparison would have noticed.
    let (later, third) = bytes(0o755, 0, 1_700_000_000);
    assert!(first != third && digest != later);
}

#[test]
fn blobs_that_images_share_are_there_once() {
    let folder = folder_with_program(0o755, Duration::ZERO);
    let to = folder.path().join("images.tar");
    let images = [image("a:1", folder.path()), image("b:1", folder.path())];
    let archive = write(&images, Timestamp::UNIX_EPOCH, &to).unwrap();
    assert_eq!(archive.images[0].digest, archive.images[1].digest);
    let names: Vec<String> = entries(&to).into_iter().map(|(name, _)| name).collect();
    assert!(names.is_sorted(), "{names:?}");
    assert_eq!(
        names.iter().filter(|name| name.starts_with("blobs/sha256/") && name.len() > 60).count(),
        3,
        "{names:?}"
    );
    let left: Vec<PathBuf> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left.len(), 2, "only the program and the archive: {left:?}");
}

#[test]
fn a_link_is_followed_and_a_fifo_written_into() {
    let folder = folder_with_program(0o755, Duration::ZERO);
    let path = |name: &str| folder.path().join(name);
    let images = [image("a:1", folder.path())];
    let written = |to: &Path| write(&images, Timestamp::UNIX_EPOCH, to).unwrap();
    written(&path("plain"));
    let expected = fs::read(path("plain")).unwrap();

    fs::create_dir(path("elsewhere")).unwrap();
    fs::write(path("elsewhere/there"), "before").unwrap();
    for name in ["there", "not-yet"] {
        let (link, target) = (path(&format!("to-{name}")), format!("elsewhere/{name}"));
        symlink(&target, &link).unwrap();
        written(&link);
        assert!(link.is_symlink(), "{name}");
        assert!(fs::read(path(&target)).unwrap() == expected, "{name}");
    }

    let fifo = path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || fs::read(fifo).unwrap()
    });
    let archive = written(&fifo);
    assert!(fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo(), "it is still there");
    let read = reader.join().unwrap();
    assert!(read == expected);
    assert_eq!(archive.size, read.len() as u64);
}

#[test]
fn two_images_of_one_name_are_refused() {
    let folder = folder_with_program(0o755, Duration::ZERO);
    let to = folder.path().join("images.tar");
    let images = [image("a:1", folder.path()), image("docker.io/library/a:1", folder.path())];
    let error = write(&images, Timestamp::UNIX_EPOCH, &to).unwrap_err();
    assert!(matches!(error, OciError::Duplicate { .. }), "{error}");
    assert!(!to.exists());
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("images.tar");
    let error = write(&[image("a:1", folder.path())], Timestamp::UNIX_EPOCH, &to).unwrap_err().to_string();
    assert!(error.contains("cannot open") && error.contains("/program"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left half done");
}
