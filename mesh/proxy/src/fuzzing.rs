//! What has to hold of the parsers that see a stranger's bytes first, whatever the bytes: one function for each.
//!
//! The targets in `fuzz/` call these without end, the tests below with the targets' seeds and some hundreds of random inputs. Each
//! function panics where its parser breaks a promise.

use std::sync::{Arc, LazyLock};

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, Uri, header::HOST};
use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName, version::TLS13};

use crate::{
    NameAddr,
    detect::{Detected, classify, give_up},
    dialect::{Choice, Dialect, OVERRIDE, choose},
    tls::{self, Hello, Progress},
    transport_header::{self, Malformed, To},
};

/// Protocol detection: the answer does not depend on how the bytes are cut into reads, comes before the limit, and is HTTP for what
/// an HTTP server could serve.
pub fn detection(data: &[u8]) {
    let first = (0..=data.len()).find_map(|length| Some((length, classify(&data[..length])?)));
    let Some((length, detected)) = first else {
        assert!(data.len() < 1024, "after {} bytes there is no answer", data.len());
        let otherwise = give_up(data, Detected::TimedOut);
        assert!(matches!(otherwise, Detected::TimedOut | Detected::Http1));
        return;
    };
    for longer in length..=data.len() {
        assert_eq!(classify(&data[..longer]), Some(detected), "{length} bytes decided, {longer} say otherwise");
    }
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut request = httparse::Request::new(&mut headers);
    if let Ok(httparse::Status::Complete(_)) = request.parse(&data[..data.len().min(1024)])
        && request.method.is_some_and(|method| method.bytes().all(|byte| byte.is_ascii_uppercase()))
        && request.method.is_some_and(|method| method.len() <= 17)
    {
        assert_eq!(detected, Detected::Http1, "a whole request is not recognised");
    }
}

/// Heads of HTTP/1, and bodies in chunks. Of any bytes: what is taken is what httparse reads and what all lines say, cut into pieces they are
/// read as they are whole, and nothing is taken of what is no head.
pub fn http1_head(data: &[u8]) {
    crate::http::http1_head(data);
}

/// TLS ClientHellos. Of any bytes: cut into pieces they are read as they are whole, no more are taken than the limit, and an SNI is
/// a DNS name. Of bytes that are a DNS name: the hello that rustls sends for it has it as SNI, and is not complete before its last
/// byte.
pub fn client_hello(data: &[u8]) {
    let any = &data[..data.len().min(tls::HELLO_LIMIT)];
    let whole = read_hello(any, any.len());
    assert_eq!(read_hello(any, 1), whole, "byte by byte");
    let middle = any.len() / 2 + 1;
    assert_eq!(read_hello(any, middle), whole, "in halves");
    if let Progress::Read(Some(sni)) = &whole {
        let name = ServerName::try_from(&**sni);
        assert!(matches!(name, Ok(ServerName::DnsName(_))), "`{sni}` is no name");
    }

    let Some(name) = std::str::from_utf8(data).ok().and_then(|name| ServerName::try_from(name).ok()) else { return };
    let hello = hello_of(name.to_owned());
    let sni = match &name {
        // It is sent without a dot at its end (RFC 6066, section 3), and read in lower case.
        ServerName::DnsName(name) => Some(name.as_ref().trim_end_matches('.').to_ascii_lowercase().into()),
        _ => None,
    };
    assert_eq!(read_hello(&hello, 100), Progress::Read(sni.clone()));
    assert_eq!(read_hello(&hello[..hello.len() - 1], 100), Progress::Incomplete);
    // What comes after it is somebody else's.
    let more = [&hello[..], data].concat();
    assert_eq!(read_hello(&more, more.len()), Progress::Read(sni));
}

/// What is read of `bytes` if they come `piece` at a time.
fn read_hello(bytes: &[u8], piece: usize) -> Progress {
    let mut hello = Hello::default();
    for piece in bytes.chunks(piece.max(1)) {
        match hello.push(piece) {
            Ok(Progress::Incomplete) => {}
            Ok(progress) => return progress,
            Err(error) => panic!("no more than the limit came, and yet: {error}"),
        }
    }
    Progress::Incomplete
}

