//! Bulk data: messages in several adjacent slots, the depth that follows them, and copies under
//! pressure.

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use uring_arena::{
    ArenaBytes, BufferRing, BufferRingId, BufferRingOptions, DirectFile, Driver, Event, Feature,
    FixedArena, Probe, RegisterOptions, RegistrationMode, RegistrationPolicy,
};

use crate::support::driver::{build, driver, finish, run};
use crate::support::{TestFile, arena, assert_all_free, paged_arena, pattern, read_all, tcp_pair};

/// Sends `len` bytes of a pattern from a thread, which ends the connection.
fn send_all(mut sender: TcpStream, seed: usize, len: usize) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for piece in pattern(seed, len).chunks(1 << 20) {
            sender.write_all(piece).unwrap();
        }
        sender.shutdown(Shutdown::Write).unwrap();
    })
}

/// Takes the events of one stream until it ends, with a pause before each turn, so that much lies
/// ready in the socket then.
fn take_slowly(driver: &mut Driver, mut each: impl FnMut(&Driver, ArenaBytes)) {
    loop {
        std::thread::sleep(Duration::from_millis(1));
        driver.wait_timeout(crate::support::TIMEOUT).unwrap();
        while let Some(event) = driver.next_arena_bytes() {
            match event {
                Event::Received { bytes, .. } => each(driver, bytes),
                Event::Closed { error, .. } => return assert!(error.is_none(), "{error:?}"),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Receives a stream whole, and compares it. Returns the length and the slots of each piece.
fn stream(driver: &mut Driver, ring: BufferRingId, len: usize) -> Vec<(usize, usize)> {
    let (sender, socket) = tcp_pair();
    driver.receive(ring, socket).unwrap();
    let thread = send_all(sender, 5, len);
    let (expected, mut at, mut pieces) = (pattern(5, len), 0, Vec::new());
    take_slowly(driver, |_, bytes| {
        assert!(expected[at..].starts_with(&bytes), "differs at {at}");
        at += bytes.len();
        pieces.push((bytes.len(), bytes.slot_count()));
    });
    thread.join().unwrap();
    assert_eq!(at, len);
    pieces
}

#[test]
fn bulk_comes_in_pieces_of_many_slots_and_small_messages_in_one() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(1024, 4096);
    // By default what lies ready first, in slots each by itself, is half of a cache: megabytes, by
    // what some virtual machines say.
    let options = BufferRing::options().ready_bytes(256 << 10);
    let ring = driver.register_buffer_ring(&arena, options).unwrap();
    let len = 16 << 20;
    let pieces = stream(&mut driver, ring, len);
    assert!(pieces.iter().all(|&(len, slots)| len.div_ceil(4096) == slots && slots <= 32));
    let mut of_slots = [0; 33];
    pieces.iter().for_each(|&(_, slots)| of_slots[slots] += 1);
    // How long a piece is depends on how much lies ready: a slow machine sends little in a turn.
    let long: usize = pieces.iter().filter(|&&(_, slots)| slots >= 4).map(|&(len, _)| len).sum();
    assert!(long > len / 2, "pieces by slots: {of_slots:?}");
    // Each small message has one slot, whatever lies ready for it.
    let (mut sender, socket) = tcp_pair();
    driver.receive(ring, socket).unwrap();
    let mut held = Vec::new();
    for number in 0..200u8 {
        sender.write_all(&[number; 100]).unwrap();
        let mut received = 0;
        while received < 100 {
            driver.wait_timeout(crate::support::TIMEOUT).unwrap();
            let Some(Event::Received { bytes, .. }) = driver.next_arena_bytes() else { continue };
            assert_eq!((bytes[0], bytes.slot_count()), (number, 1));
            received += bytes.len();
            held.push(bytes);
        }
    }
    let states = driver.slot_states(&arena);
    assert_eq!((states.frozen, states.held, states.total()), (held.len(), 0, 1024), "{states:?}");
    drop(held);
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn what_lies_ready_follows_the_messages() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(2048, 4096);
    let options = BufferRing::options().entries(1024).ready_bytes(256 << 10);
    let ring = driver.register_buffer_ring(&arena, options).unwrap();
    stream(&mut driver, ring, 4 << 20);
    let bulk = driver.ring_metrics(ring).unwrap().published;
    // The target, and an entry or two.
    assert!((16..=128).contains(&bulk), "{bulk} slots");
    let (mut sender, socket) = tcp_pair();
    driver.receive(ring, socket).unwrap();
    for number in 0..2000u32 {
        sender.write_all(&number.to_ne_bytes()).unwrap();
        let mut received = 0;
        run(&mut driver, |event| {
            let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
            received += bytes.len();
            received == 4
        });
    }
    let small = driver.ring_metrics(ring).unwrap().published;
    assert!(small >= 896, "{small} slots");
    finish(driver);
    assert_all_free(&arena);
}

/// Every slot size and number, every number of entries, with bundles and without: the bytes are
/// right, and nothing is lost.
#[test]
fn streams_are_whole_in_arenas_and_rings_of_any_size() {
    for (slots, slot_bytes) in
        [(1, 64), (1, 4096), (2, 4096), (3, 4096), (5, 100), (40, 4096), (2, 1 << 20), (100, 1000)]
    {
        for entries in [None, Some(1), Some(2), Some(64)] {
            for bundles in [false, true] {
                let Some(mut driver) = driver() else { return };
                let arena = arena(slots, slot_bytes);
                let options = BufferRing::options().bundles(bundles);
                let options = entries.map_or(options, |entries| options.entries(entries));
                let ring = driver.register_buffer_ring(&arena, options).unwrap();
                let len = (2000 * slot_bytes).min(600_000);
                let (sender, socket) = tcp_pair();
                driver.receive(ring, socket).unwrap();
                let thread = send_all(sender, 9, len);
                let (expected, mut at) = (pattern(9, len), 0);
                run(&mut driver, |event| match event {
                    Event::Received { bytes, .. } => {
                        assert!(expected[at..].starts_with(&bytes), "{slots} {entries:?} {at}");
                        at += bytes.len();
                        false
                    }
                    Event::Closed { error, .. } => error.is_none_or(|error| panic!("{error}")),
                    other => panic!("{other:?}"),
                });
                assert_eq!(at, len);
                thread.join().unwrap();
                finish(driver);
                assert_all_free(&arena);
            }
        }
    }
}

/// Returns a piece of at least three slots, and what came before it.
fn long_piece(driver: &mut Driver, ring: BufferRingId) -> Bytes {
    let (sender, socket) = tcp_pair();
    driver.receive(ring, socket).unwrap();
    let thread = send_all(sender, 1, 4 << 20);
    let mut long = None;
    take_slowly(driver, |_, bytes| {
        if bytes.slot_count() >= 3 {
            long = Some(bytes);
        }
    });
    thread.join().unwrap();
    long.expect("bulk comes in long pieces").into()
}

/// Bytes of several slots are one `Bytes`: cut, sent, written, also past the page cache, in every
/// mode of registration.
#[test]
fn a_long_piece_is_sliced_split_sent_and_written() {
    for mode in [RegistrationMode::Slots, RegistrationMode::Regions, RegistrationMode::Unregistered]
    {
        let Some(mut driver) = driver() else { return };
        let arena = paged_arena(256, 4096);
        if mode != RegistrationMode::Unregistered {
            let options = RegisterOptions::from(RegistrationPolicy::from(mode));
            if let Err(error) = driver.register_with(&arena, options) {
                eprintln!("SKIPPED: registration by {mode}: {error}");
                continue;
            }
        }
        let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
        let whole = long_piece(&mut driver, ring);
        let copy = whole.to_vec();
        let path = TestFile::new("long_piece", &[]);
        let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        let file = driver.add_file(file).unwrap();
        driver.write(file, whole.slice(5..), 5).unwrap();
        let (ours, theirs) = tcp_pair();
        let peer = driver.add_file(ours).unwrap();
        let mut rest = whole.clone();
        let front = rest.split_to(4000);
        driver.send(peer, front).unwrap();
        driver.send(peer, rest).unwrap();
        let reader = std::thread::spawn(move || read_all(theirs));
        let mut left = 3;
        run(&mut driver, |event| {
            match event {
                Event::Wrote { result, payload, .. } => {
                    assert_eq!((result.unwrap(), payload.as_ref()), (copy.len() - 5, &copy[5..]));
                }
                Event::Sent { result, payload, .. } => {
                    assert_eq!(result.unwrap(), payload.as_ref().len());
                }
                other => panic!("{other:?}"),
            }
            left -= 1;
            left == 0
        });
        driver.close_file(peer).unwrap();
        driver.wait_timeout(Duration::ZERO).unwrap();
        assert_eq!(reader.join().unwrap(), copy);
        let mut on_disk = Vec::new();
        std::fs::File::open(&path).unwrap().read_to_end(&mut on_disk).unwrap();
        assert_eq!(on_disk[5..], copy[5..]);
        write_direct(&mut driver, whole.slice(..whole.len() & !4095), path.as_ref());
        // A slice of the last byte keeps all slots, and no other.
        let slots = copy.len().div_ceil(4096);
        let last = whole.slice(copy.len() - 1..);
        drop(whole);
        assert_eq!(driver.slot_states(&arena).frozen, slots);
        drop(last);
        assert_eq!(driver.slot_states(&arena).frozen, 0);
        finish(driver);
        assert_all_free(&arena);
    }
}

fn write_direct(driver: &mut Driver, bytes: Bytes, path: &std::path::Path) {
    let Ok(direct) = DirectFile::open_with(std::fs::File::options().write(true), path) else {
        return eprintln!("SKIPPED: no O_DIRECT here");
    };
    let file = driver.add_file(direct.into_file()).unwrap();
    let copy = bytes.to_vec();
    driver.write(file, bytes, 0).unwrap();
    run(driver, |event| {
        let Event::Wrote { result, .. } = event else { panic!("{event:?}") };
        assert_eq!(result.unwrap(), copy.len());
        true
    });
    assert_eq!(std::fs::read(path).unwrap()[..copy.len()], copy);
    driver.close_file(file).unwrap();
}

/// While the kernel has a long piece, each of its slots counts as in flight, and those of a peer
/// that does not read are quarantined, each once.
#[test]
fn the_slots_of_a_long_piece_count_each() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(256, 4096);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let long = long_piece(&mut driver, ring);
    let slots = long.len().div_ceil(4096);
    let (ours, theirs) = crate::support::stuck_pair();
    let peer = driver.add_file(ours).unwrap();
    driver.send(peer, long.slice(5000..)).unwrap();
    driver.wait_timeout(Duration::from_millis(1)).unwrap();
    let states = driver.slot_states(&arena);
    assert_eq!((states.in_flight, states.frozen, states.total()), (slots, 0, 256), "{states:?}");
    drop((long, theirs));
    finish(driver);
    assert_all_free(&arena);
}

/// Closes, resets and drains that come in the middle of what lies ready.
#[test]
fn the_end_in_the_middle_of_bulk_loses_nothing() {
    for bundles in [false, true] {
        for end in 0..4 {
            let Some(mut driver) = driver() else { return };
            let arena = paged_arena(256, 4096);
            let options = BufferRing::options().bundles(bundles);
            let ring = driver.register_buffer_ring(&arena, options).unwrap();
            let (sender, socket) = tcp_pair();
            (&socket).write_all(b"nobody reads this").unwrap();
            let id = driver.receive(ring, socket).unwrap();
            sender.set_nonblocking(true).unwrap();
            let (expected, mut sent) = (pattern(2, 8 << 20), 0);
            let (mut held, mut at) = (Vec::new(), 0);
            let mut sender = Some(sender);
            for turn in 0..40 {
                if let Some(sender) = &mut sender
                    && let Ok(written) = sender.write(&expected[sent..])
                {
                    sent += written;
                }
                driver.wait_timeout(Duration::from_millis(1)).unwrap();
                if turn == 20 {
                    match end {
                        0 => driver.close(id).unwrap(),
                        1 => sender = None,
                        2 => break,
                        _ => driver.pause(id).unwrap(),
                    }
                }
                // A piece a turn: the others wait in the driver.
                match driver.next() {
                    Some(Event::Received { bytes, .. }) => {
                        assert!(expected[at..].starts_with(&bytes), "differs at {at}");
                        held.push((at, bytes.clone()));
                        at += bytes.len();
                    }
                    Some(Event::Closed { .. }) => break,
                    _ => {}
                }
                if held.len() > 2 {
                    held.remove(0);
                }
            }
            let (in_flight, quarantined) = {
                let drained = driver.drain(crate::support::TIMEOUT).unwrap();
                (drained.in_flight, drained.quarantined)
            };
            assert_eq!((in_flight, quarantined), (0, 0));
            for (start, bytes) in held {
                assert!(expected[start..].starts_with(&bytes));
            }
            drop(driver);
            assert_all_free(&arena);
        }
    }
}

/// The end of one connection may leave the entry that is next shorter than its slot: the bundle of
/// another connection goes on behind it sooner.
///
/// The kernel cuts the first entry of a bundle to what the socket has. Here that is a byte of
/// urgent data, which no receive takes, and the end: so nothing comes, and the entry stays cut, if
/// this kernel counts that byte. 6.18 does not: there the made-up kernel alone shows the fault.
#[test]
fn a_bundle_after_the_end_of_another_connection_is_right() {
    use rustix::net::{SendFlags, send};

    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(64, 4096);
    let options = BufferRing::options().entries(32).bundles(true);
    let ring = driver.register_buffer_ring(&arena, options).unwrap();
    let (mut lasting, socket) = tcp_pair();
    let lasting_id = driver.receive(ring, socket).unwrap();
    for round in 0..10 {
        let (mut short, socket) = tcp_pair();
        short.write_all(&[7; 100]).unwrap();
        send(&short, b"!", SendFlags::OOB).unwrap();
        drop(short);
        driver.receive(ring, socket).unwrap();
        let mut came = 0;
        run(&mut driver, |event| match event {
            Event::Received { bytes, .. } => {
                assert!(bytes.iter().all(|&byte| byte == 7));
                came += bytes.len();
                false
            }
            Event::Closed { .. } => true,
            other => panic!("{other:?}"),
        });
        assert_eq!(came, 100);
        let expected = pattern(round, 9000);
        lasting.write_all(&expected).unwrap();
        let mut at = 0;
        run(&mut driver, |event| {
            let Event::Received { id, bytes, .. } = event else { panic!("{event:?}") };
            assert_eq!(id, lasting_id);
            assert!(expected[at..].starts_with(&bytes), "round {round} differs at {at}");
            at += bytes.len();
            at == 9000
        });
    }
    finish(driver);
    assert_all_free(&arena);
}

/// Slots that are too large for two of them in an entry come one by one, and each message that is
/// longer than a slot in several.
#[test]
fn slots_that_make_runs_impossible_come_one_by_one() {
    for slot_bytes in [33 << 10, 64 << 10, 100_000] {
        let Some(mut driver) = driver() else { return };
        let arena = arena(64, slot_bytes);
        let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
        let pieces = stream(&mut driver, ring, 4 << 20);
        assert!(pieces.iter().all(|&(len, slots)| slots == 1 && len <= slot_bytes), "{pieces:?}");
        finish(driver);
        assert_all_free(&arena);
    }
}

/// Senders that send as much as they can, each as much as any other, into few slots that the
/// program holds for a while: each socket gets its share.
#[test]
fn equal_senders_get_equal_shares_while_everything_is_held() {
    const SENDERS: usize = 64;
    const HELD: Duration = Duration::from_millis(10);

    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(1024, 4096);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let (mut senders, mut came) = (Vec::new(), HashMap::new());
    for _ in 0..SENDERS {
        let (sender, socket) = tcp_pair();
        sender.set_nonblocking(true).unwrap();
        came.insert(driver.receive(ring, socket).unwrap(), 0);
        senders.push(sender);
    }
    // Each socket has something to be read at all times.
    let fill = |senders: &mut [TcpStream]| {
        for sender in senders {
            while sender.write(&[1; 64 << 10]).is_ok() {}
        }
    };
    fill(&mut senders);
    let (mut held, mut all) = (VecDeque::new(), 0);
    let until = Instant::now() + crate::support::TIMEOUT;
    while all < SENDERS << 22 {
        assert!(Instant::now() < until, "{all} bytes came: {:?}", driver.metrics());
        driver.wait_timeout(Duration::from_millis(1)).unwrap();
        while let Some(event) = driver.next() {
            let Event::Received { id, bytes, .. } = event else { panic!("{event:?}") };
            *came.get_mut(&id).unwrap() += bytes.len();
            all += bytes.len();
            held.push_back((Instant::now(), bytes));
        }
        while held.front().is_some_and(|(since, _)| since.elapsed() >= HELD) {
            held.pop_front();
        }
        fill(&mut senders);
    }
    let (least, most) = (came.values().min().unwrap(), came.values().max().unwrap());
    // 1.2 to 1.5 on a quiet machine, and more than a hundred without turns.
    assert!(*most <= 2 * least, "between {least} and {most} bytes of {all}: {came:?}");
    drop((held, senders));
    finish(driver);
    assert_all_free(&arena);
}

/// A kernel without bundles: long pieces come all the same, because they need none.
#[test]
fn a_kernel_without_bundles_has_long_pieces_too() {
    let Ok(probe) = Probe::shared() else { return };
    let builder = Driver::builder().probe(probe.without(Feature::Bundles));
    let Some(mut driver) = build(builder) else { return };
    let arena = paged_arena(1024, 4096);
    let options = BufferRing::options().bundles(true).ready_bytes(256 << 10);
    let ring = driver.register_buffer_ring(&arena, options).unwrap();
    let pieces = stream(&mut driver, ring, 8 << 20);
    assert!(pieces.iter().any(|&(_, slots)| (4..=16).contains(&slots)), "{pieces:?}");
    finish(driver);
    assert_all_free(&arena);
}

/// Sends messages of 64 bytes on `sockets` connections for as long as they are taken, and holds
/// all. Returns the number of messages and of copies.
fn hold_small_messages(arena: &FixedArena, options: BufferRingOptions) -> Option<(usize, u64)> {
    let mut driver = driver()?;
    let ring = driver.register_buffer_ring(arena, options).unwrap();
    let mut senders = Vec::new();
    for _ in 0..4 {
        let (sender, socket) = tcp_pair();
        driver.receive(ring, socket).unwrap();
        senders.push(sender);
    }
    let mut held = Vec::new();
    for number in 0..3000 {
        let message = [number as u8; 64];
        senders[number % 4].write_all(&message).unwrap();
        let mut bytes = 0;
        // With every slot and every copy taken nothing comes.
        while bytes < 64 && driver.wait_timeout(Duration::from_millis(200)).unwrap() {
            while let Some(event) = driver.next() {
                let Event::Received { bytes: received, .. } = event else { panic!("{event:?}") };
                assert!(received.iter().all(|&byte| byte == number as u8));
                bytes += received.len();
                held.push(received);
            }
        }
        if bytes < 64 {
            break;
        }
    }
    let (messages, metrics) = (held.len(), driver.ring_metrics(ring).unwrap());
    let in_slots = held.iter().filter(|bytes| arena.locate(bytes).is_some()).count();
    assert_eq!(metrics.copied, (messages - in_slots) as u64);
    assert_eq!(metrics.copied_bytes, 64 * metrics.copied as usize);
    assert_eq!(arena.metrics().copied_bytes, metrics.copied_bytes);
    finish(driver);
    drop(held);
    assert_eq!(arena.metrics().copied_bytes, 0);
    assert_all_free(arena);
    Some((messages, metrics.copied))
}

#[test]
fn small_messages_are_copied_while_few_slots_are_free_and_never_without_bound() {
    let arena = paged_arena(128, 4096);
    let options = BufferRing::options().entries(32);
    let Some((messages, copied)) = hold_small_messages(&arena, options.copied_bytes_max(6400))
    else {
        return;
    };
    // Every slot holds a message in the end, and a hundred are copied.
    assert_eq!((messages, copied), (228, 100));
    let (messages, copied) =
        hold_small_messages(&arena, options.copy_under_pressure(false)).unwrap();
    assert_eq!((messages, copied), (128, 0));
    // By default a quarter of the arena: more than are sent here.
    let (messages, copied) = hold_small_messages(&arena, options).unwrap();
    assert!(messages == 2128 + 48 && copied == 2048 || messages > 2000, "{messages} {copied}");
}

#[test]
fn messages_that_use_much_of_their_slot_are_not_copied() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(32, 4096);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let (mut sender, socket) = tcp_pair();
    driver.receive(ring, socket).unwrap();
    let mut held = Vec::new();
    for _ in 0..32 {
        sender.write_all(&[1; 1024]).unwrap();
        let mut received = 0;
        run(&mut driver, |event| {
            let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
            received += bytes.len();
            held.push(bytes);
            received == 1024
        });
    }
    assert_eq!(driver.metrics().copied, 0);
    drop(held);
    finish(driver);
    assert_all_free(&arena);
}

/// Much lies ready on many connections, few slots are there, and everything is held for some turns:
/// each connection goes on when slots come back, and gets through.
#[test]
fn many_connections_on_few_slots_get_through() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(512, 4096);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let (expected, count) = (pattern(4, 200_000), 16);
    let mut streams = HashMap::new();
    let (mut senders, mut left) = (Vec::new(), 0);
    for _ in 0..count {
        let (mut sender, socket) = tcp_pair();
        sender.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while let Ok(len @ 1..) = sender.write(&expected[sent..]) {
            sent += len;
        }
        left += sent;
        streams.insert(driver.receive(ring, socket).unwrap(), (0, sent));
        senders.push(sender);
    }
    let mut held = Vec::new();
    while left > 0 {
        assert!(driver.wait_timeout(crate::support::TIMEOUT).unwrap(), "{left} bytes do not come");
        while let Some(event) = driver.next() {
            let Event::Received { id, bytes, .. } = event else { panic!("{event:?}") };
            let (at, _) = streams.get_mut(&id).unwrap();
            assert!(expected[*at..].starts_with(&bytes), "{id:?} differs at {at}");
            *at += bytes.len();
            left -= bytes.len();
            held.push(bytes);
        }
        if held.len() > 20 || driver.metrics().parked > 0 {
            held.clear();
        }
    }
    assert!(streams.values().all(|&(at, sent)| at == sent), "{streams:?}");
    drop((held, senders));
    finish(driver);
    assert_all_free(&arena);
}

