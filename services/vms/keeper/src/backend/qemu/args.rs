//! QEMU's command line, as a function of the launch and the numbers of its descriptors.
//!
//! Nothing in it is a path of the host: the kernel is read through `/proc/self/fd`, disks come from sets of
//! passed descriptors (`/dev/fdset`), everything else by number. The order of the devices is the guest's order of
//! names: `vda` image, `vdb` system, `vdc` work.

use std::os::fd::RawFd;

use banger_schemas::keeper::{Backend, Launch};

use crate::backend::kernel;

/// Where QEMU finds each thing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers {
    pub kernel: RawFd,
    pub initramfs: RawFd,
    pub image: RawFd,
    pub system: RawFd,
    pub work: RawFd,
    pub tap: Option<RawFd>,
    /// The guest's memory, and whether it is a frozen guest's.
    pub ram: Option<(RawFd, bool)>,
    pub agent: RawFd,
    pub console: RawFd,
    pub qmp: RawFd,
}

/// The name that the guest finds the agent's port by (`/sys/class/virtio-ports/*/name`).
const AGENT_PORT: &str = "agent";

/// Everything after the program's name. `tsc_khz` is the host's counter's rate, needed under emulation.
pub(super) fn arguments(launch: &Launch, fds: &Numbers, tsc_khz: Option<u32>) -> Vec<String> {
    let mut args = Args(Vec::new());
    machine(&mut args, launch, fds);
    args.add("-kernel", format!("/proc/self/fd/{}", fds.kernel));
    args.add("-initrd", format!("/proc/self/fd/{}", fds.initramfs));
    args.add("-append", kernel_arguments(launch.backend, tsc_khz));
    disk(&mut args, 1, "image", fds.image, Access::Shared);
    let own = if launch.volatile { Access::OwnUnflushed } else { Access::Own };
    disk(&mut args, 2, "system", fds.system, own);
    disk(&mut args, 3, "work", fds.work, own);
    args.add("-chardev", format!("socket,id=console,fd={}", fds.console));
    args.add("-serial", "chardev:console");
    args.add("-chardev", format!("socket,id=agent,fd={}", fds.agent));
    // The port and the one that is a console's by tradition: the guest sets up two queues for each that there could be, and
    // 31 are the default.
    args.add("-device", "virtio-serial-device,max_ports=2");
    args.add("-device", format!("virtserialport,chardev=agent,name={AGENT_PORT}"));
    // The builtin source asks the kernel by system call, so that no device node has to be there.
    args.add("-object", "rng-builtin,id=entropy");
    args.add("-device", "virtio-rng-device,rng=entropy");
    if let (Some(tap), Some(mac)) = (fds.tap, launch.mac) {
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        args.add("-netdev", format!("tap,id=net,fd={tap},vhost=off"));
        args.add("-device", format!("virtio-net-device,netdev=net,mac={mac}"));
    }
    args.add("-chardev", format!("socket,id=qmp,fd={}", fds.qmp));
    args.add("-mon", "chardev=qmp,mode=control");
    args.0
}

fn machine(args: &mut Args, launch: &Launch, fds: &Numbers) {
    let backed = if fds.ram.is_some() { ",memory-backend=ram" } else { "" };
    // ACPI announces the virtio devices, since Debian's kernels take none from the command line; without the RTC
    // the guest waits two seconds for it and begins in 1970. Where there is no PIC, nobody measures time by a PIT that is not
    // there either.
    if launch.backend == Backend::QemuTcg {
        args.add("-M", format!("microvm,acpi=on,rtc=on,pit=off,pic=off{backed}"));
        args.add("-accel", "tcg,thread=multi");
        // Emulated, the string instructions that ERMS says are quick move byte by byte: without it guests copy twice as
        // fast.
        args.add("-cpu", "max,-erms");
    } else {
        args.add("-M", format!("microvm,acpi=on,rtc=on{backed}"));
        args.add("-accel", "kvm");
        args.add("-cpu", "host");
    }
    args.add("-smp", launch.vcpus.to_string());
    args.add("-m", format!("{}M", launch.memory_mib));
    if let Some((ram, frozen)) = fds.ram {
        // A frozen guest's memory is everybody's who goes on from it: what a VM writes is its own copy.
        let share = if frozen { "off" } else { "on" };
        let size = launch.memory_mib;
        let path = format!("/proc/self/fd/{ram}");
        args.add("-object", format!("memory-backend-file,id=ram,size={size}M,mem-path={path},share={share}"));
        if frozen {
            args.add("-incoming", "defer");
        }
    }
    for flag in ["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"] {
        args.0.push(flag.into());
    }
    args.add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
}

fn kernel_arguments(backend: Backend, tsc_khz: Option<u32>) -> String {
    let mut line = format!("{} reboot=t", kernel::ARGUMENTS);
    if backend == Backend::QemuTcg {
        // Emulated timers are too uneven for the kernel's own calibration: one boot in four hangs in it.
        if let Some(khz) = tsc_khz {
            line.push_str(&format!(" tsc_early_khz={khz}"));
            // Every processor but the first would calibrate its delay loop too, and a boot has hung behind a failed
            // estimate. The loop counts TSC ticks: those of one jiffy of Debian's kernels (HZ=250).
            line.push_str(&format!(" lpj={}", u64::from(khz) * 1000 / 250));
        }
        // An emulated processor speculates nothing, and guards against it cost emulated work. It has one way to idle, too,
        // and choosing among more was a place where a boot stood still (docs/roadmap.md, "Doubtful"). It is there as soon as
        // it is asked for, and need not be waited for.
        line.push_str(" tsc=reliable no_timer_check mitigations=off cpuidle.off=1 cpu_init_udelay=0");
        // QEMU 7.2 translates anew what lies at other addresses: were they others in each process (ASLR), each program
        // would be translated anew at each of its starts, which takes four times as long.
        line.push_str(" norandmaps");
    }
    line
}

