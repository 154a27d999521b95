//! The D-Bus face of sessions.

use std::os::fd::OwnedFd as StdFd;
use std::time::Duration;

use banger_bus::effects::within;
use banger_bus::{Caller, Service, trace};
use banger_schemas::action::{VM_MANAGE, VM_MANAGE_ALL};
use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::guest::{Exec, Request};
use banger_schemas::io::write_frame;
use banger_schemas::options::{Dict, DictBuilder, OWNER, Options};
use banger_schemas::sessions::exec_from_dict;
use banger_schemas::vms::{Details, ManagerProxy, VmProxy};
use zbus::interface;
use zbus::message::Header;
use zbus::wire::OwnedFd;

/// The request is a packet into a socket that nobody has filled.
const WRITE: Duration = Duration::from_secs(5);
/// The supervisor steps and answers.
const ANSWER: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(crate) struct Manager {
    service: Service,
}

impl Manager {
    pub(crate) fn new(service: Service) -> Self {
        Manager { service }
    }

    /// The VM that the caller means, its own before others', and what a rule can test about it.
    async fn find(&self, caller: &Caller, reference: &str) -> Result<Found> {
        let vms = ManagerProxy::new(self.service.connection()).await?;
        let own = DictBuilder::default().set(OWNER, caller.uid).build();
        let (path, absent) = match vms.get(reference, own).await.map_err(Error::from) {
            Err(absent) if absent.kind == Kind::NotFound => {
                (vms.get(reference, Dict::new()).await.map_err(|_| absent.clone())?, Some(absent))
            }
            path => (path?, None),
        };
        let vm = VmProxy::builder(self.service.connection()).path(path).build().await?;
        let details = Details::new(
            &vm.name().await?,
            vm.owner().await?,
            &vm.image().await?,
            vm.vcpus().await?,
            vm.memory_mib().await?,
            vm.disk_mib().await?,
        );
        Ok(Found { vm, details, absent })
    }

    /// Whether the caller may use it: what is another's is not there for who may not. A person may be asked.
    async fn authorize(&self, caller: &Caller, found: &Found) -> Result<()> {
        let details = found.details.pairs();
        match &found.absent {
            None => self.service.check(caller, VM_MANAGE, &details).await,
            Some(absent) => self.service.check(caller, VM_MANAGE_ALL, &details).await.map_err(|_| absent.clone()),
        }
    }
}

/// A VM that was found.
struct Found {
    vm: VmProxy<'static>,
    details: Details,
    /// What is said to who may not use it, because it is another's.
    absent: Option<Error>,
}

/// A stream to the agent of a VM.
async fn channel(vm: &VmProxy<'_>) -> Result<StdFd> {
    Ok(vm.open_channel(trace::options()).await?.into())
}

/// Writes the request, so that the stream that the client gets serves this one command.
async fn request(channel: StdFd, exec: Exec) -> Result<StdFd> {
    let broken = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::InvalidData => Error::invalid(format!("the command is too long: {e}")),
        _ => Error::new(Kind::Guest, format!("the guest's channel broke: {e}")),
    };
    let stream = std::os::unix::net::UnixStream::from(channel);
    stream.set_nonblocking(true).map_err(broken)?;
    let mut stream = tokio::net::UnixStream::from_std(stream).map_err(broken)?;
    write_frame(&mut stream, &Request::Exec(Box::new(exec))).await.map_err(broken)?;
    let stream = stream.into_std().map_err(broken)?;
    // Clients that know nothing of event loops read and write it as any file.
    stream.set_nonblocking(false).map_err(broken)?;
    Ok(stream.into())
}

#[interface(name = "dev.banger.Sessions1.Manager")]
impl Manager {
    /// Runs a command in a VM (name, id or unique beginning of an id). spec: argv aay (empty: root's login shell),
    /// env a(ayay), cwd ay, tty (qq) (rows, columns), stdin b (true), wait s (system or agent). Returns a stream
    /// socket that carries frames of the guest protocol: ExecInput to the guest, ExecOutput from it. No service
    /// sits in between: it outlives them all.
    #[zbus(out_args("stream"))]
    async fn exec(&self, #[zbus(header)] header: Header<'_>, vm: &str, spec: Dict, options: Dict) -> Result<OwnedFd> {
        Options::new(options)?.finish()?;
        let exec = exec_from_dict(spec)?;
        let caller = self.service.caller(&header).await?;
        let found = within("finding the machine", ANSWER, self.find(&caller, vm)).await?;
        self.authorize(&caller, &found).await?;
        let channel = within("opening a channel to the guest", ANSWER, channel(&found.vm)).await?;
        Ok(within("handing the command to the guest", WRITE, request(channel, exec)).await?.into())
    }
}
