//! How a build tells what it does, and how it is told to stop.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::{BuildError, Result};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Bytes,
}

/// Hears about a build, from more than one thread.
pub trait Progress: Sync {
    /// A new stage begins: words for a person.
    fn stage(&self, stage: &str);
    /// So much of the stage is done; the total where it is known.
    fn amount(&self, done: u64, total: Option<u64>, unit: Unit);
}

/// Nobody listens.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn stage(&self, _stage: &str) {}
    fn amount(&self, _done: u64, _total: Option<u64>, _unit: Unit) {}
}

/// A wish to stop, shared between the one who wishes and the one who works.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error once somebody wished to stop.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(BuildError::Cancelled) } else { Ok(()) }
    }
}
