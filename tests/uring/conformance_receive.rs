//! Behaviour of the kernel that the pieces rely on when receiving: one test each, on a bare ring.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::Write;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use crate::support::{arena, assert_all_free};
use bytes::Bytes;
use io_uring::{IoUring, cqueue, opcode, squeue, types::CancelBuilder, types::Fd};
use uring_arena::{ArenaBytes, BufferRing, BufferRingOptions, FixedArena, RingError, Status};

/// A ring of the test with one buffer ring on it.
struct Bench {
    uring: IoUring,
    ring: BufferRing,
    arena: FixedArena,
}

impl Bench {
    fn new(slots: usize, slot_bytes: usize, options: BufferRingOptions) -> Option<Bench> {
        let uring = match IoUring::new(32) {
            Ok(uring) => uring,
            Err(error) => {
                eprintln!("SKIPPED: io_uring: {error}");
                return None;
            }
        };
        let arena = arena(slots, slot_bytes);
        // SAFETY: its entries go to `uring` only, each completion comes back once, and `end` takes
        // it down.
        let ring = unsafe { BufferRing::register(&uring, &arena, options) }.unwrap();
        Some(Bench { uring, ring, arena })
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: the tests keep their sockets until their receives have ended, and the slots are
        // the ring's.
        unsafe { self.uring.submission().push(entry) }.unwrap();
        self.uring.submit().unwrap();
    }

    fn next(&mut self) -> cqueue::Entry {
        loop {
            if let Some(completion) = self.uring.completion().next() {
                return completion;
            }
            self.uring.submit_and_wait(1).unwrap();
        }
    }

    /// Interprets the next completion.
    fn receive(&mut self) -> (Vec<Bytes>, Status, u32) {
        let completion = self.next();
        // SAFETY: a completion of a receive of this ring, handed in once.
        let received = unsafe { self.ring.complete(&completion) };
        let status = received.status();
        (received.collect(), status, completion.flags())
    }

    /// Waits for the end of a receive whose last status is `status`.
    fn until_ended(&mut self, mut status: Status) {
        while status == Status::Armed {
            status = self.receive().1;
        }
    }

    /// Unregisters the ring; every slot is free then.
    fn end(mut self) {
        // SAFETY: the tests see the end of each receive first.
        unsafe { self.ring.unregister(&self.uring) }.unwrap();
        assert_all_free(&self.arena);
    }
}

fn pair() -> (UnixStream, UnixStream, RawFd) {
    let (sender, receiver) = UnixStream::pair().unwrap();
    let fd = receiver.as_raw_fd();
    (sender, receiver, fd)
}

fn text(bytes: &[Bytes]) -> Vec<u8> {
    bytes.concat()
}

#[test]
fn enobufs_carries_no_buffer_and_ends_the_receive() {
    let Some(mut bench) = Bench::new(1, 64, BufferRing::options().entries(1)) else { return };
    let (mut sender, _receiver, fd) = pair();
    sender.write_all(&[1; 128]).unwrap();
    bench.push(&bench.ring.receive_multi(Fd(fd)));
    let (bytes, status, _) = bench.receive();
    assert_eq!((bytes[0].len(), status), (64, Status::Armed));
    let (none, status, flags) = bench.receive();
    assert_eq!((none.len(), status), (0, Status::Starved));
    assert_eq!(cqueue::buffer_select(flags), None);
    assert!(!cqueue::more(flags));
    // The slot is free again and posted, and the rest arrives.
    drop(bytes);
    assert_eq!(bench.ring.refill(), 1);
    drop(sender);
    bench.push(&bench.ring.receive_multi(Fd(fd)));
    let (bytes, ..) = bench.receive();
    assert_eq!(bytes[0].len(), 64);
    // A slot is taken before the end of the stream is seen.
    let (_, status, _) = bench.receive();
    assert!(matches!(status, Status::Starved | Status::Finished), "{status:?}");
    drop(bytes);
    bench.end();
}

#[test]
fn an_empty_group_starves_a_receive_even_without_data() {
    let Some(mut bench) = Bench::new(1, 64, BufferRing::options().entries(1)) else { return };
    let (mut sender, _receiver, fd) = pair();
    sender.write_all(&[1; 64]).unwrap();
    bench.push(&bench.ring.receive_once(Fd(fd)));
    let (held, status, _) = bench.receive();
    assert_eq!(status, Status::Ended);
    for entry in [bench.ring.receive_once(Fd(fd)), bench.ring.receive_multi(Fd(fd))] {
        bench.push(&entry);
        assert_eq!(bench.receive().1, Status::Starved);
    }
    drop(held);
    bench.end();
}

