//! A command in a machine that runs, against ssh to the same machine.

use std::process::Command;
use std::time::{Duration, Instant};

use banger_integration::Banger;

use crate::cli::wall;
use crate::client;
use crate::stats::Samples;
use crate::table::{Goal, Table};

const VM: &str = "shell";
/// A port of the host address that nobody else has.
const PORT: &str = "2222";

/// Starts of a program, in one shell.
const STARTS: &str = "for i in $(seq 30); do /bin/true; done";

/// Lets root in by key, and has a server that is there already, not one for each connection.
const SERVE_SSH: &str = "mkdir -p /root/.ssh && cat > /root/.ssh/authorized_keys && systemctl start ssh";

pub(crate) fn measure(banger: &Banger, rounds: usize, table: &mut Table) {
    let image = banger_schemas::images::DEFAULT_IMAGE;
    banger.ok(["image", "pull", image]);
    let port = format!("{PORT}:22");
    banger.ok(["vm", "create", "--image", image, "--name", VM, "-p", &port]);
    let ssh = Ssh::set_up(banger);
    let (mut program, mut call, mut there) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..=rounds {
        program.add(wall(banger.command(["vm", "exec", VM, "--", "true"])));
        call.add(crate::block_on(round_trip(banger)));
        there.add(wall(ssh.command(&["true"])));
    }
    let [here, elsewhere] = starts(banger, rounds);
    banger.ok(["vm", "delete", VM]);
    table.section("`true` in a machine that runs");
    let theirs = "`ssh root@… true`";
    table.compare("D-Bus client: Exec to Exited", call.median(), theirs, there.median(), Some(Goal::AtMost(0.2)));
    table.compare("`banger vm exec … true`", program.median(), theirs, there.median(), None);
    let theirs = "the same, each at other addresses (ASLR)";
    table.compare("30 starts of `true` in a shell", here.median(), theirs, elsewhere.median(), None);
}

/// As machines are, and with what emulated ones go without (decision 0023).
fn starts(banger: &Banger, rounds: usize) -> [Samples; 2] {
    let mut samples: [Samples; 2] = Default::default();
    for round in 0..=rounds.div_ceil(2) {
        for (samples, moved) in samples.iter_mut().zip(["0", "2"]) {
            let sysctl = format!("echo {moved} > /proc/sys/kernel/randomize_va_space");
            banger.ok(["vm", "exec", VM, "--", "sh", "-c", &sysctl]);
            let took = wall(banger.command(["vm", "exec", VM, "--", "sh", "-c", STARTS]));
            if round > 0 {
                samples.add(took);
            }
        }
    }
    samples
}

/// The second of two, on one connection: a client that stays.
async fn round_trip(banger: &Banger) -> Duration {
    let bus = client::connect(banger).await;
    client::run_true(&bus, VM).await;
    let begun = Instant::now();
    client::run_true(&bus, VM).await;
    begun.elapsed()
}

struct Ssh {
    key: String,
    host: String,
}

impl Ssh {
    fn set_up(banger: &Banger) -> Self {
        let key = banger.home().join("ssh-key").to_string_lossy().into_owned();
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &key]).status().unwrap();
        assert!(made.success());
        let public = std::fs::read(format!("{key}.pub")).unwrap();
        let served = banger.feed(["vm", "exec", VM, "--", "sh", "-ec", SERVE_SSH], &public);
        assert_eq!(served.code, 0, "{}", served.stderr);
        let host = banger.show(VM)["host_address"].as_str().unwrap().to_owned();
        let ssh = Ssh { key, host };
        banger_integration::eventually("ssh answers", || ssh.command(&["true"]).status().unwrap().success());
        ssh
    }

    /// A connection of its own, and no files of the user's.
    fn command(&self, command: &[&str]) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "/dev/null", "-i", &self.key, "-p", PORT, "-o", "BatchMode=yes", "-o", "LogLevel=QUIET"]);
        ssh.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ControlPath=none"]);
        ssh.arg(format!("root@{}", self.host)).args(command);
        ssh
    }
}
