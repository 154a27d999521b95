//! Framed messages over an async byte stream.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::codec::{CodecError, Deframer, encode_frame, frame_in_place};

impl From<CodecError> for io::Error {
    fn from(error: CodecError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

/// Reads whole messages from a stream. Cancel safe: what was received stays for the next call.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    deframer: Deframer,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub fn new(stream: R) -> Self {
        FrameReader { stream, deframer: Deframer::default() }
    }

    /// The next message; `None` at a clean end. An end inside a message is an error.
    pub async fn next<T: bincode::Decode<()>>(&mut self) -> io::Result<Option<T>> {
        loop {
            if let Some(message) = self.deframer.take()? {
                return Ok(Some(message));
            }
            let read = match self.stream.read(self.deframer.room()).await {
                // A unix socket says so, behind all that it brought, when its peer left something unread: an end.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
                read => read?,
            };
            match read {
                0 if self.deframer.is_empty() => return Ok(None),
                0 => return Err(CodecError::Truncated.into()),
                n => self.deframer.arrived(n),
            }
        }
    }

    /// The next message, where the stream must not end yet.
    pub async fn expect<T: bincode::Decode<()>>(&mut self) -> io::Result<T> {
        self.next().await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// Writes one message.
pub async fn write_frame<W: AsyncWrite + Unpin, T: bincode::Encode>(stream: &mut W, message: &T) -> io::Result<()> {
    stream.write_all(&encode_frame(message)?).await?;
    stream.flush().await
}

/// Writes one message of data that lie behind room for its head, as [`frame_in_place`] makes it.
pub async fn write_in_place<W: AsyncWrite + Unpin, T: bincode::Encode>(
    stream: &mut W,
    kind: fn(Vec<u8>) -> T,
    buffer: &mut [u8],
) -> io::Result<()> {
    stream.write_all(frame_in_place(kind, buffer)?).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_end_inside_a_message_is_an_error_and_between_messages_is_none() {
        let whole = encode_frame(&"hi".to_owned()).unwrap();
        let mut reader = FrameReader::new(whole.as_slice());
        assert_eq!(reader.next::<String>().await.unwrap().as_deref(), Some("hi"));
        assert_eq!(reader.next::<String>().await.unwrap(), None);
        let mut cut = FrameReader::new(&whole[..whole.len() - 1]);
        assert!(cut.next::<String>().await.is_err());
    }

    #[tokio::test]
    async fn a_peer_that_left_something_unread_has_ended_behind_what_it_said() {
        let (mut ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
        ours.write_all(b"unread").await.unwrap();
        write_frame(&mut theirs, &"last".to_owned()).await.unwrap();
        drop(theirs);
        let mut reader = FrameReader::new(ours);
        assert_eq!(reader.next::<String>().await.unwrap().as_deref(), Some("last"));
        assert_eq!(reader.next::<String>().await.unwrap(), None);
    }
}
