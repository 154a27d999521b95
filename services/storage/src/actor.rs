//! The table of disks: one request a holder at a time, the work itself off the thread.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use banger_bus::effects::blocking;
use banger_schemas::VmId;
use banger_schemas::error::{Error, Kind, Result};

use crate::disks::Disks;

#[derive(Message)]
#[rtype(result = "Result<()>")]
pub(crate) struct Create {
    pub(crate) holder: VmId,
    pub(crate) size_mib: u64,
    /// Not synced to the disk.
    pub(crate) volatile: bool,
}

#[derive(Message)]
#[rtype(result = "Result<(OwnedFd, OwnedFd)>")]
pub(crate) struct Open {
    pub(crate) holder: VmId,
}

#[derive(Message)]
#[rtype(result = "Result<()>")]
pub(crate) struct Delete {
    pub(crate) holder: VmId,
}

#[derive(Message)]
#[rtype(result = "Result<Vec<(String, u64, u64)>>")]
pub(crate) struct Usage;

#[derive(Message)]
#[rtype(result = "Result<(u64, u64)>")]
pub(crate) struct Room;

/// Owns the disks. What is changing is the set of holders that are worked on; the rest is on the disk.
pub(crate) struct Storage {
    disks: Arc<Disks>,
    busy: Arc<Mutex<HashSet<VmId>>>,
}

impl Storage {
    pub(crate) fn new(disks: Disks) -> Self {
        Storage { disks: Arc::new(disks), busy: Arc::default() }
    }

    /// Does `work` for a holder, unless something is being done for it already.
    fn exclusive<T: Send + 'static>(
        &self,
        holder: VmId,
        work: impl FnOnce(&Disks, &VmId) -> Result<T> + Send + 'static,
    ) -> ResponseFuture<Result<T>> {
        let claim = Claim::take(&self.busy, holder);
        let disks = self.disks.clone();
        Box::pin(async move {
            let claim = claim?;
            blocking(move || work(&disks, &claim.holder)).await
        })
    }
}

/// A holder is being worked on as long as this lives, wherever the work ends.
struct Claim {
    holder: VmId,
    busy: Arc<Mutex<HashSet<VmId>>>,
}

impl Claim {
    fn take(busy: &Arc<Mutex<HashSet<VmId>>>, holder: VmId) -> Result<Self> {
        let fresh = busy.lock().is_ok_and(|mut b| b.insert(holder.clone()));
        if fresh {
            Ok(Claim { holder, busy: busy.clone() })
        } else {
            Err(Error::new(Kind::Busy, format!("the disks of {holder} are being worked on")))
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Ok(mut busy) = self.busy.lock() {
            busy.remove(&self.holder);
        }
    }
}

impl Actor for Storage {
    type Context = Context<Self>;
}

impl Handler<Create> for Storage {
    type Result = ResponseFuture<Result<()>>;
    fn handle(&mut self, message: Create, _: &mut Context<Self>) -> Self::Result {
        let durable = !message.volatile;
        self.exclusive(message.holder, move |disks, holder| disks.create(holder, message.size_mib, durable))
    }
}

impl Handler<Open> for Storage {
    type Result = ResponseFuture<Result<(OwnedFd, OwnedFd)>>;
    fn handle(&mut self, message: Open, _: &mut Context<Self>) -> Self::Result {
        self.exclusive(message.holder, Disks::open_pair)
    }
}

impl Handler<Delete> for Storage {
    type Result = ResponseFuture<Result<()>>;
    fn handle(&mut self, message: Delete, _: &mut Context<Self>) -> Self::Result {
        let deleted = self.exclusive(message.holder, Disks::delete);
        let disks = self.disks.clone();
        Box::pin(async move {
            deleted.await?;
            // Nobody waits for the blocks to be freed; what a crash leaves, the next start removes.
            tokio::task::spawn_blocking(move || disks.bury());
            Ok(())
        })
    }
}

impl Handler<Usage> for Storage {
    type Result = ResponseFuture<Result<Vec<(String, u64, u64)>>>;
    fn handle(&mut self, _: Usage, _: &mut Context<Self>) -> Self::Result {
        let disks = self.disks.clone();
        Box::pin(blocking(move || disks.usage()))
    }
}

impl Handler<Room> for Storage {
    type Result = ResponseFuture<Result<(u64, u64)>>;
    fn handle(&mut self, _: Room, _: &mut Context<Self>) -> Self::Result {
        let disks = self.disks.clone();
        Box::pin(blocking(move || disks.room()))
    }
}
