//! The kernel's command line, as far as every backend says the same.

/// An AppArmor in the guest's kernel without its tools in the image keeps container engines from starting.
/// Not `quiet`: the first line on the console is what tells a slow boot from a kernel that never ran.
pub(super) const ARGUMENTS: &str = "console=ttyS0 loglevel=6 panic=1 cryptomgr.notests apparmor=0";
