//! Sessions1: commands in guests. Finds the VM, writes the request and hands out the stream; then it is out of the
//! way, whatever becomes of it. Has no state, so no actor. Calls Vms1.
#![forbid(unsafe_code)]

mod interface;

use banger_bus::Service;
use banger_schemas::error::Result;
use banger_schemas::sessions;

/// Where it is on the bus.
pub const PLACE: (&str, &str) = (sessions::NAME, sessions::PATH);

/// Publishes the face.
pub async fn start(service: Service) -> Result<()> {
    service.publish(sessions::PATH, interface::Manager::new(service.clone())).await
}
