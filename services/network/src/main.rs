//! Network1 as a process of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    banger_bus::service::main("banger-network", banger_network::PLACE, async |service| {
        banger_network::start(service, &banger_bus::Dirs::of_service()?).await
    })
}
