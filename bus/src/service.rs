//! A service on a bus: connect, serve, own the name, go in order.

use std::sync::Arc;

use banger_schemas::VmId;
use banger_schemas::action::Action;
use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::observe;
use banger_schemas::options::{Dict, OWNER, Options};
use zbus::Connection;
use zbus::connection::Builder;
use zbus::fdo::{DBusProxy, RequestNameFlags};
use zbus::message::Header;
use zbus::object_server::Interface;

use crate::authorize::{self, Authorizer, Details};
use crate::caller::{Caller, Callers};
use crate::jobs::Jobs;
use crate::objects::Tree;
use crate::observe::Observe;
use crate::settings;
use crate::watchdog::Watchdog;

/// A service that stops puts things away within this time, or leaves them to its next start.
const LEAVE: std::time::Duration = std::time::Duration::from_secs(10);

/// No call waits longer for its answer: what takes longer is a job, and a job that is waited for is asked again.
const METHOD: std::time::Duration = std::time::Duration::from_secs(60);

/// Which bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    System,
    /// A D-Bus address, such as `unix:path=…`.
    At(String),
}

impl Address {
    /// Connects; a bus that is not there is an error that says so.
    pub async fn connect(&self) -> Result<Connection> {
        let builder = match self {
            Address::System => Builder::system(),
            Address::At(address) => Builder::address(address.as_str()),
        };
        builder
            .method_timeout(METHOD)
            .build()
            .await
            .map_err(|e| Error::new(Kind::Unavailable, format!("cannot reach the bus: {e}")))
    }
}

/// A service's place on the bus. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Service {
    connection: Connection,
    bus: DBusProxy<'static>,
    name: &'static str,
    callers: Callers,
    authorizer: Arc<dyn Authorizer>,
    tree: Tree,
    jobs: Jobs,
    of_the_host: bool,
}

impl Service {
    /// Connects, without a name yet: what answers must be there before somebody can ask.
    pub async fn connect(address: &Address, name: &'static str, path: &'static str) -> Result<Self> {
        let connection = address.connect().await?;
        let bus = DBusProxy::new(&connection).await?;
        let callers = Callers::new(bus.clone());
        let authorizer = authorize::choose(address, &connection, &callers).await?;
        let tree = Tree::new(connection.clone(), path, callers.clone(), authorizer.clone()).await?;
        let jobs = Jobs::new(tree.clone(), path, callers.clone(), authorizer.clone());
        let of_the_host = *address == Address::System;
        Ok(Service { connection, bus, name, callers, authorizer, tree, jobs, of_the_host })
    }

    /// Takes the name; somebody else having it is an error, and nobody can take it from us.
    pub async fn own_name(&self) -> Result<()> {
        self.connection
            .request_name_with_flags(self.name, RequestNameFlags::DO_NOT_QUEUE)
            .await
            .map_err(|e| Error::new(Kind::InUse, format!("{} cannot be owned on this bus: {e}", self.name)))?;
        tracing::info!(name = self.name, "serving");
        Ok(())
    }

    /// Whether it serves all users of the host, on the system bus, or only the one whose process it is.
    pub fn of_the_host(&self) -> bool {
        self.of_the_host
    }

    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The bus itself.
    pub fn bus(&self) -> &DBusProxy<'static> {
        &self.bus
    }

    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// Puts an object on the bus that is everybody's.
    pub async fn publish<I: Interface>(&self, path: &str, face: I) -> Result<()> {
        self.tree.publish(path, None, face).await
    }

    /// Puts an object on the bus that nobody else sees, but those who may see everybody's.
    pub async fn publish_for<I: Interface>(&self, owner: u32, path: &str, face: I) -> Result<()> {
        self.tree.publish(path, Some(owner), face).await
    }

    /// Takes an object off the bus.
    pub async fn retire<I: Interface>(&self, path: &str) -> Result<()> {
        self.tree.retire::<I>(path).await
    }

    /// Who calls.
    pub async fn caller(&self, header: &Header<'_>) -> Result<Caller> {
        self.callers.of(header).await
    }

    /// Whether this caller sees everybody's objects.
    pub async fn shows_all(&self, caller: &Caller) -> bool {
        self.tree.shows_all(caller).await
    }

    /// Lets a caller see everybody's objects for as long as it is connected.
    pub fn show_all(&self, caller: &Caller) {
        self.tree.show_all(caller);
    }

    /// Who calls, if it may do this.
    pub async fn authorize(
        &self,
        header: &Header<'_>,
        action: &'static Action,
        details: Details<'_>,
    ) -> Result<Caller> {
        let caller = self.callers.of(header).await?;
        self.authorizer.check(&caller, action, details).await?;
        Ok(caller)
    }

    /// The VM that a peer of the mesh asks something for, where nothing else is asked for.
    pub async fn holder(
        &self,
        header: &Header<'_>,
        action: &'static Action,
        holder: &str,
        options: Dict,
    ) -> Result<VmId> {
        self.authorize(header, action, &[("vm", holder)]).await?;
        Options::new(options)?.finish()?;
        Ok(holder.parse()?)
    }

    /// Checks one more action of a caller that is known already.
    pub async fn check(&self, caller: &Caller, action: &'static Action, details: Details<'_>) -> Result<()> {
        self.authorizer.check(caller, action, details).await
    }
}

