//! What a completion is recognised by.
//!
//! ```text
//!  63      56 55                32 31                 0
//! ┌──────────┬────────────────────┬────────────────────┐
//! │ kind     │ generation (24)    │ place in the table │
//! └──────────┴────────────────────┴────────────────────┘
//! ```
//!
//! A completion that comes late, or was not ours at all, names a place whose kind or generation differs.

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
    /// The poll of the descriptor that freed slots raise. Has no place in the table: it refers to no memory.
    Wake = 14,
    /// A cancellation. Has no place in the table either; its key is that of its target.
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

/// Place and generation: one operation, and no other one for the next 16 million in that place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) place: u32,
    pub(super) generation: Generation,
}

impl Key {
    /// What an operation without a place is keyed by.
    pub(super) const NO_PLACE: Key = Key { place: u32::MAX, generation: Generation(0) };

    #[inline]
    pub(super) fn pack(self, kind: Kind) -> u64 {
        (kind as u64) << KIND_SHIFT | u64::from(self.generation.0) << 32 | u64::from(self.place)
    }

    /// The key in `user_data`, and the number of its kind.
    #[inline]
    pub(super) fn unpack(user_data: u64) -> (Key, u8) {
        let generation = Generation((user_data >> 32) as u32 & GENERATION_MAX);
        (Key { place: user_data as u32, generation }, (user_data >> KIND_SHIFT) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_as_it_was_packed() {
        let key = Key { place: u32::MAX, generation: Generation(GENERATION_MAX) };
        assert_eq!(Key::unpack(key.pack(Kind::Cancel)), (key, Kind::Cancel as u8));
        let key = Key { place: 7, generation: Generation(0) };
        assert_eq!(Key::unpack(key.pack(Kind::Receive)), (key, Kind::Receive as u8));
    }

    #[test]
    fn generations_wrap_within_their_bits() {
        assert_eq!(Generation(GENERATION_MAX).next(), Generation(0));
    }
}
