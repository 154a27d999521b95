//! The table of names: owns what Vms1 said, and publishes the zone that follows from it.

use std::sync::Arc;

use actix::{Actor, Context, Handler, Message};
use banger_schemas::error::Result;
use tokio::sync::watch;

use crate::table::{Event, Table};
use crate::zone::Zone;

/// What Vms1 said, in the order it said it; published as one step.
#[derive(Message)]
#[rtype(result = "Result<()>")]
pub(crate) struct Learned(pub(crate) Vec<Event>);

/// Readers take a snapshot from the watch, so that no question waits for this actor.
pub(crate) struct Names {
    table: Table,
    zones: watch::Sender<Arc<Zone>>,
}

impl Names {
    pub(crate) fn new(zones: watch::Sender<Arc<Zone>>) -> Self {
        Names { table: Table::default(), zones }
    }
}

impl Actor for Names {
    type Context = Context<Self>;
}

impl Handler<Learned> for Names {
    type Result = Result<()>;
    fn handle(&mut self, Learned(events): Learned, _: &mut Context<Self>) -> Result<()> {
        for event in events {
            self.table.apply(event);
        }
        self.zones.send_if_modified(|zone| match zone.next(self.table.hosts()) {
            Some(next) => {
                tracing::debug!(generation = next.generation(), names = next.hosts().len(), "zone changed");
                *zone = Arc::new(next);
                true
            }
            None => false,
        });
        Ok(())
    }
}
