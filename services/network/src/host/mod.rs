//! Effects on the host's network, behind one trait of intent. Knows nothing of leases, owners or D-Bus.
//!
//! [`bridge`] is a real host's: a bridge in its own namespace, beside whatever else is there. [`rootless`] is a user's:
//! a user and network namespace of their own, with a user-mode uplink. [`fake`] keeps everything in memory, for the
//! tests of the service. What happens inside a namespace ([`links`], [`nft`], [`tap`]) is the same code for both.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;

use banger_schemas::VmId;
use futures_util::future::BoxFuture;

use crate::plan::Plan;
use crate::render::{Protocol, Publication, Ruleset};

pub mod address;
mod applied;
pub mod bridge;
pub mod error;
pub mod fake;
pub mod links;
pub mod nft;
pub mod resolver;
pub mod rootless;
pub mod tap;
pub mod tools;
pub mod within;

pub use bridge::Bridge;
pub use error::{Error, Refusal, UserNamespaces};
pub use fake::Fake;
pub use rootless::{Places, Rootless};

/// The outcome of a change.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Error>>;

/// The network of one host, or of one user of it. Every change is idempotent and says what had to change.
pub trait Host: Debug + Send + Sync {
    /// What this network looks like.
    fn plan(&self) -> &Plan;

    /// Whether this machine can do it. Changes nothing.
    fn probe(&self) -> BoxFuture<'_, Result<(), Refusal>>;

    /// Brings about everything that VMs share (namespace, uplink, bridge, closed rules), and what was published and
    /// applied before if it was lost. Whatever still works is left alone.
    fn ensure(&self) -> Answer<'_, Ensured>;

    /// Comes back when something that `ensure` keeps has died (at once, if it has already): time for `ensure`.
    fn lost(&self) -> Answer<'_, ()>;

    /// Makes the VM's TAP, an isolated port of the bridge, and hands out a descriptor for its VMM. The TAP outlives
    /// the descriptor. Rules that name it must be applied before the guest can send anything.
    fn add_tap<'a>(&'a self, vm: &'a VmId) -> Answer<'a, OwnedFd>;

    /// Takes the VM's TAP away; whether there was one.
    fn remove_tap<'a>(&'a self, vm: &'a VmId) -> Answer<'a, bool>;

    /// VMs that have a TAP.
    fn taps(&self) -> Answer<'_, Vec<VmId>>;

    /// Removes TAPs that an earlier life of the service left and that are not of these VMs, if nobody uses them; what
    /// was found, each as a sentence.
    fn sweep<'a>(&'a self, known: &'a BTreeSet<VmId>) -> Answer<'a, Vec<String>>;

    /// Puts these rules in place of all former ones, at once.
    fn apply<'a>(&'a self, rules: &'a Ruleset) -> Answer<'a, ()>;

    /// Listens at `publication.outside` for the guest. The rules must name the publication too.
    fn publish<'a>(&'a self, publication: &'a Publication) -> Answer<'a, ()>;

    /// Listens there no longer; whether it did.
    fn unpublish(&self, protocol: Protocol, outside: SocketAddrV4) -> Answer<'_, bool>;

    /// Where it listens.
    fn published(&self) -> Answer<'_, Vec<(Protocol, SocketAddrV4)>>;

    /// Removes everything: processes, sockets, files, links, rules; and puts back what was changed for it. Only when no
    /// VM runs. What was undone, each as a sentence.
    fn down(&self) -> Answer<'_, Vec<String>>;
}

/// What `ensure` had to do.
#[derive(Debug, Default)]
pub struct Ensured {
    pub namespace: Change,
    pub uplink: Change,
    /// Publications that came back with a new uplink.
    pub returned: Vec<Publication>,
    /// Publications that did not, and why.
    pub lost: Vec<(Publication, Error)>,
    /// What had gone by somebody else's doing and is back.
    pub mended: Vec<String>,
    /// What this machine does not allow, each as a sentence.
    pub notes: Vec<String>,
}

impl Ensured {
    /// Whether TAPs handed out before are dead: their namespace went, and running guests stay without a network
    /// until they are started again.
    pub fn taps_are_dead(&self) -> bool {
        self.namespace == Change::Remade
    }
}

/// What became of a thing that was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Change {
    /// It was there.
    #[default]
    Kept,
    /// There was none before.
    Made,
    /// There was one, and it had died.
    Remade,
}
