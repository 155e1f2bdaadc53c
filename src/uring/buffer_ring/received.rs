//! What becomes of a receive.

use io_uring::cqueue;

/// What a completion says about the receive that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// Still armed: more completions will come.
    Armed,
    /// Ended with nothing wrong, as a multishot may at any time: arm it again.
    Ended,
    /// Ended because no slot lay ready (`ENOBUFS`). Arm it again after slots have come back and
    /// were published: earlier, it would only end again.
    Starved,
    /// The peer has sent all that it will.
    Finished,
    /// Cancelled on request.
    Cancelled,
    /// Failed with this error number.
    Failed {
        /// The error number.
        errno: i32,
    },
}

impl Status {
    #[inline]
    pub(super) fn of(result: i32, flags: u32) -> Status {
        match result {
            // Without buffer too, it may be an old kernel's way of saying "again".
            _ if cqueue::more(flags) => Status::Armed,
            1.. => Status::Ended,
            0 => Status::Finished,
            _ => Status::of_error(-result),
        }
    }

    #[cold]
    fn of_error(errno: i32) -> Status {
        match errno {
            libc::ENOBUFS => Status::Starved,
            libc::ECANCELED => Status::Cancelled,
            // The kernel maps its restarts to EINTR.
            libc::EINTR => Status::Ended,
            errno => Status::Failed { errno },
        }
    }
}
