//! Single messages, both ways, of both protocols.

use std::fmt::Debug;

use banger_schemas::codec::{CodecError, MAX_MESSAGE, decode, encode};
use banger_schemas::guest::{Exec, ExecInput, ExecOutput, Identity, Reply, Request, Stdin, Wait};
use banger_schemas::keeper;
use bincode::{Decode, Encode};
use bolero::check;

use crate::wild::Wild;
use crate::{memory, samples};

/// What is understood is within its bounds, and says the same again.
fn understood<T: Encode + Decode<()> + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(message) = memory::within(memory::MESSAGE, || decode::<T>(bytes)) else { return };
    let again = encode(&message).unwrap();
    assert!(again.len() <= bytes.len(), "the shortest form is ours");
    assert_eq!(decode::<T>(&again).as_ref(), Ok(&message));
}

fn target<T: Encode + Decode<()> + PartialEq + Debug>(samples: Vec<Vec<u8>>) {
    for sample in &samples {
        assert!(decode::<T>(sample).is_ok());
    }
    check!().with_type::<Wild>().for_each(|wild| understood::<T>(&wild.bytes(&samples)));
}

#[test]
fn requests_to_the_guest() {
    target::<Request>(samples::requests());
}

#[test]
fn replies_of_the_guest() {
    target::<Reply>(samples::replies());
}

#[test]
fn input_of_a_command() {
    target::<ExecInput>(samples::inputs());
}

#[test]
fn output_of_a_command() {
    target::<ExecOutput>(samples::outputs());
}

#[test]
fn identities() {
    target::<Identity>(vec![encode(&samples::identity()).unwrap()]);
}

#[test]
fn requests_to_a_keeper() {
    target::<keeper::Request>(samples::keeper_requests());
}

#[test]
fn events_of_a_keeper() {
    target::<keeper::Event>(samples::keeper_events());
}

#[test]
fn versions_of_a_keeper() {
    target::<keeper::Hello>(vec![encode(&keeper::Hello::default()).unwrap()]);
}

/// What one side can say, the other side understands: many small arguments as well as few large ones.
#[test]
fn whatever_can_be_sent_is_understood() {
    check!().with_type::<(Vec<Vec<u8>>, u16)>().for_each(|(words, times)| {
        let many = words.iter().cycle().take(words.len() * usize::from(*times) % 50_000).cloned();
        let argv: Vec<Vec<u8>> = many.collect();
        let env = argv.iter().map(|word| (word.clone(), word.clone())).collect();
        for (argv, env) in [(argv.clone(), vec![]), (vec![], env)] {
            let exec = Exec { argv, env, cwd: None, tty: None, stdin: Stdin::Null, wait: Wait::Agent };
            match encode(&exec) {
                Ok(bytes) => assert!(decode::<Exec>(&bytes) == Ok(exec)),
                Err(error) => assert!(matches!(error, CodecError::TooLong(length) if length > MAX_MESSAGE)),
            }
        }
    });
}
