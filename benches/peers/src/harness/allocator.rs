//! The process's allocator: glibc; mimalloc for a child that is started for it; a counting glibc on
//! request.
//!
//! One binary serves all three, because `cargo run` builds one. The choice is a byte that is read
//! at each allocation: one load and one predicted branch, the same for every contender.
//!
//! # Safety
//! Memory goes back to the allocator that gave it: mimalloc is chosen before `main`, when nothing
//! is allocated yet, and never left; counting is glibc as well, so it may begin at any time.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use mimalloc::MiMalloc;

/// What a child gets its heap from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Allocator {
    Glibc,
    /// glibc that asks for transparent huge pages.
    GlibcHuge,
    Mimalloc,
    /// glibc that counts.
    Counting,
}

impl Allocator {
    /// The environment that a child is started in, the same variables for all.
    pub fn environment(self) -> [(&'static str, &'static str); 2] {
        let choice = match self {
            Self::Glibc | Self::GlibcHuge => "",
            Self::Mimalloc => "mimalloc",
            Self::Counting => "count",
        };
        let tunables = if self == Self::GlibcHuge { "glibc.malloc.hugetlb=1" } else { "" };
        [("URING_ARENA_PEERS_ALLOCATOR", choice), ("GLIBC_TUNABLES", tunables)]
    }
}

const GLIBC: u8 = 0;
const MIMALLOC: u8 = 1;
const COUNT: u8 = 2;

static CHOICE: AtomicU8 = AtomicU8::new(GLIBC);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Switch = Switch;

struct Switch;

/// Allocations so far, reallocations included; stays zero unless the process counts.
pub fn heap_allocations() -> u64 {
    ALLOCATIONS.load(Ordering::Relaxed)
}

// SAFETY: each call goes on unchanged to one allocator that keeps the contract, always the same for
// one block (see the head of this file).
unsafe impl GlobalAlloc for Switch {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match CHOICE.load(Ordering::Relaxed) {
            // SAFETY: the caller's duties are passed on.
            GLIBC => unsafe { System.alloc(layout) },
            // SAFETY: as above.
            MIMALLOC => unsafe { MiMalloc.alloc(layout) },
            _ => {
                counted();
                // SAFETY: as above.
                unsafe { System.alloc(layout) }
            }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match CHOICE.load(Ordering::Relaxed) {
            // SAFETY: the caller's duties are passed on.
            GLIBC => unsafe { System.dealloc(block, layout) },
            // SAFETY: as above.
            MIMALLOC => unsafe { MiMalloc.dealloc(block, layout) },
            _ => {
                // SAFETY: as above.
                unsafe { System.dealloc(block, layout) }
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match CHOICE.load(Ordering::Relaxed) {
            // SAFETY: the caller's duties are passed on.
            GLIBC => unsafe { System.alloc_zeroed(layout) },
            // SAFETY: as above.
            MIMALLOC => unsafe { MiMalloc.alloc_zeroed(layout) },
            _ => {
                counted();
                // SAFETY: as above.
                unsafe { System.alloc_zeroed(layout) }
            }
        }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match CHOICE.load(Ordering::Relaxed) {
            // SAFETY: the caller's duties are passed on.
            GLIBC => unsafe { System.realloc(block, layout, size) },
            // SAFETY: as above.
            MIMALLOC => unsafe { MiMalloc.realloc(block, layout, size) },
            _ => {
                counted();
                // SAFETY: as above.
                unsafe { System.realloc(block, layout, size) }
            }
        }
    }
}

fn counted() {
    ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
}

/// Runs before `main`, and so before the first allocation of Rust code.
#[used]
#[unsafe(link_section = ".init_array")]
static CHOOSE: extern "C" fn() = choose;

extern "C" fn choose() {
    // SAFETY: no thread exists yet that could change the environment.
    let value = unsafe { libc::getenv(c"URING_ARENA_PEERS_ALLOCATOR".as_ptr()) };
    if value.is_null() {
        return;
    }
    // SAFETY: getenv gave a string that ends in a zero and stays in place.
    let choice = match unsafe { std::ffi::CStr::from_ptr(value) }.to_bytes() {
        b"mimalloc" => MIMALLOC,
        b"count" => COUNT,
        _ => GLIBC,
    };
    CHOICE.store(choice, Ordering::Relaxed);
}
