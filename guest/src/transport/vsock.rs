//! vsock: where the kernel has it, each connection from the host is a channel of its own.

use std::io;
use std::rc::Rc;

use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener};

use crate::guest::Guest;
use crate::{channel, log};

/// Where the host finds the agent.
const PORT: u32 = 1024;
/// Connections at once; the host keeps one, and a second one while it replaces the first.
const MAX_CONNECTIONS: usize = 16;

/// Serves connections for ever; returns at once where there is no vsock.
pub(crate) async fn serve(guest: Rc<Guest>) -> io::Result<()> {
    let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, PORT))?;
    let connections = Rc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                log::error(&format!("vsock: {error}"));
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        // A local process of the guest can reach this port too, by the loopback.
        if peer.cid() != VMADDR_CID_HOST || connections.available_permits() == 0 {
            continue;
        }
        let (guest, connections) = (guest.clone(), connections.clone());
        tokio::task::spawn_local(async move {
            let _place = connections.acquire().await;
            channel::serve(stream, &guest).await;
        });
    }
}
