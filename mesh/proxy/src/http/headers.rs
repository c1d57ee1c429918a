//! Headers that are for one connection only, and those that must not mean two things.

use http::{
    HeaderMap, HeaderName, HeaderValue, Request,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE},
};

use super::ProxyError;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Refuses what hyper lets pass, although another reader of the same head may understand it differently, and then another request
/// or another host than this proxy: several `Host` lines (RFC 9112, section 3.2), several lengths, which hyper makes one of for
/// HTTP/1 and leaves in HTTP/2, though they be equal, and transfer codings other than one `chunked`. A coding below `chunked` is
/// nothing that anybody sends, and to pass it on is to hope that the application reads lists as hyper does.
pub(crate) fn check_head<B>(request: &Request<B>) -> Result<(), ProxyError> {
    let headers = request.headers();
    if headers.len() == headers.keys_len() && !headers.contains_key(TRANSFER_ENCODING) {
        return Ok(());
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if codings.next().is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
        || codings.next().is_some()
    {
        return Err(ProxyError::Malformed("expected no Transfer-Encoding but chunked, once"));
    }
    let several = |name| headers.get_all(name).iter().nth(1).is_some();
    if several(CONTENT_LENGTH) {
        return Err(ProxyError::Malformed("expected one Content-Length, found several"));
    }
    if several(HOST) {
        return Err(ProxyError::Malformed("expected one Host, found several"));
    }
    Ok(())
}

/// Removes what `Connection` names, `Connection` itself and its relatives. `Transfer-Encoding` stays: hyper frames the
/// message anew on the other side and needs to know how. A length beside it does not count and goes (RFC 9112, section 6.3). What
/// says which message it is stays though it be named: it is never for one connection only. With `upgrading`, `Upgrade` stays and is
/// the only thing that `Connection` names.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap, upgrading: bool) {
    const CONCERNED: [HeaderName; 5] = [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE];
    if !upgrading && !has_any(headers, &CONCERNED) {
        return;
    }
    while let Some(value) = headers.remove(CONNECTION) {
        for name in tokens(&value) {
            if let Ok(name) = HeaderName::from_bytes(name)
                && ![UPGRADE, TRANSFER_ENCODING, TE, HOST, CONTENT_LENGTH].contains(&name)
            {
                headers.remove(name);
            }
        }
    }
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    if upgrading {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else {
        headers.remove(UPGRADE);
    }
}

/// Removes these.
pub(crate) fn remove_each(headers: &mut HeaderMap, names: &[HeaderName]) {
    if has_any(headers, names) {
        for name in names {
            headers.remove(name);
        }
    }
}

/// Most messages have few headers and none of these, which a look at each tells sooner than a look-up of each.
fn has_any(headers: &HeaderMap, names: &[HeaderName]) -> bool {
    headers.keys().any(|name| names.contains(name))
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
    fn a_head_has_one_meaning() {
        for (lines, expected) in [
            (&[][..], true),
            (&[("host", "a")], true),
            (&[("transfer-encoding", "Chunked")], true),
            (&[("host", "a"), ("host", "a")], false),
            (&[("content-length", "3"), ("content-length", "3")], false),
            (&[("transfer-encoding", "gzip, chunked")], false),
            (&[("transfer-encoding", "identity"), ("transfer-encoding", "chunked")], false),
            (&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], false),
        ] {
            let mut request = Request::new(());
            *request.headers_mut() = headers(lines);
            assert_eq!(check_head(&request).is_ok(), expected, "{lines:?}");
        }
    }

    #[test]
    fn what_connection_names_goes() {
        let mut got = headers(&[
            ("connection", "close, x-secret, host"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("upgrade", "h2c"),
            ("content-length", "5"),
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
