//! The container that a host runs in: systemd-nspawn in mount and process namespaces of its own, so that all that it
//! mounts and starts ends with it, and it with the test, whoever is killed. It knows nothing of what runs inside.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::Pid;

use super::boot::{Bus, Machine};
use super::folder::Place;
use super::tied::Tied;
use crate::dist;

/// `$1` is the root that it stands on, `$2` the host's folder, `$3` what is to be removed from the root, then its
/// control groups up to the `--`, and the rest nspawn's. nspawn keeps locks in /run: not in the machine's.
const PREPARE: &str = r#"
base=$1 folder=$2 without=$3; shift 3
while [ "$1" != -- ]; do echo 0 >"$1/cgroup.procs"; shift; done; shift
mount -t tmpfs -o mode=0755 run /run
mount -t overlay overlay -o "lowerdir=$base,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
if [ -n "$without" ]; then rm "$folder/root/$without"; fi
exec systemd-nspawn --directory="$folder/root" "$@"
"#;

const NSPAWN: [&str; 18] = [
    "--quiet",
    "--boot",
    "--machine=banger-host",
    "--hostname=host",
    // There may be no systemd outside.
    "--register=no",
    "--keep-unit",
    "--link-journal=no",
    "--resolv-conf=off",
    "--timezone=off",
    "--console=pipe",
    "--private-network",
    // As on a real host; without bpf, DevicePolicy= and IPAddressDeny= of units are silently not enforced.
    "--capability=all",
    "--system-call-filter=bpf",
    "--system-call-filter=perf_event_open",
    "--system-call-filter=keyctl",
    "--system-call-filter=add_key",
    "--kill-signal=SIGRTMIN+3",
    "--setenv=SYSTEMD_COLORS=0",
];

#[derive(Debug)]
pub(super) struct Container {
    outer: Tied,
}

impl Container {
    pub(super) fn start(base: &Path, place: &Place, groups: &[PathBuf], bus: Bus) -> Self {
        let console = File::create(place.console()).unwrap();
        let outer = Tied::start(|command| {
            command
                .args(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"])
                .args(["sh", "-euc", PREPARE, "sh"])
                .args([base, place.path()])
                // Debian: the broker has replaced the daemon by this link.
                .arg(if bus == Bus::Daemon { "etc/systemd/system/dbus.service" } else { "" })
                .args(groups)
                .arg("--")
                .args(NSPAWN)
                .arg(format!("--bind-ro={}:/mnt/dist", dist().canonicalize().unwrap().display()))
                .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
                .stdin(Stdio::null())
                .stdout(console.try_clone().unwrap())
                .stderr(console);
        });
        Container { outer }
    }
}

impl Machine for Container {
    fn inside(&self) -> Option<Command> {
        let leader = self.leader()?;
        if !Path::new(&format!("/proc/{leader}/root/run/systemd/private")).exists() {
            return None;
        }
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &leader.to_string(), "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup"])
            .args(["--root", "--wd", "--"])
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .env("LANG", "C.UTF-8");
        Some(command)
    }

    fn leader(&self) -> Option<Pid> {
        let nspawn = children(self.outer.pid()).into_iter().next()?;
        children(nspawn).into_iter().find(|pid| is_first(*pid))
    }

    fn has_ended(&self) -> bool {
        self.outer.has_ended()
    }

    fn kill(&self) {
        self.outer.kill();
    }
}

fn children(pid: Pid) -> Vec<Pid> {
    let read = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    read.split_whitespace().filter_map(|word| word.parse().ok()).map(Pid::from_raw).collect()
}

/// Whether it is PID 1 of a namespace.
fn is_first(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    ids.and_then(|ids| ids.split_whitespace().last()) == Some("1")
}
