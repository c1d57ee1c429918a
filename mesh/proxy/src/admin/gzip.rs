//! Answers in gzip, for clients that take it: a busy proxy's metrics are three megabytes, and say much the same in each line.

use std::io::Write;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{
    HeaderMap, HeaderValue, Response,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY},
};

/// A response with this body, compressed if the client's headers allow it.
pub(super) fn compressed(client: &HeaderMap, mut response: Response<Bytes>, body: String) -> Response<Bytes> {
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
    // Nothing can fail that writes into memory; if it did, the text would still be right.
    *response.body_mut() = match is_accepted(client).then(|| gzip(&body)) {
        Some(Ok(compressed)) => {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            compressed.into()
        }
        Some(Err(_)) | None => body.into(),
    };
    response
}

/// As little effort as there is: the processor is the application's.
fn gzip(text: &str) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()
}

/// Whether `Accept-Encoding` names gzip, by itself or as one of all, and does not weigh it with nothing (RFC 9110, section 12.5.3).
fn is_accepted(client: &HeaderMap) -> bool {
    let codings = client.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let weighed: Vec<_> = codings
        .flat_map(|value| value.split(','))
        .map(|coding| {
            let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
            let weight = parameters.trim().strip_prefix("q=").and_then(|weight| weight.trim().parse::<f32>().ok());
            (name.trim(), weight.unwrap_or(1.0) > 0.0)
        })
        .collect();
    let of = |wanted: &[&str]| {
        weighed
            .iter()
            .find(|(name, _)| wanted.iter().any(|wanted| name.eq_ignore_ascii_case(wanted)))
            .map(|(_, is)| *is)
    };
    of(&["gzip", "x-gzip"]).or_else(|| of(&["*"])).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_gzip_says_so() {
        let asked = |value| is_accepted(&HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(value))]));
        for taken in ["gzip", "GZIP", "x-gzip", "br, gzip;q=0.5", "deflate,gzip", "*", "identity;q=0, *;q=0.1"] {
            assert!(asked(taken), "{taken}");
        }
        for refused in ["", "br", "gzip;q=0", "gzip; q=0.0, *", "*;q=0", "identity", "gzipped"] {
            assert!(!asked(refused), "{refused}");
        }
        assert!(!is_accepted(&HeaderMap::new()));
    }
}
