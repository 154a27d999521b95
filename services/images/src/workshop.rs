//! Where builds are done: here, or, on a host, in a unit of its own for each build.
//!
//! A build unpacks packages in a user namespace, mounts, and talks to mirrors: none of it may the service that hands
//! out images to every VM. So systemd starts `banger-build@.service` for each connection to `banger-build.socket`
//! (`Accept=yes`): the first line is what to build, then come lines of progress, the last says how it ended. Whoever
//! closes the connection wants it no more.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use banger_schemas::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};

use crate::build::{Cancel, Digest, Progress, Unit};
use crate::catalog::{Catalog, Class};

/// Where the socket unit listens (`systemd/system/banger-build.socket`).
pub(crate) const SOCKET: &str = "/run/banger/build.sock";
/// Longest line; an error shows a program's last words.
const LINE: u64 = 64 * 1024;
/// Between two looks at whether somebody wants it to stop.
const LOOK: Duration = Duration::from_millis(100);

/// The place of builds.
#[derive(Debug)]
pub(crate) enum Workshop {
    Here,
    Unit(PathBuf),
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Order {
    class: Class,
    name: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    Stage(String),
    Amount { done: u64, total: Option<u64> },
    Done(String),
    Failed { name: String, message: String },
}

fn lost(error: impl std::fmt::Display) -> Error {
    Error::new(Kind::Unavailable, format!("the build broke off: {error} ('journalctl -u banger-build@*' has more)"))
}

fn write_line(mut to: impl Write, what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Has a build done at the other end of `socket`, and says what came of it.
pub(crate) fn order(
    socket: &Path,
    class: Class,
    name: &str,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Digest> {
    let stream = UnixStream::connect(socket).map_err(|error| {
        Error::new(Kind::Unavailable, format!("builds cannot be started ({}): {error}", socket.display()))
    })?;
    stream.set_read_timeout(Some(LOOK)).map_err(lost)?;
    write_line(&stream, &Order { class, name: name.to_owned() }).map_err(lost)?;
    let mut lines = Lines { from: BufReader::new(stream), line: Vec::new() };
    loop {
        cancel.check()?;
        match lines.next()? {
            None => {}
            Some(Word::Stage(stage)) => progress.stage(&stage),
            Some(Word::Amount { done, total }) => progress.amount(done, total, Unit::Bytes),
            Some(Word::Done(digest)) => return digest.parse().map_err(|_| lost("it made something without a name")),
            Some(Word::Failed { name, message }) => return Err(Error::from_parts(&name, message)),
        }
    }
}

struct Lines {
    from: BufReader<UnixStream>,
    /// What has come of the next one.
    line: Vec<u8>,
}

impl Lines {
    /// The next line, or nothing for a while.
    fn next(&mut self) -> Result<Option<Word>> {
        let room = LINE.saturating_sub(self.line.len() as u64);
        match (&mut self.from).take(room).read_until(b'\n', &mut self.line) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(lost(error)),
            Ok(_) if self.line.ends_with(b"\n") => {
                let word = serde_json::from_slice(&self.line).map_err(lost);
                self.line.clear();
                word.map(Some)
            }
            Ok(_) => Err(lost("its end came without a word")),
        }
    }
}

/// The build's side: one order on the connection that systemd has made our standard input and output.
pub(crate) fn serve(catalog: &Catalog, connection: &UnixStream) -> Result<()> {
    let mut first = String::new();
    let reading = connection.try_clone().map_err(lost)?;
    let mut reading = BufReader::new(reading.take(LINE));
    reading.read_line(&mut first).map_err(lost)?;
    let order: Order = serde_json::from_str(&first).map_err(Error::invalid)?;
    let cancel = Cancel::default();
    let told = Told { to: Mutex::new(connection), cancel: cancel.clone() };
    let gone = cancel.clone();
    // Nothing else is ever said to us, so the next thing heard is the end.
    std::thread::spawn(move || {
        drop(reading.read(&mut [0]));
        gone.cancel();
    });
    let outcome = catalog.build_here(order.class, &order.name, &told, &cancel);
    let last = match &outcome {
        Ok(digest) => Word::Done(digest.to_string()),
        Err(error) => Word::Failed { name: error.name().to_owned(), message: error.message.clone() },
    };
    told.say(&last);
    outcome.map(drop)
}

/// Passes progress on; that nobody hears it any more is a wish to stop.
struct Told<'a> {
    to: Mutex<&'a UnixStream>,
    cancel: Cancel,
}

impl Told<'_> {
    fn say(&self, word: &Word) {
        let said = self.to.lock().map_or(Ok(()), |to| write_line(*to, word));
        if said.is_err() {
            self.cancel.cancel();
        }
    }
}

