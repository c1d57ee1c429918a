//! The file of `--config-path`: headers for all routes.

use anyhow::Context;
use serde_json::Value;

use crate::objects::{items, text};

/// What this stand-in reads of `contour.yaml`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// `policy.request-headers.set`: set for every Service, unless its own policy sets the same.
    pub(crate) set: Vec<(String, String)>,
    /// `policy.request-headers.remove`.
    pub(crate) remove: Vec<String>,
    /// Whether Ingresses have them, too.
    pub(crate) apply_to_ingress: bool,
    /// `enableExternalNameService`.
    pub(crate) external_names: bool,
}

impl Settings {
    /// Reads the file, once, as the real one does; nothing without one.
    pub(crate) fn read(path: Option<&str>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let file = std::fs::read_to_string(path).with_context(|| path.to_owned())?;
        Self::parse(&file).with_context(|| path.to_owned())
    }

    pub(crate) fn parse(file: &str) -> anyhow::Result<Self> {
        let file: Value = serde_yaml::from_str(file)?;
        let headers = &file["policy"]["request-headers"];
        let set = headers["set"].as_object().into_iter().flatten();
        Ok(Self {
            set: set.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect(),
            remove: items(headers, "/remove").filter_map(Value::as_str).map(str::to_owned).collect(),
            apply_to_ingress: file["policy"]["applyToIngress"].as_bool().unwrap_or_default(),
            external_names: file["enableExternalNameService"].as_bool().unwrap_or_default(),
        })
    }
}

/// A duration as fields and annotations have it: `""` is the default, `infinity` none at all.
pub(crate) fn duration(value: &str) -> Result<Option<std::time::Duration>, String> {
    match value {
        "" | "0" | "0s" => Ok(None),
        "infinity" | "infinite" => Ok(Some(std::time::Duration::ZERO)),
        value => {
            let parsed: Option<jiff::SignedDuration> = value.parse().ok();
            let parsed = parsed.and_then(|duration| std::time::Duration::try_from(duration).ok());
            parsed.map(Some).ok_or_else(|| format!("unable to parse timeout string {value:?}"))
        }
    }
}

/// The text at a pointer, if there is some.
pub(crate) fn given<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    Some(text(value, pointer)).filter(|text| !text.is_empty())
}
