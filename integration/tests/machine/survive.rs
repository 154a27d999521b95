//! Services may die at any moment: machines, commands in them and streams go on, and records are found again.

use std::time::Instant;

use banger_integration::{Banger, Who, eventually};
use nix::sys::signal::{Signal, kill};

const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";

fn a_counter_goes_on(banger: &Banger) {
    let count = "i=0; while [ $i -lt 150 ]; do read t x < /proc/uptime; echo $i $t; i=$((i+1)); sleep 0.01; done";
    let counting = banger.start(["vm", "exec", "box", "--", "sh", "-c", count]);
    counting.says("\n50 ");
    banger.kill_services();
    let output = counting.end();
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    let pairs = output.stdout.lines().map(|line| line.split_once(' ').unwrap());
    let (numbers, times): (Vec<usize>, Vec<f64>) =
        pairs.map(|(n, t)| (n.parse::<usize>().unwrap(), t.parse::<f64>().unwrap())).unzip();
    assert_eq!(numbers, (0..150).collect::<Vec<_>>(), "none lost, none twice, in order");
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    assert!(longest < 2.0, "the guest did not notice: its longest pause was {longest} s");
}

/// 24 MiB that repeat nowhere.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let word = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..3 << 20).flat_map(word).collect()
}

fn a_stream_both_ways_is_whole(banger: &Banger) {
    let sent = noise();
    let mut copying = banger.start(["vm", "exec", "box", "--", "cat"]);
    copying.feed(sent.clone());
    eventually("the stream flows", || copying.stdout_len() > 4 << 20);
    banger.kill_services();
    let on_the_way = copying.stdout_len();
    assert!(on_the_way < sent.len() / 2, "killed in the middle, not at {on_the_way}");
    let (output, received) = copying.end_with_bytes();
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    assert!(received == sent, "{} bytes came back of {}", received.len(), sent.len());
}

fn commands_outlive_the_services(who: Who) {
    let banger = Banger::new(who);
    banger.boot("box");
    let boot_id = banger.sh("box", BOOT_ID);
    a_counter_goes_on(&banger);
    a_stream_both_ways_is_whole(&banger);
    assert_eq!(banger.sh("box", BOOT_ID), boot_id);
    assert_eq!(banger.show("box")["boot_id"], boot_id.trim(), "the machine is known again as the one it is");
}

#[test]
fn commands_outlive_the_services_byte_by_byte() {
    commands_outlive_the_services(Who::Me);
}

#[test]
fn commands_outlive_the_services_of_an_ordinary_user() {
    match Who::all().contains(&Who::User) {
        true => commands_outlive_the_services(Who::User),
        false => println!("skipped: only root can become another user"),
    }
}

#[test]
fn a_machine_whose_keeper_is_killed_dies_and_says_so() {
    let banger = Banger::new(Who::Me);
    banger.boot("one");
    banger.boot("two");
    let died = |name: &str| {
        eventually("the machine is known to have ended", || banger.show(name)["state"] == "failed");
        let why = banger.show(name)["detail"].as_str().unwrap().to_owned();
        assert!(!why.is_empty(), "a reason is shown");
        println!("{name}: {why}");
    };
    let id = |name: &str| banger.show(name)["id"].as_str().unwrap().to_owned();
    let (one, two) = (id("one"), id("two"));

    kill(banger.keeper(&one), Signal::SIGKILL).unwrap();
    let killed = Instant::now();
    eventually("only the other one's keeper and VMM are left", || banger.on_the_host().len() == 2);
    println!("the VMM died {:?} after its keeper", killed.elapsed());
    died("one");
    assert_eq!(banger.show("two")["state"], "running");

    banger.kill_services();
    kill(banger.keeper(&two), Signal::SIGKILL).unwrap();
    eventually("with nobody looking too", || banger.on_the_host().is_empty());
    died("two");
    banger.ok(["vm", "start", "one", "two"]);
    assert_eq!(banger.sh("one", "hostname"), "one\n");
}

#[test]
fn a_boot_that_stands_still_is_begun_once_more() {
    let banger = Banger::new(Who::Me);
    let starting = banger.start(["vm", "create", "--image", "debian-tiny", "--name", "box"]);
    eventually("its kernel talks", || banger.run(["vm", "logs", "box"]).stdout.contains("Linux version"));
    let first = banger.vmms();
    assert_eq!(first.len(), 1);
    first.iter().for_each(|vmm| kill(*vmm, Signal::SIGSTOP).unwrap());
    // Well before the deadline of a boot.
    let output = starting.end();
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(banger.vmms().len() == 1 && banger.vmms() != first);
    let notes = banger.show("box")["notes"].to_string();
    assert!(notes.contains("its emulated kernel stood still") && notes.contains("started once more"), "{notes}");
    banger.ok(["vm", "delete", "box"]);
    banger.has_nothing_left();
}

#[test]
fn a_stopped_machine_is_still_there_after_the_services_died() {
    let banger = Banger::new(Who::Me);
    banger.ok(["vm", "create", "--image", "debian-tiny", "--name", "rest", "--no-start", "-p", "4000:80"]);
    let before = banger.show("rest");
    banger.kill_services();
    let mut after = banger.show("rest");
    after["age"] = before["age"].clone();
    assert_eq!(after, before);
    assert_eq!(before["state"], "stopped");
}
