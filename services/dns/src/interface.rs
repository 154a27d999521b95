//! The D-Bus face of the name server. Reads the zone that is being served; changes nothing.

use std::sync::Arc;

use banger_bus::Service;
use banger_schemas::action::{VIEW, VIEW_ALL};
use banger_schemas::error::Result;
use tokio::sync::watch;
use zbus::interface;
use zbus::message::Header;

use crate::zone::Zone;

#[derive(Debug)]
pub(crate) struct Manager {
    service: Service,
    listen: String,
    zones: watch::Receiver<Arc<Zone>>,
    notes: watch::Receiver<Vec<String>>,
}

impl Manager {
    pub(crate) fn new(
        service: Service,
        listen: String,
        zones: watch::Receiver<Arc<Zone>>,
        notes: watch::Receiver<Vec<String>>,
    ) -> Self {
        Manager { service, listen, zones, notes }
    }
}

#[interface(name = "dev.banger.Dns1.Manager")]
impl Manager {
    /// Name and address of every VM that is served, whose ever it is.
    #[zbus(out_args("names"))]
    async fn list(&self, #[zbus(header)] header: Header<'_>) -> Result<Vec<(String, String)>> {
        self.service.authorize(&header, VIEW_ALL, &[]).await?;
        let zone = self.zones.borrow().clone();
        Ok(zone.hosts().map(|(name, address)| (name.to_string(), address.to_string())).collect())
    }

    /// What keeps programs of this host from finding machines by their names, each as a sentence that says what helps.
    #[zbus(out_args("notes"))]
    async fn notes(&self, #[zbus(header)] header: Header<'_>) -> Result<Vec<String>> {
        self.service.authorize(&header, VIEW, &[]).await?;
        Ok(self.notes.borrow().clone())
    }

    /// Where it listens, `ADDRESS:PORT`, UDP and TCP; empty while it does not.
    #[zbus(property(emits_changed_signal = "const"))]
    fn listen(&self) -> String {
        self.listen.clone()
    }
}
