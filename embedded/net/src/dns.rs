//! The cluster's DNS server.
//!
//! It answers two sets of names: the cluster's own, replaced as a whole whenever Services change, and names of the outside
//! world, which a test sets one by one. Everything else does not exist. Only IPv4 addresses are served; a name that exists has
//! an empty answer for other types, so that resolvers ask no further.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use parking_lot::RwLock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// Seconds that an answer may be kept. Short: tests move names.
const TTL: u32 = 1;

/// Names in lower case without the final dot.
type Names = HashMap<String, Vec<Ipv4Addr>>;

#[derive(Default)]
struct Zones {
    cluster: RwLock<Names>,
    external: RwLock<Names>,
}

/// A running DNS server. Cheap to clone.
#[derive(Clone)]
pub struct Dns {
    zones: Arc<Zones>,
}

impl Dns {
    /// Serves UDP and TCP on port 53 of an address, until the runtime ends.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn start(address: Ipv4Addr) -> io::Result<Self> {
        let zones = Arc::new(Zones::default());
        let udp = UdpSocket::bind((address, 53)).await?;
        let tcp = TcpListener::bind((address, 53)).await?;
        tokio::spawn(serve_udp(udp, Arc::clone(&zones)));
        tokio::spawn(serve_tcp(tcp, Arc::clone(&zones)));
        Ok(Self { zones })
    }

    /// Replaces all names of the cluster. Names without their final dot; any case.
    pub fn set_cluster(&self, names: HashMap<String, Vec<Ipv4Addr>>) {
        *self.zones.cluster.write() = names.into_iter().map(|(name, ips)| (name.to_ascii_lowercase(), ips)).collect();
    }

    /// Sets a name of the outside world; no addresses removes it.
    pub fn set_external(&self, name: &str, addresses: &[Ipv4Addr]) {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let mut names = self.zones.external.write();
        if addresses.is_empty() {
            names.remove(&name);
        } else {
            names.insert(name, addresses.to_vec());
        }
    }
}

impl Zones {
    fn find(&self, name: &str) -> Option<Vec<Ipv4Addr>> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        self.cluster.read().get(&name).or(self.external.read().get(&name)).cloned()
    }

    /// The answer to a query, `None` for what is none.
    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let query = Message::from_vec(query).ok()?;
        if query.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
        reply.metadata.recursion_desired = query.metadata.recursion_desired;
        reply.metadata.recursion_available = true;
        let Some(question) = query.queries.first().filter(|_| query.metadata.op_code == OpCode::Query) else {
            reply.metadata.response_code = ResponseCode::NotImp;
            return reply.to_vec().ok();
        };
        reply.add_query(question.clone());
        reply.metadata.authoritative = true;
        match self.find(&question.name().to_ascii()) {
            None => reply.metadata.response_code = ResponseCode::NXDomain,
            Some(addresses) if question.query_type() == RecordType::A => {
                for address in addresses {
                    reply.add_answer(Record::from_rdata(question.name().clone(), TTL, RData::A(A(address))));
                }
            }
            Some(_) => {}
        }
        reply.to_vec().ok()
    }
}

async fn serve_udp(socket: UdpSocket, zones: Arc<Zones>) {
    let mut buffer = [0; 4096];
    loop {
        // An error here is a client's port that closed; the next query is another's.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        if let Some(answer) = zones.answer(&buffer[..length])
            && let Err(error) = socket.send_to(&answer, client).await
        {
            tracing::debug!(%client, %error, "answering a DNS query");
        }
    }
}

async fn serve_tcp(listener: TcpListener, zones: Arc<Zones>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve_stream(stream, Arc::clone(&zones)));
            }
            Err(error) => {
                tracing::warn!(%error, "the DNS server accepts no more TCP");
                return;
            }
        }
    }
}

async fn serve_stream(mut stream: TcpStream, zones: Arc<Zones>) -> io::Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut query = vec![0; usize::from(length)];
        stream.read_exact(&mut query).await?;
        let Some(answer) = zones.answer(&query) else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_u16(length).await?;
        stream.write_all(&answer).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::Query;
    use hickory_proto::rr::Name;

    fn ask(zones: &Zones, name: &str, kind: RecordType) -> (ResponseCode, usize) {
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let answer = zones.answer(&query.to_vec().unwrap()).unwrap();
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.metadata.id, query.metadata.id);
        (answer.metadata.response_code, answer.answers.len())
    }

    #[test]
    fn names_exist_or_not_and_have_ipv4_only() {
        let zones = Zones::default();
        let address = Ipv4Addr::new(10, 96, 1, 1);
        zones.cluster.write().insert("web.default.svc.cluster.local".into(), vec![address]);
        zones.external.write().insert("example.com".into(), vec![address, address]);
        assert_eq!(ask(&zones, "Web.default.svc.cluster.local.", RecordType::A), (ResponseCode::NoError, 1));
        assert_eq!(ask(&zones, "web.default.svc.cluster.local.", RecordType::AAAA), (ResponseCode::NoError, 0));
        assert_eq!(ask(&zones, "example.com.", RecordType::A), (ResponseCode::NoError, 2));
        assert_eq!(ask(&zones, "web.", RecordType::A), (ResponseCode::NXDomain, 0));
        assert!(zones.answer(b"nonsense").is_none());
    }
}
