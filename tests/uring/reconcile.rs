//! Posted slots that the kernel takes and reports in no completion, on the real kernel.
//!
//! Worker threads of the kernel run the receives, which are cancelled at every moment.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::support::seccomp;
use crate::support::{arena, assert_all_free};
use io_uring::{IoUring, opcode, squeue, types::CancelBuilder, types::Fd};
use uring_arena::{ArenaBytes, BufferRing, FixedArena, Status};

const ENTRIES: usize = 8;
const CANCEL: u64 = 1 << 32;

struct Bench {
    uring: IoUring,
    ring: BufferRing,
    arena: FixedArena,
    in_flight: usize,
    received: Vec<ArenaBytes>,
}

impl Bench {
    fn new() -> Option<Bench> {
        let uring = match IoUring::new(64) {
            Ok(uring) => uring,
            Err(error) => {
                eprintln!("SKIPPED: io_uring: {error}");
                return None;
            }
        };
        let arena = arena(32, 64);
        let options = BufferRing::options().entries(ENTRIES);
        // SAFETY: its entries go to `uring` only, each completion comes back once, and `end` takes
        // it down.
        let ring = unsafe { BufferRing::register(&uring, &arena, options) }.unwrap();
        Some(Bench { uring, ring, arena, in_flight: 0, received: Vec::new() })
    }

    /// Pushes a receive for a worker thread of the kernel to run.
    fn push_async(&mut self, entry: squeue::Entry, number: u64) {
        let entry =
            entry.flags(squeue::Flags::ASYNC | squeue::Flags::BUFFER_SELECT).user_data(number);
        // SAFETY: the tests keep their files until every receive has ended, and the slots are the
        // ring's.
        unsafe { self.uring.submission().push(&entry) }.unwrap();
        self.in_flight += 1;
    }

    fn cancel(&mut self, number: u64) {
        let builder = CancelBuilder::user_data(number);
        let entry = opcode::AsyncCancel2::new(builder).build().user_data(CANCEL);
        // SAFETY: refers to nothing.
        unsafe { self.uring.submission().push(&entry) }.unwrap();
    }

    /// Hands in completions until every receive has ended, and returns their statuses.
    fn reap(&mut self) -> Vec<Status> {
        let mut ended = Vec::new();
        self.uring.submit().unwrap();
        while self.in_flight > 0 {
            let Some(completion) = self.uring.completion().next() else {
                self.uring.submit_and_wait(1).unwrap();
                continue;
            };
            if completion.user_data() == CANCEL {
                continue;
            }
            // SAFETY: a completion of a receive of this ring, handed in once.
            let received = unsafe { self.ring.complete(&completion) };
            let status = received.status();
            self.received.extend(received);
            if status != Status::Armed {
                self.in_flight -= 1;
                ended.push(status);
            }
        }
        ended
    }

    /// Takes back the slots that the kernel did not report; nothing may be in flight.
    fn reconcile(&mut self) -> usize {
        // SAFETY: of this ring, and every receive has ended.
        let taken = unsafe { self.ring.reconcile(&self.uring) }.unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { self.ring.reconcile(&self.uring) }.unwrap(), 0, "once is enough");
        self.received.clear();
        assert_eq!(self.ring.refill(), ENTRIES, "every place is posted to again");
        let states = self.arena.slot_states();
        assert_eq!((states.free, states.total()), (32 - ENTRIES, 32), "{states:?}");
        taken
    }

    fn end(mut self) -> u64 {
        self.received.clear();
        // SAFETY: every receive has ended.
        unsafe { self.ring.unregister(&self.uring) }.unwrap();
        assert_all_free(&self.arena);
        self.ring.metrics().unreported_slots
    }
}

