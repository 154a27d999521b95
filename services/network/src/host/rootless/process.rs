//! The record of a process that outlives the service, in a file of its own and as a command's arguments.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use banger_bus::process::Process;

/// Writes the record, whole or not at all.
pub fn record(process: &Process, at: &Path) -> io::Result<()> {
    let folder = at.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let draft = at.with_extension("new");
    let mut file = File::create(&draft)?;
    file.write_all(&serde_json::to_vec(process)?)?;
    file.sync_all()?;
    fs::rename(&draft, at)?;
    File::open(folder)?.sync_all()
}

/// Reads a record. One that cannot be understood is an error, not an absence: its process may live.
pub fn recorded(at: &Path) -> io::Result<Option<Process>> {
    match fs::read(at) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// As arguments of a command: pid, start, boot.
pub fn arguments(process: &Process) -> [String; 3] {
    [process.pid.to_string(), process.start.to_string(), process.boot.clone()]
}

pub fn from_arguments(arguments: &[String]) -> Option<Process> {
    let [pid, start, boot] = arguments else { return None };
    Some(Process { pid: pid.parse().ok()?, start: start.parse().ok()?, boot: boot.clone() })
}

/// Removes a file that may be gone already.
pub fn forget(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_damage_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("holder.json");
        assert!(recorded(&at).unwrap().is_none());
        let me = Process::myself().unwrap();
        record(&me, &at).unwrap();
        assert_eq!(recorded(&at).unwrap().as_ref(), Some(&me));
        assert_eq!(from_arguments(&arguments(&me)), Some(me));
        fs::write(&at, "{").unwrap();
        assert!(recorded(&at).is_err());
    }
}
