//! How a VM begins and ends.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use banger_schemas::keeper::{Event, Exit, ExitCause, Phase, Request};

use crate::host::{Keeper, Watcher, eventually, files, is_dead, launch};

#[tokio::test]
async fn a_watcher_sees_every_phase_in_order() {
    let keeper = Keeper::start();
    let watcher = Watcher::of(&keeper).await;
    let idle = watcher.next().await;
    assert_eq!((idle.phase, idle.vmm_pid), (Phase::Idle, None));
    let client = keeper.client().await;
    assert_eq!(client.launch("sleep:200 print:hello sleep:200 agent:honest").await, Event::Done);
    let booting = watcher.next().await;
    assert_eq!(booting.phase, Phase::Booting);
    assert!(booting.generation > idle.generation);
    assert!(!is_dead(booting.vmm_pid.unwrap()));
    watcher.agent().await;
    assert_eq!(client.ask(Request::Kill).await.0, Event::Done);
    assert_eq!(watcher.exit().await, Exit { cause: ExitCause::Asked, message: String::new() });
    eventually("the VMM is gone", || is_dead(booting.vmm_pid.unwrap())).await;
}

#[tokio::test]
async fn the_first_byte_on_the_console_is_the_kernel() {
    let (keeper, _client) = Keeper::playing("print:hello").await;
    Watcher::of(&keeper).await.until(|phase| *phase == Phase::Kernel).await;
}

#[tokio::test]
async fn a_vmm_that_fails_is_quoted_and_the_keeper_goes_with_it() {
    let (mut keeper, _client) = Keeper::playing("say:qemu:_no_memory sleep:300 exit:3").await;
    let exit = Watcher::of(&keeper).await.exit().await;
    assert_eq!(exit, Exit { cause: ExitCause::Status(3), message: "qemu: no memory".into() });
    assert!(keeper.ended().await.success());
}

#[tokio::test]
async fn a_vmm_that_crashes_is_told_by_its_signal() {
    let (keeper, _client) = Keeper::playing("sleep:300 signal:9").await;
    assert_eq!(Watcher::of(&keeper).await.exit().await.cause, ExitCause::Signal(9));
}

#[tokio::test]
async fn an_end_that_nobody_watched_can_be_asked_for_a_moment_longer() {
    let (mut keeper, client) = Keeper::playing("exit:4").await;
    drop(client);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(Watcher::of(&keeper).await.exit().await.cause, ExitCause::Status(4));
    keeper.ended().await;
}

#[tokio::test]
async fn quit_ends_the_vmm_in_its_own_way() {
    let (keeper, client) = Keeper::playing("say:bye print:said").await;
    let watcher = Watcher::of(&keeper).await;
    watcher.until(|phase| *phase == Phase::Kernel).await;
    assert_eq!(client.ask(Request::Quit { grace_ms: 10_000 }).await.0, Event::Done);
    assert_eq!(watcher.exit().await, Exit { cause: ExitCause::Asked, message: "bye".into() });
}

#[tokio::test]
async fn a_killed_keeper_takes_its_vmm_along() {
    let (mut keeper, _client) = Keeper::playing("print:hello").await;
    let pid = Watcher::of(&keeper).await.next().await.vmm_pid.unwrap();
    assert!(!is_dead(pid));
    keeper.process.kill().unwrap();
    eventually("the VMM is gone", || is_dead(pid)).await;
}

#[tokio::test]
async fn sigterm_ends_both() {
    let (mut keeper, _client) = Keeper::playing("qmp:deaf").await;
    let watcher = Watcher::of(&keeper).await;
    let pid = watcher.next().await.vmm_pid.unwrap();
    let keeper_pid = nix::unistd::Pid::from_raw(keeper.process.id().try_into().unwrap());
    nix::sys::signal::kill(keeper_pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(watcher.exit().await.cause, ExitCause::Asked);
    assert!(keeper.ended().await.success());
    assert!(is_dead(pid));
}

#[tokio::test]
async fn the_vm_ends_with_the_client_it_is_leased_to() {
    let mut client_process = Command::new("sleep").arg("600").spawn().unwrap();
    let pidfd = pidfd(client_process.id());
    let keeper = Keeper::start();
    let client = keeper.client().await;
    let files = files("print:hello");
    let fds: Vec<_> = files.iter().chain([&pidfd]).map(AsFd::as_fd).collect();
    let mut launch = launch();
    launch.leased = true;
    assert_eq!(client.ask_with(Request::Launch(Box::new(launch)), &fds).await.0, Event::Done);
    let watcher = Watcher::of(&keeper).await;
    watcher.until(|phase| *phase == Phase::Kernel).await;
    client_process.kill().unwrap();
    client_process.wait().unwrap();
    assert_eq!(watcher.exit().await.cause, ExitCause::Lease);
}

#[allow(unsafe_code, reason = "a call that nix does not wrap")]
fn pidfd(pid: u32) -> OwnedFd {
    // SAFETY: the call takes two numbers, and its result is a descriptor of our own.
    unsafe {
        let fd = nix::libc::syscall(nix::libc::SYS_pidfd_open, pid, 0);
        assert!(fd >= 0);
        OwnedFd::from_raw_fd(i32::try_from(fd).unwrap())
    }
}

#[tokio::test]
async fn a_keeper_has_one_launch() {
    let (_keeper, client) = Keeper::playing("print:hello").await;
    assert!(matches!(client.launch("print:again").await, Event::Failed(_)));
}

#[tokio::test]
async fn a_launch_that_fails_may_be_repeated() {
    let keeper = Keeper::start();
    let client = keeper.client().await;
    let mut wrong = launch();
    wrong.vmm = "/nonexistent/vmm".into();
    let files = files("");
    let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    let (event, _) = client.ask_with(Request::Launch(Box::new(wrong)), &fds).await;
    assert!(matches!(&event, Event::Failed(why) if why.contains("/nonexistent/vmm")), "{event:?}");
    let (event, _) = client.ask_with(Request::Launch(Box::new(launch())), &fds[..3]).await;
    assert!(matches!(&event, Event::Failed(why) if why.contains("3 descriptors")), "{event:?}");
    assert_eq!(client.launch("print:hello").await, Event::Done);
}

#[tokio::test]
async fn a_keeper_without_a_launch_does_not_stay() {
    let mut keeper = Keeper::start_with(&[("BANGER_KEEPER_PATIENCE_MS", "300")]);
    let _client = keeper.client().await;
    assert!(keeper.ended().await.success());
}

#[tokio::test]
async fn an_idle_keeper_can_be_ended() {
    let mut keeper = Keeper::start();
    assert_eq!(keeper.client().await.ask(Request::Kill).await.0, Event::Done);
    assert!(keeper.ended().await.success());
}
