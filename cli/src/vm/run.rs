//! `banger vm run`: a fresh machine, a workspace in it, a command or a shell.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use banger_bus::trace::options;
use banger_schemas::guest::{Exec, Stdin, Wait};
use banger_schemas::job::Progress;
use tokio::io::AsyncWriteExt;

use super::create::{Machine, Made, make};
use super::exec::{Environment, WaitFor, environment};
use crate::attach::{self, End};
use crate::client::Client;
use crate::error::{Failure, code};
use crate::progress::Line;
use crate::view::{note, out};
use crate::workspace::{Workspace, write_tar};

/// Boot a fresh machine and run a command or a shell in it
///
/// With a PATH, the git-tracked files of that repo (with the working tree's content) and its history, one commit
/// deep, are brought to /root/NAME in the machine first, and the command runs there.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A folder of a git repo to bring along
    path: Option<PathBuf>,
    /// The command and its arguments [default: a login shell]
    #[arg(last = true)]
    command: Vec<std::ffi::OsString>,
    #[command(flatten)]
    machine: Machine,
    /// Delete the machine when the command or shell ends, however it ends
    #[arg(long)]
    rm: bool,
    /// Leave at once when the machine is up
    #[arg(short, long, conflicts_with_all = ["rm", "command"])]
    detach: bool,
    /// Also bring files that git does not track and does not ignore
    #[arg(long, requires = "path")]
    include_untracked: bool,
    /// Print the files that would be brought along, and make nothing
    #[arg(long, requires = "path")]
    dry_run: bool,
    /// Set a variable of the command's environment; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<std::ffi::OsString>,
    /// What must be up before the command starts
    #[arg(long, value_enum, default_value = "system")]
    wait: WaitFor,
}

impl Args {
    pub(crate) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    pub(crate) fn dry_run(&self) -> Result<u8, Failure> {
        if let Some(workspace) = self.workspace()? {
            out(&workspace.listing())?;
        }
        Ok(code::OK)
    }

    fn workspace(&self) -> Result<Option<Workspace>, Failure> {
        self.path.as_deref().map(|path| Workspace::open(path, self.include_untracked)).transpose()
    }
}

pub(crate) async fn run(client: &Client, args: Args) -> Result<u8, Failure> {
    // What is wrong with the path is found before anything is made.
    let workspace = args.workspace()?;
    let env = environment(&args.env)?;
    let mut made = make(client, &args.machine, true, args.rm).await?;
    let outcome = inside(client, &args, &mut made, workspace, env).await;
    if args.rm {
        let removed = remove(client, &made).await;
        return outcome.and_then(|code| removed.map(|()| code));
    }
    if args.command.is_empty() {
        let name = &made.name;
        note(&format!(
            "{name} is still up: 'banger vm exec {name}' enters it, 'banger vm stop {name}' stops it, 'banger vm delete {name}' removes it"
        ));
    }
    outcome
}

async fn inside(
    client: &Client,
    args: &Args,
    made: &mut Made,
    workspace: Option<Workspace>,
    env: Environment,
) -> Result<u8, Failure> {
    let cwd = workspace.as_ref().map(Workspace::guest_path);
    if let Some(workspace) = workspace {
        made.interrupts.or(bring(client, &made.name, workspace)).await?;
    }
    if args.detach {
        out(&format!("{}\n", made.name))?;
        return Ok(code::OK);
    }
    let interactive = attach::has_terminal();
    let exec = Exec {
        argv: args.command.iter().map(|a| a.as_bytes().to_vec()).collect(),
        env,
        cwd,
        tty: (interactive && args.command.is_empty()).then(attach::terminal_size),
        stdin: Stdin::Stream,
        wait: args.wait.into(),
    };
    let stream = made.interrupts.or(attach::start(client, &made.name, &exec)).await?;
    let end = attach::streams(stream, &exec).await?;
    end.explain(&exec);
    Ok(end.code())
}

/// Brings the workspace in as a tar stream, straight from here to the guest's tar.
#[tracing::instrument(name = "bringing the files", skip_all)]
async fn bring(client: &Client, vm: &str, workspace: Workspace) -> Result<(), Failure> {
    let line = Line::new();
    let total = u64::try_from(workspace.files.len()).unwrap_or(0);
    line.show(&Progress { stage: format!("bringing {total} files"), done: 0, total: 0, unit: "bytes".into() });
    let target = workspace.guest_path();
    let script = br#"mkdir -p -- "$1" && exec tar -xpf - -C "$1""#;
    let exec = Exec {
        argv: [b"sh".as_slice(), b"-c", script, b"sh", &target].iter().map(|a| a.to_vec()).collect(),
        env: Vec::new(),
        cwd: None,
        tty: None,
        stdin: Stdin::Stream,
        wait: Wait::Agent,
    };
    let stream = attach::start(client, vm, &exec).await?;
    let (reader, writer) = tokio::io::duplex(256 * 1024);
    let writer = tokio_util::io::SyncIoBridge::new(writer);
    let packing = tokio::task::spawn_blocking(move || {
        let mut writer = writer;
        let packed = write_tar(&workspace, &mut writer);
        // An archive that was cut short must not look whole: tar in the guest then fails too.
        drop(writer.shutdown());
        packed
    });
    let mut complaints = Vec::new();
    let end = attach::run(stream, reader, tokio::io::sink(), &mut complaints, false).await;
    line.end();
    packing.await.map_err(|e| Failure::new(format!("packing the workspace failed: {e}")))??;
    complaints.flush().await?;
    match end? {
        End::Exited(0) => Ok(()),
        End::NotFound => Err(Failure::new("the image has no shell or no tar, so no files can be brought along")),
        other => Err(Failure::new(format!(
            "unpacking in the machine failed ({}): {}",
            other.code(),
            String::from_utf8_lossy(&complaints).trim()
        ))),
    }
}

#[tracing::instrument(name = "removing the machine", skip_all)]
async fn remove(client: &Client, made: &Made) -> Result<(), Failure> {
    client.order(&made.vm, "Delete", &options()).await
}
