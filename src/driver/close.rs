//! The end of a socket: asked for by the program, or met by the kernel.
//!
//! # Safety
//!
//! Unsafe here: pushing a cancellation, which refers to nothing.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use io_uring::{opcode, types};

use super::accept::Accept;
use super::key::Key;
use super::operation_table::Held;
use super::receive::Receive;
use super::{Driver, Event, SocketId};
use crate::ArenaBytes;
use crate::error::DriverError;

impl Driver {
    /// The socket, for options and addresses, or for shutting down one direction. `None` once it is
    /// closed.
    ///
    /// ```
    /// # use std::os::unix::net::UnixStream;
    /// # use std::net::{Shutdown, SocketAddr};
    /// # use std::num::NonZeroUsize;
    /// # use uring_arena::{BufferRing, Driver, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
    /// # let mut driver = match Driver::builder().build() {
    /// #     Err(error) => { eprintln!("skipped: {error}"); return Ok(()) }
    /// #     Ok(driver) => driver,
    /// # };
    /// # let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
    /// let (socket, _peer) = UnixStream::pair()?;
    /// let id = driver.receive(ring, socket)?;
    /// // Tells the peer that no more comes from us; receiving goes on.
    /// if let Some(socket) = driver.socket(id) {
    ///     UnixStream::from(socket.try_clone_to_owned()?).shutdown(Shutdown::Write)?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn socket(&self, id: SocketId) -> Option<BorrowedFd<'_>> {
        match self.operations.get(id.0)? {
            Held::Receive(receive) => Some(receive.socket.as_fd()),
            Held::Accept(accept) => Some(accept.listener.as_fd()),
            Held::Transfer(_) => None,
        }
    }

    /// Stops receiving from a socket, or accepting, and closes it. [`Event::Closed`] follows when
    /// the kernel has let go of it; bytes that came before are still handed out.
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownSocket`] if it is closed already.
    pub fn close(&mut self, id: SocketId) -> Result<(), DriverError> {
        let key = id.0;
        let held = self.operations.get(key).ok_or(DriverError::UnknownSocket)?;
        match held {
            Held::Receive(Receive { closing: true, .. })
            | Held::Accept(Accept { closing: true, .. }) => {
                return Ok(());
            }
            Held::Receive(_) | Held::Accept(_) => self.set_closing(key, true),
            Held::Transfer(_) => return Err(DriverError::UnknownSocket),
        }
        if self.operations.is_in_flight(key) {
            return self.cancel(key).inspect_err(|_| self.set_closing(key, false));
        }
        if !self.is_unfolding(key) {
            // Parked, or about to be armed: no completion will tell.
            self.leave_queue(key);
            self.closings.push_back((key, None));
        }
        Ok(())
    }

    fn set_closing(&mut self, key: Key, yes: bool) {
        match self.operations.get_mut(key) {
            Some(Held::Receive(receive)) => receive.closing = yes,
            Some(Held::Accept(accept)) => accept.closing = yes,
            Some(Held::Transfer(_)) | None => {}
        }
    }

    /// Takes a starved socket out of its ring's queue.
    fn leave_queue(&mut self, key: Key) {
        if let Some(receive) = self.operations.receive_mut(key)
            && std::mem::take(&mut receive.parked)
            && let Some(ring) = self.rings.get_mut(receive.ring)
        {
            ring.starved.forget_one();
        }
    }

    /// Asks the kernel to end an operation. Its own completion tells when it has.
    pub(super) fn cancel(&mut self, key: Key) -> Result<(), DriverError> {
        let builder = types::CancelBuilder::user_data(key.user_data());
        let entry =
            opcode::AsyncCancel2::new(builder).build().user_data(key.of_cancel().user_data());
        // SAFETY: the entry refers to nothing.
        unsafe { self.push_entry(&entry) }
    }

    /// Ends an operation that is not in flight, and its socket with it.
    pub(super) fn closed(&mut self, key: Key, errno: Option<i32>) -> Option<Event<ArenaBytes>> {
        if self.forget_transfer(key).is_some() {
            return None;
        }
        self.leave_queue(key);
        let held = self.operations.remove(key)?;
        if let Held::Receive(receive) = held
            && let Some(ring) = self.rings.get_mut(receive.ring)
        {
            ring.sockets -= 1;
        }
        Some(Event::Closed { id: SocketId(key), error: errno.map(io::Error::from_raw_os_error) })
    }
}
