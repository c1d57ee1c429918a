//! The variables by which the proxy was configured, to be shown to whoever asks.

use std::collections::BTreeMap;

use super::Strings;

/// Nothing else of the environment is the proxy's to show.
const PREFIXES: [&str; 2] = ["LINKERD2_PROXY_", "MESHGATE_PROXY_"];

/// Private keys have no place in a variable. One that got there is not passed on.
const SECRET: &str = "PRIVATE KEY-----";

/// Every variable of the proxy that is set.
pub(super) fn read(strings: &impl Strings) -> BTreeMap<String, String> {
    let names = strings.names().into_iter().filter(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix)));
    let shown = |name: String| {
        let value = strings.get(&name)?;
        let value = if value.contains(SECRET) { "(not shown: a private key)".to_owned() } else { value };
        Some((name, value))
    };
    names.filter_map(shown).collect()
}
