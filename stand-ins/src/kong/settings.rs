//! How the two programs are started: the controller's flags and `CONTROLLER_...`, the gateway's `KONG_...`.

use std::collections::BTreeMap;

use crate::flags::Flags;

/// What of it this stand-in knows.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// `--ingress-class`.
    pub(crate) class: String,
    /// `--publish-service`.
    pub(crate) publish: Option<(String, String)>,
    /// `--update-status`.
    pub(crate) update_status: bool,
    /// `KONG_PROXY_LISTEN`.
    pub(crate) listeners: Vec<Listener>,
    /// `KONG_PORT_MAPS`: the port that clients see, by the one that is listened on.
    pub(crate) ports: Vec<(u16, u16)>,
    /// `KONG_PROXY_ACCESS_LOG`.
    pub(crate) access_log: String,
    /// `KONG_NGINX_HTTP_...`: directives.
    pub(crate) http: BTreeMap<String, String>,
}

/// One of the addresses that Kong listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) address: String,
    pub(crate) ssl: bool,
    pub(crate) http2: bool,
    /// What only one `server` may say of an address: `reuseport`, `backlog=16384`.
    pub(crate) socket: Vec<String>,
}

/// Kong's own directives of the `http` block, as `kong.conf.default` has them.
const HTTP: &[(&str, &str)] = &[
    ("client_body_buffer_size", "8k"),
    ("client_max_body_size", "0"),
    ("keepalive_requests", "10000"),
    ("ssl_protocols", "TLSv1.2 TLSv1.3"),
];

impl Settings {
    /// Reads flags and environment; a flag wins over its variable.
    pub(crate) fn read(flags: &Flags, environment: &BTreeMap<String, String>) -> Self {
        let controller = |flag: &str| {
            let variable = format!("CONTROLLER_{}", flag.to_uppercase().replace('-', "_"));
            flags.get(flag).or_else(|| environment.get(&variable).map(String::as_str))
        };
        let kong = |key: &str, default: &str| {
            environment.get(&format!("KONG_{key}")).cloned().unwrap_or_else(|| default.to_owned())
        };
        let listen = kong(
            "PROXY_LISTEN",
            "0.0.0.0:8000 reuseport backlog=16384, 0.0.0.0:8443 http2 ssl reuseport backlog=16384",
        );
        let mut http: BTreeMap<String, String> =
            HTTP.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        for (variable, value) in environment {
            if let Some(directive) = variable.strip_prefix("KONG_NGINX_HTTP_") {
                http.insert(directive.to_lowercase(), value.clone());
            }
        }
        let port_map = |pair: &str| {
            let (seen, listened) = pair.trim().split_once(':')?;
            Some((listened.parse().ok()?, seen.parse().ok()?))
        };
        Self {
            class: controller("ingress-class").unwrap_or("kong").to_owned(),
            publish: controller("publish-service")
                .and_then(|name| name.split_once('/'))
                .map(|(namespace, name)| (namespace.to_owned(), name.to_owned())),
            update_status: controller("update-status") != Some("false"),
            listeners: listen.split(',').filter_map(Listener::read).collect(),
            ports: kong("PORT_MAPS", "").split(',').filter_map(port_map).collect(),
            access_log: kong("PROXY_ACCESS_LOG", "/dev/stdout"),
            http,
        }
    }
}

impl Listener {
    fn read(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let address = words.next().filter(|address| *address != "off")?.to_owned();
        let mut listener = Self { address, ssl: false, http2: false, socket: Vec::new() };
        for word in words {
            match word {
                "ssl" => listener.ssl = true,
                "http2" => listener.http2 = true,
                other => listener.socket.push(other.to_owned()),
            }
        }
        Some(listener)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_and_directives_come_from_the_environment() {
        let environment = [
            ("KONG_PROXY_LISTEN", "0.0.0.0:8000 http2, 0.0.0.0:8443 ssl backlog=5"),
            ("KONG_PORT_MAPS", "80:8000, 443:8443"),
            ("KONG_NGINX_HTTP_CLIENT_MAX_BODY_SIZE", "1m"),
            ("CONTROLLER_PUBLISH_SERVICE", "kong/proxy"),
            ("CONTROLLER_INGRESS_CLASS", "other"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let settings = Settings::read(&Flags::new(["--ingress-class=mine".to_owned()]), &environment);
        assert_eq!(settings.class, "mine");
        assert_eq!(settings.publish, Some(("kong".to_owned(), "proxy".to_owned())));
        let [plain, secure] = settings.listeners.as_slice() else { panic!("{:?}", settings.listeners) };
        assert_eq!((plain.address.as_str(), plain.http2, plain.ssl), ("0.0.0.0:8000", true, false));
        assert_eq!((secure.ssl, secure.http2, secure.socket.as_slice()), (true, false, &["backlog=5".to_owned()][..]));
        assert_eq!(settings.ports, [(8000, 80), (8443, 443)]);
        assert_eq!(settings.http["client_max_body_size"], "1m");
    }
}
