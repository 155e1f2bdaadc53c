//! The ids that a driver gives out.

use std::fmt;

use super::DriverError;
use crate::slab::Key;

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
    /// A read, write or send of a [`Driver`](crate::Driver).
    OperationId, "operation", "after the operation's event"
}

id! {
    /// An arena that a [`Driver`](crate::Driver) has registered.
    ArenaId, "arena", "after the arena is unregistered"
}

id! {
    /// A file or socket of a [`Driver`](crate::Driver), for reading, writing and sending.
    FileId, "file", "after the file is closed and its operations are over"
}
