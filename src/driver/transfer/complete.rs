//! Completions of reads, writes and sends: a short one goes on, a finished one is an event.
//!
//! # Safety
//!
//! Unsafe here: handing a completion to the operation that the table says it belongs to.
#![allow(unsafe_code)]

use io_uring::cqueue;

use super::transfer::{Action, Failure, Next, State, Transfer};
use super::transfers::Transfers;
use crate::driver::files::Files;
use crate::driver::submitter::Submitter;
use crate::driver::{Event, OperationId};
use crate::slab::Key;
use crate::uring::Progress;

impl Transfers {
    /// Acts on a completion of a transfer that is in flight.
    #[inline]
    pub(crate) fn complete<B>(
        &mut self,
        key: Key,
        completion: &cqueue::Entry,
        files: &mut Files,
        submitter: &Submitter,
    ) -> Option<Event<B>> {
        let transfer = self.table.get_mut(key)?;
        let operation = match transfer.state.take() {
            State::Running(operation) => operation,
            State::Pushed => return self.complete_entry(key, completion),
            State::Polling(memory) => {
                transfer.state = State::Queued(memory);
                self.in_flight -= 1;
                return self.polled(key, completion.result(), files, submitter);
            }
            _ => unreachable!("the kernel has it"),
        };
        let was_zero_copy = operation.is_zero_copy();
        // SAFETY: the tag's generation says that the completion is of this operation, and each
        // completion is taken from the queue once.
        match unsafe { operation.complete(completion) } {
            Progress::More(operation) => {
                transfer.state = State::Running(operation);
                if transfer.moves_no_more() {
                    // The next send may follow, before the notification.
                    self.leave_queue(key, files);
                }
                None
            }
            Progress::Done { result, buffer, copied } => {
                transfer.state = State::Queued(buffer);
                transfer.note_copied(copied);
                self.in_flight -= 1;
                let result = result.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO));
                self.go_on_or_finish(key, result, was_zero_copy, files, submitter)
            }
        }
    }

    /// Goes on with a transfer whose file is ready, or finishes one that is given up.
    fn polled<B>(
        &mut self,
        key: Key,
        result: i32,
        files: &mut Files,
        submitter: &Submitter,
    ) -> Option<Event<B>> {
        let is_cancelled = self.table.get(key)?.cancelled;
        // A pause is over so.
        if is_cancelled || result < 0 && result != -libc::ETIME {
            let errno = result.saturating_neg();
            let failure = Failure::Errno(if is_cancelled { libc::ECANCELED } else { errno });
            return self.finish(key, Err(failure), false, files, submitter);
        }
        self.to_rearm.push_back(key);
        None
    }

    /// Goes on with a transfer that is short or was refused for now, or finishes it.
    fn go_on_or_finish<B>(
        &mut self,
        key: Key,
        result: Result<usize, i32>,
        was_zero_copy: bool,
        files: &mut Files,
        submitter: &Submitter,
    ) -> Option<Event<B>> {
        let transfer = self.table.get_mut(key)?;
        let Some(open) = transfer.file.and_then(|file| files.get_mut(file)) else {
            unreachable!("a transfer keeps its file")
        };
        let result = match transfer.after_try(result, was_zero_copy, open) {
            Next::GoOn if !transfer.cancelled => {
                self.resumed += 1;
                self.to_rearm.push_back(key);
                return None;
            }
            Next::GoOn => Err(Failure::CANCELLED),
            Next::Over(result) => result,
        };
        self.finish(key, result, was_zero_copy, files, submitter)
    }

    fn finish<B>(
        &mut self,
        key: Key,
        result: Result<(), Failure>,
        was_zero_copy: bool,
        files: &mut Files,
        submitter: &Submitter,
    ) -> Option<Event<B>> {
        let transfer = self.table.get(key)?;
        let (is_sync, file) = (matches!(transfer.action, Action::Sync(_)), transfer.file);
        let open = file.and_then(|file| files.get_mut(file));
        if let (true, Some(open)) = (is_sync, open) {
            open.durability().end_sync(Transfer::errno_of(result));
            self.push_ready_sync(file, files);
        }
        let transfer = self.table.get(key)?;
        let open = file.and_then(|file| files.get_mut(file)).map(|open| {
            if let (Action::Send(_), Err(Failure::Errno(errno))) = (transfer.action, result) {
                open.note_connection_error(errno);
            }
            if was_zero_copy && transfer.copied == Some(true) {
                open.note_copied();
            }
            &*open
        });
        // The socket may have taken the bytes, but what it had to send was thrown away.
        let was_thrown_away = open.is_some_and(|open| open.aborted && transfer.takes_turns(open));
        let result = if was_thrown_away { Err(Failure::CANCELLED) } else { result };
        let token = Transfers::token_of(transfer, files);
        self.leave_queue(key, files);
        let transfer = self.remove(key, files, submitter, result)?;
        if was_zero_copy {
            self.zero_copy_sends += 1;
            self.zero_copy_sends_copied += u64::from(transfer.copied == Some(true));
        }
        Some(transfer.into_event(OperationId::new(self.driver, key), token, result))
    }

    /// Acts on a completion of an entry of the program's: the last one ends it.
    #[inline(never)]
    fn complete_entry<B>(&mut self, key: Key, completion: &cqueue::Entry) -> Option<Event<B>> {
        let transfer = self.table.get_mut(key)?;
        let token = transfer.token.unwrap_or(0);
        let (result, flags) = (completion.result(), completion.flags());
        let Action::Entry(entry) = &mut transfer.action else { return None };
        if entry.is_last(flags) {
            self.table.remove(key);
            self.in_flight -= 1;
        } else {
            transfer.state = State::Pushed;
        }
        let id = OperationId::new(self.driver, key);
        Some(Event::Completed { id, token, result, flags })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use bytes::Bytes;
    use io_uring::IoUring;
    use proptest::prelude::*;

    use super::*;
    use crate::arena::FixedArena;
    use crate::driver::arenas::Arenas;
    use crate::driver::transfer::{Action, Extent, Found, Memory, Transfer};
    use crate::driver::wakeup::Wakeup;
    use crate::system::SendOptions;
    use crate::uring::Probe;

    /// The transfers of a ring that is never entered: the test makes the completions up.
    struct MadeUp {
        files: Files,
        arenas: Arenas,
        transfers: Transfers,
        submitter: Submitter,
        file: Key,
    }

    impl MadeUp {
        /// Returns `None` where io_uring is not available.
        fn on(file: impl Into<OwnedFd>) -> Option<MadeUp> {
            let submitter = Submitter::new(IoUring::new(1024).ok()?, false);
            let mut files = Files::new(0, false);
            let mut wakeup = Wakeup::new(64).unwrap();
            let id = files.add(file.into(), &submitter, &mut wakeup).unwrap();
            let file = files.key(id).unwrap();
            let arenas = Arenas::new(0, Some(Probe::all()));
            Some(MadeUp { files, arenas, transfers: Transfers::new(0), submitter, file })
        }

        fn begin(&mut self, action: Action, len: usize) -> Key {
            let memory = Memory::Payload(Bytes::from(vec![1; len]).into());
            let transfer = Transfer::new(Some(self.file), action, memory, 0);
            let MadeUp { files, arenas, transfers, submitter, .. } = self;
            let id = transfers.begin(transfer, files, arenas, submitter).unwrap();
            // A sync is pushed with the next turn.
            transfers.rearm(files, arenas, submitter).unwrap();
            id.key_in(0).unwrap()
        }

        /// Completes a try, and begins the next one if there is one.
        fn complete(&mut self, key: Key, result: i32, flags: u32) -> Option<Event> {
            let numbers = [0u64, u64::from(result as u32) | u64::from(flags) << 32];
            // SAFETY: a completion is two words: the `user_data`, and the result with the flags.
            let completion: cqueue::Entry = unsafe { std::mem::transmute(numbers) };
            let MadeUp { files, arenas, transfers, submitter, .. } = self;
            assert!(transfers.is_in_flight(key));
            let event = transfers.complete(key, &completion, files, submitter);
            transfers.rearm(files, arenas, submitter).unwrap();
            // Nothing of it goes to the kernel.
            assert_eq!(submitter.enters, 0);
            event
        }

        fn next_event(&mut self) -> Option<Event> {
            match self.transfers.next_event(&mut self.files, &self.submitter)? {
                Found::Event(event) => Some(event),
                Found::SendingEnded(..) => None,
            }
        }

        /// Returns the flags of the call in the entry of the next try (`msg_flags` at byte 28).
        fn call_flags(&mut self, key: Key) -> i32 {
            let transfer = self.transfers.table.get_mut(key).unwrap();
            let open = self.files.get(self.file).unwrap();
            let memory = Memory::Payload(Bytes::from(vec![1; 8]).into());
            let descriptor = self.files.descriptor(self.file).unwrap();
            let (entry, operation) = transfer.build(descriptor, memory, open, &self.arenas);
            // SAFETY: not pushed.
            drop(unsafe { operation.not_submitted() });
            // SAFETY: an entry is 64 bytes of plain data.
            let words: [i32; 16] = unsafe { std::mem::transmute(entry) };
            words[7]
        }
    }

    const SEND: fn() -> Action = || Action::Send(SendOptions::new());

    fn sent(event: Option<Event>) -> (io::Result<usize>, usize) {
        match event {
            Some(Event::Sent { result, sent, .. }) => (result, sent),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_socket_that_refuses_to_wait_for_all_is_sent_to_without_from_then_on() {
        for errno in [libc::EOPNOTSUPP, libc::EINVAL] {
            let (ours, _theirs) = UnixStream::pair().unwrap();
            let Some(mut made_up) = MadeUp::on(ours) else { return };
            let key = made_up.begin(SEND(), 100);
            assert_ne!(made_up.call_flags(key) & libc::MSG_WAITALL, 0);
            assert!(made_up.complete(key, -errno, 0).is_none());
            assert_eq!(made_up.call_flags(key) & libc::MSG_WAITALL, 0);
            // Without it a send comes short, and goes on.
            assert!(made_up.complete(key, 60, 0).is_none());
            assert_eq!(sent(made_up.complete(key, 40, 0)).0.unwrap(), 100);
            let next = made_up.begin(SEND(), 10);
            assert_eq!(made_up.call_flags(next) & libc::MSG_WAITALL, 0);
            // A refusal that does not end is an error.
            let (result, sent) = sent(made_up.complete(next, -errno, 0));
            assert_eq!((result.unwrap_err().raw_os_error(), sent), (Some(errno), 0));
        }
    }

    #[test]
    fn a_send_that_the_kernel_has_no_room_for_as_zero_copy_is_an_ordinary_one() {
        const F_MORE: u32 = 2;
        const F_NOTIF: u32 = 8;
        let arena = FixedArena::new(4, 4096).unwrap();
        for errno in [libc::ENOMEM, libc::ENOBUFS, libc::EMSGSIZE, libc::EINVAL, libc::EOPNOTSUPP] {
            let (ours, _theirs) = UnixStream::pair().unwrap();
            let Some(mut made_up) = MadeUp::on(ours) else { return };
            let MadeUp { arenas, submitter, .. } = &mut made_up;
            arenas.register(&arena, crate::uring::RegisterOptions::new(), submitter).unwrap();
            let mut begin = || {
                let mut buffer = arena.allocate().unwrap();
                std::io::Write::write_all(&mut buffer, &[1; 4096]).unwrap();
                let action = Action::Send(SendOptions::new().zero_copy_from(1));
                let transfer =
                    Transfer::new(Some(made_up.file), action, Memory::Payload(buffer.into()), 0);
                let MadeUp { files, arenas, transfers, submitter, .. } = &mut made_up;
                let id = transfers.begin(transfer, files, arenas, submitter).unwrap();
                id.key_in(0).unwrap()
            };
            let key = begin();
            assert!(made_up.complete(key, -errno, F_MORE).is_none());
            assert!(made_up.complete(key, 0, F_NOTIF).is_none());
            let refuses = made_up.files.get(made_up.file).unwrap().refuses_zero_copy;
            assert_eq!(refuses, matches!(errno, libc::EINVAL | libc::EOPNOTSUPP));
            // An ordinary send has one completion.
            assert_eq!(sent(made_up.complete(key, 4096, 0)).0.unwrap(), 4096);
        }
    }

    #[test]
    fn a_sync_is_pushed_behind_the_writes_before_it_and_no_others() {
        let file = File::options().write(true).open("/proc/self/comm").unwrap();
        let Some(mut made_up) = MadeUp::on(file) else { return };
        let (first, second) =
            (made_up.begin(Action::Write, 100), made_up.begin(Action::Write, 100));
        let sync = made_up.begin(Action::Sync(Extent::Data), 0);
        let behind = made_up.begin(Action::Write, 100);
        let is_pushed = |made_up: &MadeUp| made_up.transfers.is_in_flight(sync);
        assert!(made_up.complete(behind, 100, 0).is_some());
        assert!(made_up.complete(second, 100, 0).is_some());
        // Short: the rest goes first.
        assert!(made_up.complete(first, 40, 0).is_none());
        assert!(!is_pushed(&made_up));
        assert!(made_up.complete(first, 60, 0).is_some());
        assert!(is_pushed(&made_up));
        let done = made_up.complete(sync, 0, 0);
        assert!(matches!(done, Some(Event::Done { result: Ok(()), .. })), "{done:?}");
    }

    #[test]
    fn after_a_sync_that_failed_none_of_the_file_says_that_it_is_durable() {
        let errno = |event: Option<Event>| match event {
            Some(Event::Done { result, .. }) => result.err().map(|error| error.to_string()),
            other => panic!("{other:?}"),
        };
        let file = || File::options().write(true).open("/proc/self/comm").unwrap();
        let Some(mut made_up) = MadeUp::on(file()) else { return };
        let syncs = [(); 3].map(|()| made_up.begin(Action::Sync(Extent::All), 0));
        // One at a time: two could share one error.
        assert!(made_up.transfers.is_in_flight(syncs[0]));
        assert!(!made_up.transfers.is_in_flight(syncs[1]));
        assert!(errno(made_up.complete(syncs[0], -libc::EIO, 0)).is_some());
        for _ in &syncs[1..] {
            let text = errno(made_up.next_event()).unwrap();
            assert!(text.contains("may be lost"), "{text}");
        }
        let write = made_up.begin(Action::Write, 10);
        assert!(made_up.complete(write, 10, 0).is_some());
        made_up.begin(Action::Sync(Extent::Data), 0);
        assert!(errno(made_up.next_event()).is_some());
        // What cannot be synced has lost nothing.
        let Some(mut made_up) = MadeUp::on(file()) else { return };
        for _ in 0..2 {
            let sync = made_up.begin(Action::Sync(Extent::All), 0);
            assert!(errno(made_up.complete(sync, -libc::EINVAL, 0)).is_some());
        }
    }

    #[test]
    fn a_poll_that_fails_ends_its_transfer() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let Some(mut made_up) = MadeUp::on(ours) else { return };
        let key = made_up.begin(SEND(), 100);
        assert!(made_up.complete(key, 30, 0).is_none());
        assert!(made_up.complete(key, -libc::EAGAIN, 0).is_none());
        let (result, sent) = sent(made_up.complete(key, -libc::ENOMEM, 0));
        assert_eq!((result.unwrap_err().raw_os_error(), sent), (Some(libc::ENOMEM), 30));
    }

    #[test]
    fn a_write_that_no_byte_comes_of_is_told_with_its_part() {
        let null = File::options().write(true).open("/dev/null").unwrap();
        let Some(mut made_up) = MadeUp::on(null) else { return };
        let key = made_up.begin(Action::Write, 100);
        assert!(made_up.complete(key, 70, 0).is_none());
        let Some(Event::Wrote { result, written, .. }) = made_up.complete(key, 0, 0) else {
            panic!("it went on")
        };
        assert_eq!((result.unwrap_err().kind(), written), (io::ErrorKind::WriteZero, 70));
    }

    #[test]
    fn a_read_that_ends_after_a_part_says_so_and_keeps_the_part() {
        // The last answer of the kernel, the wish of the program, and the end that is told.
        let ends = [(-libc::EIO, false, libc::EIO), (200, true, libc::ECANCELED)];
        for (last, is_cancelled, errno) in ends {
            let Some(mut made_up) = MadeUp::on(File::open("/proc/self/exe").unwrap()) else {
                return;
            };
            let arena = FixedArena::new(1, 4096).unwrap();
            let memory = Memory::Buffer(arena.allocate().unwrap());
            let action = Action::Read(usize::MAX);
            let transfer = Transfer::new(Some(made_up.file), action, memory, 0);
            let MadeUp { files, arenas, transfers, submitter, file } = &mut made_up;
            assert!(files.get(*file).unwrap().has_offsets);
            let id = transfers.begin(transfer, files, arenas, submitter).unwrap();
            let key = id.key_in(0).unwrap();
            assert!(made_up.complete(key, 100, 0).is_none());
            if is_cancelled {
                let MadeUp { files, transfers, submitter, .. } = &mut made_up;
                transfers.cancel(id, files, submitter).unwrap();
            }
            let Some(Event::Read { result, buffer, .. }) = made_up.complete(key, last, 0) else {
                panic!("it went on")
            };
            // A short read that says `Ok` would be the end of the file.
            assert_eq!(result.unwrap_err().raw_os_error(), Some(errno));
            assert_eq!(buffer.len(), 100 + usize::try_from(last).unwrap_or(0));
        }
    }

    #[test]
    fn what_is_over_behind_a_stuck_send_does_not_pile_up() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let Some(mut made_up) = MadeUp::on(ours) else { return };
        made_up.begin(SEND(), 100);
        let last = made_up.begin(SEND(), 100);
        for _ in 0..20_000 {
            let key = made_up.begin(SEND(), 1);
            let MadeUp { files, transfers, submitter, .. } = &mut made_up;
            transfers.cancel(OperationId::new(0, key), files, submitter).unwrap();
            assert!(made_up.next_event().is_some());
            assert!(made_up.files.get(made_up.file).unwrap().queue.len() <= 4);
        }
        assert!(made_up.transfers.table.get(last).is_some());
        assert_eq!(made_up.transfers.table.len(), 2);
    }

    /// One step of a program, or of the kernel.
    #[derive(Debug, Clone)]
    enum Step {
        Begin {
            len: usize,
        },
        Cancel {
            which: prop::sample::Index,
        },
        /// The kernel completes the first of the queue: with a part of what is left, or an error.
        Complete {
            part: u8,
            errno: Option<i32>,
        },
        TakeEvent,
    }

    fn step() -> impl Strategy<Value = Step> {
        let errno = prop_oneof![
            6 => Just(None),
            1 => Just(Some(libc::EINTR)),
            1 => Just(Some(libc::EPIPE)),
            1 => Just(Some(libc::ECANCELED)),
        ];
        prop_oneof![
            4 => (0usize..200).prop_map(|len| Step::Begin { len }),
            2 => any::<prop::sample::Index>().prop_map(|which| Step::Cancel { which }),
            5 => (any::<u8>(), errno).prop_map(|(part, errno)| Step::Complete { part, errno }),
            2 => Just(Step::TakeEvent),
        ]
    }

    /// The wire, as the peer sees it: the transfers whose bytes came, in order.
    #[derive(Default)]
    struct Wire(Vec<(Key, usize)>);

    impl Wire {
        fn carry(&mut self, key: Key, bytes: usize) {
            match self.0.last_mut() {
                Some((last, carried)) if *last == key => *carried += bytes,
                _ if bytes > 0 => self.0.push((key, bytes)),
                _ => {}
            }
        }
    }

    proptest! {
        /// The properties: each send has one event, which tells the bytes that went out; one that
        /// says `Ok` went out whole; on a stream nothing stands behind a part. Datagrams that fail
        /// let others follow.
        #[test]
        fn a_stream_is_never_torn_unnoticed(
            is_stream in any::<bool>(),
            steps in prop::collection::vec(step(), 0..120),
        ) {
            let made_up = match is_stream {
                true => MadeUp::on(UnixStream::pair().unwrap().0),
                false => MadeUp::on(UnixDatagram::pair().unwrap().0),
            };
            let Some(mut made_up) = made_up else { return Ok(()) };
            let mut live: Vec<(Key, usize)> = Vec::new();
            let mut wire = Wire::default();
            let mut told: Vec<(Key, usize, usize, bool)> = Vec::new();
            let mut take = |live: &mut Vec<(Key, usize)>, event: Event| {
                let Event::Sent { id, result, sent, .. } = event else { panic!() };
                let key = id.key_in(0).unwrap();
                let at = live.iter().position(|(known, _)| *known == key).expect("one event each");
                let (_, len) = live.remove(at);
                told.push((key, len, sent, result.is_ok()));
            };
            let finish = [Step::Complete { part: 255, errno: None }, Step::TakeEvent];
            let rest = std::iter::repeat_n(finish, 400).flatten();
            for step in steps.into_iter().chain(rest) {
                match step {
                    Step::Begin { len } => {
                        let key = made_up.begin(SEND(), len);
                        live.push((key, len));
                    }
                    Step::Cancel { which } if !live.is_empty() => {
                        let (key, _) = *which.get(&live);
                        let MadeUp { files, transfers, submitter, .. } = &mut made_up;
                        let id = OperationId::new(0, key);
                        transfers.cancel(id, files, submitter).unwrap();
                    }
                    Step::Complete { part, errno } => {
                        let first = live.iter().find(|it| made_up.transfers.is_in_flight(it.0));
                        let Some(&(key, len)) = first else { continue };
                        let left = len - made_up.transfers.table.get(key).unwrap().done;
                        let moved = if is_stream { left * usize::from(part) / 255 } else { left };
                        // A try that moves nothing ends a stream's send.
                        let result = errno.map_or(moved as i32, |errno| -errno);
                        wire.carry(key, if errno.is_none() { moved } else { 0 });
                        if let Some(event) = made_up.complete(key, result, 0) {
                            take(&mut live, event);
                        }
                    }
                    Step::TakeEvent => {
                        if let Some(event) = made_up.next_event() {
                            take(&mut live, event);
                        }
                    }
                    Step::Cancel { .. } => {}
                }
                // The queue is one at a time.
                prop_assert!(made_up.transfers.in_flight <= 1);
            }
            prop_assert!(live.is_empty(), "no event came of {live:?}");
            for &(key, len, sent, is_ok) in &told {
                let carried = wire.0.iter().filter(|(of, _)| *of == key);
                prop_assert_eq!(carried.map(|(_, bytes)| bytes).sum::<usize>(), sent);
                prop_assert_eq!(is_ok && sent != len, false, "a part was called whole");
            }
            if is_stream {
                for (key, carried) in wire.0.iter().rev().skip(1) {
                    let (_, len, ..) = told.iter().find(|(of, ..)| of == key).unwrap();
                    prop_assert_eq!(carried, len, "bytes stand behind a part");
                }
            }
        }
    }
}
