//! The D-Bus face of sessions.

use std::os::fd::OwnedFd as StdFd;
use std::time::Duration;

use banger_bus::effects::within;
use banger_bus::{Caller, Service};
use banger_schemas::action::{VM_MANAGE, VM_MANAGE_ALL};
use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::guest::{Exec, Request};
use banger_schemas::io::write_frame;
use banger_schemas::options::{Dict, DictBuilder, Options, TRACEPARENT};
use banger_schemas::sessions::exec_from_dict;
use banger_schemas::vms::{ManagerProxy, VmProxy};
use tracing::Instrument;
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

    /// A stream to the agent of a VM that the caller may use.
    async fn channel(&self, caller: &Caller, vm: &str) -> Result<StdFd> {
        let vms = ManagerProxy::new(self.service.connection()).await?;
        let path = vms.get(vm).await?;
        let vm = VmProxy::builder(self.service.connection()).path(path).build().await?;
        if vm.owner().await? != caller.uid {
            self.service.check(caller, VM_MANAGE_ALL, &[]).await?;
        }
        let traceparent = banger_bus::trace::traceparent();
        let options = DictBuilder::default().set_some(TRACEPARENT, traceparent).build();
        Ok(vm.open_channel(options).await?.into())
    }
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
        let options = Options::new(options)?;
        let span = tracing::info_span!("Sessions1.Exec", vm);
        banger_bus::trace::adopt(&span, options.traceparent());
        options.finish()?;
        let exec = exec_from_dict(spec)?;
        let caller = self.service.authorize(&header, VM_MANAGE, &[("vm", vm)]).await?;
        let work = async {
            let channel = within("opening a channel to the guest", ANSWER, self.channel(&caller, vm)).await?;
            within("handing the command to the guest", WRITE, request(channel, exec)).await
        };
        Ok(work.instrument(span).await?.into())
    }
}
