//! Dns1 as a process of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    banger_bus::service::main("banger-dns", banger_dns::PLACE, banger_dns::start)
}
