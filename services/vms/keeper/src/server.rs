//! The control socket: who may connect, how many, and when the keeper has nothing left to keep.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use std::time::Duration;

use banger_schemas::io::packet::PacketListener;
use nix::sys::socket::{UnixAddr, getsockname};
use nix::sys::stat::fstat;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_local;

use crate::connection;
use crate::life::Order;
use crate::vm::Vm;

/// Connections at once; more are closed unheard.
const MAX_CONNECTIONS: usize = 32;
/// What a VMM gets to end in order when the keeper is told to.
const GRACE: Duration = Duration::from_secs(1);
/// Before accepting is tried again when descriptors ran out.
const PAUSE: Duration = Duration::from_millis(100);

/// Who may talk to the keeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peers(Vec<u32>);

impl Peers {
    /// Root, ourselves, and whoever made the socket: under systemd it is a file that belongs to the supervisor.
    pub fn of(listener: &(impl AsFd + AsRawFd)) -> Self {
        let mut uids = vec![0, nix::unistd::geteuid().as_raw()];
        uids.extend(fstat(listener.as_fd()).ok().map(|made| made.st_uid));
        let address = getsockname::<UnixAddr>(listener.as_raw_fd()).ok();
        let file = address.as_ref().and_then(UnixAddr::path).and_then(|path| std::fs::symlink_metadata(path).ok());
        uids.extend(file.map(|file| file.uid()));
        Peers(uids)
    }

    fn admit(&self, uid: u32) -> bool {
        self.0.contains(&uid)
    }
}

/// Serves the socket until the VM has ended, or nobody wanted one.
pub async fn serve(listener: PacketListener, peers: Peers, patience: Duration) -> io::Result<()> {
    let vm = Vm::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let accepting = accept(&listener, &peers, &vm);
    let terminated = async {
        terminate.recv().await;
        vm.end(Order::Quit(GRACE)).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = accepting => {}
        () = terminated => {}
        () = vm.over() => {}
        () = vm.unwanted(patience) => tracing::warn!("no launch came"),
    }
    Ok(())
}

async fn accept(listener: &PacketListener, peers: &Peers, vm: &Rc<Vm>) {
    let connections = Rc::new(Cell::new(0usize));
    loop {
        let Ok(socket) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Ok((pid, uid)) = socket.peer() else { continue };
        if !peers.admit(uid) {
            tracing::warn!(pid, uid, "refused a connection");
            continue;
        }
        if connections.get() == MAX_CONNECTIONS {
            continue;
        }
        connections.set(connections.get() + 1);
        let (vm, connections) = (vm.clone(), connections.clone());
        spawn_local(async move {
            connection::attend(socket, vm).await;
            connections.set(connections.get() - 1);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};

    #[test]
    fn only_root_and_the_sockets_owner_are_heard() {
        let address = SocketAddr::from_abstract_name(std::process::id().to_string()).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let me = nix::unistd::geteuid().as_raw();
        let peers = Peers::of(&listener);
        assert!(peers.admit(0) && peers.admit(me));
        assert!(!peers.admit(me + 1));
    }
}
