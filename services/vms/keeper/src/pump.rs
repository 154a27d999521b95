//! Carries one stream between a client's socket and the guest.
//!
//! An end of one direction is passed on as such. A client that is gone altogether is passed on as a reset, so that
//! the agent does not go on writing for nobody.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_util::compat::FuturesAsyncReadCompatExt;

use crate::fds;

/// Under emulation every read costs the guest as much as a page of data.
const BUFFER: usize = 64 * 1024;

/// Copies both ways until both have ended, or one failed. Dropping the guest's stream resets what had not ended,
/// behind everything that was written.
pub(crate) async fn pump(mut client: UnixStream, guest: yamux::Stream) -> io::Result<()> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_guest, mut to_guest) = tokio::io::split(guest.compat());
    let up = async {
        let mut buffer = vec![0; BUFFER];
        while let got @ 1.. = from_client.read(&mut buffer).await? {
            to_guest.write_all(&buffer[..got]).await?;
        }
        if fds::hung_up(from_client.as_ref()) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        to_guest.shutdown().await
    };
    let down = async {
        let mut buffer = vec![0; BUFFER];
        while let got @ 1.. = from_guest.read(&mut buffer).await? {
            to_client.write_all(&buffer[..got]).await?;
        }
        to_client.shutdown().await
    };
    tokio::try_join!(up, down).map(|_| ())
}
