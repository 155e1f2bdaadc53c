//! The ways to wait for a slot.

use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ours::Ours;

fn nz(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("sizes here are above zero")
}

/// Bytes of a slot: never touched here.
const SLOT_BYTES: usize = 4096;

/// One line of the tables.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum System {
    Ours,
    Alligator,
    Semaphore,
}

impl System {
    pub const ALL: [Self; 3] = [Self::Ours, Self::Alligator, Self::Semaphore];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => Ours::NAME,
            Self::Alligator => Alligator::NAME,
            Self::Semaphore => Guarded::NAME,
        }
    }

    pub fn note(self) -> &'static str {
        match self {
            Self::Ours => Ours::NOTE,
            Self::Alligator => Alligator::NOTE,
            Self::Semaphore => Guarded::NOTE,
        }
    }

    pub fn key(self) -> String {
        format!("{self:?}")
    }

    pub fn parse(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|system| system.key() == key)
    }
}

/// An arena in which a task can wait.
pub trait Waitable: Clone + Send + Sync + 'static {
    type Slot: Send + 'static;

    const NAME: &'static str;
    const NOTE: &'static str = "";

    fn new(slots: usize) -> Self;
    fn wait(&self) -> impl Future<Output = Self::Slot>;
    /// Without waiting.
    fn claim(&self) -> Option<Self::Slot>;
}

/// arena-alligator's own, on tokio.
#[derive(Clone)]
pub struct Alligator(arena_alligator::AsyncFixedArena);

impl Waitable for Alligator {
    type Slot = arena_alligator::Buffer;

    const NAME: &'static str = "arena-alligator 0.7";

    fn new(slots: usize) -> Self {
        let builder = arena_alligator::FixedArena::with_slot_capacity(nz(slots), nz(SLOT_BYTES));
        Self(builder.alignment(4096).build_async().expect("the peer's arena builds"))
    }

    #[inline(always)]
    fn wait(&self) -> impl Future<Output = Self::Slot> {
        self.0.allocate_async()
    }

    #[inline(always)]
    fn claim(&self) -> Option<Self::Slot> {
        self.0.allocate().ok()
    }
}

/// A plain arena of ours behind tokio's semaphore: what a program does without help.
#[derive(Clone)]
pub struct Guarded {
    arena: uring_arena::FixedArena,
    permits: Arc<Semaphore>,
}

/// The slot is free before the permit is: fields are dropped in order.
pub struct GuardedSlot {
    _slot: uring_arena::Buffer,
    _permit: OwnedSemaphorePermit,
}

impl Waitable for Guarded {
    type Slot = GuardedSlot;

    const NAME: &'static str = "tokio Semaphore + plain arena";
    const NOTE: &'static str = "the arena is ours, without waiting";

    fn new(slots: usize) -> Self {
        let builder = uring_arena::FixedArena::with_slot_capacity(nz(slots), nz(SLOT_BYTES));
        let arena = builder.alignment(4096).build().expect("the arena builds");
        Self { arena, permits: Arc::new(Semaphore::new(slots)) }
    }

    #[inline(always)]
    async fn wait(&self) -> GuardedSlot {
        let permit = self.permits.clone().acquire_owned().await.expect("never closed");
        GuardedSlot { _slot: self.arena.allocate().expect("a permit is a slot"), _permit: permit }
    }

    #[inline(always)]
    fn claim(&self) -> Option<GuardedSlot> {
        let permit = self.permits.clone().try_acquire_owned().ok()?;
        Some(GuardedSlot { _slot: self.arena.allocate().ok()?, _permit: permit })
    }
}
