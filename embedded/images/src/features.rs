//! What not every version of a data plane can do, found out by asking it for its version.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Tool;

/// What not every version of a data plane can do, by its name in `tools.yaml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// HTTP/2 with prior knowledge on a port that speaks HTTP/1.1 as well.
    Http2WithoutTls,
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http2WithoutTls => "HTTP/2 without TLS",
        })
    }
}

/// What a data plane cannot do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lack {
    /// What.
    pub feature: Feature,
    /// A sentence on which program that is.
    pub why: String,
}

/// What a tool that is here lacks of what `since` says to have come with which version.
pub(crate) fn lacks(name: &str, tool: &Tool, since: &BTreeMap<Feature, String>) -> Vec<Lack> {
    if since.is_empty() {
        return Vec::new();
    }
    let mut asked = duct::cmd!(&tool.path, "-v").stderr_to_stdout().unchecked();
    for (variable, value) in &tool.env {
        asked = asked.env(variable, value);
    }
    // One that does not run fails where it is needed.
    told(name, &asked.read().unwrap_or_default(), since)
}

/// The same from what it tells of itself: `nginx version: nginx/1.22.1`. What cannot be read is taken for new enough.
fn told(name: &str, told: &str, since: &BTreeMap<Feature, String>) -> Vec<Lack> {
    let version = told.split_once(&format!("{name}/")).and_then(|(_, version)| version.split_whitespace().next());
    let Some((version, found)) = version.and_then(|version| Some((version, numbers(version)?))) else {
        return Vec::new();
    };
    let lacked = since.iter().filter(|(_, since)| numbers(since).is_some_and(|since| found < since));
    lacked
        .map(|(feature, since)| Lack {
            feature: *feature,
            why: format!("{name} {version} has no {feature}, which came with {since}"),
        })
        .collect()
}

fn numbers(version: &str) -> Option<Vec<u32>> {
    version.split('.').map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_version_lacks_what_came_later() {
        let since = BTreeMap::from([(Feature::Http2WithoutTls, "1.25.1".to_owned())]);
        for (said, lacks) in [
            ("nginx version: nginx/1.22.1\n", true),
            ("nginx version: nginx/1.9.3 (Ubuntu)", true),
            ("nginx version: nginx/1.25.1", false),
            ("nginx version: nginx/1.31.3", false),
            ("nginx version: openresty/1.19", false),
            ("", false),
        ] {
            assert_eq!(!told("nginx", said, &since).is_empty(), lacks, "{said}");
        }
        let why = &told("nginx", "nginx version: nginx/1.22.1", &since)[0].why;
        assert_eq!(why, "nginx 1.22.1 has no HTTP/2 without TLS, which came with 1.25.1");
        assert_eq!(told("nginx", "nginx version: nginx/1.22.1", &BTreeMap::new()), []);
    }
}
