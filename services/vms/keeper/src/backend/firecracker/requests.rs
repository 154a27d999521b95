//! What Firecracker is told before its guest runs: requests in their order, as a function of the launch.
//!
//! Nothing in them is of the host: files are opened again through `/proc/self/fd`, the vsock socket is in the
//! VMM's own folder. The order of the drives is the guest's order of names: `vda` image, `vdb` system, `vdc` work.

use std::os::fd::RawFd;

use banger_schemas::keeper::Launch;
use serde_json::{Value, json};

use crate::backend::kernel;

/// The vsock socket's name in the VMM's folder.
pub(super) const VSOCK: &str = "vsock.sock";
/// What the TAP is asked for by; it is handed over by its descriptor, whatever its name is.
const TAP: &str = "tap";
/// The guest's address on its vsock: the first that is nobody's (vsock(7)). Each VM has a vsock of its own.
const GUEST: u32 = 3;

/// One `PUT`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    pub(super) path: String,
    pub(super) body: Value,
}

/// Where Firecracker finds each thing.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) kernel: RawFd,
    pub(super) initramfs: RawFd,
    pub(super) image: RawFd,
    pub(super) system: RawFd,
    pub(super) work: RawFd,
}

/// All of them, the start the last.
pub(super) fn requests(launch: &Launch, places: &Places) -> Vec<Request> {
    let own = if launch.volatile { "Unsafe" } else { "Writeback" };
    let mut all = vec![
        put("/machine-config", json!({ "vcpu_count": launch.vcpus, "mem_size_mib": launch.memory_mib })),
        put(
            "/boot-source",
            json!({
                "kernel_image_path": opened(places.kernel),
                "initrd_path": opened(places.initramfs),
                "boot_args": boot_arguments(),
            }),
        ),
        drive("image", places.image, true, "Unsafe"),
        drive("system", places.system, false, own),
        drive("work", places.work, false, own),
    ];
    if let Some(mac) = launch.mac {
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        let interface = json!({ "iface_id": "net", "host_dev_name": TAP, "guest_mac": mac });
        all.push(put("/network-interfaces/net", interface));
    }
    all.push(put("/vsock", json!({ "guest_cid": GUEST, "uds_path": VSOCK })));
    all.push(put("/entropy", json!({})));
    all.push(put("/actions", json!({ "action_type": "InstanceStart" })));
    all
}

fn put(path: &str, body: Value) -> Request {
    Request { path: path.to_owned(), body }
}

fn opened(fd: RawFd) -> String {
    format!("/proc/self/fd/{fd}")
}

fn drive(id: &str, fd: RawFd, read_only: bool, cache: &str) -> Request {
    let body = json!({
        "drive_id": id,
        "path_on_host": opened(fd),
        "is_root_device": false,
        "is_read_only": read_only,
        "cache_type": cache,
    });
    put(&format!("/drives/{id}"), body)
}

/// The keyboard controller is what resets the machine and ends the VMM; nothing else is behind it. There is no PCI bus.
fn boot_arguments() -> String {
    format!("{} reboot=k pci=off i8042.noaux i8042.nomux i8042.dumbkbd", kernel::ARGUMENTS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::some_launch;
    use banger_schemas::keeper::Backend;

    fn places() -> Places {
        Places { kernel: 10, initramfs: 11, image: 12, system: 13, work: 14 }
    }

    fn body(all: &[Request], path: &str) -> Value {
        all.iter().find(|request| request.path == path).map_or(Value::Null, |request| request.body.clone())
    }

    #[test]
    fn drives_come_in_the_guests_order_and_the_start_comes_last() {
        let all = requests(&some_launch(Backend::Firecracker), &places());
        let paths: Vec<_> = all.iter().map(|request| request.path.as_str()).collect();
        let drives: Vec<_> = paths.iter().filter(|path| path.starts_with("/drives")).collect();
        assert_eq!(drives, [&"/drives/image", &"/drives/system", &"/drives/work"]);
        assert_eq!(paths.last(), Some(&"/actions"));
    }

    #[test]
    fn only_the_image_is_read_only_and_flushes_reach_the_hosts_disk_unless_nothing_is_kept() {
        let of = |volatile| {
            let all = requests(&Launch { volatile, ..some_launch(Backend::Firecracker) }, &places());
            ["image", "system", "work"].map(|id| {
                let drive = body(&all, &format!("/drives/{id}"));
                (drive["is_read_only"] == true, drive["cache_type"] == "Writeback")
            })
        };
        assert_eq!(of(false), [(true, false), (false, true), (false, true)]);
        assert_eq!(of(true), [(true, false), (false, false), (false, false)]);
    }

    #[test]
    fn every_path_is_a_descriptor_or_a_name_in_the_vmms_own_folder() {
        let all = requests(&some_launch(Backend::Firecracker), &places());
        let text = serde_json::to_string(&all.iter().map(|request| &request.body).collect::<Vec<_>>()).unwrap();
        let paths: Vec<_> = text.split('"').filter(|word| word.contains('/') || word.ends_with(".sock")).collect();
        let fd = |number| format!("/proc/self/fd/{number}");
        // serde_json sorts: the initramfs' name comes before the kernel's.
        assert_eq!(paths, [&fd(11), &fd(10), &fd(12), &fd(13), &fd(14), VSOCK]);
    }

    #[test]
    fn the_hosts_name_of_the_tap_is_not_told_and_without_one_there_is_no_network() {
        let interface = body(&requests(&some_launch(Backend::Firecracker), &places()), "/network-interfaces/net");
        assert_eq!(
            (&interface["host_dev_name"], &interface["guest_mac"]),
            (&json!("tap"), &json!("02:00:00:00:ab:01"))
        );
        let without = requests(&Launch { mac: None, tap: false, ..some_launch(Backend::Firecracker) }, &places());
        assert_eq!(body(&without, "/network-interfaces/net"), Value::Null);
    }
}
