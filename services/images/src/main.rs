//! Images1 as a process of its own; with `--build`, one build for it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use banger_bus::{Dirs, service, settings};

const PROGRAM: &str = "banger-images";

fn main() -> ExitCode {
    if std::env::args().skip(1).eq(["--build"]) {
        service::init(PROGRAM, Ok(settings::OF_THE_HOST.into()));
        return match Dirs::of_service().and_then(|dirs| banger_images::build(&dirs)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(%error, "the build failed");
                ExitCode::FAILURE
            }
        };
    }
    service::main(PROGRAM, banger_images::PLACE, async |service| {
        banger_images::start(service, &Dirs::of_service()?).await
    })
}
