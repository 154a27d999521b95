//! The machine that a host runs on where it needs one of its own: emulated with virtualization, so that KVM is real in
//! it, and with control groups of its own. Commands go in by ssh; nothing else of the network reaches it, and nothing
//! goes out.

use std::cell::RefCell;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::Pid;

use super::base::Disk;
use super::boot::Machine;
use super::folder::Place;
use super::tied::Tied;
use crate::dist;

/// The journal goes to the console, so that it is outside when the machine is not there any more.
const KERNEL: &str = "root=/dev/vda rw console=ttyS0 net.ifnames=0 systemd.journald.forward_to_console=1";

/// AMD's virtualization is what QEMU emulates.
const VMM: [&str; 16] = [
    "-nodefaults",
    "-nographic",
    "-no-reboot",
    "-machine",
    "q35",
    "-accel",
    "tcg,thread=multi",
    "-cpu",
    "EPYC,+svm,+npt,-monitor,check=off",
    "-smp",
    "2",
    "-m",
    "2048",
    "-device",
    "virtio-rng-pci",
    "-append",
];

#[derive(Debug)]
pub(super) struct Emulator {
    vmm: Tied,
    ssh: String,
    /// The connection that all commands share.
    connection: RefCell<Option<Tied>>,
}

impl Emulator {
    pub(super) fn start(disk: &Disk, place: &Place) -> Self {
        let built = place.path().join("dist");
        let packed = Command::new("mkfs.erofs").arg("--quiet").arg(&built).arg(dist()).output().unwrap();
        assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
        let port = free_port();
        let drive = |file: &Path, how: &str| format!("file={},format=raw,if=virtio,{how}", file.display());
        let vmm = Tied::start(|command| {
            command
                .arg("qemu-system-x86_64")
                .args(VMM)
                .arg(KERNEL)
                .arg("-kernel")
                .arg(disk.kernel())
                .arg("-initrd")
                .arg(disk.initrd())
                .args(["-drive", &drive(&disk.image(), "snapshot=on"), "-drive", &drive(&built, "readonly=on")])
                .args(["-netdev", &format!("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22")])
                .args([
                    "-device",
                    "virtio-net-pci,netdev=net,romfile=",
                    "-serial",
                    &format!("file:{}", place.console().display()),
                ])
                // What it writes to the disk, in a file without a name.
                .env("TMPDIR", place.path())
                .stdin(Stdio::null());
        });
        let ssh = format!(
            "ssh -F none -i {} -p {port} -S {} -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=10 -o LogLevel=ERROR \
             -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@127.0.0.1",
            disk.key().display(),
            place.path().join("ssh").display()
        );
        Emulator { vmm, ssh, connection: RefCell::new(None) }
    }

    /// Whether it is there; if it is not, and nobody tries, it is tried.
    fn is_connected(&self) -> bool {
        let mut connection = self.connection.borrow_mut();
        if connection.as_ref().is_none_or(Tied::has_ended) {
            let open = format!("exec {} -M -N", self.ssh);
            *connection = Some(Tied::start(|command| {
                command.args(["sh", "-c", &open]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            }));
        }
        let check = format!("exec {} -O check", self.ssh);
        Command::new("sh").args(["-c", &check]).output().unwrap().status.success()
    }
}

impl Machine for Emulator {
    fn inside(&self) -> Option<Command> {
        if !self.is_connected() {
            return None;
        }
        let mut command = Command::new("bash");
        // ssh makes one string of its words, for a shell to take apart: each is quoted for that.
        command.args(["-c", &format!(r#"exec {} -- "${{*@Q}}""#, self.ssh), "bash"]);
        command.args(["env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"]);
        Some(command)
    }

    fn leader(&self) -> Option<Pid> {
        None
    }

    fn has_ended(&self) -> bool {
        self.vmm.has_ended()
    }

    fn kill(&self) {
        self.vmm.kill();
        *self.connection.borrow_mut() = None;
    }
}

/// It may be taken in between: then the VMM ends, and says so.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
