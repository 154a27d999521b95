//! Links and addresses in the present network namespace, by rtnetlink.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use banger_schemas::network::MARK;
use futures_util::TryStreamExt;
use ipnet::Ipv4Net;
use nix::libc;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::{Handle, LinkBridge, LinkBridgePort, LinkUnspec};

use super::Error;

/// Forwards packets between links.
pub const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// Whether bridged frames go through the packet rules too. They have their own table, and routed ones would count twice.
const BRIDGE_CALLS: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// A link as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// Whether it bears the mark.
    pub ours: bool,
    /// The bridge that it is a port of.
    pub bridge: Option<u32>,
    pub up: bool,
    /// Whether somebody is at its other end: of a TAP, who holds it.
    pub carrier: bool,
}

/// A netlink connection to the namespace it was opened in.
#[derive(Debug)]
pub struct Links {
    handle: Handle,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Links {
    pub fn open() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::io("cannot open netlink"))?;
        Ok(Links { handle, connection: tokio::spawn(connection) })
    }

    /// Sets loopback up.
    pub async fn loopback(&self) -> Result<(), Error> {
        self.set(LinkUnspec::new_with_name("lo").up().build(), "setting loopback up").await
    }

    /// Makes the bridge with its address, if it is not there, and sets it up. Its MAC is its own: otherwise it is that
    /// of one of its ports, which come and go, and guests would remember the wrong one.
    pub async fn bridge(&self, name: &str, address: Ipv4Addr, prefix: u8) -> Result<(), Error> {
        let [a, b, c, d] = address.octets();
        let mac = vec![0x02, 0xba, a, b, c, d];
        let add = LinkBridge::new(name).address(mac).build();
        let add = self.handle.link().add(add).execute().await;
        let made = add.is_ok();
        unless(libc::EEXIST, add, "making the bridge")?;
        // The kernel takes no alias with a link that is being made.
        if made {
            self.mark(name).await?;
        }
        let index = self.index(name).await?.ok_or_else(|| absent(name))?;
        let add = self.handle.address().add(index, address.into(), prefix).execute().await;
        unless(libc::EEXIST, add, "addressing the bridge")?;
        self.set(LinkUnspec::new_with_index(index).up().build(), "setting the bridge up").await
    }

    /// Makes a link a port of the bridge that reaches no other isolated port. It stays down: a port is never up and open
    /// to its neighbours.
    pub async fn isolated(&self, name: &str, bridge: &str) -> Result<(), Error> {
        let bridge = self.index(bridge).await?.ok_or_else(|| absent(bridge))?;
        let index = self.index(name).await?.ok_or_else(|| absent(name))?;
        let join = LinkUnspec::new_with_index(index).controller(bridge).build();
        self.set(join, "joining the bridge").await?;
        let isolate = LinkBridgePort::new(index).isolated(true).build();
        let isolated = self.handle.link().set_port(isolate).execute().await;
        isolated.map_err(|e| failed("isolating the port", &e))
    }

    /// The same, and sets it up.
    pub async fn isolated_port(&self, name: &str, bridge: &str) -> Result<(), Error> {
        self.isolated(name, bridge).await?;
        self.set(LinkUnspec::new_with_name(name).up().build(), "setting the port up").await
    }

    /// Marks a link as banger's.
    pub async fn mark(&self, name: &str) -> Result<(), Error> {
        self.set(LinkUnspec::new_with_name(name).alias(MARK).build(), "marking a link").await
    }

    /// Gives a link that is down another name and sets it up.
    pub async fn rename_up(&self, from: &str, to: &str) -> Result<(), Error> {
        let index = self.index(from).await?.ok_or_else(|| absent(from))?;
        self.set(LinkUnspec::new_with_index(index).name(to).up().build(), "naming a link").await
    }

    /// A link by its name.
    pub async fn get(&self, name: &str) -> Result<Option<Link>, Error> {
        let mut found = Box::pin(self.handle.link().get().match_name(name).execute());
        match found.try_next().await {
            Ok(link) => Ok(link.as_ref().and_then(link_of)),
            Err(error) if is(&error, libc::ENODEV) => Ok(None),
            Err(error) => Err(failed("looking for a link", &error)),
        }
    }

    /// Every link.
    pub async fn all(&self) -> Result<Vec<Link>, Error> {
        let all: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(|e| failed("listing links", &e))?;
        Ok(all.iter().filter_map(link_of).collect())
    }

    /// Every IPv4 address, with the prefix of its network and its link's index.
    pub async fn addresses(&self) -> Result<Vec<(Ipv4Net, u32)>, Error> {
        let all: Vec<AddressMessage> =
            self.handle.address().get().execute().try_collect().await.map_err(|e| failed("listing addresses", &e))?;
        Ok(all.iter().filter_map(address_of).collect())
    }

    /// Removes a link; whether it was there.
    pub async fn remove(&self, name: &str) -> Result<bool, Error> {
        let Some(index) = self.index(name).await? else { return Ok(false) };
        match self.handle.link().del(index).execute().await {
            Ok(()) => Ok(true),
            Err(error) if is(&error, libc::ENODEV) => Ok(false),
            Err(error) => Err(failed("removing a link", &error)),
        }
    }

    /// Names of the links that are ports of this bridge.
    pub async fn ports(&self, bridge: &str) -> Result<Vec<String>, Error> {
        let Some(bridge) = self.index(bridge).await? else { return Ok(Vec::new()) };
        Ok(self.all().await?.into_iter().filter(|link| link.bridge == Some(bridge)).map(|link| link.name).collect())
    }

    async fn index(&self, name: &str) -> Result<Option<u32>, Error> {
        Ok(self.get(name).await?.map(|link| link.index))
    }

    async fn set(&self, message: LinkMessage, what: &str) -> Result<(), Error> {
        self.handle.link().set(message).execute().await.map_err(|e| failed(what, &e))
    }
}

