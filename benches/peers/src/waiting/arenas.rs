//! The ways to wait for a slot.

use std::iter::from_fn;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uring_arena::{Buffer, FixedArena};

use crate::report::OURS;

/// An arena in which a task can wait.
pub trait Waitable: Clone + Send + Sync + 'static {
    type Slot: Send + 'static;

    const NAME: &'static str;
    const NOTE: &'static str = "";
    /// The line shows what waiting must not cost a claim that does not wait.
    const ONLY_CLAIMS: bool = false;

    fn new(slots: usize) -> Self;
    fn wait(&self) -> impl Future<Output = Self::Slot>;
    /// Claims without waiting.
    fn claim(&self) -> Option<Self::Slot>;
}

/// The two arenas are built and used by the same words.
macro_rules! arena {
    ($arena:ident, $crate_name:ident, $name:expr) => {
        #[derive(Clone)]
        pub struct $arena($crate_name::AsyncFixedArena);

        impl Waitable for $arena {
            type Slot = $crate_name::Buffer;

            const NAME: &'static str = $name;

            fn new(slots: usize) -> Self {
                use $crate_name::FixedArena;
                let builder = FixedArena::with_slot_capacity(nz(slots), nz(4096)).alignment(4096);
                Self(builder.build_async().expect("the arena builds"))
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
    };
}

arena!(Ours, uring_arena, OURS);
arena!(Alligator, arena_alligator, "arena-alligator 0.7");

fn nz(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("sizes here are above zero")
}

fn plain(slots: usize) -> FixedArena {
    let builder = FixedArena::with_slot_capacity(nz(slots), nz(4096)).alignment(4096);
    builder.build().expect("the arena builds")
}

/// An arena of ours, built without waiting, or waited in by a thread that has left.
#[derive(Clone)]
pub struct Plain<const WAITED: bool>(FixedArena);

impl<const WAITED: bool> Waitable for Plain<WAITED> {
    type Slot = Buffer;

    const NAME: &'static str =
        if WAITED { "uring-arena, waited once" } else { "uring-arena, built without waiting" };
    const NOTE: &'static str = if WAITED { "a thread has waited before, and left" } else { "" };
    const ONLY_CLAIMS: bool = true;

    fn new(slots: usize) -> Self {
        let arena = plain(slots);
        if WAITED {
            let held: Vec<_> = from_fn(|| arena.allocate().ok()).collect();
            let waited = arena.allocate_timeout(Duration::from_millis(1));
            assert!(held.len() == slots && waited.is_err(), "no slot is free");
        }
        Self(arena)
    }

    async fn wait(&self) -> Buffer {
        unreachable!("this line only claims")
    }

    #[inline(always)]
    fn claim(&self) -> Option<Buffer> {
        self.0.allocate().ok()
    }
}

/// A plain arena of ours behind tokio's semaphore: what a program does without help.
#[derive(Clone)]
pub struct Guarded {
    arena: FixedArena,
    permits: Arc<Semaphore>,
}

/// A slot and its permit. Fields are dropped in order: the slot is free before the permit is.
pub struct GuardedSlot {
    _slot: Buffer,
    _permit: OwnedSemaphorePermit,
}

impl Waitable for Guarded {
    type Slot = GuardedSlot;

    const NAME: &'static str = "tokio Semaphore + plain arena";
    const NOTE: &'static str = "the arena is ours, without waiting";

    fn new(slots: usize) -> Self {
        Self { arena: plain(slots), permits: Arc::new(Semaphore::new(slots)) }
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
