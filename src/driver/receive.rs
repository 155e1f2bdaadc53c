//! Receiving: what is armed on a buffer ring, and how.
//!
//! # Safety
//!
//! Unsafe here: pushing receives, whose socket the table owns and whose memory is the ring's.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::{squeue, types};

use super::key::Key;
use super::operation_table::Held;
use super::{BufferRingId, Driver, SocketId};
use crate::error::DriverError;
use crate::uring::{BufferRing, DATAGRAM_HEADER_BYTES, Feature};

/// What is received from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Stream,
    Pipe,
    Datagrams,
}

impl Form {
    /// What lets one receive of this form bring many completions.
    fn multishot(self) -> Feature {
        match self {
            Form::Stream | Form::Datagrams => Feature::RecvMultishot,
            Form::Pipe => Feature::ReadMultishot,
        }
    }
}

/// A socket, or a pipe, that is received from.
pub(super) struct Receive {
    pub(super) socket: OwnedFd,
    pub(super) ring: u32,
    pub(super) form: Form,
    /// One receive brings many completions; off where the kernel is too old for it.
    pub(super) multishot: bool,
    /// Bytes came since it was armed last.
    pub(super) served: bool,
    /// Waits for slots, in its ring's queue.
    pub(super) parked: bool,
    /// The program has closed it; the kernel may not have.
    pub(super) closing: bool,
    /// The program wants nothing of it now.
    pub(super) paused: bool,
    /// The receive under way is being cancelled because the program paused.
    pub(super) pausing: bool,
}

impl Receive {
    fn entry(&self, buffers: &BufferRing) -> squeue::Entry {
        let fd = types::Fd(self.socket.as_raw_fd());
        match (self.form, self.multishot) {
            (Form::Stream, true) => buffers.receive_multi(fd),
            (Form::Stream, false) => buffers.receive_once(fd),
            (Form::Pipe, true) => buffers.read_multi(fd),
            (Form::Pipe, false) => buffers.read_once(fd),
            (Form::Datagrams, _) => buffers.receive_datagrams(fd),
        }
    }

    /// Goes on in the older form if the kernel does not know this one. False if there is none.
    pub(super) fn falls_back(&mut self, errno: i32) -> bool {
        let falls_back = errno == libc::EINVAL && self.multishot && self.form != Form::Datagrams;
        if falls_back {
            self.multishot = false;
        }
        falls_back
    }

    /// Whether an error is of one datagram and not of the socket: what an earlier one met on its
    /// way.
    pub(super) fn survives(&self, errno: i32) -> bool {
        let of_one = matches!(errno, libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH);
        of_one && self.form == Form::Datagrams
    }
}

impl Driver {
    /// Receives from `socket` into `ring` until the peer finishes or you [`close`](Self::close) it:
    /// bytes come as [`Event::Received`](super::Event::Received), in order.
    ///
    /// The driver owns the socket, so that its number is not given to another file while the kernel
    /// uses it: keep a clone (`try_clone`) to write to it. Streams (TCP, Unix); multishot (Linux
    /// 6.0), armed again when it ends; an older kernel receives one message at a time.
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownRing`], or [`DriverError::TooManyOperations`] if the table is full.
    /// The socket is dropped then.
    pub fn receive(
        &mut self,
        ring: BufferRingId,
        socket: impl Into<OwnedFd>,
    ) -> Result<SocketId, DriverError> {
        self.receive_as(Form::Stream, ring, socket.into())
    }

    /// As [`receive`](Self::receive), for the reading end of a pipe (multishot: Linux 6.7).
    ///
    /// # Errors
    ///
    /// As for `receive`.
    ///
    /// ```
    /// # use std::io::Write;
    /// # use std::num::NonZeroUsize;
    /// # use uring_arena::{BufferRing, Driver, Event, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
    /// # let mut driver = match Driver::builder().build() {
    /// #     Err(error) => { eprintln!("skipped: {error}"); return Ok(()) }
    /// #     Ok(driver) => driver,
    /// # };
    /// let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
    /// let (reader, mut writer) = std::io::pipe()?;
    /// driver.read_pipe(ring, reader)?;
    /// writer.write_all(b"through a pipe")?;
    /// driver.wait()?;
    /// let Some(Event::Received { bytes, .. }) = driver.next() else { panic!() };
    /// assert_eq!(bytes, "through a pipe");
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_pipe(
        &mut self,
        ring: BufferRingId,
        pipe: impl Into<OwnedFd>,
    ) -> Result<SocketId, DriverError> {
        self.receive_as(Form::Pipe, ring, pipe.into())
    }

