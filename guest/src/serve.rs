//! One stream, one operation: reads the request and hands it to whoever serves it.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use banger_schemas::guest::{ExecFailure, ExecOutput, Reply, Request};
use banger_schemas::io::{FrameReader, write_frame};
use tokio::io::AsyncWriteExt;

use crate::guest::Guest;
use crate::wire::Wire;
use crate::{exec, log};

/// A host that opens a stream says at once what for.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

pub(crate) async fn stream(wire: Wire, guest: &Rc<Guest>) {
    if let Err(error) = operation(wire, guest).await {
        // Everything a host can do wrong ends here, and costs it its stream.
        log::info(&format!("a stream ended: {error}"));
    }
}

async fn operation(wire: Wire, guest: &Rc<Guest>) -> io::Result<()> {
    let mut input = FrameReader::new(wire.clone());
    let mut output = wire.clone();
    let request = tokio::time::timeout(REQUEST_DEADLINE, input.expect::<Request>()).await??;
    match request {
        Request::Identify(identity) => write_frame(&mut output, &guest.identify(&identity).await).await?,
        Request::Exec(request) => match guest.refusal() {
            None => exec::serve(*request, input, wire, &guest.progress, &guest.running).await?,
            Some(refusal) => {
                write_frame(&mut output, &ExecOutput::Failed(ExecFailure::Other(refusal))).await?;
            }
        },
        Request::Prepare => write_frame(&mut output, &guest.prepare().await).await?,
        Request::Status => write_frame(&mut output, &guest.status().await).await?,
        Request::Shutdown { .. } if !guest.has_identity() => {
            write_frame(&mut output, &Reply::Refused("the guest has no identity yet".into())).await?;
        }
        Request::Shutdown { grace_ms } => {
            write_frame(&mut output, &Reply::Stopping).await?;
            output.shutdown().await?;
            let guest = guest.clone();
            tokio::task::spawn_local(async move { guest.power_off(Duration::from_millis(grace_ms.into())).await });
            return Ok(());
        }
    }
    output.shutdown().await
}
