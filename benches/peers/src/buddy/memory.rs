//! The memory that every contender hands out: ours, and the peers.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use bytes::BytesMut;

use crate::report::OURS;

/// A memory that hands out blocks by length. A clone is a thread's handle on the same memory.
pub trait Memory: Clone + Send + Sync + 'static {
    type Block: Send + 'static;

    const NAME: &'static str;
    const NOTE: &'static str = "";
    /// The memory has an end, and so a largest free block.
    const BOUNDED: bool = true;

    fn new(total: usize, smallest: usize) -> Self;
    fn claim(&self, bytes: usize) -> Option<Self::Block>;
}

/// The two arenas are built and used by the same words.
macro_rules! arena_memory {
    ($memory:ident, $crate_name:ident, $name:expr, $note:literal) => {
        #[derive(Clone)]
        pub struct $memory($crate_name::BuddyArena);

        impl Memory for $memory {
            type Block = $crate_name::Buffer;

            const NAME: &'static str = $name;
            const NOTE: &'static str = $note;

            fn new(total: usize, smallest: usize) -> Self {
                use $crate_name::{BuddyArena, BuddyGeometry, PageSize};
                let nz = |number| NonZeroUsize::new(number).expect("sizes here are above zero");
                let geometry = BuddyGeometry::exact(nz(total), nz(smallest));
                let builder = BuddyArena::builder(geometry.expect("powers of two"));
                // No byte of a block is touched here: prefault would only take time.
                let built = builder.page_size(PageSize::Unknown).build();
                Self(built.expect("the arena builds"))
            }

            #[inline(always)]
            fn claim(&self, bytes: usize) -> Option<Self::Block> {
                self.0.allocate(NonZeroUsize::new(bytes)?).ok()
            }
        }
    };
}

arena_memory!(Ours, uring_arena, OURS, "");
arena_memory!(
    Alligator,
    arena_alligator,
    "arena-alligator 0.7",
    "asked again when it refuses what would fit"
);

/// The plain way: the process's allocator.
#[derive(Clone)]
pub struct Heap;

impl Memory for Heap {
    type Block = BytesMut;

    const NAME: &'static str = "BytesMut, glibc";
    const NOTE: &'static str = "no limit";
    const BOUNDED: bool = false;

    fn new(_: usize, _: usize) -> Self {
        Self
    }

    #[inline(always)]
    fn claim(&self, bytes: usize) -> Option<BytesMut> {
        Some(BytesMut::with_capacity(bytes))
    }
}

/// An allocator of offsets only, as programs use them for blocks of any length from a region of
/// their own.
#[derive(Clone)]
pub struct Offsets(Arc<Shared>);

pub struct Shared {
    offsets: Mutex<offset_allocator::Allocator<u32>>,
    smallest: usize,
}

pub struct OffsetBlock {
    shared: Arc<Shared>,
    allocation: offset_allocator::Allocation<u32>,
}

impl Drop for OffsetBlock {
    #[inline(always)]
    fn drop(&mut self) {
        self.shared.offsets.lock().expect("not poisoned").free(self.allocation);
    }
}

impl Memory for Offsets {
    type Block = OffsetBlock;

    const NAME: &'static str = "offset-allocator";
    const NOTE: &'static str = "behind a mutex";

    fn new(total: usize, smallest: usize) -> Self {
        let units = (total / smallest) as u32;
        let offsets = offset_allocator::Allocator::with_max_allocs(units, units.min(1 << 20));
        Self(Arc::new(Shared { offsets: Mutex::new(offsets), smallest }))
    }

    #[inline(always)]
    fn claim(&self, bytes: usize) -> Option<OffsetBlock> {
        let units = bytes.div_ceil(self.0.smallest) as u32;
        let allocation = self.0.offsets.lock().expect("not poisoned").allocate(units)?;
        Some(OffsetBlock { shared: self.0.clone(), allocation })
    }
}
