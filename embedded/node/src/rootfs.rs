//! The root of a container: a tmpfs with the host's programs and libraries bound in read-only, and an `/etc`, `/dev`,
//! `/tmp` of its own. Runs in the single-threaded helper, in a mount namespace of its own.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{chdir, pivot_root, sethostname};

use crate::launch::{Bind, Root};

/// Top-level directories of the host that hold programs and libraries.
const HOST_DIRECTORIES: [&str; 8] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "nix"];

/// What programs read below `/etc`, taken from the host: certificates, the linker's cache, `update-alternatives` links.
const HOST_ETC: [&str; 10] = [
    "ssl",
    "pki",
    "ca-certificates",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "alternatives",
    "localtime",
    "services",
    "protocols",
];

/// Character devices every container has.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Where directories of the host are seen that a mount inside them has covered.
const COVERED: &str = "/.covered";

/// Why a root could not be built.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path:?} while building the container's root: {cause}")]
pub(crate) struct RootError {
    action: &'static str,
    path: PathBuf,
    cause: io::Error,
}

type Result<T> = std::result::Result<T, RootError>;

/// Attaches what was tried, and on what.
trait Context<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|cause| RootError { action, path: path.to_owned(), cause: cause.into() })
    }
}

/// Leaves the node's mounts and host name, builds `root` and makes it this process's root.
pub(crate) fn enter(root: &Root) -> Result<()> {
    let base = root.base.as_path();
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
        .context("unshare mount and UTS namespaces for", base)?;
    sethostname(&root.hostname).context("set the host name for", base)?;
    // Nothing mounted from here on may reach the node, and pivot_root refuses shared mounts.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("make private", Path::new("/"))?;
    tmpfs(base, "mode=0755")?;

    for name in HOST_DIRECTORIES {
        host_directory(base, name)?;
    }
    for name in ["etc", "var", "run", "root", "home", "opt", "srv", "mnt"] {
        directory(&base.join(name))?;
    }
    for name in ["tmp", "var/tmp"] {
        let path = base.join(name);
        directory(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o1777)).context("open", &path)?;
    }
    // Relative, so that it leads to the container's own /run before the pivot, too.
    for (name, target) in [("var/run", "../run"), ("var/lock", "../run")] {
        let path = base.join(name);
        symlink(target, &path).context("link", &path)?;
    }
    directory(&base.join("var/log"))?;
    directory(&base.join("var/lib"))?;
    directory(&base.join("var/cache"))?;
    devices(base)?;
    for name in ["proc", "sys"] {
        let path = base.join(name);
        directory(&path)?;
        bind(&Path::new("/").join(name), &path, false)?;
    }
    for name in HOST_ETC {
        let source = Path::new("/etc").join(name);
        if source.exists() {
            place(base, &Bind { target: source.clone(), source, read_only: true })?;
        }
    }
    for (path, content) in &root.files {
        let path = inside(base, path);
        parents(&path)?;
        fs::write(&path, content).context("write", &path)?;
    }
    for bind in &root.binds {
        make_room(base, &bind.target)?;
        place(base, bind)?;
    }
    for (path, target) in &root.links {
        let path = inside(base, path);
        parents(&path)?;
        symlink(target, &path).context("link", &path)?;
    }

    // The old root is stacked on the new one by this call, and dropped from there (see pivot_root(2), "pivot_root(".", ".")").
    chdir(base).context("enter", base)?;
    pivot_root(".", ".").context("pivot to", base)?;
    umount2(".", MntFlags::MNT_DETACH).context("drop the old root under", base)?;
    chdir("/").context("enter", Path::new("/"))?;
    if root.read_only {
        remount_read_only(Path::new("/"))?;
    }
    Ok(())
}

/// Binds one of the host's top-level directories read-only, or repeats its link (`/lib -> usr/lib`).
fn host_directory(base: &Path, name: &str) -> Result<()> {
    let source = Path::new("/").join(name);
    let target = base.join(name);
    let Ok(metadata) = source.symlink_metadata() else { return Ok(()) };
    if metadata.is_symlink() {
        let link = fs::read_link(&source).context("read the link", &source)?;
        let relative = link.strip_prefix("/").unwrap_or(&link);
        return symlink(relative, &target).context("link", &target);
    }
    directory(&target)?;
    bind(&source, &target, true)
}

