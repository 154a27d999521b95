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
mod emulator;
mod errand;
mod evidence;
mod folder;
mod tied;
mod who;

pub use banger::{NAMES, SERVICES, units};
pub use boot::{Bus, Host, Options};
pub use errand::{Errand, Running};
pub use who::{User, Who};

/// Waits for something where a failure is somebody else's to tell; whether it came.
fn patiently(limit: std::time::Duration, mut holds: impl FnMut() -> bool) -> bool {
    let begun = std::time::Instant::now();
    while !holds() {
        if begun.elapsed() >= limit {
            return false;
        }
        #[allow(clippy::disallowed_methods, reason = "a test's own thread")]
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    true
}
