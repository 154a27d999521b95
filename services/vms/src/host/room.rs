//! Whether the host has room for one more guest, for a while.

use std::path::Path;

use nix::sys::statvfs::statvfs;

/// What a guest takes to come up, whatever it may have in the end.
const COMING_UP: u64 = 256 << 20;
/// Left to everybody else by a machine that somebody wants, and by what nobody waits for.
const LEFT: u64 = 128 << 20;
const LEFT_BY_A_TEMPLATE: u64 = 512 << 20;
const DISK_LEFT_BY_A_TEMPLATE: u64 = 2 << 30;

/// Why no machine of this memory can come up now, if it cannot. Guests take what they use, so that many may be promised more
/// together than there is; but one that comes up where there is nothing has the kernel kill somebody.
pub(crate) fn too_short_for_a_machine(memory: u64) -> Option<String> {
    short_of(available_now()?, memory.min(COMING_UP) + LEFT)
}

fn short_of(available: u64, needed: u64) -> Option<String> {
    (available < needed).then(|| {
        let [available, needed] = [available, needed].map(|bytes| bytes >> 20);
        format!(
            "the host has {available} MiB of memory left, and a machine takes {needed} MiB to come up: stop one first, or \
             something else"
        )
    })
}

/// Why no template can be made in this folder, if it cannot. `memory`: of its guest.
pub(crate) fn too_short_for_a_template(folder: &Path, memory: u64) -> Option<&'static str> {
    if available_now().is_some_and(|available| available < memory + LEFT_BY_A_TEMPLATE) {
        return Some("the host is short of memory");
    }
    let free = statvfs(folder).map(|stat| stat.blocks_available() * stat.fragment_size());
    free.is_ok_and(|free| free < memory + DISK_LEFT_BY_A_TEMPLATE).then_some("the host is short of room on its disk")
}

/// What cannot be read is not known to be short.
fn available_now() -> Option<u64> {
    available(&std::fs::read_to_string("/proc/meminfo").ok()?)
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
    fn a_template_larger_than_the_host_has_no_room() {
        let folder = std::env::temp_dir();
        assert_eq!(too_short_for_a_template(&folder, 1 << 50), Some("the host is short of memory"));
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        assert_eq!(available(""), None);
    }

    #[test]
    fn a_machine_needs_what_it_takes_to_come_up() {
        let told = short_of(300 << 20, 384 << 20).unwrap();
        assert!(told.starts_with("the host has 300 MiB of memory left, and a machine takes 384 MiB"), "{told}");
        assert_eq!(short_of(384 << 20, 384 << 20), None);
    }
}