impl Progress for Told<'_> {
    fn stage(&self, stage: &str) {
        self.say(&Word::Stage(stage.to_owned()));
    }

    fn amount(&self, done: u64, total: Option<u64>, unit: Unit) {
        let Unit::Bytes = unit;
        self.say(&Word::Amount { done, total });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    struct Heard(Mutex<Vec<String>>);

    impl Progress for Heard {
        fn stage(&self, stage: &str) {
            self.0.lock().unwrap().push(stage.to_owned());
        }
        fn amount(&self, done: u64, total: Option<u64>, _: Unit) {
            self.0.lock().unwrap().push(format!("{done}/{total:?}"));
        }
    }

    /// What comes of an order that is answered with these bytes; and what was heard, and ordered.
    fn answered(bytes: &'static [u8], hold: bool, cancel: &Cancel) -> (Result<Digest>, Vec<String>, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut ordered = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut ordered).unwrap();
            stream.write_all(bytes).unwrap();
            if hold {
                // Until the other side has gone.
                drop(stream.read(&mut [0]));
            }
            ordered
        });
        let heard = Heard(Mutex::default());
        let outcome = order(&path, Class::Image, "debian-tiny", &heard, cancel);
        (outcome, heard.0.into_inner().unwrap(), server.join().unwrap())
    }

    #[test]
    fn progress_and_the_outcome_are_passed_on() {
        let digest = Digest::of(b"x");
        let bytes = format!(
            "{}\n{}\n{}\n",
            r#"{"stage":"unpacking"}"#,
            r#"{"amount":{"done":1,"total":2}}"#,
            format_args!(r#"{{"done":"{digest}"}}"#)
        );
        let (outcome, heard, ordered) = answered(bytes.leak().as_bytes(), false, &Cancel::default());
        assert_eq!(outcome, Ok(digest));
        assert_eq!(heard, ["unpacking", "1/Some(2)"]);
        assert_eq!(ordered, "{\"class\":\"Image\",\"name\":\"debian-tiny\"}\n");
    }

    #[test]
    fn failures_keep_their_names_and_nonsense_is_one() {
        let failed = br#"{"failed":{"name":"dev.banger.Error.NoSpace","message":"full"}}"#;
        let line: Vec<u8> = [failed.as_slice(), b"\n"].concat();
        let cases: [(&'static [u8], Kind); 4] = [
            (line.leak(), Kind::NoSpace),
            (b"{\"stage\":\"half", Kind::Unavailable),
            (b"garbage\n", Kind::Unavailable),
            (vec![b'x'; 100_000].leak(), Kind::Unavailable),
        ];
        for (bytes, kind) in cases {
            let (outcome, ..) = answered(bytes, false, &Cancel::default());
            assert_eq!(outcome.unwrap_err().kind, kind);
        }
    }

    #[test]
    fn whoever_cancels_is_heard_at_once_and_the_other_end_is_told() {
        let cancel = Cancel::default();
        let wish = cancel.clone();
        std::thread::spawn(move || wish.cancel());
        let (outcome, ..) = answered(b"", true, &cancel);
        assert_eq!(outcome.unwrap_err().kind, Kind::Canceled);
    }
}
