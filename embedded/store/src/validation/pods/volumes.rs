//! Rules of volumes. Of kinds that no pod here can use, only their number is looked at.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::{names, one_of, quantities};
use super::env::{self, FILE_FIELDS};
use crate::invalid::FieldErrors;
use crate::json::{given, int_at, items, str_at};

/// What a volume may be, and what Kubernetes calls it where it is one too many.
const KINDS: [(&str, &str); 30] = [
    ("emptyDir", "emptyDir"),
    ("hostPath", "hostPath"),
    ("gitRepo", "gitRepo"),
    ("gcePersistentDisk", "gcePersistentDisk"),
    ("awsElasticBlockStore", "awsElasticBlockStore"),
    ("secret", "secret"),
    ("nfs", "nfs"),
    ("iscsi", "iscsi"),
    ("glusterfs", "glusterfs"),
    ("flocker", "flocker"),
    ("persistentVolumeClaim", "persistentVolumeClaim"),
    ("rbd", "rbd"),
    ("cinder", "cinder"),
    ("cephfs", "cephFS"),
    ("quobyte", "quobyte"),
    ("downwardAPI", "downwarAPI"),
    ("fc", "fc"),
    ("flexVolume", "flexVolume"),
    ("configMap", "configMap"),
    ("azureFile", "azureFile"),
    ("vsphereVolume", "vsphereVolume"),
    ("photonPersistentDisk", "photonPersistentDisk"),
    ("portworxVolume", "portworxVolume"),
    ("azureDisk", "azureDisk"),
    ("storageos", "storageos"),
    ("projected", "projected"),
    ("scaleIO", "scaleIO"),
    ("csi", "csi"),
    ("ephemeral", "ephemeral"),
    ("image", "image"),
];

/// Seconds that a token may live.
const TOKEN_LIFE: std::ops::RangeInclusive<i64> = 600..=1 << 32;

/// The volumes of a pod spec; the names of those that can be mounted. Claims are mounted like volumes.
pub(super) fn volumes<'a>(
    path: &str,
    spec: &'a Value,
    claims: &'a [Value],
    errors: &mut FieldErrors,
) -> BTreeSet<&'a str> {
    let mut usable = BTreeSet::new();
    for (index, volume) in items(spec, "/volumes").iter().enumerate() {
        let path = format!("{path}.volumes[{index}]");
        let mut found = FieldErrors::default();
        source(&path, volume, &mut found);
        let (field, name) = (format!("{path}.name"), str_at(volume, "/name"));
        if name.is_empty() {
            found.required(field.as_str(), "");
        } else {
            found.each(field.as_str(), &json!(name), names::dns_label(name));
        }
        if usable.contains(name) {
            found.duplicate(field, &json!(name));
        }
        if found.is_empty() {
            usable.insert(name);
        }
        errors.append(found);
    }
    usable.extend(claims.iter().map(|claim| str_at(claim, "/metadata/name")));
    usable
}

/// What a volume is: the first of what it says, as everything else is one too many.
fn source(path: &str, volume: &Value, errors: &mut FieldErrors) {
    let mut present = KINDS.iter().filter_map(|(kind, said)| Some((*kind, *said, given(volume, kind)?)));
    if let Some((kind, _, source)) = present.next() {
        of_kind(&format!("{path}.{kind}"), kind, source, errors);
    }
    for (_, said, _) in present {
        errors.forbidden(format!("{path}.{said}"), "may not specify more than 1 volume type");
    }
}

fn size_limit(path: &str, source: &Value, errors: &mut FieldErrors) {
    if given(source, "sizeLimit").and_then(quantities::nanos).is_some_and(|size| size < 0) {
        errors.forbidden(format!("{path}.sizeLimit"), "SizeLimit field must be a valid resource quantity");
    }
}

