//! Watches that report to a VM's actor: its keeper, and the client it is leased to.

use std::os::fd::OwnedFd;
use std::time::Duration;

use actix::Addr;
use banger_bus::caller::gone;
use banger_bus::post;
use banger_schemas::VmId;
use banger_schemas::error::{Error, Kind};
use banger_schemas::io::packet::readable;
use banger_schemas::keeper::Phase;
use zbus::fdo::DBusProxy;

use super::messages::{ClientGone, KeeperSays, Word};
use super::vm::VmActor;
use crate::host::keeper::Keepers;

/// Between two tries to reach a keeper.
const AGAIN: Duration = Duration::from_millis(100);

/// A keeper of ours says a handful of things in all its life. One that goes on after so many has to wait after each.
const FREELY: u32 = 32;
const PAUSE: Duration = Duration::from_millis(100);

/// Reports every status of the VM's keeper, and its end.
pub(super) async fn keeper(keepers: Keepers, vm: VmId, life: u64, actor: Addr<VmActor>) {
    let tell = |word| post(&actor, KeeperSays { life, word });
    let mut said = 0u32;
    loop {
        let end = async {
            let keeper = keepers.connect(&vm).await?;
            keeper.watch().await?;
            while let Some(status) = keeper.next_status().await? {
                // Only a fresh keeper has nothing to keep: the one that had has ended.
                if status.phase == Phase::Idle {
                    return Err(Error::new(Kind::Gone, "the VM's keeper has ended"));
                }
                tell(Word::Status(status));
                said = said.saturating_add(1);
                if said > FREELY {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            // Whether it is gone, or only this connection, the next one tells.
            Ok::<(), Error>(())
        };
        match end.await {
            Ok(()) => {}
            Err(error) if error.kind == Kind::Gone => return tell(Word::Gone(error)),
            Err(error) => tell(Word::Silent(error)),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Reports the end of the client: of its process, or of its name on the bus while that bus lives.
pub(super) async fn client(bus: DBusProxy<'static>, name: Option<String>, process: OwnedFd, actor: Addr<VmActor>) {
    let left = async {
        match &name {
            Some(name) => gone(&bus, name).await,
            None => std::future::pending().await,
        }
    };
    let ended = async {
        // A pidfd that cannot be watched says nothing about its process.
        if readable(process).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = left => (),
        () = ended => (),
    }
    post(&actor, ClientGone);
}
