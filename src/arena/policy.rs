//! What an arena promises about the bytes that a new owner finds.

/// What a new owner finds in a slot.
///
/// ```
/// use std::num::NonZeroUsize;
/// use uring_arena::{FixedArena, InitPolicy};
///
/// let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(64).unwrap());
/// let arena = FixedArena::with_slot_capacity(count, bytes).init_policy(InitPolicy::Zero).build()?;
/// # drop(arena);
/// # Ok::<(), uring_arena::BuildError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InitPolicy {
    /// Whatever an earlier owner, or nobody, left there. No safe call shows it: reading is limited
    /// to what was written.
    #[default]
    Uninit,
    /// Zeros: what an owner may have written is scrubbed when the slot is freed, in a way that the
    /// optimiser cannot leave out, and memory that the caller brought is zeroed before its first
    /// use.
    Zero,
}
