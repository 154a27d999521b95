//! A Firecracker that fails, at each request and in each way: a clear error in bounded time, and nothing left.

use std::time::{Duration, Instant};

use banger_schemas::keeper::Event;

use crate::stage::Stage;

/// Each request in its order.
const REQUESTS: [&str; 8] = [
    "/machine-config",
    "/boot-source",
    "/drives/image",
    "/drives/system",
    "/drives/work",
    "/vsock",
    "/entropy",
    "/actions",
];
/// A supervisor waits for ten seconds.
const BOUND: Duration = Duration::from_millis(9500);

/// What the launch is answered, with a VMM whose script says this.
async fn failure(script: &str) -> String {
    let stage = Stage::with(script);
    let client = stage.keeper.client().await;
    let begun = Instant::now();
    let event = stage.launch(&client, "print:never agent:honest", false).await;
    let took = begun.elapsed();
    let Event::Failed(why) = event else { panic!("{script}: {event:?}") };
    assert!(took < BOUND, "{script}: {took:?}");
    assert!(why.starts_with("cannot run /") && why.len() < 6000, "{script}: {why}");
    stage.assert_nothing_is_left();
    why
}

#[tokio::test]
async fn a_refusal_of_any_request_is_quoted() {
    for request in REQUESTS {
        let why = failure(&format!("{request} refuse Cannot do\u{1b}[31m this.\n")).await;
        assert!(why.contains(&format!("PUT {request} was refused: Cannot do [31m this.")), "{why}");
        let why = failure(&format!("{request} wordless")).await;
        assert!(why.contains(&format!("PUT {request} was refused: status 400")), "{why}");
    }
}

#[tokio::test]
async fn a_death_at_any_request_is_told_by_its_status_or_signal() {
    for request in ["start"].into_iter().chain(REQUESTS) {
        let why = failure(&format!("{request} die")).await;
        assert!(why.contains("exit status: 3"), "{request}: {why}");
    }
    for request in REQUESTS {
        let why = failure(&format!("{request} crash")).await;
        assert!(why.contains("signal: 31"), "{request}: {why}");
    }
}

#[tokio::test]
async fn what_it_says_before_it_dies_is_quoted() {
    let why = failure("/actions say Error creating KVM object: Permission denied (os error 13)").await;
    assert!(why.ends_with("Error creating KVM object: Permission denied (os error 13)"), "{why}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_is_none_is_told_at_once() {
    for request in REQUESTS {
        for fate in ["close", "half", "half-body", "nonsense", "endless-head", "endless-body"] {
            let begun = Instant::now();
            let why = failure(&format!("{request} {fate}")).await;
            assert!(why.contains(&format!("no answer to PUT {request}: ")), "{fate}: {why}");
            assert!(begun.elapsed() < Duration::from_secs(5), "{request} {fate}: {:?}", begun.elapsed());
        }
    }
}

#[tokio::test]
async fn silence_ends_the_start_at_its_deadline() {
    for at in ["start deaf", "/machine-config hang", "/actions hang"] {
        let why = failure(at).await;
        assert!(why.contains("did not start in 8 s"), "{at}: {why}");
    }
}

#[tokio::test]
async fn a_start_that_failed_may_be_tried_again() {
    let stage = Stage::with("/entropy refuse no");
    let client = stage.keeper.client().await;
    assert!(matches!(stage.launch(&client, "print:hello", false).await, Event::Failed(_)));
    stage.rewrite("");
    assert_eq!(stage.launch(&client, "print:hello", false).await, Event::Done);
}
