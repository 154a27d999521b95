//! What goes over the wire: codes, sections, transports, ports, and bytes that are no question.

mod common;

use std::net::Ipv4Addr;
use std::time::Duration;

use common::Host;
use common::resolver::{Resolver, question};
use common::vms::{Vms, running};
use hickory_server::proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::{DNSClass, Name, RData, RecordType};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

async fn with_box() -> (Host, Vms, Resolver) {
    let host = Host::serving().await;
    let vms = host.vms(&[running("box", "127.77.0.1")]).await;
    let resolver = host.resolver().await;
    resolver.until("box.vm.", Some("127.77.0.1")).await;
    (host, vms, resolver)
}

fn is_negative(answer: &Message) -> bool {
    answer.metadata.authoritative
        && answer.answers.is_empty()
        && matches!(answer.authorities.as_slice(), [soa] if soa.record_type() == RecordType::SOA && soa.name.to_string() == "vm.")
}

#[tokio::test]
async fn names_of_the_zone_are_answered_with_authority() {
    let (_host, _vms, resolver) = with_box().await;
    let answer = resolver.ask("BoX.vM.", RecordType::A).await;
    assert!(answer.metadata.authoritative);
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert_eq!(answer.answers[0].name.to_string(), "BoX.vM.", "the spelling of the question");
    assert_eq!(answer.answers[0].data, RData::A(Ipv4Addr::new(127, 77, 0, 1).into()));

    let answer = resolver.ask("box.vm.", RecordType::AAAA).await;
    assert!(answer.metadata.response_code == ResponseCode::NoError && is_negative(&answer));
    for name in ["nobody.vm.", "x.box.vm.", "_tcp.box.vm.", "*.vm."] {
        let answer = resolver.ask(name, RecordType::A).await;
        assert!(answer.metadata.response_code == ResponseCode::NXDomain && is_negative(&answer), "{answer}");
    }
}

#[tokio::test]
async fn the_apex_says_who_is_in_charge() {
    let (_host, _vms, resolver) = with_box().await;
    let soa = resolver.ask("vm.", RecordType::SOA).await;
    assert!(matches!(&soa.answers[0].data, RData::SOA(soa) if soa.minimum <= 5));
    let ns = resolver.ask("vm.", RecordType::NS).await;
    assert!(ns.metadata.authoritative && matches!(ns.answers[0].data, RData::NS(_)));
    let a = resolver.ask("vm.", RecordType::A).await;
    assert!(a.metadata.response_code == ResponseCode::NoError && is_negative(&a));
}

