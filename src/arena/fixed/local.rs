//! The local arena: claims of one thread, without locked instructions.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};

use super::arena::FixedArena;
use crate::arena::builder::AllocError;
use crate::buffer::Buffer;
use crate::lease::{BATCH_MAX, Place, SlotBatch};

/// A batch of up to 32 slots of a [`FixedArena`] that one thread claims from.
///
/// A claim and a free on this thread are plain loads and stores, and cost less than half of those
/// of the arena. A buffer, and what it freezes into, may still go to other threads. A free there is
/// one atomic, as ever, and the slot comes back to this batch.
///
/// **What that costs.** The slots of the batch are claimed as far as the arena is concerned, idle
/// or not:
///
/// * N slots serve N claims only to those who count: other threads are refused, and wait, while
///   idle slots are here. [`counts`](Self::counts) tells how many.
/// * A slot that is freed goes to this batch, and not to a waiter of the arena.
/// * [`give_back`](Self::give_back) frees the idle slots, and so does the drop. From then on slots
///   that are in use are the arena's when they are freed, wherever that is.
/// * The metrics of the arena count a claim for each slot when the batch takes it.
///
/// The type is neither `Send` nor `Sync`: one batch for each thread that needs it.
///
/// ```
/// use bytes::BufMut;
/// use uring_arena::{FixedArena, LocalArena};
///
/// let arena = FixedArena::new(64, 4096)?;
/// let local = LocalArena::new(&arena, 32);
/// let mut buffer = local.allocate()?;
/// buffer.put_slice(b"hello");
/// let bytes = buffer.freeze();
/// assert_eq!(local.counts(), (32, 31));
/// // A free on another thread comes back to the batch as well.
/// std::thread::spawn(move || drop(bytes)).join().unwrap();
/// assert_eq!(local.counts(), (32, 32));
/// drop(local);
/// assert_eq!(arena.slot_states().free, 64);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct LocalArena {
    batch: SlotBatch,
    /// The number of slots that the batch was asked for.
    slots: usize,
    arena: FixedArena,
}

impl LocalArena {
    /// Claims up to `slots` slots of an arena, 32 at most, for this thread to claim from.
    ///
    /// There may be less, if the arena has no more. The example of [`LocalArena`] shows it.
    #[cfg_attr(feature = "holders", track_caller)]
    pub fn new(arena: &FixedArena, slots: usize) -> LocalArena {
        let slots = slots.min(BATCH_MAX);
        let local = LocalArena { batch: SlotBatch::new(), slots, arena: arena.clone() };
        local.refill_for(Place::here());
        local
    }

    /// Claims a slot of the batch; if none is idle, one of the arena, as
    /// [`FixedArena::allocate`] does.
    ///
    /// # Errors
    ///
    /// [`AllocError::ArenaFull`] if no slot of the batch was idle, and after that at some instant
    /// none of the arena was free.
    ///
    /// ```
    /// use uring_arena::{AllocError, FixedArena, LocalArena};
    ///
    /// let arena = FixedArena::new(2, 64)?;
    /// let local = LocalArena::new(&arena, 1);
    /// let buffers = [local.allocate()?, local.allocate()?];
    /// assert_eq!(local.allocate().unwrap_err(), AllocError::ArenaFull);
    /// drop(buffers);
    /// assert_eq!((local.counts(), arena.slot_states().free), ((1, 1), 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)] // as `FixedArena::allocate`
    #[cfg_attr(feature = "holders", track_caller)]
    pub fn allocate(&self) -> Result<Buffer, AllocError> {
        match self.batch.claim(self.arena.handle(), Place::here()) {
            Some((lease, start)) => Ok(Buffer::new(lease, start, self.arena.handle().slot_bytes)),
            None => self.allocate_elsewhere(),
        }
    }

    #[cold]
    #[cfg_attr(feature = "holders", track_caller)]
    fn allocate_elsewhere(&self) -> Result<Buffer, AllocError> {
        self.arena.allocate()
    }

    /// Returns the number of slots of the batch, and of the idle ones among them.
    ///
    /// Both are exact while no other thread frees a slot of the batch.
    ///
    /// The example of [`LocalArena`] shows it.
    pub fn counts(&self) -> (usize, usize) {
        self.batch.counts()
    }

    /// Frees the idle slots: they are the arena's, and go to those who wait. Returns their number.
    ///
    /// ```
    /// let arena = uring_arena::FixedArena::new(8, 64)?;
    /// let local = uring_arena::LocalArena::new(&arena, 8);
    /// let buffer = local.allocate()?;
    /// assert_eq!((local.give_back(), arena.slot_states().free), (7, 7));
    /// drop(buffer);
    /// assert_eq!((local.counts(), local.refill()), ((1, 1), 7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn give_back(&self) -> usize {
        self.batch.give_back()
    }

    /// Claims slots of the arena until the batch has as many as it was asked for, or the arena has
    /// no more. Returns the number of new ones.
    ///
    /// The example of [`give_back`](Self::give_back) shows it.
    #[cfg_attr(feature = "holders", track_caller)]
    pub fn refill(&self) -> usize {
        self.refill_for(Place::here())
    }

    fn refill_for(&self, place: Place) -> usize {
        self.batch.refill(self.arena.handle(), self.slots, place)
    }

    /// Returns the arena that the slots are of.
    ///
    /// ```
    /// let arena = uring_arena::FixedArena::new(8, 64)?;
    /// let local = uring_arena::LocalArena::new(&arena, 4);
    /// assert_eq!(local.arena().slot_count(), 8);
    /// # Ok::<(), uring_arena::BuildError>(())
    /// ```
    pub fn arena(&self) -> &FixedArena {
        &self.arena
    }
}

// What a panic may leave is whole: a free may run foreign code, and takes the slot out first.
impl UnwindSafe for LocalArena {}
impl RefUnwindSafe for LocalArena {}

impl fmt::Debug for LocalArena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (slots, idle) = self.counts();
        f.debug_struct("LocalArena").field("slots", &slots).field("idle", &idle).finish()
    }
}
