//! The error of a claim that could not be served.

/// The reason why an arena refused a claim.
///
/// The variants carry no numbers: a refusal is often expected, and costs no more than the search.
/// [`FixedArena::slot_states`](crate::FixedArena::slot_states) and
/// [`BuddyArena::slot_states`](crate::BuddyArena::slot_states) count the slots by state.
///
/// ```
/// use uring_arena::{AllocError, FixedArena};
///
/// let arena = FixedArena::new(1, 4096)?;
/// let held = arena.allocate()?;
/// assert_eq!(arena.allocate().unwrap_err(), AllocError::ArenaFull);
/// let states = arena.slot_states();
/// assert_eq!((states.held, states.total()), (1, 1));
/// # drop(held);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
// As wide as the word of a `Buffer` whose place it takes in a `Result`. A narrower type makes the
// compiler move that word in pieces.
#[repr(usize)]
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocError {
    /// Every slot, or every block that is large enough, is in use now. A later claim may be served.
    #[error(
        "arena is full: every slot or block that fits is in use (`slot_states` counts them); drop buffers, wait for one (`allocate_timeout`, `allocate_async`), or build a larger arena"
    )]
    ArenaFull,
    /// The arena could not serve this length even if it were empty.
    #[error(
        "request is larger than the arena can ever serve: ask for at most `total_size` bytes, or build a larger arena"
    )]
    RequestTooLarge,
}

debug_is_display!(AllocError);
