//! An application that reads HTTP/1 by the letter, and notes what it was sent.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::App;

/// Everything that comes is a request of the strictest reading of RFC 9112, or noted as `broken`. What ends before its end is noted
/// as `cut`.
pub struct Strict {
    pub app: App,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Strict {
    pub async fn start() -> Self {
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&seen);
        let app = App::tcp(move |stream| {
            let log = Arc::clone(&log);
            async move {
                let mut reader = Reader { stream, buffer: Vec::new() };
                loop {
                    match reader.request(&log).await {
                        Ok(request) => log.lock().push(request),
                        Err(End::Idle) => return,
                        Err(End::Cut(what)) => return log.lock().push(format!("cut {what}")),
                        Err(End::Broken(what)) => return log.lock().push(format!("broken {what}")),
                    }
                    if reader.stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        Self { app, seen }
    }

    /// What was noted since this was asked last: `POST /path host [body]`, after `begun POST /path` where a body follows.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock())
    }

    /// Whether something has been noted that is not taken yet.
    pub fn has(&self, what: &str) -> bool {
        self.seen.lock().iter().any(|seen| seen == what)
    }
}

enum End {
    /// The connection ended between requests.
    Idle,
    /// It ended within this one.
    Cut(String),
    /// This is no request.
    Broken(String),
}

struct Reader {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Reader {
    async fn fill(&mut self) -> bool {
        self.stream.read_buf(&mut self.buffer).await.is_ok_and(|read| read > 0)
    }

    async fn line(&mut self, within: &str) -> Result<String, End> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let broken = || End::Broken(format!("{within}: {}", line.escape_ascii()));
                let text = line.strip_suffix(b"\r\n").ok_or_else(broken)?;
                let plain = text.iter().all(|byte| *byte == b'\t' || (b' '..0x7f).contains(byte));
                return if plain { Ok(String::from_utf8_lossy(text).into_owned()) } else { Err(broken()) };
            }
            if !self.fill().await {
                return Err(if within.is_empty() && self.buffer.is_empty() {
                    End::Idle
                } else {
                    End::Cut(within.to_owned())
                });
            }
        }
    }

    async fn exactly(&mut self, length: usize, within: &str) -> Result<Vec<u8>, End> {
        while self.buffer.len() < length {
            if !self.fill().await {
                return Err(End::Cut(within.to_owned()));
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn request(&mut self, log: &Mutex<Vec<String>>) -> Result<String, End> {
        let first = self.line("").await?;
        let parts: Vec<_> = first.split(' ').collect();
        let [method, target, "HTTP/1.1" | "HTTP/1.0"] = parts[..] else { return Err(End::Broken(first)) };
        let name = format!("{method} {target}");
        let broken = |why: &str| End::Broken(format!("{name}: {why}"));
        let (mut hosts, mut lengths, mut codings) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let line = self.line(&name).await?;
            if line.is_empty() {
                break;
            }
            let (key, value) = line.split_once(':').ok_or_else(|| broken(&line))?;
            if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
                return Err(broken(&line));
            }
            let value = value.trim().to_owned();
            match &*key.to_ascii_lowercase() {
                "host" => hosts.push(value),
                "content-length" => lengths.push(value),
                "transfer-encoding" => codings.push(value),
                _ => {}
            }
        }
        if hosts.len() > 1 || lengths.len() + codings.len() > 1 {
            return Err(broken(&format!("{hosts:?} {lengths:?} {codings:?}")));
        }
        let begun = format!("begun {name}");
        let mut body = Vec::new();
        if let Some(length) = lengths.first() {
            let length = length.parse().map_err(|_| broken(length))?;
            log.lock().extend((length > 0).then_some(begun));
            body = self.exactly(length, &name).await?;
        } else if let Some(coding) = codings.first() {
            if !coding.eq_ignore_ascii_case("chunked") {
                return Err(broken(coding));
            }
            log.lock().push(begun);
            loop {
                let size = self.line(&name).await?;
                let length = usize::from_str_radix(&size, 16).map_err(|_| broken(&size))?;
                body.extend(self.exactly(length, &name).await?);
                // After the last chunk come trailers, up to an empty line.
                let mut line = self.line(&name).await?;
                if length > 0 && line.is_empty() {
                    continue;
                }
                while length == 0 && !line.is_empty() {
                    line = self.line(&name).await?;
                }
                if length > 0 {
                    return Err(broken(&line));
                }
                break;
            }
        }
        Ok(format!("{name} {} [{}]", hosts.join(","), body.escape_ascii()))
    }
}
