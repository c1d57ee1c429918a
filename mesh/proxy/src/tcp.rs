//! Passing bytes on both ways.

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tracing::debug;

/// As much as is buffered per direction.
const BUFFER: usize = 8 * 1024;

/// Copies until both sides have ended. Each side's end is passed on to the other, so that half-closed connections work. Whether
/// neither broke.
pub(crate) async fn join(
    mut a: impl AsyncRead + AsyncWrite + Unpin,
    mut b: impl AsyncRead + AsyncWrite + Unpin,
) -> bool {
    let copied = copy_bidirectional_with_sizes(&mut a, &mut b, BUFFER, BUFFER).await;
    copied.inspect_err(|error| debug!(%error, "a connection broke")).is_ok()
}
