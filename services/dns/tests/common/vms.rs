//! A Vms1 with as much of a VM as a name server can see.

use std::collections::HashMap;

use banger_schemas::vms;
use zbus::Connection;
use zbus::fdo::ObjectManager;
use zbus::object_server::SignalEmitter;
use zbus::wire::Variant;

#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) host_address: String,
}

#[zbus::interface(name = "dev.banger.Vms1.Vm")]
impl Machine {
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> String {
        self.name.clone()
    }
    #[zbus(property)]
    fn state(&self) -> String {
        self.state.clone()
    }
    #[zbus(property)]
    fn host_address(&self) -> String {
        self.host_address.clone()
    }
}

/// A machine that runs.
pub(crate) fn running(name: &str, address: &str) -> Machine {
    Machine { name: name.into(), state: "running".into(), host_address: address.into() }
}

/// A machine that does not.
pub(crate) fn stopped(name: &str, address: &str) -> Machine {
    Machine { state: "stopped".into(), ..running(name, address) }
}

/// Something else that Vms1 has on the bus.
pub(crate) struct Job;

#[zbus::interface(name = "dev.banger.Job1")]
impl Job {
    #[zbus(property)]
    fn state(&self) -> &str {
        "running"
    }
}

pub(crate) struct Vms(Connection);

impl Vms {
    pub(crate) async fn start(connection: Connection, machines: &[Machine]) -> Self {
        connection.object_server().at(vms::PATH, ObjectManager).await.unwrap();
        let this = Vms(connection);
        for (index, machine) in machines.iter().enumerate() {
            this.add(&format!("listed{index}"), machine.clone()).await;
        }
        this.0.object_server().at(format!("{}/job/1", vms::PATH), Job).await.unwrap();
        this.0.request_name(vms::NAME).await.unwrap();
        this
    }

    pub(crate) async fn add(&self, id: &str, machine: Machine) {
        self.0.object_server().at(path(id), machine).await.unwrap();
    }

    pub(crate) async fn remove(&self, id: &str) {
        self.0.object_server().remove::<Machine, _>(path(id)).await.unwrap();
    }

    pub(crate) async fn set_state(&self, id: &str, state: &str) {
        let machine = self.0.object_server().interface::<_, Machine>(path(id)).await.unwrap();
        machine.get_mut().await.state = state.into();
        machine.get().await.state_changed(machine.signal_emitter()).await.unwrap();
    }

    pub(crate) async fn set_address(&self, id: &str, address: &str) {
        let machine = self.0.object_server().interface::<_, Machine>(path(id)).await.unwrap();
        machine.get_mut().await.host_address = address.into();
        machine.get().await.host_address_changed(machine.signal_emitter()).await.unwrap();
    }

    /// Says that the state has changed, and not to what.
    pub(crate) async fn set_state_unsaid(&self, id: &str, state: &str) {
        let machine = self.0.object_server().interface::<_, Machine>(path(id)).await.unwrap();
        machine.get_mut().await.state = state.into();
        changed(machine.signal_emitter(), HashMap::new(), vec!["State"]).await;
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.0
    }

    /// Goes away, as a crash would have it.
    pub(crate) async fn crash(self) {
        self.0.close().await.unwrap();
    }
}

/// Says of a VM what need not be true.
pub(crate) async fn changed(emitter: &SignalEmitter<'_>, values: HashMap<&str, Variant<'_>>, unsaid: Vec<&str>) {
    let body = (vms::VM, values, unsaid);
    emitter.emit("org.freedesktop.DBus.Properties", "PropertiesChanged", &body).await.unwrap();
}

pub(crate) fn path(id: &str) -> String {
    format!("{}/vm/{id}", vms::PATH)
}
