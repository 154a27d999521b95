//! A question of the wire to the zone, and its answer back to the wire.

use std::sync::Arc;

use banger_schemas::dns::ZONE;
use banger_schemas::error::{Error, Result};
use hickory_server::net::NetError;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Edns, Header, HeaderCounts, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::rdata::{A, NS, SOA};
use hickory_server::proto::rr::{DNSClass, Name, RData, Record};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::sync::watch;

use crate::zone::{Answer, Zone};

/// Nothing is remembered anywhere: the next VM of a name has another address, and asking again costs microseconds.
const TTL: u32 = 0;
/// What a UDP message may carry (DNS flag day 2020). No answer of ours comes near 512.
const PAYLOAD: u16 = 1232;

/// Answers from the zone as it is when the question comes.
#[derive(Debug, Clone)]
pub(crate) struct Handler {
    zones: watch::Receiver<Arc<Zone>>,
    apex: Name,
    server: Name,
    contact: Name,
}

/// What goes back: a code and at most one record a section.
struct Reply {
    code: ResponseCode,
    authoritative: bool,
    answer: Option<Record>,
    authority: Option<Record>,
}

impl Reply {
    fn error(code: ResponseCode) -> Self {
        Reply { code, authoritative: false, answer: None, authority: None }
    }

    fn answer(record: Record) -> Self {
        Reply { code: ResponseCode::NoError, authoritative: true, answer: Some(record), authority: None }
    }

    /// RFC 2308: a negative answer carries the zone's SOA.
    fn negative(code: ResponseCode, soa: Record) -> Self {
        Reply { code, authoritative: true, answer: None, authority: Some(soa) }
    }
}

impl Handler {
    pub(crate) fn new(zones: watch::Receiver<Arc<Zone>>) -> Result<Self> {
        let name = |text: &str| Name::from_ascii(text).map_err(Error::internal);
        // The server's name is not below `vm`, where it could be a VM's.
        Ok(Handler {
            zones,
            apex: name(&format!("{ZONE}."))?,
            server: name("localhost.")?,
            contact: name("nobody.invalid.")?,
        })
    }

    fn reply(&self, request: &Request) -> Reply {
        if request.metadata.op_code != OpCode::Query {
            return Reply::error(ResponseCode::NotImp);
        }
        if request.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
            return Reply::error(ResponseCode::BADVERS);
        }
        let Ok(info) = request.request_info() else { return Reply::error(ResponseCode::FormErr) };
        if !matches!(info.query.query_class(), DNSClass::IN | DNSClass::ANY) {
            return Reply::error(ResponseCode::Refused);
        }
        let zone = self.zones.borrow().clone();
        match zone.answer(info.query.name(), info.query.query_type()) {
            // The question's own spelling comes back, so that clients which mix the case recognize it.
            Answer::Address(address) => {
                Reply::answer(Record::from_rdata(info.query.original().name().clone(), TTL, RData::A(A(address))))
            }
            Answer::Authority => Reply::answer(self.soa(&zone)),
            Answer::NameServer => {
                Reply::answer(Record::from_rdata(self.apex.clone(), TTL, RData::NS(NS(self.server.clone()))))
            }
            Answer::NoData => Reply::negative(ResponseCode::NoError, self.soa(&zone)),
            Answer::NoName => Reply::negative(ResponseCode::NXDomain, self.soa(&zone)),
            Answer::Refused => Reply::error(ResponseCode::Refused),
        }
    }

    fn soa(&self, zone: &Zone) -> Record {
        // Refresh, retry and expire are for secondaries, of which there are none.
        let soa = SOA::new(self.server.clone(), self.contact.clone(), zone.generation(), 60, 60, 3600, TTL);
        Record::from_rdata(self.apex.clone(), TTL, RData::SOA(soa))
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, response: R) -> ResponseInfo {
        let reply = self.reply(request);
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = reply.authoritative;
        metadata.response_code = reply.code;
        match send(request, metadata, &reply, response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "an answer could not be sent");
                Header { metadata, counts: HeaderCounts::default() }.into()
            }
        }
    }
}

async fn send<R: ResponseHandler>(
    request: &Request,
    metadata: Metadata,
    reply: &Reply,
    mut response: R,
) -> std::result::Result<ResponseInfo, NetError> {
    // RFC 6891: who speaks EDNS is answered in EDNS.
    let edns = request.edns.as_ref().map(|_| {
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD);
        edns
    });
    let builder = MessageResponseBuilder::new(&request.queries, edns.as_ref());
    response.send_response(builder.build(metadata, &reply.answer, [], &reply.authority, [])).await
}
