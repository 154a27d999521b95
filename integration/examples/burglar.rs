//! A VMM that has been taken over: started by a VM's keeper in place of QEMU, it tries to get out of its unit, and
//! writes to the guest's console what came of each try. `integration/tests/host` reads it there.
//!
//! A line is `NAME: refused WHY` or `NAME: open WHAT`; the last is `done`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "whatever fails here fails a test")]

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;

use nix::sched::CloneFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, VsockAddr, connect, socket};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let prefix = "socket,id=console,fd=";
    // Run by accident, or to see whether KVM works: nothing to play.
    let Some(number) = args.iter().find_map(|arg| arg.strip_prefix(prefix)) else { return };
    let mut report = Report(File::from(inherited(number.parse().unwrap())));
    files(&mut report);
    own_descriptors(&mut report, &args);
    sockets(&mut report);
    processes(&mut report);
    kernel(&mut report);
    writeln!(report.0, "done").unwrap();
    // The keeper kills it when the test has read this.
    loop {
        std::thread::park();
    }
}

#[allow(unsafe_code, reason = "a descriptor that the keeper passed by number")]
fn inherited(number: RawFd) -> OwnedFd {
    // SAFETY: the number on the command line is open and taken once.
    unsafe { OwnedFd::from_raw_fd(number) }
}

struct Report(File);

impl Report {
    fn tell<T, E: Display>(&mut self, name: &str, outcome: Result<T, E>) {
        match outcome {
            Ok(_) => writeln!(self.0, "{name}: open"),
            Err(error) => writeln!(self.0, "{name}: refused {error}"),
        }
        .unwrap();
    }

    /// What may be there and must show nothing.
    fn count(&mut self, name: &str, found: usize) {
        let outcome = if found == 0 { Err("nothing there".to_owned()) } else { Ok(()) };
        self.tell(name, outcome);
    }
}

fn files(report: &mut Report) {
    for path in [
        "/var/lib/banger/storage/disks",
        "/var/lib/banger/images/catalog",
        "/var/lib/banger/vms/vms",
        "/var/lib/banger",
        "/home/alice",
        "/root",
        "/etc/passwd",
        "/etc/shadow",
        "/run/banger/vms",
        "/run/dbus/system_bus_socket",
        "/dev/shm",
        "/dev/mem",
        "/dev/loop0",
        "/sys/kernel",
        "/sys/class",
        "/proc/1/environ",
        "/proc/sys/kernel/hostname",
    ] {
        // An empty folder is only the place of something that was taken away.
        let listed = |entries: std::fs::ReadDir| match entries.count() {
            0 => Err(std::io::Error::other("empty")),
            _ => Ok(()),
        };
        let folder = Path::new(path).is_dir();
        let opened = if folder { std::fs::read_dir(path).and_then(listed) } else { File::open(path).map(drop) };
        report.tell(&format!("read {path}"), opened);
    }
    for path in
        ["/usr/bin/planted", "/planted", "/tmp/../run/banger/planted", "/proc/sys/kernel/hostname", "/dev/planted"]
    {
        report.tell(&format!("write {path}"), OpenOptions::new().create(true).append(true).open(path));
    }
    // Something else is there under its name.
    let tun = File::options().read(true).write(true).open("/dev/net/tun").and_then(|file| file.metadata());
    let is_tun = |found: std::fs::Metadata| found.rdev() == nix::sys::stat::makedev(10, 200);
    let tun = tun.and_then(|found| is_tun(found).then_some(()).ok_or_else(|| std::io::Error::other("it is another")));
    report.tell("the TUN device", tun);
    // Through what it was given, up and out again.
    for fd in 3..64 {
        let up = format!("/proc/self/fd/{fd}/..");
        if Path::new(&up).is_dir() {
            report.tell("climb from a descriptor", std::fs::read_dir(up));
        }
    }
}

