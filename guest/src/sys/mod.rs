//! System calls that no safe wrapper exists for, one small file a subject: the only unsafe code of the agent.

pub(crate) mod entropy;
pub(crate) mod fd;
pub(crate) mod heap;
pub(crate) mod process;
pub(crate) mod terminal;
pub(crate) mod title;
pub(crate) mod xattr;
