//! What programs need, beside what the machine's own loader says.

// Clippy knows tests by their attribute; the helpers of tests are tests as well.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use meshgate_oci::{OciError, Tree, needed};

/// What the loader would load, by name; none where there is no ldd.
fn ldd(program: &Path) -> Option<BTreeSet<String>> {
    let output = Command::new("ldd").arg(program).env_remove("LD_LIBRARY_PATH").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.lines().filter_map(|line| Some(line.split_once(" => ")?.0.trim().to_owned())).collect())
}

/// Names of glibc's own parts, which it opens without being asked: more than ldd lists.
fn opened_by_libc(name: &str) -> bool {
    name.starts_with("libgcc_s.so") || name.starts_with("libnss_")
}

#[test]
fn the_loader_finds_the_same_libraries() {
    // This test itself, and a program with libraries of libraries.
    for program in [std::env::current_exe().unwrap(), PathBuf::from("/bin/ls"), PathBuf::from("/bin/sh")] {
        let found = needed(&program, &[]).unwrap();
        let Some(interpreter) = &found.interpreter else { continue };
        let Some(expected) = ldd(&program) else {
            println!("skipped: no ldd to compare with");
            return;
        };
        let loader = interpreter.file_name().unwrap().to_str().unwrap();
        let names: BTreeSet<String> = found.libraries.iter().map(|library| library.name.clone()).collect();
        let missing: Vec<_> = expected.difference(&names).collect();
        let more: Vec<_> =
            names.difference(&expected).filter(|name| !opened_by_libc(name) && name.as_str() != loader).collect();
        assert!(missing.is_empty() && more.is_empty(), "{}: missing {missing:?}, more {more:?}", program.display());
        assert!(names.contains("libc.so.6") || !expected.contains("libc.so.6"), "{names:?}");
    }
}

#[test]
fn libraries_elsewhere_are_gathered() {
    let own = std::env::current_exe().unwrap();
    let found = needed(&own, &[]).unwrap();
    let Some(library) = found.libraries.iter().find(|library| library.name.starts_with("libc.so")) else {
        println!("skipped: this machine links statically");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join(&library.name);
    fs::copy(&library.path, &copy).unwrap();
    let folders = [folder.path().to_owned()];
    let found = needed(&own, &folders).unwrap();
    let moved = found.libraries.iter().find(|found| found.name == library.name).unwrap();
    assert_eq!((&moved.path, moved.system), (&copy, false));
    assert_eq!(Tree::new().program("own", &own, &folders).unwrap().as_deref(), Some("/usr/local/lib/own"));
    assert_eq!(Tree::new().program("own", &own, &[]).unwrap(), None);
}

#[test]
fn a_script_is_no_program() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    fs::write(&script, "#!/bin/sh\necho hello, and more than a header's worth of text to read\n").unwrap();
    let error = needed(&script, &[]).unwrap_err();
    assert!(matches!(error, OciError::NotElf { .. }), "{error}");
    assert!(error.to_string().contains("expected a 64-bit ELF program"), "{error}");
    let error = needed(&folder.path().join("nothing"), &[]).unwrap_err();
    assert!(matches!(error, OciError::Io { .. }), "{error}");
}
