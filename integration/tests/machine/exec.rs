//! A command in a machine is a command: arguments, streams, signals and its end arrive as they are.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::time::{Duration, Instant};

use banger_integration::{Banger, Who};
use nix::sys::signal::Signal;

const EXEC: [&str; 4] = ["vm", "exec", "box", "--"];

fn box_of(who: Who) -> Banger {
    let banger = Banger::new(who);
    banger.boot("box");
    banger
}

fn code(banger: &Banger, command: &[&str]) -> i32 {
    banger.run(EXEC.iter().chain(command)).code
}

#[test]
fn the_exit_code_is_the_commands_own_or_says_why_there_is_none() {
    let banger = box_of(Who::Me);
    for status in [0, 1, 7, 125, 255] {
        assert_eq!(code(&banger, &["sh", "-c", &format!("exit {status}")]), status);
    }
    for (signal, name) in [(9, "KILL"), (15, "TERM"), (11, "SEGV")] {
        assert_eq!(code(&banger, &["sh", "-c", &format!("kill -{name} $$")]), 128 + signal, "{name}");
    }
    let absent = banger.run(EXEC.iter().chain(&["no-such-program"]));
    assert_eq!((absent.code, absent.stderr.as_str()), (127, "banger: no-such-program: not found in the machine\n"));
    let closed = banger.run(EXEC.iter().chain(&["/etc/passwd"]));
    assert_eq!(closed.code, 126);
    assert!(closed.stderr.starts_with("banger: /etc/passwd: cannot be executed"), "{}", closed.stderr);
    let nowhere = banger.run(["vm", "exec", "--cwd", "/nowhere", "box", "--", "true"]);
    assert_ne!(nowhere.code, 0);
    assert!(nowhere.stderr.contains("/nowhere"), "{}", nowhere.stderr);

    arguments_environment_and_folder(&banger);
    streams(&banger);
}

fn arguments_environment_and_folder(banger: &Banger) {
    let words: [&[u8]; 8] = [b"", b" ", b"a\nb\n", b"\xff\xfe", b"-n", b"$HOME `id` 'q' \"", b"*", "\u{fc}".as_bytes()];
    let command = ["perl", "-e", "print map { \"$_\\0\" } @ARGV", "--"].map(OsString::from);
    let all = EXEC.map(OsString::from).into_iter().chain(command);
    let (output, bytes) = banger.start(all.chain(words.map(|w| OsStr::from_bytes(w).to_owned()))).end_with_bytes();
    assert_eq!(output.code, 0, "{}", output.stderr);
    let arrived: Vec<&[u8]> = bytes.strip_suffix(b"\0").unwrap().split(|b| *b == 0).collect();
    assert_eq!(arrived, words);

    let show = ["vm", "exec", "-e", "A=b=c", "-e", "EMPTY=", "--cwd", "/usr/share", "box", "--", "sh", "-c"];
    let seen = banger.ok(show.iter().chain(&["echo \"$A|$EMPTY|${EMPTY+set}|$HOME|$USER\"; pwd"]));
    assert_eq!(seen, "b=c||set|/root|root\n/usr/share\n");
    assert_eq!(banger.sh("box", "pwd"), "/root\n");
}

