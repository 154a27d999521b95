//! `banger`: throw-away Linux machines in one command. A plain D-Bus client; and, where no system service is
//! installed, the host of embedded mode.
#![forbid(unsafe_code)]

mod attach;
mod authorize;
mod check;
mod client;
mod doctor;
mod embedded;
mod error;
mod image;
mod observe;
mod progress;
mod system;
mod template;
mod trace;
mod view;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use authorize::Ask;
use error::{Failure, code};

/// Throw-away Linux machines in one command.
///
/// 'banger vm run' boots a fresh virtual machine and opens a shell in it; with a command it runs that and passes on
/// its exit status. Nothing needs to be installed or configured first: images and kernels are made when they are
/// needed, and without a system service banger starts its services itself.
#[derive(Parser)]
#[command(name = "banger", version, propagate_version = false, after_help = EXIT_CODES)]
struct Cli {
    /// Never ask for a password: be refused instead
    #[arg(long, global = true)]
    no_ask: bool,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit status: that of the command that ran in the machine (128+N if signal N ended it); \
     125 if banger failed, 126 if the command cannot be executed, 127 if it was not found, 130 if interrupted, \
     2 if the command line is wrong.";

#[derive(Subcommand)]
enum Command {
    /// Make, run, list and remove machines
    Vm {
        #[command(subcommand)]
        command: vm::Command,
    },
    /// List, fetch and remove root file systems
    Image {
        #[command(subcommand)]
        command: image::ImageCommand,
    },
    /// List and fetch kernels
    Kernel {
        #[command(subcommand)]
        command: image::KernelCommand,
    },
    /// List and remove what new machines go on from in place of a boot
    Template {
        #[command(subcommand)]
        command: template::TemplateCommand,
    },
    /// Show how banger runs here, what is missing, and what cures it
    Doctor(doctor::Args),
    /// Install banger as services of this host, and look after them
    System {
        #[command(subcommand)]
        command: system::Command,
    },
    Trace(trace::Args),
    /// Show numbers of the services that run, as Prometheus reads them
    Metrics,
    /// Serve all of banger to this user on a private bus (started by itself when needed)
    #[command(hide = true)]
    Embedded,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ask = if cli.no_ask { Ask::Nobody } else { Ask::Terminal };
    let outcome = match cli.command {
        Command::Embedded => return embedded::serve(),
        command => runtime().and_then(|runtime| {
            let outcome = runtime.block_on(run(command, ask));
            // A read of the terminal may still be waiting on a worker thread: it is not waited for, as a drop would.
            runtime.shutdown_background();
            outcome
        }),
    };
    std::process::exit(match outcome {
        Ok(code) => code.into(),
        Err(failure) => failure.report().into(),
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

async fn run(command: Command, ask: Ask) -> Result<u8, Failure> {
    match command {
        Command::Vm { command } => vm::run(command, ask).await,
        Command::Image { command } => image::run_image(command, ask).await.map(|()| code::OK),
        Command::Kernel { command } => image::run_kernel(command, ask).await.map(|()| code::OK),
        Command::Template { command } => template::run(command, ask).await.map(|()| code::OK),
        Command::Doctor(args) => doctor::run(args).await,
        Command::System { command } => system::run(command).await,
        Command::Trace(args) => trace::run(args, ask).await,
        Command::Metrics => trace::metrics().await,
        Command::Embedded => Ok(code::OK),
    }
}
