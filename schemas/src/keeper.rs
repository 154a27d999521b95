//! What the supervisor and a VM's keeper say to each other, over a `SOCK_SEQPACKET` unix socket: one packet a
//! message, descriptors beside it (`SCM_RIGHTS`).
//!
//! A connection begins with the client's [`Hello`]; then each request has one [`Event`] as its answer, except
//! [`Request::Watch`], after which the keeper sends an [`Event::Status`] now and whenever it changes. A newer
//! supervisor drives every released keeper: it takes the version that the keeper offers.

use bincode::{Decode, Encode};

/// Versions of the keeper protocol this build speaks, oldest first.
pub const VERSIONS: std::ops::RangeInclusive<u16> = 1..=2;

/// First packet of a connection, both ways: the versions spoken. The newest in common is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    pub oldest: u16,
    pub newest: u16,
}

impl Default for Hello {
    fn default() -> Self {
        Hello { oldest: *VERSIONS.start(), newest: *VERSIONS.end() }
    }
}

impl Hello {
    /// The newest version that both speak.
    pub fn common(self, other: Hello) -> Option<u16> {
        let version = self.newest.min(other.newest);
        (version >= self.oldest && version >= other.oldest).then_some(version)
    }
}

/// Supervisor to keeper.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// Start the VMM. Descriptors, in this order: kernel, initramfs, image, system disk, work disk; then the TAP
    /// if `launch.tap`, then a pidfd of the client if `launch.leased`, then a file for the console's last bytes if
    /// `launch.keeps_console`. Answered by `Done` once the VMM's process runs.
    /// Only once in a keeper's life.
    Launch(Box<Launch>),
    /// Follow the VM's status.
    Watch,
    /// Open a stream to the agent. Answered by `Stream` with one descriptor (a unix stream socket).
    Open,
    /// The console. Answered by `Stream` with one descriptor: what the ring holds, then (if `follow`) what comes.
    Console { follow: bool },
    /// End the VMM through its own interface, within `grace_ms`; then kill it.
    Quit { grace_ms: u32 },
    /// End the VMM at once.
    Kill,
    /// As `Launch`, with the guest's memory and its devices' state in two more descriptors at the end.
    LaunchWith(Box<Launch>, Memory),
    /// Keep the guest as it is now in the two descriptors that it was launched with, and end the VMM. Answered by
    /// `Frozen` once the VMM is gone.
    Freeze,
}

/// What the two descriptors of [`Request::LaunchWith`] are.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Memory {
    /// Empty: the guest boots, and is going to be frozen.
    Fresh,
    /// What a frozen guest left there. It goes on, if this host is what it was frozen on.
    Frozen(Origin),
}

/// What a frozen guest took from its host for as long as it lives.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize)]
pub struct Origin {
    /// The rate of the time-stamp counter, in kHz.
    pub tsc_khz: Option<u32>,
    /// The processor and the kernel that runs on it, where guests see them.
    pub processor: Option<String>,
}

/// What to start. Nothing here is a path into the host but the VMM's own binary.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Launch {
    pub backend: Backend,
    /// The VMM's binary.
    pub vmm: String,
    pub vcpus: u32,
    pub memory_mib: u32,
    /// MAC of the guest's network device, if it has one.
    pub mac: Option<[u8; 6]>,
    pub tap: bool,
    /// A client's pidfd comes along: when that process ends, the VM ends.
    pub leased: bool,
    /// A file comes along: the console begins with what is in it, and what it remembers is written there when the VMM has
    /// ended.
    pub keeps_console: bool,
    /// Nothing on the disks has to outlive a crash of the host: the guest's flushes are not waited for.
    pub volatile: bool,
}

/// How a VM is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Backend {
    /// QEMU `microvm` under emulation.
    QemuTcg,
    /// QEMU `microvm` under KVM.
    QemuKvm,
    /// Firecracker, which is always under KVM.
    Firecracker,
}

