//! Whole streams, in and out. `UPDATE_GOLDEN=1 cargo test -p meshgate-inject` writes the expected files anew.

#![allow(clippy::unwrap_used)] // all of this file is test code, its helpers too

use std::{fs, path::Path};

use meshgate_inject::{Options, control_plane_manifests, inject_with_report};

fn compare(name: &str, got: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, got).unwrap();
    }
    let want = fs::read_to_string(&path).unwrap();
    assert_eq!(got, want, "{} differs from what the injector gives", path.display());
}

fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.in.yaml"));
    let injection = inject_with_report(&fs::read_to_string(path).unwrap(), &Options::default()).unwrap();
    compare(&format!("{name}.out.yaml"), &injection.yaml);
    compare(&format!("{name}.report.txt"), &injection.report.to_string());
    let again = inject_with_report(&injection.yaml, &Options::default()).unwrap();
    assert_eq!(again.yaml, injection.yaml);
}

#[test]
fn emojivoto() {
    check("emojivoto");
}

#[test]
fn ingress() {
    check("ingress");
}

#[test]
fn control_plane() {
    let documents: Vec<_> = control_plane_manifests(&Options::default())
        .iter()
        .map(|object| serde_yaml::to_string(object).unwrap())
        .collect();
    compare("control-plane.out.yaml", &documents.join("---\n"));
}
