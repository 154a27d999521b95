//! A host to install banger on: Debian with systemd, a system bus and polkit, booted in a container in half a second.
//! It knows of banger only how it is installed and where its images lie.
//!
//! ```no_run
//! use banger_integration::host::{Host, Options, User, Who};
//!
//! let host = Host::boot(Options::default());
//! host.ok(["loginctl", "list-users"]);
//! let asked = host.run_as(Who::Active(User::Bob), ["busctl", "status"]);
//! assert_eq!(asked.code, 0, "{}", asked.stderr);
//! ```

mod banger;
mod base;
mod boot;
mod cgroup;
mod container;
mod errand;
mod evidence;
mod folder;
mod who;

pub use boot::{Bus, Host, Options};
pub use errand::{Errand, Running};
pub use who::{User, Who};