#[test]
fn a_bundle_that_drains_the_ring_may_end_without_enobufs() {
    let options = BufferRing::options().bundles(true).entries(4);
    let Some(mut bench) = Bench::new(4, 64, options) else { return };
    let (mut sender, _receiver, fd) = pair();
    sender.write_all(&[1; 1000]).unwrap();
    bench.push(&bench.ring.receive_multi(Fd(fd)));
    let mut held = Vec::new();
    // The end is always told, by a status that asks for a new receive.
    let status = loop {
        let (bytes, status, _) = bench.receive();
        held.extend(bytes);
        if status != Status::Armed {
            break status;
        }
    };
    assert!(matches!(status, Status::Ended | Status::Starved), "{status:?}");
    assert_eq!(text(&held).len(), 256);
    drop(held);
    bench.end();
}

#[test]
fn the_end_of_a_stream_carries_no_buffer() {
    let Some(mut bench) = Bench::new(2, 64, BufferRing::options().entries(2)) else { return };
    let (sender, _receiver, fd) = pair();
    bench.push(&bench.ring.receive_multi(Fd(fd)));
    drop(sender);
    let (bytes, status, flags) = bench.receive();
    assert_eq!((bytes.len(), status), (0, Status::Finished));
    assert_eq!(cqueue::buffer_select(flags), None);
    assert_eq!(bench.ring.metrics().published, 2);
    bench.end();
}

#[test]
fn the_end_of_a_file_uses_a_buffer_up_which_is_recycled() {
    let Some(mut bench) = Bench::new(2, 64, BufferRing::options().entries(2)) else { return };
    let file = File::open("/dev/null").unwrap();
    let regular = tempfile();
    for fd in [file.as_raw_fd(), regular.as_raw_fd()] {
        for _ in 0..5 {
            bench.push(&bench.ring.read_once(Fd(fd)));
            let (bytes, status, _) = bench.receive();
            assert_eq!((bytes.len(), status), (0, Status::Finished));
            assert_eq!(bench.ring.refill(), 2, "a slot is lost");
        }
    }
    bench.end();
}

