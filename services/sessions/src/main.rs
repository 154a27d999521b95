//! Sessions1 as a process of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    banger_bus::service::main("banger-sessions", banger_sessions::PLACE, banger_sessions::start)
}
