//! The role `linkerd-await`: waits until the proxy of this pod is ready, by the arguments of Linkerd's program of that name. Linkerd's
//! chart has the kubelet run it when the proxy's container has started, and start the next container after it.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;

use crate::output;

/// The role, and the program.
pub const ROLE: &str = "linkerd-await";

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// What an answer has to begin with, at the least.
const HEAD: usize = "HTTP/1.1 200".len();

/// How much of an answer is read after that.
const REST: u64 = 64 * 1024;

/// Waits until the Linkerd proxy of this pod is ready.
#[derive(Parser)]
#[command(name = ROLE)]
struct Args {
    /// Port of the proxy's admin server
    #[arg(long, short, default_value_t = 4191)]
    port: u16,
    /// How long to wait after the proxy was not ready
    #[arg(long, short, default_value = "1s", value_parser = duration)]
    backoff: Duration,
    /// How long to wait for the proxy at most; then it is said, and the pod goes on without
    #[arg(long, short, value_parser = duration)]
    timeout: Option<Duration>,
}

/// Waits. As Linkerd's it ends well after the timeout too: an application without its proxy is for the readiness probe to tell.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let args = match Args::try_parse_from([OsString::from(ROLE)].into_iter().chain(arguments)) {
        Ok(args) => args,
        Err(error) => {
            output::tell(&error.to_string());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let proxy = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    if !ready_within(proxy, args.timeout, args.backoff) {
        output::tell(&format!("{ROLE}: expected {proxy}/ready to answer with success, and it did not in time\n"));
    }
    ExitCode::SUCCESS
}

fn ready_within(proxy: SocketAddr, timeout: Option<Duration>, backoff: Duration) -> bool {
    let end = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        if is_ready(proxy).unwrap_or(false) {
            return true;
        }
        if end.is_some_and(|end| Instant::now() + backoff >= end) {
            return false;
        }
        thread::sleep(backoff);
    }
}

fn is_ready(proxy: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&proxy, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let request = format!("GET /ready HTTP/1.1\r\nhost: localhost:{}\r\nconnection: close\r\n\r\n", proxy.port());
    stream.write_all(request.as_bytes())?;
    let mut head = [0; HEAD];
    stream.read_exact(&mut head)?;
    // Whoever leaves an answer unread resets the connection, which the proxy would tell of in its log.
    let _ = io::copy(&mut stream.take(REST), &mut io::sink());
    Ok(head.starts_with(b"HTTP/1.1 2"))
}

/// A whole number with its unit; 0 needs none.
fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: Option<u64> = number.parse().ok();
    let milliseconds = match (number, unit) {
        (Some(0), "") => Some(0),
        (Some(number), "ms") => Some(number),
        (Some(number), "s") => number.checked_mul(1_000),
        (Some(number), "m") => number.checked_mul(60_000),
        (Some(number), "h") => number.checked_mul(3_600_000),
        (Some(number), "d") => number.checked_mul(86_400_000),
        _ => None,
    };
    milliseconds
        .map(Duration::from_millis)
        .ok_or_else(|| format!("expected a number and one of ms, s, m, h, d, as in 2m; found `{text}`"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_charts_arguments_are_known() {
        let args = Args::try_parse_from(["linkerd-await", "--timeout=2m", "--port=4191"]).unwrap();
        assert_eq!((args.port, args.backoff), (4191, Duration::from_secs(1)));
        assert_eq!(args.timeout, Some(Duration::from_secs(120)));
        for wrong in ["", "2", "m", "2 m", "2w", "-1s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn it_asks_until_the_proxy_is_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = listener.local_addr().unwrap();
        let answers = thread::spawn(move || {
            for answer in ["", "HTTP/1.1 503 Service Unavailable", "HTTP/1.1 200 OK"] {
                let (mut stream, _) = listener.accept().unwrap();
                // All of it: a socket that is closed with more to read resets its peer, and an answer with it.
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    asked.extend(byte);
                }
                assert!(asked.starts_with(b"GET /ready HTTP/1.1\r\n"), "{}", asked.escape_ascii());
                if !answer.is_empty() {
                    stream.write_all(format!("{answer}\r\ncontent-length: 0\r\n\r\n").as_bytes()).unwrap();
                }
            }
        });
        assert!(ready_within(proxy, Some(Duration::from_secs(60)), Duration::from_millis(1)));
        answers.join().unwrap();
        // Nobody listens there any more.
        assert!(!ready_within(proxy, Some(Duration::ZERO), Duration::from_millis(1)));
    }
}
