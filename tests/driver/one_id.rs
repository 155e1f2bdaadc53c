//! One id a connection: what is received, sent, ended and closed on it, and its token.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use uring_arena::{
    BufferRing, BufferRingId, Driver, DriverError, Event, FixedArena, SocketId, TransferError,
};

use crate::support::driver::{driver, finish, run};
use crate::support::{
    TIMEOUT, arena, assert_all_free, pattern, read_all, stuck_pair, tcp_pair, watched,
};

fn with_ring() -> Option<(Driver, FixedArena, BufferRingId)> {
    let mut driver = driver()?;
    let arena = arena(16, 4096);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(8)).unwrap();
    Some((driver, arena, ring))
}

/// Hands each event to `each` until the socket is closed, which is its last event. Returns the
/// error that it tells.
fn until_closed(
    driver: &mut Driver,
    id: SocketId,
    mut each: impl FnMut(&mut Driver, Event),
) -> Option<ErrorKind> {
    let until = Instant::now() + TIMEOUT;
    loop {
        while let Some(event) = driver.next() {
            if let Event::Closed { id: closed, error, .. } = event {
                assert_eq!(closed, id);
                assert!(driver.next().is_none(), "an event behind the last one");
                return error.map(|error| error.kind());
            }
            each(driver, event);
        }
        let left = until.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "it is not closed: {:?}", driver.metrics());
        driver.wait_timeout(left).unwrap();
    }
}