fn of_kind(path: &str, kind: &str, source: &Value, errors: &mut FieldErrors) {
    let required = |key: &str, errors: &mut FieldErrors| {
        if str_at(source, &format!("/{key}")).is_empty() {
            errors.required(format!("{path}.{key}"), "");
        }
    };
    match kind {
        "emptyDir" => size_limit(path, source, errors),
        "hostPath" => {
            required("path", errors);
            if !str_at(source, "/path").is_empty() {
                no_steps_back(&format!("{path}.path"), str_at(source, "/path"), errors);
                let kinds = [
                    "",
                    "BlockDevice",
                    "CharDevice",
                    "Directory",
                    "DirectoryOrCreate",
                    "File",
                    "FileOrCreate",
                    "Socket",
                ];
                one_of(source, "type", path, &kinds, errors);
            }
        }
        "secret" | "configMap" => {
            required(if kind == "secret" { "secretName" } else { "name" }, errors);
            mode(path, source, "defaultMode", errors);
            for (index, item) in items(source, "/items").iter().enumerate() {
                self::item(&format!("{path}.items[{index}]"), item, errors);
            }
        }
        "nfs" => {
            required("server", errors);
            required("path", errors);
            let text = str_at(source, "/path");
            if !text.starts_with('/') {
                errors.invalid(format!("{path}.path"), &json!(text), "must be an absolute path");
            }
        }
        "persistentVolumeClaim" => required("claimName", errors),
        "downwardAPI" => {
            mode(path, source, "defaultMode", errors);
            for item in items(source, "/items") {
                file(path, item, errors);
            }
        }
        "projected" => {
            mode(path, source, "defaultMode", errors);
            projected(path, items(source, "/sources"), errors);
        }
        _ => {}
    }
}

/// Several sources whose files are in one directory.
fn projected(path: &str, sources: &[Value], errors: &mut FieldErrors) {
    const KINDS: [&str; 6] =
        ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];
    let mut seen = BTreeSet::new();
    let mut unique = |text: &str, said: &str, errors: &mut FieldErrors| {
        if !text.is_empty() && !seen.insert(text.to_owned()) {
            errors.invalid(path, &json!(said), "conflicting duplicate paths");
        }
    };
    for (index, source) in sources.iter().enumerate() {
        let at = format!("{path}.sources[{index}]");
        for kind in ["secret", "configMap"] {
            let Some(source) = given(source, kind) else { continue };
            let (at, name) = (format!("{at}.{kind}"), str_at(source, "/name"));
            if name.is_empty() {
                errors.required(format!("{at}.name"), "");
            }
            for (index, item) in items(source, "/items").iter().enumerate() {
                self::item(&format!("{at}.items[{index}]"), item, errors);
                unique(str_at(item, "/path"), name, errors);
            }
        }
        for item in items(source, "/downwardAPI/items") {
            file(&format!("{at}.downwardAPI"), item, errors);
            unique(str_at(item, "/path"), str_at(item, "/path"), errors);
        }
        if let Some(token) = given(source, "serviceAccountToken") {
            self::token(&format!("{at}.serviceAccountToken"), token, errors);
            if str_at(token, "/path").is_empty() {
                errors.required(format!("{path}.path"), "");
            }
        }
        if KINDS.iter().filter(|kind| given(source, kind).is_some()).count() > 1 {
            errors.forbidden(at, "may not specify more than 1 volume type per source");
        }
    }
}

fn token(path: &str, token: &Value, errors: &mut FieldErrors) {
    let Some(seconds) = int_at(token, "/expirationSeconds").filter(|seconds| !TOKEN_LIFE.contains(seconds)) else {
        return;
    };
    let problem = if seconds < *TOKEN_LIFE.start() {
        "may not specify a duration less than 10 minutes"
    } else {
        "may not specify a duration larger than 2^32 seconds"
    };
    errors.invalid(format!("{path}.expirationSeconds"), &json!(seconds), problem);
}

/// A key of a ConfigMap or a Secret that becomes a file.
fn item(path: &str, item: &Value, errors: &mut FieldErrors) {
    if str_at(item, "/key").is_empty() {
        errors.required(format!("{path}.key"), "");
    }
    file_path(path, item, errors);
    mode(path, item, "mode", errors);
}

