//! The `user_data` of a driver's entries, which their completions bring back.
//!
//! ```text
//!  63                32 31  28 27                0
//! ┌────────────────────┬──────┬──────────────────┐
//! │ generation         │ kind │ index            │
//! └────────────────────┴──────┴──────────────────┘
//! ```
//!
//! Index and generation are a key of the kind's table. A completion that comes late, or is of no
//! entry of the driver, carries a key that names nothing.

use crate::slab::Key;

const KIND_SHIFT: u32 = 28;
const GENERATION_SHIFT: u32 = 32;

/// A kind of entry.
//
// A socket's is zero, so that its tag is its key: of any other tag the same bits are an index
// beyond every table.
#[repr(u32)]
enum Kind {
    Socket = 0,
    Transfer = 1,
    Wakeup = 14,
    Cancel = 15,
}

/// The `user_data` of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag(u64);

/// The owner of a completion.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    Socket(Key),
    Transfer(Key),
    Wakeup,
    /// The answer to a request to cancel: the operation's own completion says what became of it.
    Cancel,
    Unknown,
}

impl Tag {
    /// The most entries of a table whose keys fit in a tag.
    pub(super) const INDICES: usize = 1 << KIND_SHIFT;

    /// The poll of the wakeup's descriptor. The entry is in no table, because it refers to no
    /// memory.
    pub(super) const WAKEUP: Tag = Tag((Kind::Wakeup as u64) << KIND_SHIFT);

    fn new(kind: Kind, key: Key) -> Tag {
        let low = (kind as u32) << KIND_SHIFT | key.index();
        Tag(u64::from(key.generation()) << GENERATION_SHIFT | u64::from(low))
    }

    pub(super) fn socket(key: Key) -> Tag {
        Tag::new(Kind::Socket, key)
    }

    pub(super) fn transfer(key: Key) -> Tag {
        Tag::new(Kind::Transfer, key)
    }

    /// Returns the tag of a request to cancel this entry.
    pub(super) fn cancel(self) -> Tag {
        Tag(self.0 | (Kind::Cancel as u64) << KIND_SHIFT)
    }

    #[inline]
    pub(super) fn from_user_data(user_data: u64) -> Tag {
        Tag(user_data)
    }

    #[inline]
    pub(super) fn user_data(self) -> u64 {
        self.0
    }

    /// Returns the key of a socket's entry, and of any other a key that is in no table.
    #[inline]
    pub(super) fn socket_key(self) -> Key {
        Key::from_parts(self.0 as u32, (self.0 >> GENERATION_SHIFT) as u32)
    }

    pub(super) fn target(self) -> Target {
        let (low, generation) = (self.0 as u32, (self.0 >> GENERATION_SHIFT) as u32);
        let key = Key::from_parts(low & (Tag::INDICES as u32 - 1), generation);
        match low >> KIND_SHIFT {
            kind if kind == Kind::Socket as u32 => Target::Socket(key),
            kind if kind == Kind::Transfer as u32 => Target::Transfer(key),
            kind if kind == Kind::Wakeup as u32 => Target::Wakeup,
            kind if kind == Kind::Cancel as u32 => Target::Cancel,
            _ => Target::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_carries_kind_and_key() {
        let key = Key::from_parts(Tag::INDICES as u32 - 1, u32::MAX);
        let (socket, transfer) = (Tag::socket(key), Tag::transfer(key));
        assert_eq!(Tag::from_user_data(socket.user_data()), socket);
        assert_eq!(socket.target(), Target::Socket(key));
        assert_eq!(transfer.target(), Target::Transfer(key));
        assert_eq!(socket.cancel().target(), Target::Cancel);
        assert_eq!(transfer.cancel().target(), Target::Cancel);
        assert_eq!(Tag::WAKEUP.target(), Target::Wakeup);
        assert_eq!(Tag::from_user_data(2 << KIND_SHIFT).target(), Target::Unknown);
    }

    #[test]
    fn only_a_sockets_tag_is_a_key_below_the_limit() {
        let key = Key::from_parts(7, 1);
        assert_eq!(Tag::socket(key).socket_key(), key);
        for other in [Tag::transfer(key), Tag::socket(key).cancel(), Tag::WAKEUP] {
            assert!(other.socket_key().index() as usize >= Tag::INDICES);
        }
    }
}
