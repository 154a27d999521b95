//! Commands run for real, over a real multiplexer, on the machine that runs the tests.

use std::time::{Duration, Instant};

use banger_schemas::guest::{Exec, ExecFailure, ExecInput, ExecOutput, Stdin, TtySize};

use crate::testing::{Host, Transcript, command, commands, leave, local, start};

async fn run(host: &Host, argv: &[&str]) -> Transcript {
    start(host, command(argv)).await.finish().await
}

fn shell(script: &str) -> [&str; 3] {
    ["sh", "-c", script]
}

#[test]
fn exit_codes_and_both_streams_arrive() {
    local(async {
        let host = commands();
        let said = run(&host, &shell("echo out; echo err >&2; exit 7")).await;
        assert_eq!(said.stdout, b"out\n");
        assert_eq!(said.stderr, b"err\n");
        assert_eq!(said.end, Some(ExecOutput::Exited(7)));
        assert_eq!(run(&host, &["true"]).await.end, Some(ExecOutput::Exited(0)));
        assert_eq!(run(&host, &shell("kill -9 $$")).await.end, Some(ExecOutput::Signaled(9)));
    });
}

#[test]
fn what_cannot_start_says_why() {
    local(async {
        let host = commands();
        assert_eq!(run(&host, &["no-such-program"]).await.end, Some(ExecOutput::Failed(ExecFailure::NotFound)));
        let plain = run(&host, &["/etc/passwd"]).await.end;
        assert!(matches!(plain, Some(ExecOutput::Failed(ExecFailure::NotExecutable(_)))), "{plain:?}");
        let nowhere = start(&host, Exec { cwd: Some(b"/no/where".to_vec()), ..command(&["true"]) }).await;
        let said = nowhere.finish().await.end;
        let failure = ExecFailure::Other("the guest has no directory /no/where".into());
        assert_eq!(said, Some(ExecOutput::Failed(failure)));
    });
}

#[test]
fn a_script_whose_interpreter_is_missing_is_not_executable() {
    use std::os::unix::fs::PermissionsExt;
    let place = tempfile::tempdir().unwrap();
    let script = place.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    local(async {
        let said = run(&commands(), &[script.to_str().unwrap()]).await.end;
        let failure = ExecFailure::NotExecutable("its interpreter or loader does not exist".into());
        assert_eq!(said, Some(ExecOutput::Failed(failure)));
    });
}

#[test]
fn arguments_and_environment_are_bytes() {
    local(async {
        let host = commands();
        let mut exec = command(&["printf", "%s|%s|%s"]);
        exec.argv.extend([b"\xff\xfe".to_vec(), b"a b\n".to_vec(), b"".to_vec()]);
        assert_eq!(start(&host, exec).await.finish().await.stdout, b"\xff\xfe|a b\n|");
        let mut exec = command(&shell("echo $HOME $USER $WORD"));
        exec.env = vec![(b"WORD".to_vec(), b"\xffx".to_vec())];
        assert_eq!(start(&host, exec).await.finish().await.stdout, b"/root root \xffx\n");
    });
}

#[test]
fn input_reaches_the_command_and_its_end_too() {
    local(async {
        let host = commands();
        let mut session = start(&host, Exec { stdin: Stdin::Stream, ..command(&["wc", "-c"]) }).await;
        for _ in 0..40 {
            session.send(ExecInput::Stdin(vec![7; 50_000])).await;
        }
        session.send(ExecInput::StdinEof).await;
        assert_eq!(session.finish().await.stdout, b"2000000\n");
    });
}

#[test]
fn big_output_arrives_exactly_once() {
    local(async {
        let host = commands();
        let said = run(&host, &shell("seq 1 300000; seq 1 1000 >&2")).await;
        let expected: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
        assert!(said.stdout == expected.as_bytes());
        assert_eq!(said.stderr.iter().filter(|byte| **byte == b'\n').count(), 1000);
        assert_eq!(said.end, Some(ExecOutput::Exited(0)));
    });
}

