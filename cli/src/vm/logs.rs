//! `banger vm logs`: the console, from the keeper to here without a service in between.

use std::os::fd::OwnedFd;

use banger_schemas::options::DictBuilder;
use tokio::io::AsyncReadExt;

use crate::client::Client;
use crate::error::Failure;
use crate::view::stdout_is_terminal;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name or id of the machine
    vm: String,
    /// Go on showing what comes
    #[arg(short, long)]
    follow: bool,
}

pub(crate) async fn run(client: &Client, args: Args) -> Result<(), Failure> {
    let vm = client.vm(&args.vm).await?;
    let options = DictBuilder::default().set("follow", args.follow).build();
    let console: zbus::wire::OwnedFd = client.call(vm.inner(), "Console", &(options,)).await?;
    let mut console = tokio::fs::File::from_std(std::fs::File::from(OwnedFd::from(console)));
    let mut buffer = vec![0; 16 * 1024];
    let mut partial = Vec::new();
    loop {
        let n = console.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        if stdout_is_terminal() {
            partial.extend_from_slice(&buffer[..n]);
            write(harmless(&mut partial).as_bytes())?;
        } else {
            write(&buffer[..n])?;
        }
    }
}

/// Takes whole characters out and leaves those that cannot drive the terminal they are shown on: no control
/// characters, C1 among them.
fn harmless(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut used = 0;
    for chunk in bytes.utf8_chunks() {
        text.extend(chunk.valid().chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')));
        used += chunk.valid().len();
        let rest = bytes.len() - used;
        // The beginning of a character whose end has not come yet stays for the next time.
        if rest == chunk.invalid().len() && rest < 4 {
            break;
        }
        used += chunk.invalid().len();
    }
    bytes.drain(..used);
    text
}

fn write(bytes: &[u8]) -> Result<(), Failure> {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_console_cannot_drive_the_terminal() {
        let mut bytes = b"a\x1b[2J\xc2\x9b2J\xff\tb\n\xc3".to_vec();
        assert_eq!(super::harmless(&mut bytes), "a[2J2J\tb\n");
        bytes.push(0xa4);
        assert_eq!(super::harmless(&mut bytes), "\u{e4}");
        assert!(bytes.is_empty());
    }
}
