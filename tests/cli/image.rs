//! Archives of container images, unpacked and run as a container runtime would.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::bench::{Bench, Done};

/// An image unpacked, and what it says of its containers.
struct Unpacked {
    root: PathBuf,
    config: Value,
}

/// Unpacks the only image of an archive.
fn unpack(bench: &Bench, archive: &str) -> Unpacked {
    let tar = |arguments: &[&str], into: &Path| {
        std::fs::create_dir_all(into).unwrap();
        let done = Command::new("tar").args(arguments).arg("-C").arg(into).current_dir(bench.path()).status().unwrap();
        assert!(done.success(), "tar {arguments:?}");
    };
    let (layout, root) = (bench.join("layout"), bench.join("root"));
    tar(&["-xf", archive], &layout);
    let read = |name: &str| -> Value { serde_json::from_slice(&std::fs::read(layout.join(name)).unwrap()).unwrap() };
    let image = read("manifest.json")[0].take();
    for layer in image["Layers"].as_array().unwrap() {
        tar(&["-xzf", layout.join(layer.as_str().unwrap()).to_str().unwrap()], &root);
    }
    Unpacked { root, config: read(image["Config"].as_str().unwrap())["config"].take() }
}

impl Unpacked {
    fn env(&self) -> BTreeMap<String, String> {
        let env = self.config["Env"].as_array().unwrap().iter();
        env.map(|entry| entry.as_str().unwrap().split_once('=').unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// Runs a program of the image with the image's variables and nothing of this machine.
    fn run(&self, program: &str, arguments: &[&str]) -> Done {
        let unshare = ["/usr/bin/unshare", "/bin/unshare"].into_iter().find(|path| Path::new(path).exists());
        let mut command = Command::new(unshare.unwrap_or("unshare"));
        command.args(["--map-root-user", "chroot"]).arg(&self.root).arg(program).args(arguments);
        // What `unshare` itself is found by; the image's has the same folders.
        command.env_clear().envs(self.env()).output().unwrap().into()
    }
}

/// Whether an ordinary process may become root of a namespace of its own here.
fn may_change_root() -> bool {
    let allowed = Command::new("unshare").args(["--map-root-user", "chroot", "/", "true"]).output();
    let allowed = allowed.is_ok_and(|output| output.status.success());
    if !allowed {
        eprintln!("skipped: unshare --map-root-user chroot is not permitted here, so an image cannot be entered");
    }
    allowed
}

#[test]
fn meshgates_own_image_has_everything_that_it_needs() {
    if !may_change_root() {
        return;
    }
    let bench = Bench::new();
    let done = bench.run("image --output own.tar");
    done.expect(0, &[]);
    assert!(done.stdout.starts_with("meshgate.dev/meshgate:dev  sha256:"), "{done:#?}");
    let image = unpack(&bench, "own.tar");
    let entrypoint = image.config["Entrypoint"][0].as_str().unwrap().to_owned();
    assert_eq!(entrypoint, "/usr/local/bin/meshgate");
    let version = image.run(&entrypoint, &["--version"]);
    version.expect(0, &[]);
    assert_eq!(version.stdout.trim(), concat!("meshgate ", env!("CARGO_PKG_VERSION")));
    let nft = image.env()["MESHGATE_NFT"].clone();
    let version = image.run(&nft, &["--version"]);
    version.expect(0, &[]);
    assert!(version.stdout.contains("nftables"), "{version:#?}");
    // The role that runs it starts as well, and refuses what it does not know.
    assert_ne!(image.run(&entrypoint, &["proxy-init", "--nonsense"]).code, Some(127));

    // The control: it is the image's libraries that are used, and none of this machine's.
    let mut libraries = Vec::new();
    find(&image.root, &mut libraries);
    let libraries: Vec<_> = libraries.into_iter().filter(|path| path.to_string_lossy().contains("libc.so")).collect();
    if libraries.is_empty() {
        return;
    }
    libraries.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    assert_ne!(image.run(&entrypoint, &["--version"]).code, Some(0));
}

/// Linkerd's chart starts the entrypoint without arguments, and `linkerd-await` beside it with some.
#[test]
fn the_proxys_image_for_linkerds_pods_has_what_the_chart_starts() {
    if !may_change_root() {
        return;
    }
    let bench = Bench::new();
    let done = bench.run("image --output proxy.tar meshgate.dev/linkerd-proxy:dev");
    done.expect(0, &[]);
    assert!(done.stdout.starts_with("meshgate.dev/linkerd-proxy:dev  sha256:"), "{done:#?}");
    let image = unpack(&bench, "proxy.tar");
    assert_eq!(image.config["Entrypoint"], serde_json::json!(["/usr/lib/linkerd/linkerd2-proxy-identity"]));
    // The proxy, which is told nothing here, and says so as Linkerd's does.
    let proxy = image.run("/usr/lib/linkerd/linkerd2-proxy-identity", &[]);
    assert_eq!(proxy.code, Some(64), "{proxy:#?}");
    let wait = "/usr/lib/linkerd/linkerd-await";
    image.run(wait, &["--timeout=0", "--port=1"]).expect(0, &[]);
    assert_eq!(image.run(wait, &["--timeout=soon"]).code, Some(2));
    image.run("/usr/local/bin/meshgate", &["--version"]).expect(0, &[]);
}

#[test]
fn a_stand_ins_image_answers_to_the_name_of_the_real_one() {
    if !may_change_root() {
        return;
    }
    let bench = Bench::new();
    // Any program will do as a data plane that is not started.
    let mut command = bench.command("image --output one.tar kong:3.9");
    let done = Done::from(command.env("MESHGATE_NGINX_BIN", "/bin/sh").output().unwrap());
    done.expect(0, &[]);
    assert!(done.stdout.starts_with("docker.io/library/kong:3.9  sha256:"), "{done:#?}");
    let image = unpack(&bench, "one.tar");
    let entrypoint = image.config["Entrypoint"][0].as_str().unwrap().to_owned();
    assert!(image.root.join("usr/local/bin/nginx").is_file());
    // The same role by each of its names, and this binary by its own.
    let refused: Vec<Done> =
        [&entrypoint, "/kong", "kong"].map(|name| image.run(name, &["--no-such-flag"])).into_iter().collect();
    for done in &refused {
        assert_ne!(done.code, Some(0), "{done:#?}");
        assert_eq!(done.stderr, refused[0].stderr);
    }
    let by_hand = image.run("/usr/local/bin/meshgate", &["stand-in", "kong-gateway", "--no-such-flag"]);
    assert_eq!((by_hand.code, &by_hand.stderr), (refused[0].code, &refused[0].stderr));
    image.run("/usr/local/bin/meshgate", &["--version"]).expect(0, &[]);
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            find(&path, files);
        } else {
            files.push(path);
        }
    }
}
