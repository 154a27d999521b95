//! Published objects, of which a caller sees what is theirs (docs/decisions/0012).

mod changes;
mod listing;
mod owned;
mod tree;

pub use changes::{Snapshot, Values, publish};
pub(crate) use tree::Tree;
