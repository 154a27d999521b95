//! A VM as it is published.

use banger_bus::objects::{Snapshot, Values};
use banger_schemas::vms;
use zbus::wire::{OwnedVariant, Str, Variant};

use crate::lifecycle::State;
use crate::record::{Started, VmRecord};

/// What changes while a VM lives; the rest is in its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) record: VmRecord,
    pub(crate) state: &'static str,
    pub(crate) detail: String,
    pub(crate) notes: Vec<String>,
    pub(crate) boot_id: String,
}

impl View {
    pub(crate) fn new(record: VmRecord, state: &State) -> Self {
        View { record, state: state.as_str(), detail: state.detail(), notes: Vec::new(), boot_id: String::new() }
    }

    pub(crate) fn address(&self) -> String {
        self.record.lease.as_ref().map(|l| l.address.to_string()).unwrap_or_default()
    }

    pub(crate) fn host_address(&self) -> String {
        self.record.lease.as_ref().and_then(|l| l.host_address).map(|a| a.to_string()).unwrap_or_default()
    }

    pub(crate) fn backend(&self) -> String {
        self.record.backend.clone().unwrap_or_default()
    }

    pub(crate) fn started(&self) -> &'static str {
        match &self.record.started {
            Some(Started { template: true, .. }) => "template",
            Some(Started { template: false, .. }) => "boot",
            None => "",
        }
    }

    pub(crate) fn started_reason(&self) -> String {
        self.record.started.as_ref().map(|started| started.reason.clone()).unwrap_or_default()
    }

    pub(crate) fn ssh_host_key(&self) -> String {
        self.record.host_key.as_ref().map(|key| key.public.clone()).unwrap_or_default()
    }

    pub(crate) fn backend_reason(&self) -> String {
        self.record.backend_reason.clone().unwrap_or_default()
    }
}

fn text(value: &str) -> OwnedVariant {
    OwnedVariant::from(Str::from(value.to_owned()))
}

impl Snapshot for View {
    const INTERFACE: &'static str = vms::VM;

    fn values(&self) -> Values {
        let mut values = Values::from([
            ("State", text(self.state)),
            ("Detail", text(&self.detail)),
            ("Address", text(&self.address())),
            ("HostAddress", text(&self.host_address())),
            ("Nat", OwnedVariant::from(self.record.nat)),
            ("Backend", text(&self.backend())),
            ("BackendReason", text(&self.backend_reason())),
            ("Started", text(self.started())),
            ("StartedReason", text(&self.started_reason())),
            ("SshHostKey", text(&self.ssh_host_key())),
            ("BootId", text(&self.boot_id)),
            ("Ephemeral", OwnedVariant::from(self.record.client.is_some())),
        ]);
        // Strings always become owned values.
        values.extend(Variant::from(self.notes.clone()).try_to_owned().ok().map(|notes| ("Notes", notes)));
        values
    }
}
