//! How the words travel: frames over byte streams, packets with descriptors over unix sockets.

pub mod frames;
pub mod packet;

pub use frames::{FrameReader, write_frame, write_in_place};
pub use packet::{Packet, PacketSocket};
