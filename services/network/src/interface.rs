//! The D-Bus face of the network.

use banger_bus::{Door, Service, service};
use banger_schemas::action::{LEASES, VIEW};
use banger_schemas::error::Result;
use banger_schemas::options::{Dict, Options};
use banger_schemas::vms::Port;
use zbus::interface;
use zbus::message::Header;
use zbus::wire::OwnedFd;

use crate::actor::{CloseTap, Holders, Network, Notes, OpenTap, Probe, Release, Reserve, Retract, SetNat};

#[derive(Debug)]
pub(crate) struct Manager {
    service: Service,
    door: Door<Network>,
    mode: &'static str,
}

impl Manager {
    pub(crate) fn new(service: Service, door: Door<Network>, mode: &'static str) -> Self {
        Manager { service, door, mode }
    }
}

#[interface(name = "dev.banger.Network1.Manager")]
impl Manager {
    /// Reserves address, MAC and host address for a VM, for as long as it exists. Repeatable: the same lease again.
    /// options: ports as (HOST:GUEST): ports that will be published on its host address; nat b: whether it reaches the
    /// outside (true).
    #[zbus(out_args("lease"))]
    async fn reserve(&self, #[zbus(header)] header: Header<'_>, holder: &str, options: Dict) -> Result<Dict> {
        let caller = self.service.authorize(&header, LEASES, &[("vm", holder)]).await?;
        let mut options = Options::new(options)?;
        let ports = options.take::<Vec<String>>("ports")?.unwrap_or_default();
        let ports = ports.iter().map(|p| p.parse()).collect::<Result<Vec<Port>>>()?;
        let nat = options.take::<bool>("nat")?.unwrap_or(true);
        let uid = service::owner(&caller, &mut options)?;
        options.finish()?;
        Ok(self.door.ask(Reserve { holder: holder.parse()?, uid, ports, nat }).await?.to_dict())
    }

    /// Makes the holder's TAP, publishes its ports, and hands out the TAP, and the lease as it is now: an address changes
    /// when the network of the host is set to another.
    #[zbus(out_args("tap", "lease"))]
    async fn open_tap(
        &self,
        #[zbus(header)] header: Header<'_>,
        holder: &str,
        options: Dict,
    ) -> Result<(OwnedFd, Dict)> {
        let holder = self.service.holder(&header, LEASES, holder, options).await?;
        let (tap, lease) = self.door.ask(OpenTap { holder }).await?;
        Ok((tap.into(), lease.to_dict()))
    }

    /// Takes the holder's TAP and published ports away; the lease stays. Repeatable.
    async fn close_tap(&self, #[zbus(header)] header: Header<'_>, holder: &str, options: Dict) -> Result<()> {
        let holder = self.service.holder(&header, LEASES, holder, options).await?;
        self.door.ask(CloseTap { holder }).await
    }

    /// Lets the holder reach the outside from now on, or nothing but who talks to it from this host. Repeatable.
    async fn set_nat(&self, #[zbus(header)] header: Header<'_>, holder: &str, nat: bool, options: Dict) -> Result<()> {
        let holder = self.service.holder(&header, LEASES, holder, options).await?;
        self.door.ask(SetNat { holder, nat }).await
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

    /// What VMs' networks lack here, each as a sentence that says what helps.
    #[zbus(out_args("notes"))]
    async fn notes(&self, #[zbus(header)] header: Header<'_>) -> Result<Vec<String>> {
        self.service.authorize(&header, VIEW, &[]).await?;
        self.door.ask(Notes).await
    }

    /// Puts back everything that was changed on this host, which no VM may need any more: bridge, rules, switches of
    /// the kernel, what was said to other firewalls. For the end of an installation: until the service is started anew, no
    /// TAP is opened any more. Says what was undone. Repeatable.
    #[zbus(out_args("undone"))]
    async fn retract(&self, #[zbus(header)] header: Header<'_>, options: Dict) -> Result<Vec<String>> {
        self.service.authorize(&header, LEASES, &[]).await?;
        Options::new(options)?.finish()?;
        self.door.ask(Retract).await
    }

    /// rootless: a user and network namespace of the user's own; bridge: a bridge of the host.
    #[zbus(property(emits_changed_signal = "const"))]
    fn mode(&self) -> String {
        self.mode.to_owned()
    }
}
