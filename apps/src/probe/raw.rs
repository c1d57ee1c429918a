//! Bytes out, bytes in.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::failure::{ErrorKind, Failure};
use super::{Connect, Stream};

/// When reading ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The peer closes its side.
    End,
    /// So many bytes are there.
    Bytes(usize),
}

/// Connects to `host:port`, sends bytes, closes its own side if `half_close`, and returns what comes back.
pub async fn exchange(
    connect: &dyn Connect,
    target: &str,
    bytes: &[u8],
    half_close: bool,
    until: Until,
    timeout: Duration,
) -> Result<Vec<u8>, Failure> {
    let limit = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let work = async { converse(connect.connect(target).await?, bytes, half_close, until).await };
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| Err(Failure::timeout(limit)))
}

/// The same over a stream that is there already, such as [`super::tls::secure`]'s.
pub async fn converse(stream: Stream, bytes: &[u8], half_close: bool, until: Until) -> Result<Vec<u8>, Failure> {
    let (mut read, mut write) = tokio::io::split(stream);
    // What does not fit into the peer's buffers only leaves when its answers are read meanwhile.
    let sending = async {
        write.write_all(bytes).await?;
        write.flush().await?;
        if half_close {
            write.shutdown().await?;
        }
        Ok::<(), Failure>(())
    };
    let receiving = async {
        let mut received = Vec::new();
        while until != Until::Bytes(received.len()) {
            let room = match until {
                Until::End => 64 * 1024,
                Until::Bytes(count) => (count - received.len()).min(64 * 1024),
            };
            if (&mut read).take(room as u64).read_buf(&mut received).await? == 0 {
                break;
            }
        }
        match until {
            Until::Bytes(count) if received.len() < count => {
                let text = format!("expected {count} bytes, found the end after {}", received.len());
                Err(Failure::new(ErrorKind::Closed, text))
            }
            _ => Ok(received),
        }
    };
    let ((), received) = tokio::try_join!(sending, receiving)?;
    Ok(received)
}
