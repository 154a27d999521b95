//! Whether this machine allows a network without privilege: by making one in a process that ends at once, since no
//! switch of the kernel tells it for sure. The switches only name the reason.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use banger_schemas::io::packet::PacketSocket;
use nix::libc;

use super::holder;
use crate::host::links::Links;
use crate::host::{Refusal, UserNamespaces, tap};

/// The helper's side: tries everything, and answers over `socket`.
pub fn serve(socket: OwnedFd) -> io::Result<()> {
    let tried = attempt();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { PacketSocket::from_fd(socket)?.send(&tried, &[]).await })
}

fn attempt() -> Result<(), Refusal> {
    // Before the namespace: what is closed to us outside is closed inside.
    tap::open_device().map_err(|e| tap::device_refusal(&e).unwrap_or_else(|| refused("opening /dev/net/tun", &e)))?;
    holder::make_namespaces().map_err(|(step, error)| refused(step, &error))?;
    // Ubuntu's restriction lets the namespace be made and takes every right in it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| refused("starting", &e))?;
    let up = runtime.block_on(async { Links::open()?.loopback().await });
    up.map_err(|e| refused(&e.to_string(), &io::Error::from_raw_os_error(libc::EPERM)))?;
    tap::open("bg-probe").map_err(|e| refused("making a TAP", &e))?;
    Ok(())
}

fn refused(step: &str, error: &io::Error) -> Refusal {
    let errno = error.raw_os_error().unwrap_or(0);
    Refusal::UserNamespacesRefused(reason(step, errno, |switch| {
        fs::read_to_string(format!("/proc/sys/{switch}")).ok().map(|value| value.trim().to_owned())
    }))
}

/// The switch that explains a failure.
fn reason(step: &str, errno: i32, switch: impl Fn(&str) -> Option<String>) -> UserNamespaces {
    let is = |name: &str, value: &str| switch(name).as_deref() == Some(value);
    if is("user/max_user_namespaces", "0") {
        UserNamespaces::Maximum
    } else if is("kernel/unprivileged_userns_clone", "0") {
        UserNamespaces::Clone
    } else if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        UserNamespaces::AppArmor
    } else {
        UserNamespaces::Unexplained { step: step.to_owned(), errno }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_switch_is_a_reason_of_its_own() {
        let with = |name: &'static str, value: &'static str| {
            reason("unshare", libc::EPERM, move |asked| (asked == name).then(|| value.to_owned()))
        };
        assert_eq!(with("user/max_user_namespaces", "0"), UserNamespaces::Maximum);
        assert_eq!(with("kernel/unprivileged_userns_clone", "0"), UserNamespaces::Clone);
        assert_eq!(with("kernel/apparmor_restrict_unprivileged_userns", "1"), UserNamespaces::AppArmor);
        let none = UserNamespaces::Unexplained { step: "unshare".to_owned(), errno: libc::EPERM };
        assert_eq!(with("user/max_user_namespaces", "96365"), none);
    }
}
