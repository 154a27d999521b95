//! How much memory a piece of work holds at its worst moment.
#![allow(unsafe_code, reason = "an allocator is the only place where allocations can be counted")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The most that the decoding of one message may hold, and the sentence of an error, which is on the heap too.
pub(crate) const MESSAGE: usize = banger_schemas::codec::MAX_DECODED + 4096;

thread_local! {
    // Constants without destructors: reading them allocates nothing.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(change: isize) {
    let held = HELD.get().saturating_add(change);
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

fn size(layout: Layout) -> isize {
    isize::try_from(layout.size()).unwrap_or(isize::MAX)
}

// SAFETY: every call is the system allocator's; what is counted beside it touches no memory of the caller's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size(layout));
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is that of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-size(layout));
        // SAFETY: as above; the pointer came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs this; fails when it held more than `limit` bytes at once.
pub(crate) fn within<T>(limit: usize, work: impl FnOnce() -> T) -> T {
    let before = HELD.get();
    PEAK.set(before);
    let outcome = work();
    let peak = PEAK.get() - before;
    assert!(peak <= isize::try_from(limit).unwrap_or(isize::MAX), "{peak} bytes at once, allowed are {limit}");
    outcome
}

#[test]
fn allocations_are_counted() {
    within(10, || ());
    assert!(std::panic::catch_unwind(|| within(1000, || vec![0u8; 1001])).is_err());
    let held = HELD.get();
    drop(vec![0u8; 5000]);
    assert_eq!(HELD.get(), held);
}