/// The ClientHello of a client that asks for `name`.
fn hello_of(name: ServerName<'static>) -> Vec<u8> {
    static CONFIG: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
        let config = ClientConfig::builder_with_provider(Arc::new(tls::provider()))
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has suites for TLS 1.3");
        Arc::new(config.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
    });
    let mut client = ClientConnection::new(Arc::clone(&CONFIG), name).expect("any name can be asked for");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("a vector takes all");
    hello
}

/// Names of targets, as `l5d-dst-override` and as `Host`: whatever the value, in every dialect, a name that comes of it is a DNS
/// name that means the same when it is written and read again, and no override leads out of the cluster.
pub fn target_name(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let suffixes = ["svc.cluster.local".to_owned()];
    for (dialect, header) in Dialect::ALL.into_iter().flat_map(|(_, dialect)| [(dialect, OVERRIDE), (dialect, HOST)]) {
        let choose = |value: HeaderValue, suffixes: &[String]| {
            let headers = HeaderMap::from_iter([(header.clone(), value)]);
            choose(dialect, &Uri::from_static("/"), &headers, suffixes)
        };
        // Without suffixes to lie in, nothing is the cluster's; in the empty one lies everything.
        for suffixes in [&suffixes[..], &[], &[String::new()]] {
            let choice = choose(value.clone(), suffixes);
            let (Choice::Service(name) | Choice::Elsewhere(name)) = &choice else { continue };
            assert_name(name);
            let inside = suffixes
                .iter()
                .any(|suffix| suffix.is_empty() || format!(".{}", name.name()).ends_with(&format!(".{suffix}")));
            assert_eq!(matches!(choice, Choice::Service(_)), inside, "{name} in {suffixes:?}");
            let written = HeaderValue::from_str(&name.to_string()).expect("a name can be a header");
            assert_eq!(choose(written, suffixes), choice, "written and read again");
        }
        if header == OVERRIDE && matches!(dialect, Dialect::Modern) {
            assert!(!matches!(choose(value.clone(), &suffixes), Choice::Elsewhere(_) | Choice::Address(_)));
        }
    }
    if let Some(name) = std::str::from_utf8(data).ok().and_then(NameAddr::parse) {
        assert_name(&name);
    }
}

fn assert_name(name: &NameAddr) {
    let text = name.name();
    assert!((1..=253).contains(&text.len()), "`{text}`");
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    assert!(text.bytes().all(plain), "`{text}`");
    assert!(!text.starts_with('.') && !text.ends_with('.') && !text.contains(".."), "`{text}`");
    assert!(text.parse::<std::net::IpAddr>().is_err(), "`{text}` is an address");
    assert_eq!(NameAddr::parse(&name.to_string()).as_ref(), Some(name), "`{name}` written and read again");
}

/// Transport headers: the answer does not depend on how the bytes are cut into reads and comes before the limit, no more is taken
/// than the header's own bytes, and what was read is the same when it is written and read again.
pub fn transport_header(data: &[u8]) {
    check_transport_header(data);
    // Few bytes begin with the right line by chance, and fewer have a length that fits.
    check_transport_header(&[transport_header::PREFACE, data].concat());
    let message = &data[..data.len().min(usize::from(u16::MAX))];
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    check_transport_header(&[transport_header::PREFACE, &length, message, b"after"].concat());
}

