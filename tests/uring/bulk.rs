//! Bulk data through a buffer ring on a ring of one's own: pieces of several slots.
#![allow(unsafe_code)]

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use bytes::Bytes;
use io_uring::{IoUring, opcode, types};
use uring_arena::{
    ArenaBytes, BufferRing, BufferRingOptions, DirectFile, FixedArena, RegistrationMode, Status,
};

use crate::support::ring::{register, ring, run};
use crate::support::{
    TIMEOUT, TestFile, arena, assert_all_free, paged_arena, pattern, read_all, tcp_pair,
};

/// A receive on a ring of one's own.
struct Receiver {
    uring: IoUring,
    ring: BufferRing,
    socket: TcpStream,
    is_armed: bool,
}

impl Receiver {
    fn new(arena: &FixedArena, options: BufferRingOptions, socket: TcpStream) -> Option<Receiver> {
        let uring = ring("bulk")?;
        // SAFETY: its entries go to `uring` only, each completion comes back once, and `end` takes
        // it down.
        let ring = unsafe { BufferRing::register(&uring, arena, options) }.unwrap();
        Some(Receiver { uring, ring, socket, is_armed: false })
    }

    fn arm(&mut self) {
        let entry = self.ring.receive_multi(types::Fd(self.socket.as_raw_fd()));
        // SAFETY: the socket is open until the receive has ended, and the slots are the ring's.
        unsafe { self.uring.submission().push(&entry) }.unwrap();
        self.is_armed = true;
    }

    /// Waits for the next completion, and interprets it.
    fn next(&mut self) -> (Vec<ArenaBytes>, Status) {
        let until = Instant::now() + TIMEOUT;
        loop {
            if let Some(completion) = self.uring.completion().next() {
                // SAFETY: a completion of a receive of this ring, handed in once.
                let received = unsafe { self.ring.complete::<ArenaBytes>(&completion) };
                let status = received.status();
                self.is_armed = status == Status::Armed;
                return (received.collect(), status);
            }
            assert!(Instant::now() < until, "nothing comes: {:?}", self.ring);
            let second = types::Timespec::from(Duration::from_secs(1));
            let arguments = types::SubmitArgs::new().timespec(&second);
            match self.uring.submitter().submit_with_args(1, &arguments) {
                Err(error) if error.raw_os_error() != Some(libc::ETIME) => panic!("{error}"),
                _ => {}
            }
        }
    }

    /// Receives until the stream ends, has failed, or was cancelled; then the receive is over.
    fn until_over(&mut self, mut each: impl FnMut(ArenaBytes)) -> Status {
        loop {
            if !self.is_armed {
                self.ring.refill();
                self.arm();
            }
            // Much lies ready then.
            sleep(Duration::from_micros(500));
            let (pieces, status) = self.next();
            pieces.into_iter().for_each(&mut each);
            self.ring.refill();
            if !matches!(status, Status::Armed | Status::Starved | Status::Ended) {
                return status;
            }
        }
    }

    /// Cancels the receive, and interprets what it still brings.
    fn cancel(&mut self, mut each: impl FnMut(ArenaBytes)) {
        const CANCEL: u64 = 1;
        let entry = opcode::AsyncCancel::new(0).build().user_data(CANCEL);
        // SAFETY: the entry names no memory.
        unsafe { self.uring.submission().push(&entry) }.unwrap();
        let mut is_cancelled = false;
        while self.is_armed || !is_cancelled {
            self.uring.submit_and_wait(1).unwrap();
            while let Some(completion) = self.uring.completion().next() {
                if completion.user_data() == CANCEL {
                    is_cancelled = true;
                    continue;
                }
                // SAFETY: a completion of a receive of this ring, handed in once.
                let received = unsafe { self.ring.complete::<ArenaBytes>(&completion) };
                self.is_armed = received.status() == Status::Armed;
                received.for_each(&mut each);
            }
        }
    }

