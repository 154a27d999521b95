//! The commands that run, as process groups that can be signalled.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use nix::sys::signal::Signal;

use crate::sys;

/// A command's process group, while its leader has not been reaped: afterwards its number may be another's.
#[derive(Debug, Clone)]
pub(crate) struct Group(Rc<State>);

#[derive(Debug)]
struct State {
    pid: u32,
    over: Cell<bool>,
}

impl Group {
    pub(super) fn new(pid: u32) -> Self {
        Group(Rc::new(State { pid, over: Cell::new(false) }))
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.pid
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.over.get()
    }

    /// The leader has been reaped.
    pub(super) fn over(&self) {
        self.0.over.set(true);
    }

    /// Sends a signal to the group; to nobody once it is over, or when the number is no signal.
    pub(super) fn signal(&self, signal: i32) {
        let Ok(pid) = i32::try_from(self.0.pid) else { return };
        if !self.is_over() {
            // A group that has just died is no error of anybody.
            let _ = sys::process::kill(-pid, signal);
        }
    }
}

/// Every command that runs now.
#[derive(Debug, Default)]
pub(crate) struct Running(RefCell<HashMap<u32, Group>>);

impl Running {
    /// Lists a command until the answer is dropped.
    pub(super) fn enter(&self, group: &Group) -> Listed<'_> {
        self.0.borrow_mut().insert(group.pid(), group.clone());
        Listed { running: self, pid: group.pid() }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        for group in self.0.borrow().values() {
            group.signal(signal as i32);
        }
    }
}

pub(super) struct Listed<'a> {
    running: &'a Running,
    pid: u32,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.running.0.borrow_mut().remove(&self.pid);
    }
}
