//! One true message of each form: where damage begins.

use banger_schemas::codec::encode;
use banger_schemas::guest::{
    Address, Exec, ExecFailure, ExecInput, ExecOutput, Identity, Reply, Request, Status, Stdin, System, TtySize, Wait,
};
use banger_schemas::{guest, keeper};

fn encoded<T: bincode::Encode>(messages: &[T]) -> Vec<Vec<u8>> {
    messages.iter().map(|message| encode(message).unwrap()).collect()
}

pub(crate) fn identity() -> Identity {
    Identity {
        vm_id: "abcdefghij".into(),
        hostname: "box".into(),
        machine_id: [1; 16],
        clock_ns: u64::MAX,
        seed: [2; 32],
        address: Some(Address {
            mac: [2, 0, 0, 0, 0, 1],
            ipv4: [172, 16, 0, 2],
            prefix: 24,
            gateway: [172, 16, 0, 1],
            dns: vec![[10, 0, 2, 3], [1, 1, 1, 1]],
            mtu: 1500,
        }),
        ssh_host_key: Some("key".into()),
        authorized_keys: vec!["ssh-ed25519 A".into(), String::new()],
        start_init: true,
    }
}

fn exec() -> Exec {
    Exec {
        argv: vec![b"ls".to_vec(), b"\xff".to_vec(), vec![]],
        env: vec![(b"A".to_vec(), b"b".to_vec())],
        cwd: Some(b"/tmp".to_vec()),
        tty: Some(TtySize { rows: 24, cols: 300 }),
        stdin: Stdin::Stream,
        wait: Wait::System,
    }
}

pub(crate) fn requests() -> Vec<Vec<u8>> {
    encoded(&[
        Request::Identify(Box::new(identity())),
        Request::Exec(Box::new(exec())),
        Request::Status,
        Request::Shutdown { grace_ms: 5000 },
        Request::Prepare,
    ])
}

pub(crate) fn replies() -> Vec<Vec<u8>> {
    encoded(&[
        Reply::Ready(guest::Ready { boot_id: "b".into(), init: true, warnings: vec!["w".into(), "v".into()] }),
        Reply::Status(Status { boot_id: "b".into(), system: System::Up, uptime_ms: 1 << 40 }),
        Reply::Stopping,
        Reply::Refused("no".into()),
        Reply::Prepared,
    ])
}

pub(crate) fn inputs() -> Vec<Vec<u8>> {
    let size = TtySize { rows: 1, cols: 2000 };
    encoded(&[ExecInput::Stdin(vec![7; 300]), ExecInput::StdinEof, ExecInput::Resize(size), ExecInput::Signal(15)])
}

pub(crate) fn outputs() -> Vec<Vec<u8>> {
    encoded(&[
        ExecOutput::Started { pid: 70_000 },
        ExecOutput::Stdout(b"out".to_vec()),
        ExecOutput::Stderr(b"err".to_vec()),
        ExecOutput::Exited(7),
        ExecOutput::Signaled(9),
        ExecOutput::Failed(ExecFailure::NotFound),
        ExecOutput::Failed(ExecFailure::Other("why".into())),
    ])
}

pub(crate) fn keeper_events() -> Vec<Vec<u8>> {
    let exit = keeper::Exit { cause: keeper::ExitCause::Signal(9), message: "m".into() };
    let status = keeper::Status { generation: 3, phase: keeper::Phase::Exited(exit), vmm_pid: Some(9) };
    encoded(&[
        keeper::Event::Done,
        keeper::Event::Stream,
        keeper::Event::Status(status),
        keeper::Event::Failed("f".into()),
        keeper::Event::Frozen(origin()),
    ])
}

fn origin() -> keeper::Origin {
    keeper::Origin { tsc_khz: Some(2_600_000), processor: Some("p".into()) }
}

pub(crate) fn keeper_requests() -> Vec<Vec<u8>> {
    let launch = keeper::Launch {
        backend: keeper::Backend::QemuKvm,
        vmm: "/usr/bin/qemu".into(),
        vcpus: 2,
        memory_mib: 1024,
        mac: Some([2, 0, 0, 0, 0, 1]),
        tap: true,
        leased: false,
        keeps_console: true,
        volatile: true,
    };
    encoded(&[
        keeper::Request::Launch(Box::new(launch.clone())),
        keeper::Request::LaunchWith(Box::new(launch.clone()), keeper::Memory::Fresh),
        keeper::Request::LaunchWith(Box::new(launch), keeper::Memory::Frozen(origin())),
        keeper::Request::Watch,
        keeper::Request::Open,
        keeper::Request::Console { follow: true },
        keeper::Request::Quit { grace_ms: 9 },
        keeper::Request::Kill,
        keeper::Request::Freeze,
    ])
}