/// Times a wait. The clock of a busy machine may run on: so the shortest of some.
fn shortest(mut wait: impl FnMut()) -> Duration {
    let time = |_| {
        let since = Instant::now();
        wait();
        since.elapsed()
    };
    (0..3).map(time).min().unwrap()
}

/// A wait that collects completions ends with as many, whichever wait it is.
#[test]
fn a_wait_collects_as_many_completions_as_it_is_told_to() {
    let Ok(probe) = Probe::shared() else { return };
    if !probe.has(Feature::MinWait) {
        return eprintln!("SKIPPED: no minimum wait");
    }
    for has_end in [false, true] {
        let builder = Driver::builder().coalesce(3, Duration::from_secs(1));
        let Some(mut driver) = build(builder) else { return };
        let arena = paged_arena(64, 4096);
        let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
        let mut senders = Vec::new();
        for _ in 0..3 {
            let (sender, socket) = tcp_pair();
            driver.receive(ring, socket).unwrap();
            senders.push(sender);
        }
        driver.wait_timeout(Duration::ZERO).unwrap();
        let sending = std::thread::spawn(move || {
            for sender in &mut senders {
                std::thread::sleep(Duration::from_millis(20));
                sender.write_all(b"hello").unwrap();
            }
            senders
        });
        let since = Instant::now();
        match has_end {
            true => assert!(driver.wait_timeout(crate::support::TIMEOUT).unwrap()),
            false => driver.wait().unwrap(),
        }
        let mut came = 0;
        while let Some(Event::Received { bytes, .. }) = driver.next() {
            assert_eq!(bytes, "hello");
            came += 1;
        }
        // The senders may have been held up for longer than the wait collects.
        assert!(came == 3 || since.elapsed() >= Duration::from_secs(1), "{came} came");
        drop(sending.join().unwrap());
        finish(driver);
        assert_all_free(&arena);
    }
}

