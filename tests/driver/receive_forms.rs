//! Other forms of receiving on the real kernel: bundles, incremental consumption, pipes.

use std::io::Write;
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::support::driver::{build, driver, finish, run};
use crate::support::{arena, assert_all_free, pattern, tcp_pair};
use bytes::Bytes;
use uring_arena::{BufferRing, BufferRingOptions, Driver, DriverError, Event};

/// Sends a stream through a ring with these options, and compares its messages.
fn stream_through(
    options: BufferRingOptions,
    slots: usize,
    slot_bytes: usize,
    len: usize,
    hold: usize,
) {
    let Some(mut driver) = driver() else { return };
    let arena = arena(slots, slot_bytes);
    let ring = driver.register_buffer_ring(&arena, options).unwrap();
    let (mut sender, socket) = tcp_pair();
    driver.receive(ring, socket).unwrap();
    let sent = pattern(3, len);
    let expected = sent.clone();
    let thread = std::thread::spawn(move || {
        // In odd pieces, so that messages begin anywhere in a slot.
        for piece in sent.chunks(997) {
            sender.write_all(piece).unwrap();
        }
    });
    let mut held = std::collections::VecDeque::<(usize, Bytes)>::new();
    let mut at = 0;
    run(&mut driver, |event| match event {
        Event::Received { bytes, .. } => {
            assert!(!bytes.is_empty() && bytes.len() <= slot_bytes);
            assert!(expected[at..].starts_with(&bytes), "differs at {at}");
            held.push_back((at, bytes.clone()));
            at += bytes.len();
            if held.len() > hold {
                let (start, old) = held.pop_front().unwrap();
                // Bytes handed out earlier did not change while the kernel went on.
                assert!(expected[start..].starts_with(&old));
            }
            false
        }
        Event::Closed { error, .. } => {
            assert!(error.is_none(), "{error:?}");
            true
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(at, len);
    drop(held);
    thread.join().unwrap();
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_bundle_is_handed_out_slot_by_slot_in_order() {
    stream_through(BufferRing::options().bundles(true), 16, 256, 500_000, 4);
}

#[test]
fn a_bundle_wraps_around_the_end_of_the_ring() {
    stream_through(BufferRing::options().bundles(true).entries(4), 8, 64, 60_000, 2);
}

#[test]
fn several_messages_share_a_slot_and_each_owns_its_range() {
    stream_through(BufferRing::options().incremental(true), 16, 4096, 500_000, 10);
}

#[test]
fn bundles_and_incremental_consumption_go_together() {
    stream_through(BufferRing::options().incremental(true).bundles(true), 16, 256, 300_000, 6);
}

#[test]
fn incremental_consumption_survives_starvation() {
    stream_through(BufferRing::options().incremental(true), 2, 256, 60_000, 0);
}

#[test]
fn short_messages_are_copied_out_of_shared_slots_too() {
    stream_through(BufferRing::options().incremental(true).copy_below(500), 4, 4096, 200_000, 3);
}

/// Prints a line if the kernel has not done the thing that the test is about.
fn is_incremental(driver: &Driver, ring: uring_arena::BufferRingId) -> bool {
    let yes = driver.ring_is_incremental(ring).unwrap();
    if !yes {
        eprintln!("SKIPPED: this kernel has no incremental consumption (6.12)");
    }
    yes
}

#[test]
fn the_slot_of_several_messages_is_free_when_the_last_is_dropped() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(1, 64);
    let ring =
        driver.register_buffer_ring(&arena, BufferRing::options().incremental(true)).unwrap();
    if !is_incremental(&driver, ring) {
        return;
    }
    let (mut sender, socket) = UnixStream::pair().unwrap();
    driver.receive(ring, socket).unwrap();
    let mut held = Vec::new();
    for message in [&[1u8; 30][..], &[2; 30], &[3; 4]] {
        sender.write_all(message).unwrap();
        run(&mut driver, |event| {
            let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
            assert_eq!(bytes, message);
            held.push(bytes);
            true
        });
    }
    // The slot is used up: the next message waits for it.
    sender.write_all(b"next").unwrap();
    assert_eq!(driver.ring_metrics(ring).unwrap().published, 0);
    while let Some(bytes) = held.pop() {
        driver.wait_timeout(Duration::from_millis(5)).unwrap();
        assert!(driver.next().is_none(), "came into a slot that is held");
        drop(bytes);
    }
    run(&mut driver, |event| matches!(event, Event::Received { bytes, .. } if bytes == "next"));
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_slot_half_used_is_free_after_the_ring_is_taken_down_and_its_messages_are_dropped() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(4, 64);
    let ring =
        driver.register_buffer_ring(&arena, BufferRing::options().incremental(true)).unwrap();
    if !is_incremental(&driver, ring) {
        return;
    }
    let (mut sender, socket) = UnixStream::pair().unwrap();
    driver.receive(ring, socket).unwrap();
    sender.write_all(b"half").unwrap();
    let mut held = None;
    run(&mut driver, |event| {
        held = Some(event);
        true
    });
    finish(driver);
    assert_eq!(arena.metrics().bytes_live, 64);
    drop(held);
    assert_all_free(&arena);
}

#[test]
fn a_pipe_is_read_into_the_ring() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(8, 256);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let id = driver.read_pipe(ring, reader).unwrap();
    let sent = pattern(5, 40_000);
    let expected = sent.clone();
    let thread = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut received = Vec::new();
    run(&mut driver, |event| match event {
        Event::Received { id: from, bytes, .. } => {
            assert_eq!(from, id);
            received.extend_from_slice(&bytes);
            false
        }
        Event::Closed { error, .. } => {
            assert!(error.is_none(), "{error:?}");
            true
        }
        other => panic!("{other:?}"),
    });
    assert!(received == expected);
    thread.join().unwrap();
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn datagrams_come_whole_with_the_address_of_their_sender() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(8, 256);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    for any in ["127.0.0.1:0", "[::1]:0"] {
        let (Ok(ours), Ok(theirs)) = (UdpSocket::bind(any), UdpSocket::bind(any)) else {
            eprintln!("SKIPPED: no address {any}");
            continue;
        };
        let address = ours.local_addr().unwrap();
        let id = driver.receive_datagrams(ring, ours).unwrap();
        driver.wait_timeout(Duration::ZERO).unwrap();
        // An empty datagram ends a multishot receive; the next one shows that it was armed again.
        for sent in [&b"first"[..], b"", b"after the empty one", &[7; 212]] {
            theirs.send_to(sent, address).unwrap();
            run(&mut driver, |event| {
                let Event::Datagram { id: from, datagram, .. } = event else { panic!("{event:?}") };
                assert_eq!(from, id);
                assert_eq!(datagram.from, Some(theirs.local_addr().unwrap()));
                assert_eq!((&datagram.bytes[..], datagram.is_truncated), (sent, false));
                true
            });
        }
        // A slot of 256 bytes holds 212 behind the header.
        theirs.send_to(&[8; 213], address).unwrap();
        run(&mut driver, |event| {
            let Event::Datagram { datagram, .. } = event else { panic!("{event:?}") };
            assert_eq!((datagram.bytes.len(), datagram.is_truncated), (212, true));
            true
        });
        driver.close(id).unwrap();
        run(&mut driver, |event| matches!(event, Event::Closed { error: None, .. }));
    }
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn many_datagrams_on_few_slots_are_received_or_dropped_by_the_network_but_never_mixed() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(2, 128);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().copy_below(20)).unwrap();
    let (ours, theirs) =
        (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    theirs.connect(ours.local_addr().unwrap()).unwrap();
    driver.receive_datagrams(ring, ours).unwrap();
    for round in 0..40u8 {
        for number in 0..5u8 {
            theirs.send(&vec![round; 1 + usize::from(number) * 10]).unwrap();
        }
        let mut next = 0;
        run(&mut driver, |event| {
            let Event::Datagram { datagram, .. } = event else { panic!("{event:?}") };
            assert_eq!(datagram.bytes, vec![round; 1 + next * 10]);
            next += 1;
            next == 5
        });
    }
    assert_eq!(driver.metrics().copied, 80);
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn datagrams_are_refused_by_rings_that_do_not_suit_them() {
    let Some(mut driver) = driver() else { return };
    let small = driver.register_buffer_ring(&arena(4, 44), BufferRing::options()).unwrap();
    let socket = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let refused = driver.receive_datagrams(small, socket()).unwrap_err().error;
    assert_eq!(refused, DriverError::SlotTooSmall { bytes: 44, needed: 45 });
    let shared = driver
        .register_buffer_ring(&arena(4, 256), BufferRing::options().incremental(true))
        .unwrap();
    if is_incremental(&driver, shared) {
        let refused = driver.receive_datagrams(shared, socket()).unwrap_err().error;
        assert_eq!(refused, DriverError::RingIsIncremental);
    }
}

#[test]
fn the_older_forms_receive_the_same() {
    let Some(mut driver) = build(Driver::builder().multishot(false).single_issuer(false)) else {
        return;
    };
    let arena = arena(4, 256);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let (mut sender, socket) = UnixStream::pair().unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let stream = driver.receive(ring, socket).unwrap();
    let pipe = driver.read_pipe(ring, reader).unwrap();
    let sent = pattern(9, 20_000);
    let expected = sent.clone();
    let thread = std::thread::spawn(move || {
        sender.write_all(&sent).unwrap();
        writer.write_all(&sent).unwrap();
    });
    let (mut from_stream, mut from_pipe, mut open) = (Vec::new(), Vec::new(), 2);
    run(&mut driver, |event| {
        match event {
            Event::Received { id, bytes, .. } if id == stream => {
                from_stream.extend_from_slice(&bytes)
            }
            Event::Received { id, bytes, .. } if id == pipe => from_pipe.extend_from_slice(&bytes),
            Event::Closed { error: None, .. } => open -= 1,
            other => panic!("{other:?}"),
        }
        open == 0
    });
    assert!(from_stream == expected && from_pipe == expected);
    thread.join().unwrap();
    finish(driver);
    assert_all_free(&arena);
}