/// A field of the pod that becomes a file. Which of them it is, the path does not say.
fn file(path: &str, file: &Value, errors: &mut FieldErrors) {
    file_path(path, file, errors);
    match (given(file, "fieldRef"), given(file, "resourceFieldRef")) {
        (None, None) => errors.required(path, "one of fieldRef and resourceFieldRef is required"),
        (Some(reference), other) => {
            env::field(&format!("{path}.fieldRef"), reference, &FILE_FIELDS, errors);
            if other.is_some() {
                let problem = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.invalid(path, &json!("resource"), problem);
            }
        }
        (None, Some(reference)) => {
            let path = format!("{path}.resourceFieldRef");
            if str_at(reference, "/containerName").is_empty() {
                errors.required(format!("{path}.containerName"), "");
            } else {
                env::resource(&path, reference, errors);
            }
        }
    }
    mode(path, file, "mode", errors);
}

fn file_path(path: &str, file: &Value, errors: &mut FieldErrors) {
    let (field, text) = (format!("{path}.path"), str_at(file, "/path"));
    if text.is_empty() {
        errors.required(field.as_str(), "");
    }
    local_path(&field, text, errors);
    if text.starts_with("..") && !text.starts_with("../") {
        errors.invalid(field, &json!(text), "must not start with '..'");
    }
}

/// A path that stays where it begins.
pub(super) fn local_path(field: &str, path: &str, errors: &mut FieldErrors) {
    if path.starts_with('/') {
        errors.invalid(field, &json!(path), "must be a relative path");
    }
    no_steps_back(field, path, errors);
}

fn no_steps_back(field: &str, path: &str, errors: &mut FieldErrors) {
    if path.split('/').any(|part| part == "..") {
        errors.invalid(field, &json!(path), "must not contain '..'");
    }
}

fn mode(path: &str, source: &Value, key: &str, errors: &mut FieldErrors) {
    if let Some(mode) = int_at(source, &format!("/{key}")).filter(|mode| !(0..=0o777).contains(mode)) {
        let problem = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.invalid(format!("{path}.{key}"), &json!(mode), problem);
    }
}

/// Where a container has which of the volumes.
pub(super) fn mounts(path: &str, container: &Value, volumes: &BTreeSet<&str>, errors: &mut FieldErrors) {
    let path = format!("{path}.volumeMounts");
    let mut seen = BTreeSet::new();
    for (index, mount) in items(container, "/volumeMounts").iter().enumerate() {
        let [name, place, part, expression] =
            ["/name", "/mountPath", "/subPath", "/subPathExpr"].map(|pointer| str_at(mount, pointer));
        if name.is_empty() {
            errors.required(format!("{path}[{index}].name"), "");
        }
        if !volumes.contains(name) {
            errors.not_found(format!("{path}[{index}].name"), &json!(name));
        }
        if place.is_empty() {
            errors.required(format!("{path}[{index}].mountPath"), "");
        }
        if !seen.insert(place) {
            errors.invalid(format!("{path}[{index}].mountPath"), &json!(place), "must be unique");
        }
        // Kubernetes does not say of which mount it speaks from here on.
        local_path(&format!("{path}.subPath"), part, errors);
        if !part.is_empty() && !expression.is_empty() {
            let problem = "subPathExpr and subPath are mutually exclusive";
            errors.invalid(format!("{path}[{index}].subPathExpr"), &json!(expression), problem);
        }
        local_path(&format!("{path}.subPathExpr"), expression, errors);
        one_of(mount, "mountPropagation", &path, &["Bidirectional", "HostToContainer", "None"], errors);
        let is_privileged = container.pointer("/securityContext/privileged") == Some(&Value::Bool(true));
        if str_at(mount, "/mountPropagation") == "Bidirectional" && !is_privileged {
            let why = "Bidirectional mount propagation is available only to privileged containers";
            errors.forbidden(format!("{path}.mountPropagation"), why);
        }
    }
}
