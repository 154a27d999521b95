//! What `banger system install` puts into place is part of the program: a table of all files in `systemd` and
//! `dbus-policy`, so that none can be forgotten.

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders of the repo that mirror folders of the host.
const FOLDERS: &[&str] = &["systemd", "dbus-policy"];

fn main() -> Result<(), Box<dyn Error>> {
    let repo = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("..").canonicalize()?;
    let mut table = String::from("&[\n");
    for folder in FOLDERS {
        tell(&format!("rerun-if-changed={}", repo.join(folder).display()));
        let mut files = Vec::new();
        collect(&repo.join(folder), &mut files)?;
        files.sort();
        for file in files {
            writeln!(table, "({:?}, include_str!({file:?})),", file.strip_prefix(&repo)?)?;
        }
    }
    table.push(']');
    fs::write(PathBuf::from(std::env::var("OUT_DIR")?).join("files.rs"), table)?;
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // An editor's own.
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

#[allow(clippy::print_stdout, reason = "this is how a build script speaks to cargo")]
fn tell(directive: &str) {
    println!("cargo::{directive}");
}
