//! The one place that knows how a message becomes bytes: bincode 2 (standard configuration) with hard limits,
//! and the length prefix of stream transports.
//!
//! A frame is a little-endian `u32` length and that many bytes of payload. bincode's decoder is told a limit too,
//! so a length inside the payload cannot make it allocate more than a whole frame of the smallest elements would.

use bincode::config;

/// No message is longer than this, whatever its sender says: 64 KiB of data and room for its envelope.
pub const MAX_MESSAGE: usize = 96 * 1024;
/// The most data that one frame of a stream carries.
pub const MAX_DATA: usize = 64 * 1024;
/// No decoded message holds more memory than this. A string of one byte on the wire takes 24 in memory, and
/// bincode counts both: whatever fits into [`MAX_MESSAGE`] stays below.
pub const MAX_DECODED: usize = 32 * MAX_MESSAGE;
/// Bytes of the length prefix.
const PREFIX: usize = 4;

/// Bytes that are no message of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("a message of {0} bytes exceeds the limit of {MAX_MESSAGE}")]
    TooLong(usize),
    #[error("malformed message: {0}")]
    Malformed(String),
    #[error("{0} bytes follow the message")]
    Trailing(usize),
    #[error("the stream ended inside a message")]
    Truncated,
}

fn configuration() -> impl config::Config {
    config::standard().with_limit::<MAX_DECODED>()
}

/// Encodes a message without a length prefix (for packet sockets).
pub fn encode<T: bincode::Encode>(message: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = bincode::encode_to_vec(message, configuration()).map_err(|e| CodecError::Malformed(e.to_string()))?;
    if bytes.len() > MAX_MESSAGE { Err(CodecError::TooLong(bytes.len())) } else { Ok(bytes) }
}

/// Decodes a message that must fill `bytes` exactly.
pub fn decode<T: bincode::Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(CodecError::TooLong(bytes.len()));
    }
    let (message, used) =
        bincode::decode_from_slice(bytes, configuration()).map_err(|e| CodecError::Malformed(e.to_string()))?;
    match bytes.len() - used {
        0 => Ok(message),
        rest => Err(CodecError::Trailing(rest)),
    }
}

/// Encodes a message with its length prefix (for streams).
pub fn encode_frame<T: bincode::Encode>(message: &T) -> Result<Vec<u8>, CodecError> {
    let mut frame = vec![0; PREFIX];
    bincode::encode_into_std_write(message, &mut frame, configuration())
        .map_err(|e| CodecError::Malformed(e.to_string()))?;
    let prefix = prefix(frame.len() - PREFIX)?;
    frame[..PREFIX].copy_from_slice(&prefix);
    Ok(frame)
}

/// Room before data for the head of its frame: the frame's length (4), the message's kind (1), the data's length (up to 5).
/// More than that, so that data lie as well as the buffer does.
pub const HEAD: usize = 16;

/// The frame that [`encode_frame`] would make of `kind(data)`, where the data are and not copied: behind [`HEAD`] bytes of
/// `buffer`.
pub fn frame_in_place<T: bincode::Encode>(kind: fn(Vec<u8>) -> T, buffer: &mut [u8]) -> Result<&[u8], CodecError> {
    let data = buffer.len().checked_sub(HEAD).ok_or(CodecError::Truncated)?;
    // A message without data ends with the length of none.
    let mut head = encode(&kind(Vec::new()))?;
    head.pop();
    head.extend(encode(&data)?);
    let prefix = prefix(head.len() + data)?;
    let start = HEAD.checked_sub(PREFIX + head.len()).ok_or(CodecError::TooLong(data))?;
    buffer[start..start + PREFIX].copy_from_slice(&prefix);
    buffer[start + PREFIX..HEAD].copy_from_slice(&head);
    Ok(&buffer[start..])
}

fn prefix(length: usize) -> Result<[u8; PREFIX], CodecError> {
    let length = u32::try_from(length).ok().filter(|_| length <= MAX_MESSAGE).ok_or(CodecError::TooLong(length))?;
    Ok(length.to_le_bytes())
}

/// Collects bytes of a stream and gives back whole messages.
#[derive(Debug, Default)]
pub struct Deframer {
    /// What arrived and was not taken yet is `start..end` of it.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Deframer {
    /// Where the next bytes may be put, at least for a whole frame; [`Deframer::arrived`] says how many came.
    pub fn room(&mut self) -> &mut [u8] {
        self.room_for(PREFIX + MAX_MESSAGE)
    }

