//! The kernel's command line, as far as every backend says the same.

/// Security modules that need no policy: an AppArmor without its tools in the image keeps container engines from starting, and
/// without it Debian's kernels take SELinux and TOMOYO, which are asked about every file and have nothing to say.
/// Not `quiet`: the first line on the console is what tells a slow boot from a kernel that never ran.
pub(super) const ARGUMENTS: &str = "console=ttyS0 loglevel=6 panic=1 cryptomgr.notests lsm=landlock,yama,integrity";
