//! Sparse files: what of a file is data, and copies whose holes stay holes.

use std::fs::File;
use std::io;
use std::ops::Range;

use nix::errno::Errno;
use nix::fcntl::copy_file_range;
use nix::unistd::{Whence, lseek};
use std::os::unix::fs::FileExt;

/// Copied at a time where the kernel does not copy.
const PIECE: usize = 1 << 20;

/// The next range of `file` at or behind `at` that holds data.
pub fn data(file: &File, at: u64) -> io::Result<Option<Range<u64>>> {
    let offset = |at: u64| i64::try_from(at).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let start = match lseek(file, offset(at)?, Whence::SeekData) {
        Ok(start) => start,
        Err(Errno::ENXIO) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let end = lseek(file, start, Whence::SeekHole)?;
    Ok(Some(start.cast_unsigned()..end.cast_unsigned()))
}

/// Makes an empty file as long as another, and copies what of that holds data.
pub fn copy(from: &File, to: &File) -> io::Result<()> {
    to.set_len(from.metadata()?.len())?;
    let mut at = 0;
    while let Some(range) = data(from, at)? {
        at = range.end;
        match copy_by_kernel(from, to, range.clone()) {
            // Between file systems of two kinds, for example.
            Err(Errno::EXDEV | Errno::EINVAL | Errno::EOPNOTSUPP) => copy_by_hand(from, to, range)?,
            copied => copied?,
        }
    }
    Ok(())
}

fn copy_by_kernel(from: &File, to: &File, range: Range<u64>) -> nix::Result<()> {
    let (mut at, end) = (range.start.cast_signed(), range.end.cast_signed());
    let mut out = at;
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(usize::MAX);
        // The kernel moves both offsets on.
        if copy_file_range(from, Some(&mut at), to, Some(&mut out), length)? == 0 {
            return Err(Errno::EIO);
        }
    }
    Ok(())
}

fn copy_by_hand(from: &File, to: &File, range: Range<u64>) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut at = range.start;
    while at < range.end {
        let length = usize::try_from(range.end - at).map_or(PIECE, |left| left.min(PIECE));
        from.read_exact_at(&mut piece[..length], at)?;
        to.write_all_at(&piece[..length], at)?;
        at += length as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_copy_has_the_same_bytes_and_the_same_holes() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name| {
            let path = folder.path().join(name);
            File::options().read(true).write(true).create_new(true).open(path).unwrap()
        };
        let from = file("a");
        from.set_len(8 << 20).unwrap();
        from.write_all_at(b"in the middle", 3 << 20).unwrap();
        from.write_all_at(&[7; 100], (8 << 20) - 100).unwrap();
        let bytes = std::fs::read(folder.path().join("a")).unwrap();
        copy(&from, &file("b")).unwrap();
        let by_hand = file("c");
        by_hand.set_len(8 << 20).unwrap();
        let mut at = 0;
        while let Some(range) = data(&from, at).unwrap() {
            at = range.end;
            copy_by_hand(&from, &by_hand, range).unwrap();
        }
        for name in ["b", "c"] {
            let path = folder.path().join(name);
            assert!(std::fs::read(&path).unwrap() == bytes, "{name}");
            assert!(std::fs::metadata(&path).unwrap().blocks() * 512 < 1 << 20, "{name}");
        }
    }
}
