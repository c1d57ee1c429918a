//! Ingress mode: which target a request has. A pure function of the request's head.
//!
//! | | `modern` | `documented` |
//! |---|---|---|
//! | `l5d-dst-override` | if present and an authority | if present and an authority |
//! | `:authority` | never | next |
//! | `Host` | never | next |
//! | the address that the application dialled | else | else |
//!
//! `modern` is today's Linkerd, `documented` is what the page about ingress controllers says, which was true of
//! Linkerd 2.8. Between the two lie eras with defects of their own, by Linkerd's sources and change logs:
//!
//! | era | follows | but |
//! |---|---|---|
//! | `2.8` | `documented` | what is not HTTP is forwarded, and nobody is asked about it |
//! | `2.9` | `modern` | what is not HTTP is forwarded, and nobody is asked about it |
//! | `2.10.0` | `2.9` | the first override of a connection holds for all of its later ones (linkerd2#5975) |
//! | `2.11` | `modern` | without an override requests are forwarded, and nobody is asked about them; what is not HTTP is refused (linkerd2#6650) |
//! | `2.13.0` | `modern` | what has no policy fails, such as a pod's address that is dialled without an override (linkerd2#10908) |
//!
//! How values are read was measured on Linkerd's proxy: a missing, non-numeric or too large port is 80, user information is
//! ignored, of several lines the first counts, and a value that is no authority at all counts as absent.
//! Three answers differ from Linkerd's, which closes the connection without one: an override that is an address
//! (`10.9.0.13:8080`, `[::1]:80`) or has no host (`:80`), one with a host that no DNS name can be (`a,b`), and one outside
//! the cluster. A client of this proxy reads the reason instead.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use http::{HeaderMap, HeaderName, Uri, header::HOST, uri::Authority};

use crate::NameAddr;

/// The header that names a request's target. It never reaches the application.
pub const OVERRIDE: HeaderName = HeaderName::from_static("l5d-dst-override");

const DEFAULT_PORT: u16 = 80;

/// Which rule to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Linkerd 2.8's.
    V2_8,
    /// Linkerd 2.9's.
    V2_9,
    /// Linkerd 2.10.0's.
    V2_10_0,
    /// Linkerd 2.11's.
    V2_11,
    /// Linkerd 2.13.0's.
    V2_13_0,
    /// Today's: the override, or the original destination.
    #[default]
    Modern,
    /// The documentation page's: the override, then `:authority`, then `Host`, then the original destination.
    Documented,
}

/// What is done with the address that an application dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialled {
    /// The control plane is asked what it is.
    Discovered,
    /// Bytes are passed on to it.
    Forwarded,
    /// Connections to it are closed.
    Refused,
}

impl Dialect {
    /// All of them, by the names that they are configured with.
    pub const ALL: [(&'static str, Self); 7] = [
        ("2.8", Self::V2_8),
        ("2.9", Self::V2_9),
        ("2.10.0", Self::V2_10_0),
        ("2.11", Self::V2_11),
        ("2.13.0", Self::V2_13_0),
        ("documented", Self::Documented),
        ("modern", Self::Modern),
    ];

    /// By its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, dialect)| dialect)
    }

    /// Where requests go that choose nothing.
    pub(crate) fn requests(self) -> Dialled {
        if self == Self::V2_11 { Dialled::Forwarded } else { Dialled::Discovered }
    }

    /// Where connections go that are not HTTP.
    pub(crate) fn connections(self) -> Dialled {
        match self {
            Self::V2_8 | Self::V2_9 | Self::V2_10_0 => Dialled::Forwarded,
            Self::V2_11 => Dialled::Refused,
            Self::V2_13_0 | Self::Documented | Self::Modern => Dialled::Discovered,
        }
    }

    /// Whether the first override of a connection holds for all of its later ones.
    pub(crate) fn keeps_first(self) -> bool {
        self == Self::V2_10_0
    }

    /// Whether requests fail where the control plane has no policy.
    pub(crate) fn needs_policy(self) -> bool {
        self == Self::V2_13_0
    }

    /// Whether `:authority` and `Host` choose as well.
    fn asks_host(self) -> bool {
        matches!(self, Self::V2_8 | Self::Documented)
    }
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// A Service of the cluster.
    Service(NameAddr),
    /// Wherever DNS says that this name is.
    Elsewhere(NameAddr),
    /// This address.
    Address(SocketAddr),
    /// Where the connection was going.
    Original,
    /// Nowhere.
    Invalid(Invalid),
}

