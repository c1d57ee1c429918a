//! What Envoy refuses a whole configuration for.

use std::collections::BTreeSet;

use super::model::{Action, Config, HeaderValue, PathMatch, Route, Tls};

/// Commands that may stand in a header's value as `%NAME%` or `%NAME(...)%`, as Envoy 1.40 was seen to take them.
const COMMANDS: &str = "
    ACCESS_LOG_TYPE BYTES_RECEIVED BYTES_SENT CEL CONNECTION_ID CONNECTION_TERMINATION_DETAILS
    DOWNSTREAM_DIRECT_REMOTE_ADDRESS DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_HANDSHAKE_DURATION
    DOWNSTREAM_LOCAL_ADDRESS DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_LOCAL_DNS_SAN DOWNSTREAM_LOCAL_PORT
    DOWNSTREAM_LOCAL_SUBJECT DOWNSTREAM_LOCAL_URI_SAN DOWNSTREAM_PEER_CERT DOWNSTREAM_PEER_CERT_V_END
    DOWNSTREAM_PEER_CERT_V_START DOWNSTREAM_PEER_DNS_SAN DOWNSTREAM_PEER_FINGERPRINT_1
    DOWNSTREAM_PEER_FINGERPRINT_256 DOWNSTREAM_PEER_ISSUER DOWNSTREAM_PEER_SERIAL DOWNSTREAM_PEER_SUBJECT
    DOWNSTREAM_PEER_URI_SAN DOWNSTREAM_REMOTE_ADDRESS DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT
    DOWNSTREAM_REMOTE_PORT DOWNSTREAM_TLS_CIPHER DOWNSTREAM_TLS_SESSION_ID DOWNSTREAM_TLS_VERSION
    DOWNSTREAM_TRANSPORT_FAILURE_REASON DOWNSTREAM_WIRE_BYTES_SENT DURATION DYNAMIC_METADATA EMIT_TIME ENVIRONMENT
    FILTER_STATE GRPC_STATUS GRPC_STATUS_NUMBER HOSTNAME LOCAL_REPLY_BODY METADATA PATH PER_REQUEST_STATE PROTOCOL
    REQ REQUESTED_SERVER_NAME REQUEST_DURATION REQUEST_HEADERS_BYTES REQUEST_TX_DURATION RESP RESPONSE_CODE
    RESPONSE_CODE_DETAILS RESPONSE_DURATION RESPONSE_FLAGS RESPONSE_FLAGS_LONG RESPONSE_HEADERS_BYTES
    RESPONSE_TX_DURATION ROUNDTRIP_DURATION ROUTE_NAME START_TIME STREAM_ID TLS_JA3_FINGERPRINT
    TLS_JA4_FINGERPRINT TRACE_ID TRAILER UNIQUE_ID UPSTREAM_CLUSTER UPSTREAM_CLUSTER_RAW UPSTREAM_CONNECTION_ID
    UPSTREAM_HEADER_BYTES_SENT UPSTREAM_HOST UPSTREAM_LOCAL_ADDRESS UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT
    UPSTREAM_LOCAL_PORT UPSTREAM_METADATA UPSTREAM_PEER_SUBJECT UPSTREAM_PROTOCOL UPSTREAM_REMOTE_ADDRESS
    UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT UPSTREAM_REMOTE_PORT UPSTREAM_REQUEST_ATTEMPT_COUNT UPSTREAM_TLS_CIPHER
    UPSTREAM_TLS_VERSION UPSTREAM_TRANSPORT_FAILURE_REASON UPSTREAM_WIRE_BYTES_RECEIVED UPSTREAM_WIRE_BYTES_SENT
    VIRTUAL_CLUSTER_NAME
";

/// Why Envoy would refuse a configuration, for control planes that hand it on unseen: a regular expression that RE2 does not take, or a
/// header's value with a command that there is none of, of whatever route. The syntax of the crate `regex` is nearly RE2's.
pub(crate) fn refusal(config: &Config) -> Option<String> {
    let behind_tls = config.tls.values().filter_map(|tls| match tls {
        Tls::Terminated { host, .. } => Some(host),
        Tls::Passthrough(_) => None,
    });
    // Each once: every host may have the same ones.
    let (mut all, mut values) = (BTreeSet::new(), BTreeSet::new());
    for route in config.hosts.values().chain(behind_tls).flat_map(|host| &host.routes) {
        all.extend(expressions(route));
        values.extend(header_values(route));
    }
    let expression = all.into_iter().find_map(|expression| {
        let error = regex::Regex::new(expression).err()?.to_string();
        // The lines before the last are a picture of where it is.
        let why = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        Some(format!("{expression:?} is no regular expression: {why}"))
    });
    expression.or_else(|| values.into_iter().find_map(unformatted))
}

/// What the route and its clusters add to headers.
fn header_values(route: &Route) -> impl Iterator<Item = &str> {
    let clusters = match &route.action {
        Action::Forward(forward) => forward.clusters.as_slice(),
        Action::Redirect(_) | Action::Respond(..) => &[],
    };
    let of_clusters = clusters.iter().flat_map(|cluster| [&cluster.request_headers, &cluster.response_headers]);
    let ops = [&route.request_headers, &route.response_headers].into_iter().chain(of_clusters);
    ops.flat_map(|ops| ops.set.values().chain(ops.append.values())).map(String::as_str)
}

