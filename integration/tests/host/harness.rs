//! What the other tests rely on.

use std::time::Instant;

use banger_integration::host::{Bus, Host, Options, User, Who};

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_host_boots_with_either_bus_and_nothing_has_failed() {
    for (bus, program) in [(Bus::Daemon, "dbus-daemon"), (Bus::Broker, "dbus-broker")] {
        let begun = Instant::now();
        let host = Host::boot(Options { bus });
        println!("{program}: up in {} ms", begun.elapsed().as_millis());
        assert_eq!(host.failed_units(), Vec::<String>::new());
        let pid = host.ok([
            "busctl",
            "call",
            "org.freedesktop.DBus",
            "/",
            "org.freedesktop.DBus",
            "GetConnectionUnixProcessID",
            "s",
            "org.freedesktop.systemd1",
        ]);
        assert_eq!(pid.trim(), "u 1");
        assert!(host.sh("cat /proc/[0-9]*/comm").lines().any(|comm| comm == program));
    }
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_command_gets_its_words_and_its_stdin_and_gives_its_code_and_its_output() {
    let host = Host::boot(Options::default());
    let words = ["printf", "%s|", "$HOME ${HOME} $$ %n %%", "a  b", ""];
    assert_eq!(host.ok_as(Who::NoSession(User::Bob), words), "$HOME ${HOME} $$ %n %%|a  b||");
    let failed = host.run_as(Who::Seatless(User::Bob), ["sh", "-c", "echo out; echo err >&2; pwd; exit 7"]);
    assert_eq!((failed.code, failed.stdout.as_str(), failed.stderr.as_str()), (7, "out\n/home/bob\n", "err\n"));
    assert_eq!(host.errand(Who::Nobody, ["cat"]).stdin("hi").ok(), "hi");
    let mut running = host.start_as(
        Who::Active(User::Carol),
        ["sh", "-c", "trap 'echo caught; exit 3' INT; echo up; while :; do sleep 0.05; done"],
    );
    running.says("up").signal(nix::sys::signal::Signal::SIGINT);
    let output = running.end();
    assert_eq!((output.code, output.stdout.as_str()), (3, "up\ncaught\n"));
}