/// Why a request goes nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The host of the override is an address, is empty, or contains what no name may contain.
    #[error("l5d-dst-override is not a valid host:port: expected the DNS name of a Service, found `{0}`")]
    NotAName(String),
    /// The override names something that is not the cluster's.
    #[error("l5d-dst-override names `{name}`, which is not in {suffixes}")]
    OutsideTheCluster {
        /// The name.
        name: NameAddr,
        /// The names that it should lie in.
        suffixes: String,
    },
}

/// The target of a request with this head, in a cluster whose Services' names end in one of `suffixes`.
pub fn choose(dialect: Dialect, uri: &Uri, headers: &HeaderMap, suffixes: &[String]) -> Choice {
    let header = |name| headers.get(name).and_then(|value| Authority::try_from(value.as_bytes()).ok());
    let cluster = |name: &NameAddr| suffixes.iter().any(|suffix| name.is_within(suffix));

    let value = header(OVERRIDE);
    match (dialect.asks_host(), value) {
        (false, Some(value)) => match name(&value) {
            Some(name) if cluster(&name) => Choice::Service(name),
            Some(name) => {
                Choice::Invalid(Invalid::OutsideTheCluster { name, suffixes: Suffixes(suffixes).to_string() })
            }
            None => Choice::Invalid(Invalid::NotAName(value.to_string())),
        },
        (false, None) => Choice::Original,
        (true, value) => {
            let Some(authority) = value.or_else(|| uri.authority().cloned()).or_else(|| header(HOST)) else {
                return Choice::Original;
            };
            match (name(&authority), ip(&authority)) {
                (Some(name), _) if cluster(&name) => Choice::Service(name),
                (Some(name), _) => Choice::Elsewhere(name),
                (None, Some(ip)) => Choice::Address(SocketAddr::new(ip, port(&authority))),
                (None, None) => Choice::Invalid(Invalid::NotAName(authority.to_string())),
            }
        }
    }
}

/// The name and port of an authority, if its host is a DNS name.
pub(crate) fn name(authority: &Authority) -> Option<NameAddr> {
    NameAddr::new(authority.host(), port(authority))
}

fn port(authority: &Authority) -> u16 {
    authority.port_u16().unwrap_or(DEFAULT_PORT)
}

fn ip(authority: &Authority) -> Option<IpAddr> {
    authority.host().trim_start_matches('[').trim_end_matches(']').parse().ok()
}

struct Suffixes<'a>(&'a [String]);

