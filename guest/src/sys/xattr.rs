//! Extended attributes of files, without following links.
#![allow(unsafe_code, reason = "no safe wrapper in our dependencies")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;

/// Copies the extended attributes of one file to another; those that the target refuses are left out.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let from = CString::new(from.as_os_str().as_bytes())?;
    let to = CString::new(to.as_os_str().as_bytes())?;
    let names = list(&from)?;
    for name in names.split_inclusive(|byte| *byte == 0) {
        if let Ok(name) = CStr::from_bytes_with_nul(name) {
            let value = get(&from, name)?;
            // SAFETY: three pointers to live values, and the length of the last one.
            let set = unsafe { libc::lsetxattr(to.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
            match Errno::result(set) {
                Ok(_) | Err(Errno::ENOTSUP | Errno::EPERM | Errno::ERANGE | Errno::ENOSPC) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    Ok(())
}

/// The names, each with its closing NUL.
fn list(path: &CStr) -> io::Result<Vec<u8>> {
    // SAFETY: a null buffer of length 0 asks for the length only.
    let length = unsafe { libc::llistxattr(path.as_ptr(), std::ptr::null_mut(), 0) };
    let mut names = match Errno::result(length) {
        Ok(length) => vec![0; usize::try_from(length).unwrap_or(0)],
        Err(Errno::ENOTSUP) => return Ok(Vec::new()),
        Err(errno) => return Err(errno.into()),
    };
    // SAFETY: the buffer is as long as said.
    let length = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    names.truncate(usize::try_from(Errno::result(length)?).unwrap_or(0));
    Ok(names)
}

fn get(path: &CStr, name: &CStr) -> io::Result<Vec<u8>> {
    // SAFETY: a null buffer of length 0 asks for the length only.
    let length = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) };
    let mut value = vec![0u8; usize::try_from(Errno::result(length)?).unwrap_or(0)];
    // SAFETY: the buffer is as long as said.
    let length = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(usize::try_from(Errno::result(length)?).unwrap_or(0));
    Ok(value)
}
