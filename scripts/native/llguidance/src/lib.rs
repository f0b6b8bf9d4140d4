//! llguidance's C interface, with a bound on the memory of all grammars together.
//!
//! The library bounds its work by fuel nearly everywhere. Where it doesn't, a hostile grammar would take the memory of
//! the whole host; with the bound the process aborts instead, and whoever watches over it knows which request it had.
extern crate llguidance;
pub use llguidance::ffi::*;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static USED: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(usize::MAX);

struct Bounded;

impl Bounded {
    /// Counts bytes about to be allocated; false: there is no room for them.
    fn take(bytes: usize) -> bool {
        if USED.fetch_add(bytes, Relaxed).saturating_add(bytes) <= MOST.load(Relaxed) {
            return true;
        }
        USED.fetch_sub(bytes, Relaxed);
        false
    }
}

// SAFETY: all memory is the system allocator's; only the counting is ours.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if Self::take(layout.size()) {
            System.alloc(layout)
        } else {
            std::ptr::null_mut()
        }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        System.dealloc(place, layout);
        USED.fetch_sub(layout.size(), Relaxed);
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !Self::take(size) {
            return std::ptr::null_mut();
        }
        let moved = System.realloc(place, layout, size);
        USED.fetch_sub(if moved.is_null() { size } else { layout.size() }, Relaxed);
        moved
    }
}

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

/// Sets how many bytes all vocabularies and grammars may take together. Beyond them the process aborts.
#[no_mangle]
pub extern "C" fn tandem_llguidance_bound(bytes: usize) {
    MOST.store(bytes, Relaxed);
}

/// How many bytes they take now.
#[no_mangle]
pub extern "C" fn tandem_llguidance_used() -> usize {
    USED.load(Relaxed)
}
