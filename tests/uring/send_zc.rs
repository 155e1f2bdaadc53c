//! Zero-copy sends on real sockets: the memory is not free before the notification.
#![allow(unsafe_code)]

use std::io::Read;
use std::net::{TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use crate::support::ring::{push, register, ring, run};
use crate::support::{assert_all_free, filled, paged_arena, pattern, tcp_pair};
use bytes::Bytes;
use uring_arena::{
    ArenaBytes, Feature, FixedArena, Payload, Probe, Progress, RegisterOptions, RegisteredArena,
    RegistrationMode, RegistrationPolicy, SendOptions,
};

fn frozen(arena: &FixedArena, bytes: &[u8]) -> ArenaBytes {
    filled(arena, bytes).freeze_in_place()
}

fn receive(peer: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    peer.read_exact(&mut bytes).unwrap();
    bytes
}

fn has_send_zc(test: &str) -> bool {
    let has = Probe::shared().unwrap().has(Feature::SendZc);
    if !has {
        eprintln!("SKIPPED {test}: this kernel has no zero-copy send");
    }
    has
}

#[test]
fn bytes_arrive_and_the_slot_comes_home_after_the_notification() {
    let Some(mut ring) = ring("send_zc") else { return };
    if !has_send_zc("send_zc") {
        return;
    }
    let arena = paged_arena(8, 65536);
    let registered = register(&ring, &arena, RegistrationPolicy::Best);
    let (ours, mut peer) = tcp_pair();
    for kind in 0..3 {
        let content = pattern(0, 40_000);
        let bytes = frozen(&arena, &content);
        let options = SendOptions::new().wait_all();
        let (result, completions, copied, fixed);
        match kind {
            0 => {
                let sent = registered.send(&ours, bytes, options);
                fixed = sent.1.buffer_index().is_some();
                let outcome = run(&mut ring, sent);
                (result, completions, copied) =
                    (outcome.result, outcome.completions, outcome.copied);
            }
            1 => {
                let sent = registered.send(&ours, Bytes::from(bytes), options);
                fixed = sent.1.buffer_index().is_some();
                let outcome = run(&mut ring, sent);
                (result, completions, copied) =
                    (outcome.result, outcome.completions, outcome.copied);
            }
            _ => {
                let sent = registered.send(&ours, bytes.try_into_buffer().unwrap(), options);
                fixed = sent.1.buffer_index().is_some();
                let outcome = run(&mut ring, sent);
                assert_eq!(outcome.buffer.len(), 40_000);
                (result, completions, copied) =
                    (outcome.result, outcome.completions, outcome.copied);
            }
        }
        assert!(fixed);
        assert_eq!((result.unwrap(), completions), (40_000, 2));
        if Probe::shared().unwrap().has(Feature::SendZcUsage) {
            assert!(copied.is_some(), "the kernel says whether it copied");
        }
        assert_eq!(receive(&mut peer, 40_000), content);
    }
    assert_all_free(&arena);
}

#[test]
fn between_result_and_notification_the_slot_is_not_free() {
    let Some(mut ring) = ring("notification") else { return };
    if !has_send_zc("notification") {
        return;
    }
    let arena = paged_arena(1, 65536);
    let registered = register(&ring, &arena, RegistrationPolicy::Best);
    let (ours, mut peer) = tcp_pair();
    let (entry, operation) =
        registered.send(&ours, frozen(&arena, &pattern(0, 65536)), SendOptions::new());
    push(&mut ring, &entry);
    ring.submit_and_wait(1).unwrap();
    let cqe = ring.completion().next().unwrap();
    // SAFETY: its first completion.
    let Progress::More(operation) = (unsafe { operation.complete(&cqe) }) else {
        panic!("one completion")
    };
    let sent = operation.result_so_far().unwrap().unwrap();
    assert!(arena.allocate().is_err(), "the kernel may still read the slot");
    assert_eq!(receive(&mut peer, sent), pattern(0, 65536)[..sent]);
    ring.submit_and_wait(1).unwrap();
    let cqe = ring.completion().next().unwrap();
    // SAFETY: its second.
    let Progress::Done { result, buffer, .. } = (unsafe { operation.complete(&cqe) }) else {
        panic!()
    };
    assert_eq!(result.unwrap(), sent);
    drop(buffer);
    assert!(arena.allocate().is_ok());
}

/// A Unix socket refuses zero-copy with an error that promises a notification. The slot is free
/// only after it.
#[test]
fn an_error_that_promises_a_notification_waits_for_it() {
    let Some(mut ring) = ring("error with more") else { return };
    if !has_send_zc("error with more") {
        return;
    }
    let arena = paged_arena(1, 65536);
    let registered = register(&ring, &arena, RegistrationPolicy::Best);
    let (ours, _peer) = UnixStream::pair().unwrap();
    let sent = registered.send(&ours, frozen(&arena, &pattern(0, 65536)), SendOptions::new());
    assert!(sent.1.is_zero_copy());
    let outcome = run(&mut ring, sent);
    assert_eq!(outcome.result.unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
    drop(outcome.buffer);
    assert_all_free(&arena);
}

#[test]
fn small_and_foreign_sends_are_ordinary_ones() {
    let Some(mut ring) = ring("threshold") else { return };
    let arena = paged_arena(4, 65536);
    let registered = register(&ring, &arena, RegistrationPolicy::Best);
    let (ours, mut peer) = tcp_pair();
    let small = registered.send(&ours, frozen(&arena, &pattern(0, 100)), SendOptions::new());
    assert!(!small.1.is_zero_copy());
    let outcome = run(&mut ring, small);
    assert_eq!((outcome.result.unwrap(), outcome.completions, outcome.copied), (100, 1, None));
    drop(outcome.buffer);
    let forced = registered.send(
        &ours,
        frozen(&arena, &pattern(0, 100)),
        SendOptions::new().zero_copy_from(1),
    );
    assert_eq!(forced.1.is_zero_copy(), Probe::shared().unwrap().has(Feature::SendZc));
    assert_eq!(run(&mut ring, forced).result.unwrap(), 100);
    let foreign =
        registered.send(&ours, Bytes::from(pattern(0, 50_000)), SendOptions::new().wait_all());
    assert!(!foreign.1.is_zero_copy());
    let reader = std::thread::spawn(move || receive(&mut peer, 50_200));
    assert_eq!(run(&mut ring, foreign).result.unwrap(), 50_000);
    let received = reader.join().unwrap();
    assert_eq!(received, [pattern(0, 100), pattern(0, 100), pattern(0, 50_000)].concat());
    assert_all_free(&arena);
}

#[test]
fn a_kernel_without_zero_copy_sends_all_the_same() {
    let Some(mut ring) = ring("without send_zc") else { return };
    let arena = paged_arena(4, 65536);
    let probe = Probe::shared().unwrap().without(Feature::SendZc);
    let registered =
        // SAFETY: as in `support::ring::register`.
        unsafe { RegisteredArena::register(&ring, &arena, RegisterOptions::new().probe(probe)) }
            .unwrap();
    let (ours, mut peer) = tcp_pair();
    let sent =
        registered.send(&ours, frozen(&arena, &pattern(0, 30_000)), SendOptions::new().wait_all());
    assert!(!sent.1.is_zero_copy());
    assert_eq!(run(&mut ring, sent).result.unwrap(), 30_000);
    assert_eq!(receive(&mut peer, 30_000), pattern(0, 30_000));
}

#[test]
fn pieces_go_out_as_one_message() {
    let Some(mut ring) = ring("vectored send") else { return };
    let arena = paged_arena(8, 65536);
    for mode in [RegistrationMode::Slots, RegistrationMode::Regions] {
        let registered = register(&ring, &arena, mode);
        let (ours, mut peer) = tcp_pair();
        let pieces: Vec<_> = (0..4).map(|at| frozen(&arena, &pattern(0, 10_000 + at))).collect();
        let sent = registered.send(&ours, pieces, SendOptions::new().wait_all());
        // Only in the region mode one entry of the table holds them all.
        let probe = Probe::shared().unwrap();
        let one_index = mode == RegistrationMode::Regions && probe.has(Feature::VectoredFixed);
        assert_eq!(sent.1.is_zero_copy(), one_index, "{mode:?}");
        let outcome = run(&mut ring, sent);
        assert_eq!(outcome.result.unwrap(), 40_006);
        drop(outcome.buffer);
        let expected: Vec<u8> = (0..4).flat_map(|at| pattern(0, 10_000 + at)).collect();
        assert_eq!(receive(&mut peer, 40_006), expected);
        registered.unregister(&ring).unwrap();
        assert_all_free(&arena);
    }
}

#[test]
fn a_broken_connection_is_an_error_and_the_slot_comes_home() {
    let Some(mut ring) = ring("broken") else { return };
    let arena = paged_arena(4, 65536);
    let registered = register(&ring, &arena, RegistrationPolicy::Best);
    let (ours, peer) = tcp_pair();
    ours.shutdown(std::net::Shutdown::Write).unwrap();
    drop(peer);
    for options in [SendOptions::new(), SendOptions::new().zero_copy_from(usize::MAX)] {
        let outcome =
            run(&mut ring, registered.send(&ours, frozen(&arena, &pattern(0, 65536)), options));
        assert_eq!(outcome.result.unwrap_err().raw_os_error(), Some(libc::EPIPE));
    }
    assert_all_free(&arena);
}

#[test]
fn a_send_dropped_at_either_point_quarantines_its_slot() {
    let Some(mut ring) = ring("dropped send") else { return };
    if !has_send_zc("dropped send") {
        return;
    }
    let arena = paged_arena(4, 65536);
    let registered = register(&ring, &arena, RegistrationPolicy::Best);
    let (ours, mut peer) = tcp_pair();
    // The operation is dropped before the result.
    let (entry, operation) =
        registered.send(&ours, frozen(&arena, &pattern(0, 20_000)), SendOptions::new());
    push(&mut ring, &entry);
    drop(operation);
    // The operation is dropped between result and notification, of bytes that others share.
    let bytes = Bytes::from(frozen(&arena, &pattern(0, 20_000)));
    let (entry, operation) = registered.send(&ours, bytes.clone(), SendOptions::new());
    push(&mut ring, &entry.user_data(7));
    ring.submit_and_wait(2).unwrap();
    let mut operation = Some(operation);
    while operation.is_some() {
        ring.submit_and_wait(1).unwrap();
        let Some(cqe) = ring.completion().find(|cqe| cqe.user_data() == 7) else { continue };
        // SAFETY: its first completion.
        let Progress::More(more) = (unsafe { operation.take().unwrap().complete(&cqe) }) else {
            panic!()
        };
        drop(more);
    }
    drop(bytes);
    assert_eq!(receive(&mut peer, 40_000).len(), 40_000);
    let metrics = arena.metrics();
    assert_eq!((metrics.quarantined, metrics.bytes_live), (2, 2 * 65536));
}

/// A send of no bytes completes once, with 0, whatever the threshold. A datagram arrives all the
/// same.
#[test]
fn a_send_of_no_bytes_is_an_ordinary_one() {
    let Some(mut ring) = ring("empty sends") else { return };
    for mode in [RegistrationMode::Slots, RegistrationMode::Regions, RegistrationMode::Unregistered]
    {
        let arena = paged_arena(8, 4096);
        let registered = register(&ring, &arena, mode);
        let some = frozen(&arena, b"some");
        let empties = || -> Vec<Payload> {
            vec![
                arena.allocate().unwrap().into(),
                some.slice(2..2).into(),
                Bytes::new().into(),
                Bytes::from(some.clone()).slice(4..).into(),
            ]
        };
        let (tcp, mut tcp_peer) = tcp_pair();
        let (unix, _unix_peer) = UnixStream::pair().unwrap();
        let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (udp, udp_peer) = (bind(), bind());
        udp.connect(udp_peer.local_addr().unwrap()).unwrap();
        let options = SendOptions::new().zero_copy_from(0).wait_all();
        for socket in [tcp.as_fd(), unix.as_fd(), udp.as_fd()] {
            for payload in empties() {
                let outcome = run(&mut ring, registered.send(&socket, payload, options));
                assert_eq!((outcome.result.unwrap(), outcome.completions), (0, 1));
            }
            for pieces in [empties(), Vec::new()] {
                let outcome = run(&mut ring, registered.send(&socket, pieces, options));
                assert_eq!((outcome.result.unwrap(), outcome.completions), (0, 1));
            }
        }
        for _ in 0..6 {
            assert_eq!(udp_peer.recv(&mut [0; 8]).unwrap(), 0);
        }
        let outcome = run(&mut ring, registered.send(&tcp, Bytes::from_static(b"end"), options));
        assert_eq!(outcome.result.unwrap(), 3);
        assert_eq!(receive(&mut tcp_peer, 3), b"end");
        drop(some);
        registered.unregister(&ring).unwrap();
        assert_all_free(&arena);
    }
}
