//! The ways on which the host reaches the agent. Both give a byte stream; what is said on it is the channel's matter.

pub(crate) mod port;
pub(crate) mod vsock;
