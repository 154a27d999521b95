//! Dns1: names of running VMs.

use zbus::proxy;

pub const NAME: &str = "dev.banger.Dns1";
pub const PATH: &str = "/dev/banger/Dns1";
pub const MANAGER: &str = "dev.banger.Dns1.Manager";

/// The zone that VM names live in.
pub const ZONE: &str = "vm";
/// The port that is tried first.
pub const PORT: u16 = 42069;

/// The name server.
#[proxy(interface = "dev.banger.Dns1.Manager", default_service = "dev.banger.Dns1", default_path = "/dev/banger/Dns1")]
pub trait Manager {
    /// Name and address of every VM that is served, whose ever it is.
    fn list(&self) -> zbus::Result<Vec<(String, String)>>;

    /// What keeps programs of this host from finding machines by their names, each as a sentence that says what helps.
    fn notes(&self) -> zbus::Result<Vec<String>>;

    /// Where it listens, `ADDRESS:PORT`, UDP and TCP; empty while it does not.
    #[zbus(property(emits_changed_signal = "const"))]
    fn listen(&self) -> zbus::Result<String>;
}
