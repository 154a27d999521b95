//! A peer that knows the documents and nothing else: it takes a call that a document describes, and answers with a
//! meaningless value of the type that the document says.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use zbus::message::Type;
use zbus::wire::Variant;
use zbus::{Connection, Guid, Message, MessageStream, Signature, connection};
use zbus_xml::{Arg, ArgDirection, Interface};

use crate::{documents, placeholder};

/// The mirror, seen from its other side.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) connection: Connection,
    asked: Arc<Mutex<BTreeSet<String>>>,
}

impl Mirror {
    pub(crate) async fn new() -> Self {
        let (here, there) = UnixStream::pair().unwrap();
        let guid = Guid::generate();
        let server = connection::Builder::unix_stream(there).server(guid).p2p().build();
        let client = connection::Builder::unix_stream(here).p2p().build();
        let (server, client) = tokio::join!(server, client);
        let asked = Arc::<Mutex<BTreeSet<String>>>::default();
        tokio::spawn(reflect(server.unwrap(), asked.clone()));
        Mirror { connection: client.unwrap(), asked }
    }

    /// What was asked so far, as `interface.member`.
    pub(crate) fn asked(&self) -> BTreeSet<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn reflect(server: Connection, asked: Arc<Mutex<BTreeSet<String>>>) {
    let interfaces = documents::interfaces();
    let mut calls = MessageStream::from(&server);
    while let Some(Ok(call)) = futures_util::StreamExt::next(&mut calls).await {
        if call.message_type() != Type::MethodCall {
            continue;
        }
        let reply = match answer(&interfaces, &call) {
            Ok((member, values)) => {
                asked.lock().unwrap().insert(member);
                let reply = Message::method_return(&call.header());
                if values.is_empty() { reply.build(&()) } else { reply.build(&placeholder::body(values.into_iter())) }
            }
            Err(why) => Message::error(&call.header(), "dev.banger.Error.NotInTheDocuments").build(&why),
        };
        server.send(&reply.unwrap()).await.unwrap();
    }
}

type Answer = (String, Vec<Variant<'static>>);

/// The answer to a call that the documents describe.
fn answer(interfaces: &[Interface<'_>], call: &Message) -> Result<Answer, String> {
    let header = call.header();
    let (interface, member) = (header.interface().unwrap().as_str(), header.member().unwrap().as_str());
    if (interface, member) == ("org.freedesktop.DBus.Properties", "Get") {
        return property(interfaces, call);
    }
    let known = interfaces.iter().find(|i| i.name() == interface);
    let method = known.and_then(|i| i.methods().find(|m| m.name() == member));
    let method = method.ok_or_else(|| format!("there is no {interface}.{member}"))?;
    let types = |out: bool| {
        let is_out = move |arg: &&Arg<'_>| (arg.direction() == Some(ArgDirection::Out)) == out;
        method.args().iter().filter(is_out).map(Arg::ty).collect::<Vec<&Signature>>()
    };
    let expected: String = types(false).iter().map(ToString::to_string).collect();
    let got = call.body().signature().to_string_no_parens();
    if got != expected {
        return Err(format!("{interface}.{member} takes '{expected}', not '{got}'"));
    }
    Ok((format!("{interface}.{member}"), types(true).into_iter().map(placeholder::value).collect()))
}

fn property(interfaces: &[Interface<'_>], call: &Message) -> Result<Answer, String> {
    let body = call.body();
    let (interface, name): (&str, &str) = body.deserialize().map_err(|e| e.to_string())?;
    let known = interfaces.iter().find(|i| i.name() == interface);
    let property = known.and_then(|i| i.properties().find(|p| p.name() == name));
    let property = property.ok_or_else(|| format!("there is no property {interface}.{name}"))?;
    let value = Variant::Variant(Box::new(placeholder::value(property.ty())));
    Ok((format!("{interface}.{name}"), vec![value]))
}
