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
    let console: OwnedFd = vm.console(options).await?.into();
    let mut console = tokio::fs::File::from_std(std::fs::File::from(console));
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = console.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        // What a guest writes must not drive the terminal that it is shown on.
        let harmless = |b: u8| !stdout_is_terminal() || matches!(b, b'\n' | b'\t' | b' '..=b'~' | 0x80..);
        let shown: Vec<u8> = buffer[..n].iter().copied().filter(|b| harmless(*b)).collect();
        write(&shown)?;
    }
}

fn write(bytes: &[u8]) -> Result<(), Failure> {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}
