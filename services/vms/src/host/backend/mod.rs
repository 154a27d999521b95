//! Which VMM, and how: KVM when it is proved usable, emulation when not.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::keeper::Backend;
use serde::{Deserialize, Serialize};

const QEMU: &str = "qemu-system-x86_64";
const PATHS: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/usr/libexec"];
/// A guest that runs under KVM ends the probe in a few milliseconds.
const PROBE: Duration = Duration::from_secs(3);
/// Real-mode code that a boot sector runs: write 0x2a to QEMU's exit port (`isa-debug-exit`), then halt.
const PROBE_CODE: [u8; 8] = [0xba, 0xf4, 0x00, 0xb0, 0x2a, 0xee, 0xf4, 0xeb];

/// How VMs run here, and why so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Absent: VMs cannot run here, and `reason` says what to do.
    pub(crate) backend: Option<(Backend, PathBuf)>,
    pub(crate) reason: String,
}

impl Choice {
    /// The backend and the VMM's binary, or why there is none.
    pub(crate) fn get(&self) -> Result<(Backend, PathBuf)> {
        self.backend.clone().ok_or_else(|| Error::new(Kind::Unavailable, self.reason.clone()))
    }
}

/// Looks at the host. Blocks, for seconds where KVM opens and does not work.
fn choose(cache: &Path) -> Choice {
    let Some(qemu) = PATHS.iter().map(|dir| PathBuf::from(dir).join(QEMU)).find(|path| path.is_file()) else {
        return Choice {
            backend: None,
            reason: format!("{QEMU} is not installed: install the package qemu-system-x86"),
        };
    };
    match open_kvm().and_then(|()| cached_probe(&qemu, cache)) {
        Ok(()) => Choice { backend: Some((Backend::QemuKvm, qemu)), reason: "KVM ran a guest's instructions".into() },
        Err(why) => Choice { backend: Some((Backend::QemuTcg, qemu)), reason: format!("KVM is not used: {why}") },
    }
}

/// Whether `/dev/kvm` opens. Costs nothing, so it is looked at each time.
fn open_kvm() -> std::result::Result<(), String> {
    match std::fs::File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.kind() {
            std::io::ErrorKind::NotFound => "there is no /dev/kvm".into(),
            std::io::ErrorKind::PermissionDenied => "/dev/kvm may not be opened (join the group 'kvm')".into(),
            _ => format!("/dev/kvm: {error}"),
        }),
    }
}

/// Runs a guest of eight bytes under KVM. `/dev/kvm` that opens, and even makes a vCPU, may still not run one.
fn probe_kvm(qemu: &Path) -> std::result::Result<(), String> {
    let sector = tempfile_with_boot_sector().map_err(|e| format!("the probe could not be made: {e}"))?;
    let mut child = Command::new(qemu)
        .args(["-M", "pc,accel=kvm", "-cpu", "host", "-m", "16", "-nodefaults", "-no-user-config", "-nographic"])
        .args(["-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-drive"])
        .arg(format!("file={},format=raw,if=floppy,readonly=on", sector.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("the probe did not start: {e}"))?;
    let begun = Instant::now();
    let verdict = loop {
        match child.try_wait() {
            // isa-debug-exit ends QEMU with (value << 1) | 1.
            Ok(Some(status)) if status.code() == Some(0x55) => break Ok(()),
            Ok(Some(status)) => break Err(format!("the probe ended with {status}")),
            Ok(None) if begun.elapsed() > PROBE => break Err("/dev/kvm opens, but a guest in it does not run".into()),
            #[allow(clippy::disallowed_methods, reason = "runs on a worker thread, for milliseconds")]
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => break Err(error.to_string()),
        }
    };
    // It has ended, or must.
    drop(child.kill());
    drop(child.wait());
    drop(std::fs::remove_file(&sector));
    verdict
}

fn tempfile_with_boot_sector() -> std::io::Result<PathBuf> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let path = std::env::temp_dir().join(format!("banger-probe-{}-{:x}", std::process::id(), rand::random::<u64>()));
    let mut sector = vec![0u8; 1_474_560];
    sector[..PROBE_CODE.len()].copy_from_slice(&PROBE_CODE);
    sector[PROBE_CODE.len()] = 0xfd;
    sector[510..512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::File::options().write(true).create_new(true).mode(0o600).open(&path)?.write_all(&sector)?;
    Ok(path)
}

/// The choice, made once: in the life of a service by a cell, and between lives by a file that goes with the login,
/// because a probe that fails takes seconds.
#[derive(Debug, Clone)]
pub(crate) struct Backends {
    choice: std::sync::Arc<tokio::sync::OnceCell<Choice>>,
    cache: PathBuf,
}

/// What the verdict was reached with: another VMM or another host kernel is probed again.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Probed {
    vmm: PathBuf,
    modified: Option<SystemTime>,
    host_boot: String,
    kvm_error: Option<String>,
}

impl Probed {
    fn now(vmm: &Path) -> Self {
        let modified = std::fs::metadata(vmm).and_then(|m| m.modified()).ok();
        let host_boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Probed { vmm: vmm.to_owned(), modified, host_boot, kvm_error: None }
    }
}

/// The probe's verdict, from the cache if it was reached with the same things.
fn cached_probe(qemu: &Path, cache: &Path) -> std::result::Result<(), String> {
    let mut now = Probed::now(qemu);
    let stored = std::fs::read(cache).ok().and_then(|bytes| serde_json::from_slice::<Probed>(&bytes).ok());
    if let Some(stored) = stored {
        let kvm_error = stored.kvm_error.clone();
        if (Probed { kvm_error: None, ..stored }) == now {
            return kvm_error.map_or(Ok(()), Err);
        }
    }
    let verdict = probe_kvm(qemu);
    now.kvm_error = verdict.clone().err();
    // Only a cache: without it the next service probes again.
    drop(serde_json::to_vec(&now).map(|bytes| std::fs::write(cache, bytes)));
    verdict
}

impl Backends {
    pub(crate) fn new(cache: PathBuf) -> Self {
        Backends { choice: std::sync::Arc::default(), cache }
    }

    pub(crate) async fn choice(&self) -> Choice {
        let cache = self.cache.clone();
        self.choice
            .get_or_init(|| async {
                banger_bus::effects::blocking(move || Ok(choose(&cache)))
                    .await
                    .unwrap_or_else(|e| Choice { backend: None, reason: e.message })
            })
            .await
            .clone()
    }
}