fn check_transport_header(data: &[u8]) {
    let overhead = transport_header::PREFACE.len() + 4;
    let read = |bytes: &[u8]| {
        let mut buffer = BytesMut::from(bytes);
        let result = transport_header::decode(&mut buffer);
        (result, buffer)
    };
    let (whole, rest) = read(data);
    assert!(data.ends_with(&rest), "what is left are not the last bytes");
    let taken = data.len() - rest.len();
    match &whole {
        Ok(Some((to, session))) => {
            match to {
                To::Port(port) => assert!(*port > 0),
                To::Name(name) => assert_name(name),
            }
            assert!((overhead..=overhead + transport_header::LIMIT).contains(&taken), "{taken} bytes were taken");
            let mut written = BytesMut::from(&transport_header::encode(to, *session)[..]);
            assert_eq!(transport_header::decode(&mut written), Ok(Some((to.clone(), *session))));
            assert!(written.is_empty());
        }
        Ok(None) => assert!(data.len() < overhead + transport_header::LIMIT, "{} bytes and no answer", data.len()),
        Err(Malformed::Length(length)) => assert!(*length as usize > transport_header::LIMIT),
        Err(_) => {}
    }
    if !matches!(whole, Ok(Some(_))) {
        assert_eq!(taken, 0, "bytes were taken of what is no header");
    }
    let first =
        (0..=data.len().min(overhead + transport_header::LIMIT)).find_map(|length| match read(&data[..length]).0 {
            Ok(None) => None,
            answer => Some(answer),
        });
    assert_eq!(first.unwrap_or(Ok(None)), whole, "cut into bytes");
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use proptest::{
        collection::vec,
        prelude::*,
        test_runner::{Config, TestRunner},
    };

    use super::*;

    /// Judges a target's seeds, the seeds with some bytes changed, cut off or added, and what `strategy` makes.
    fn judge(target: &str, property: fn(&[u8]), strategy: impl Strategy<Value = Vec<u8>>) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
        let seeds: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|seed| fs::read(seed.unwrap().path()).unwrap()).collect();
        assert!(seeds.len() >= 3, "{} has hardly any seeds", folder.display());
        seeds.iter().for_each(|seed| property(seed));

        let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
        let mutated = (prop::sample::select(seeds), changes, any::<prop::sample::Index>(), vec(any::<u8>(), 0..8))
            .prop_map(|(mut seed, changes, end, more)| {
                for (at, byte) in changes {
                    if !seed.is_empty() {
                        let at = at.index(seed.len());
                        seed[at] = byte;
                    }
                }
                seed.truncate(end.index(2 * seed.len() + 1));
                seed.extend(more);
                seed
            });
        let any = vec(any::<u8>(), 0..64);
        // A failure says what failed; a file of failures would lie beside the seeds and say the same.
        let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
        runner
            .run(&prop_oneof![2 => mutated, 1 => any, 2 => strategy], |data| {
                property(&data);
                Ok(())
            })
            .unwrap();
    }

    fn text(pattern: &'static str) -> impl Strategy<Value = Vec<u8>> {
        pattern.prop_map(String::into_bytes)
    }

    #[test]
    fn detection_keeps_its_promises() {
        judge("detection", detection, text("(\r?\n)?[A-Za-z]{1,9} ?[!-~]{0,9}( HTTP/[012.]{1,3}(\r?\n)?)?[ -~]{0,20}"));
    }

    #[test]
    fn http1_head_keeps_its_promises() {
        let line = "((content-length|transfer-encoding|connection|x): ?[0-9a-z, ]{0,9}\r\n)";
        let messages = prop_oneof![
            "(GET|POST|HEAD) /[!-~]{0,5} HTTP/1[.][012]\r\n",
            "HTTP/1[.][01] [1-5][0-9]{2} [ -~]{0,5}\r\n",
            "([0-9a-f]{1,2}[ ;]?\r\n[a-z]{0,3}\r\n){0,3}0\r\n",
        ];
        let lines = format!("{line}{{0,4}}\r\n[ -~]{{0,8}}");
        let lines = proptest::string::string_regex(&lines).unwrap();
        judge(
            "http1_head",
            http1_head,
            (messages, lines).prop_map(|(first, rest)| [first, rest].concat().into_bytes()),
        );
    }

    #[test]
    fn client_hello_keeps_its_promises() {
        judge("client_hello", client_hello, text("[a-zA-Z0-9_-]{1,20}(\\.[a-z0-9-]{1,20}){0,5}\\.?"));
    }

    #[test]
    fn target_name_keeps_its_promises() {
        judge(
            "target_name",
            target_name,
            text("([a-z]{1,3}@)?[A-Za-z0-9.:_-]{0,30}(\\.svc\\.cluster\\.local)?\\.?(:[0-9]{0,6})?"),
        );
    }

    #[test]
    fn transport_header_keeps_its_promises() {
        let header = (any::<u16>(), "(web\\.ns)?", 0..3_usize, vec(any::<u8>(), 0..8));
        let header = header.prop_map(|(port, name, session, after)| {
            let to = NameAddr::new(&name, port).map_or(To::Port(port), To::Name);
            let session =
                [None, Some(transport_header::Session::HTTP1), Some(transport_header::Session::HTTP2)][session];
            [&transport_header::encode(&to, session)[..], &after].concat()
        });
        judge("transport_header", transport_header, header);
    }
}
