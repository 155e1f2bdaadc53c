//! The end of a socket: asked for by the program, or met by the kernel.
//!
//! # Safety
//!
//! Unsafe here: pushing a cancellation, which refers to nothing.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use io_uring::{opcode, types};

use super::key::{Key, Kind};
use super::operation_table::Held;
use super::{Driver, Event, SocketId};
use crate::ArenaBytes;
use crate::error::DriverError;

impl Driver {
    /// The socket, for options and addresses, or for shutting down one direction. `None` once it is closed.
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
    /// # let ring = driver.buffer_ring(&arena, BufferRing::options())?;
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

    /// Stops receiving from a socket, or accepting, and closes it. [`Event::Closed`] follows when the kernel has let go of
    /// it; bytes that came before are still handed out.
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownSocket`] if it is closed already.
    pub fn close(&mut self, id: SocketId) -> Result<(), DriverError> {
        let key = id.0;
        let kind = self.operations.get(key).ok_or(DriverError::UnknownSocket)?.kind();
        if self.operations.is_in_flight(key) {
            self.cancel(key, kind)?;
        } else if !self.is_unfolding(key) {
            // Parked, or about to be armed: nothing is in flight.
            let closed = self.closed(key, None);
            self.told.extend(closed);
            return Ok(());
        }
        match self.operations.get_mut(key) {
            Some(Held::Receive(receive)) => receive.closing = true,
            Some(Held::Accept(accept)) => accept.closing = true,
            Some(Held::Transfer(_)) | None => {}
        }
        Ok(())
    }

    /// Asks the kernel to end an operation. Its own completion tells when it has.
    pub(super) fn cancel(&mut self, key: Key, kind: Kind) -> Result<(), DriverError> {
        let builder = types::CancelBuilder::user_data(key.pack(kind));
        let entry = opcode::AsyncCancel2::new(builder).build().user_data(key.pack(Kind::Cancel));
        // SAFETY: the entry refers to nothing.
        unsafe { self.push_entry(&entry) }
    }

    /// Ends an operation that is not in flight, and its socket with it.
    pub(super) fn closed(&mut self, key: Key, errno: Option<i32>) -> Option<Event<ArenaBytes>> {
        if self.forget_transfer(key).is_some() {
            return None;
        }
        let held = self.operations.remove(key)?;
        if let Held::Receive(receive) = held
            && let Some(ring) = self.rings.get_mut(receive.ring)
        {
            ring.sockets -= 1;
            if receive.parked {
                ring.starved.forget_one();
            }
        }
        Some(Event::Closed { id: SocketId(key), error: errno.map(io::Error::from_raw_os_error) })
    }
}