    /// Unregisters the ring.
    fn end(mut self) {
        assert!(!self.is_armed);
        // SAFETY: the receive has ended.
        unsafe { self.ring.unregister(&self.uring) }.unwrap();
        assert_eq!(self.ring.metrics().unreported_slots, 0);
    }
}

/// Sends `len` bytes of a pattern, and ends the connection.
fn send_all(mut sender: TcpStream, len: usize) -> JoinHandle<()> {
    spawn(move || {
        // The receiver may have gone.
        let _ = sender.write_all(&pattern(6, len));
        let _ = sender.shutdown(Shutdown::Write);
    })
}

/// Receives a stream whole, and compares it. Returns the slots of each piece.
fn stream(arena: &FixedArena, options: BufferRingOptions, len: usize) -> Option<Vec<usize>> {
    let (sender, socket) = tcp_pair();
    let mut receiver = Receiver::new(arena, options, socket)?;
    let sending = send_all(sender, len);
    let (expected, mut at, mut slots) = (pattern(6, len), 0, Vec::new());
    let status = receiver.until_over(|piece| {
        assert!(expected[at..].starts_with(&piece), "differs at {at}");
        at += piece.len();
        slots.push(piece.slot_count());
    });
    assert_eq!((at, status), (len, Status::Finished));
    sending.join().unwrap();
    receiver.end();
    assert_all_free(arena);
    Some(slots)
}

#[test]
fn bulk_comes_in_pieces_of_many_slots() {
    for bundles in [false, true] {
        let arena = paged_arena(1024, 4096);
        let Some(slots) = stream(&arena, BufferRing::options().bundles(bundles), 8 << 20) else {
            return;
        };
        assert!(slots.iter().any(|&count| count >= 8), "bundles {bundles}: {slots:?}");
        assert!(slots.iter().all(|&count| (1..=32).contains(&count)), "{slots:?}");
    }
}

/// The fewest slots and entries, and slots of which no two fit into an entry.
#[test]
fn streams_are_whole_in_arenas_and_rings_of_any_size() {
    for (slots, slot_bytes) in
        [(1, 4096), (2, 4096), (3, 4096), (5, 100), (40, 4096), (64, 33 << 10), (2, 1 << 20)]
    {
        for entries in [None, Some(1), Some(2)] {
            for bundles in [false, true] {
                let arena = arena(slots, slot_bytes);
                let options = BufferRing::options().bundles(bundles);
                let options = entries.map_or(options, |entries| options.entries(entries));
                let len = (300 * slot_bytes).min(400_000);
                let Some(of_pieces) = stream(&arena, options, len) else { return };
                assert!(of_pieces.iter().all(|&count| count <= slots), "{slots} {of_pieces:?}");
            }
        }
    }
}

/// A receive that is cancelled, whose connection is reset, or whose ring goes, while much lies
/// ready and pieces are held: what came is right, and each slot is free once.
#[test]
fn the_end_in_the_middle_of_a_long_piece_loses_nothing() {
    for bundles in [false, true] {
        for end in ["cancel", "reset", "ring"] {
            let arena = paged_arena(256, 4096);
            let (sender, socket) = tcp_pair();
            // Unread bytes of its own make the close of a socket a reset.
            (&socket).write_all(b"nobody reads this").unwrap();
            let options = BufferRing::options().bundles(bundles);
            let Some(mut receiver) = Receiver::new(&arena, options, socket) else { return };
            let expected = pattern(6, 8 << 20);
            sender.set_nonblocking(true).unwrap();
            let (mut sent, mut at, mut held) = (0, 0, Vec::new());
            let long = std::cell::Cell::new(0);
            let mut take = |piece: ArenaBytes| {
                assert!(expected[at..].starts_with(&piece), "{end}: differs at {at}");
                held.push((at, piece.clone()));
                at += piece.len();
                long.set(long.get() + usize::from(piece.slot_count() > 1));
                if held.len() > 3 {
                    held.remove(0);
                }
            };
            while long.get() < 4 {
                while let Ok(len) = (&sender).write(&expected[sent..]) {
                    sent += len;
                }
                if !receiver.is_armed {
                    receiver.ring.refill();
                    receiver.arm();
                }
                receiver.next().0.into_iter().for_each(&mut take);
                receiver.ring.refill();
            }
            if !receiver.is_armed {
                receiver.arm();
            }
            match end {
                "reset" => {
                    drop(sender);
                    let status = receiver.until_over(&mut take);
                    assert_eq!(status, Status::Failed { errno: libc::ECONNRESET });
                }
                "cancel" => receiver.cancel(&mut take),
                _ => {
                    // The group goes first: the receive may still fill what it has selected.
                    receiver.cancel(&mut take);
                    drop(sender);
                }
            }
            receiver.end();
            for (start, piece) in held {
                assert!(expected[start..].starts_with(&piece), "{end}: changed at {start}");
            }
            assert_all_free(&arena);
        }
    }
}

