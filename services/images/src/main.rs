//! Images1 as a process of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    banger_bus::service::main("banger-images", banger_images::PLACE, async |service| {
        banger_images::start(service, &banger_bus::Dirs::of_service()?).await
    })
}