#[test]
fn receives_of_worker_threads_that_are_cancelled_lose_no_slot() {
    let Some(mut bench) = Bench::new() else { return };
    let mut unreported = 0;
    for round in 0..200u64 {
        let (mut sender, receiver) = UnixStream::pair().unwrap();
        for number in 0..4 {
            let entry = bench.ring.receive_once(Fd(receiver.as_raw_fd()));
            bench.push_async(entry, number);
        }
        bench.uring.submit().unwrap();
        // The delays reach from before the worker begins to long after it waits.
        std::thread::sleep(Duration::from_micros(round % 10 * 20));
        if round % 3 == 0 {
            sender.write_all(b"meanwhile").unwrap();
        }
        for number in 0..4 {
            bench.cancel(number);
        }
        bench.uring.submit().unwrap();
        // A receive that missed its cancellation ends with the stream.
        drop(sender);
        let ended = bench.reap();
        let is_expected = |status: &Status| {
            matches!(status, Status::Cancelled | Status::Ended | Status::Finished)
        };
        assert!(ended.iter().all(is_expected), "{ended:?}");
        unreported += bench.reconcile();
    }
    println!("{unreported} slots were used up and not told of");
    assert_eq!(bench.end(), unreported as u64);
}

#[test]
fn reads_of_pipes_by_worker_threads_that_are_cancelled_lose_no_slot() {
    let Some(mut bench) = Bench::new() else { return };
    let mut unreported = 0;
    for round in 0..200u64 {
        let (reader, mut writer) = std::io::pipe().unwrap();
        for number in 0..4 {
            let entry = bench.ring.read_once(Fd(reader.as_raw_fd()));
            bench.push_async(entry, number);
        }
        bench.uring.submit().unwrap();
        std::thread::sleep(Duration::from_micros(round % 10 * 20));
        if round % 3 == 0 {
            writer.write_all(b"meanwhile").unwrap();
        }
        for number in 0..4 {
            bench.cancel(number);
        }
        bench.uring.submit().unwrap();
        // A worker that was cancelled just before it slept sleeps on: the end of the pipe wakes it.
        drop(writer);
        bench.reap();
        unreported += bench.reconcile();
    }
    println!("{unreported} slots were used up and not told of");
    assert_eq!(bench.end(), unreported as u64);
}

#[test]
fn reads_of_files_by_worker_threads_lose_no_slot() {
    let Some(mut bench) = Bench::new() else { return };
    let file = File::open("/proc/self/exe").unwrap();
    let mut unreported = 0;
    for _ in 0..200 {
        for number in 0..4 {
            // One read is past the end of the file: its slot is used up, and comes back.
            let offset = if number == 3 { 1 << 40 } else { number * 64 };
            let entry = opcode::Read::new(Fd(file.as_raw_fd()), std::ptr::null_mut(), 64)
                .offset(offset)
                .buf_group(bench.ring.group())
                .build();
            bench.push_async(entry, number);
        }
        for number in 0..4 {
            bench.cancel(number);
        }
        bench.reap();
        unreported += bench.reconcile();
    }
    println!("{unreported} slots were used up and not told of");
    assert_eq!(bench.end(), unreported as u64);
}

/// The kernel takes two slots whose completions are never handed in, as if it had lost them.
#[test]
fn slots_that_no_completion_named_are_taken_back_and_counted() {
    let Some(mut bench) = Bench::new() else { return };
    let (mut sender, receiver) = UnixStream::pair().unwrap();
    for text in [b"first", b"other"] {
        sender.write_all(text).unwrap();
        let entry = bench.ring.receive_once(Fd(receiver.as_raw_fd()));
        // SAFETY: the socket outlives the receive, and the slots are the ring's.
        unsafe { bench.uring.submission().push(&entry) }.unwrap();
        bench.uring.submit_and_wait(1).unwrap();
        assert_eq!(bench.uring.completion().next().unwrap().result(), 5);
    }
    sender.write_all(b"third").unwrap();
    let entry = bench.ring.receive_once(Fd(receiver.as_raw_fd())).user_data(7);
    // SAFETY: as above.
    unsafe { bench.uring.submission().push(&entry) }.unwrap();
    bench.in_flight = 1;
    bench.reap();
    assert_eq!(bench.received[0], b"third"[..]);
    // The third slot completed before the others, as far as the ring knows. Slots are posted to in
    // order, so no entry is free.
    assert_eq!((bench.ring.refill(), bench.ring.metrics().published), (ENTRIES, ENTRIES - 1));
    assert_eq!(bench.reconcile(), 2);
    // The bytes received before are as they were, and the ring goes on.
    sender.write_all(b"again").unwrap();
    let entry = bench.ring.receive_once(Fd(receiver.as_raw_fd()));
    // SAFETY: as above.
    unsafe { bench.uring.submission().push(&entry) }.unwrap();
    bench.in_flight = 1;
    bench.reap();
    assert_eq!(bench.received[0], b"again"[..]);
    assert_eq!(bench.end(), 2);
}

