//! Accepting: a listener armed once, every connection an event.
//!
//! # Safety
//!
//! Unsafe here: pushing the accept, whose listener the table owns; and taking over the descriptors
//! that it brings.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::{cqueue, opcode, types};

use super::key::Key;
use super::operation_table::Held;
use super::{Driver, Event, SocketId};
use crate::error::DriverError;
use crate::uring::Feature;

/// A listener that is accepted from.
pub(super) struct Accept {
    pub(super) listener: OwnedFd,
    /// One accept brings many connections; off where the kernel is too old for it.
    pub(super) multishot: bool,
    pub(super) closing: bool,
}

impl Accept {
    pub(super) fn new(listener: OwnedFd, multishot: bool) -> Accept {
        Accept { listener, multishot, closing: false }
    }
}

impl Driver {
    /// Accepts every connection on `listener` (multishot, Linux 5.19; one at a time on an older
    /// kernel): each is an [`Event::Accepted`], until you [`close`](Self::close) it or it fails,
    /// for example for want of descriptors (`EMFILE`); then [`Event::Closed`] says so.
    ///
    /// # Errors
    ///
    /// [`DriverError::TooManyOperations`] if the table is full. The listener is dropped then.
    ///
    /// ```
    /// # use std::net::{TcpListener, TcpStream};
    /// # use uring_arena::{Driver, Event};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut driver = match Driver::builder().build() {
    /// #     Err(error) => { eprintln!("skipped: {error}"); return Ok(()) }
    /// #     Ok(driver) => driver,
    /// # };
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let address = listener.local_addr()?;
    /// let id = driver.accept(listener)?;
    /// let _client = TcpStream::connect(address)?;
    /// loop {
    ///     driver.wait()?;
    ///     if let Some(Event::Accepted { id: from, socket }) = driver.next() {
    ///         assert_eq!(from, id);
    ///         let socket = TcpStream::from(socket);
    ///         assert_eq!(socket.local_addr()?, address);
    ///         break;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn accept(&mut self, listener: impl Into<OwnedFd>) -> Result<SocketId, DriverError> {
        let accept = Accept::new(listener.into(), self.forms.has(Feature::AcceptMultishot));
        let entry = entry(&accept);
        // SAFETY: the table owns the listener, and the entry refers to no memory.
        unsafe { self.start(Held::Accept(accept), entry) }.map(SocketId).map_err(|(_, error)| error)
    }

    pub(super) fn arm_accept(&mut self, key: Key) -> Result<(), DriverError> {
        let Some(Held::Accept(accept)) = self.operations.get(key) else { return Ok(()) };
        let entry = entry(accept);
        // SAFETY: as above.
        unsafe { self.push(key, entry) }
    }

    pub(super) fn accepted<B>(&mut self, key: Key, completion: &cqueue::Entry) -> Option<Event<B>> {
        let Some(Held::Accept(accept)) = self.operations.get_mut(key) else { return None };
        let ending = accept.closing || self.draining;
        let result = completion.result();
        if !cqueue::more(completion.flags()) {
            // A kernel that does not know the form gets the older one.
            let falls_back = result == -libc::EINVAL && std::mem::take(&mut accept.multishot);
            let again = !ending && (result >= 0 || is_passing(-result) || falls_back);
            if again {
                self.ended.push_back(key);
            } else {
                self.close_accept(key, result, ending);
            }
        }
        if result < 0 {
            return None;
        }
        // SAFETY: the kernel opened it for us just now, and says so once.
        let socket = unsafe { OwnedFd::from_raw_fd(result) };
        Some(Event::Accepted { id: SocketId(key), socket })
    }

    /// The closing follows the last connection, so that events stay in order.
    fn close_accept(&mut self, key: Key, result: i32, ending: bool) {
        let errno = (result < 0 && !ending).then_some(-result);
        self.closings.push_back((key, errno));
    }
}

/// Errors of one connection, not of the listener.
fn is_passing(errno: i32) -> bool {
    matches!(errno, libc::ECONNABORTED | libc::EINTR | libc::EAGAIN | libc::EPROTO)
}

fn entry(accept: &Accept) -> io_uring::squeue::Entry {
    let fd = types::Fd(accept.listener.as_raw_fd());
    if accept.multishot {
        return opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build();
    }
    let nobody = std::ptr::null_mut();
    opcode::Accept::new(fd, nobody, nobody.cast()).flags(libc::SOCK_CLOEXEC).build()
}