#[test]
fn an_echo_needs_one_id_and_one_descriptor() {
    let Some((mut driver, arena, ring)) = with_ring() else { return };
    let (ours, mut peer) = tcp_pair();
    let id = driver.receive_with(ring, ours, 42).unwrap();
    let client = std::thread::spawn(move || {
        for round in 0..50 {
            let message = pattern(round, 1 + round * 97);
            peer.write_all(&message).unwrap();
            let mut echo = vec![0; message.len()];
            peer.read_exact(&mut echo).unwrap();
            assert_eq!(echo, message);
        }
        peer.shutdown(Shutdown::Write).unwrap();
        // A second descriptor of the socket would keep the connection open.
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    });
    let mut sent = 0;
    let error = until_closed(&mut driver, id, |driver, event| match event {
        Event::Received { id: from, token, bytes, .. } => {
            assert_eq!((from, token), (id, 42));
            driver.send(id, bytes).unwrap();
        }
        Event::Sent { token, result, .. } => {
            assert_eq!(token, 42);
            sent += result.unwrap();
        }
        other => panic!("{other:?}"),
    });
    assert_eq!((error, sent), (None, (0..50).map(|round| 1 + round * 97).sum()));
    client.join().unwrap();
    let error = driver.send(id, Bytes::new()).unwrap_err().error;
    assert_eq!(error, TransferError::Driver(DriverError::UnknownSocket));
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn what_is_queued_goes_out_before_a_close() {
    let Some((mut driver, arena, ring)) = with_ring() else { return };
    let (ours, peer) = tcp_pair();
    let id = driver.receive(ring, ours).unwrap();
    let message = pattern(1, 8 << 20);
    for part in message.chunks(1 << 20) {
        driver.send(id, Bytes::copy_from_slice(part)).unwrap();
    }
    driver.close(id).unwrap();
    let refused = driver.send(id, Bytes::from_static(b"late")).unwrap_err();
    assert_eq!(refused.error, TransferError::Driver(DriverError::SocketEnded));
    assert_eq!(refused.memory.as_ref(), b"late");
    assert_eq!(driver.shutdown_write(id), Err(DriverError::SocketEnded));
    let reads = std::thread::spawn(move || read_all(peer));
    let mut sent = 0;
    let error = until_closed(&mut driver, id, |_, event| match event {
        Event::Sent { result, .. } => sent += result.unwrap(),
        other => panic!("{other:?}"),
    });
    assert_eq!((error, sent), (None, message.len()));
    assert!(reads.join().unwrap() == message);
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_peer_that_finished_gets_what_was_queued_and_later_sends_are_refused() {
    let Some((mut driver, arena, ring)) = with_ring() else { return };
    let (ours, mut peer) = tcp_pair();
    let id = driver.receive(ring, ours).unwrap();
    peer.write_all(b"a question").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    let answer = pattern(2, 3 << 20);
    let expected = answer.clone();
    let reads = std::thread::spawn(move || read_all(peer));
    let mut answer = Some(Bytes::from(answer));
    let error = until_closed(&mut driver, id, |driver, event| match event {
        Event::Received { .. } => drop(driver.send(id, answer.take().unwrap()).unwrap()),
        Event::Sent { result, .. } => {
            result.unwrap();
            let refused = driver.send(id, Bytes::from_static(b"too late")).unwrap_err();
            assert_eq!(refused.error, TransferError::Driver(DriverError::SocketEnded));
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(error, None);
    assert!(reads.join().unwrap() == expected);
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_half_open_socket_answers_after_the_end_and_is_closed_by_the_program() {
    let Some((mut driver, arena, ring)) = with_ring() else { return };
    for is_tcp in [true, false] {
        let (ours, peer): (OwnedFd, OwnedFd) = match is_tcp {
            true => {
                let (ours, peer) = tcp_pair();
                (ours.into(), peer.into())
            }
            false => {
                let (ours, peer) = UnixStream::pair().unwrap();
                (ours.into(), peer.into())
            }
        };
        let peer = UnixStream::from(peer);
        let id = driver.receive(ring, ours).unwrap();
        driver.set_half_open(id, true).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        run(&mut driver, |event| matches!(event, Event::Finished { id: of, .. } if of == id));
        // Nothing more comes of it, and it is no busy loop.
        assert!(!driver.wait_timeout(Duration::from_millis(20)).unwrap());
        driver.pause(id).unwrap();
        driver.resume(id).unwrap();
        driver.send(id, Bytes::from_static(b"the answer")).unwrap();
        driver.shutdown_write(id).unwrap();
        let mut done = 0;
        run(&mut driver, |event| {
            let is_expected = match done {
                0 => matches!(event, Event::Sent { result: Ok(10), .. }),
                _ => matches!(event, Event::Done { result: Ok(()), .. }),
            };
            assert!(is_expected, "{event:?}");
            done += 1;
            done == 2
        });
        driver.close(id).unwrap();
        assert_eq!(until_closed(&mut driver, id, |_, event| panic!("{event:?}")), None);
        assert_eq!(read_all(File::from(OwnedFd::from(peer))), b"the answer");
    }
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn the_end_of_the_sending_direction_stands_behind_the_queue() {
    let Some((mut driver, arena, ring)) = with_ring() else { return };
    let (ours, mut peer) = tcp_pair();
    let id = driver.receive(ring, ours).unwrap();
    let message = pattern(3, 6 << 20);
    driver.send(id, Bytes::from(message.clone())).unwrap();
    let shutdown = driver.shutdown_write(id).unwrap();
    let behind = driver.send(id, Bytes::from_static(b"behind the end")).unwrap();
    let (all_read, may_answer) = std::sync::mpsc::channel();
    let client = std::thread::spawn(move || {
        let read = read_all(&peer);
        all_read.send(read).unwrap();
        peer.write_all(b"received").unwrap();
    });
    let mut ended = Vec::new();
    let error = until_closed(&mut driver, id, |_, event| match event {
        Event::Sent { id, result, .. } => {
            assert_eq!(result.is_ok(), id != behind);
            ended.push(id);
        }
        Event::Done { id, result, .. } => {
            result.unwrap();
            ended.push(id);
        }
        // Receiving goes on.
        Event::Received { bytes, .. } => assert_eq!(bytes, "received"),
        other => panic!("{other:?}"),
    });
    assert_eq!(error, None);
    assert!(ended.len() == 3 && ended.contains(&shutdown) && ended.contains(&behind));
    assert!(may_answer.recv().unwrap() == message);
    client.join().unwrap();
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn an_abort_ends_a_stuck_connection_and_also_one_that_is_being_closed() {
    watched(|| {
        let Some((mut driver, arena, ring)) = with_ring() else { return };
        for closes_first in [false, true] {
            let (ours, mut peer) = stuck_pair();
            let id = driver.receive(ring, ours).unwrap();
            for _ in 0..3 {
                driver.send(id, Bytes::from(vec![1; 8 << 20])).unwrap();
            }
            if closes_first {
                driver.close(id).unwrap();
                while driver.wait_timeout(Duration::from_millis(20)).unwrap() {
                    assert!(driver.next().is_none(), "its peer reads nothing");
                }
            }
            driver.abort(id).unwrap();
            driver.abort(id).unwrap();
            let mut cancelled = 0;
            until_closed(&mut driver, id, |_, event| match event {
                Event::Sent { result, .. } => {
                    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
                    cancelled += 1;
                }
                other => panic!("{other:?}"),
            });
            assert_eq!(cancelled, 3);
            assert_eq!(driver.abort(id), Err(DriverError::UnknownSocket));
            let error = loop {
                if let Err(error) = peer.read(&mut [0; 1 << 16]) {
                    break error;
                }
            };
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
        finish(driver);
        assert_all_free(&arena);
    });
}

#[test]
fn a_connection_that_is_reset_ends_its_sends_before_it_is_closed() {
    watched(|| {
        let Some((mut driver, arena, ring)) = with_ring() else { return };
        let (ours, peer) = stuck_pair();
        let id = driver.receive(ring, ours).unwrap();
        for _ in 0..3 {
            driver.send(id, Bytes::from(vec![1; 8 << 20])).unwrap();
        }
        while driver.wait_timeout(Duration::from_millis(20)).unwrap() {
            assert!(driver.next().is_none());
        }
        // A close with unread bytes is a reset.
        drop(peer);
        let mut failed = 0;
        let error = until_closed(&mut driver, id, |_, event| match event {
            Event::Sent { result, .. } => failed += usize::from(result.is_err()),
            other => panic!("{other:?}"),
        });
        // The kernel tells a reset once, to whoever asks first.
        let is_reset = matches!(error, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe));
        assert!(is_reset && failed == 3, "{error:?}, {failed}");
        finish(driver);
        assert_all_free(&arena);
    });
}

#[test]
fn a_drain_and_a_drop_end_connections_with_stuck_sends() {
    watched(|| {
        for drains in [true, false] {
            let Some((mut driver, arena, ring)) = with_ring() else { return };
            let (ours, _peer) = stuck_pair();
            let id = driver.receive(ring, ours).unwrap();
            for _ in 0..3 {
                driver.send(id, Bytes::from(vec![1; 8 << 20])).unwrap();
            }
            driver.wait_timeout(Duration::from_millis(20)).unwrap();
            driver.close(id).unwrap();
            if drains {
                let report = driver.drain(TIMEOUT).unwrap();
                assert_eq!((report.in_flight, report.closed), (0, 1), "{report:?}");
                assert!(driver.socket(id).is_none());
            }
            drop(driver);
            assert_all_free(&arena);
        }
    });
}

#[test]
fn each_event_has_the_token_of_its_socket_file_or_operation() {
    let Some((mut driver, arena, ring)) = with_ring() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let id = driver.accept(listener).unwrap();
    driver.set_token(id, 1).unwrap();
    let client = TcpStream::connect(address).unwrap();
    let mut accepted = None;
    run(&mut driver, |event| {
        let Event::Accepted { token, socket, from, .. } = event else { panic!("{event:?}") };
        assert_eq!((token, from), (1, Some(client.local_addr().unwrap())));
        accepted = Some(socket);
        true
    });
    let id = driver.receive(ring, accepted.unwrap()).unwrap();
    driver.send(id, Bytes::from_static(b"before")).unwrap();
    // Also of what was sent before, unless it has a token of its own.
    driver.set_token(id, 2).unwrap();
    let own = driver.send(id, Bytes::from_static(b"own")).unwrap();
    driver.set_token(own, 3).unwrap();
    driver.shutdown_write(id).unwrap();
    drop(client);
    let mut tokens = Vec::new();
    until_closed(&mut driver, id, |_, event| match event {
        Event::Sent { token, .. } | Event::Done { token, .. } => tokens.push(token),
        other => panic!("{other:?}"),
    });
    assert_eq!(tokens, [2, 3, 2]);
    let file = driver.add_file(File::options().write(true).open("/dev/null").unwrap()).unwrap();
    driver.set_token(file, 4).unwrap();
    driver.write(file, Bytes::from_static(b"x"), 0).unwrap();
    run(&mut driver, |event| matches!(event, Event::Wrote { token: 4, .. }));
    driver.abort_file(file).unwrap();
    run(&mut driver, |event| matches!(event, Event::FileClosed { token: 4, .. }));
    assert_eq!(driver.set_token(file, 5), Err(DriverError::UnknownFile));
    assert_eq!(driver.set_token(id, 5), Err(DriverError::UnknownSocket));
    assert_eq!(driver.set_token(own, 5), Err(DriverError::UnknownOperation));
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn one_loop_takes_events_and_is_told_of_wakes() {
    watched(|| {
        let Some((mut driver, arena, ring)) = with_ring() else { return };
        let waker = driver.waker().unwrap();
        let (mut peer, socket) = UnixStream::pair().unwrap();
        driver.receive(ring, socket).unwrap();
        for _ in 0..100 {
            waker.wake_by_ref();
            assert!(matches!(driver.wait_event().unwrap(), Event::Woken));
            peer.write_all(b"x").unwrap();
            assert!(matches!(driver.wait_event().unwrap(), Event::Received { .. }));
        }
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            waker.wake();
        });
        assert!(matches!(driver.wait_event().unwrap(), Event::Woken));
        thread.join().unwrap();
        finish(driver);
        assert_all_free(&arena);
    });
}
