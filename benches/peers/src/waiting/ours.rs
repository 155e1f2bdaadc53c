//! Our own waiting arena.

use std::num::NonZeroUsize;
use std::time::Duration;

use uring_arena::{AsyncFixedArena, Buffer, FixedArena};

use crate::report::OURS;

use super::systems::Waitable;

#[derive(Clone)]
pub struct Ours(AsyncFixedArena);

impl Waitable for Ours {
    type Slot = Buffer;

    const NAME: &'static str = OURS;

    fn new(slots: usize) -> Self {
        let nz = |number| NonZeroUsize::new(number).expect("sizes here are above zero");
        let builder = FixedArena::with_slot_capacity(nz(slots), nz(4096)).alignment(4096);
        Self(builder.build_async().expect("the arena builds"))
    }

    #[inline(always)]
    fn wait(&self) -> impl Future<Output = Buffer> {
        self.0.allocate_async()
    }

    #[inline(always)]
    fn claim(&self) -> Option<Buffer> {
        self.0.allocate().ok()
    }
}

/// Our arena built without waiting: what it must not cost.
#[derive(Clone)]
pub struct OursPlain(FixedArena);

impl OursPlain {
    pub const NAME: &'static str = "uring-arena, built without waiting";

    pub fn new(slots: usize) -> Self {
        let nz = |number| NonZeroUsize::new(number).expect("sizes here are above zero");
        let builder = FixedArena::with_slot_capacity(nz(slots), nz(4096)).alignment(4096);
        Self(builder.build().expect("the arena builds"))
    }

    #[inline(always)]
    pub fn claim(&self) -> Option<Buffer> {
        self.0.allocate().ok()
    }

    /// Waits in line for a moment; whether there was a slot.
    pub fn wait_shortly(&self) -> bool {
        self.0.allocate_timeout(Duration::from_millis(1)).is_ok()
    }
}