#[test]
fn a_background_process_that_holds_the_pipe_delays_nobody_for_long() {
    local(async {
        let host = commands();
        let started = Instant::now();
        let said = run(&host, &shell("echo done; sleep 30 & exit 3")).await;
        assert_eq!((said.stdout.as_slice(), said.end), (b"done\n".as_slice(), Some(ExecOutput::Exited(3))));
        assert!(started.elapsed() < Duration::from_secs(5));
        // And one that never stops talking is cut off.
        let started = Instant::now();
        let said = run(&host, &shell("yes & sleep 0.1; exit 4")).await;
        assert_eq!(said.end, Some(ExecOutput::Exited(4)));
        assert!(started.elapsed() < Duration::from_secs(20));
    });
}

#[test]
fn signals_reach_the_whole_group_even_behind_unread_input() {
    local(async {
        let host = commands();
        let mut session = start(&host, Exec { stdin: Stdin::Stream, ..command(&shell("sleep 60; true")) }).await;
        assert!(matches!(session.next().await, Some(ExecOutput::Started { .. })));
        session.send(ExecInput::Stdin(vec![0; 60_000])).await;
        session.send(ExecInput::Stdin(vec![0; 60_000])).await;
        session.send(ExecInput::Signal(15)).await;
        assert_eq!(session.finish().await.end, Some(ExecOutput::Signaled(15)));
    });
}

#[test]
fn a_command_whose_host_left_is_ended() {
    local(async {
        let host = commands();
        // More input than is kept, so that the end of the stream stands behind what nobody reads.
        let mut session = start(&host, Exec { stdin: Stdin::Stream, ..command(&["sleep", "60"]) }).await;
        let Some(ExecOutput::Started { pid }) = session.next().await else { panic!("not started") };
        for _ in 0..5 {
            session.send(ExecInput::Stdin(vec![0; 60_000])).await;
        }
        leave(session).await;
        let gone = async {
            while std::path::Path::new(&format!("/proc/{pid}")).exists() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(4), gone).await.unwrap();
    });
}

#[test]
fn a_terminal_has_the_size_that_was_asked_for_and_takes_input() {
    local(async {
        let host = commands();
        let tty = Some(TtySize { rows: 33, cols: 77 });
        let script = "stty size; read line; echo got $line; tty -s && echo tty; cat; exit 5";
        let mut session = start(&host, Exec { tty, stdin: Stdin::Stream, ..command(&shell(script)) }).await;
        session.send(ExecInput::Stdin(b"hello\n".to_vec())).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        session.send(ExecInput::StdinEof).await;
        let said = session.finish().await;
        let text = String::from_utf8(said.stdout).unwrap();
        for part in ["33 77\r\n", "got hello\r\n", "tty\r\n"] {
            assert!(text.contains(part), "{text:?}");
        }
        assert_eq!(said.end, Some(ExecOutput::Exited(5)));
    });
}

#[test]
fn no_argv_is_a_login_shell() {
    local(async {
        let host = commands();
        let mut session = start(&host, Exec { stdin: Stdin::Stream, ..command(&[]) }).await;
        session.send(ExecInput::Stdin(b"echo $0; exit 9\n".to_vec())).await;
        let said = session.finish().await;
        assert!(said.stdout.starts_with(b"-"), "{:?}", String::from_utf8_lossy(&said.stdout));
        assert_eq!(said.end, Some(ExecOutput::Exited(9)));
    });
}

#[test]
fn a_command_inherits_no_descriptor_and_no_signal_state_of_the_agent() {
    // The last seven digits: libc keeps signals 32 and 33 to itself.
    let script = shell("ls /proc/self/fd; grep -E '^Sig(Blk|Ign)' /proc/self/status | grep -o '.......$'");
    // Whoever runs the tests may have left some to them already.
    let inherited = std::process::Command::new("sh").args(&script[1..]).output().unwrap().stdout;
    local(async {
        let said = run(&commands(), &script).await;
        assert_eq!(String::from_utf8(said.stdout), String::from_utf8(inherited));
    });
}