    /// Receives datagrams from `socket` into `ring`, each a slot of its own, until you
    /// [`close`](Self::close) it: they come as [`Event::Datagram`](super::Event::Datagram), with
    /// the sender's address (Linux 6.0). A slot holds a header of 44 bytes and the datagram.
    ///
    /// # Errors
    ///
    /// [`DriverError::SlotTooSmall`] if a slot has no room behind the header;
    /// [`DriverError::RingIsIncremental`] for a ring that lets several messages share a slot, which
    /// the kernel's datagram receive does not work well with; [`DriverError::Unsupported`] before
    /// Linux 6.0; and as for [`receive`](Self::receive).
    ///
    /// ```
    /// # use std::net::UdpSocket;
    /// # use std::num::NonZeroUsize;
    /// # use uring_arena::{BufferRing, Driver, Event, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(2048).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
    /// # let mut driver = match Driver::builder().build() {
    /// #     Err(error) => { eprintln!("skipped: {error}"); return Ok(()) }
    /// #     Ok(driver) => driver,
    /// # };
    /// let ring = driver.register_buffer_ring(&arena, BufferRing::options())?;
    /// let (ours, theirs) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    /// let address = ours.local_addr()?;
    /// driver.receive_datagrams(ring, ours)?;
    /// theirs.send_to(b"ping", address)?;
    /// driver.wait()?;
    /// let Some(Event::Datagram { datagram, .. }) = driver.next() else { panic!() };
    /// assert_eq!(datagram.from, Some(theirs.local_addr()?));
    /// assert_eq!(datagram.bytes, "ping");
    /// # Ok(())
    /// # }
    /// ```
    pub fn receive_datagrams(
        &mut self,
        ring: BufferRingId,
        socket: impl Into<OwnedFd>,
    ) -> Result<SocketId, DriverError> {
        let number = self.ring_number(ring)?;
        let buffers = &self.rings.get(number).ok_or(DriverError::UnknownRing)?.buffers;
        if buffers.is_incremental() {
            return Err(DriverError::RingIsIncremental);
        }
        if !self.forms.has(Feature::RecvMultishot) {
            let since = Feature::RecvMultishot.since();
            return Err(DriverError::Unsupported {
                what: "receiving datagrams into a buffer ring",
                since,
            });
        }
        let bytes = buffers.slot_bytes();
        if bytes <= DATAGRAM_HEADER_BYTES {
            return Err(DriverError::SlotTooSmall { bytes, needed: DATAGRAM_HEADER_BYTES + 1 });
        }
        self.receive_as(Form::Datagrams, ring, socket.into())
    }

    fn receive_as(
        &mut self,
        form: Form,
        ring: BufferRingId,
        socket: OwnedFd,
    ) -> Result<SocketId, DriverError> {
        let ring = self.ring_number(ring)?;
        let receive = Receive {
            socket,
            ring,
            form,
            multishot: self.multishot && self.forms.has(form.multishot()),
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

    /// Arms a receive that is in the table and not in flight.
    pub(super) fn arm(&mut self, key: Key) -> Result<(), DriverError> {
        let Some(receive) = self.operations.receive_mut(key) else { return Ok(()) };
        receive.served = false;
        receive.parked = false;
        if receive.paused {
            return Ok(());
        }
        let Some(ring) = self.rings.get(receive.ring) else { return Ok(()) };
        let entry = receive.entry(&ring.buffers);
        self.metrics.armed += 1;
        // SAFETY: the table owns the socket, the ring its slots.
        unsafe { self.push(key, entry) }
    }

    /// Arms again what ended since the last turn.
    pub(super) fn arm_ended(&mut self) -> Result<(), DriverError> {
        while let Some(&key) = self.ended.front() {
            if !self.operations.is_in_flight(key) {
                match self.operations.get(key) {
                    Some(Held::Receive(receive)) if !receive.closing => self.arm(key)?,
                    Some(Held::Accept(accept)) if !accept.closing => self.arm_accept(key)?,
                    Some(Held::Transfer(_)) => self.arm_transfer(key)?,
                    // Closed meanwhile: that is told, and nothing may be in flight then.
                    Some(Held::Receive(_) | Held::Accept(_)) | None => {}
                }
            }
            self.ended.pop_front();
        }
        Ok(())
    }
}
