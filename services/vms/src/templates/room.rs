//! Whether the host has room for one more guest, for a while.

use std::path::Path;

use nix::sys::statvfs::statvfs;

/// Left to everybody else.
const MEMORY_RESERVE: u64 = 512 << 20;
const DISK_RESERVE: u64 = 2 << 30;

/// Why there is none, if there is none. `memory`: of the guest.
pub(super) fn missing(folder: &Path, memory: u64) -> Option<String> {
    // What cannot be read is not known to be short.
    let available = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text));
    if available.is_some_and(|available| available < memory + MEMORY_RESERVE) {
        return Some("the host is short of memory".into());
    }
    let free = statvfs(folder).map(|stat| stat.blocks_available() * stat.fragment_size());
    free.is_ok_and(|free| free < memory + DISK_RESERVE).then(|| "the host is short of room on its disk".into())
}

/// Bytes that programs may still have (proc_meminfo(5), `MemAvailable`).
fn available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_larger_than_the_host_has_no_room() {
        let folder = std::env::temp_dir();
        assert!(missing(&folder, 1 << 50).is_some_and(|why| why.contains("memory")));
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        assert_eq!(available(""), None);
    }
}
