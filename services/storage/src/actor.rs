//! The table of disks: one request a holder at a time, the work itself off the thread.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use banger_bus::effects::blocking;
use banger_schemas::VmId;
use banger_schemas::error::Result;
use tokio::sync::Notify;

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
#[rtype(result = "Result<()>")]
pub(crate) struct Copy {
    pub(crate) holder: VmId,
    pub(crate) disks: [OwnedFd; 2],
    /// As above.
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
    turns: Arc<Turns>,
}

impl Storage {
    pub(crate) fn new(disks: Disks) -> Self {
        Storage { disks: Arc::new(disks), turns: Arc::default() }
    }

    /// Does `work` for a holder, when what is being done for it already is over.
    fn exclusive<T: Send + 'static>(
        &self,
        holder: VmId,
        work: impl FnOnce(&Disks, &VmId) -> Result<T> + Send + 'static,
    ) -> ResponseFuture<Result<T>> {
        let (disks, turns) = (self.disks.clone(), self.turns.clone());
        Box::pin(async move {
            let turn = Turn::of(turns, holder).await;
            // The turn goes along: the work goes on even when nobody waits for it any more.
            blocking(move || work(&disks, &turn.holder)).await
        })
    }
}

/// Holders that are worked on.
#[derive(Default)]
struct Turns {
    taken: Mutex<HashSet<VmId>>,
    over: Notify,
}

/// A holder's turn, as long as this lives.
struct Turn {
    holder: VmId,
    turns: Arc<Turns>,
}

impl Turn {
    async fn of(turns: Arc<Turns>, holder: VmId) -> Self {
        loop {
            // Listens before it looks, so that no end is missed.
            let over = turns.over.notified();
            if turns.taken.lock().is_ok_and(|mut taken| taken.insert(holder.clone())) {
                break;
            }
            over.await;
        }
        Turn { holder, turns }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Ok(mut taken) = self.turns.taken.lock() {
            taken.remove(&self.holder);
        }
        self.turns.over.notify_waiters();
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

impl Handler<Copy> for Storage {
    type Result = ResponseFuture<Result<()>>;
    fn handle(&mut self, message: Copy, _: &mut Context<Self>) -> Self::Result {
        let durable = !message.volatile;
        self.exclusive(message.holder, move |disks, holder| disks.copy(holder, message.disks, durable))
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

#[cfg(test)]
mod tests {
    use super::*;
    use actix::System;
    use banger_bus::Door;

    #[test]
    fn requests_for_one_holder_wait_for_each_other() {
        let folder = std::env::temp_dir().join(format!("banger-turns-{}", std::process::id()));
        System::new().block_on(async {
            let door = Door::patient(Storage::new(Disks::open(folder.clone()).unwrap()).start());
            let holder: VmId = "abcdefghij".parse().unwrap();
            let create = || door.ask(Create { holder: holder.clone(), size_mib: 64, volatile: true });
            let delete = || door.ask(Delete { holder: holder.clone() });
            let outcome = tokio::join!(create(), delete(), create(), delete());
            assert_eq!(outcome, (Ok(()), Ok(()), Ok(()), Ok(())));
            assert_eq!(door.ask(Usage).await, Ok(vec![]));
        });
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
