//! What a running program says on its standard error, line by line, without ever waiting for it for long.

use std::io::{self, Read};
use std::process::ChildStderr;

use super::process::{readable, ready};

const MAX_LINE: usize = 64 * 1024;

/// The lines of a program's standard error.
#[derive(Debug)]
pub(super) struct Messages {
    pipe: Option<ChildStderr>,
    partial: Vec<u8>,
}

impl Messages {
    pub(super) fn new(pipe: ChildStderr) -> Self {
        Messages { pipe: Some(pipe), partial: Vec::new() }
    }

    /// Waits up to `ticks` milliseconds for something to read; says whether there was something.
    pub(super) fn read(&mut self, ticks: u8, line: &mut dyn FnMut(&str)) -> io::Result<bool> {
        let Some(pipe) = &mut self.pipe else {
            ready(&mut [], ticks)?;
            return Ok(false);
        };
        if !readable(pipe, ticks)? {
            return Ok(false);
        }
        let mut chunk = [0; 8192];
        let read = pipe.read(&mut chunk)?;
        if read == 0 {
            self.pipe = None;
            return Ok(false);
        }
        for byte in &chunk[..read] {
            match byte {
                b'\n' | b'\r' => self.flush(line),
                // A line without end must not fill the memory.
                _ if self.partial.len() < MAX_LINE => self.partial.push(*byte),
                _ => {}
            }
        }
        Ok(true)
    }

    /// Passes on what has no end of line yet.
    pub(super) fn flush(&mut self, line: &mut dyn FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.partial).trim().to_owned();
        self.partial.clear();
        if !text.is_empty() {
            line(&text);
        }
    }
}
