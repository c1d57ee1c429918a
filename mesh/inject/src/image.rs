//! Which image a container of the mesh has, and whether it is Meshgate's.

use crate::{Options, annotations, containers::PodFacts};

/// The image of a container that the injector adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// As the manifest has it.
    pub(crate) reference: String,
    /// Whether it is Meshgate's, which is told its role by an argument. Any other, as Linkerd's, has one role and begins with it.
    pub(crate) own: bool,
}

impl Image {
    /// That of the proxy.
    pub(crate) fn of_proxy(facts: &PodFacts, options: &Options) -> Self {
        Self::of(facts, options, annotations::PROXY_IMAGE, annotations::PROXY_IMAGE_VERSION)
    }

    /// That of the init container.
    pub(crate) fn of_init(facts: &PodFacts, options: &Options) -> Self {
        Self::of(facts, options, annotations::INIT_IMAGE, annotations::INIT_IMAGE_VERSION)
    }

    /// As Linkerd's injector has it: one annotation is the name, one the tag, and either may be there alone. A name that has a tag
    /// itself is taken as well.
    fn of(facts: &PodFacts, options: &Options, name: &str, version: &str) -> Self {
        let image = facts.annotation(name).unwrap_or(&options.image);
        let reference = match facts.annotation(version) {
            Some(tag) => format!("{}:{tag}", parts(image).0),
            None => image.to_owned(),
        };
        Self { own: repository(&reference) == repository(&options.image), reference }
    }

    /// What `linkerd.io/proxy-version` says of a pod with this proxy.
    pub(crate) fn version(&self, options: &Options) -> String {
        let tag = parts(&self.reference).1.filter(|_| !self.own);
        tag.unwrap_or(&options.version).to_owned()
    }
}

/// An image's name and its tag.
fn parts(image: &str) -> (&str, Option<&str>) {
    let image = image.split('@').next().unwrap_or(image);
    match image.rsplit_once(':') {
        // Otherwise it is the port of a registry.
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (image, None),
    }
}

/// The last part of an image's name, which mirrors keep.
fn repository(image: &str) -> &str {
    let (name, _) = parts(image);
    name.rsplit('/').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn annotations_name_the_image_its_tag_or_both() {
        for (name, tag, reference, own, version) in [
            (None, None, "meshgate.dev/meshgate:dev", true, env!("CARGO_PKG_VERSION")),
            (None, Some("1.2"), "meshgate.dev/meshgate:1.2", true, env!("CARGO_PKG_VERSION")),
            (Some("localhost:5000/meshgate:7"), None, "localhost:5000/meshgate:7", true, env!("CARGO_PKG_VERSION")),
            (
                Some("cr.l5d.io/linkerd/proxy"),
                Some("edge-26.8.3"),
                "cr.l5d.io/linkerd/proxy:edge-26.8.3",
                false,
                "edge-26.8.3",
            ),
            (Some("localhost:5000/linkerd/proxy"), Some("a"), "localhost:5000/linkerd/proxy:a", false, "a"),
            (Some("linkerd/proxy:a@sha256:00"), None, "linkerd/proxy:a@sha256:00", false, "a"),
            (Some("linkerd/proxy:a@sha256:00"), Some("b"), "linkerd/proxy:b", false, "b"),
        ] {
            let mut annotations = json!({});
            for (key, value) in [("config.linkerd.io/proxy-image", name), ("config.linkerd.io/proxy-version", tag)] {
                if let Some(value) = value {
                    annotations[key] = json!(value);
                }
            }
            let pod = json!({"metadata": {"annotations": annotations}, "spec": {"containers": [{"name": "web"}]}});
            let options = Options::default();
            let image = Image::of_proxy(&PodFacts::read(&pod).unwrap(), &options);
            assert_eq!((&*image.reference, image.own, &*image.version(&options)), (reference, own, version));
        }
    }
}
