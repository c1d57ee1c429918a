//! `ingress.kubernetes.io/...`: what an Ingress says beyond its spec.

use std::collections::BTreeMap;

use kube::api::DynamicObject;

use crate::objects::annotation;

/// The labels of other providers that stand for an annotation, from before there were annotations.
const LABELS: [(&str, &str); 4] = [
    ("frontend-entry-points", "traefik.frontend.entryPoints"),
    ("preserve-host", "traefik.frontend.passHostHeader"),
    ("priority", "traefik.frontend.priority"),
    ("rule-type", "traefik.frontend.rule.type"),
];

/// An annotation by the end of its name: `ingress.kubernetes.io/NAME`, or with `traefik.` before it, or as the label that it was.
pub(crate) fn get<'a>(ingress: &'a DynamicObject, name: &str) -> Option<&'a str> {
    annotation(ingress, &format!("ingress.kubernetes.io/{name}"))
        .or_else(|| annotation(ingress, &format!("traefik.ingress.kubernetes.io/{name}")))
        .or_else(|| {
            let (_, label) = LABELS.iter().find(|(known, _)| *known == name)?;
            annotation(ingress, label)
        })
}

/// A switch, read as Go reads one. What is none is as if it were not there.
pub(crate) fn flag(ingress: &DynamicObject, name: &str, default: bool) -> bool {
    match get(ingress, name) {
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => false,
        _ => default,
    }
}

/// A comma-separated list.
pub(crate) fn list(ingress: &DynamicObject, name: &str) -> Vec<String> {
    let words = get(ingress, name).into_iter().flat_map(|list| list.split(','));
    words.map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
}

/// `NAME:VALUE||NAME:VALUE`. The value may hold further colons; a part without one is left out, and named in `left_out`.
pub(crate) fn headers(
    ingress: &DynamicObject,
    name: &'static str,
    left_out: &mut Vec<String>,
) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    for part in get(ingress, name).into_iter().filter(|text| !text.is_empty()).flat_map(|text| text.split("||")) {
        match part.split_once(':') {
            Some((header, value)) => {
                headers.insert(header.trim().to_lowercase(), value.trim().to_owned());
            }
            None => left_out.push(format!("Could not load {name:?}: {part:?}, skipping...")),
        }
    }
    headers
}
