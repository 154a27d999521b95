//! `banger vm`: one file a verb.

mod create;
mod exec;
mod life;
mod list;
mod logs;
mod run;
mod show;

use clap::Subcommand;

use crate::authorize::Ask;
use crate::client::Client;
use crate::error::{Failure, code};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Boot a fresh machine and run a command or a shell in it
    Run(run::Args),
    /// Make a machine and boot it
    Create(create::Args),
    /// Boot stopped machines
    Start(life::Refs),
    /// Shut machines down; disks and addresses are kept
    Stop(life::StopArgs),
    /// Change machines, running or not
    Set(life::SetArgs),
    /// Remove machines and everything that belongs to them
    #[command(visible_alias = "rm")]
    Delete(life::Refs),
    /// List machines
    #[command(visible_alias = "ls")]
    List(list::Args),
    /// Show all about a machine
    Show(show::Args),
    /// Run a command in a machine that is up
    Exec(exec::Args),
    /// Show a machine's console
    Logs(logs::Args),
}

pub(crate) async fn run(command: Command, ask: Ask) -> Result<u8, Failure> {
    // What needs no service is done without one.
    if let Command::Run(args) = &command
        && args.is_dry_run()
    {
        return args.dry_run();
    }
    let client = Client::connect(ask).await?;
    match command {
        Command::Run(args) => run::run(&client, args).await,
        Command::Create(args) => create::run(&client, args).await.map(|()| code::OK),
        Command::Start(refs) => life::start(&client, refs).await,
        Command::Stop(args) => life::stop(&client, args).await,
        Command::Set(args) => life::set(&client, args).await,
        Command::Delete(refs) => life::delete(&client, refs).await,
        Command::List(args) => list::run(&client, args).await.map(|()| code::OK),
        Command::Show(args) => show::run(&client, args).await.map(|()| code::OK),
        Command::Exec(args) => exec::run(&client, args).await,
        Command::Logs(args) => logs::run(&client, args).await.map(|()| code::OK),
    }
}
