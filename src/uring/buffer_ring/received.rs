//! The result of a completion of a receive: the bytes that came, and the status of the receive.

use std::fmt;
use std::vec;

use bytes::Bytes;
use io_uring::cqueue;

use crate::buffer::ArenaBytes;

/// The result of one completion of a receive: an iterator over its messages, and a [`Status`].
///
/// Most completions bring one item; a bundle brings one for each slot that it filled. The result
/// owns its items and does not borrow the ring. An item that is not taken is dropped, and its slot
/// is free again.
///
/// ```no_run
/// use uring_arena::{ArenaBytes, BufferRing, Status};
///
/// # fn on_completion(ring: &mut BufferRing, completion: &io_uring::cqueue::Entry) {
/// // SAFETY: a completion of a receive of this ring, handed in once.
/// let mut received = unsafe { ring.complete::<ArenaBytes>(completion) };
/// match (received.next(), received.status()) {
///     (Some(bytes), _) => println!("{} bytes, {} slots ready", bytes.len(), ring.refill()),
///     (None, Status::Starved) => println!("no slot was ready; now {}", ring.refill()),
///     (None, status) => println!("{status}"),
/// }
/// # }
/// ```
#[derive(Debug)]
#[must_use = "bytes that are not taken are dropped"]
pub struct Received<T = ArenaBytes> {
    first: Option<T>,
    rest: vec::IntoIter<T>,
    status: Status,
}

impl<T> Received<T> {
    #[inline]
    pub(super) fn new(first: Option<T>, rest: Vec<T>, status: Status) -> Received<T> {
        Received { first, rest: rest.into_iter(), status }
    }

    /// Returns the status of the receive after this completion.
    ///
    /// The example of [`Received`] shows it.
    pub fn status(&self) -> Status {
        self.status
    }
}

impl<T> Iterator for Received<T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        self.first.take().or_else(|| self.rest.next())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = usize::from(self.first.is_some()) + self.rest.len();
        (count, Some(count))
    }
}

impl<T> ExactSizeIterator for Received<T> {}

/// The status of a receive after one of its completions.
///
/// ```
/// use uring_arena::Status;
///
/// assert_eq!(Status::Starved.to_string(), "starved");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// The receive is still armed: more completions will come.
    Armed,
    /// The receive ended without an error, as a multishot may at any time: arm it again.
    Ended,
    /// The receive ended because no slot lay ready (`ENOBUFS`). Arm it again after slots have been
    /// freed and published: before that it would only end again.
    Starved,
    /// The peer has sent all that it will.
    Finished,
    /// The receive was cancelled on request.
    Cancelled,
    /// The receive failed.
    Failed {
        /// The error number.
        errno: i32,
    },
}

impl Status {
    #[inline]
    pub(super) fn new(result: i32, flags: u32) -> Status {
        match result {
            // Even without a buffer: an old kernel announces a retry in this way.
            _ if cqueue::more(flags) => Status::Armed,
            1.. => Status::Ended,
            0 => Status::Finished,
            _ => Status::from_errno(-result),
        }
    }

    #[cold]
    fn from_errno(errno: i32) -> Status {
        match errno {
            libc::ENOBUFS => Status::Starved,
            libc::ECANCELED => Status::Cancelled,
            // The kernel maps its restarts to EINTR.
            libc::EINTR => Status::Ended,
            errno => Status::Failed { errno },
        }
    }
}

/// Writes the status as one word; of a failure, the text of the error as well.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Armed => "armed",
            Status::Ended => "ended",
            Status::Starved => "starved",
            Status::Finished => "finished",
            Status::Cancelled => "cancelled",
            Status::Failed { errno } => {
                return write!(f, "failed: {}", std::io::Error::from_raw_os_error(*errno));
            }
        })
    }
}

/// A form in which received bytes are handed out: [`Bytes`], which every library takes, or
/// [`ArenaBytes`], which allocates nothing.
///
/// The trait is sealed: these two are all its implementations.
pub trait FromSlot: sealed::Sealed + Sized {
    /// Takes the bytes in the slot that they arrived in.
    #[doc(hidden)]
    fn in_slot(bytes: ArenaBytes) -> Self;

    /// Copies the bytes to the heap, so that the slot is free at once.
    #[doc(hidden)]
    fn copied(bytes: &[u8]) -> Self;
}

impl FromSlot for Bytes {
    #[inline]
    fn in_slot(bytes: ArenaBytes) -> Bytes {
        bytes.into()
    }

    fn copied(bytes: &[u8]) -> Bytes {
        Bytes::copy_from_slice(bytes)
    }
}

impl FromSlot for ArenaBytes {
    #[inline]
    fn in_slot(bytes: ArenaBytes) -> ArenaBytes {
        bytes
    }

    fn copied(bytes: &[u8]) -> ArenaBytes {
        ArenaBytes::from_vector(bytes.to_vec(), 0)
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for bytes::Bytes {}
    impl Sealed for crate::buffer::ArenaBytes {}
}
