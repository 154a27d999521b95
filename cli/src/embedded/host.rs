//! The background process: a bus, and a thread a service.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread::JoinHandle;

use banger_bus::service::{self, Address, Running};
use banger_bus::{Dirs, Service, settings};
use banger_schemas::error::{Error, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tokio::sync::watch;

use super::idle;
use crate::client::escape;

/// Serves until nothing needs it, or SIGTERM. Says on stdout how the start went.
pub(crate) fn serve() -> ExitCode {
    let settings = settings::take_up(settings::of_user());
    banger_bus::trace::init("banger", std::io::stderr);
    // Its own session: a closed terminal ends it no more than it ends a VM.
    nix::unistd::setsid().ok();
    // Who could mend a mistake in them is there to be told.
    match settings.and_then(|()| host()) {
        Ok(Outcome::Served) => ExitCode::SUCCESS,
        Ok(Outcome::Taken) => {
            say("taken");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(%error, "the services cannot start");
            say(&format!("failed {}", error.message.replace('\n', " ")));
            ExitCode::FAILURE
        }
    }
}

/// One line to whoever started this; nobody may be listening any more.
fn say(line: &str) {
    let mut stdout = std::io::stdout();
    drop(writeln!(stdout, "{line}").and_then(|()| stdout.flush()));
}

/// What became of the wish to serve.
enum Outcome {
    Served,
    /// Somebody else serves in this runtime folder.
    Taken,
}

fn host() -> Result<Outcome> {
    let dirs = Dirs::of_user()?;
    dirs.prepare()?;
    let Some(_lock) = lock(&dirs.runtime.join("lock"))? else { return Ok(Outcome::Taken) };
    let socket = dirs.bus_socket()?;
    let address = Address::At(format!("unix:path={}", escape(&socket)));
    let (stop_bus, bus_stopped) = watch::channel(false);
    let bus = bus(&socket, bus_stopped)?;
    let (stop, stopped) = watch::channel(false);
    let outcome = Mesh { dirs, address, stopped }.run(&stop);
    // Clients that come now find no socket and start the next one, which waits for the lock.
    drop(std::fs::remove_file(&socket));
    // The bus goes last: services take their leave on it.
    stop_bus.send_replace(true);
    drop(bus.join());
    outcome.map(|()| Outcome::Served)
}

/// Only one process a user. The lock is the file's, not its existence: a killed process leaves none.
fn lock(path: &Path) -> Result<Option<Flock<File>>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    let file = file.map_err(|e| Error::internal(format!("cannot open {}: {e}", path.display())))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(Error::internal(format!("cannot lock {}: {errno}", path.display()))),
    }
}

/// The private bus, on a thread of its own.
fn bus(socket: &Path, mut stopped: watch::Receiver<bool>) -> Result<JoinHandle<()>> {
    match std::fs::remove_file(socket) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::internal(format!("cannot remove the stale {}: {e}", socket.display())));
        }
        _ => {}
    }
    let address = format!("unix:path={}", escape(socket));
    let (tell, told) = mpsc::channel();
    let serve = async move {
        let mut bus = match busd::bus::Bus::for_address(Some(&address)).await {
            Ok(bus) => bus,
            Err(error) => return drop(tell.send(Err(Error::internal(format!("the bus cannot start: {error:#}"))))),
        };
        drop(tell.send(Ok(())));
        tokio::select! {
            ended = bus.run() => tracing::error!(?ended, "the bus ended"),
            _ = stopped.wait_for(|stop| *stop) => (),
        }
    };
    let thread = spawn("bus", move || match current_thread() {
        Ok(runtime) => runtime.block_on(serve),
        Err(error) => tracing::error!(%error, "the bus has no runtime"),
    })?;
    told.recv().map_err(|_| Error::internal("the bus ended before it began"))??;
    Ok(thread)
}

fn current_thread() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::internal)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(Error::internal)
}

/// The six services.
struct Mesh {
    dirs: Dirs,
    address: Address,
    stopped: watch::Receiver<bool>,
}

impl Mesh {
    fn run(&self, stop: &watch::Sender<bool>) -> Result<()> {
        let runtime = current_thread()?;
        // Heard from here on: whoever was told "ready" may ask for the end at once.
        let terminated = {
            let _entered = runtime.enter();
            service::terminated()
        };
        let mut threads = Vec::new();
        let started = self.start(&mut threads);
        let outcome = match started {
            Ok(()) => {
                say("ready");
                runtime.block_on(idle::wait(&self.address, terminated))
            }
            Err(error) => Err(error),
        };
        stop.send_replace(true);
        // In reverse: whoever asks stops before those who are asked.
        for thread in threads.into_iter().rev() {
            drop(thread.join());
        }
        outcome
    }

    /// Those who are asked first: a VM that is found again may need them at once.
    fn start(&self, threads: &mut Vec<JoinHandle<()>>) -> Result<()> {
        let state = self.dirs.state.clone();
        let storage = self.service(banger_storage::PLACE, async move |s| banger_storage::start(s, &state).await)?;
        let dirs = self.dirs.clone();
        let network = self.service(banger_network::PLACE, async move |s| banger_network::start(s, &dirs).await)?;
        let dirs = self.dirs.clone();
        let images = self.service(banger_images::PLACE, async move |s| banger_images::start(s, &dirs).await)?;
        self.await_start(threads, [storage, network, images])?;
        let dirs = self.dirs.clone();
        let vms = self.service(banger_vms::PLACE, async move |s| banger_vms::start(s, &dirs).await)?;
        let dns = self.service(banger_dns::PLACE, banger_dns::start)?;
        let sessions = self.service(banger_sessions::PLACE, banger_sessions::start)?;
        self.await_start(threads, [vms, dns, sessions])
    }

    fn await_start<const N: usize>(&self, threads: &mut Vec<JoinHandle<()>>, started: [Started; N]) -> Result<()> {
        let mut outcome = Ok(());
        for one in started {
            threads.push(one.thread);
            let told = one.told.recv().unwrap_or_else(|_| Err(Error::internal("a service ended before it began")));
            outcome = outcome.and(told);
        }
        outcome
    }

    fn service<T, F, Fut>(&self, place: (&'static str, &'static str), start: F) -> Result<Started>
    where
        F: FnOnce(Service) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>>,
        T: Running,
    {
        let address = self.address.clone();
        let mut stopped = self.stopped.clone();
        let (tell, told) = mpsc::channel();
        let name = place.0.rsplit('.').next().unwrap_or(place.0);
        let thread = spawn(name, move || {
            let ready = |outcome: &Result<()>| drop(tell.send(outcome.clone()));
            let shutdown = async move { drop(stopped.wait_for(|stop| *stop).await) };
            if let Err(error) = service::run(&address, place, start, ready, shutdown) {
                tracing::error!(service = place.0, %error, "did not start");
            }
        })?;
        Ok(Started { thread, told })
    }
}

struct Started {
    thread: JoinHandle<()>,
    told: mpsc::Receiver<Result<()>>,
}
