//! What a completion is recognised by.
//!
//! ```text
//!  63      56 55                32 31                 0
//! ┌──────────┬────────────────────┬────────────────────┐
//! │ kind     │ generation (24)    │ place in the table │
//! └──────────┴────────────────────┴────────────────────┘
//! ```
//!
//! A completion that comes late, or was not ours at all, names a place whose kind or generation
//! differs.

const GENERATION_BITS: u32 = 24;
const GENERATION_MAX: u32 = (1 << GENERATION_BITS) - 1;
const KIND_SHIFT: u32 = 32 + GENERATION_BITS;

/// What an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Receive = 1,
    Accept = 2,
    /// A read, a write or a send.
    Transfer = 3,
    /// The poll of the descriptor that freed slots raise. Has no place in the table: it refers to
    /// no memory.
    Wake = 14,
    /// A cancellation. Has no place in the table either; the rest of its key is that of its target.
    Cancel = 15,
}

/// How often a place has been given out, as far as it fits in a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Generation(u32);

impl Generation {
    pub(super) fn next(self) -> Generation {
        Generation(self.0.wrapping_add(1) & GENERATION_MAX)
    }
}

/// One operation, and no other one for the next 16 million in its place: what a completion carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key(u64);

impl Key {
    /// What the poll of the alarm is recognised by. It has no place.
    pub(super) const WAKE: Key = Key((Kind::Wake as u64) << KIND_SHIFT | u32::MAX as u64);

    #[inline]
    pub(super) fn new(kind: Kind, generation: Generation, place: u32) -> Key {
        Key((kind as u64) << KIND_SHIFT | u64::from(generation.0) << 32 | u64::from(place))
    }

    /// What a completion carries, which need not be a key of ours.
    #[inline]
    pub(super) fn of(user_data: u64) -> Key {
        Key(user_data)
    }

    #[inline]
    pub(super) fn user_data(self) -> u64 {
        self.0
    }

    /// What the cancellation of this operation is recognised by.
    pub(super) fn of_cancel(self) -> Key {
        let rest = (1 << KIND_SHIFT) - 1;
        Key((Kind::Cancel as u64) << KIND_SHIFT | self.0 & rest)
    }

    pub(super) fn is_of_cancel(self) -> bool {
        self.0 >> KIND_SHIFT == Kind::Cancel as u64
    }

    #[inline]
    pub(super) fn place(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    pub(super) fn mark(self) -> Mark {
        Mark((self.0 >> 32) as u32)
    }
}

/// Kind and generation: all of a key but its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(u32);

impl Mark {
    /// Of no operation: no kind has the number 0.
    pub(super) const NONE: Mark = Mark(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_carries_its_place_and_differs_by_kind_and_generation() {
        let generation = Generation(GENERATION_MAX);
        let key = Key::new(Kind::Receive, generation, u32::MAX);
        assert_eq!((key.place(), Key::of(key.user_data())), (u32::MAX, key));
        assert_ne!(key.mark(), Key::new(Kind::Accept, generation, u32::MAX).mark());
        assert_ne!(key.mark(), Key::new(Kind::Receive, generation.next(), u32::MAX).mark());
        assert_ne!(key.mark(), Mark::NONE);
    }

    #[test]
    fn a_cancellation_is_told_from_its_target() {
        let key = Key::new(Kind::Transfer, Generation(7), 3);
        assert!(key.of_cancel().is_of_cancel() && !key.is_of_cancel());
        assert_eq!(key.of_cancel().place(), key.place());
    }

    #[test]
    fn generations_wrap_within_their_bits() {
        assert_eq!(Generation(GENERATION_MAX).next(), Generation(0));
    }
}