/// Why Envoy does not take a header's value, in its words.
fn unformatted(value: &str) -> Option<String> {
    let mut rest = value;
    while let Some((_, after)) = rest.split_once('%') {
        rest = match after.strip_prefix('%') {
            // One that stands for itself.
            Some(behind) => behind,
            None => match command(after) {
                Some((name, behind)) if COMMANDS.split_whitespace().any(|known| known == name) => behind,
                Some((name, _)) => return Some(format!("Not supported field in StreamInfo: {name}")),
                None => {
                    let at = value.len() - after.len() - 1;
                    return Some(format!(
                        "Incorrect configuration: {value}. Couldn't find valid command at position {at}"
                    ));
                }
            },
        };
    }
    None
}

/// The name of the command that a text begins with, behind its first `%`, and what is behind its last: `NAME`, `NAME(...)` or
/// `NAME(...):LENGTH`.
fn command(text: &str) -> Option<(&str, &str)> {
    let is_behind = |letter: char| !(letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_');
    let (name, mut rest) = text.split_at(text.find(is_behind)?);
    if let Some(arguments) = rest.strip_prefix('(') {
        rest = arguments.split_once(')')?.1;
    }
    if let Some(length) = rest.strip_prefix(':') {
        rest = length.trim_start_matches(|letter: char| letter.is_ascii_digit());
    }
    let behind = rest.strip_prefix('%')?;
    (!name.is_empty()).then_some((name, behind))
}

fn expressions(route: &Route) -> impl Iterator<Item = &str> {
    let path = match &route.path {
        PathMatch::Regex(expression) => Some(expression.as_str()),
        _ => None,
    };
    let headers = route.headers.iter().filter_map(|header| match &header.value {
        HeaderValue::Regex(expression) => Some(expression.as_str()),
        _ => None,
    });
    path.into_iter().chain(headers)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::model::{Forward, HeaderMatch, HeaderOps, VirtualHost, Weighted};
    use super::*;

    fn host(path: &str, header: &str) -> VirtualHost {
        let header = HeaderMatch { name: "x".into(), value: HeaderValue::Regex(header.into()), not: false };
        let route = Route {
            path: PathMatch::Regex(path.into()),
            headers: vec![header],
            percent: None,
            action: Action::Respond(200, String::new()),
            request_headers: HeaderOps::default(),
            response_headers: HeaderOps::default(),
        };
        VirtualHost { routes: vec![route], ..VirtualHost::default() }
    }

    #[test]
    fn one_expression_of_any_route_is_enough() {
        let plain = |host| Config { hosts: BTreeMap::from([("a.test".to_owned(), host)]), ..Config::default() };
        let tls = |host| {
            let tls = Tls::Terminated { certificate: String::new(), key: String::new(), host };
            Config { tls: BTreeMap::from([("a.test".to_owned(), tls)]), ..Config::default() }
        };
        for config in [plain(host("(", ".*")), plain(host(".*", "(")), tls(host("(", ".*")), tls(host(".*", "("))] {
            assert_eq!(refusal(&config).unwrap(), r#""(" is no regular expression: unclosed group"#);
        }
        for config in [plain(host("/a.*", "[a-z]+")), tls(host("/a.*", "[a-z]+")), Config::default()] {
            assert_eq!(refusal(&config), None);
        }
    }

    #[test]
    fn a_value_may_have_the_commands_that_there_are() {
        for (value, why) in [
            ("", None),
            ("100%%", None),
            ("%PROTOCOL% of 100%% by %REQ(x-a?x-b)%", None),
            ("%REQ(x-a):5%%START_TIME(%s)%", None),
            ("%NOTHING%", Some("Not supported field in StreamInfo: NOTHING")),
            ("%PROTOCOL%, %CLIENT_IP(a)%", Some("Not supported field in StreamInfo: CLIENT_IP")),
            ("100%", Some("Incorrect configuration: 100%. Couldn't find valid command at position 3")),
            ("a%b", Some("Incorrect configuration: a%b. Couldn't find valid command at position 1")),
            ("%protocol%", Some("Incorrect configuration: %protocol%. Couldn't find valid command at position 0")),
            ("%%%", Some("Incorrect configuration: %%%. Couldn't find valid command at position 2")),
        ] {
            assert_eq!(unformatted(value).as_deref(), why, "{value}");
        }
    }

    #[test]
    fn one_value_of_any_route_or_cluster_is_enough() {
        let bad = || BTreeMap::from([("x".to_owned(), "%NOTHING%".to_owned())]);
        let ops =
            [HeaderOps { set: bad(), ..HeaderOps::default() }, HeaderOps { append: bad(), ..HeaderOps::default() }];
        let refused = |route: &dyn Fn(&mut Route)| {
            let mut host = host(".*", ".*");
            route(&mut host.routes[0]);
            refusal(&Config { hosts: BTreeMap::from([("a.test".to_owned(), host)]), ..Config::default() })
        };
        for ops in ops {
            let to = |cluster: Weighted| {
                Action::Forward(Box::new(Forward { clusters: vec![cluster], ..Forward::default() }))
            };
            let changes: [&dyn Fn(&mut Route); 4] = [
                &|route: &mut Route| route.request_headers = ops.clone(),
                &|route: &mut Route| route.response_headers = ops.clone(),
                &|route: &mut Route| {
                    route.action = to(Weighted { request_headers: ops.clone(), ..Weighted::default() })
                },
                &|route: &mut Route| {
                    route.action = to(Weighted { response_headers: ops.clone(), ..Weighted::default() })
                },
            ];
            for change in changes {
                assert_eq!(refused(change).unwrap(), "Not supported field in StreamInfo: NOTHING");
            }
        }
        assert_eq!(refused(&|_: &mut Route| {}), None, "the control");
    }
}
