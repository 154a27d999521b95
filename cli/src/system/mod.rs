//! `banger system`: banger as services of this host. One file a verb; what is installed is decided in `plan`, done in
//! `exchange`, and what follows on a real host is in `host`.

mod docs;
mod exchange;
mod host;
mod install;
mod manifest;
mod plan;
mod prefix;
mod restart;
mod source;
mod status;
mod uninstall;

use clap::Subcommand;

use crate::error::{Failure, code};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Install banger as services of this host, or bring what is installed up to this version (root)
    Install(install::Args),
    /// Show what is installed, what runs, and what differs
    Status(status::Args),
    /// Restart the services that run (root); machines run on
    Restart,
    /// Take the services off this host (root)
    Uninstall(uninstall::Args),
}

pub(crate) async fn run(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Install(args) => install::run(args).await.map(|()| code::OK),
        Command::Status(args) => status::run(args).await,
        Command::Restart => restart::run().map(|()| code::OK),
        Command::Uninstall(args) => uninstall::run(args).await.map(|()| code::OK),
    }
}
