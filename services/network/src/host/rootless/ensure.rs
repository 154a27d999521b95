//! Bringing about what VMs share: whatever still works is kept, and each part is made again alone.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::{Known, Rootless, Whole, helper, uplink};
use crate::host::within::Op;
use crate::host::{Change, Ensured, Error};
use banger_bus::process::Process;

impl Rootless {
    /// A holder whose namespace has the bridge and rules.
    async fn ensure_namespace(&self, known: &Known) -> Result<(Process, Change), Error> {
        let plan = &self.plan;
        let rules = known.rules.render(plan);
        // A holder that lives may still be half-made.
        let base = vec![
            Op::RulesIfNone { text: rules },
            Op::Base { bridge: plan.bridge.clone(), address: plan.gateway().octets(), prefix: plan.net.prefix_len() },
        ];
        let recorded = self.recorded()?;
        if let Some(holder) = recorded.as_ref().filter(|holder| holder.alive()) {
            match helper::within(&self.places.helper, holder, base.clone()).await {
                Ok(_) => return Ok((holder.clone(), Change::Kept)),
                // It died before it had made its namespace, or is about to.
                Err(Error::NoNamespace) => drop(holder.end().await.map_err(Error::io("ending the holder"))?),
                Err(error) => return Err(error),
            }
        }
        self.try_all().await?;
        // The old uplink's namespace has no name any more.
        uplink::end(&self.places).await?;
        let state = &self.places.state;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(state);
        made.map_err(Error::io(state.display().to_string()))?;
        let program = self.places.helper.to_string_lossy();
        let command = [&*program, "hold"];
        let holder = helper::start(&self.places.helper, &self.holder_record(), Path::new("/"), &command).await?;
        helper::within(&self.places.helper, &holder, base).await?;
        Ok((holder, if recorded.is_some() { Change::Remade } else { Change::Made }))
    }

    /// An uplink that answers.
    async fn ensure_uplink(&self, holder: &Process, namespace: Change) -> Result<(Process, Change), Error> {
        let recorded = uplink::record(&self.places).exists();
        if let Some(uplink) = uplink::find(&self.places)?
            && uplink::works(&self.places).await
        {
            return Ok((uplink, Change::Kept));
        }
        uplink::end(&self.places).await?;
        let uplink = uplink::start(&self.places, holder).await?;
        let again = recorded || namespace == Change::Remade;
        Ok((uplink, if again { Change::Remade } else { Change::Made }))
    }

    pub(super) async fn ensure_all(&self) -> Result<Ensured, Error> {
        let mut known = self.known.lock().await;
        if let Some(whole) = known.whole.take().filter(Whole::lives) {
            let notes = known.whole.insert(whole).notes.clone();
            return Ok(Ensured { notes, ..Ensured::default() });
        }
        known.rules.doubt();
        let (holder, namespace) = self.ensure_namespace(&known).await?;
        let (uplink, change) = self.ensure_uplink(&holder, namespace).await?;
        let notes = uplink::missing_walls(&uplink);
        known.whole = Some(Whole { holder, uplink, notes: notes.clone() });
        let mut ensured = Ensured { namespace, uplink: change, notes, ..Ensured::default() };
        if change != Change::Kept {
            for publication in known.published.values() {
                match self.forward(publication).await {
                    Ok(()) => ensured.returned.push(*publication),
                    Err(error) => ensured.lost.push((*publication, error)),
                }
            }
        }
        Ok(ensured)
    }
}
