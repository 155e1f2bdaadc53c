//! Our own buddy mode, with the same settings as the peer's.

use std::num::NonZeroUsize;

use uring_arena::{BuddyArena, BuddyGeometry, Buffer, PageSize};

use crate::report::OURS;

use super::memory::Memory;

#[derive(Clone)]
pub struct Ours(BuddyArena);

impl Memory for Ours {
    type Block = Buffer;

    const NAME: &'static str = OURS;

    fn new(total: usize, smallest: usize) -> Self {
        let nz = |number| NonZeroUsize::new(number).expect("sizes here are above zero");
        let geometry = BuddyGeometry::exact(nz(total), nz(smallest)).expect("powers of two");
        let built = BuddyArena::builder(geometry).page_size(PageSize::Unknown).build();
        Self(built.expect("the arena builds"))
    }

    #[inline(always)]
    fn claim(&self, bytes: usize) -> Option<Buffer> {
        self.0.allocate(NonZeroUsize::new(bytes)?).ok()
    }
}
