//! What to send.

use serde::{Deserialize, Serialize};

/// One request, as it is to be on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Request {
    /// Comes back in the record.
    pub id: String,
    /// Written as it is.
    pub method: String,
    /// Plain or over TLS.
    pub scheme: Scheme,
    /// Where to connect, `host:port`.
    pub target: String,
    /// The Host header (`:authority` on HTTP/2); the target when none. A `host` among [`headers`](Self::headers) replaces
    /// it on HTTP/1; the empty string sends none there.
    pub host: Option<String>,
    /// The name asked for in the TLS handshake; the host without its port when none.
    pub sni: Option<String>,
    /// The request target with its query, written as it is on HTTP/1.
    pub path: String,
    /// In this order and, on HTTP/1, this spelling. Duplicates stay.
    pub headers: Vec<(String, String)>,
    /// Sent after the body, when that is chunked or on HTTP/2.
    pub trailers: Vec<(String, String)>,
    /// The body.
    pub body: Payload,
    /// The protocol.
    pub version: Version,
    /// From connecting to the end of the answer, in milliseconds.
    pub timeout_ms: u64,
    /// On which connection.
    pub connection: Connection,
    /// Sends `Expect: 100-continue` (HTTP/1.1) and the body only when told to go on, or after five seconds without an answer.
    pub expect_continue: bool,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            id: String::new(),
            method: "GET".to_owned(),
            scheme: Scheme::Http,
            target: String::new(),
            host: None,
            sni: None,
            path: "/".to_owned(),
            headers: Vec::new(),
            trailers: Vec::new(),
            body: Payload::None,
            version: Version::H1,
            timeout_ms: 10_000,
            connection: Connection::New,
            expect_continue: false,
        }
    }
}

impl Request {
    /// A GET of `path` from `host:port`.
    pub fn get(target: impl Into<String>, path: impl Into<String>) -> Self {
        Self { target: target.into(), path: path.into(), ..Self::default() }
    }

    /// With the Host header set.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// With one more header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With this method and text as the body.
    pub fn body(mut self, method: impl Into<String>, text: impl Into<String>) -> Self {
        self.method = method.into();
        self.body = Payload::Text(text.into());
        self
    }

    /// On this connection.
    pub fn on(mut self, connection: Connection) -> Self {
        self.connection = connection;
        self
    }

    /// In this version of HTTP.
    pub fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// The authority that is asked for.
    pub(super) fn authority(&self) -> &str {
        self.host.as_deref().unwrap_or(&self.target)
    }

    /// The name for the TLS handshake.
    pub(super) fn server_name(&self) -> &str {
        self.sni.as_deref().unwrap_or_else(|| host_of(self.authority()))
    }

    /// The values of a header, by name.
    pub(super) fn has_header(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    /// The request with `{i}` replaced by the index in its id, path, host, headers, body text and connection's name.
    pub(super) fn indexed(&self, index: usize) -> Self {
        let index = index.to_string();
        let fill = |text: &mut String| {
            if text.contains("{i}") {
                *text = text.replace("{i}", &index);
            }
        };
        let mut request = self.clone();
        fill(&mut request.id);
        fill(&mut request.path);
        request.host.iter_mut().for_each(fill);
        request.headers.iter_mut().for_each(|(_, value)| fill(value));
        if let Payload::Text(text) = &mut request.body {
            fill(text);
        }
        if let Connection::Named(name) = &mut request.connection {
            fill(name);
        }
        request
    }
}

/// The host of `host:port`, `[v6]:port` or a host alone.
pub(super) fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(host, _)| host);
    }
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

/// Plain or over TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// Plain.
    #[default]
    Http,
    /// Over TLS; any certificate is accepted and recorded.
    Https,
}

/// A version of HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Version {
    /// HTTP/1.1.
    #[default]
    H1,
    /// HTTP/1.0.
    H10,
    /// HTTP/2: with prior knowledge on `http`, by ALPN on `https`.
    #[serde(alias = "h2")]
    H2c,
}

/// A request's body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// None; a method that usually has one says `Content-Length: 0`.
    #[default]
    None,
    /// Text, with its length.
    Text(String),
    /// So many bytes `x`, with their length.
    Bytes(usize),
    /// Streamed without a length (chunked on HTTP/1.1).
    Chunks {
        /// How many.
        count: usize,
        /// Bytes in each.
        size: usize,
        /// Milliseconds before each but the first.
        pause_ms: u64,
    },
}

/// On which connection a request goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connection {
    /// On one of its own.
    #[default]
    New,
    /// On the one that the worker keeps to that target: as many connections as the batch's concurrency.
    PerWorker,
    /// On the connection of this name: requests that share it go over it one after the other.
    Named(String),
}

/// How much of an answer is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// Status and times only.
    Nothing,
    /// And who answered ([`super::Seen`] of the body, without its headers).
    Status,
    /// Everything.
    #[default]
    All,
}

/// Requests to send together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Batch {
    /// The requests.
    pub requests: Vec<Request>,
    /// How many may be under way at once; 0 counts as 1.
    pub concurrency: usize,
    /// Sends the whole list so many times, with `{i}` in texts replaced by the number of the request.
    pub repeat: Option<usize>,
    /// What the records keep.
    pub keep: Keep,
}

impl Batch {
    /// These requests, all at once.
    pub fn of(requests: Vec<Request>) -> Self {
        let concurrency = requests.len();
        Self { requests, concurrency, ..Self::default() }
    }

    /// One request many times over `concurrency` connections, keeping only who answered.
    pub fn repeated(request: Request, times: usize, concurrency: usize) -> Self {
        let request = request.on(Connection::PerWorker);
        Self { requests: vec![request], concurrency, repeat: Some(times), keep: Keep::Status }
    }
}