#[derive(Clone, Copy)]
enum Access {
    /// Read only, and other VMs have it too.
    Shared,
    /// Read and write, and nobody else may have it: QEMU's lock on the file catches a mistake of ours.
    Own,
    /// The same, and the guest's flushes end in the host's page cache.
    OwnUnflushed,
}

fn disk(args: &mut Args, set: u32, name: &str, fd: RawFd, access: Access) {
    let access = match access {
        Access::Shared => "read-only=on,file.locking=off",
        Access::Own => "discard=unmap,file.discard=unmap,file.locking=on",
        Access::OwnUnflushed => {
            "discard=unmap,cache.no-flush=on,file.discard=unmap,file.locking=on,file.cache.no-flush=on"
        }
    };
    args.add("-add-fd", format!("fd={fd},set={set}"));
    args.add(
        "-blockdev",
        format!("driver=raw,node-name={name},file.driver=file,file.filename=/dev/fdset/{set},{access}"),
    );
    args.add("-device", format!("virtio-blk-device,drive={name}"));
}

struct Args(Vec<String>);

impl Args {
    fn add(&mut self, option: &str, value: impl Into<String>) {
        self.0.extend([option.to_owned(), value.into()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::some_launch;

    const FDS: Numbers = Numbers {
        kernel: 10,
        initramfs: 11,
        image: 12,
        system: 13,
        work: 14,
        tap: Some(15),
        ram: None,
        agent: 16,
        console: 17,
        qmp: 18,
    };

    fn values<'a>(args: &'a [String], option: &str) -> Vec<&'a str> {
        args.windows(2).filter(|pair| pair[0] == option).map(|pair| pair[1].as_str()).collect()
    }

    #[test]
    fn devices_come_in_the_guests_order() {
        let args = arguments(&some_launch(Backend::QemuTcg), &FDS, Some(1));
        assert_eq!(
            values(&args, "-device"),
            [
                "virtio-blk-device,drive=image",
                "virtio-blk-device,drive=system",
                "virtio-blk-device,drive=work",
                "virtio-serial-device,max_ports=2",
                "virtserialport,chardev=agent,name=agent",
                "virtio-rng-device,rng=entropy",
                "virtio-net-device,netdev=net,mac=02:00:00:00:ab:01",
            ]
        );
    }

    #[test]
    fn everything_of_the_host_is_a_descriptor() {
        let args = arguments(&some_launch(Backend::QemuTcg), &FDS, Some(1));
        assert_eq!(values(&args, "-kernel"), ["/proc/self/fd/10"]);
        assert_eq!(values(&args, "-initrd"), ["/proc/self/fd/11"]);
        assert_eq!(values(&args, "-add-fd"), ["fd=12,set=1", "fd=13,set=2", "fd=14,set=3"]);
        assert_eq!(values(&args, "-netdev"), ["tap,id=net,fd=15,vhost=off"]);
        let paths = args.iter().filter(|arg| arg.contains('/')).count();
        assert_eq!(paths, 5, "kernel, initramfs and three disks: {args:?}");
    }

    #[test]
    fn only_the_image_is_read_only() {
        let args = arguments(&some_launch(Backend::QemuTcg), &FDS, Some(1));
        let read_only: Vec<_> = values(&args, "-blockdev").iter().map(|b| b.contains("read-only=on")).collect();
        assert_eq!(read_only, [true, false, false]);
    }

    #[test]
    fn kvm_keeps_the_guests_mitigations_and_its_own_clock() {
        let kvm = arguments(&some_launch(Backend::QemuKvm), &FDS, None);
        assert_eq!(values(&kvm, "-accel"), ["kvm"]);
        let line = values(&kvm, "-append")[0];
        assert!(!["mitigations", "tsc", "norandmaps"].iter().any(|weaker| line.contains(weaker)), "{line}");
        let tcg = arguments(&some_launch(Backend::QemuTcg), &FDS, Some(2_596_140));
        let line = values(&tcg, "-append")[0];
        assert!(line.contains(" tsc_early_khz=2596140 ") && line.contains(" norandmaps"), "{line}");
    }

    #[test]
    fn a_frozen_guests_memory_is_mapped_privately_on_the_machine_that_it_was_frozen_on() {
        let with = |ram| arguments(&some_launch(Backend::QemuTcg), &Numbers { ram, ..FDS }, Some(1));
        let (fresh, frozen) = (with(Some((19, false))), with(Some((19, true))));
        assert!(values(&fresh, "-M")[0].ends_with(",memory-backend=ram"));
        let backend = "memory-backend-file,id=ram,size=1024M,mem-path=/proc/self/fd/19,share=";
        assert_eq!(values(&fresh, "-object")[0], format!("{backend}on"));
        let differ: Vec<_> = frozen.iter().filter(|arg| !fresh.contains(arg)).collect();
        assert_eq!(differ, [&format!("{backend}off"), "-incoming", "defer"]);
        assert!(with(None).iter().all(|arg| !arg.contains("memory-backend")));
    }

    #[test]
    fn without_a_tap_there_is_no_network() {
        let launch = Launch { mac: None, tap: false, ..some_launch(Backend::QemuTcg) };
        let args = arguments(&launch, &Numbers { tap: None, ..FDS }, None);
        assert!(!args.iter().any(|arg| arg.contains("net")), "{args:?}");
    }
}
