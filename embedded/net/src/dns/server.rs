//! DNS over UDP, and over TCP for what does not fit (RFC 7766).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::answer::answer;
use super::zone::Zone;

/// The longest datagram a client without EDNS takes.
const DATAGRAM: usize = 512;
/// How long a TCP connection may be silent.
const SILENCE: Duration = Duration::from_secs(30);

/// Answers datagrams for ever.
pub(super) async fn udp(socket: UdpSocket, zone: Arc<RwLock<Zone>>) {
    let mut buffer = vec![0; 4096];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, client)) => {
                let answer = answer(&zone.read(), &buffer[..length], Some(DATAGRAM));
                if let Some(answer) = answer
                    && let Err(error) = socket.send_to(&answer, client).await
                {
                    tracing::debug!(%client, %error, "a DNS answer could not be sent");
                }
            }
            // An earlier answer was undeliverable (its client is gone); the socket is fine.
            Err(error) => tracing::debug!(%error, "a DNS request could not be received"),
        }
    }
}

/// Accepts connections for ever. The connections end with the future.
pub(super) async fn tcp(listener: TcpListener, zone: Arc<RwLock<Zone>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, zone.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a DNS connection could not be accepted");
                    // Most likely out of file descriptors; others may close some.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, zone: Arc<RwLock<Zone>>) {
    if let Err(error) = talk(stream, &zone).await
        && error.kind() != io::ErrorKind::UnexpectedEof
    {
        tracing::debug!(%error, "a DNS connection broke");
    }
}

async fn talk(mut stream: TcpStream, zone: &RwLock<Zone>) -> io::Result<()> {
    loop {
        let length = timeout(SILENCE, stream.read_u16()).await??;
        let mut request = vec![0; length.into()];
        timeout(SILENCE, stream.read_exact(&mut request)).await??;
        let answer = answer(&zone.read(), &request, None);
        let Some(answer) = answer else { return Ok(()) };
        let Ok(length) = u16::try_from(answer.len()) else { return Ok(()) };
        // One write, so that it is one segment.
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use hickory_proto::op::{Message, Query};
    use hickory_proto::rr::{Name, RecordType};

    use super::*;
    use crate::Dns;

    #[tokio::test]
    async fn both_transports_answer() {
        let dns = Dns::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
        let addresses = (0..100).map(|last| Ipv4Addr::new(10, 244, 0, last)).collect();
        dns.set_cluster([("a.cluster.local".to_owned(), addresses)].into());
        let mut request = Message::query();
        request.add_query(Query::query(Name::from_ascii("a.cluster.local.").unwrap(), RecordType::A));
        let request = request.to_vec().unwrap();

        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.send_to(&request, dns.address()).await.unwrap();
        let mut buffer = [0; 4096];
        let length = timeout(SILENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
        assert!(Message::from_vec(&buffer[..length]).unwrap().metadata.truncation);

        let mut stream = TcpStream::connect(dns.address()).await.unwrap();
        for _ in 0..2 {
            stream.write_u16(request.len() as u16).await.unwrap();
            stream.write_all(&request).await.unwrap();
            let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(Message::from_vec(&answer).unwrap().answers.len(), 100);
        }
    }
}
