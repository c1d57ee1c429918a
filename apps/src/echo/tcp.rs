//! The raw port: every byte comes back. A connection that begins with `whoami\n` is told service and pod first.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::State;
use crate::serve::{self, Gate};

const QUESTION: &[u8] = b"whoami\n";

pub(super) async fn serve(
    listener: Option<TcpListener>,
    state: Arc<State>,
    gate: Gate,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let Some(listener) = listener else { return Ok(()) };
    let closing = shutdown.clone();
    serve::accept(listener, gate, shutdown, |stream, peer| {
        let (state, closing) = (Arc::clone(&state), closing.clone());
        tokio::spawn(async move {
            let result = tokio::select! {
                result = echo(stream, &state) => result,
                () = closing.cancelled() => Ok(()),
            };
            if let Err(error) = result {
                tracing::debug!(%peer, %error, "the raw connection ended early");
            }
        });
    })
    .await
}

async fn echo(mut stream: TcpStream, state: &State) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    let mut first = true;
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return stream.shutdown().await;
        }
        let mut data = &buffer[..length];
        if std::mem::take(&mut first) && data.starts_with(QUESTION) {
            stream.write_all(format!("{} {}\n", state.name, state.pod).as_bytes()).await?;
            data = &data[QUESTION.len()..];
        }
        stream.write_all(data).await?;
    }
}
