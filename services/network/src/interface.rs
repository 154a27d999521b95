//! The D-Bus face of the network.

use banger_bus::{Door, Service, service};
use banger_schemas::action::{LEASES, VIEW};
use banger_schemas::error::Result;
use banger_schemas::options::{Dict, Options};
use banger_schemas::vms::Port;
use zbus::interface;
use zbus::message::Header;
use zbus::wire::OwnedFd;

use crate::actor::{CloseTap, Holders, Network, OpenTap, Probe, Release, Reserve};

#[derive(Debug)]
pub(crate) struct Manager {
    service: Service,
    door: Door<Network>,
}

impl Manager {
    pub(crate) fn new(service: Service, door: Door<Network>) -> Self {
        Manager { service, door }
    }
}

#[interface(name = "dev.banger.Network1.Manager")]
impl Manager {
    /// Reserves address, MAC and host address for a VM, for as long as it exists. Repeatable: the same lease again.
    /// options: ports as (HOST:GUEST): ports that will be published on its host address.
    #[zbus(out_args("lease"))]
    async fn reserve(&self, #[zbus(header)] header: Header<'_>, holder: &str, options: Dict) -> Result<Dict> {
        let caller = self.service.authorize(&header, LEASES, &[("vm", holder)]).await?;
        let mut options = Options::new(options)?;
        let ports = options.take::<Vec<String>>("ports")?.unwrap_or_default();
        let ports = ports.iter().map(|p| p.parse()).collect::<Result<Vec<Port>>>()?;
        let uid = service::owner(&caller, &mut options)?;
        options.finish()?;
        Ok(self.door.ask(Reserve { holder: holder.parse()?, uid, ports }).await?.to_dict())
    }

    /// Makes the holder's TAP, publishes its ports, and hands the TAP out.
    #[zbus(out_args("tap"))]
    async fn open_tap(&self, #[zbus(header)] header: Header<'_>, holder: &str, options: Dict) -> Result<OwnedFd> {
        let holder = self.service.holder(&header, LEASES, holder, options).await?;
        Ok(self.door.ask(OpenTap { holder }).await?.into())
    }

    /// Takes the holder's TAP and published ports away; the lease stays. Repeatable.
    async fn close_tap(&self, #[zbus(header)] header: Header<'_>, holder: &str, options: Dict) -> Result<()> {
        let holder = self.service.holder(&header, LEASES, holder, options).await?;
        self.door.ask(CloseTap { holder }).await
    }

    /// Ends a lease. Repeatable.
    async fn release(&self, #[zbus(header)] header: Header<'_>, holder: &str, options: Dict) -> Result<()> {
        let holder = self.service.holder(&header, LEASES, holder, options).await?;
        self.door.ask(Release { holder }).await
    }

    /// Holders of leases.
    #[zbus(out_args("holders"))]
    async fn holders(&self, #[zbus(header)] header: Header<'_>) -> Result<Vec<String>> {
        self.service.authorize(&header, LEASES, &[]).await?;
        self.door.ask(Holders).await
    }

    /// Looks again whether VMs can have a network here: the sentence that says why not and what cures it, or
    /// nothing.
    #[zbus(out_args("refusal"))]
    async fn probe(&self, #[zbus(header)] header: Header<'_>) -> Result<String> {
        self.service.authorize(&header, VIEW, &[]).await?;
        self.door.ask(Probe).await
    }

    /// rootless: a user and network namespace of the user's own.
    #[zbus(property(emits_changed_signal = "const"))]
    fn mode(&self) -> String {
        "rootless".to_owned()
    }
}
