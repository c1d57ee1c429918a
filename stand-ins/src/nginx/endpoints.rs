//! The addresses of upstreams, told to nginx by DNS, so that a pod that comes or goes takes no reload.
//!
//! The real controller hands its Lua balancer a list, which every worker reads once a second. nginx itself follows `server NAME
//! service=http resolve`: it asks for the SRV records of `_http._tcp.NAME`, and again when their second is over.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use anyhow::Context;
use hickory_proto::op::{Message, MessageType, Metadata, ResponseCode};
use hickory_proto::rr::rdata::{A, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use parking_lot::RwLock;
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

/// Where nginx asks.
pub(crate) const RESOLVER: &str = "127.0.0.1:10053";

/// What an upstream without endpoints leads to: a port that refuses. After an answer with no address nginx would not ask again for
/// a long time, and a configuration without the upstream would take a reload when the first pod comes.
pub(crate) const NOBODY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);

/// Seconds that an answer holds.
const TTL: u32 = 1;

/// Addresses by the name that nginx asks for.
pub(crate) type Zone = BTreeMap<String, Vec<SocketAddrV4>>;

/// The name that an upstream's addresses are asked for by. A label is too short for some upstreams' own names.
pub(crate) fn name(upstream: &str) -> String {
    let mut hasher = DefaultHasher::new();
    upstream.hash(&mut hasher);
    format!("{:016x}.upstream", hasher.finish())
}

/// The line of an upstream that has its addresses by such a name.
pub(crate) fn followed(name: &str) -> String {
    format!("server {name} service=http resolve max_fails=0;")
}

/// The line of an upstream for one address.
pub(crate) fn fixed(address: SocketAddrV4) -> String {
    format!("server {address} max_fails=0;")
}

/// The addresses as an upstream has to list them, so that a request can be sent so many times. nginx asks none of them twice for one
/// request, and takes the same address in another line for another one; a balancer in Lua picks anew each time, were it the only one
/// (`set_more_tries` in the `balancer.lua` of ingress-nginx and of Kong). Connections are kept by address, however often it is listed.
pub(crate) fn listed(addresses: &[SocketAddrV4], attempts: usize) -> Vec<SocketAddrV4> {
    addresses.repeat(attempts.div_ceil(addresses.len().max(1)))
}

/// Answers nginx. Ends with its owner.
pub(crate) struct Endpoints {
    zone: Arc<RwLock<Zone>>,
    task: AbortHandle,
}

impl Endpoints {
    /// Begins to answer, with no upstreams.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let socket =
            UdpSocket::bind(RESOLVER).await.with_context(|| format!("cannot listen on {RESOLVER} for nginx"))?;
        let zone = Arc::new(RwLock::new(Zone::new()));
        let task = tokio::spawn(serve(socket, Arc::clone(&zone))).abort_handle();
        Ok(Self { zone, task })
    }

    pub(crate) fn set(&self, zone: Zone) {
        *self.zone.write() = zone;
    }
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, zone: Arc<RwLock<Zone>>) {
    let mut buffer = vec![0; 4096];
    loop {
        // Neither failure is about more than one datagram: nginx asks again.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let answer = answer(&zone.read(), &buffer[..length]);
        if let Some(answer) = answer
            && let Err(error) = socket.send_to(&answer, client).await
        {
            tracing::debug!(%error, "an answer to nginx could not be sent");
        }
    }
}

fn answer(zone: &Zone, request: &[u8]) -> Option<Vec<u8>> {
    let request = Message::from_vec(request).ok()?;
    let [query] = request.queries.as_slice() else { return None };
    let mut response = Message::new(request.metadata.id, MessageType::Response, request.metadata.op_code);
    response.metadata = Metadata::response_from_request(&request.metadata);
    response.metadata.recursion_available = true;
    response.add_queries(request.queries.iter().cloned());
    let asked = query.name().to_ascii().to_lowercase();
    let asked = asked.trim_end_matches('.');
    match query.query_type() {
        RecordType::SRV => match asked.strip_prefix("_http._tcp.").and_then(|name| zone.get(name)) {
            Some(addresses) => {
                let nobody: &[SocketAddrV4] = &[NOBODY];
                for address in if addresses.is_empty() { nobody } else { addresses } {
                    let target = Name::from_ascii(pod_name(*address.ip())).ok()?;
                    let data = RData::SRV(SRV::new(0, 1, address.port(), target));
                    response.add_answer(Record::from_rdata(query.name().clone(), TTL, data));
                }
            }
            None => response.metadata.response_code = ResponseCode::NXDomain,
        },
        RecordType::A => match pod_address(asked) {
            Some(ip) => {
                response.add_answer(Record::from_rdata(query.name().clone(), TTL, RData::A(A(ip))));
            }
            None => response.metadata.response_code = ResponseCode::NXDomain,
        },
        _ => {}
    }
    response.to_vec().ok()
}

fn pod_name(ip: Ipv4Addr) -> String {
    format!("{}.pod.", ip.to_string().replace('.', "-"))
}

fn pod_address(name: &str) -> Option<Ipv4Addr> {
    name.strip_suffix(".pod")?.replace('-', ".").parse().ok()
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{OpCode, Query};

    use super::*;

    fn ask(zone: &Zone, name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
        let mut request = Message::new(7, MessageType::Query, OpCode::Query);
        request.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let response = Message::from_vec(&answer(zone, &request.to_vec().unwrap()).unwrap()).unwrap();
        assert_eq!(response.metadata.id, 7);
        (response.metadata.response_code, response.answers.iter().map(|record| record.data.to_string()).collect())
    }

    #[test]
    fn addresses_are_listed_for_as_many_attempts_as_there_are() {
        let addresses: Vec<SocketAddrV4> = (1..=4).map(|last| SocketAddrV4::new([10, 0, 0, last].into(), 80)).collect();
        let lasts = |count: usize, attempts| -> Vec<u8> {
            listed(&addresses[..count], attempts).iter().map(|address| address.ip().octets()[3]).collect()
        };
        assert_eq!(lasts(1, 3), [1, 1, 1]);
        // All alike, so that each has its share, and one after the other, so that another one is asked first.
        assert_eq!(lasts(2, 3), [1, 2, 1, 2]);
        assert_eq!(lasts(4, 3), [1, 2, 3, 4]);
        assert_eq!(lasts(0, 3), [0; 0]);
    }

    #[test]
    fn an_upstream_has_its_addresses_and_their_ports() {
        let name = name("shop-web-80");
        let zone = Zone::from([(name.clone(), vec!["10.244.0.3:8080".parse().unwrap()])]);
        let (code, ports) = ask(&zone, &format!("_http._tcp.{name}."), RecordType::SRV);
        assert_eq!((code, ports), (ResponseCode::NoError, vec!["0 1 8080 10-244-0-3.pod.".to_owned()]));
        let (_, addresses) = ask(&zone, "10-244-0-3.pod.", RecordType::A);
        assert_eq!(addresses, ["10.244.0.3"]);
        for (name, kind) in [("_http._tcp.other.upstream.", RecordType::SRV), ("example.com.", RecordType::A)] {
            assert_eq!(ask(&zone, name, kind), (ResponseCode::NXDomain, vec![]));
        }
        assert_eq!(ask(&zone, "10-244-0-3.pod.", RecordType::AAAA), (ResponseCode::NoError, vec![]));
    }
}
