//! The guest's place in its network, by netlink: images without iproute2 have one too.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use banger_schemas::guest::Address;
use nix::net::if_::if_nametoindex;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use tokio::time::{Instant, sleep};

const INTERFACES: &str = "/sys/class/net";
const DRIVER: &str = "virtio_net";
/// Drivers find their devices in milliseconds or not at all.
const DEVICE_DEADLINE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);

/// Brings `lo` up.
pub(super) async fn loopback(netlink: &Handle) -> io::Result<()> {
    let index = if_nametoindex("lo")?;
    netlink.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await.map_err(io::Error::other)
}

/// Gives the VM's interface its address and brings it up.
pub(super) async fn configure(netlink: &Handle, address: &Address) -> io::Result<()> {
    let name = interface().await?;
    let index = if_nametoindex(name.as_str())?;
    let steps = async {
        let mut link = LinkUnspec::new_with_index(index).mtu(address.mtu.into()).up();
        // A template's guest was born with another one. It is down still, and of one message the kernel takes it first.
        if hardware_address(&name)? != address.mac {
            link = link.address(address.mac.to_vec());
        }
        netlink.link().set(link.build()).execute().await.map_err(io::Error::other)?;
        let own = Ipv4Addr::from(address.ipv4);
        let added = netlink.address().add(index, own.into(), address.prefix).replace();
        added.execute().await.map_err(io::Error::other)?;
        let gateway = Ipv4Addr::from(address.gateway);
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(index).build();
        netlink.route().add(route).replace().execute().await.map_err(io::Error::other)
    };
    steps.await.map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))
}

/// Talks to the kernel of its links; for the other functions here.
pub(super) fn connect() -> io::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    // Ends when the handle is dropped.
    tokio::spawn(connection);
    Ok(handle)
}

/// The one interface that the VM was given, once its driver has found it.
async fn interface() -> io::Result<String> {
    let deadline = Instant::now() + DEVICE_DEADLINE;
    loop {
        for entry in fs::read_dir(INTERFACES)? {
            let entry = entry?;
            let driver = fs::read_link(entry.path().join("device/driver"));
            if driver.is_ok_and(|driver| driver.ends_with(DRIVER)) {
                return Ok(entry.file_name().to_string_lossy().into_owned());
            }
        }
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the VM has an address and no network interface"));
        }
        sleep(PAUSE).await;
    }
}

fn hardware_address(interface: &str) -> io::Result<[u8; 6]> {
    let text = fs::read_to_string(format!("{INTERFACES}/{interface}/address"))?;
    parse_mac(text.trim_end()).ok_or_else(|| io::Error::other(format!("{text:?} is no hardware address")))
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> = text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect::<Option<_>>()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_mac("52:54:00:12:34:5f"), Some([0x52, 0x54, 0, 0x12, 0x34, 0x5f]));
        assert_eq!(parse_mac("52:54:00:12:34"), None);
        assert_eq!(parse_mac(""), None);
    }
}
