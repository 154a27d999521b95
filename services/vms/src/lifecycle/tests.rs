//! The machine, driven without an OS.

use banger_schemas::error::{Error, Kind};
use proptest::prelude::*;

use super::*;

fn why() -> Error {
    Error::new(Kind::Guest, "because")
}

/// Runs events from a state; the last state and all effects.
fn run(state: State, events: impl IntoIterator<Item = Event>) -> (State, Vec<Effect>) {
    events.into_iter().fold((state, vec![]), |(state, mut effects), event| {
        let (next, more) = step(state, event);
        effects.extend(more);
        (next, effects)
    })
}

const NEW: State = State::Creating { start: true, doomed: false };

#[test]
fn a_whole_life() {
    let (state, effects) = run(
        NEW,
        [
            Event::Made(Ok(())),
            Event::Launched(Ok(Way::Boot)),
            Event::AgentUp,
            Event::Identified(Ok(())),
            Event::Stop { grace_ms: 5 },
            Event::Exited(why()),
            Event::Settled,
            Event::Delete,
            Event::Removed(Ok(())),
        ],
    );
    assert_eq!(state, State::Gone { why: None });
    use Effect::*;
    assert_eq!(effects, [Launch, AwaitAgent, Identify, Shutdown { grace_ms: 5 }, Settle, Remove]);
}

#[test]
fn a_creation_that_fails_leaves_nothing_and_tells_why() {
    let (state, effects) = run(NEW, [Event::Made(Err(why())), Event::Removed(Ok(()))]);
    assert_eq!((Goal::Running.verdict(&state), effects), (Some(Err(why())), vec![Effect::Remove]));
}

#[test]
fn a_boot_that_never_answers_is_ended_and_kept() {
    let (state, effects) =
        run(State::Booting(Way::Boot), [Event::Late(why()), Event::Exited(Error::internal("killed")), Event::Settled]);
    assert_eq!(state, State::Stopped { why: Some(why()) });
    assert_eq!(effects, [Effect::Kill, Effect::Settle]);
    assert_eq!(Goal::Running.verdict(&state), Some(Err(why())));
}

#[test]
fn a_boot_that_stands_still_is_begun_once_more() {
    let still = [Event::Still(why()), Event::Exited(Error::internal("killed"))];
    let (state, effects) = run(State::Booting(Way::Boot), still);
    assert_eq!((Goal::Running.verdict(&state), state.as_str()), (None, "starting"));
    assert_eq!(effects, [Effect::Kill, Effect::Settle]);
    assert_eq!(step(state, Event::Settled), (State::Launching { then: None }, vec![Effect::Launch]));
    // Once the agent has spoken, its deadline is for the rest.
    let (state, effects) = run(State::Identifying(Way::Boot), [Event::Still(why())]);
    assert_eq!((state, effects), (State::Identifying(Way::Boot), vec![]));
}

#[test]
fn a_vm_whose_template_does_not_go_on_boots() {
    let booting = State::Launching { then: None };
    for events in [
        vec![Event::Exited(why()), Event::Settled],
        vec![Event::Late(why()), Event::Exited(why()), Event::Settled],
        vec![Event::AgentUp, Event::Identified(Err(why())), Event::Exited(why()), Event::Settled],
    ] {
        let launched = std::iter::once(Event::Launched(Ok(Way::Template)));
        let (state, effects) = run(booting.clone(), launched.chain(events.clone()));
        assert_eq!(state, State::Launching { then: None });
        assert_eq!(effects.last(), Some(&Effect::Launch));
        for (at, _) in events.iter().enumerate() {
            let launched = std::iter::once(Event::Launched(Ok(Way::Template)));
            let (state, _) = run(booting.clone(), launched.chain(events[..at].iter().cloned()));
            assert_eq!((Goal::Running.verdict(&state), state.as_str()), (None, "starting"), "{state:?}");
            let (state, _) = run(state, [Event::Stop { grace_ms: 1 }, Event::Exited(why()), Event::Settled]);
            assert_eq!(state, State::Stopped { why: None });
        }
        // Once more it does not go on from a template.
        let (state, _) = run(state, [Event::Launched(Ok(Way::Boot)), Event::Exited(why()), Event::Settled]);
        assert_eq!(state, State::Stopped { why: Some(why()) });
    }
}

