//! Receiving: sockets armed on buffer rings, their completions, their end.
//!
//! # Safety
//!
//! Unsafe here: pushing receives, whose socket the table owns and whose memory is the ring's; and handing their completions to
//! the ring they belong to, which the table knows.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use io_uring::{cqueue, opcode, types};

use super::key::{Key, Kind};
use super::operation_table::Held;
use super::{BufferRingId, Driver, Event, SocketId};
use crate::ArenaBytes;
use crate::error::DriverError;
use crate::uring::{Cursor, Delivered, Status};

/// A socket that is received from.
pub(super) struct Receive {
    pub(super) socket: OwnedFd,
    pub(super) ring: u32,
    /// Bytes came since it was armed last.
    pub(super) served: bool,
    /// Waits for slots, in its ring's queue.
    pub(super) parked: bool,
    /// The program has closed it; the kernel may not have.
    closing: bool,
    /// The program wants nothing of it now.
    pub(super) paused: bool,
    /// The receive under way is being cancelled because the program paused.
    pausing: bool,
}

/// A completion whose bytes are being handed out, or whose status is to be acted on afterwards.
pub(super) struct Unfolding {
    key: Key,
    ring: u32,
    cursor: Cursor,
    status: Status,
}

impl<B: Delivered> Event<B> {
    /// The same event with another shape of bytes.
    pub(super) fn delivered(event: Event<ArenaBytes>) -> Event<B> {
        match event {
            Event::Received { id, bytes } => Event::Received { id, bytes: B::in_slot(bytes) },
            Event::Accepted { id, socket } => Event::Accepted { id, socket },
            Event::Closed { id, error } => Event::Closed { id, error },
            Event::Read { id, offset, result, buffer } => Event::Read { id, offset, result, buffer },
            Event::Wrote { id, offset, result, payload } => Event::Wrote { id, offset, result, payload },
            Event::Sent { id, result, payload, copied } => Event::Sent { id, result, payload, copied },
        }
    }
}

