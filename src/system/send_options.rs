//! The options of a send.

/// The options of a send.
///
/// ```
/// use uring_arena::SendOptions;
///
/// let always = SendOptions::new().zero_copy_from(1);
/// let never = SendOptions::new().zero_copy_from(usize::MAX);
/// # let _ = (always, never);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendOptions {
    zero_copy_from: usize,
    /// The flags of the call that are not of each.
    flags: i32,
}

/// The flag that announces more bytes, where the system has one.
#[cfg(target_os = "linux")]
const MORE: libc::c_int = libc::MSG_MORE;
#[cfg(not(target_os = "linux"))]
const MORE: libc::c_int = 0;

impl SendOptions {
    /// Returns the default options: zero-copy from [`ZERO_COPY_FROM`](Self::ZERO_COPY_FROM) bytes
    /// on.
    pub fn new() -> SendOptions {
        SendOptions { zero_copy_from: SendOptions::ZERO_COPY_FROM, flags: 0 }
    }

    /// The default threshold in bytes. A shorter zero-copy send costs more than the copy that it
    /// saves: the kernel counts pages and sends a notification. The memory stays in use until the
    /// peer has acknowledged the bytes.
    ///
    /// Measured (`benches/peers`, Linux 6.18) a zero-copy send costs 1.1 µs and 0.06 µs a KiB.
    /// Copying 10 to 20 KiB at 5 to 10 GB/s takes as long. **Loopback always copies**, so there a
    /// zero-copy send only costs: 1.12 times the processor time of an ordinary one at 4 KiB, 1.36
    /// times at 64 KiB. To send to the same machine, set the threshold to `usize::MAX`. The
    /// `copied` of [`Progress::Done`](crate::Progress::Done) says whether the kernel copied.
    pub const ZERO_COPY_FROM: usize = 16 << 10;

    /// Makes sends of this many bytes and more zero-copy, if kernel and registration allow it.
    ///
    /// ```
    /// use uring_arena::SendOptions;
    ///
    /// let from_a_page_on = SendOptions::new().zero_copy_from(4096);
    /// assert_ne!(from_a_page_on, SendOptions::new());
    /// ```
    #[must_use]
    pub fn zero_copy_from(mut self, bytes: usize) -> SendOptions {
        self.zero_copy_from = bytes;
        self
    }

    /// Completes the send only when all bytes are sent, or the connection fails (`MSG_WAITALL`).
    /// Otherwise a send may be short.
    ///
    /// A send that was cancelled, or that failed after a part, completes with the bytes that went
    /// out, and no error. So a short one of a stream socket has torn the stream: its rest goes
    /// next, or nothing does. One entry sends 1 GiB at most. Sockets with kernel TLS refuse the
    /// flag (`EOPNOTSUPP`).
    ///
    /// ```
    /// let options = uring_arena::SendOptions::new().wait_all();
    /// # let _ = options;
    /// ```
    #[must_use]
    pub fn wait_all(mut self) -> SendOptions {
        self.flags |= libc::MSG_WAITALL;
        self
    }

    /// Announces that more bytes follow at once: the kernel may hold a partial segment back
    /// (`MSG_MORE`). Systems without that send at once.
    ///
    /// ```
    /// let head_of_a_message = uring_arena::SendOptions::new().more_to_come();
    /// # let _ = head_of_a_message;
    /// ```
    #[must_use]
    pub fn more_to_come(mut self) -> SendOptions {
        self.flags |= MORE;
        self
    }

    /// Lets the send be short, for sockets that refuse `MSG_WAITALL`.
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    pub(crate) fn in_parts(mut self) -> SendOptions {
        self.flags &= !libc::MSG_WAITALL;
        self
    }

    /// Has the send fail in place of waiting in the kernel (`EAGAIN`).
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    pub(crate) fn at_once(mut self) -> SendOptions {
        self.flags |= libc::MSG_DONTWAIT;
        self
    }

    /// Returns whether a send of so many bytes is to be zero-copy.
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    pub(crate) fn asks_for_zero_copy(self, bytes: usize) -> bool {
        bytes >= self.zero_copy_from
    }

    /// Returns the flags of the call that are not of each.
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    pub(crate) fn further_flags(self) -> i32 {
        self.flags
    }
}

impl Default for SendOptions {
    fn default() -> SendOptions {
        SendOptions::new()
    }
}
