//! The interfaces as documents: what the services say of themselves, what is checked in, and what the proxies
//! expect are one and the same. `make blessed` writes the documents anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod documents;
mod introspection;
mod live;
mod mirror;
mod options;
mod placeholder;
mod proxies;
