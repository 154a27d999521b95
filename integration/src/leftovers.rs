//! What a banger leaves on the host: nothing, or the test fails.

use std::path::Path;
use std::time::{Duration, Instant};

/// Processes whose command line or environment names the folder, or that hold a file below it open. Zombies are
/// dead: whoever is PID 1 here may not reap them.
pub(crate) fn processes(folder: &Path) -> Vec<String> {
    let needle = folder.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        if pid == std::process::id() {
            continue;
        }
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let words = [read("cmdline"), read("environ")].concat();
        let named = String::from_utf8_lossy(&words).contains(&needle);
        let open = std::fs::read_dir(entry.path().join("fd")).is_ok_and(|fds| {
            fds.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|target| target.starts_with(folder)))
        });
        if named || open {
            let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
            found.push(format!("{pid} {line}"));
        }
    }
    found
}

/// Mounts below the folder.
pub(crate) fn mounts(folder: &Path) -> Vec<String> {
    let needle = folder.to_string_lossy().into_owned();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().filter(|line| line.contains(&needle)).map(str::to_owned).collect()
}

/// What is left when what ends has had its time to.
pub(crate) fn in_the_end(left: impl Fn() -> Vec<String>) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let now = left();
        if now.is_empty() || begun.elapsed() >= Duration::from_secs(10) {
            return now;
        }
        #[allow(clippy::disallowed_methods, reason = "a test's own thread")]
        std::thread::sleep(Duration::from_millis(20));
    }
}
