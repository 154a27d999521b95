//! Dns1: names of running VMs, `NAME.vm`, on a port of the loopback interface. Knows what Vms1's signals say and
//! nothing else. On a host it has systemd-resolved ask there.
#![forbid(unsafe_code)]

mod actor;
mod feed;
mod handler;
mod interface;
mod owners;
mod port;
mod resolved;
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

use resolved::Wiring;

/// Where it is on the bus.
pub const PLACE: (&str, &str) = (dns::NAME, dns::PATH);

/// The service at work: it listens and follows Vms1 as long as this lives.
#[derive(Debug)]
pub struct Running {
    _tasks: JoinSet<()>,
    wiring: Option<Wiring>,
}

impl banger_bus::service::Running for Running {
    async fn stop(self) {
        if let Some(wiring) = self.wiring {
            wiring.stop().await;
        }
    }
}

/// Builds the service: a port to answer on, the actor that owns the names, what feeds it, its face.
pub async fn start(service: Service) -> Result<Running> {
    let sockets = port::bind(dns::PORT).await?;
    let listen = sockets.address;
    let (publish, zones) = watch::channel(Arc::default());
    let (note, notes) = watch::channel(Vec::new());
    let door = Door::new(actor::Names::new(publish).start());
    let mut tasks = JoinSet::new();
    serve::spawn(&mut tasks, sockets, handler::Handler::new(zones.clone())?);
    let face = interface::Manager::new(service.clone(), listen.to_string(), zones, notes);
    service.publish(dns::PATH, face).await?;
    // A user's own names are nobody else's.
    let wiring = service.of_the_host().then(|| Wiring::start(service.clone(), listen, note));
    tasks.spawn(feed::follow(service, door));
    Ok(Running { _tasks: tasks, wiring })
}