/// Whose object this is: the caller's, or the one that it names with `owner u`. For methods that peers of the mesh alone
/// may call: of anybody else it would be an argument instead of the bus's word.
pub fn owner(caller: &Caller, options: &mut Options) -> Result<u32> {
    Ok(options.take::<u32>(OWNER)?.unwrap_or(caller.uid))
}

/// What a service leaves to be put away in order when it stops.
pub trait Running {
    /// Called while the service is still on the bus.
    fn stop(self) -> impl Future<Output = ()>;
}

impl Running for () {
    async fn stop(self) {}
}

/// Runs one service on this thread until `shutdown`, or until the bus goes away. `start` builds its actors and
/// publishes its objects; what it returns lives as long as the service. `ready` hears how the start went.
pub fn run<T, F, Fut>(
    address: &Address,
    place: (&'static str, &'static str),
    start: F,
    ready: impl FnOnce(&Result<()>),
    shutdown: impl Future<Output = ()>,
) -> Result<()>
where
    F: FnOnce(Service) -> Fut,
    Fut: Future<Output = Result<T>>,
    T: Running,
{
    let (name, path) = place;
    actix::System::new().block_on(async {
        let started = async {
            let service = Service::connect(address, name, path).await?;
            let running = start(service.clone()).await?;
            service.publish(&observe::path(name), Observe::new(service.clone())).await?;
            service.own_name().await?;
            Ok((service, running))
        }
        .await;
        let (service, running) = match started {
            Ok(started) => started,
            Err(error) => {
                let outcome = Err(error);
                ready(&outcome);
                return outcome;
            }
        };
        ready(&Ok(()));
        tokio::select! {
            () = shutdown => tracing::info!(name, "stopping"),
            () = service.connection.closed() => tracing::warn!(name, "the bus went away"),
        }
        service.jobs.leave();
        let leave = async {
            running.stop().await;
            // Those who ask from now on must find the next owner, not a name without a service behind it.
            drop(service.connection.release_name(name).await);
        };
        if tokio::time::timeout(LEAVE, leave).await.is_err() {
            tracing::warn!(name, "did not take its leave in time");
        }
        Ok(())
    })
}

/// Settings and logs of a process that is a service's. It works without settings that are not understood: a mistake in one
/// of them is no reason that nobody has a machine.
pub fn init(program: &'static str, file: Result<std::path::PathBuf>) {
    let taken_up = settings::take_up(file);
    crate::trace::init(program, std::io::stderr);
    if let Err(error) = taken_up {
        tracing::error!(%error, "none of these settings hold");
    }
}

/// `main` of a service that is a process of its own: `--address ADDRESS` for another bus than the system's; ends
/// on SIGTERM and SIGINT.
pub fn main<T, F, Fut>(program: &'static str, place: (&'static str, &'static str), start: F) -> std::process::ExitCode
where
    F: FnOnce(Service) -> Fut,
    Fut: Future<Output = Result<T>>,
    T: Running,
{
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let address = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => Some(Address::System),
        ["--address", address] => Some(Address::At((*address).to_owned())),
        _ => None,
    };
    init(
        program,
        match address {
            Some(Address::At(_)) => settings::of_user(),
            _ => Ok(settings::OF_THE_HOST.into()),
        },
    );
    let Some(address) = address else {
        tracing::error!("usage: {program} [--address D-BUS-ADDRESS]");
        return std::process::ExitCode::from(2);
    };
    let outcome = Watchdog::new().map_err(Error::internal).and_then(|watchdog| {
        let shutdown = async {
            tokio::select! {
                () = terminated() => (),
                Err(error) = watchdog.feed() => tracing::error!(%error, "the watchdog cannot be fed"),
            }
        };
        run(&address, place, start, |_| (), shutdown)
    });
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "{program} cannot run");
            std::process::ExitCode::FAILURE
        }
    }
}

/// Returns at the first SIGTERM or SIGINT after this call, which is made in a runtime: none is lost between the call
/// and the first wait.
pub fn terminated() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let handlers = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async move {
        let (Ok(mut term), Ok(mut int)) = handlers else {
            // Without handlers both signals end the process by themselves.
            return std::future::pending().await;
        };
        tokio::select! {
            _ = term.recv() => (),
            _ = int.recv() => (),
        }
    }
}
