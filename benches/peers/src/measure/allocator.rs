//! The process's allocator: glibc, glibc that counts, or mimalloc, as the environment says.
//!
//! One binary serves all three, because `cargo run` builds one. The choice is a byte that is read
//! at each allocation: one load and one predicted branch, the same for every contender.
//!
//! # Safety
//! Memory goes back to the allocator that gave it: the choice is made at the first allocation, and
//! never changed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use mimalloc::MiMalloc;

use super::random::Random;

/// The heap of a worker.
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
    /// Returns the environment that chooses the allocator; the same variables for all.
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

const UNKNOWN: u8 = 0;
const GLIBC: u8 = 1;
const MIMALLOC: u8 = 2;
const COUNT: u8 = 3;

static CHOICE: AtomicU8 = AtomicU8::new(UNKNOWN);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Switch = Switch;

struct Switch;

/// Returns the allocations so far, reallocations included; zero unless the process counts.
pub fn heap_allocations() -> u64 {
    ALLOCATIONS.load(Ordering::Relaxed)
}

/// Puts the heap into the state of a program that has run for a while. There are holes of many
/// sizes in it, and one large block was freed: since then glibc keeps what is freed at the end of
/// the heap, and does not give it back to the kernel each time.
pub fn wear_in_heap() {
    let mut random = Random::new(43);
    let mut blocks: Vec<_> = (0..4000).map(|_| vec![0_u8; 64 + random.below(8000)]).collect();
    random.thin_out(&mut blocks, 2000);
    std::mem::forget(blocks);
    drop(vec![0_u8; 16 << 20]);
}

macro_rules! forward {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?, adds $adds:literal;)*) => {$(
        #[inline]
        unsafe fn $name(&self, $($argument: $type),*) $(-> $result)? {
            match CHOICE.load(Ordering::Relaxed) {
                // SAFETY: the caller's duties are passed on.
                GLIBC => unsafe { System.$name($($argument),*) },
                // SAFETY: as above.
                MIMALLOC => unsafe { MiMalloc.$name($($argument),*) },
                UNKNOWN => {
                    choose();
                    // SAFETY: as above.
                    unsafe { self.$name($($argument),*) }
                }
                _ => {
                    ALLOCATIONS.fetch_add($adds, Ordering::Relaxed);
                    // SAFETY: as above.
                    unsafe { System.$name($($argument),*) }
                }
            }
        }
    )*};
}

// SAFETY: each call goes on unchanged to one allocator that keeps the contract, always the same for
// one block (see the head of this file).
unsafe impl GlobalAlloc for Switch {
    forward! {
        alloc(layout: Layout) -> *mut u8, adds 1;
        alloc_zeroed(layout: Layout) -> *mut u8, adds 1;
        realloc(block: *mut u8, layout: Layout, size: usize) -> *mut u8, adds 1;
        dealloc(block: *mut u8, layout: Layout), adds 0;
    }
}

/// Reads the environment, at the first allocation of Rust code.
#[cold]
fn choose() {
    // SAFETY: the string ends in a zero; no other thread exists yet that could change the
    // environment.
    let value = unsafe { libc::getenv(c"URING_ARENA_PEERS_ALLOCATOR".as_ptr()) };
    let choice = if value.is_null() {
        GLIBC
    } else {
        // SAFETY: getenv gave a string that ends in a zero and stays in place.
        match unsafe { std::ffi::CStr::from_ptr(value) }.to_bytes() {
            b"mimalloc" => MIMALLOC,
            b"count" => COUNT,
            _ => GLIBC,
        }
    };
    CHOICE.store(choice, Ordering::Relaxed);
}