#[tokio::test]
async fn what_is_not_ours_is_refused() {
    let (_host, _vms, resolver) = with_box().await;
    for (name, kind) in [("example.org.", RecordType::A), (".", RecordType::NS), ("vm.", RecordType::AXFR)] {
        let answer = resolver.ask(name, kind).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused, "{name}");
        assert!(!answer.metadata.authoritative && answer.all_sections().next().is_none());
    }
    let mut chaos = question("box.vm.", RecordType::A);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(resolver.over_udp(&chaos).await.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn other_operations_are_not_implemented() {
    let (_host, _vms, resolver) = with_box().await;
    for code in [OpCode::Status, OpCode::Notify, OpCode::Update, OpCode::Unknown(6)] {
        let mut message = question("box.vm.", RecordType::SOA);
        message.metadata.op_code = code;
        assert_eq!(resolver.over_udp(&message).await.metadata.response_code, ResponseCode::NotImp, "{code}");
        assert_eq!(resolver.over_tcp(&message).await.metadata.response_code, ResponseCode::NotImp, "{code}");
    }
}

#[tokio::test]
async fn edns_is_answered_in_edns_and_only_version_0() {
    let (_host, _vms, resolver) = with_box().await;
    let mut message = question("box.vm.", RecordType::A);
    message.set_edns(Edns::new());
    let answer = resolver.over_udp(&message).await;
    assert_eq!((answer.answers.len(), answer.edns.unwrap().max_payload()), (1, 1232));
    let mut newer = Edns::new();
    newer.set_version(1);
    message.set_edns(newer);
    // 16 is BADVERS here; with a signature it would be BADSIG.
    assert_eq!(u16::from(resolver.over_udp(&message).await.metadata.response_code), 16);
}

#[tokio::test]
async fn the_longest_question_fits_a_plain_datagram() {
    let (_host, _vms, resolver) = with_box().await;
    let label = "a".repeat(61);
    let name = format!("{label}.{label}.{label}.{label}.vm.");
    let answer = resolver.ask(&name, RecordType::A).await;
    assert!(answer.metadata.response_code == ResponseCode::NXDomain && is_negative(&answer));
    assert!(answer.to_vec().unwrap().len() <= 512);
}

#[tokio::test]
async fn none_or_two_questions_are_a_form_error() {
    let (_host, _vms, resolver) = with_box().await;
    let mut two = question("box.vm.", RecordType::A);
    two.add_query(Query::query(Name::from_ascii("box.vm.").unwrap(), RecordType::AAAA));
    assert_eq!(resolver.over_udp(&two).await.metadata.response_code, ResponseCode::FormErr);
    let none = Message::new(1, MessageType::Query, OpCode::Query);
    assert_eq!(resolver.over_tcp(&none).await.metadata.response_code, ResponseCode::FormErr);
}

#[tokio::test]
async fn garbage_does_no_harm() {
    let (_host, _vms, resolver) = with_box().await;
    let short = Duration::from_millis(20);
    let good = question("box.vm.", RecordType::A).to_vec().unwrap();
    let mut garbage: Vec<Vec<u8>> = vec![vec![], vec![0], vec![0xff; 12], vec![0xff; 512], vec![0; 12], vec![0; 4096]];
    garbage.extend((0..good.len()).map(|n| good[..n].to_vec()));
    // A name that points to itself, and counts without records.
    garbage.push([&good[..12], &[0xc0, 12, 0, 1, 0, 1]].concat());
    garbage.push([&[0x12, 0x34, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &good[12..]].concat());
    // An answer is no question: two servers must not talk to each other for ever.
    garbage.push([&good[..2], &[0x80], &good[3..]].concat());
    let mut noise = 1u32;
    garbage.extend((0..100).map(|n| {
        (0..n * 3)
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                noise.to_be_bytes()[0]
            })
            .collect()
    }));
    for bytes in &garbage {
        if let Some(answer) = resolver.udp(bytes, short).await {
            let code = Message::from_vec(&answer).map(|m| m.metadata.response_code);
            assert!(!matches!(code, Ok(ResponseCode::NoError)), "{bytes:?}");
        }
        let mut stream = TcpStream::connect(resolver.server).await.unwrap();
        stream.write_u16(bytes.len().try_into().unwrap()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
    }
    assert!(resolver.udp(&garbage[garbage.len() - 101], short).await.is_none(), "an answer was answered");
    assert!(resolver.address("box.vm.").await.is_some());
    resolver.ask("box.vm.", RecordType::A).await;
}

#[tokio::test]
async fn one_connection_takes_many_questions() {
    let (_host, _vms, resolver) = with_box().await;
    let mut stream = TcpStream::connect(resolver.server).await.unwrap();
    for _ in 0..100 {
        assert_eq!(resolver.over(&mut stream, &question("box.vm.", RecordType::A)).await.answers.len(), 1);
    }
}

#[tokio::test]
async fn silent_connections_cost_only_a_wait() {
    let (_host, _vms, resolver) = with_box().await;
    let mut silent = Vec::new();
    for _ in 0..80 {
        silent.push(TcpStream::connect(resolver.server).await.unwrap());
    }
    assert!(resolver.address("box.vm.").await.is_some(), "UDP does not care");
    let mut stream = TcpStream::connect(resolver.server).await.unwrap();
    let asked = question("box.vm.", RecordType::A);
    let bytes = asked.to_vec().unwrap();
    stream.write_u16(bytes.len().try_into().unwrap()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let answered = tokio::time::timeout(Duration::from_secs(12), stream.readable()).await;
    assert!(answered.is_ok(), "those who say nothing make room");
}

#[tokio::test]
async fn a_taken_port_makes_it_try_the_next() {
    let (one, two) = (Host::serving().await, Host::serving().await);
    let (one, two) = (one.resolver().await.server, two.resolver().await.server);
    assert!(
        one.ip().is_loopback() && one.port() >= banger_schemas::dns::PORT && two.port() >= banger_schemas::dns::PORT
    );
    assert_ne!(one.port(), two.port());
}
