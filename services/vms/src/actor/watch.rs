//! Watches that report to a VM's actor: its keeper, and the client it is leased to.

use std::os::fd::OwnedFd;
use std::time::Duration;

use actix::Addr;
use banger_bus::post;
use banger_schemas::VmId;
use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::io::packet::readable;
use banger_schemas::keeper::Phase;
use futures_util::StreamExt;
use zbus::fdo::DBusProxy;
use zbus::names::BusName;

use super::messages::{ClientGone, KeeperSays, Word};
use super::vm::VmActor;
use crate::host::keeper::Keepers;

/// Between two tries to reach a keeper.
const AGAIN: Duration = Duration::from_millis(100);

/// Reports every status of the VM's keeper, and its end.
pub(super) async fn keeper(keepers: Keepers, vm: VmId, life: u64, actor: Addr<VmActor>) {
    let tell = |word| post(&actor, KeeperSays { life, word });
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
            Some(name) => name_lost(&bus, name).await,
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

/// Returns when the bus says that the name has no owner. The end of the bus is no such word.
async fn name_lost(bus: &DBusProxy<'static>, name: &str) {
    let watched: Result<()> = async {
        let mut changes = bus.receive_name_owner_changed_with_args(&[(0, name)]).await?;
        // It may have gone before the subscription.
        if !bus.name_has_owner(BusName::try_from(name).map_err(Error::internal)?).await? {
            return Ok(());
        }
        while let Some(change) = changes.next().await {
            if change.args()?.new_owner().is_none() {
                return Ok(());
            }
        }
        Err(Error::new(Kind::Unavailable, "the bus went away"))
    }
    .await;
    if let Err(error) = watched {
        tracing::warn!(%error, name, "a client's name is no longer watched; its process is");
        std::future::pending::<()>().await;
    }
}
