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
        // Newest first.
        Ok(Self::all_of(version)?.remove(0))
    }

    /// Every image of a version of Kubernetes, which may be given in part; at least one, newest first.
    fn all_of(version: &str) -> Result<Vec<Self>, KindError> {
        let known = Self::known()?;
        let fits: Vec<Self> = known.iter().filter(|image| is_of(&image.kubernetes, version)).cloned().collect();
        if fits.is_empty() {
            let versions: Vec<&str> = known.iter().map(|image| image.kubernetes.as_str()).collect();
            return Err(KindError::Version { version: version.to_owned(), known: versions.join(", ") });
        }
        Ok(fits)
    }

    /// The newest image, of a version of Kubernetes if one is given, that a release of kind (`0.31.0`) is known to run.
    ///
    /// # Errors
    /// [`KindError::Version`], [`KindError::Older`].
    pub fn for_kind(release: &str, version: Option<&str>) -> Result<Self, KindError> {
        let fits = match version {
            Some(version) => Self::all_of(version)?,
            None => Self::known()?,
        };
        let oldest = fits.iter().map(|image| image.kind.as_str()).min_by_key(|release| numbers(release));
        let (oldest, wanted) = (oldest.unwrap_or_default().to_owned(), version.map(str::to_owned));
        let runs = |image: &Self| numbers(&image.kind) <= numbers(release);
        let others = Self::known()?.iter().any(runs);
        fits.into_iter().find(runs).ok_or(KindError::Older {
            release: release.to_owned(),
            wanted,
            needed: oldest,
            others,
        })
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

/// Whether a version of Kubernetes (`1.36.4`) is what was asked for: the same, or the beginning of it, with or without `v`.
pub(super) fn is_of(found: &str, wanted: &str) -> bool {
    let plain = |version: &str| version.strip_prefix('v').unwrap_or(version).to_owned();
    let (found, wanted) = (plain(found), plain(wanted));
    // What a vendor appends (`1.36.4+k3s1`) is of that version too.
    let rest = found.strip_prefix(&*wanted).filter(|_| !wanted.is_empty());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '+', '-']))
}

/// The numbers of a release, which compare as the releases do.
pub(super) fn numbers(release: &str) -> Vec<u32> {
    release.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_kind_gets_the_newest_image_that_it_runs() {
        let of = |release: &str, version: Option<&str>| {
            NodeImage::for_kind(release, version).map(|image| image.kubernetes).map_err(|error| error.to_string())
        };
        assert_eq!(of("0.40.0", None), Ok("1.37.0".to_owned()));
        assert_eq!(of("0.33.0", None), Ok("1.37.0".to_owned()));
        assert_eq!(of("0.32.1", None), Ok("1.35.0".to_owned()));
        assert_eq!(of("0.31.0", Some("1.34")), Ok("1.34.3".to_owned()), "not 1.34.11, which is of 0.33.0");
        assert_eq!(of("0.33.0", Some("1.34")), Ok("1.34.11".to_owned()));
        let error = of("0.31.0", Some("1.36")).unwrap_err();
        assert_eq!(
            error,
            "kind 0.31.0 is older than the images of Kubernetes 1.36, which were built for kind 0.33.0 at least; install a newer kind, or ask \
             for another version: --kubernetes VERSION"
        );
        assert!(of("0.9.0", None).unwrap_err().contains("all known images, which were built for kind 0.30.0 at least"));
    }

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
