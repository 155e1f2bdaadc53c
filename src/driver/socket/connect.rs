//! Sockets that the driver connects.
//!
//! # Safety
//!
//! Unsafe here: pushing connects. The table owns the descriptor and the address until the
//! completion.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use io_uring::{opcode, types};

use super::socket::{Connecting, Phase, Socket, Source, Wanted};
use super::sockets::{PendingEvent, Sockets};
use crate::driver::ids::Tag;
use crate::driver::rings::Rings;
use crate::driver::submitter::Submitter;
use crate::driver::{DriverError, Event, SocketId};
use crate::slab::Key;
use crate::uring::{Feature, RawAddress};

impl Sockets {
    /// Takes a new socket in, and connects it.
    pub(crate) fn connect(
        &mut self,
        fd: OwnedFd,
        ring: Key,
        address: RawAddress,
        rings: &mut Rings,
        submitter: &mut Submitter,
    ) -> Result<SocketId, DriverError> {
        let multishot = self.may_multishot(Feature::RecvMultishot);
        let key = self.table.insert(Socket::new(fd, Source::Stream(ring), multishot));
        let key = key.ok().expect("the driver has room");
        let address = Box::new(address);
        if let Some(socket) = self.table.get_mut(key) {
            let fd = types::Fd(socket.fd.as_raw_fd());
            let entry = opcode::Connect::new(fd, address.as_ptr(), address.len()).build();
            // SAFETY: the table owns descriptor and address until the completion.
            if let Err(error) = unsafe { submitter.push(Tag::socket(key), entry) } {
                self.table.remove(key);
                return Err(error);
            }
            socket.phase = Phase::Connecting;
        }
        self.connecting.insert(key, Connecting { address, deadline: None, timed_out: false });
        self.in_flight += 1;
        if let Some(ring) = rings.of_mut(Some(ring)) {
            ring.sockets += 1;
        }
        Ok(SocketId::new(self.driver, key))
    }

    /// Acts on the completion of a connect.
    pub(super) fn connected<B>(
        &mut self,
        key: Key,
        result: i32,
        rings: &mut Rings,
    ) -> Option<Event<B>> {
        let connecting = self.connecting.remove(&key);
        let socket = self.table.get_mut(key)?;
        if result >= 0 && socket.sending.is_some() {
            self.pending_events.push_back(PendingEvent::Connected(key));
        }
        if socket.wanted == Wanted::Closed {
            // Without a connection what was to be sent never goes out.
            return self.end(key, None, result < 0, rings);
        }
        if result < 0 {
            let timed_out = connecting.is_some_and(|connecting| connecting.timed_out);
            let errno = if timed_out { libc::ETIMEDOUT } else { -result };
            return self.remove(key, Some(errno), rings);
        }
        self.to_rearm.push_back(key);
        Some(Event::Connected { id: SocketId::new(self.driver, key), token: socket.token })
    }

    /// Sets the time when a connect is given up. Returns the socket's key.
    pub(crate) fn set_connect_deadline(
        &mut self,
        id: SocketId,
        at: Option<Instant>,
    ) -> Result<Key, DriverError> {
        let key = self.key(id)?;
        if let Some(connecting) = self.connecting.get_mut(&key) {
            connecting.deadline = at;
        }
        Ok(key)
    }

    /// Returns whether a socket is being connected.
    pub(crate) fn is_connecting(&self, key: Key) -> bool {
        self.connecting.contains_key(&key)
    }

    /// Returns whether a connect is to be given up at this time.
    pub(crate) fn has_connect_deadline(&self, key: Key, at: Instant) -> bool {
        self.connecting.get(&key).is_some_and(|connecting| connecting.deadline == Some(at))
    }

    /// Gives a connect up whose time is over. It is given up `again` if it still goes on then.
    pub(crate) fn expire_connect(
        &mut self,
        key: Key,
        again: Instant,
        submitter: &mut Submitter,
    ) -> Result<(), DriverError> {
        let Some(connecting) = self.connecting.get_mut(&key) else { return Ok(()) };
        submitter.cancel(Tag::socket(key))?;
        (connecting.timed_out, connecting.deadline) = (true, Some(again));
        Ok(())
    }
}
