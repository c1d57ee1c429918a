//! How the controller is started: its flags, or `CONTROLLER_...`.

use std::collections::BTreeMap;

use crate::flags::Flags;

/// What of it this stand-in knows.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// `--ingress-class`.
    pub(super) class: String,
    /// `--publish-service`.
    pub(super) publish: Option<(String, String)>,
    /// `--update-status`.
    pub(super) update_status: bool,
    /// `--kong-admin-url`.
    pub(super) admin: String,
    /// `--feature-gates`: whether what the gateway refuses is left out.
    pub(super) fallback: bool,
}

impl Settings {
    /// Reads flags and environment; a flag wins over its variable.
    pub(super) fn read(flags: &Flags, environment: &BTreeMap<String, String>) -> Self {
        let get = |flag: &str| {
            let variable = format!("CONTROLLER_{}", flag.to_uppercase().replace('-', "_"));
            flags.get(flag).or_else(|| environment.get(&variable).map(String::as_str))
        };
        let mut gates = get("feature-gates").unwrap_or_default().split(',').map(str::trim);
        Self {
            class: get("ingress-class").unwrap_or("kong").to_owned(),
            publish: get("publish-service")
                .and_then(|name| name.split_once('/'))
                .map(|(namespace, name)| (namespace.to_owned(), name.to_owned())),
            update_status: get("update-status") != Some("false"),
            admin: get("kong-admin-url").unwrap_or("http://localhost:8001").to_owned(),
            fallback: gates.any(|gate| gate == "FallbackConfiguration=true"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_its_variable() {
        let environment = [
            ("CONTROLLER_PUBLISH_SERVICE", "kong/proxy"),
            ("CONTROLLER_INGRESS_CLASS", "other"),
            ("CONTROLLER_KONG_ADMIN_URL", "http://127.0.0.1:8001"),
            ("CONTROLLER_FEATURE_GATES", "GatewayAlpha=false, FallbackConfiguration=true"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let settings = Settings::read(&Flags::new(["--ingress-class=mine".to_owned()]), &environment);
        assert_eq!((settings.class.as_str(), settings.admin.as_str()), ("mine", "http://127.0.0.1:8001"));
        assert_eq!(settings.publish, Some(("kong".to_owned(), "proxy".to_owned())));
        assert!(settings.fallback && !Settings::read(&Flags::default(), &BTreeMap::new()).fallback);
    }
}
