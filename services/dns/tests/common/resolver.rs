//! A resolver that sees every bit of an answer.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_server::proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Resolver {
    pub(crate) server: SocketAddr,
}

pub(crate) fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

impl Resolver {
    pub(crate) fn of(server: SocketAddr) -> Self {
        Resolver { server }
    }

    /// What comes back for these bytes within `patience`.
    pub(crate) async fn udp(&self, bytes: &[u8], patience: Duration) -> Option<Vec<u8>> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.connect(self.server).await.unwrap();
        socket.send(bytes).await.unwrap();
        let mut buffer = vec![0; 4096];
        let length = timeout(patience, socket.recv(&mut buffer)).await.ok()?.ok()?;
        buffer.truncate(length);
        Some(buffer)
    }

    pub(crate) async fn over_udp(&self, message: &Message) -> Message {
        let answer = self.udp(&message.to_vec().unwrap(), PATIENCE).await.expect("an answer over UDP");
        checked(message, &answer)
    }

    pub(crate) async fn over_tcp(&self, message: &Message) -> Message {
        let mut stream = TcpStream::connect(self.server).await.unwrap();
        self.over(&mut stream, message).await
    }

    pub(crate) async fn over(&self, stream: &mut TcpStream, message: &Message) -> Message {
        let bytes = message.to_vec().unwrap();
        stream.write_u16(bytes.len().try_into().unwrap()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let length = timeout(PATIENCE, stream.read_u16()).await.expect("an answer over TCP").unwrap();
        let mut answer = vec![0; length.into()];
        stream.read_exact(&mut answer).await.unwrap();
        checked(message, &answer)
    }

    /// Asks over both transports, which must agree.
    pub(crate) async fn ask(&self, name: &str, kind: RecordType) -> Message {
        let message = question(name, kind);
        let (udp, tcp) = (self.over_udp(&message).await, self.over_tcp(&message).await);
        assert_eq!(udp, tcp, "one answer over both transports");
        udp
    }

    /// The address of a name.
    pub(crate) async fn address(&self, name: &str) -> Option<Ipv4Addr> {
        let answer = self.over_udp(&question(name, RecordType::A)).await;
        match (answer.metadata.response_code, answer.answers.as_slice()) {
            (ResponseCode::NoError, [record]) => match &record.data {
                RData::A(address) => Some(address.0),
                other => panic!("no address: {other}"),
            },
            (ResponseCode::NXDomain, []) => None,
            _ => panic!("neither an address nor none: {answer}"),
        }
    }

    /// Waits until the name has this address, or none.
    pub(crate) async fn until(&self, name: &str, expected: Option<&str>) {
        let expected = expected.map(|a| a.parse().unwrap());
        let waited = timeout(PATIENCE, async {
            while self.address(name).await != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        if waited.await.is_err() {
            panic!("{name} should be {expected:?} but is {:?}", self.address(name).await);
        }
    }
}

/// What holds for every answer.
fn checked(question: &Message, answer: &[u8]) -> Message {
    let answer = Message::from_vec(answer).unwrap();
    assert_eq!(answer.metadata.id, question.metadata.id);
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    assert_eq!(answer.metadata.recursion_desired, question.metadata.recursion_desired);
    assert!(!answer.metadata.recursion_available && !answer.metadata.truncation);
    assert_eq!(answer.queries, question.queries);
    assert_eq!(answer.edns.is_some(), question.edns.is_some());
    assert!(answer.all_sections().all(|record| record.ttl <= 5), "nothing is remembered for long: {answer}");
    answer
}