/// `/dev`: the host's harmless devices, terminals of its own, shared memory of its own.
fn devices(base: &Path) -> Result<()> {
    let dev = base.join("dev");
    directory(&dev)?;
    for name in DEVICES {
        let source = Path::new("/dev").join(name);
        if source.exists() {
            let target = dev.join(name);
            File::create(&target).context("create", &target)?;
            bind(&source, &target, false)?;
        }
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        let path = dev.join(name);
        symlink(target, &path).context("link", &path)?;
    }
    let shm = dev.join("shm");
    directory(&shm)?;
    fs::set_permissions(&shm, Permissions::from_mode(0o1777)).context("open", &shm)?;
    let pts = dev.join("pts");
    directory(&pts)?;
    let mounted = mount(
        Some("devpts"),
        &pts,
        Some("devpts"),
        MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        Some("newinstance,ptmxmode=0666,mode=0620"),
    );
    if mounted.is_ok() {
        let path = dev.join("ptmx");
        symlink("pts/ptmx", &path).context("link", &path)?;
    }
    Ok(())
}

/// Lets a mount point be created below a read-only directory of the host, e.g. `/usr/share/nginx/html`: the deepest directory
/// of its path that exists is covered by one that can be written to, with links to what was there.
fn make_room(base: &Path, target: &Path) -> Result<()> {
    let wanted = inside(base, target);
    let below_host = HOST_DIRECTORIES.iter().any(|name| wanted.starts_with(base.join(name)));
    if !below_host || wanted.exists() {
        return Ok(());
    }
    let Some(present) = wanted.ancestors().skip(1).find(|path| path.exists()) else { return Ok(()) };
    let Ok(name) = present.strip_prefix(base) else { return Ok(()) };
    let covered = Path::new(COVERED).join(name);
    let below = inside(base, &covered);
    directory(&below)?;
    bind(present, &below, true)?;
    let entries = fs::read_dir(present).context("list", present)?;
    let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    tmpfs(present, "mode=0755")?;
    for name in names {
        let link = present.join(&name);
        symlink(covered.join(&name), &link).context("link", &link)?;
    }
    Ok(())
}

/// Mounts `bind` in the root, creating its target.
fn place(base: &Path, wanted: &Bind) -> Result<()> {
    let target = inside(base, &wanted.target);
    // A program below /usr is there already, and its directory cannot be written to.
    if wanted.source == wanted.target && target.exists() {
        return Ok(());
    }
    let metadata = fs::metadata(&wanted.source).context("find", &wanted.source)?;
    if metadata.is_dir() {
        directory(&target)?;
    } else if !target.exists() {
        parents(&target)?;
        File::create(&target).context("create", &target)?;
    }
    bind(&wanted.source, &target, wanted.read_only)
}

/// `path` of the container below `base`, without climbing out of it.
fn inside(base: &Path, path: &Path) -> PathBuf {
    let mut result = base.to_owned();
    for component in path.components() {
        match component {
            Component::Normal(name) => result.push(name),
            Component::ParentDir if result != base => {
                result.pop();
            }
            _ => {}
        }
    }
    result
}

fn directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).context("create the directory", path)
}

fn parents(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), directory)
}

fn tmpfs(path: &Path, options: &str) -> Result<()> {
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(options)).context("mount a tmpfs on", path)
}

fn bind(source: &Path, target: &Path, read_only: bool) -> Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .context("bind to", target)?;
    if read_only { remount_read_only(target) } else { Ok(()) }
}

/// Inside a user namespace a remount may add flags but not lose any the mount had, so those are repeated.
fn remount_read_only(path: &Path) -> Result<()> {
    let had = statvfs(path).context("read the mount flags of", path)?.flags();
    let kept = [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ];
    let flags = kept
        .into_iter()
        .filter(|(had_flag, _)| had.contains(*had_flag))
        .fold(MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, |flags, (_, keep)| flags | keep);
    match mount(None::<&str>, path, None::<&str>, flags, None::<&str>) {
        // A file system that cannot be remounted at all, e.g. one the kernel already keeps read-only.
        Err(Errno::EINVAL) => Ok(()),
        result => result.context("make read-only", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_dots_stays_inside() {
        let base = Path::new("/base");
        assert_eq!(inside(base, Path::new("/etc/hosts")), Path::new("/base/etc/hosts"));
        assert_eq!(inside(base, Path::new("/../../etc/./x")), Path::new("/base/etc/x"));
        assert_eq!(inside(base, Path::new("relative/../y")), Path::new("/base/y"));
    }
}
