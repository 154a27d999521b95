//! Which banger is spoken to: the system's if and only if it is there; else this user's own.

use banger_bus::service::Address;
use banger_bus::trace::options;
use banger_bus::{Dirs, again};
use banger_schemas::error::Error;
use banger_schemas::options::Dict;
use banger_schemas::{error::Kind, vms};
use zbus::Connection;
use zbus::fdo::{self, DBusProxy};
use zbus::wire::{DynamicDeserialize, DynamicType, OwnedObjectPath};

use crate::authorize::{Ask, Asker};
use crate::embedded;
use crate::error::Failure;
use crate::progress;

/// Which services are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    System,
    Embedded,
}

impl Mode {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Mode::System => "system",
            Mode::Embedded => "embedded",
        }
    }
}

/// A connection to a banger.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) bus: Connection,
    pub(crate) mode: Mode,
    asker: Asker,
}

impl Client {
    /// Connects; starts embedded mode where there is no system service.
    #[tracing::instrument(name = "finding the services", skip_all)]
    pub(crate) async fn connect(ask: Ask) -> Result<Self, Failure> {
        if let Some(bus) = system_bus_with_banger().await {
            return Ok(Client { bus, mode: Mode::System, asker: Asker::new(ask) });
        }
        let bus = embedded::connect_or_start(&Dirs::of_user()?).await?;
        // There is no polkit behind it.
        Ok(Client { bus, mode: Mode::Embedded, asker: Asker::new(Ask::Nobody) })
    }

    /// Calls a method that somebody may have to be asked about, and that may be called twice.
    pub(crate) async fn call<B, R>(&self, proxy: &zbus::Proxy<'_>, method: &'static str, body: &B) -> zbus::Result<R>
    where
        B: serde::Serialize + DynamicType,
        R: for<'d> DynamicDeserialize<'d>,
    {
        again(|| self.call_once(proxy, method, body)).await
    }

    /// The same for one that may not.
    pub(crate) async fn call_once<B, R>(
        &self,
        proxy: &zbus::Proxy<'_>,
        method: &'static str,
        body: &B,
    ) -> zbus::Result<R>
    where
        B: serde::Serialize + DynamicType,
        R: for<'d> DynamicDeserialize<'d>,
    {
        self.asker.call(proxy, method, body).await
    }

    /// Has a VM do something, and waits until it is done.
    pub(crate) async fn order(&self, vm: &vms::VmProxy<'_>, verb: &'static str, options: &Dict) -> Result<(), Failure> {
        match self.call(vm.inner(), verb, &(options,)).await {
            Ok(job) => progress::wait(&self.bus, vms::NAME, job).await.map(drop),
            // The answer to the first call was lost, and what it asked for is done.
            Err(zbus::Error::FDO(error)) if verb == "Delete" && matches!(*error, fdo::Error::UnknownObject(_)) => {
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) async fn vms(&self) -> Result<vms::ManagerProxy<'static>, Failure> {
        Ok(vms::ManagerProxy::new(&self.bus).await?)
    }

    /// The VM that a reference names.
    pub(crate) async fn vm(&self, reference: &str) -> Result<vms::VmProxy<'static>, Failure> {
        let path = self.call(self.vms().await?.inner(), "Get", &(reference, options())).await?;
        self.vm_at(path).await
    }

    pub(crate) async fn vm_at(&self, path: OwnedObjectPath) -> Result<vms::VmProxy<'static>, Failure> {
        Ok(vms::VmProxy::builder(&self.bus).path(path).build().await?)
    }
}

/// The system bus, if Vms1 is owned or can be activated there. No bus, or none with banger, is ordinary; an
/// activation that fails shows when the first method is called.
async fn system_bus_with_banger() -> Option<Connection> {
    let bus = Address::System.connect().await.ok()?;
    let dbus = DBusProxy::new(&bus).await.ok()?;
    let names = [dbus.list_names().await.ok()?, dbus.list_activatable_names().await.ok()?];
    names.iter().flatten().any(|name| name.as_str() == vms::NAME).then_some(bus)
}

/// A connection to the embedded bus of this user, if one is served there.
pub(crate) async fn embedded_bus(dirs: &Dirs) -> Result<Connection, Error> {
    let socket = dirs.bus_socket()?;
    let bus = Address::At(format!("unix:path={}", escape(&socket))).connect().await?;
    let dbus = DBusProxy::new(&bus).await?;
    let name = vms::NAME.try_into().map_err(Error::internal)?;
    if dbus.name_has_owner(name).await? {
        Ok(bus)
    } else {
        Err(Error::new(Kind::Unavailable, "the services have not started yet"))
    }
}

/// A path in a D-Bus address: all but `[-0-9A-Za-z_/.\*]` is escaped as `%XX` (D-Bus specification, "Server
/// Addresses").
pub(crate) fn escape(path: &std::path::Path) -> String {
    use std::fmt::Write;
    use std::os::unix::ffi::OsStrExt;
    let mut text = String::new();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-_/.\\*".contains(byte) {
            text.push(char::from(*byte));
        } else {
            // Writing to a string cannot fail.
            write!(text, "%{byte:02x}").ok();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_escaped() {
        assert_eq!(escape(std::path::Path::new("/run/user/1000/a b,c")), "/run/user/1000/a%20b%2cc");
    }
}
