//! An nginx of before 1.27.3, such as Debian's: it cannot follow an upstream's addresses, nor, before 1.25.1, have HTTP/2 by server.
//!
//! The configuration says the same in that nginx' words: addresses are written out, so a pod that comes or goes takes a reload,
//! and HTTP/2 belongs to the listeners with TLS. Without TLS a listener would speak nothing else, so there it is left out, and cases that
//! need it do not apply (`since` in `embedded/images/tools.yaml`).

use super::endpoints::{self, NOBODY, Zone};

/// Since when `server ... resolve` is in nginx.
const RESOLVES: [u32; 3] = [1, 27, 3];

/// Since when `http2 on` is, which lets a listener without TLS speak either.
const HTTP2_BY_SERVER: [u32; 3] = [1, 25, 1];

/// What an older nginx has all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Older {
    /// HTTP/2 by server.
    pub(crate) http2_by_server: bool,
}

/// Such an nginx, if `nginx -v` tells of one. What cannot be read is taken for a newer one.
pub(crate) fn is(told: &str) -> Option<Older> {
    let version = told.trim().rsplit_once("nginx/").map(|(_, version)| version).unwrap_or_default();
    let version = version.split_whitespace().next().unwrap_or_default();
    let numbers: Vec<u32> = version.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    (numbers.as_slice() < RESOLVES.as_slice())
        .then(|| Older { http2_by_server: numbers.as_slice() >= HTTP2_BY_SERVER.as_slice() })
}

/// The configuration for it.
pub(crate) fn spelled(main: &str, zone: &Zone, older: Older) -> String {
    let mut servers: Vec<(String, String)> = zone
        .iter()
        .map(|(name, addresses)| {
            let addresses = if addresses.is_empty() { &[NOBODY] } else { addresses.as_slice() };
            let each: Vec<String> = addresses.iter().map(|address| endpoints::fixed(*address)).collect();
            (endpoints::followed(name), each.join(" "))
        })
        .collect();
    // Each line is looked up once, however many upstreams there are.
    servers.sort();
    let mut text = String::with_capacity(main.len());
    for line in main.lines() {
        let words = line.trim();
        let found = servers.binary_search_by(|(followed, _)| followed.as_str().cmp(words));
        match found {
            Ok(index) => text += &servers[index].1,
            Err(_) if words == "http2 on;" && !older.http2_by_server => {}
            Err(_) if words.starts_with("listen ") && words.ends_with(" ssl;") && !older.http2_by_server => {
                text += &words.replace(" ssl;", " ssl http2;");
            }
            Err(_) => text += line,
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let [without, with] = [false, true].map(|http2_by_server| Some(Older { http2_by_server }));
        for (told, older) in [
            ("nginx version: nginx/1.22.1\n", without),
            ("nginx version: nginx/1.9.3 (Ubuntu)", without),
            ("nginx version: nginx/1.25.0", without),
            ("nginx version: nginx/1.25.1", with),
            ("nginx version: nginx/1.27.2", with),
            ("nginx version: nginx/1.27.3", None),
            ("nginx version: nginx/1.31.3", None),
            ("nginx version: openresty/1.19", None),
            ("", None),
        ] {
            assert_eq!(is(told), older, "{told}");
        }
    }

    #[test]
    fn addresses_are_written_out_and_http2_belongs_to_listeners_with_tls() {
        let zone = Zone::from([
            ("a".to_owned(), vec!["10.244.0.3:8080".parse().unwrap(), "10.244.0.4:8080".parse().unwrap()]),
            ("b".to_owned(), vec![]),
        ]);
        let main = format!(
            "{}\n  {}\nhttp2 on;\nlisten 80;\nlisten 443 default_server ssl;\nserver 10.96.0.7:80;\n",
            endpoints::followed("a"),
            endpoints::followed("b")
        );
        let expected = "server 10.244.0.3:8080 max_fails=0; server 10.244.0.4:8080 max_fails=0;\n\
                        server 127.0.0.1:1 max_fails=0;\n\nlisten 80;\nlisten 443 default_server ssl http2;\nserver 10.96.0.7:80;\n";
        assert_eq!(spelled(&main, &zone, Older { http2_by_server: false }), expected);
        let by_server = spelled(&main, &zone, Older { http2_by_server: true });
        assert!(by_server.contains("\nhttp2 on;\nlisten 80;\nlisten 443 default_server ssl;\n"), "{by_server}");
    }
}
