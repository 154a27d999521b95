//! Bringing about what VMs share. Whatever is there and ours is kept, and what others have is not touched.

use super::{Bridge, State, firewalls, forward, ports};
use crate::host::links::{FORWARD, Links};
use crate::host::{Change, Ensured, Error, Refusal, nft};

impl Bridge {
    pub(super) async fn ensure_all(&self) -> Result<Ensured, Error> {
        let mut state = self.state.lock().await;
        if self.still_whole(&mut state)? {
            return Ok(Ensured { notes: state.notes.clone(), ..Ensured::default() });
        }
        let was_up = state.up;
        let mut mended = Vec::new();
        let change = self.ensure_bridge(&mut mended, was_up).await?;
        if forward::on(&self.records).await? && was_up {
            mended.push(format!("{FORWARD} is 1 again"));
        }
        state.rules.doubt();
        if !nft::loaded().await? {
            nft::load(&state.rules.render(&self.plan)).await?;
            if was_up {
                mended.push("banger's nftables tables are loaded again".to_owned());
            }
        }
        state.notes = firewalls::ensure(&self.config, &self.plan.bridge, &self.records, &mut mended).await?;
        state.notes.extend(self.config.note.clone());
        (state.up, state.whole) = (true, true);
        let State { notes, .. } = &*state;
        Ok(Ensured { namespace: change, uplink: change, mended, notes: notes.clone(), ..Ensured::default() })
    }

    async fn ensure_bridge(&self, mended: &mut Vec<String>, was_up: bool) -> Result<Change, Error> {
        let (links, name) = (Links::open()?, &self.plan.bridge);
        let change = match links.get(name).await? {
            Some(link) if !link.ours => return Err(Error::Foreign(name.clone())),
            Some(_) => Change::Kept,
            None => Change::Made,
        };
        self.room(&links).await?;
        links.bridge(name, self.plan.gateway(), self.plan.net.prefix_len()).await?;
        if change == Change::Made {
            forward::without_ipv6(name)?;
            self.warm.clear();
            // What it said while it was made.
            self.watch()?.links_stirred();
            if was_up {
                mended.push(format!("the bridge {name} is made again"));
            }
        }
        mended.extend(ports::rejoin(&links, name).await?);
        Ok(change)
    }

    /// Whether nobody else has an address in our network.
    pub(super) async fn room(&self, links: &Links) -> Result<(), Error> {
        let own = links.get(&self.plan.bridge).await?.map(|link| link.index);
        for (address, index) in links.addresses().await? {
            if Some(index) != own && self.plan.overlaps(address) {
                let link = links.all().await?.into_iter().find(|link| link.index == index);
                let link = link.map_or_else(|| "a link".to_owned(), |link| link.name);
                return Err(Refusal::NetworkTaken { link, address: address.to_string() }.into());
            }
        }
        Ok(())
    }
}
