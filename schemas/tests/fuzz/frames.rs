//! Streams of frames, as they arrive: cut anywhere, damaged anywhere.

use banger_schemas::codec::{CodecError, Deframer, MAX_DECODED, encode, encode_frame};
use banger_schemas::guest::{ExecInput, ExecOutput};
use bincode::{Decode, Encode};
use bolero::check;

use crate::wild::Wild;
use crate::{memory, samples};

/// All that a receiver takes out of a stream that arrives in these pieces; up to the first error.
fn received<'p, T: Decode<()>>(pieces: impl Iterator<Item = &'p [u8]>) -> (Vec<T>, Option<CodecError>, Vec<u8>) {
    let mut deframer = Deframer::default();
    let mut messages = Vec::new();
    for piece in pieces {
        deframer.push(piece);
        loop {
            match deframer.take() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error), Vec::new()),
            }
        }
    }
    (messages, None, deframer.into_rest())
}

/// The pieces of a stream between these places.
fn cut<'w>(wire: &'w [u8], places: &[u16]) -> Vec<&'w [u8]> {
    let mut places: Vec<usize> = places.iter().map(|p| usize::from(*p) % (wire.len() + 1)).collect();
    places.extend([0, wire.len()]);
    places.sort_unstable();
    places.windows(2).map(|w| &wire[w[0]..w[1]]).collect()
}

/// A stream of true messages and what an adversary makes of them.
fn wire<T: Encode + Decode<()>>(samples: &[Vec<u8>], wilds: &[Wild]) -> Vec<u8> {
    let frames: Vec<Vec<u8>> = samples
        .iter()
        .map(|sample| encode_frame(&banger_schemas::codec::decode::<T>(sample).unwrap()).unwrap())
        .collect();
    wilds.iter().flat_map(|wild| wild.bytes(&frames)).collect()
}

fn target<T: Encode + Decode<()> + PartialEq + std::fmt::Debug>(samples: Vec<Vec<u8>>) {
    check!().with_type::<(Vec<Wild>, Vec<u16>)>().for_each(|(wilds, places)| {
        let wire = wire::<T>(&samples, wilds);
        let pieces = cut(&wire, places);
        let whole = received::<T>([wire.as_slice()].into_iter());
        // The stream once more, and room for what it grew through; then one message that claims all it may.
        let limit = 64 * wire.len() + memory::MESSAGE;
        let parts = memory::within(limit, || received::<T>(pieces.into_iter()));
        assert_eq!(parts, whole, "how a stream is cut changes nothing");
    });
}

/// Found by the streams below: room is made for the length that a message claims before its bytes are missed.
#[test]
fn a_short_frame_that_claims_much_is_given_no_more_than_a_message() {
    // `Stdout` with a length in bincode's four-byte form, and not one of these bytes behind it.
    let claim = |length: u32| {
        let mut message = encode(&ExecOutput::Stdout(Vec::new())).unwrap();
        message.truncate(1);
        message.push(252);
        message.extend(length.to_le_bytes());
        let mut frame = u32::try_from(message.len()).unwrap().to_le_bytes().to_vec();
        frame.extend(message);
        frame
    };
    for length in [1, 77_000, MAX_DECODED - 1, MAX_DECODED, MAX_DECODED + 1, u32::MAX as usize] {
        let frame = claim(u32::try_from(length).unwrap());
        let (messages, error, _) =
            memory::within(memory::MESSAGE, || received::<ExecOutput>([frame.as_slice()].into_iter()));
        assert_eq!(messages, []);
        assert!(matches!(error, Some(CodecError::Malformed(_))), "{length}: {error:?}");
    }
}

#[test]
fn streams_to_the_guest() {
    target::<ExecInput>(samples::inputs());
}

#[test]
fn streams_of_the_guest() {
    target::<ExecOutput>(samples::outputs());
}
