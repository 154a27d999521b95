//! Storage1 as a process of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    banger_bus::service::main("banger-storage", banger_storage::PLACE, async |service| {
        let dirs = banger_bus::Dirs::of_service()?;
        banger_storage::start(service, &dirs.state).await
    })
}
