//! firewalld over its bus interface: newer ones own their table, so that nobody else can put a rule there. A link in the
//! zone `trusted` is let through; libvirt and podman tell it so, too.

use zbus::proxy::MethodFlags;
use zbus::{Connection, Proxy};

use crate::host::Error;

const NAME: &str = "org.fedoraproject.FirewallD1";
const PATH: &str = "/org/fedoraproject/FirewallD1";
const ZONES: &str = "org.fedoraproject.FirewallD1.zone";
const ZONE: &str = "trusted";

/// Puts the bridge into the zone, unless an administrator has put it into one; whether it had to.
pub(super) async fn trust(bus: &Connection, bridge: &str) -> Result<bool, Error> {
    if !zone_of(bus, bridge).await?.is_empty() {
        return Ok(false);
    }
    call(bus, "addInterface", &(ZONE, bridge)).await.map(|_: String| true)
}

/// Takes it out again; whether it was in.
pub(super) async fn forget(bus: &Connection, bridge: &str) -> Result<bool, Error> {
    if zone_of(bus, bridge).await? != ZONE {
        return Ok(false);
    }
    call(bus, "removeInterface", &(ZONE, bridge)).await.map(|_: String| true)
}

async fn zone_of(bus: &Connection, bridge: &str) -> Result<String, Error> {
    call(bus, "getZoneOfInterface", &(bridge,)).await
}

/// Only one that runs: what it would do at its start is not asked for.
async fn call<B>(bus: &Connection, method: &str, body: &B) -> Result<String, Error>
where
    B: serde::ser::Serialize + zbus::wire::DynamicType,
{
    let asked = async {
        let proxy = Proxy::new(bus, NAME, PATH, ZONES).await?;
        proxy.call_with_flags(method, MethodFlags::NO_AUTO_START, body).await
    };
    let failed = |message: String| Error::Op { op: "asking firewalld".to_owned(), message };
    match asked.await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(failed("no answer".to_owned())),
        Err(zbus::Error::MethodError(_, Some(message), _)) => Err(failed(message)),
        Err(error) => Err(failed(error.to_string())),
    }
}
