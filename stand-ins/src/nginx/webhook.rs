//! What the validating webhook says of an Ingress: `CheckIngress` of `internal/ingress/controller/controller.go`.
//!
//! Since CVE-2025-1974 (1.11.5 and 1.12.1) it does not try the configuration: a snippet or a pattern that nginx does not take gets in.

use std::collections::BTreeSet;

use kube::ResourceExt as _;
use serde_json::Value;

use super::annotations::Annotations;
use super::settings::Settings;
use super::translate;
use crate::flags::Flags;
use crate::objects::{Object, Objects, annotation, items, text};

/// Judges an Ingress beside those that there are.
///
/// # Errors
/// Why it must not be stored.
pub(super) fn judge(objects: &Objects, flags: &Flags, settings: &Settings, ingress: &Object) -> Result<(), String> {
    if ingress.metadata.deletion_timestamp.is_some() || !translate::is_ours(objects, flags, ingress) {
        return Ok(());
    }
    if settings.strict_paths {
        paths(&ingress.data["spec"])?;
    }
    let mut names = ingress.metadata.annotations.iter().flat_map(|annotations| annotations.keys());
    if let Some(name) = names.find(|name| name.ends_with("-snippet")).filter(|_| !settings.snippets) {
        return Err(format!(
            "{name} annotation cannot be used. Snippet directives are disabled by the Ingress administrator"
        ));
    }
    Annotations::read(ingress, settings, &mut Vec::new())?;
    overlap(objects, flags, settings, ingress)
}

/// `inspector.ValidatePathType`.
fn paths(spec: &Value) -> Result<(), String> {
    let is_plain =
        |path: &str| path.starts_with('/') && path.chars().all(|c| c.is_ascii_alphanumeric() || "-._/".contains(c));
    let paths = items(spec, "/rules").flat_map(|rule| items(rule, "/http/paths"));
    let wrong: Vec<String> = paths
        .map(|path| (text(path, "/path"), text(path, "/pathType")))
        .filter(|(path, kind)| !path.is_empty() && *kind != "ImplementationSpecific" && !is_plain(path))
        .map(|(path, kind)| format!("path {path} cannot be used with pathType {kind}"))
        .collect();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("ingress contains invalid paths: {}", wrong.join("\n")))
}

/// `checkOverlap`: of two Ingresses that want one path the second is refused, unless either says anything of a canary.
fn overlap(objects: &Objects, flags: &Flags, settings: &Settings, ingress: &Object) -> Result<(), String> {
    const CANARY: &str = "nginx.ingress.kubernetes.io/canary";
    let is_silent = |object: &Object| annotation(object, CANARY).is_none_or(str::is_empty);
    let others = translate::ingresses(objects, flags, settings, &mut BTreeSet::new());
    let is_itself = |other: &Object| other.namespace() == ingress.namespace() && other.name_any() == ingress.name_any();
    let others: Vec<_> =
        others.iter().filter(|other| other.annotations.canary.is_none() && !is_itself(&other.object)).collect();
    for (host, path) in translate::rules(&ingress.data["spec"]).filter(|(_, path)| leads_to_service(path)) {
        let wants = |other: &Object| {
            let mut rules = translate::rules(&other.data["spec"]);
            rules.any(|(its_host, its)| its_host == host && leads_to_service(its) && location(its) == location(path))
        };
        let Some(holder) = others.iter().find(|other| wants(&other.object)) else { continue };
        if is_silent(ingress) && is_silent(&holder.object) {
            let (path, _) = location(path);
            let (namespace, name) = (holder.namespace(), holder.object.name_any());
            return Err(format!("host {host:?} and path {path:?} is already defined in ingress {namespace}/{name}"));
        }
        return Ok(());
    }
    Ok(())
}

fn leads_to_service(path: &Value) -> bool {
    path["backend"]["service"].is_object()
}

/// The path, and whether it is meant exactly: what is not is a prefix (`SetDefaultNGINXPathType`).
fn location(path: &Value) -> (&str, bool) {
    let of = match text(path, "/path") {
        "" => "/",
        of => of,
    };
    (of, text(path, "/pathType") == "Exact")
}
