//! Completions of receives: bytes out, then what became of the receive.
//!
//! # Safety
//!
//! Unsafe here: handing completions to the ring that they belong to, which the table knows.
#![allow(unsafe_code)]

use io_uring::cqueue;

use super::key::Key;
use super::receive::{Form, Receive};
use super::rings::Rings;
use super::{Driver, Event, SocketId};
use crate::ArenaBytes;
use crate::uring::{BufferRing, FromSlot, Remaining, Status};

/// A completion whose bytes are being handed out, or whose status is to be acted on afterwards.
pub(super) struct Unfolding {
    key: Key,
    ring: u32,
    form: Form,
    cursor: Remaining,
    status: Status,
}

impl Receive {
    /// The bytes of a completion of this receive, which goes on, if it is one like most: see
    /// [`BufferRing::take_fast`].
    #[inline]
    pub(super) fn take_fast<B: FromSlot>(
        &mut self,
        rings: &mut Rings,
        completion: &cqueue::Entry,
    ) -> Option<B> {
        if self.form != Form::Stream {
            return None;
        }
        let buffers = &mut rings.get_mut(self.ring)?.buffers;
        // SAFETY: a completion of a receive that was armed on this ring (the table says so), taken
        // from the queue once; and the completion before it has been unfolded.
        let bytes = unsafe { buffers.take_fast(completion.result(), completion.flags()) }?;
        self.served = true;
        Some(bytes)
    }
}

impl Driver {
    /// Begins to unfold a completion of the receive at `key`.
    pub(super) fn received(&mut self, key: Key, completion: &cqueue::Entry) {
        let Some(receive) = self.operations.receive_mut(key) else { return };
        let (number, form) = (receive.ring, receive.form);
        let Some(ring) = self.rings.get_mut(number) else { return };
        // SAFETY: a completion of a receive that was armed on this ring (the table says so), taken
        // from the queue once; and the completion before it has been unfolded.
        let (cursor, status) =
            unsafe { ring.buffers.begin_completion(completion.result(), completion.flags()) };
        receive.served |= !cursor.is_empty();
        self.unfolding = Some(Unfolding { key, ring: number, form, cursor, status });
    }

    /// Hands out what is left of a completion, then acts on its status.
    pub(super) fn unfold<B: FromSlot>(&mut self) -> Option<Event<B>> {
        let unfolding = self.unfolding.as_mut()?;
        if let Some(ring) = self.rings.get_mut(unfolding.ring) {
            let event =
                event(&mut ring.buffers, &mut unfolding.cursor, unfolding.form, unfolding.key);
            if event.is_some() {
                return event;
            }
        }
        let Unfolding { key, status, .. } = self.unfolding.take()?;
        self.settle(key, status).map(Event::delivered)
    }

    pub(super) fn is_unfolding(&self, key: Key) -> bool {
        self.unfolding.as_ref().is_some_and(|unfolding| unfolding.key == key)
    }

    fn settle(&mut self, key: Key, status: Status) -> Option<Event<ArenaBytes>> {
        let receive = self.operations.receive_mut(key)?;
        let ending = receive.closing || self.draining;
        let was_pausing = status != Status::Armed && std::mem::take(&mut receive.pausing);
        match status {
            Status::Armed => None,
            // Armed again unless it is still paused.
            Status::Cancelled if was_pausing && !ending => self.arm_again(key),
            Status::Ended if !ending => self.arm_again(key),
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
            Status::Failed { errno }
                if !ending && (receive.falls_back(errno) || receive.survives(errno)) =>
            {
                self.arm_again(key)
            }
            Status::Failed { errno } => self.closed(key, Some(errno)),
            Status::Ended | Status::Starved | Status::Cancelled | Status::Finished => {
                self.closed(key, None)
            }
        }
    }

    /// On the next turn: so that a receive that ends at once cannot keep this one from ending.
    fn arm_again<B>(&mut self, key: Key) -> Option<Event<B>> {
        self.ended.push_back(key);
        None
    }
}

/// The next event of a completion.
fn event<B: FromSlot>(
    buffers: &mut BufferRing,
    cursor: &mut Remaining,
    form: Form,
    key: Key,
) -> Option<Event<B>> {
    let id = SocketId(key);
    match form {
        Form::Stream | Form::Pipe => {
            buffers.take(cursor).map(|bytes| Event::Received { id, bytes })
        }
        Form::Datagrams => {
            buffers.take_datagram(cursor).map(|datagram| Event::Datagram { id, datagram })
        }
    }
}
