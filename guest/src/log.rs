//! The agent's own messages: the kernel's log, which reaches the console; standard error where there is none.

use std::io::Write;

/// What went wrong, shown on the console even with `quiet`.
pub(crate) fn error(message: &str) {
    write(3, message);
}

/// What happened, for whoever reads the kernel's log.
pub(crate) fn info(message: &str) {
    write(6, message);
}

fn write(level: u8, message: &str) {
    let line = format!("<{level}>banger: {}\n", message.replace('\n', " "));
    let kernel = std::fs::OpenOptions::new().write(true).open("/dev/kmsg");
    // The whole line in one write: the kernel takes every write for one record.
    let written = kernel.and_then(|mut file| file.write_all(line.as_bytes()));
    if written.is_err() {
        // Nobody is left to tell if this fails too.
        let _ = std::io::stderr().write_all(line.get(3..).unwrap_or(&line).as_bytes());
    }
}
