//! Completions of receives and accepts.
//!
//! # Safety
//!
//! Unsafe here: handing a completion to the buffer ring that it belongs to, which the table knows;
//! and taking over the descriptor that an accept brings.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use io_uring::cqueue;

use super::socket::{ACTIVE, CurrentCompletion, Phase, SERVED, Source, Wanted, connection_number};
use super::sockets::{PendingEvent, Sockets};
use crate::buffer::ArenaBytes;
use crate::driver::ids::Tag;
use crate::driver::rings::Rings;
use crate::driver::{Event, SocketId};
use crate::slab::Key;
use crate::uring::{FromSlot, Status, peer_address};

impl Sockets {
    /// Takes the bytes of a completion that is like most: a receive of a stream goes on, and its
    /// bytes are handed out as they are. See [`BufferRing::take_fast`]. Returns the socket's token
    /// with them.
    #[inline]
    pub(crate) fn take_fast(
        &mut self,
        tag: Tag,
        rings: &mut Rings,
        completion: &cqueue::Entry,
    ) -> Option<(u64, ArenaBytes)> {
        let key = tag.socket_key();
        let socket = self.table.at_mut(key.index())?;
        if socket.fast_generation != key.generation() || !cqueue::more(completion.flags()) {
            return None;
        }
        let buffers = &mut rings.at_mut(socket.source.ring()?)?.buffers;
        buffers.set_connection(connection_number(socket.token, key));
        // SAFETY: a completion of a receive that was armed on this ring (the table says so), taken
        // from the queue once; and every completion before it was handed out to its end.
        let bytes = unsafe { buffers.take_fast(completion.result(), completion.flags()) }?;
        socket.came = SERVED | ACTIVE;
        Some((socket.token, bytes))
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
        if phase == Phase::Connecting {
            return self.connected(key, completion.result(), rings);
        }
        if phase == Phase::Polling {
            return self.polled(key, completion.result(), rings);
        }
        let buffers = &mut rings.of_mut(Some(ring))?.buffers;
        let (remaining, status) =
            // SAFETY: as in `take_fast`.
            unsafe { buffers.begin_completion(completion.result(), completion.flags()) };
        if !remaining.is_empty() {
            socket.came = SERVED | ACTIVE;
            if status != Status::Armed {
                socket.count_in_turn(remaining.bytes(), buffers.slot_bytes());
            }
        }
        self.current_completion = Some(CurrentCompletion { key, source, remaining, status, phase });
        None
    }

    /// Hands out what is left of the current completion, then acts on its status.
    pub(crate) fn next_of_current<B: FromSlot>(&mut self, rings: &mut Rings) -> Option<Event<B>> {
        let current = self.current_completion.as_mut()?;
        let id = SocketId::new(self.driver, current.key);
        let token = self.table.get(current.key).map_or(0, |socket| socket.token);
        let connection = connection_number(token, current.key);
        let ring = rings.of_mut(current.source.ring());
        let event = ring.and_then(|ring| {
            ring.buffers.set_connection(connection);
            current.next_event(id, token, &mut ring.buffers)
        });
        if let Some(Event::Datagram { datagram, .. }) = &event
            && let Source::Messages(_) = current.source
            && let Some(socket) = self.table.get(current.key)
            && current.status != Status::Armed
            && datagram.is_end_of(&*socket.fd)
        {
            // No message: the kernel says so that the peer has finished.
            current.status = Status::Finished;
        } else if event.is_some() {
            return event;
        }
        let CurrentCompletion { key, status, phase, .. } = self.current_completion.take()?;
        self.act_on(key, status, phase, rings)
    }

