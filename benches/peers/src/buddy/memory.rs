//! The work that every contender does, and the peers.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use bytes::BytesMut;

/// Something that hands out blocks by length. A clone is a thread's handle on the same memory.
pub trait Memory: Clone + Send + Sync + 'static {
    type Block: Send + 'static;

    const NAME: &'static str;
    const NOTE: &'static str = "";
    /// It has an end, and so a largest free block.
    const BOUNDED: bool = true;

    fn new(total: usize, smallest: usize) -> Self;
    fn claim(&self, bytes: usize) -> Option<Self::Block>;
}

fn nz(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("sizes here are above zero")
}

/// arena-alligator 0.7.
#[derive(Clone)]
pub struct Alligator(arena_alligator::BuddyArena);

impl Memory for Alligator {
    type Block = arena_alligator::Buffer;

    const NAME: &'static str = "arena-alligator 0.7";
    const NOTE: &'static str = "asked again when it refuses what would fit";

    fn new(total: usize, smallest: usize) -> Self {
        use arena_alligator::{BuddyArena, BuddyGeometry, PageSize};
        let geometry = BuddyGeometry::exact(nz(total), nz(smallest)).expect("powers of two");
        // No byte of a block is touched here: prefault would only take time.
        let built = BuddyArena::builder(geometry).page_size(PageSize::Unknown).build();
        Self(built.expect("the peer's arena builds"))
    }

    #[inline(always)]
    fn claim(&self, bytes: usize) -> Option<Self::Block> {
        self.0.allocate(nz(bytes)).ok()
    }
}

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

/// Offsets only: what a program builds when it wants blocks of any length from a region of its own.
#[derive(Clone)]
pub struct Offsets(Arc<Shared>);

pub struct Shared {
    offsets: Mutex<offset_allocator::Allocator<u32>>,
    smallest: usize,
}

pub struct OffsetBlock {
    home: Arc<Shared>,
    allocation: offset_allocator::Allocation<u32>,
}

impl Drop for OffsetBlock {
    #[inline(always)]
    fn drop(&mut self) {
        self.home.offsets.lock().expect("not poisoned").free(self.allocation);
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
        Some(OffsetBlock { home: self.0.clone(), allocation })
    }
}
