//! A relay that listens along.

use std::{net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

/// What passed.
#[derive(Clone, Default)]
pub struct Wire {
    bytes: Arc<Mutex<Vec<u8>>>,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Wire {
    /// Passes connections on to `to` and keeps what their clients sent.
    pub async fn tap(&self, to: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let wire = self.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let bytes = Arc::clone(&wire.bytes);
                let connection = tokio::spawn(async move {
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = TcpStream::connect(to).await.unwrap().into_split();
                    let back = tokio::io::copy(&mut from_server, &mut to_client);
                    let forth = async {
                        let mut buffer = vec![0; 4096];
                        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
                            bytes.lock().extend_from_slice(&buffer[..read]);
                            to_server.write_all(&buffer[..read]).await.unwrap();
                        }
                    };
                    tokio::select! {
                        _ = back => {}
                        () = forth => {}
                    }
                });
                wire.connections.lock().push(connection.abort_handle());
            }
        });
        address
    }

    /// Ends every connection that is open.
    pub fn cut(&self) {
        self.connections.lock().drain(..).for_each(|connection| connection.abort());
    }

    pub fn has(&self, text: &str) -> bool {
        self.bytes.lock().windows(text.len()).any(|window| window == text.as_bytes())
    }

    pub fn begins_with_tls(&self) -> bool {
        self.bytes.lock().first() == Some(&0x16)
    }
}