    /// Acts on the end of a poll: the socket waits for a slot, because there is something to
    /// receive, or an error that a receive tells.
    fn polled<B>(&mut self, key: Key, result: i32, rings: &mut Rings) -> Option<Event<B>> {
        let socket = self.table.get_mut(key)?;
        match socket.wanted {
            Wanted::Closed => return self.remove(key, None, rings),
            Wanted::Paused => {}
            Wanted::Open if result == -libc::ECANCELED => return self.rearm_later(key),
            Wanted::Open => {
                socket.phase = Phase::Starved;
                if let Some(ring) = rings.of_mut(socket.source.ring()) {
                    ring.starved.push(key, false);
                }
            }
        }
        None
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
        if status != Status::Armed
            && let Some(ring) = rings.of_mut(socket.source.ring())
        {
            ring.end_receive();
        }
        let is_wanted = socket.wanted != Wanted::Closed;
        let mut errno = match status {
            Status::Armed => return None,
            // The kernel had no memory for the receive itself: nothing is lost.
            Status::Failed { errno: libc::ENOMEM } if is_wanted => {
                self.delay(key);
                return None;
            }
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
                let served = socket.came & SERVED != 0;
                if let Some(ring) = rings.of_mut(socket.source.ring()) {
                    ring.starved.push(key, served);
                    ring.take_turns();
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
            let socket = self.table.get_mut(key)?;
            if socket.half_open && is_wanted && errno.is_none() {
                socket.phase = Phase::Finished;
                let id = SocketId::new(self.driver, key);
                return Some(Event::Finished { id, token: socket.token });
            }
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
                self.pending_events.push_back(PendingEvent::Closed(key, None));
            } else if result >= 0 || was_paused {
                self.to_rearm.push_back(key);
            } else {
                self.accept_failed(key, result.saturating_neg());
            }
        }
        if result < 0 {
            return None;
        }
        self.back_off.note_success(key);
        let listener = self.table.get_mut(key)?;
        listener.came = SERVED | ACTIVE;
        let (id, token) = (SocketId::new(self.driver, key), listener.token);
        // SAFETY: the kernel opened it for us just now, and says so once.
        let socket = unsafe { OwnedFd::from_raw_fd(result) };
        let from = peer_address(socket.as_fd());
        Some(Event::Accepted { id, token, socket, from })
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::{UnixDatagram, UnixStream};
    use std::time::Duration;

    use bytes::Bytes;
    use io_uring::IoUring;

    use super::*;
    use crate::FixedArena;
    use crate::driver::files::Files;
    use crate::driver::socket::Source;
    use crate::driver::submitter::{Submitter, Wait};
    use crate::driver::transfer::Transfers;
    use crate::driver::wakeup::Wakeup;
    use crate::uring::{BufferRing, Probe};

    /// Makes a completion as the kernel would.
    fn completion(result: i32, flags: u32) -> cqueue::Entry {
        #[repr(C)]
        struct Raw {
            user_data: u64,
            result: i32,
            flags: u32,
        }
        // SAFETY: both are `struct io_uring_cqe`, plain data of 16 bytes.
        unsafe { std::mem::transmute(Raw { user_data: 0, result, flags }) }
    }

    /// The sockets of a driver on a ring that is never entered but for timers.
    struct World {
        submitter: Submitter,
        rings: Rings,
        sockets: Sockets,
        files: Files,
        transfers: Transfers,
    }

    impl World {
        fn new() -> Option<World> {
            let Ok(uring) = IoUring::new(64) else {
                eprintln!("SKIPPED: no io_uring");
                return None;
            };
            let (rings, sockets) = (Rings::new(0), Sockets::new(0, Probe::all(), true));
            let (files, transfers) = (Files::new(0, false), Transfers::new(0));
            let submitter = Submitter::new(uring, false);
            Some(World { submitter, rings, sockets, files, transfers })
        }

        fn open(&mut self, source: Source, fd: impl Into<OwnedFd>) -> Key {
            self.sockets.open(fd.into(), source, &mut self.rings, &mut self.submitter).unwrap();
            self.sockets.table.keys().pop().unwrap()
        }

        /// Completes the operation of a socket with an error, and takes the events.
        fn fail(&mut self, key: Key, errno: i32) -> Vec<Event> {
            let mut events = Vec::new();
            let failure = completion(-errno, 0);
            events.extend(self.sockets.complete(key, &mut self.rings, &failure));
            while self.sockets.current_completion.is_some() {
                events.extend(self.sockets.next_of_current(&mut self.rings));
            }
            let World { sockets, rings, files, transfers, submitter } = self;
            while let Some(event) = sockets.next_event(rings, files, transfers, submitter) {
                events.push(event);
            }
            events
        }

        fn phase(&self, key: Key) -> Option<Phase> {
            self.sockets.table.get(key).map(|socket| socket.phase)
        }

        fn rearm(&mut self) {
            self.sockets.rearm(&mut self.rings, &mut self.submitter).unwrap();
        }

        /// Waits for the timer, and arms what waited for it.
        fn wait_for_timer(&mut self) {
            let is_retry = |completion: &cqueue::Entry| {
                Tag::from_user_data(completion.user_data()) == Tag::RETRY
            };
            loop {
                self.submitter.enter(Wait::timeout(Duration::from_secs(20))).unwrap();
                let completion = self.submitter.next_completion().expect("the timer ends");
                if is_retry(&completion) {
                    break;
                }
            }
            self.sockets.back_off.timer.on_completion();
            self.sockets.retry();
            self.rearm();
        }
    }

    #[test]
    fn a_listener_outlives_every_error_but_that_it_is_none() {
        let Some(mut world) = World::new() else { return };
        let listener = world.open(Source::Listener, TcpListener::bind("127.0.0.1:0").unwrap());
        for errno in [
            libc::ECONNABORTED,
            libc::EINTR,
            libc::EAGAIN,
            libc::EPROTO,
            libc::ENOPROTOOPT,
            libc::EOPNOTSUPP,
            libc::ENETDOWN,
            libc::ENETUNREACH,
            libc::EHOSTDOWN,
            libc::EHOSTUNREACH,
            libc::ENONET,
        ] {
            assert!(world.fail(listener, errno).is_empty(), "{errno}");
            // Armed again with the next turn.
            world.rearm();
            assert_eq!(world.phase(listener), Some(Phase::InFlight), "{errno}");
        }
        for errno in
            [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EPERM, libc::EIO]
        {
            let told = world.fail(listener, errno);
            let [Event::AcceptFailed { error, .. }] = &told[..] else { panic!("{told:?}") };
            assert_eq!(error.raw_os_error(), Some(errno));
            // Armed again when the timer ends, and told once.
            for _ in 0..2 {
                world.rearm();
                assert_eq!(world.phase(listener), Some(Phase::Delayed), "{errno}");
                world.wait_for_timer();
                assert_eq!(world.phase(listener), Some(Phase::InFlight), "{errno}");
                assert!(world.fail(listener, errno).is_empty(), "{errno}");
            }
            world.rearm();
            world.wait_for_timer();
            world.sockets.back_off.note_success(listener);
        }
        for errno in [libc::EBADF, libc::ENOTSOCK, libc::EINVAL] {
            let listener = world.open(Source::Listener, TcpListener::bind("127.0.0.1:0").unwrap());
            // The first EINVAL may be of a kernel without multishot accept.
            if errno == libc::EINVAL {
                assert!(world.fail(listener, errno).is_empty());
                world.rearm();
            }
            let closed = world.fail(listener, errno);
            let [Event::Closed { error: Some(error), .. }] = &closed[..] else {
                panic!("{closed:?}")
            };
            assert_eq!((error.raw_os_error(), world.phase(listener)), (Some(errno), None));
        }
        let socket = world.open(Source::Listener, UnixDatagram::unbound().unwrap());
        let closed = world.fail(socket, libc::EOPNOTSUPP);
        assert!(matches!(closed[..], [Event::Closed { error: Some(_), .. }]), "{closed:?}");
    }

    #[test]
    fn connections_that_are_aborted_for_ever_keep_nobody_busy() {
        let Some(mut world) = World::new() else { return };
        let listener = world.open(Source::Listener, TcpListener::bind("127.0.0.1:0").unwrap());
        let mut at_once = 0;
        while world.phase(listener) == Some(Phase::InFlight) {
            at_once += 1;
            assert!(world.fail(listener, libc::ECONNABORTED).is_empty(), "nothing is told");
            world.rearm();
        }
        assert_eq!((world.phase(listener), at_once), (Some(Phase::Delayed), 17));
        world.wait_for_timer();
        assert_eq!(world.phase(listener), Some(Phase::InFlight));
    }

    #[test]
    fn a_receive_without_memory_is_tried_again() {
        let Some(mut world) = World::new() else { return };
        let arena = FixedArena::new(4, 64).unwrap();
        let options = BufferRing::options().entries(2);
        let World { rings, submitter, .. } = &mut world;
        let mut wakeup = Wakeup::new(1).unwrap();
        let ring = rings.register(&arena, options, Probe::all(), &mut wakeup, submitter);
        let Ok(ring) = ring else { return };
        let (ring, _) = world.rings.by_id(ring).unwrap();
        for source in [Source::Stream(ring), Source::Pipe(ring), Source::Datagrams(ring)] {
            let (socket, _peer) = UnixStream::pair().unwrap();
            let socket = world.open(source, socket);
            assert!(world.fail(socket, libc::ENOMEM).is_empty());
            world.rearm();
            assert_eq!(world.phase(socket), Some(Phase::Delayed));
            world.wait_for_timer();
            assert_eq!(world.phase(socket), Some(Phase::InFlight));
            let closed = world.fail(socket, libc::EBADF);
            assert!(matches!(closed[..], [Event::Closed { error: Some(_), .. }]), "{closed:?}");
        }
    }

    /// The event is of whatever bytes.
    type Event = crate::driver::Event<Bytes>;
}