/// `Bytes` of several slots go through operations of a ring of one's own: cut, written, also past
/// the page cache, and sent, in every mode of registration.
#[test]
fn a_long_piece_is_cut_written_and_sent() {
    for mode in [RegistrationMode::Slots, RegistrationMode::Regions, RegistrationMode::Unregistered]
    {
        let arena = paged_arena(256, 4096);
        let (sender, socket) = tcp_pair();
        let Some(mut receiver) = Receiver::new(&arena, BufferRing::options(), socket) else {
            return;
        };
        let sending = send_all(sender, 4 << 20);
        let mut long = None;
        receiver.until_over(|piece| {
            if piece.slot_count() >= 3 {
                long = Some(piece);
            }
        });
        sending.join().unwrap();
        receiver.end();
        let whole = Bytes::from(long.expect("bulk comes in long pieces"));
        let copy = whole.to_vec();

        let mut uring = ring("bulk").unwrap();
        let registered = register(&uring, &arena, mode);
        let file = TestFile::new("bulk", &[]);
        let handle = file.open();
        let wrote = run(&mut uring, registered.write(&handle, whole.slice(5..), 0));
        assert_eq!(wrote.result.unwrap(), copy.len() - 5);
        drop(wrote.buffer);
        assert_eq!(std::fs::read(&file).unwrap(), copy[5..]);
        let mut options = std::fs::File::options();
        match DirectFile::open_with(options.write(true), &file) {
            Err(error) => eprintln!("SKIPPED a_long_piece: {error}"),
            Ok(direct) => {
                let aligned = whole.slice(..copy.len() & !4095);
                direct.alignment().check_write(&aligned, 0).unwrap();
                let wrote = run(&mut uring, registered.write(&direct, aligned, 0));
                assert_eq!(wrote.result.unwrap(), copy.len() & !4095);
                let written = std::fs::read(&file).unwrap();
                assert_eq!(written[..copy.len() & !4095], copy[..copy.len() & !4095]);
            }
        }
        let (ours, theirs) = tcp_pair();
        let reading = spawn(move || read_all(theirs));
        let mut rest = whole.clone();
        let front = rest.split_to(4000);
        for part in [front, rest] {
            let len = part.len();
            let sent = run(&mut uring, registered.send(&ours, part, Default::default()));
            assert_eq!(sent.result.unwrap(), len);
        }
        drop(ours);
        assert_eq!(reading.join().unwrap(), copy);
        // A slice of the last byte keeps all slots, and its drop frees them.
        let last = whole.slice(copy.len() - 1..);
        drop(whole);
        assert_eq!(arena.slot_states().frozen, copy.len().div_ceil(4096));
        drop(last);
        if mode.is_registered() {
            registered.unregister(&uring).unwrap();
        }
        assert_all_free(&arena);
    }
}
