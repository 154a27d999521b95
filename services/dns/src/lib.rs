//! Dns1: names of running VMs, `NAME.vm`, on a port of the loopback interface. Knows what Vms1's signals say and
//! nothing else; calls nobody to change anything.
#![forbid(unsafe_code)]

mod actor;
mod feed;
mod handler;
mod interface;
mod port;
mod serve;
mod signals;
mod table;
mod zone;

use std::sync::Arc;

use actix::Actor;
use banger_bus::{Door, Service};
use banger_schemas::dns;
use banger_schemas::error::Result;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Where it is on the bus.
pub const PLACE: (&str, &str) = (dns::NAME, dns::PATH);

/// The service at work: it listens and follows Vms1 as long as this lives.
#[derive(Debug)]
pub struct Running {
    _tasks: JoinSet<()>,
}

impl banger_bus::service::Running for Running {
    async fn stop(self) {}
}

/// Builds the service: a port to answer on, the actor that owns the names, what feeds it, its face.
pub async fn start(service: Service) -> Result<Running> {
    let sockets = port::bind(dns::PORT).await?;
    let listen = sockets.address.to_string();
    let (publish, zones) = watch::channel(Arc::default());
    let door = Door::new(actor::Names::new(publish).start());
    let mut tasks = JoinSet::new();
    serve::spawn(&mut tasks, sockets, handler::Handler::new(zones.clone())?);
    service.publish(dns::PATH, interface::Manager::new(service.clone(), listen, zones)).await?;
    tasks.spawn(feed::follow(service, door));
    Ok(Running { _tasks: tasks })
}