fn streams(banger: &Banger) {
    let both = banger.run(EXEC.iter().chain(&["sh", "-c", "echo out; echo err >&2"]));
    assert_eq!((both.stdout.as_str(), both.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(banger.feed(EXEC.iter().chain(&["wc", "-c"]), b"").stdout, "0\n", "an empty stdin ends");
    let mut open = banger.start(EXEC.iter().chain(&["true"]));
    banger_integration::eventually("a command ends while its stdin is open", || open.has_ended());
    let head = banger.feed(EXEC.iter().chain(&["head", "-c", "3"]), &vec![b'x'; 8 << 20]);
    assert_eq!((head.code, head.stdout.as_str()), (0, "xxx"), "a command need not read its stdin");

    let begun = Instant::now();
    let parent = "(sleep 60; echo late) & echo early";
    assert_eq!(banger.sh("box", parent), "early\n");
    assert!(begun.elapsed() < Duration::from_secs(20), "a grandchild that holds the pipe is not waited for");

    let mut endless = banger.command(EXEC.iter().chain(&["sh", "-c", "echo first; exec yes"]));
    let mut shell = Command::new("sh");
    // The harness's own command, with its output in a pipe whose reader leaves after a line.
    shell.arg("-c").arg("\"$@\" | head -n1").arg("sh").arg(endless.get_program()).args(endless.get_args());
    shell.envs(endless.get_envs().filter_map(|(name, value)| Some((name, value?))));
    endless.stdout(std::process::Stdio::null());
    let begun = Instant::now();
    let first = shell.stdin(std::process::Stdio::null()).output().unwrap();
    assert_eq!(first.stdout, b"first\n");
    assert!(begun.elapsed() < Duration::from_secs(20));
    banger_integration::eventually("what nobody reads is ended", || {
        banger.run(EXEC.iter().chain(&["pidof", "yes"])).stdout.is_empty()
    });
}

#[test]
fn what_goes_in_comes_out() {
    for who in Who::all() {
        let banger = box_of(who);
        let sent: Vec<u8> = (0..32_u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let mut copying = banger.start(EXEC.iter().chain(&["cat"]));
        copying.feed(sent.clone());
        let (output, received) = copying.end_with_bytes();
        assert_eq!(output.code, 0, "{}", output.stderr);
        assert!(received == sent, "{} bytes came back of {}", received.len(), sent.len());
    }
}

#[test]
fn signals_reach_the_command() {
    let banger = box_of(Who::Me);
    for (signal, name) in [(Signal::SIGINT, "INT"), (Signal::SIGTERM, "TERM"), (Signal::SIGHUP, "HUP")] {
        let script = format!("trap 'echo caught {name}; exit 3' {name}; echo ready; while :; do sleep 0.1; done");
        let command = banger.start(EXEC.iter().chain(&["sh", "-c", &script]));
        command.says("ready\n").signal(signal);
        let output = command.end();
        assert_eq!((output.code, output.stdout), (3, format!("ready\ncaught {name}\n")), "{}", output.stderr);
    }
    let command = banger.start(EXEC.iter().chain(&["sh", "-c", "echo ready; exec sleep 1000"]));
    command.says("ready\n").signal(Signal::SIGTERM);
    assert_eq!(command.end().code, 128 + 15);
    on_a_terminal(&banger);
}

/// `script` gives the client a terminal: 33 lines of 111 columns, then 44 of 122, then a Ctrl-C.
fn on_a_terminal(banger: &Banger) {
    let guest = "trap 'echo int; exit 5' INT; trap 'stty size' WINCH; tty; stty size; echo ready; \
                 while :; do sleep 0.1; done";
    let inner = format!(
        "stty rows 33 cols 111; tty > {0}/tty; {1} vm exec -t box -- sh -c \"$GUEST\"; echo code $?",
        banger.home().display(),
        banger.command(["x"; 0]).get_program().to_string_lossy()
    );
    let plain = banger.command(["x"; 0]);
    let mut script = Command::new("script");
    script.args(["-qec", &inner, "/dev/null"]).env("GUEST", guest).env("SHELL", "/bin/sh");
    script.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    script.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut terminal = banger_integration::Running::of(script);
    terminal.says("ready");
    let tty = std::fs::read_to_string(banger.home().join("tty")).unwrap();
    let resized = Command::new("stty").args(["-F", tty.trim(), "rows", "44", "cols", "122"]).status().unwrap();
    assert!(resized.success());
    terminal.says("44 122");
    let mut keys = terminal.take_stdin();
    std::io::Write::write_all(&mut keys, b"\x03").unwrap();
    terminal.says("code 5");
    drop(keys);
    let output = terminal.end();
    let lines: Vec<&str> = output.stdout.lines().map(str::trim_end).collect();
    assert!(lines[0].starts_with("/dev/pts/"), "{lines:?}");
    assert_eq!(lines[1..4], ["33 111", "ready", "44 122"], "{lines:?}");
    assert!(lines.contains(&"^Cint"), "{lines:?}");
}

#[test]
fn a_command_that_waits_for_the_agent_alone_answers_before_the_system_is_up() {
    let banger = Banger::with_image(Who::Me, "debian-bookworm");
    let begun = Instant::now();
    banger.ok(["vm", "create", "--name", "box"]);
    banger.ok(["vm", "exec", "--wait", "agent", "box", "--", "true"]);
    let agent = begun.elapsed();
    banger.ok(["vm", "exec", "--wait", "system", "box", "--", "true"]);
    let system = begun.elapsed();
    println!("agent after {agent:?}, system after {system:?}");
    assert!(agent < system * 9 / 10, "{agent:?} against {system:?}");

    let waiting = banger.start(["vm", "run", "--rm", "--", "sleep", "1000"]);
    waiting.says("takes its identity");
    #[allow(clippy::disallowed_methods, reason = "the moment is what is tested")]
    std::thread::sleep(Duration::from_millis(1500));
    waiting.signal(Signal::SIGINT);
    let begun = Instant::now();
    let output = waiting.end();
    assert_eq!(output.code, 130, "Ctrl-C while the system starts: {}", output.stderr);
    println!("Ctrl-C while the system starts ends it in {:?}", begun.elapsed());
    assert_eq!(banger.list().len(), 1);
}