#[test]
fn taking_the_ring_down_takes_back_what_was_not_told_of() {
    let Some(mut bench) = Bench::new() else { return };
    let (mut sender, receiver) = UnixStream::pair().unwrap();
    sender.write_all(b"lost").unwrap();
    let entry = bench.ring.receive_once(Fd(receiver.as_raw_fd()));
    // SAFETY: the socket outlives the receive, and the slots are the ring's.
    unsafe { bench.uring.submission().push(&entry) }.unwrap();
    bench.uring.submit_and_wait(1).unwrap();
    assert_eq!(bench.uring.completion().next().unwrap().result(), 4);
    assert_eq!(bench.end(), 1);
}

#[test]
fn a_ring_that_is_down_has_nothing_to_take_back() {
    let Some(mut bench) = Bench::new() else { return };
    // SAFETY: nothing was ever received.
    unsafe { bench.ring.unregister(&bench.uring) }.unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { bench.ring.reconcile(&bench.uring) }, Ok(0));
    let other = IoUring::new(8).unwrap();
    let options = BufferRing::options().group(103);
    // SAFETY: nothing is received, and it is taken down below.
    let mut ring = unsafe { BufferRing::register(&bench.uring, &bench.arena, options) }.unwrap();
    // SAFETY: not of this ring, which the kernel says; nothing is in flight.
    let error = unsafe { ring.reconcile(&other) }.unwrap_err();
    assert!(error.to_string().contains("ask how far a buffer ring was used"), "{error}");
    // SAFETY: nothing is in flight.
    unsafe { ring.unregister(&bench.uring) }.unwrap();
}

/// Makes `IORING_REGISTER_PBUF_STATUS` fail on this thread as on a kernel before 6.8.
fn take_the_status_call_away_on_this_thread() -> std::io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// The offset of the lower half of the second argument, on a little-endian machine.
    const OPCODE_AT: u32 = 24;
    const STATUS: u32 = 26;
    let mut program = [
        libc::sock_filter { code: LOAD, jt: 0, jf: 0, k: 0 },
        libc::sock_filter {
            code: JUMP_IF_EQUAL,
            jt: 0,
            jf: 3,
            k: libc::SYS_io_uring_register as u32,
        },
        libc::sock_filter { code: LOAD, jt: 0, jf: 0, k: OPCODE_AT },
        libc::sock_filter { code: JUMP_IF_EQUAL, jt: 0, jf: 1, k: STATUS },
        libc::sock_filter {
            code: RETURN,
            jt: 0,
            jf: 0,
            k: libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32,
        },
        libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
    ];
    seccomp::filter_this_thread(&mut program)
}

#[cfg(target_endian = "little")]
#[test]
fn a_kernel_that_cannot_be_asked_loses_only_the_count() {
    let older = std::thread::spawn(|| {
        if let Err(error) = take_the_status_call_away_on_this_thread() {
            return eprintln!("SKIPPED older kernel: no seccomp here: {error}");
        }
        let Some(mut bench) = Bench::new() else { return };
        let (mut sender, receiver) = UnixStream::pair().unwrap();
        sender.write_all(b"lost").unwrap();
        let entry = bench.ring.receive_once(Fd(receiver.as_raw_fd()));
        // SAFETY: the socket outlives the receive, and the slots are the ring's.
        unsafe { bench.uring.submission().push(&entry) }.unwrap();
        bench.uring.submit_and_wait(1).unwrap();
        assert_eq!(bench.uring.completion().next().unwrap().result(), 4);
        // SAFETY: of this ring, and every receive has ended.
        assert_eq!(unsafe { bench.ring.reconcile(&bench.uring) }, Ok(0));
        assert_eq!(bench.ring.metrics().published, ENTRIES);
        // Unregistering frees that slot with all others.
        assert_eq!(bench.end(), 0);
    });
    older.join().unwrap();
}
