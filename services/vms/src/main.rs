//! Vms1 as a process of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    banger_bus::service::main("banger-vms", banger_vms::PLACE, async |service| {
        banger_vms::start(service, &banger_bus::Dirs::of_service()?).await
    })
}
