//! The ids that a driver gives out.

use super::DriverError;
use crate::slab::Key;
use std::fmt;

/// Defines an id: the driver that gave it out, and the key in one of the driver's tables.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $reuse:literal) => {
        $(#[$doc])*
        ///
        /// An id names one thing for ever. A driver refuses the id of another driver
        /// ([`DriverError::OtherDriver`](crate::DriverError::OtherDriver)), and an id whose thing
        /// is gone names nothing any more.
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name {
            driver: u32,
            key: Key,
        }

        impl $name {
            #[inline]
            pub(super) fn new(driver: u32, key: Key) -> $name {
                $name { driver, key }
            }

            #[doc = concat!("Returns a small number that no other ", $what, " of the driver has.")]
            ///
            /// The number is for a table of the program's own, indexed by it. It stays below the
            #[doc = concat!("most ", $what, "s there ever were at a time, and is given out again ", $reuse, ".")]
            #[inline]
            pub fn index(self) -> usize {
                self.key.index() as usize
            }

            /// Returns the key in the tables of `driver`, or an error if another driver gave the id
            /// out.
            #[inline]
            pub(super) fn key_in(self, driver: u32) -> Result<Key, DriverError> {
                if self.driver == driver {
                    return Ok(self.key);
                }
                Err(DriverError::OtherDriver { what: $what, of: self.driver, to: driver })
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let name = stringify!($name);
                write!(f, "{name}({} of driver {})", self.key.index(), self.driver)
            }
        }
    };
}

id! {
    /// A buffer ring that a [`Driver`](crate::Driver) has registered.
    BufferRingId, "buffer ring", "after the ring is unregistered"
}

id! {
    /// A socket, a pipe or a listener of a [`Driver`](crate::Driver).
    SocketId, "socket", "after [`Event::Closed`](crate::Event::Closed)"
}

id! {
    /// An operation of a [`Driver`](crate::Driver): a read, write or send, a sync, an entry of the
    /// program's.
    OperationId, "operation", "after the operation's event"
}

id! {
    /// An arena that a [`Driver`](crate::Driver) has registered.
    ArenaId, "arena", "after the arena is unregistered"
}

id! {
    /// A file or socket of a [`Driver`](crate::Driver), for reading, writing and sending.
    FileId, "file", "after the file is closed, and after its [`Event::FileClosed`](crate::Event::FileClosed)"
}

id! {
    /// A timer of a [`Driver`](crate::Driver).
    TimerId, "timer", "after the timer's end"
}

/// An id of a socket or file: what is sent on.
///
/// The trait is sealed: [`SocketId`] and [`FileId`] are all its implementations.
///
/// ```
/// use uring_arena::{Driver, SendOn};
///
/// fn greet<T: SendOn>(driver: &mut Driver, to: T) -> std::io::Result<()> {
///     driver.send(to, bytes::Bytes::from_static(b"hello"))?;
///     Ok(())
/// }
/// # let _ = greet::<uring_arena::FileId>;
/// ```
pub trait SendOn: sealed::Any + Copy {}

impl SendOn for SocketId {}
impl SendOn for FileId {}

/// An id of a thing that events are of, and that has a token.
///
/// The trait is sealed: [`SocketId`], [`FileId`] and [`OperationId`] are all its implementations.
///
/// ```
/// use uring_arena::{Driver, DriverError, HasToken};
///
/// fn number<T: HasToken>(driver: &mut Driver, ids: &[T]) -> Result<(), DriverError> {
///     ids.iter().zip(0..).try_for_each(|(&id, number)| driver.set_token(id, number))
/// }
/// # let _ = number::<uring_arena::OperationId>;
/// ```
pub trait HasToken: sealed::Any + Copy {}

impl HasToken for SocketId {}
impl HasToken for FileId {}
impl HasToken for OperationId {}

/// An id of any of these kinds.
#[derive(Debug, Clone, Copy)]
pub enum AnyId {
    Socket(SocketId),
    File(FileId),
    Operation(OperationId),
}

mod sealed {
    use super::AnyId;

    pub trait Any {
        /// Returns the id with its kind.
        #[doc(hidden)]
        fn any(self) -> AnyId;
    }
}

impl sealed::Any for SocketId {
    fn any(self) -> AnyId {
        AnyId::Socket(self)
    }
}

impl sealed::Any for FileId {
    fn any(self) -> AnyId {
        AnyId::File(self)
    }
}

impl sealed::Any for OperationId {
    fn any(self) -> AnyId {
        AnyId::Operation(self)
    }
}

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
    Timer = 13,
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
    /// The timer after which sockets that backed off try again.
    Retry,
    /// A timer after which the rings are looked at: the short one, or the long one.
    LookSoon,
    LookLater,
    /// The timer after which deadlines are looked at.
    Deadlines,
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

    /// The timer after which sockets that backed off try again.
    pub(super) const RETRY: Tag = Tag((Kind::Timer as u64) << KIND_SHIFT);
    /// The short timer after which the rings are looked at.
    pub(super) const LOOK_SOON: Tag = Tag(Tag::RETRY.0 + 1);
    /// The long one.
    pub(super) const LOOK_LATER: Tag = Tag(Tag::RETRY.0 + 2);

    /// The timer after which deadlines are looked at.
    pub(super) const DEADLINES: Tag = Tag(Tag::RETRY.0 + 3);

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
            kind if kind == Kind::Timer as u32 => match key.index() {
                0 => Target::Retry,
                1 => Target::LookSoon,
                2 => Target::LookLater,
                _ => Target::Deadlines,
            },
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
        assert_eq!(Tag::RETRY.target(), Target::Retry);
        assert_eq!(Tag::LOOK_SOON.target(), Target::LookSoon);
        assert_eq!(Tag::LOOK_LATER.target(), Target::LookLater);
        assert_eq!(Tag::DEADLINES.target(), Target::Deadlines);
        assert_eq!(Tag::from_user_data(2 << KIND_SHIFT).target(), Target::Unknown);
    }

    #[test]
    fn only_a_sockets_tag_is_a_key_below_the_limit() {
        let key = Key::from_parts(7, 1);
        assert_eq!(Tag::socket(key).socket_key(), key);
        for other in [Tag::transfer(key), Tag::socket(key).cancel(), Tag::WAKEUP, Tag::RETRY] {
            assert!(other.socket_key().index() as usize >= Tag::INDICES);
        }
    }
}