#[test]
fn a_delete_in_the_middle_of_a_launch_waits_for_what_was_launched() {
    let (state, effects) = run(State::Launching { then: None }, [Event::Delete]);
    assert_eq!((state.as_str(), effects.len()), ("starting", 0));
    let (state, effects) = run(state, [Event::Launched(Ok(Way::Boot)), Event::Exited(why()), Event::Settled]);
    assert_eq!(state, State::Removing { why: None });
    assert_eq!(effects, [Effect::Kill, Effect::Settle, Effect::Remove]);
}

fn any_event() -> impl Strategy<Value = Event> {
    let outcome = || prop_oneof![Just(Ok(())), Just(Err(why()))];
    prop_oneof![
        Just(Event::Start),
        Just(Event::Stop { grace_ms: 1 }),
        Just(Event::Delete),
        Just(Event::ClientGone),
        outcome().prop_map(Event::Made),
        prop_oneof![Just(Ok(Way::Boot)), Just(Ok(Way::Template)), Just(Err(why()))].prop_map(Event::Launched),
        outcome().prop_map(Event::Identified),
        outcome().prop_map(Event::Removed),
        Just(Event::Settled),
        Just(Event::AgentUp),
        Just(Event::Silent(why())),
        Just(Event::Exited(why())),
        Just(Event::Late(why())),
        Just(Event::Still(why())),
    ]
}

/// Answers effects as a host would on which everything works, until nothing is left to do.
fn settle(mut state: State, mut effects: Vec<Effect>) -> State {
    for _ in 0..32 {
        let Some(effect) = effects.pop() else { break };
        let event = match effect {
            Effect::Make => Event::Made(Ok(())),
            Effect::Abandon => Event::Made(Err(why())),
            Effect::Launch => Event::Launched(Ok(Way::Boot)),
            Effect::Identify => Event::Identified(Ok(())),
            Effect::Shutdown { .. } | Effect::Kill => Event::Exited(why()),
            Effect::Settle => Event::Settled,
            Effect::Remove => Event::Removed(Ok(())),
            Effect::AwaitAgent => Event::AgentUp,
        };
        let more;
        (state, more) = step(state, event);
        effects.extend(more);
    }
    state
}

proptest! {
    #[test]
    fn nothing_comes_back_from_the_dead(events in prop::collection::vec(any_event(), 0..40)) {
        let (state, effects) = run(State::Gone { why: None }, events);
        prop_assert_eq!(state, State::Gone { why: None });
        prop_assert!(effects.is_empty());
    }

    /// Whatever happened, a delete ends in nothing left, once what was under way has reported.
    #[test]
    fn a_delete_always_ends_in_nothing(events in prop::collection::vec(any_event(), 0..40)) {
        let (state, _) = run(NEW, events);
        let (state, mut effects) = step(state, Event::Delete);
        // What was under way in this state reports as well.
        match state {
            State::Creating { .. } if effects.is_empty() => effects.push(Effect::Make),
            State::Launching { .. } => effects.push(Effect::Launch),
            State::Ending { .. } => effects.push(Effect::Kill),
            State::Settling { .. } => effects.push(Effect::Settle),
            State::Removing { .. } if effects.is_empty() => effects.push(Effect::Remove),
            _ => {}
        }
        let end = settle(state, effects);
        prop_assert!(matches!(end, State::Gone { .. }), "{end:?}");
        prop_assert!(Goal::Gone.verdict(&end) == Some(Ok(())));
    }

    /// Every job ends once the VM rests: no caller waits for ever.
    #[test]
    fn no_goal_is_left_open_where_the_vm_rests(events in prop::collection::vec(any_event(), 0..40)) {
        let (state, _) = run(NEW, events);
        if matches!(state, State::Stopped { .. } | State::Gone { .. }) {
            for goal in [Goal::Made, Goal::Running, Goal::Stopped] {
                prop_assert!(goal.verdict(&state).is_some(), "{goal:?} in {state:?}");
            }
        }
    }
}
