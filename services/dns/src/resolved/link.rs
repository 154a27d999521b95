//! What systemd-resolved is told of one link (org.freedesktop.resolve1(5)), and whether the host is well with it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use banger_schemas::dns::ZONE;
use banger_schemas::error::{Error, Kind, Result};
use tokio::time::timeout;
use zbus::names::OwnedUniqueName;
use zbus::proxy::CacheProperties;
use zbus::{Connection, proxy};

/// A lookup that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(3);
/// linux/in.h; RFC 1035.
const AF_INET: i32 = 2;
const IN: u16 = 1;
const NS: u16 = 2;
/// SD_RESOLVED_DNS and SD_RESOLVED_NO_CACHE: as if it had never been asked before.
const BY_DNS: u64 = 1 | 1 << 12;

#[proxy(interface = "org.freedesktop.resolve1.Manager", default_path = "/org/freedesktop/resolve1")]
trait Manager {
    #[zbus(name = "SetLinkDNSEx")]
    fn set_link_dns_ex(&self, link: i32, servers: &[(i32, Vec<u8>, u16, &str)]) -> zbus::Result<()>;
    fn set_link_domains(&self, link: i32, domains: &[(&str, bool)]) -> zbus::Result<()>;
    fn set_link_default_route(&self, link: i32, whether: bool) -> zbus::Result<()>;
    #[zbus(name = "SetLinkLLMNR")]
    fn set_link_llmnr(&self, link: i32, how: &str) -> zbus::Result<()>;
    #[zbus(name = "SetLinkMulticastDNS")]
    fn set_link_multicast_dns(&self, link: i32, how: &str) -> zbus::Result<()>;
    fn revert_link(&self, link: i32) -> zbus::Result<()>;
    fn resolve_record(
        &self,
        link: i32,
        name: &str,
        class: u16,
        kind: u16,
        flags: u64,
    ) -> zbus::Result<(Vec<(i32, u16, u16, Vec<u8>)>, u64)>;
}

/// One link, as one resolved knows it.
#[derive(Debug)]
pub(crate) struct Link {
    resolved: ManagerProxy<'static>,
    index: i32,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Wired,
    /// The host resolved less with it than without, so it was taken back.
    Worse,
}

impl Link {
    /// At the one that runs: asked by its well-known name, it would be started.
    pub(crate) async fn new(bus: &Connection, owner: &OwnedUniqueName, index: i32) -> Result<Self> {
        let builder = ManagerProxy::builder(bus).destination(owner.clone()).cache_properties(CacheProperties::No);
        Ok(Link { resolved: builder.build().await?, index })
    }

    /// Has it ask us for names of VMs, unless the host's other lookups fail by that. Asked twice, so that a lookup that
    /// failed by chance decides nothing.
    pub(crate) async fn wire(&self, listen: SocketAddr) -> Result<Outcome> {
        for _ in 0..2 {
            self.set(listen).await?;
            if self.host_resolves().await {
                return Ok(Outcome::Wired);
            }
            self.revert().await?;
            if !self.host_resolves().await {
                // It is not by us.
                self.set(listen).await?;
                return Ok(Outcome::Wired);
            }
        }
        Ok(Outcome::Worse)
    }

    /// The server comes last, when it is said for what alone it is asked. LLMNR and mDNS would tell the guests what the
    /// host looks for.
    async fn set(&self, listen: SocketAddr) -> Result<()> {
        let (resolved, link) = (&self.resolved, self.index);
        let IpAddr::V4(address) = listen.ip() else { return Err(Error::internal("names are served at IPv4 alone")) };
        let server = (AF_INET, address.octets().to_vec(), listen.port(), "");
        let told = async {
            resolved.set_link_llmnr(link, "no").await?;
            resolved.set_link_multicast_dns(link, "no").await?;
            resolved.set_link_default_route(link, false).await?;
            resolved.set_link_domains(link, &[(ZONE, true)]).await?;
            resolved.set_link_dns_ex(link, &[server]).await
        };
        told.await.map_err(failed)
    }

    pub(crate) async fn revert(&self) -> Result<()> {
        self.resolved.revert_link(self.index).await.map_err(failed)
    }

    /// Whether a name that is none of ours is found: the root's servers, whom everybody's resolver knows and whose
    /// question tells nobody anything.
    async fn host_resolves(&self) -> bool {
        let asked = self.resolved.resolve_record(0, ".", IN, NS, BY_DNS);
        matches!(timeout(PATIENCE, asked).await, Ok(Ok(_)))
    }
}

fn failed(error: zbus::Error) -> Error {
    match error {
        zbus::Error::MethodError(_, Some(message), _) => Error::new(Kind::Unavailable, message),
        other => other.into(),
    }
}