/// A wait ends in time, whatever it could not collect: after a single message, a wake, a timer, a
/// time that is shorter, and on a kernel that cannot.
#[test]
fn a_wait_that_collects_ends_in_time() {
    const LONG: Duration = Duration::from_secs(1);

    let Ok(probe) = Probe::shared() else { return };
    let short = Driver::builder().coalesce(8, Duration::from_millis(5));
    for has_end in [false, true] {
        let Some(mut driver) = build(short) else { return };
        let arena = paged_arena(64, 4096);
        let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
        let (mut sender, socket) = tcp_pair();
        driver.receive(ring, socket).unwrap();
        for _ in 0..5 {
            sender.write_all(b"alone").unwrap();
            let mut bytes = 0;
            while bytes < 5 {
                match has_end {
                    true => assert!(driver.wait_timeout(crate::support::TIMEOUT).unwrap()),
                    false => driver.wait().unwrap(),
                }
                while let Some(Event::Received { bytes: part, .. }) = driver.next() {
                    bytes += part.len();
                }
            }
        }
        driver.waker().unwrap().wake();
        driver.wait().unwrap();
        driver.timer(Instant::now() + Duration::from_millis(1), 0).unwrap();
        run(&mut driver, |event| matches!(event, Event::Timer { .. }));
        finish(driver);
        assert_all_free(&arena);
    }
    // A time that is shorter than the driver collects for.
    let Some(mut driver) = build(Driver::builder().coalesce(8, LONG)) else { return };
    let time = shortest(|| assert!(!driver.wait_timeout(Duration::from_millis(1)).unwrap()));
    assert!(time < LONG, "{time:?}");
    // A kernel that cannot collect, and numbers that ask for nothing.
    let older = probe.without(Feature::MinWait);
    let builder = Driver::builder();
    for builder in [
        builder.probe(older).coalesce(8, LONG),
        builder.coalesce(0, LONG),
        builder.coalesce(1, Duration::MAX),
        builder.coalesce(8, Duration::ZERO),
        builder.coalesce(usize::MAX, Duration::from_nanos(1)),
    ] {
        let Some(mut driver) = build(builder) else { return };
        let waker = driver.waker().unwrap();
        let time = shortest(|| {
            waker.wake_by_ref();
            driver.wait().unwrap();
        });
        assert!(time < LONG, "{builder:?}: {time:?}");
        finish(driver);
    }
}

/// Streams come whole through a driver that collects, also with fewer slots than it collects.
#[test]
fn streams_are_whole_where_waits_collect() {
    for slots in [1, 3, 256] {
        for completions in [2, 64, usize::MAX] {
            let builder = Driver::builder().coalesce(completions, Duration::from_micros(200));
            let Some(mut driver) = build(builder) else { return };
            let arena = paged_arena(slots, 4096);
            let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
            stream(&mut driver, ring, 200_000);
            finish(driver);
            assert_all_free(&arena);
        }
    }
}