/// Lets packets pass between links, in a namespace that nobody else uses. Its own root may set it.
pub fn forward() -> Result<(), Error> {
    fs::write(FORWARD, "1").map_err(Error::io(FORWARD))?;
    // There only with br_netfilter.
    if Path::new(BRIDGE_CALLS).exists() {
        fs::write(BRIDGE_CALLS, "0").map_err(Error::io(BRIDGE_CALLS))?;
    }
    Ok(())
}

fn link_of(link: &LinkMessage) -> Option<Link> {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })?;
    let bridge = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Controller(index) => Some(*index),
        _ => None,
    });
    let has = |wanted: LinkAttribute| link.attributes.contains(&wanted);
    Some(Link {
        index: link.header.index,
        name,
        ours: has(LinkAttribute::IfAlias(MARK.to_owned())),
        bridge: bridge.filter(|index| *index != 0),
        up: link.header.flags.contains(LinkFlags::Up),
        carrier: has(LinkAttribute::Carrier(1)),
    })
}

fn address_of(message: &AddressMessage) -> Option<(Ipv4Net, u32)> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    })?;
    Some((Ipv4Net::new(address, message.header.prefix_len).ok()?, message.header.index))
}

fn is(error: &rtnetlink::Error, errno: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -errno)
}

fn unless(errno: i32, outcome: Result<(), rtnetlink::Error>, what: &str) -> Result<(), Error> {
    match outcome {
        Err(error) if !is(&error, errno) => Err(failed(what, &error)),
        _ => Ok(()),
    }
}

fn failed(what: &str, error: &rtnetlink::Error) -> Error {
    let message = match error {
        rtnetlink::Error::NetlinkError(message) => io::Error::from_raw_os_error(-message.raw_code()).to_string(),
        other => other.to_string(),
    };
    Error::Op { op: what.to_owned(), message }
}

fn absent(name: &str) -> Error {
    Error::Op { op: "looking for a link".to_owned(), message: format!("there is no {name}") }
}
