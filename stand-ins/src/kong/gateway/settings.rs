//! How the gateway is started: `KONG_...`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context as _, bail};

/// What of it this stand-in knows.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// `KONG_ADMIN_LISTEN`, the first without TLS.
    pub(super) admin: SocketAddr,
    /// `KONG_STATUS_LISTEN`, the first without TLS.
    pub(super) status: SocketAddr,
    /// `KONG_ROUTER_FLAVOR`, which controllers ask for.
    pub(super) router_flavor: String,
    /// `KONG_PROXY_LISTEN`.
    pub(super) listeners: Vec<Listener>,
    /// `KONG_PORT_MAPS`: the port that clients see, by the one that is listened on.
    pub(super) ports: Vec<(u16, u16)>,
    /// `KONG_PROXY_ACCESS_LOG`.
    pub(super) access_log: String,
    /// `KONG_NGINX_HTTP_...`: directives.
    pub(super) http: BTreeMap<String, String>,
}

/// One of the addresses that Kong listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listener {
    pub(super) address: String,
    pub(super) ssl: bool,
    pub(super) http2: bool,
    /// What only one `server` may say of an address: `reuseport`, `backlog=16384`.
    pub(super) socket: Vec<String>,
}

/// Kong's own directives of the `http` block, as `kong.conf.default` has them.
const HTTP: &[(&str, &str)] = &[
    ("client_body_buffer_size", "8k"),
    ("client_max_body_size", "0"),
    ("keepalive_requests", "10000"),
    ("ssl_protocols", "TLSv1.2 TLSv1.3"),
];

impl Settings {
    /// # Errors
    /// What this gateway cannot be: one with a database, of expressions, or without an address for its Admin API or its status.
    pub(super) fn read(environment: &BTreeMap<String, String>) -> anyhow::Result<Self> {
        let kong = |key: &str, default: &str| {
            environment.get(&format!("KONG_{key}")).cloned().unwrap_or_else(|| default.to_owned())
        };
        let database = kong("DATABASE", "postgres");
        if database != "off" {
            bail!("KONG_DATABASE={database}: expected off; this gateway has no database");
        }
        let router_flavor = kong("ROUTER_FLAVOR", "traditional_compatible");
        if !router_flavor.starts_with("traditional") {
            bail!(
                "KONG_ROUTER_FLAVOR={router_flavor}: expected traditional or traditional_compatible; expressions are not played"
            );
        }
        let address = |key: &str, default: &str| {
            let listen = kong(key, default);
            let plain = listeners(&listen).into_iter().find(|listener| !listener.ssl);
            let plain = plain.and_then(|listener| listener.address.parse().ok());
            plain.with_context(|| format!("KONG_{key}={listen}: expected an IP address with a port, without TLS"))
        };
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
        let listen = kong(
            "PROXY_LISTEN",
            "0.0.0.0:8000 reuseport backlog=16384, 0.0.0.0:8443 http2 ssl reuseport backlog=16384",
        );
        Ok(Self {
            admin: address("ADMIN_LISTEN", "127.0.0.1:8001 reuseport backlog=16384")?,
            status: address("STATUS_LISTEN", "127.0.0.1:8007 reuseport backlog=16384")?,
            router_flavor,
            listeners: listeners(&listen),
            ports: kong("PORT_MAPS", "").split(',').filter_map(port_map).collect(),
            access_log: kong("PROXY_ACCESS_LOG", "/dev/stdout"),
            http,
        })
    }
}

fn listeners(listen: &str) -> Vec<Listener> {
    listen.split(',').filter_map(Listener::read).collect()
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

    fn read(environment: &[(&str, &str)]) -> anyhow::Result<Settings> {
        let variables = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::read(&variables.collect())
    }

    #[test]
    fn listeners_and_directives_come_from_the_environment() {
        let settings = read(&[
            ("KONG_DATABASE", "off"),
            ("KONG_ADMIN_LISTEN", "127.0.0.1:8444 http2 ssl, 127.0.0.1:9001 reuseport"),
            ("KONG_PROXY_LISTEN", "0.0.0.0:8000 http2, 0.0.0.0:8443 ssl backlog=5"),
            ("KONG_PORT_MAPS", "80:8000, 443:8443"),
            ("KONG_NGINX_HTTP_CLIENT_MAX_BODY_SIZE", "1m"),
        ])
        .unwrap();
        assert_eq!([settings.admin.port(), settings.status.port()], [9001, 8007]);
        let [plain, secure] = settings.listeners.as_slice() else { panic!("{:?}", settings.listeners) };
        assert_eq!((plain.address.as_str(), plain.http2, plain.ssl), ("0.0.0.0:8000", true, false));
        assert_eq!((secure.ssl, secure.http2, secure.socket.as_slice()), (true, false, &["backlog=5".to_owned()][..]));
        assert_eq!(settings.ports, [(8000, 80), (8443, 443)]);
        assert_eq!(settings.http["client_max_body_size"], "1m");
    }

    #[test]
    fn what_the_gateway_cannot_be_it_says() {
        let off = ("KONG_DATABASE", "off");
        for (environment, said) in [
            (vec![], "KONG_DATABASE=postgres: expected off"),
            (vec![off, ("KONG_ROUTER_FLAVOR", "expressions")], "KONG_ROUTER_FLAVOR=expressions: expected traditional"),
            (vec![off, ("KONG_ADMIN_LISTEN", "off")], "KONG_ADMIN_LISTEN=off: expected an IP address"),
            (vec![off, ("KONG_STATUS_LISTEN", "0.0.0.0:8100 ssl")], "KONG_STATUS_LISTEN=0.0.0.0:8100 ssl: expected"),
        ] {
            let error = read(&environment).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
        }
    }
}
