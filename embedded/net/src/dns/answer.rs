//! One request in, one answer out.

use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::zone::{DOMAIN, Found, Zone};

/// How long clients may remember an answer, in seconds: CoreDNS' default for a cluster.
const TTL: u32 = 5;

/// Turns the order of several addresses with every answer, as CoreDNS' `loadbalance` does.
static TURN: AtomicUsize = AtomicUsize::new(0);

/// Answers a request in wire format; `None` when it deserves no answer. `limit` is the most bytes the transport takes;
/// for UDP the client may raise it (EDNS).
pub(super) fn answer(zone: &Zone, request: &[u8], limit: Option<usize>) -> Option<Vec<u8>> {
    let request = match Message::from_vec(request) {
        Ok(request) if request.metadata.message_type == MessageType::Query => request,
        // Never answered, or two servers could answer each other for ever.
        Ok(_) => return None,
        Err(_) => {
            let id = u16::from_be_bytes([*request.first()?, *request.get(1)?]);
            return Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok();
        }
    };
    let mut response = Message::new(request.metadata.id, MessageType::Response, request.metadata.op_code);
    response.metadata = Metadata::response_from_request(&request.metadata);
    // Programs that want recursion may ignore a server without it; there is nothing that would need it here.
    response.metadata.recursion_available = request.metadata.recursion_desired;
    if let Some(edns) = &request.edns {
        let mut own = hickory_proto::op::Edns::new();
        own.set_max_payload(edns.max_payload().max(512));
        response.set_edns(own);
    }
    response.add_queries(request.queries.iter().cloned());
    match (request.metadata.op_code, request.queries.as_slice()) {
        (OpCode::Query, [query]) => fill(zone, query, &mut response),
        (OpCode::Query, _) => response.metadata.response_code = ResponseCode::FormErr,
        _ => response.metadata.response_code = ResponseCode::NotImp,
    }
    let bytes = response.to_vec().ok()?;
    let limit = limit.map(|limit| limit.max(request.max_payload().into()));
    if limit.is_some_and(|limit| bytes.len() > limit) { response.truncate().to_vec().ok() } else { Some(bytes) }
}

fn fill(zone: &Zone, query: &Query, response: &mut Message) {
    response.metadata.authoritative = true;
    let asked = query.name();
    let name = asked.to_ascii().to_lowercase();
    let found = zone.find(name.trim_end_matches('.'));
    match (found, query.query_type()) {
        (Found::Addresses(mut addresses), RecordType::A | RecordType::ANY) => {
            if !addresses.is_empty() {
                let turn = TURN.fetch_add(1, Ordering::Relaxed) % addresses.len();
                addresses.rotate_left(turn);
            }
            let records = addresses.into_iter().map(|ip| Record::from_rdata(asked.clone(), TTL, RData::A(A(ip))));
            response.add_answers(records);
        }
        (Found::Ports(ports), RecordType::SRV | RecordType::ANY) => {
            for (port, target) in ports {
                let Ok(target_name) = Name::from_ascii(format!("{target}.")) else { continue };
                if let Found::Addresses(addresses) = zone.find(&target) {
                    let glue = |ip| Record::from_rdata(target_name.clone(), TTL, RData::A(A(ip)));
                    response.add_additionals(addresses.into_iter().map(glue));
                }
                let data = RData::SRV(SRV::new(0, 100, port, target_name));
                response.add_answer(Record::from_rdata(asked.clone(), TTL, data));
            }
        }
        (Found::Missing, _) => response.metadata.response_code = ResponseCode::NXDomain,
        _ => {}
    }
    if response.answers.is_empty()
        && let Some(soa) = soa(zone)
    {
        // Says how long "no" may be remembered (RFC 2308).
        response.add_authority(soa);
    }
}

fn soa(zone: &Zone) -> Option<Record> {
    let name = |prefix: &str| Name::from_ascii(format!("{prefix}{DOMAIN}.")).ok();
    let data = SOA::new(name("ns.dns.")?, name("hostmaster.")?, zone.serial(), 7200, 1800, 86400, TTL);
    Some(Record::from_rdata(name("")?, TTL, RData::SOA(data)))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const WEB: &str = "web.shop.svc.cluster.local";

    fn zone(count: u8) -> Zone {
        let mut zone = Zone::default();
        zone.set_cluster([(WEB.to_owned(), (0..count).map(|last| Ipv4Addr::new(10, 244, 0, last)).collect())].into());
        zone.set_cluster_ports([(format!("_http._tcp.{WEB}"), vec![(80, WEB.to_owned())])].into());
        zone
    }

    fn ask(zone: &Zone, name: &str, kind: RecordType, limit: Option<usize>) -> Message {
        let mut request = Message::query();
        request.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let answer = answer(zone, &request.to_vec().unwrap(), limit).unwrap();
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.metadata.id, request.metadata.id);
        answer
    }

    #[test]
    fn a_name_has_its_addresses_whatever_its_case() {
        let answer = ask(&zone(1), "WEB.Shop.svc.cluster.local.", RecordType::A, Some(512));
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(answer.metadata.authoritative);
        assert_eq!(answer.answers[0].data, RData::A(A(Ipv4Addr::new(10, 244, 0, 0))));
    }

    #[test]
    fn a_name_without_ipv6_exists_nevertheless() {
        let answer = ask(&zone(1), &format!("{WEB}."), RecordType::AAAA, Some(512));
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(answer.answers.is_empty());
        assert_eq!(answer.authorities.len(), 1);
        let missing = ask(&zone(1), "nobody.svc.cluster.local.", RecordType::AAAA, Some(512));
        assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    }

    #[test]
    fn srv_names_the_target_and_its_address() {
        let answer = ask(&zone(1), &format!("_http._tcp.{WEB}."), RecordType::SRV, Some(512));
        let RData::SRV(srv) = &answer.answers[0].data else { panic!("{answer:?}") };
        assert_eq!((srv.port, srv.target.to_ascii()), (80, format!("{WEB}.")));
        assert_eq!(answer.additionals.len(), 1);
    }

    #[test]
    fn what_does_not_fit_into_a_datagram_is_asked_again_over_tcp() {
        let zone = zone(100);
        let short = ask(&zone, &format!("{WEB}."), RecordType::A, Some(512));
        assert!(short.metadata.truncation && short.answers.is_empty());
        let long = ask(&zone, &format!("{WEB}."), RecordType::A, None);
        assert_eq!(long.answers.len(), 100);
    }

    #[test]
    fn garbage_is_answered_once_and_answers_never() {
        let zone = zone(1);
        let error = Message::from_vec(&answer(&zone, &[0x12, 0x34, 0xff], Some(512)).unwrap()).unwrap();
        assert_eq!((error.metadata.id, error.metadata.response_code), (0x1234, ResponseCode::FormErr));
        let response = Message::new(1, MessageType::Response, OpCode::Query);
        assert!(answer(&zone, &response.to_vec().unwrap(), Some(512)).is_none());
        assert!(answer(&zone, &[], Some(512)).is_none());
    }
}