    fn room_for(&mut self, length: usize) -> &mut [u8] {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < self.end + length {
            self.buffer.resize(self.end + length, 0);
        }
        &mut self.buffer[self.end..]
    }

    /// So many bytes were put into [`Deframer::room`].
    pub fn arrived(&mut self, length: usize) {
        self.end = self.buffer.len().min(self.end + length);
    }

    /// Adds bytes that arrived elsewhere.
    pub fn push(&mut self, bytes: &[u8]) {
        self.room_for(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.arrived(bytes.len());
    }

    /// The next whole message, or `None` when more bytes are needed.
    pub fn take<T: bincode::Decode<()>>(&mut self) -> Result<Option<T>, CodecError> {
        let rest = &self.buffer[self.start..self.end];
        let Some((prefix, body)) = rest.split_first_chunk::<PREFIX>() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
        if length > MAX_MESSAGE {
            return Err(CodecError::TooLong(length));
        }
        let Some(body) = body.get(..length) else { return Ok(None) };
        let message = decode(body)?;
        self.start += PREFIX + length;
        Ok(Some(message))
    }

    /// Whether the stream may end here: nothing half received.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes received and not yet taken, for handing the stream to another reader.
    pub fn into_rest(mut self) -> Vec<u8> {
        self.buffer.truncate(self.end);
        self.buffer.split_off(self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_four_gigabytes_is_refused_before_anything_is_allocated() {
        let mut deframer = Deframer::default();
        deframer.push(&u32::MAX.to_le_bytes());
        assert_eq!(deframer.take::<String>(), Err(CodecError::TooLong(u32::MAX as usize)));
    }

    #[test]
    fn a_length_inside_the_payload_cannot_allocate() {
        // A Vec that claims 2^60 elements: bincode's varint prefix 253 announces a u64.
        let mut bytes = vec![253];
        bytes.extend_from_slice(&(1u64 << 60).to_le_bytes());
        assert!(matches!(decode::<Vec<u8>>(&bytes), Err(CodecError::Malformed(_))));
    }

    #[test]
    fn many_small_strings_are_understood_as_well_as_a_large_one() {
        for strings in [vec![String::new(); MAX_MESSAGE - 5], vec!["x".repeat(MAX_MESSAGE - 6)]] {
            let bytes = encode(&strings).unwrap();
            assert_eq!(bytes.len(), MAX_MESSAGE);
            assert!(decode::<Vec<String>>(&bytes) == Ok(strings));
        }
    }

    #[test]
    fn a_frame_made_in_place_is_the_one_that_would_be_encoded() {
        use crate::guest::{ExecInput, ExecOutput};
        fn in_place<T: bincode::Encode>(kind: fn(Vec<u8>) -> T, data: &[u8]) -> Result<Vec<u8>, CodecError> {
            let mut buffer = vec![0xee; HEAD];
            buffer.extend_from_slice(data);
            frame_in_place(kind, &mut buffer).map(<[u8]>::to_vec)
        }
        // Each length of a length, and the most data.
        for length in [0, 1, 250, 251, 65535, MAX_DATA] {
            let data = vec![0x5a; length];
            assert_eq!(in_place(ExecOutput::Stderr, &data), encode_frame(&ExecOutput::Stderr(data.clone())));
            assert_eq!(in_place(ExecInput::Stdin, &data), encode_frame(&ExecInput::Stdin(data)));
        }
        let long = vec![0; MAX_MESSAGE];
        assert!(matches!(in_place(ExecOutput::Stdout, &long), Err(CodecError::TooLong(_))));
        assert_eq!(frame_in_place(ExecOutput::Stdout, &mut [0; HEAD - 1]), Err(CodecError::Truncated));
    }

    #[test]
    fn frames_survive_any_cut() {
        let mut wire = encode_frame(&"hello".to_owned()).unwrap();
        wire.extend(encode_frame(&"world".to_owned()).unwrap());
        for cut in 0..wire.len() {
            let mut deframer = Deframer::default();
            let mut seen: Vec<String> = Vec::new();
            for part in [&wire[..cut], &wire[cut..]] {
                deframer.push(part);
                while let Some(message) = deframer.take().unwrap() {
                    seen.push(message);
                }
            }
            assert_eq!(seen, ["hello", "world"]);
            assert!(deframer.is_empty());
        }
    }

    #[test]
    fn trailing_bytes_are_an_error() {
        let mut bytes = encode(&7u8).unwrap();
        bytes.push(0);
        assert_eq!(decode::<u8>(&bytes), Err(CodecError::Trailing(1)));
    }
}
