//! The link that names are wired at: whether it is there, and when that changes.

use std::fs;
use std::path::Path;

use banger_bus::netlink::Listener;
use banger_schemas::error::{Error, Kind, Result};
use banger_schemas::network::MARK;

const LINKS: &str = "/sys/class/net";

/// Listens to the kernel from before the first look.
#[derive(Debug)]
pub(crate) struct Bridge {
    links: Listener,
}

impl Bridge {
    pub(crate) fn open() -> Result<Self> {
        let failed = |e| Error::new(Kind::Unavailable, format!("cannot listen to the kernel: {e}"));
        Ok(Bridge { links: Listener::links().map_err(failed)? })
    }

    /// Its index, which no other link of this boot has had. Its name is as a host has it set; it is told by its mark.
    pub(crate) fn index(&self) -> Option<i32> {
        let links = fs::read_dir(LINKS).ok()?;
        links.filter_map(|link| index_of_ours(&link.ok()?.path())).min()
    }

    /// Comes back when it is no longer this one.
    pub(crate) async fn changed(&self, index: Option<i32>) -> Result<()> {
        loop {
            self.links.stirred().await.map_err(Error::internal)?;
            self.links.take();
            if self.index() != index {
                return Ok(());
            }
        }
    }
}

fn index_of_ours(link: &Path) -> Option<i32> {
    let read = |name| fs::read_to_string(link.join(name)).ok();
    (link.join("bridge").is_dir() && read("ifalias")?.trim() == MARK).then(|| read("ifindex")?.trim().parse().ok())?
}
