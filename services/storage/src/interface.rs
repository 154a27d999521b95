//! The D-Bus face of storage.

use banger_bus::{Door, Service};
use banger_schemas::action::{DISKS, VIEW};
use banger_schemas::error::Result;
use banger_schemas::options::{Dict, Options};
use banger_schemas::size;
use zbus::interface;
use zbus::message::Header;
use zbus::wire::OwnedFd;

use crate::actor::{Copy, Create, Delete, Open, Room, Storage, Usage};

#[derive(Debug)]
pub(crate) struct Manager {
    service: Service,
    door: Door<Storage>,
}

impl Manager {
    pub(crate) fn new(service: Service, door: Door<Storage>) -> Self {
        Manager { service, door }
    }
}

#[interface(name = "dev.banger.Storage1.Manager")]
impl Manager {
    /// Makes the holder's system disk and work disk, each sparse and of at most size_mib. Repeatable. options:
    /// volatile b: they need not outlive a crash of the host.
    async fn create(
        &self,
        #[zbus(header)] header: Header<'_>,
        holder: &str,
        size_mib: u64,
        options: Dict,
    ) -> Result<()> {
        let mut options = Options::new(options)?;
        let volatile = options.take("volatile")?.unwrap_or(false);
        let holder = self.service.holder(&header, DISKS, holder, options.rest()).await?;
        self.door.ask(Create { holder, size_mib: size::disk_mib(size_mib)?, volatile }).await
    }

    /// Makes the holder's disks as copies of these two, which nobody writes. Repeatable. options as of Create.
    async fn copy(
        &self,
        #[zbus(header)] header: Header<'_>,
        holder: &str,
        system: OwnedFd,
        work: OwnedFd,
        options: Dict,
    ) -> Result<()> {
        let mut options = Options::new(options)?;
        let volatile = options.take("volatile")?.unwrap_or(false);
        let holder = self.service.holder(&header, DISKS, holder, options.rest()).await?;
        self.door.ask(Copy { holder, disks: [system.into(), work.into()], volatile }).await
    }

    /// The holder's system disk and work disk, open for reading and writing.
    #[zbus(out_args("system", "work"))]
    async fn open(
        &self,
        #[zbus(header)] header: Header<'_>,
        holder: &str,
        options: Dict,
    ) -> Result<(OwnedFd, OwnedFd)> {
        let holder = self.service.holder(&header, DISKS, holder, options).await?;
        let (system, work) = self.door.ask(Open { holder }).await?;
        Ok((system.into(), work.into()))
    }

    /// Removes the holder's disks. Repeatable.
    async fn delete(&self, #[zbus(header)] header: Header<'_>, holder: &str, options: Dict) -> Result<()> {
        let holder = self.service.holder(&header, DISKS, holder, options).await?;
        self.door.ask(Delete { holder }).await
    }

    /// Holder, apparent bytes and allocated bytes of all disks.
    #[zbus(out_args("disks"))]
    async fn usage(&self, #[zbus(header)] header: Header<'_>) -> Result<Vec<(String, u64, u64)>> {
        self.service.authorize(&header, DISKS, &[]).await?;
        self.door.ask(Usage).await
    }

    /// Bytes that are free where disks live, and the bytes that are kept in reserve.
    #[zbus(out_args("free", "reserve"))]
    async fn room(&self, #[zbus(header)] header: Header<'_>) -> Result<(u64, u64)> {
        self.service.authorize(&header, VIEW, &[]).await?;
        self.door.ask(Room).await
    }
}
