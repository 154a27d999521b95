//! Names of VMs for the whole host: systemd-resolved asks us about them, and about nothing else. It is told at the
//! bridge's link once both are there, and again when either is made anew. Taken back when we leave, and when the host's
//! own lookups got worse by it. Knows nothing of the names.

use std::net::SocketAddr;
use std::time::Duration;

use banger_bus::Service;
use banger_schemas::error::Result;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::owners::Owners;
use bridge::Bridge;
use link::{Link, Outcome};

mod bridge;
mod link;
mod programs;

const NAME: &str = "org.freedesktop.resolve1";
/// Between tries: resolved may hear of a new link after us.
const REST: Duration = Duration::from_millis(100);
const LAST_REST: Duration = Duration::from_secs(30);

/// Keeps it wired as long as this lives.
#[derive(Debug)]
pub(crate) struct Wiring {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Wiring {
    /// Begins. What is missing is told as notes.
    pub(crate) fn start(service: Service, listen: SocketAddr, notes: watch::Sender<Vec<String>>) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            while let Err(error) = keep(&service, listen, &notes, &mut stopped).await {
                tracing::warn!(%error, "names cannot be wired into the host: trying again");
                if tokio::time::timeout(LAST_REST, &mut stopped).await.is_ok() {
                    return;
                }
            }
        });
        Wiring { stop, task }
    }

    /// Takes it back.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        // It says itself what it could not do.
        drop(self.task.await);
    }
}

async fn keep(
    service: &Service,
    listen: SocketAddr,
    notes: &watch::Sender<Vec<String>>,
    stopped: &mut oneshot::Receiver<()>,
) -> Result<()> {
    let mut owners = Owners::of(service, NAME).await?;
    let bridge = Bridge::open()?;
    loop {
        let index = bridge.index();
        let link = match (&owners.now, index) {
            (Some(owner), Some(index)) => Some(Link::new(service.connection(), owner, index).await?),
            _ => None,
        };
        let nobody_asks = owners.now.is_none().then(|| {
            format!(
                "nothing on this host asks {listen} for names of machines: install systemd-resolved ('sudo apt install \
             systemd-resolved'), or have your own resolver ask there for 'vm' (dnsmasq: server=/vm/{})",
                listen.to_string().replace(':', "#")
            )
        });
        tokio::select! {
            changed = owners.changed() => changed?,
            changed = bridge.changed(index) => changed?,
            _ = &mut *stopped => {
                if let Some(link) = link
                    && let Err(error) = link.revert().await
                {
                    tracing::warn!(%error, "names stay wired into the host");
                }
                return Ok(());
            }
            never = async {
                notes.send_replace(match &link {
                    Some(link) => wire(link, listen, notes).await.into_iter().collect(),
                    None => nobody_asks.into_iter().collect(),
                });
                std::future::pending::<std::convert::Infallible>().await
            } => match never {},
        }
    }
}

/// Tells it until it is told; what there is to say.
async fn wire(link: &Link, listen: SocketAddr, notes: &watch::Sender<Vec<String>>) -> Option<String> {
    let mut rest = REST;
    loop {
        match link.wire(listen).await {
            Ok(Outcome::Wired) => {
                tracing::info!(%listen, "systemd-resolved asks here for names of machines");
                return programs::unasked();
            }
            Ok(Outcome::Worse) => {
                let note = "systemd-resolved is not told of machines' names, since this host's other lookups failed as \
                            soon as it was: name its servers by DNS= in /etc/systemd/resolved.conf (those of \
                            FallbackDNS= are for who has no others), then 'sudo systemctl restart systemd-resolved'";
                tracing::warn!(note, "taken back");
                return Some(note.to_owned());
            }
            Err(error) => {
                tracing::debug!(%error, "systemd-resolved was not told");
                if rest >= LAST_REST / 10 {
                    notes.send_replace(vec![format!("systemd-resolved is not told of machines' names: {error}")]);
                }
                tokio::time::sleep(rest).await;
                rest = (rest * 2).min(LAST_REST);
            }
        }
    }
}