impl fmt::Display for Suffixes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted: Vec<_> = self.0.iter().map(|suffix| format!("`{suffix}`")).collect();
        f.write_str(&quoted.join(" or "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decide(dialect: Dialect, uri: &str, lines: &[(&str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        match choose(dialect, &uri.parse().unwrap(), &headers, &["svc.cluster.local".to_owned()]) {
            Choice::Service(name) => format!("service {name}"),
            Choice::Elsewhere(name) => format!("dns {name}"),
            Choice::Address(address) => format!("address {address}"),
            Choice::Original => "original".to_owned(),
            Choice::Invalid(Invalid::NotAName(_)) => "not a name".to_owned(),
            Choice::Invalid(Invalid::OutsideTheCluster { .. }) => "outside".to_owned(),
        }
    }

    const WEB: &str = "web.default.svc.cluster.local";

    #[test]
    fn modern_follows_the_override_only() {
        let web = |port: &str| format!("service {WEB}:{port}");
        let table = [
            (WEB.to_owned(), web("80")),
            (format!("{WEB}:80"), web("80")),
            (format!("{WEB}:8080"), web("8080")),
            (format!("{WEB}:0"), web("0")),
            (format!("{}.:80", WEB.to_uppercase()), web("80")),
            (format!("{WEB}:99999"), web("80")),
            (format!("{WEB}:http"), web("80")),
            (format!("user@{WEB}"), web("80")),
            ("not a name".to_owned(), "original".to_owned()),
            (format!("http://{WEB}"), "original".to_owned()),
            (String::new(), "original".to_owned()),
            (format!("{WEB}:80,{WEB}:80"), "original".to_owned()),
            ("a,b".to_owned(), "not a name".to_owned()),
            ("10.9.0.13:8080".to_owned(), "not a name".to_owned()),
            ("10.9.0.13".to_owned(), "not a name".to_owned()),
            ("[::1]:80".to_owned(), "not a name".to_owned()),
            (":80".to_owned(), "not a name".to_owned()),
            ("example.com".to_owned(), "outside".to_owned()),
            ("web".to_owned(), "outside".to_owned()),
            ("web.default.svc".to_owned(), "outside".to_owned()),
        ];
        for (value, expected) in table {
            let got = decide(
                Dialect::Modern,
                "/",
                &[("host", "alt.default.svc.cluster.local"), ("l5d-dst-override", &value)],
            );
            assert_eq!(got, expected, "{value:?}");
        }
    }

    proptest! {
        /// No value whatever leads out of the cluster.
        #[test]
        fn no_override_is_an_open_relay(value in prop_oneof!["[ -~]{0,40}", "[a-z0-9.:@\\[\\]-]{0,40}(\\.svc\\.cluster\\.local)?"]) {
            let choice = decide(Dialect::Modern, "/", &[("l5d-dst-override", value.trim())]);
            prop_assert!(["service", "original", "not a", "outside"].iter().any(|start| choice.starts_with(start)));
            if let Some(service) = choice.strip_prefix("service ") {
                prop_assert!(service.rsplit_once(':').is_some_and(|(name, _)| name.ends_with("svc.cluster.local")));
            }
        }
    }

    #[test]
    fn modern_never_looks_at_the_host() {
        assert_eq!(decide(Dialect::Modern, "/", &[("host", WEB)]), "original");
        assert_eq!(decide(Dialect::Modern, &format!("http://{WEB}/"), &[]), "original");
    }

    #[test]
    fn of_two_lines_the_first_counts() {
        let lines = [("l5d-dst-override", "evil.default.svc.cluster.local"), ("l5d-dst-override", WEB)];
        for (_, dialect) in Dialect::ALL {
            assert_eq!(decide(dialect, "/", &lines), "service evil.default.svc.cluster.local:80");
        }
    }

    #[test]
    fn eras_have_their_rules_and_their_defects() {
        use Dialled::{Discovered, Forwarded, Refused};
        let over = ("l5d-dst-override", WEB);
        let host = ("host", "host.default.svc.cluster.local");
        let (web, hosts) = ("service web.default.svc.cluster.local:80", "service host.default.svc.cluster.local:80");
        // With both, with a host only; requests and connections that choose nothing; first override kept; policy needed.
        let table = [
            ("2.8", web, hosts, Discovered, Forwarded, false, false),
            ("2.9", web, "original", Discovered, Forwarded, false, false),
            ("2.10.0", web, "original", Discovered, Forwarded, true, false),
            ("2.11", web, "original", Forwarded, Refused, false, false),
            ("2.13.0", web, "original", Discovered, Discovered, false, true),
            ("documented", web, hosts, Discovered, Discovered, false, false),
            ("modern", web, "original", Discovered, Discovered, false, false),
        ];
        assert_eq!(table.map(|row| row.0), Dialect::ALL.map(|(name, _)| name));
        for (name, both, host_only, requests, connections, keeps_first, needs_policy) in table {
            let dialect = Dialect::parse(name).unwrap();
            assert_eq!(decide(dialect, "/", &[over, host]), both, "{name}");
            assert_eq!(decide(dialect, "/", &[host]), host_only, "{name}");
            assert_eq!((dialect.requests(), dialect.connections()), (requests, connections), "{name}");
            assert_eq!((dialect.keeps_first(), dialect.needs_policy()), (keeps_first, needs_policy), "{name}");
        }
        assert_eq!(Dialect::parse("2.12"), None);
    }

    #[test]
    fn documented_asks_the_override_then_the_authority_then_the_host() {
        let over = ("l5d-dst-override", WEB);
        let host = ("host", "host.default.svc.cluster.local:8080");
        let authority = "http://authority.default.svc.cluster.local/";
        type Lines = [(&'static str, &'static str)];
        let table: [(&str, &Lines, &str); 9] = [
            (authority, &[over, host], "service web.default.svc.cluster.local:80"),
            (authority, &[host], "service authority.default.svc.cluster.local:80"),
            ("/", &[host], "service host.default.svc.cluster.local:8080"),
            ("/", &[], "original"),
            ("/", &[("host", "example.com")], "dns example.com:80"),
            ("/", &[("host", "web.default:8080")], "dns web.default:8080"),
            ("/", &[("host", "10.9.0.13:8080")], "address 10.9.0.13:8080"),
            ("/", &[("host", "[::1]")], "address [::1]:80"),
            ("/", &[("host", "not a host")], "original"),
        ];
        for (uri, lines, expected) in table {
            assert_eq!(decide(Dialect::Documented, uri, lines), expected, "{uri} {lines:?}");
        }
    }
}
