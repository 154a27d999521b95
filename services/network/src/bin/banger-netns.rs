//! The helper that enters, makes and holds network namespaces: what needs a process with one thread. Run by the
//! network service, never by hand.

use std::os::fd::AsFd;
use std::process::ExitCode;

use banger_network::host::rootless::process;
use banger_network::host::rootless::{detach, holder, probe};
use banger_network::host::within;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> std::io::Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["hold"] => holder::serve(),
        ["probe"] => probe::serve(std::io::stdin().as_fd().try_clone_to_owned()?),
        ["within", _, _, _] => {
            let holder = process::from_arguments(&arguments[1..]).ok_or(std::io::ErrorKind::InvalidInput)?;
            within::serve(&holder, std::io::stdin().as_fd().try_clone_to_owned()?)
        }
        ["detach", record, folder, _, ..] => detach::serve(record, folder, &arguments[3..]),
        ["become", record, folder, program, ..] => {
            Err(detach::become_command(record, folder, program, &arguments[4..]))
        }
        _ => Err(std::io::Error::other("this program is run by banger's network service")),
    }
}

#[allow(clippy::print_stderr, reason = "standard error is this helper's only voice")]
fn complain(message: &str) {
    eprintln!("banger-netns: {message}");
}
