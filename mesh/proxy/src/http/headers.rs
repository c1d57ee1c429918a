//! Headers that are for one connection only.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, TE, TRANSFER_ENCODING, UPGRADE},
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes what `Connection` names, `Connection` itself and its relatives. `Transfer-Encoding` stays: hyper frames the
/// message anew on the other side and needs to know how. With `upgrading`, `Upgrade` stays and is the only thing that
/// `Connection` names.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap, upgrading: bool) {
    while let Some(value) = headers.remove(CONNECTION) {
        for name in tokens(&value) {
            if let Ok(name) = HeaderName::from_bytes(name)
                && ![UPGRADE, TRANSFER_ENCODING, TE].contains(&name)
            {
                headers.remove(name);
            }
        }
    }
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    if upgrading {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else {
        headers.remove(UPGRADE);
    }
}

/// Whether `Connection` names `token`.
pub(super) fn connection_names(headers: &HeaderMap, token: &[u8]) -> bool {
    headers.get_all(CONNECTION).iter().any(|value| tokens(value).any(|name| name.eq_ignore_ascii_case(token)))
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_connection_names_goes() {
        let mut got = headers(&[
            ("connection", "close, x-secret"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "chunked"),
            ("host", "a"),
        ]);
        strip_hop_by_hop(&mut got, false);
        assert_eq!(got, headers(&[("transfer-encoding", "chunked"), ("host", "a")]));
    }

    #[test]
    fn an_upgrade_stays() {
        let mut got = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        assert!(connection_names(&got, b"upgrade"));
        strip_hop_by_hop(&mut got, true);
        assert_eq!(got, headers(&[("connection", "upgrade"), ("upgrade", "websocket")]));
    }
}
