//! Which image a node of kind runs.

use serde::Deserialize;

use super::KindError;

/// A node image, pinned by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeImage {
    /// The version of Kubernetes in it.
    pub kubernetes: String,
    /// The release of kind that it was built for; older ones may not be able to run it.
    pub kind: String,
    /// Its name, with the digest.
    pub image: String,
}

impl NodeImage {
    /// Every image that is known, newest first.
    ///
    /// # Errors
    /// [`KindError::Table`]; the table is part of this program and a test reads it.
    pub fn known() -> Result<Vec<Self>, KindError> {
        serde_yaml::from_str(include_str!("images.yaml")).map_err(KindError::Table)
    }

    /// The image of a version of Kubernetes: `1.36.4`, or `1.36` for the newest of these that is known; with or without `v`.
    ///
    /// # Errors
    /// [`KindError::Version`] names those that are known.
    pub fn of(version: &str) -> Result<Self, KindError> {
        let known = Self::known()?;
        let wanted = version.strip_prefix('v').unwrap_or(version);
        let fits = |image: &&Self| {
            let rest = image.kubernetes.strip_prefix(wanted);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        match known.iter().find(fits) {
            Some(image) if !wanted.is_empty() => Ok(image.clone()),
            _ => {
                let versions: Vec<&str> = known.iter().map(|image| image.kubernetes.as_str()).collect();
                Err(KindError::Version { version: version.to_owned(), known: versions.join(", ") })
            }
        }
    }

    /// The newest.
    ///
    /// # Errors
    /// As [`Self::known`].
    pub fn newest() -> Result<Self, KindError> {
        let mut known = Self::known()?;
        if known.is_empty() {
            return Err(KindError::Version { version: String::new(), known: String::new() });
        }
        Ok(known.remove(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_is_pinned_and_named_by_its_version() {
        let known = NodeImage::known().unwrap();
        for image in &known {
            let (name, digest) = image.image.split_once("@sha256:").expect("a digest");
            assert_eq!(name, format!("kindest/node:v{}", image.kubernetes));
            assert!(
                digest.len() == 64 && digest.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c)),
                "{digest}"
            );
        }
        let number = |image: &NodeImage| -> Vec<u32> {
            image.kubernetes.split('.').map(|part| part.parse().expect("a number")).collect()
        };
        assert!(known.is_sorted_by(|a, b| number(a) > number(b)), "newest first, none twice");
        assert_eq!(NodeImage::newest().unwrap(), known[0]);
    }

    #[test]
    fn a_version_may_be_given_in_part() {
        for version in ["1.36", "v1.36", "1.36.4", "v1.36.4"] {
            assert_eq!(NodeImage::of(version).unwrap().kubernetes, "1.36.4", "{version}");
        }
        assert_eq!(NodeImage::of("1.34").unwrap().kubernetes, "1.34.11", "the newest of them");
        assert_eq!(NodeImage::of("1.34.3").unwrap().kubernetes, "1.34.3");
        for version in ["", "1.3", "1.34.1", "1.20", "latest"] {
            let error = NodeImage::of(version).unwrap_err().to_string();
            assert!(error.contains("1.37.0, 1.36.4"), "{error}");
        }
    }
}