/// Opens an empty file without a name.
fn tempfile() -> File {
    let path = std::env::temp_dir().join(format!("uring-arena-{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

#[test]
fn a_bundle_takes_its_slots_in_ring_order_not_in_order_of_id() {
    let options = BufferRing::options().bundles(true).entries(4);
    let Some(mut bench) = Bench::new(4, 64, options) else { return };
    let (mut sender, _receiver, fd) = pair();
    bench.push(&bench.ring.receive_multi(Fd(fd)));
    let mut held: Vec<Bytes> = Vec::new();
    // Slots come back in another order each time, so slot indices and buffer ids differ.
    for round in 0..30u8 {
        let message: Vec<u8> = (0..150).map(|place| place ^ round).collect();
        sender.write_all(&message).unwrap();
        let mut got: Vec<Bytes> = Vec::new();
        while text(&got).len() < 150 {
            let (bytes, status, _) = bench.receive();
            got.extend(bytes);
            if status != Status::Armed {
                held.clear();
                bench.ring.refill();
                bench.push(&bench.ring.receive_multi(Fd(fd)));
            }
        }
        assert_eq!(text(&got), message, "round {round}");
        held.extend(got.into_iter().skip(usize::from(round % 2)));
        if round % 3 == 0 {
            held.clear();
        }
        bench.ring.refill();
    }
    held.clear();
    drop(sender);
    bench.until_ended(Status::Armed);
    bench.end();
}

#[test]
fn more_of_an_incremental_buffer_follows_behind_the_bytes_before() {
    let Some(mut bench) = Bench::new(1, 64, BufferRing::options().entries(1).incremental(true))
    else {
        return;
    };
    if !bench.ring.is_incremental() {
        eprintln!("SKIPPED: no incremental consumption (6.12)");
        return;
    }
    let (mut sender, _receiver, fd) = pair();
    bench.push(&bench.ring.receive_multi(Fd(fd)));
    sender.write_all(&[1; 40]).unwrap();
    let (first, _, flags) = bench.receive();
    assert!(cqueue::buffer_more(flags));
    sender.write_all(&[2; 24]).unwrap();
    let (second, _, flags) = bench.receive();
    assert!(!cqueue::buffer_more(flags));
    assert_eq!(second[0].as_ptr() as usize, first[0].as_ptr() as usize + 40);
    assert_eq!((&first[0][..], &second[0][..]), (&[1; 40][..], &[2; 24][..]));
    // The kernel has changed address and length of the entry: both are written anew.
    drop((first, second));
    bench.ring.refill();
    drop(sender);
    if bench.receive().1 == Status::Starved {
        bench.push(&bench.ring.receive_multi(Fd(fd)));
        assert_eq!(bench.receive().1, Status::Finished);
    }
    bench.end();
}

#[test]
fn in_an_incremental_bundle_more_refers_to_the_last_buffer() {
    let options = BufferRing::options().incremental(true).bundles(true).entries(8);
    let Some(mut bench) = Bench::new(8, 64, options) else { return };
    if !bench.ring.is_incremental() {
        eprintln!("SKIPPED: no incremental consumption (6.12)");
        return;
    }
    let (mut sender, _receiver, fd) = pair();
    bench.push(&bench.ring.receive_multi(Fd(fd)));
    let message: Vec<u8> = (0..=255).chain(0..44).collect();
    sender.write_all(&message).unwrap();
    let mut got = Vec::new();
    while text(&got).len() < 300 {
        got.extend(bench.receive().0);
    }
    assert_eq!(text(&got), message);
    assert_eq!(got.iter().map(Bytes::len).max(), Some(64));
    // The fifth buffer has 20 bytes left, and the next message starts there.
    sender.write_all(&[7; 20]).unwrap();
    let (next, status, flags) = bench.receive();
    assert_eq!(next[0].as_ptr() as usize, got.last().unwrap().as_ptr_range().end as usize);
    assert!(!cqueue::buffer_more(flags));
    drop((got, next));
    drop(sender);
    bench.until_ended(status);
    bench.end();
}

#[test]
fn a_cancelled_receive_uses_no_buffer() {
    let Some(mut bench) = Bench::new(2, 64, BufferRing::options().entries(2)) else { return };
    let (mut sender, _receiver, fd) = pair();
    bench.push(&bench.ring.receive_multi(Fd(fd)).user_data(7));
    let cancel = opcode::AsyncCancel2::new(CancelBuilder::user_data(7)).build().user_data(8);
    bench.push(&cancel);
    let mut cancelled = false;
    for _ in 0..2 {
        let completion = bench.next();
        if completion.user_data() == 8 {
            assert_eq!(completion.result(), 0);
            continue;
        }
        // SAFETY: a completion of a receive of this ring, handed in once.
        let received = unsafe { bench.ring.complete::<Bytes>(&completion) };
        assert_eq!((received.len(), received.status()), (0, Status::Cancelled));
        cancelled = true;
    }
    assert!(cancelled);
    assert_eq!(bench.ring.metrics().published, 2);
    // The ring goes on.
    sender.write_all(b"after").unwrap();
    bench.push(&bench.ring.receive_once(Fd(fd)));
    assert_eq!(text(&bench.receive().0), b"after");
    bench.end();
}

#[test]
fn data_and_end_that_arrive_together_are_told_in_order() {
    let Some(mut bench) = Bench::new(4, 64, BufferRing::options().entries(4)) else { return };
    for _ in 0..50 {
        let (mut sender, receiver, fd) = pair();
        bench.push(&bench.ring.receive_multi(Fd(fd)));
        sender.write_all(b"last").unwrap();
        drop(sender);
        let mut all = Vec::new();
        loop {
            let (bytes, status, _) = bench.receive();
            all.extend(text(&bytes));
            if status == Status::Finished {
                break;
            }
            assert_eq!(status, Status::Armed);
        }
        assert_eq!(all, b"last");
        drop(receiver);
        bench.ring.refill();
    }
    bench.end();
}

#[test]
fn an_empty_datagram_ends_a_plain_multishot_receive() {
    let Some(mut bench) = Bench::new(4, 64, BufferRing::options().entries(4)) else { return };
    let (ours, theirs) =
        (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    bench.push(&bench.ring.receive_multi(Fd(ours.as_raw_fd())));
    theirs.send_to(b"", ours.local_addr().unwrap()).unwrap();
    // Datagrams are received with their header for this reason: an empty one looks like an end.
    let (bytes, status, _) = bench.receive();
    assert_eq!((bytes.len(), status), (0, Status::Finished));
    bench.ring.refill();
    assert_eq!(bench.ring.metrics().published, 4);
    bench.end();
}

#[test]
fn an_empty_datagram_received_with_its_header_asks_to_be_armed_again() {
    let Some(mut bench) = Bench::new(4, 64, BufferRing::options().entries(4)) else { return };
    let (ours, theirs) =
        (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    bench.push(&bench.ring.receive_datagrams(Fd(ours.as_raw_fd())));
    theirs.send_to(b"", ours.local_addr().unwrap()).unwrap();
    let completion = bench.next();
    // SAFETY: a completion of a receive of this ring, handed in once.
    let received = unsafe { bench.ring.complete_datagram::<ArenaBytes>(&completion) };
    assert_eq!(received.status(), Status::Ended);
    let datagrams: Vec<_> = received.collect();
    assert_eq!(datagrams[0].bytes.len(), 0);
    drop(datagrams);
    bench.end();
}

#[test]
fn the_ring_is_not_borrowed_by_the_result_of_a_completion() {
    let Some(mut bench) = Bench::new(2, 64, BufferRing::options().entries(2)) else { return };
    let (mut sender, _receiver, fd) = pair();
    sender.write_all(b"hello").unwrap();
    bench.push(&bench.ring.receive_once(Fd(fd)));
    let completion = bench.next();
    // SAFETY: a completion of a receive of this ring, handed in once.
    let ready = match unsafe { bench.ring.complete::<ArenaBytes>(&completion) }.next() {
        Some(bytes) => {
            assert_eq!(bytes, &b"hello"[..]);
            bench.ring.refill()
        }
        None => 0,
    };
    assert_eq!(ready, 1, "the other slot is the message's");
    assert_eq!(bench.ring.refill(), 2);
    bench.end();
}

#[test]
fn what_is_not_taken_out_of_a_completion_is_not_lost() {
    let Some(mut bench) = Bench::new(4, 64, BufferRing::options().entries(4).bundles(true)) else {
        return;
    };
    let (mut sender, _receiver, fd) = pair();
    for _ in 0..20 {
        sender.write_all(&[1; 130]).unwrap();
        bench.push(&bench.ring.receive_once(Fd(fd)));
        let completion = bench.next();
        // SAFETY: a completion of a receive of this ring, handed in once.
        drop(unsafe { bench.ring.complete::<ArenaBytes>(&completion) });
        assert_eq!(bench.ring.refill(), 4);
    }
    bench.end();
}

#[test]
fn a_ring_dropped_while_registered_quarantines_what_the_kernel_has() {
    let Some(bench) = Bench::new(8, 64, BufferRing::options().entries(4)) else { return };
    let Bench { uring, ring, arena } = bench;
    drop(ring);
    assert_eq!(arena.metrics().quarantined, 4);
    let mut left = Vec::new();
    assert_eq!(arena.allocate_many(8, |buffer| left.push(buffer)), 4);
    drop(uring);
}

#[test]
fn a_group_id_can_be_used_again_after_it_was_taken_down() {
    let Some(mut bench) = Bench::new(2, 64, BufferRing::options().entries(2).group(65535)) else {
        return;
    };
    for _ in 0..3 {
        // SAFETY: nothing is in flight.
        unsafe { bench.ring.unregister(&bench.uring) }.unwrap();
        assert_eq!(bench.ring.refill(), 0, "a ring that is down publishes nothing");
        let options = BufferRing::options().group(65535);
        // SAFETY: as in `Bench::new`.
        bench.ring = unsafe { BufferRing::register(&bench.uring, &bench.arena, options) }.unwrap();
    }
    bench.end();
}

/// Before Linux 6.9 the kernel keeps the head of a low group for the next ring of that group. Bytes
/// came in another order then. The library takes high groups, and refuses low ones it is not sure
/// of.
#[test]
fn a_ring_begins_at_its_first_entry_whatever_its_group_did_before() {
    let Some(mut bench) = Bench::new(4, 64, BufferRing::options().entries(4)) else { return };
    assert!(bench.ring.group() >= 64, "{}", bench.ring.group());
    for group in [bench.ring.group(), 3] {
        for round in 0..3 {
            // SAFETY: nothing is in flight.
            unsafe { bench.ring.unregister(&bench.uring) }.unwrap();
            let options = BufferRing::options().entries(4).group(group);
            // SAFETY: as in `Bench::new`.
            match unsafe { BufferRing::register(&bench.uring, &bench.arena, options) } {
                Ok(ring) => bench.ring = ring,
                Err(RingError::Unsupported { .. } | RingError::GroupTaken { .. }) if group < 64 => {
                    return assert_all_free(&bench.arena);
                }
                Err(error) => panic!("{error}"),
            }
            let (mut sender, _receiver, fd) = pair();
            let sent = [[round; 64], [round + 10; 64], [round + 20; 64]].concat();
            sender.write_all(&sent).unwrap();
            bench.push(&bench.ring.receive_multi(Fd(fd)));
            let (mut received, mut last) = (Vec::new(), Status::Armed);
            while received.len() < sent.len() {
                let (bytes, status, _) = bench.receive();
                assert_eq!(status, Status::Armed, "group {group}, {} bytes", received.len());
                (received, last) = ([received, text(&bytes)].concat(), status);
            }
            assert_eq!(received, sent, "group {group}");
            drop(sender);
            bench.until_ended(last);
        }
    }
    bench.end();
}