/// The image is shared: what was given for reading cannot be had for writing.
fn own_descriptors(report: &mut Report, args: &[String]) {
    let kernel = args.iter().skip_while(|arg| *arg != "-kernel").nth(1).unwrap();
    report.tell("write the kernel", OpenOptions::new().write(true).open(kernel));
    let image = args.iter().find(|arg| arg.ends_with(",set=1")).and_then(|arg| arg.split([',', '=']).nth(1)).unwrap();
    report.tell("write the image", OpenOptions::new().write(true).open(format!("/proc/self/fd/{image}")));
    let disk = args.iter().find(|arg| arg.ends_with(",set=2")).and_then(|arg| arg.split([',', '=']).nth(1)).unwrap();
    let own = OpenOptions::new().read(true).write(true).open(format!("/proc/self/fd/{disk}"));
    // The one thing that must work: a VMM opens its own disk once more.
    match own {
        Ok(_) => writeln!(report.0, "own disk: works").unwrap(),
        Err(error) => writeln!(report.0, "own disk: broken {error}").unwrap(),
    }
}

fn sockets(report: &mut Report) {
    for (name, family) in [
        ("an internet socket", AddressFamily::Inet),
        ("an internet socket, version 6", AddressFamily::Inet6),
        ("a netlink socket", AddressFamily::Netlink),
        ("a packet socket", AddressFamily::Packet),
    ] {
        report.tell(name, socket(family, SockType::Datagram, SockFlag::empty(), None::<SockProtocol>));
    }
    let vsock = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::empty(), None);
    report.tell("vsock", vsock.and_then(|fd| connect(fd.as_raw_fd(), &VsockAddr::new(2, 1))));
    for path in ["/run/dbus/system_bus_socket", "/run/systemd/private", "/run/banger/build.sock"] {
        report.tell(&format!("connect to {path}"), UnixStream::connect(path));
    }
    // Its own is there, to be looked at; every other one is not.
    let others = std::fs::read_dir("/run/banger/vm").map_or(0, |entries| entries.count().saturating_sub(1));
    report.count("other VMs' control sockets", others);
    let own = std::fs::read_dir("/run/banger/vm").ok().and_then(|mut entries| entries.next()?.ok());
    report.tell(
        "connect to its keeper",
        own.map_or(Err(std::io::ErrorKind::NotFound.into()), |s| UnixStream::connect(s.path())),
    );
    let name = SocketAddr::from_abstract_name("banger-test-of-the-host").unwrap();
    report.tell("an abstract socket of the host", UnixStream::connect_addr(&name));
}

fn processes(report: &mut Report) {
    let me = std::process::id();
    let keeper = nix::unistd::getppid().as_raw().unsigned_abs();
    let seen = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = seen.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    report.count("other processes", pids.filter(|pid| ![me, keeper].contains(pid)).count());
    let init = nix::unistd::Pid::from_raw(1);
    report.tell("signal another process", nix::sys::signal::kill(init, nix::sys::signal::Signal::SIGCONT));
    report.tell("trace another process", nix::sys::ptrace::attach(init));
    report.tell("become root", nix::unistd::setuid(nix::unistd::Uid::from_raw(0)));
    report.tell("become another VM", nix::unistd::setuid(nix::unistd::Uid::from_raw(61_234)));
    let group = nix::unistd::setgroups(&[nix::unistd::Gid::from_raw(0)]);
    report.tell("join another group", group);
}

fn kernel(report: &mut Report) {
    for (name, flag) in [
        ("a user namespace", CloneFlags::CLONE_NEWUSER),
        ("a mount namespace", CloneFlags::CLONE_NEWNS),
        ("a network namespace", CloneFlags::CLONE_NEWNET),
    ] {
        report.tell(name, nix::sched::unshare(flag));
    }
    let flags = nix::mount::MsFlags::MS_BIND;
    report.tell("mount", nix::mount::mount(Some("/usr"), "/tmp", None::<&str>, flags, None::<&str>));
    report.tell("chroot", nix::unistd::chroot("/usr"));
    report.tell("set the host's name", nix::unistd::sethostname("planted"));
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME).unwrap();
    report.tell("set the clock", nix::time::clock_settime(nix::time::ClockId::CLOCK_REALTIME, now));
    let raised = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 1 << 20, 1 << 20);
    report.tell("raise a limit", raised);
}
