//! Names of images.

use crate::OciError;

/// The registry and folder of names that have none.
const REGISTRY: &str = "docker.io";
const FOLDER: &str = "library";

/// An image's name as runtimes look it up: with a registry and a tag.
///
/// `traefik` is `docker.io/library/traefik:latest` in full, `kong/kong:3` is `docker.io/kong/kong:3`. The kubelet completes
/// names in the same way before it asks containerd, which compares them letter by letter.
///
/// # Errors
/// [`OciError::Reference`]: the characters are not those of a name, or it has a digest, which nobody but a registry can promise.
pub fn full_name(reference: &str) -> Result<String, OciError> {
    let wrong = |problem| OciError::Reference { reference: reference.to_owned(), problem };
    if reference.contains('@') {
        return Err(wrong("an image that is built here cannot have the digest of another"));
    }
    // A colon after the last slash begins the tag; one before it belongs to a registry's port.
    let (name, tag) = match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (reference, "latest"),
    };
    let in_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/:".contains(c);
    if name.split('/').any(str::is_empty) || !name.chars().all(in_name) {
        return Err(wrong("expected lower-case letters, digits, '.', '_', '-' between slashes"));
    }
    let in_tag = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if tag.is_empty() || tag.len() > 128 || tag.starts_with(['.', '-']) || !tag.chars().all(in_tag) {
        return Err(wrong("expected a tag of letters, digits, '.', '_', '-'"));
    }
    let name = match name.split_once('/') {
        Some((registry, _)) if registry.contains(['.', ':']) || registry == "localhost" => name.to_owned(),
        Some(_) => format!("{REGISTRY}/{name}"),
        None => format!("{REGISTRY}/{FOLDER}/{name}"),
    };
    // Docker's registry has a folder for what has none, whether or not the registry is named.
    let name = match name.strip_prefix("docker.io/") {
        Some(rest) if !rest.contains('/') => format!("{REGISTRY}/{FOLDER}/{rest}"),
        _ => name,
    };
    Ok(format!("{name}:{tag}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_completed() {
        for (short, full) in [
            ("traefik", "docker.io/library/traefik:latest"),
            ("traefik:v3.7.15", "docker.io/library/traefik:v3.7.15"),
            ("docker.io/traefik:v3.7.15", "docker.io/library/traefik:v3.7.15"),
            ("kong/kong:3", "docker.io/kong/kong:3"),
            ("meshgate.dev/meshgate:dev", "meshgate.dev/meshgate:dev"),
            ("localhost:5000/thing", "localhost:5000/thing:latest"),
        ] {
            assert_eq!(full_name(short).unwrap(), full);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for wrong in ["", "a//b", "/a", "Upper/case", "a:", "a b", "a@sha256:00", "a:-x"] {
            let error = full_name(wrong).unwrap_err().to_string();
            assert!(error.contains("is no name for an image"), "{error}");
        }
    }
}
