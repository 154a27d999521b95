//! Bytes on their way to a command's standard input, in the pieces they came in: none is moved twice.

use std::collections::VecDeque;

#[derive(Debug, Default)]
pub(super) struct Queue {
    pieces: VecDeque<Vec<u8>>,
    /// Bytes of the first piece that are written already.
    written: usize,
    length: usize,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn push(&mut self, piece: Vec<u8>) {
        self.length += piece.len();
        if !piece.is_empty() {
            self.pieces.push_back(piece);
        }
    }

    /// The next bytes to write; empty only if the queue is.
    pub(super) fn front(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| &piece[self.written..])
    }

    /// So many bytes of [`Queue::front`] have been written.
    pub(super) fn advance(&mut self, length: usize) {
        let length = length.min(self.front().len());
        self.length -= length;
        self.written += length;
        if self.front().is_empty() {
            self.pieces.pop_front();
            self.written = 0;
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Queue::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_in_any_portions() {
        let mut queue = Queue::default();
        for piece in ["ab", "", "cdefg", "h"] {
            queue.push(piece.into());
        }
        assert_eq!(queue.len(), 8);
        let mut out = Vec::new();
        while !queue.is_empty() {
            let portion = &queue.front()[..queue.front().len().min(3)];
            out.extend_from_slice(portion);
            queue.advance(portion.len());
        }
        assert_eq!(out, b"abcdefgh");
        assert_eq!((queue.len(), queue.front()), (0, b"".as_slice()));
    }
}
