//! Who plays Gloo, for the containers beside it: the stand-in speaks no xDS.

use std::path::Path;
use std::time::Duration;

use tokio::net::TcpStream;

use super::BOOTSTRAP;

/// Between two questions whether Gloo is there.
const PAUSE: Duration = Duration::from_millis(50);

/// Gloo, or what stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Player {
    Gloo,
    StandIn,
}

/// Waits until the port of Gloo's xDS is open, and says who has opened it. The stand-in has written a bootstrap into this folder before.
pub(super) async fn player(xds: (&str, u16), folder: &Path) -> Player {
    let mut told = false;
    while let Err(error) = TcpStream::connect(xds).await {
        if !told {
            tracing::info!("waiting for Gloo at {}:{}: {error}", xds.0, xds.1);
            told = true;
        }
        tokio::time::sleep(PAUSE).await;
    }
    if folder.join(BOOTSTRAP).exists() { Player::StandIn } else { Player::Gloo }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn who_has_opened_the_port_is_told_by_what_lies_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(player(("127.0.0.1", port), folder.path()).await, Player::Gloo);
        std::fs::write(folder.path().join(BOOTSTRAP), "{}").unwrap();
        assert_eq!(player(("127.0.0.1", port), folder.path()).await, Player::StandIn);
        drop(listener);
        // What a former process has left says nothing of who comes.
        let waits = tokio::time::timeout(PAUSE * 3, player(("127.0.0.1", port), folder.path()));
        assert!(waits.await.is_err());
    }
}
