//! Logs in the journal: each field a field of the entry, for `journalctl BANGER_VM=…`, and in its text as well, for
//! those who only read. Knows the journal's protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL) and nothing of what is said.

use std::fmt::{Debug, Write};
use std::os::unix::net::UnixDatagram;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

const SOCKET: &str = "/run/systemd/journal/socket";
/// Of one value; an entry of several stays far below what a datagram may hold (unix(7), `wmem_default`).
const VALUE: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    service: &'static str,
}

impl Journal {
    /// The journal, if that is where our stderr goes: `JOURNAL_STREAM` is its device and inode (systemd.exec(5)).
    pub(super) fn connected(service: &'static str) -> Option<Self> {
        let stderr = nix::sys::stat::fstat(std::io::stderr()).ok()?;
        let stream = std::env::var("JOURNAL_STREAM").ok()?;
        if stream != format!("{}:{}", stderr.st_dev, stderr.st_ino) {
            return None;
        }
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect(SOCKET).ok()?;
        Some(Journal { socket, service })
    }

    fn entry(&self, event: &Event<'_>) -> Vec<u8> {
        let mut said = Said::default();
        event.record(&mut said);
        let mut entry = Vec::with_capacity(256);
        put(&mut entry, "PRIORITY", priority(event.metadata().level()));
        put(&mut entry, "SYSLOG_IDENTIFIER", self.service);
        put(&mut entry, "TARGET", event.metadata().target());
        put(&mut entry, "MESSAGE", &(said.message + &said.tail));
        for (name, value) in &said.fields {
            put(&mut entry, &format!("BANGER_{}", name.to_ascii_uppercase()), value);
        }
        entry
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // Nobody is left to be told that the journal takes nothing.
        drop(self.socket.send(&self.entry(event)));
    }
}

/// syslog(3).
fn priority(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

/// In the form that takes any bytes, so that no value can pretend to be another field.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    let end = (0..=value.len().min(VALUE)).rev().find(|at| value.is_char_boundary(*at)).unwrap_or(0);
    let value = &value.as_bytes()[..end];
    // Names of our own fields have letters and underscores; anything else may not stand in one.
    entry.extend(name.bytes().map(|b| if b.is_ascii_alphanumeric() { b } else { b'_' }));
    entry.push(b'\n');
    entry.extend(u64::try_from(value.len()).unwrap_or(0).to_le_bytes());
    entry.extend(value);
    entry.push(b'\n');
}

/// What an event says.
#[derive(Default)]
struct Said {
    message: String,
    fields: Vec<(&'static str, String)>,
    /// The fields once more, for readers.
    tail: String,
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            name => {
                // Writing to a string cannot fail.
                write!(self.tail, " {name}={value}").ok();
                self.fields.push((name, value.to_owned()));
            }
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    /// What the journal gets of what is logged, as name and value.
    fn journal(log: impl FnOnce()) -> Vec<(String, String)> {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let journal = Journal { socket: ours, service: "banger-test" };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(journal), log);
        let mut buffer = vec![0; 1 << 20];
        let length = theirs.recv(&mut buffer).unwrap();
        let mut rest = &buffer[..length];
        let mut entry = Vec::new();
        while !rest.is_empty() {
            let (name, value) = rest.split_at(rest.iter().position(|b| *b == b'\n').unwrap());
            let (length, value) = value[1..].split_at(8);
            let (value, end) = value.split_at(u64::from_le_bytes(length.try_into().unwrap()).try_into().unwrap());
            entry.push((String::from_utf8(name.to_vec()).unwrap(), String::from_utf8(value.to_vec()).unwrap()));
            rest = end.strip_prefix(b"\n").unwrap();
        }
        entry
    }

    #[test]
    fn an_entry_has_its_fields_beside_its_text_and_in_it() {
        let error = std::io::Error::other("no bus");
        let entry = journal(|| tracing::warn!(%error, vm = "abc", tries = 3, "nothing is swept"));
        let expected = [
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", "banger-test"),
            ("TARGET", module_path!()),
            ("MESSAGE", "nothing is swept error=no bus vm=abc tries=3"),
            ("BANGER_ERROR", "no bus"),
            ("BANGER_VM", "abc"),
            ("BANGER_TRIES", "3"),
        ];
        assert_eq!(entry, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_value_makes_no_field_of_its_own_and_an_endless_one_is_cut() {
        let entry = journal(|| tracing::error!(said = "x\nPRIORITY=7\n", long = "ä".repeat(VALUE), "m"));
        assert_eq!(entry.iter().filter(|(name, _)| name == "PRIORITY").count(), 1);
        let long = &entry.iter().find(|(name, _)| name == "BANGER_LONG").unwrap().1;
        assert_eq!(long.len(), VALUE);
    }
}
