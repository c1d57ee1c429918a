//! The shared libraries that a program needs, found as the dynamic loader finds them, without running anything.
//!
//! The order is that of ld.so(8): `DT_RPATH` where there is no `DT_RUNPATH`, the folders given (as `LD_LIBRARY_PATH`),
//! `DT_RUNPATH`, and the system's. What a program opens by itself while it runs (`dlopen`) is in no file and not found,
//! but for what the C library opens.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use object::Endianness;
use object::elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use object::read::{ReadCache, ReadRef};

use crate::{OciError, during};

/// The C library, by whose name programs need it.
const C_LIBRARY: &str = "libc.so.6";
/// What glibc opens when a thread is cancelled or a name is looked up; the latter two are part of it since 2.34.
const OPENED_BY_C_LIBRARY: [&str; 3] = ["libgcc_s.so.1", "libnss_dns.so.2", "libnss_files.so.2"];

/// What a program needs to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// The dynamic loader, as the program names it; none when it is linked statically.
    pub interpreter: Option<PathBuf>,
    /// Every library, by way of others as well, each once.
    pub libraries: Vec<Library>,
}

/// A shared library on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// The name by which it is needed, such as `libc.so.6`.
    pub name: String,
    /// Where it was found.
    pub path: PathBuf,
    /// Whether the loader finds it there without being told: it lies beside the loader itself.
    pub system: bool,
}

/// Finds what the program at `program` needs. `folders` are looked into before the system's.
///
/// # Errors
/// [`OciError::NotElf`], [`OciError::MissingLibrary`], or a file that cannot be read.
pub fn needed(program: &Path, folders: &[PathBuf]) -> Result<Needed, OciError> {
    let first = Object::read(program)?;
    let Some(interpreter) = first.interpreter.clone() else {
        return Ok(Needed { interpreter: None, libraries: Vec::new() });
    };
    let loader = interpreter.canonicalize().map_err(during("find the dynamic loader", &interpreter))?;
    let beside_loader = loader.parent().unwrap_or(Path::new("/")).to_owned();
    let system = system_folders(&beside_loader);
    let machine = first.machine;

    let mut libraries: Vec<Library> = Vec::new();
    let mut seen = BTreeSet::new();
    let mut queue = VecDeque::from([first]);
    while let Some(object) = queue.pop_front() {
        let places: Vec<&PathBuf> =
            [&object.rpath[..], folders, &object.runpath[..], &system[..]].into_iter().flatten().collect();
        let opened = OPENED_BY_C_LIBRARY.into_iter().filter(|_| object.needed.iter().any(|name| name == C_LIBRARY));
        let wanted = object.needed.iter().map(|name| (name.as_str(), true)).chain(opened.map(|name| (name, false)));
        for (name, must) in wanted {
            if seen.contains(name) {
                continue;
            }
            // A library for another machine is passed over, as the loader does.
            let fits = |path: &PathBuf| Object::read(path).ok().filter(|found| found.machine == machine);
            let found = match name.contains('/') {
                true => fits(&PathBuf::from(name)),
                false => places
                    .iter()
                    .map(|folder| folder.join(name))
                    .filter(|path| path.is_file())
                    .find_map(|path| fits(&path)),
            };
            let Some(mut found) = found else {
                if must {
                    let folders: Vec<String> = places.iter().map(|folder| folder.display().to_string()).collect();
                    return Err(OciError::MissingLibrary {
                        library: name.to_owned(),
                        needed_by: object.path,
                        folders: folders.join(", "),
                    });
                }
                continue;
            };
            seen.insert(name.to_owned());
            let folder = found.path.parent().and_then(|folder| folder.canonicalize().ok());
            let system = folder.as_deref() == Some(&beside_loader);
            libraries.push(Library { name: name.to_owned(), path: found.path.clone(), system });
            // Unlike a DT_RUNPATH, a DT_RPATH is for the libraries of libraries as well.
            if found.runpath.is_empty() {
                found.rpath.extend(object.rpath.iter().cloned());
            }
            queue.push_back(found);
        }
    }
    Ok(Needed { interpreter: Some(interpreter), libraries })
}

/// What one file says of itself.
struct Object {
    path: PathBuf,
    machine: u16,
    interpreter: Option<PathBuf>,
    needed: Vec<String>,
    rpath: Vec<PathBuf>,
    runpath: Vec<PathBuf>,
}

impl Object {
    fn read(path: &Path) -> Result<Self, OciError> {
        let file = File::open(path).map_err(during("open", path))?;
        // Only the parts that are asked for are read; programs have a hundred megabytes.
        let cache = ReadCache::new(file);
        Self::parse(path, &cache)
            .map_err(|error| OciError::NotElf { path: path.to_owned(), problem: error.to_string() })
    }

    fn parse<'data>(path: &Path, data: impl ReadRef<'data>) -> object::Result<Self> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let header = FileHeader64::<Endianness>::parse(data)?;
        let endian = header.endian()?;
        let mut interpreter = None;
        for segment in header.program_headers(endian, data)? {
            if let Some(name) = segment.interpreter(endian, data)? {
                interpreter = Some(PathBuf::from(text(name)));
            }
        }
        let (mut needed, mut rpath, mut runpath) = (Vec::new(), Vec::new(), Vec::new());
        let dynamic = header.sections(endian, data)?.dynamic_table(endian, data)?;
        // $ORIGIN is the folder of the file itself and not of a link to it.
        let origin = path.canonicalize().ok().and_then(|path| path.parent().map(|parent| parent.display().to_string()));
        let origin = origin.unwrap_or_default();
        let folders = |list: String| -> Vec<PathBuf> {
            let list = list.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin);
            list.split(':').filter(|folder| !folder.is_empty()).map(PathBuf::from).collect()
        };
        for entry in dynamic.iter() {
            match entry.tag {
                DT_NEEDED => needed.push(text(dynamic.string(entry)?)),
                DT_RPATH => rpath = folders(text(dynamic.string(entry)?)),
                DT_RUNPATH => runpath = folders(text(dynamic.string(entry)?)),
                _ => {}
            }
        }
        if !runpath.is_empty() {
            rpath.clear();
        }
        let machine = header.e_machine(endian).0;
        Ok(Self { path: path.to_owned(), machine, interpreter, needed, rpath, runpath })
    }
}

/// Where the loader looks when nobody says anything: beside itself, in the folders of `/etc/ld.so.conf`, and the customary ones.
fn system_folders(beside_loader: &Path) -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from("/etc/ld.so.conf")];
    let mut included: Vec<PathBuf> =
        fs::read_dir("/etc/ld.so.conf.d").into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    included.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    included.sort();
    files.append(&mut included);
    let configured = files.iter().filter_map(|path| fs::read_to_string(path).ok());
    let configured: Vec<PathBuf> = configured
        .flat_map(|text| {
            text.lines().map(str::trim).filter(|line| line.starts_with('/')).map(PathBuf::from).collect::<Vec<_>>()
        })
        .collect();
    let customary = ["/lib64", "/usr/lib64", "/lib", "/usr/lib"].map(PathBuf::from);
    [beside_loader.to_owned()].into_iter().chain(configured).chain(customary).collect()
}
