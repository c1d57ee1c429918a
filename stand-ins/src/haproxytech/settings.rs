//! The controller's flags, and where annotations are looked for.

use kube::api::DynamicObject;

use crate::flags::Flags;

/// What the flags say.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// `--ingress.class`.
    pub(crate) class: String,
    /// `--empty-ingress-class`: Ingresses without a class are taken, too.
    pub(crate) empty_class: bool,
    /// `--configmap`.
    pub(crate) config_map: Option<(String, String)>,
    /// `--publish-service`.
    pub(crate) publish: Option<(String, String)>,
    /// `--default-ssl-certificate`.
    pub(crate) certificate: Option<(String, String)>,
    /// `--http-bind-port`.
    pub(crate) http_port: u16,
    /// `--https-bind-port`.
    pub(crate) https_port: u16,
}

impl Settings {
    pub(crate) fn read(flags: &Flags) -> Self {
        let object = |flag| flags.object(flag).map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
        Self {
            class: flags.or("ingress.class", "").to_owned(),
            empty_class: flags.get("empty-ingress-class") == Some("true"),
            config_map: object("configmap"),
            publish: object("publish-service"),
            certificate: object("default-ssl-certificate"),
            http_port: flags.number("http-bind-port", 8080),
            https_port: flags.number("https-bind-port", 8443),
        }
    }
}

/// Objects whose annotations are asked one after the other; the first that has one decides. The ConfigMap's entries are its data, without a
/// prefix.
#[derive(Clone, Copy)]
pub(crate) struct Annotations<'a> {
    pub(crate) objects: &'a [&'a DynamicObject],
    pub(crate) config_map: Option<&'a DynamicObject>,
}

/// What annotations begin with.
const PREFIXES: [&str; 3] = ["haproxy.org/", "haproxy.com/", "ingress.kubernetes.io/"];

impl<'a> Annotations<'a> {
    pub(crate) fn get(self, name: &str) -> Option<&'a str> {
        let annotation = |object: &'a DynamicObject| {
            let annotations = object.metadata.annotations.as_ref()?;
            PREFIXES.iter().find_map(|prefix| annotations.get(&format!("{prefix}{name}")).map(String::as_str))
        };
        let entry = || self.config_map?.data["data"][name].as_str();
        self.objects.iter().find_map(|object| annotation(object)).or_else(entry)
    }

    /// `true` or `false`, or `default` where there is none of the two.
    pub(crate) fn flag(self, name: &str, default: bool) -> bool {
        self.get(name).and_then(|value| value.to_lowercase().parse().ok()).unwrap_or(default)
    }

    pub(crate) fn number<T: std::str::FromStr>(self, name: &str, default: T) -> T {
        self.get(name).and_then(|value| value.parse().ok()).unwrap_or(default)
    }
}