impl Backend {
    pub fn as_str(self) -> &'static str {
        match self {
            Backend::QemuTcg => "qemu-tcg",
            Backend::QemuKvm => "qemu-kvm",
            Backend::Firecracker => "firecracker",
        }
    }
}

/// Keeper to supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Event {
    Done,
    /// One descriptor comes along.
    Stream,
    Status(Status),
    /// The request failed; a sentence.
    Failed(String),
    /// The guest is frozen.
    Frozen(Origin),
}

/// A VM as its keeper sees it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Status {
    /// Grows with every change.
    pub generation: u64,
    pub phase: Phase,
    /// Pid of the VMM while it runs.
    pub vmm_pid: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Phase {
    /// Nothing was launched yet.
    Idle,
    /// The VMM's process runs; nothing was heard from the guest.
    Booting,
    /// The guest's kernel has written to the console.
    Kernel,
    /// The agent said hello: streams may be opened.
    Agent,
    /// The VMM is gone.
    Exited(Exit),
}

/// How a VMM ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Exit {
    pub cause: ExitCause,
    /// The last lines that the VMM itself wrote, for the error message.
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum ExitCause {
    /// It ended by itself with this status.
    Status(u8),
    Signal(u8),
    /// The client that the VM was leased to is gone.
    Lease,
    /// `Quit` or `Kill` was asked for.
    Asked,
    /// The agent speaks no version in common, or spoke nonsense.
    Agent,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode, encode};

    #[test]
    fn golden_bytes() {
        let launch = Request::Launch(Box::new(Launch {
            backend: Backend::QemuKvm,
            vmm: "/q".into(),
            vcpus: 2,
            memory_mib: 1024,
            mac: Some([2, 0, 0, 0, 0, 1]),
            tap: true,
            leased: false,
            keeps_console: true,
            volatile: false,
        }));
        let bytes = b"\x00\x01\x02/q\x02\xfb\x00\x04\x01\x02\x00\x00\x00\x00\x01\x01\x00\x01\x00";
        assert_eq!(encode(&launch).unwrap(), bytes);
        assert_eq!(decode::<Request>(bytes).unwrap(), launch);
        for (request, bytes) in [
            (Request::Watch, b"\x01".as_slice()),
            (Request::Open, b"\x02"),
            (Request::Console { follow: true }, b"\x03\x01"),
            (Request::Quit { grace_ms: 9 }, b"\x04\x09"),
            (Request::Kill, b"\x05"),
            (Request::Freeze, b"\x07"),
        ] {
            assert_eq!(encode(&request).unwrap(), bytes);
        }
        let exit = Exit { cause: ExitCause::Signal(9), message: "m".into() };
        let status = Event::Status(Status { generation: 3, phase: Phase::Exited(exit), vmm_pid: None });
        assert_eq!(encode(&status).unwrap(), b"\x02\x03\x04\x01\x09\x01m\x00");
        assert_eq!(encode(&Hello::default()).unwrap(), b"\x01\x02");
        let origin = Origin { tsc_khz: Some(9), processor: Some("p".into()) };
        assert_eq!(encode(&Event::Frozen(origin.clone())).unwrap(), b"\x04\x01\x09\x01\x01p");
        assert_eq!(encode(&Memory::Frozen(origin)).unwrap(), b"\x01\x01\x09\x01\x01p");
        assert_eq!(encode(&Memory::Fresh).unwrap(), b"\x00");
        for (byte, backend) in [Backend::QemuTcg, Backend::QemuKvm, Backend::Firecracker].iter().enumerate() {
            assert_eq!(encode(backend).unwrap(), [u8::try_from(byte).unwrap()]);
        }
    }

    #[test]
    fn the_newest_common_version_is_taken() {
        let old = Hello { oldest: 1, newest: 2 };
        assert_eq!(old.common(Hello { oldest: 1, newest: 5 }), Some(2));
        assert_eq!(old.common(Hello { oldest: 3, newest: 5 }), None);
    }
}
