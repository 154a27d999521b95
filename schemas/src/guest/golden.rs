//! Golden bytes: a released message never changes its encoding.

use super::*;
use crate::codec::{decode, encode};

fn golden<T: Encode + Decode<()> + PartialEq + std::fmt::Debug>(message: T, bytes: &[u8]) {
    assert_eq!(encode(&message).unwrap(), bytes, "{message:?}");
    assert_eq!(decode::<T>(bytes).unwrap(), message);
}

#[test]
fn requests() {
    golden(
        Request::Exec(Box::new(Exec {
            argv: vec![b"ls".to_vec(), b"\xff".to_vec()],
            env: vec![(b"A".to_vec(), b"b".to_vec())],
            cwd: None,
            tty: Some(TtySize { rows: 24, cols: 300 }),
            stdin: Stdin::Stream,
            wait: Wait::System,
        })),
        b"\x01\x02\x02ls\x01\xff\x01\x01A\x01b\x00\x01\x18\xfb\x2c\x01\x01\x01",
    );
    golden(Request::Status, b"\x02");
    golden(Request::Shutdown { grace_ms: 5000 }, b"\x03\xfb\x88\x13");
    golden(Request::Prepare, b"\x04");
    golden(
        Request::Identify(Box::new(Identity {
            vm_id: "abcdefghij".into(),
            hostname: "box".into(),
            machine_id: [1; 16],
            clock_ns: 1,
            seed: [2; 32],
            address: Some(Address {
                mac: [2, 0, 0, 0, 0, 1],
                ipv4: [172, 16, 0, 2],
                prefix: 24,
                gateway: [172, 16, 0, 1],
                dns: vec![[10, 0, 2, 3]],
                mtu: 1500,
            }),
            ssh_host_key: None,
            authorized_keys: vec![],
            start_init: true,
        })),
        &[
            b"\x00\x0aabcdefghij\x03box".as_slice(),
            &[1; 16],
            &[1],
            &[2; 32],
            &[1, 2, 0, 0, 0, 0, 1, 172, 16, 0, 2, 24, 172, 16, 0, 1, 1, 10, 0, 2, 3, 0xfb, 0xdc, 0x05, 0, 0, 1],
        ]
        .concat(),
    );
}

#[test]
fn replies_and_streams() {
    golden(Reply::Stopping, b"\x02");
    golden(Reply::Refused("no".into()), b"\x03\x02no");
    golden(Reply::Prepared, b"\x04");
    golden(Reply::Ready(Ready { boot_id: "b".into(), init: false, warnings: vec![] }), b"\x00\x01b\x00\x00");
    golden(Reply::Status(Status { boot_id: "b".into(), system: System::Up, uptime_ms: 9 }), b"\x01\x01b\x02\x09");
    golden(ExecInput::Stdin(b"hi".to_vec()), b"\x00\x02hi");
    golden(ExecInput::StdinEof, b"\x01");
    golden(ExecInput::Resize(TtySize { rows: 1, cols: 2 }), b"\x02\x01\x02");
    golden(ExecInput::Signal(15), b"\x03\x0f");
    golden(ExecOutput::Started { pid: 7 }, b"\x00\x07");
    golden(ExecOutput::Stdout(b"x".to_vec()), b"\x01\x01x");
    golden(ExecOutput::Stderr(b"x".to_vec()), b"\x02\x01x");
    golden(ExecOutput::Exited(7), b"\x03\x07");
    golden(ExecOutput::Signaled(9), b"\x04\x09");
    golden(ExecOutput::Failed(ExecFailure::NotFound), b"\x05\x00");
}
