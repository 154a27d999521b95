//! Links and addresses in the present network namespace, by rtnetlink.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use futures_util::TryStreamExt;
use nix::libc;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::{Handle, LinkBridge, LinkBridgePort, LinkUnspec};

use super::Error;

/// Forwards packets between links.
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// Whether bridged frames go through the packet rules too. They have their own table, and routed ones would count twice.
const BRIDGE_CALLS: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

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

    /// Makes the bridge with its address, if it is not there, and sets it up.
    pub async fn bridge(&self, name: &str, address: Ipv4Addr, prefix: u8) -> Result<(), Error> {
        let add = self.handle.link().add(LinkBridge::new(name).build()).execute().await;
        unless(libc::EEXIST, add, "making the bridge")?;
        let index = self.index(name).await?.ok_or_else(|| absent(name))?;
        let add = self.handle.address().add(index, address.into(), prefix).execute().await;
        unless(libc::EEXIST, add, "addressing the bridge")?;
        self.set(LinkUnspec::new_with_index(index).up().build(), "setting the bridge up").await
    }

    /// Makes a link a port of the bridge that reaches no other isolated port, then sets it up. In this order: a port
    /// is never up and open to its neighbours.
    pub async fn isolated_port(&self, name: &str, bridge: &str) -> Result<(), Error> {
        let bridge = self.index(bridge).await?.ok_or_else(|| absent(bridge))?;
        let index = self.index(name).await?.ok_or_else(|| absent(name))?;
        let join = LinkUnspec::new_with_index(index).controller(bridge).build();
        self.set(join, "joining the bridge").await?;
        let isolate = LinkBridgePort::new(index).isolated(true).build();
        let isolated = self.handle.link().set_port(isolate).execute().await;
        isolated.map_err(|e| failed("isolating the port", &e))?;
        self.set(LinkUnspec::new_with_index(index).up().build(), "setting the port up").await
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
        let all: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(|e| failed("listing links", &e))?;
        let of_bridge = |link: &LinkMessage| link.attributes.contains(&LinkAttribute::Controller(bridge));
        Ok(all.iter().filter(|link| of_bridge(link)).filter_map(name_of).collect())
    }

    async fn index(&self, name: &str) -> Result<Option<u32>, Error> {
        let mut found = Box::pin(self.handle.link().get().match_name(name).execute());
        match found.try_next().await {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(error) if is(&error, libc::ENODEV) => Ok(None),
            Err(error) => Err(failed("looking for a link", &error)),
        }
    }

    async fn set(&self, message: LinkMessage, what: &str) -> Result<(), Error> {
        self.handle.link().set(message).execute().await.map_err(|e| failed(what, &e))
    }
}

/// Lets packets pass between links. A namespace's own root may set it.
pub fn forward() -> Result<(), Error> {
    fs::write(FORWARD, "1").map_err(Error::io(FORWARD))?;
    // There only with br_netfilter.
    if Path::new(BRIDGE_CALLS).exists() {
        fs::write(BRIDGE_CALLS, "0").map_err(Error::io(BRIDGE_CALLS))?;
    }
    Ok(())
}

fn name_of(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
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
