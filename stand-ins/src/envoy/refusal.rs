//! What Envoy refuses a whole configuration for.

use std::collections::BTreeSet;

use super::model::{Config, HeaderValue, PathMatch, Route, Tls};

/// Why Envoy would refuse a configuration, for control planes that hand it on unseen: a regular expression that RE2 does not take, of
/// whatever route. The syntax of the crate `regex` is nearly RE2's.
pub(crate) fn refusal(config: &Config) -> Option<String> {
    let behind_tls = config.tls.values().filter_map(|tls| match tls {
        Tls::Terminated { host, .. } => Some(host),
        Tls::Passthrough(_) => None,
    });
    let routes = config.hosts.values().chain(behind_tls).flat_map(|host| &host.routes);
    // Each once: every host may have the same ones.
    let all: BTreeSet<&str> = routes.flat_map(expressions).collect();
    all.into_iter().find_map(|expression| {
        let error = regex::Regex::new(expression).err()?.to_string();
        // The lines before the last are a picture of where it is.
        let why = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        Some(format!("{expression:?} is no regular expression: {why}"))
    })
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

    use super::super::model::{Action, HeaderMatch, HeaderOps, VirtualHost};
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
        VirtualHost { routes: vec![route] }
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
}
