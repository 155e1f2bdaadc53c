//! Completions of receives and accepts.
//!
//! # Safety
//!
//! Unsafe here: handing a completion to the buffer ring that it belongs to, which the table knows;
//! and taking over the descriptor that an accept brings.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd};

use io_uring::cqueue;

use super::socket::{CurrentCompletion, Phase, Source, Wanted};
use super::sockets::Sockets;
use crate::driver::ids::Tag;
use crate::driver::rings::Rings;
use crate::driver::{Event, SocketId};
use crate::slab::Key;
use crate::uring::{FromSlot, Status};

impl Sockets {
    /// Takes the bytes of a completion that is like most: a receive of a stream goes on, and its
    /// bytes are handed out as they are. See [`BufferRing::take_fast`].
    #[inline]
    pub(crate) fn take_fast<B: FromSlot>(
        &mut self,
        tag: Tag,
        rings: &mut Rings,
        completion: &cqueue::Entry,
    ) -> Option<B> {
        let key = tag.socket_key();
        let socket = self.table.at_mut(key.index())?;
        if socket.fast_generation != key.generation() || !cqueue::more(completion.flags()) {
            return None;
        }
        let buffers = &mut rings.at_mut(socket.source.ring()?)?.buffers;
        // SAFETY: a completion of a receive that was armed on this ring (the table says so), taken
        // from the queue once; and every completion before it was handed out to its end.
        let bytes = unsafe { buffers.take_fast(completion.result(), completion.flags()) }?;
        socket.served = true;
        Some(bytes)
    }

    /// Acts on a completion of a socket that is in flight.
    pub(crate) fn complete<B: FromSlot>(
        &mut self,
        key: Key,
        rings: &mut Rings,
        completion: &cqueue::Entry,
    ) -> Option<Event<B>> {
        let socket = self.table.get_mut(key)?;
        let (source, phase) = (socket.source, socket.phase);
        if !cqueue::more(completion.flags()) {
            socket.phase = Phase::Idle;
            socket.fast_generation = 0;
            self.in_flight -= 1;
        }
        let Some(ring) = source.ring() else { return self.accepted(key, phase, completion) };
        let buffers = &mut rings.of_mut(Some(ring))?.buffers;
        // SAFETY: as in `take_fast`.
        let (remaining, status) =
            unsafe { buffers.begin_completion(completion.result(), completion.flags()) };
        socket.served |= !remaining.is_empty();
        self.current_completion = Some(CurrentCompletion { key, source, remaining, status, phase });
        None
    }

    /// Hands out what is left of the current completion, then acts on its status.
    pub(crate) fn next_of_current<B: FromSlot>(&mut self, rings: &mut Rings) -> Option<Event<B>> {
        let current = self.current_completion.as_mut()?;
        let id = SocketId::new(self.driver, current.key);
        let ring = rings.of_mut(current.source.ring());
        let event = ring.and_then(|ring| current.next_event(id, &mut ring.buffers));
        if let Some(Event::Datagram { datagram, .. }) = &event
            && let Source::Messages(_) = current.source
            && let Some(socket) = self.table.get(current.key)
            && current.status != Status::Armed
            && datagram.is_end_of(&socket.fd)
        {
            // No message: the kernel says so that the peer has finished.
            current.status = Status::Finished;
        } else if event.is_some() {
            return event;
        }
        let CurrentCompletion { key, status, phase, .. } = self.current_completion.take()?;
        self.act_on(key, status, phase, rings)
    }

    /// Arms, parks or closes the socket of a receive, by what its last completion says.
    fn act_on<B>(
        &mut self,
        key: Key,
        status: Status,
        phase: Phase,
        rings: &mut Rings,
    ) -> Option<Event<B>> {
        let socket = self.table.get_mut(key)?;
        let is_wanted = socket.wanted != Wanted::Closed;
        let mut errno = match status {
            Status::Armed => return None,
            Status::Failed { errno } if is_wanted && socket.survives(errno) => {
                if let Source::Messages(_) = socket.source {
                    // Messages that came before the error are still to be received.
                    self.end_errors.insert(key, errno);
                }
                return self.rearm_later(key);
            }
            Status::Failed { .. } if !is_wanted && socket.has_pending_errors() => None,
            Status::Failed { errno } => Some(errno),
            Status::Ended if is_wanted => return self.rearm_later(key),
            Status::Starved if is_wanted => {
                socket.phase = Phase::Starved;
                let served = socket.served;
                if let Some(ring) = rings.of_mut(socket.source.ring()) {
                    ring.starved.push(key, served);
                }
                return None;
            }
            // By `pause`: the socket is armed when it is resumed.
            Status::Cancelled if is_wanted && phase == Phase::Pausing => {
                return self.rearm_later(key);
            }
            Status::Cancelled if is_wanted => Some(libc::ECANCELED),
            Status::Ended | Status::Starved | Status::Cancelled | Status::Finished => None,
        };
        if status == Status::Finished {
            errno = self.end_errors.remove(&key);
        }
        self.remove(key, errno, rings)
    }

    fn rearm_later<B>(&mut self, key: Key) -> Option<Event<B>> {
        self.to_rearm.push_back(key);
        None
    }

    /// Acts on a completion of an accept. The listener's end follows its last connection, so that
    /// events stay in order.
    fn accepted<B>(
        &mut self,
        key: Key,
        phase: Phase,
        completion: &cqueue::Entry,
    ) -> Option<Event<B>> {
        let socket = self.table.get_mut(key)?;
        let result = completion.result();
        if !cqueue::more(completion.flags()) {
            let was_paused = phase == Phase::Pausing && result == -libc::ECANCELED;
            if socket.wanted == Wanted::Closed {
                self.pending_closes.push_back((key, None));
            } else if result >= 0 || was_paused || socket.survives(-result) {
                self.to_rearm.push_back(key);
            } else {
                self.pending_closes.push_back((key, Some(-result)));
            }
        }
        if result < 0 {
            return None;
        }
        // SAFETY: the kernel opened it for us just now, and says so once.
        let socket = unsafe { OwnedFd::from_raw_fd(result) };
        Some(Event::Accepted { id: SocketId::new(self.driver, key), socket })
    }
}