impl Driver {
    /// Receives from `socket` into `ring` until the peer finishes or you [`close`](Self::close) it.
    ///
    /// The driver owns the socket, so that its number is not given to another file while the kernel uses it: keep a clone
    /// (`try_clone`) to write to it. Streams (TCP, Unix); multishot, armed again when it ends.
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownRing`], or [`DriverError::TooManyOperations`] if the table is full. The socket is dropped then.
    pub fn receive(
        &mut self,
        ring: BufferRingId,
        socket: impl Into<OwnedFd>,
    ) -> Result<SocketId, DriverError> {
        let ring = self.ring_number(ring)?;
        let receive = Receive {
            socket: socket.into(),
            ring,
            served: false,
            parked: false,
            closing: false,
            paused: false,
            pausing: false,
        };
        let limit = self.operations.limit();
        let key = self
            .operations
            .insert(Held::Receive(receive))
            .map_err(|_| DriverError::TooManyOperations { limit })?;
        if let Err(error) = self.arm(key) {
            self.operations.remove(key);
            return Err(error);
        }
        if let Some(ring) = self.rings.get_mut(ring) {
            ring.sockets += 1;
        }
        Ok(SocketId(key))
    }

    /// The socket, for options and addresses. `None` once it is closed.
    pub fn socket(&self, id: SocketId) -> Option<BorrowedFd<'_>> {
        match self.operations.get(id.0)? {
            Held::Receive(receive) => Some(receive.socket.as_fd()),
            Held::Accept(accept) => Some(accept.listener.as_fd()),
            Held::Transfer(_) => None,
        }
    }

    /// Stops receiving from a socket and closes it. [`Event::Closed`] follows when the kernel has let go of it; bytes that came
    /// before are still handed out.
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

    /// Stops receiving from a socket for now. Bytes that came before are still handed out; what the peer sends stays in the
    /// socket, and then with the peer. For consumers that cannot keep up: without it they hold ever more slots.
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownSocket`] if it is closed already, or is a listener.
    ///
    /// ```
    /// # use std::io::Write;
    /// # use std::num::NonZeroUsize;
    /// # use std::time::Duration;
    /// # use uring_arena::{BufferRing, Driver, Event, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
    /// # let mut driver = match Driver::builder().build() {
    /// #     Err(error) => { eprintln!("skipped: {error}"); return Ok(()) }
    /// #     Ok(driver) => driver,
    /// # };
    /// # let ring = driver.buffer_ring(&arena, BufferRing::options())?;
    /// # let (mut sender, socket) = std::os::unix::net::UnixStream::pair()?;
    /// let id = driver.receive(ring, socket)?;
    /// driver.pause(id)?;
    /// driver.wait_timeout(Duration::from_millis(10))?;
    /// sender.write_all(b"later")?;
    /// driver.wait_timeout(Duration::from_millis(10))?;
    /// assert!(driver.next().is_none());
    /// driver.resume(id)?;
    /// driver.wait()?;
    /// assert!(matches!(driver.next(), Some(Event::Received { .. })));
    /// # Ok(())
    /// # }
    /// ```
    pub fn pause(&mut self, id: SocketId) -> Result<(), DriverError> {
        let key = id.0;
        let is_in_flight = self.operations.is_in_flight(key);
        let receive = self.operations.receive_mut(key).ok_or(DriverError::UnknownSocket)?;
        receive.paused = true;
        if is_in_flight && !receive.pausing {
            receive.pausing = true;
            self.cancel(key, Kind::Receive)?;
        }
        Ok(())
    }

    /// Goes on receiving from a socket that was [paused](Self::pause).
    ///
    /// # Errors
    ///
    /// As for `pause`.
    pub fn resume(&mut self, id: SocketId) -> Result<(), DriverError> {
        let receive = self.operations.receive_mut(id.0).ok_or(DriverError::UnknownSocket)?;
        receive.paused = false;
        let waits = receive.parked;
        if !waits && !self.operations.is_in_flight(id.0) {
            self.ended.push_back(id.0);
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

    /// Arms a receive that is in the table and not in flight.
    pub(super) fn arm(&mut self, key: Key) -> Result<(), DriverError> {
        let Some(Held::Receive(receive)) = self.operations.get_mut(key) else { return Ok(()) };
        receive.served = false;
        receive.parked = false;
        if receive.paused {
            return Ok(());
        }
        let fd = types::Fd(receive.socket.as_raw_fd());
        let number = receive.ring;
        let Some(ring) = self.rings.get_mut(number) else { return Ok(()) };
        let entry = ring.buffers.receive_multi(fd);
        self.metrics.armed += 1;
        // SAFETY: the table owns the socket, the ring its slots.
        unsafe { self.push(key, entry) }
    }

    /// Arms again what ended since the last turn.
    pub(super) fn arm_ended(&mut self) -> Result<(), DriverError> {
        while let Some(&key) = self.ended.front() {
            if !self.operations.is_in_flight(key) {
                match self.operations.get(key) {
                    Some(Held::Receive(_)) => self.arm(key)?,
                    Some(Held::Accept(_)) => self.arm_accept(key)?,
                    Some(Held::Transfer(_)) => self.arm_transfer(key)?,
                    None => {}
                }
            }
            self.ended.pop_front();
        }
        Ok(())
    }

    /// Acts on a completion of the receive at `key`.
    #[inline]
    pub(super) fn received<B: Delivered>(
        &mut self,
        key: Key,
        completion: &cqueue::Entry,
    ) -> Option<Event<B>> {
        let receive = self.operations.receive_mut(key)?;
        let number = receive.ring;
        let ring = self.rings.get_mut(number)?;
        // SAFETY: a completion of a receive that was armed on this ring (the table says so), taken from the queue once; and the
        // completion before it has been unfolded.
        let (mut cursor, status) = unsafe { ring.buffers.begin(completion.result(), completion.flags()) };
        let bytes = ring.buffers.take::<B>(&mut cursor);
        receive.served |= bytes.is_some();
        if !cursor.is_done() || status != Status::Armed {
            self.unfolding = Some(Unfolding { key, ring: number, cursor, status });
        }
        bytes.map(|bytes| Event::Received { id: SocketId(key), bytes })
    }

    /// Hands out what is left of a completion, then acts on its status.
    pub(super) fn unfold<B: Delivered>(&mut self) -> Option<Event<B>> {
        let unfolding = self.unfolding.as_mut()?;
        if let Some(ring) = self.rings.get_mut(unfolding.ring)
            && let Some(bytes) = ring.buffers.take::<B>(&mut unfolding.cursor)
        {
            return Some(Event::Received { id: SocketId(unfolding.key), bytes });
        }
        let Unfolding { key, status, .. } = self.unfolding.take()?;
        self.settle(key, status).map(Event::delivered)
    }

    fn is_unfolding(&self, key: Key) -> bool {
        self.unfolding.as_ref().is_some_and(|unfolding| unfolding.key == key)
    }

    fn settle(&mut self, key: Key, status: Status) -> Option<Event<ArenaBytes>> {
        let receive = self.operations.receive_mut(key)?;
        let ending = receive.closing || self.draining;
        let was_pausing = status != Status::Armed && std::mem::take(&mut receive.pausing);
        match status {
            Status::Armed => None,
            Status::Cancelled if was_pausing && !ending => {
                // Armed again unless it is still paused.
                self.ended.push_back(key);
                None
            }
            Status::Ended if !ending => {
                self.ended.push_back(key);
                None
            }
            Status::Starved if !ending => {
                let served = receive.served;
                receive.parked = true;
                let number = receive.ring;
                if let Some(ring) = self.rings.get_mut(number) {
                    ring.starved.park(key, served);
                }
                None
            }
            Status::Cancelled if !ending => self.closed(key, Some(libc::ECANCELED)),
            Status::Failed { errno } => self.closed(key, Some(errno)),
            Status::Ended | Status::Starved | Status::Cancelled | Status::Finished => self.closed(key, None),
        }
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
