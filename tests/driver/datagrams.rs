//! Datagrams and messages on the real kernel: the errors that one packet causes, and connections
//! that keep the boundaries of messages.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixStream};
use std::time::Duration;

use crate::support::driver::{driver, finish, run};
use crate::support::network::{Icmp, in_network_of_its_own};
use crate::support::{TestFile, arena, assert_all_free, message_pair, pattern, tcp_pair};
use rustix::net::{
    AddressFamily, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept, bind,
    connect, listen, send, shutdown, socket_with,
};
use uring_arena::{
    BufferRing, BufferRingId, Driver, DriverError, Event, FixedArena, SendOptions, SocketId,
};

fn driver_with_ring(slots: usize, bytes: usize) -> Option<(Driver, FixedArena, BufferRingId)> {
    let mut driver = driver()?;
    let arena = arena(slots, bytes);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    Some((driver, arena, ring))
}

/// Waits for one datagram, and for nothing else.
fn next_datagram(driver: &mut Driver, from: SocketId) -> Vec<u8> {
    let mut bytes = None;
    run(driver, |event| {
        let Event::Datagram { id, datagram, .. } = event else { panic!("{event:?}") };
        assert_eq!(id, from);
        bytes = Some(datagram.bytes.to_vec());
        true
    });
    bytes.unwrap()
}

/// Waits until a socket is closed, and takes the messages before that.
fn until_closed(driver: &mut Driver, from: SocketId) -> (Vec<Vec<u8>>, Option<i32>) {
    let (mut messages, mut errno) = (Vec::new(), None);
    run(driver, |event| match event {
        Event::Datagram { id, datagram, .. } => {
            assert_eq!(id, from);
            messages.push(datagram.bytes.to_vec());
            assert!(messages.len() < 1000, "empty messages without end");
            false
        }
        Event::Closed { id, error, .. } => {
            assert_eq!(id, from);
            errno = error.and_then(|error| error.raw_os_error());
            true
        }
        other => panic!("{other:?}"),
    });
    // Once, and nothing after it.
    driver.wait_timeout(Duration::from_millis(5)).unwrap();
    assert!(driver.next().is_none());
    (messages, errno)
}

/// Has ICMP messages of each type and code arrive about a connected socket, one by one and many in
/// a row.
fn survives_icmp(any: &str, kinds: &[(u8, std::ops::RangeInclusive<u8>)]) {
    let Some((mut driver, arena, ring)) = driver_with_ring(8, 256) else { return };
    let (ours, theirs) = (UdpSocket::bind(any).unwrap(), UdpSocket::bind(any).unwrap());
    let (our_address, their_address): (SocketAddr, SocketAddr) =
        (ours.local_addr().unwrap(), theirs.local_addr().unwrap());
    ours.connect(their_address).unwrap();
    let clone = ours.try_clone().unwrap();
    let icmp = match Icmp::new(our_address, their_address) {
        Ok(icmp) => icmp,
        Err(error) => return eprintln!("SKIPPED ICMP: no raw socket ({error})"),
    };
    // The messages do what they are sent for, on a socket that nobody receives from.
    icmp.send(kinds[0].0, *kinds[0].1.end()).unwrap();
    assert!(clone.take_error().unwrap().is_some(), "the message reached no socket");
    let id = driver.receive_datagrams(ring, ours).unwrap();
    driver.wait_timeout(Duration::ZERO).unwrap();
    for (kind, codes) in kinds {
        for code in codes.clone() {
            for times in [1, 3] {
                for _ in 0..times {
                    icmp.send(*kind, code).unwrap();
                    driver.wait_timeout(Duration::from_millis(1)).unwrap();
                    assert!(driver.next().is_none(), "type {kind}, code {code} ended the socket");
                }
                theirs.send_to(&[*kind, code], our_address).unwrap();
                assert_eq!(next_datagram(&mut driver, id), [*kind, code]);
            }
        }
    }
    // Many in a row, with no datagram between them.
    for _ in 0..300 {
        icmp.send(kinds[0].0, 1).unwrap();
        driver.wait_timeout(Duration::ZERO).unwrap();
        assert!(driver.next().is_none());
    }
    theirs.send_to(b"still here", our_address).unwrap();
    assert_eq!(next_datagram(&mut driver, id), b"still here");
    // An error that comes with the close is not why the socket is closed.
    icmp.send(kinds[0].0, 1).unwrap();
    driver.close(id).unwrap();
    assert_eq!(until_closed(&mut driver, id), (vec![], None));
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn no_icmp_message_closes_a_datagram_socket() {
    // Unreachable (net, host, protocol, port, too long, route, …), time exceeded, bad parameter.
    in_network_of_its_own("ICMP", || {
        survives_icmp("127.0.0.1:0", &[(3, 0..=15), (11, 0..=1), (12, 0..=2)]);
    });
}

#[test]
fn no_icmp_message_closes_a_datagram_socket_of_ipv6() {
    // Unreachable (route, forbidden, scope, address, port, policy, rejected), too long, time
    // exceeded, bad parameter.
    in_network_of_its_own("ICMPv6", || {
        survives_icmp("[::1]:0", &[(1, 0..=6), (2, 0..=0), (3, 0..=1), (4, 0..=2)]);
    });
}

/// The ordinary case, which needs no privilege: nobody listens where a datagram goes.
#[test]
fn a_closed_port_closes_no_datagram_socket() {
    for any in ["127.0.0.1:0", "[::1]:0"] {
        let Some((mut driver, arena, ring)) = driver_with_ring(8, 256) else { return };
        let (Ok(ours), Ok(theirs)) = (UdpSocket::bind(any), UdpSocket::bind(any)) else {
            eprintln!("SKIPPED: no address {any}");
            continue;
        };
        let (our_address, their_address) =
            (ours.local_addr().unwrap(), theirs.local_addr().unwrap());
        ours.connect(their_address).unwrap();
        let clone = ours.try_clone().unwrap();
        let id = driver.receive_datagrams(ring, ours).unwrap();
        drop(theirs);
        for _ in 0..20 {
            match clone.send(b"nobody") {
                Ok(_) => {}
                // This call took the error of the one before.
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
            }
            driver.wait_timeout(Duration::from_millis(1)).unwrap();
            assert!(driver.next().is_none());
        }
        let theirs = UdpSocket::bind(their_address).unwrap();
        theirs.send_to(b"back again", our_address).unwrap();
        assert_eq!(next_datagram(&mut driver, id), b"back again");
        finish(driver);
        assert_all_free(&arena);
    }
}

/// Not every pending error is of the network: the peer of a Unix socket turns to another one, with
/// datagrams unread.
#[test]
fn a_unix_datagram_socket_survives_its_peers_change_of_mind() {
    let Some((mut driver, arena, ring)) = driver_with_ring(8, 256) else { return };
    let paths = [(); 3].map(|()| TestFile::path("datagram"));
    let [ours, theirs, _other] = [0, 1, 2].map(|at| UnixDatagram::bind(&paths[at]).unwrap());
    ours.connect(&paths[1]).unwrap();
    let clone = ours.try_clone().unwrap();
    let id = driver.receive_datagrams(ring, ours).unwrap();
    for _ in 0..3 {
        theirs.connect(&paths[0]).unwrap();
        clone.send(b"never read").unwrap();
        driver.wait_timeout(Duration::ZERO).unwrap();
        let completions = driver.metrics().completions;
        theirs.connect(&paths[2]).unwrap();
        driver.wait_timeout(Duration::from_millis(20)).unwrap();
        assert!(driver.next().is_none(), "the error ended the socket");
        assert_eq!(driver.metrics().completions, completions + 1, "no error came");
        theirs.send_to(b"hello", &paths[0]).unwrap();
        assert_eq!(next_datagram(&mut driver, id), b"hello");
    }
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_descriptor_that_is_no_socket_is_closed_with_the_error() {
    let Some((mut driver, arena, ring)) = driver_with_ring(8, 256) else { return };
    let id = driver.receive_datagrams(ring, std::io::pipe().unwrap().0).unwrap();
    assert_eq!(until_closed(&mut driver, id), (vec![], Some(libc::ENOTSOCK)));
    // A socket of messages without a peer.
    let kind = SocketType::SEQPACKET;
    let alone = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
    let id = driver.receive_datagrams(ring, alone).unwrap();
    assert_eq!(until_closed(&mut driver, id), (vec![], Some(libc::ENOTCONN)));
    finish(driver);
    assert_all_free(&arena);
}

/// Each type of socket has the call that keeps what it promises. The other call names it, and gives
/// the socket back.
#[test]
fn a_socket_of_another_type_is_refused_and_comes_back() {
    let Some((mut driver, arena, ring)) = driver_with_ring(8, 256) else { return };
    let streams: [OwnedFd; 2] = [tcp_pair().0.into(), UnixStream::pair().unwrap().0.into()];
    for stream in streams {
        let number = stream.as_raw_fd();
        let refused = driver.receive_datagrams(ring, stream).unwrap_err();
        let DriverError::SocketType { socket_type, .. } = refused.error else {
            panic!("{refused}")
        };
        assert_eq!(socket_type, libc::SOCK_STREAM);
        assert!(refused.to_string().contains("use `receive`"), "{refused}");
        assert_eq!(refused.socket.as_raw_fd(), number);
        driver.receive(ring, refused.socket).unwrap();
    }
    let messages: [(OwnedFd, i32); 4] = [
        (UdpSocket::bind("127.0.0.1:0").unwrap().into(), libc::SOCK_DGRAM),
        (UnixDatagram::unbound().unwrap().into(), libc::SOCK_DGRAM),
        (message_pair().0, libc::SOCK_SEQPACKET),
        (UnixDatagram::pair().unwrap().0.into(), libc::SOCK_DGRAM),
    ];
    for (socket, expected) in messages {
        let refused = driver.receive(ring, socket).unwrap_err();
        let DriverError::SocketType { socket_type, .. } = refused.error else {
            panic!("{refused}")
        };
        assert_eq!(socket_type, expected);
        assert!(refused.to_string().contains("use `receive_datagrams`"), "{refused}");
        let refused = driver.read_pipe(ring, refused.socket).unwrap_err();
        assert!(matches!(refused.error, DriverError::SocketType { .. }), "{refused}");
        driver.receive_datagrams(ring, refused.socket).unwrap();
    }
    // Listeners are what they are; a stream of another kind may be read like a pipe.
    driver.accept(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    driver.read_pipe(ring, UnixStream::pair().unwrap().0).unwrap();
    finish(driver);
    assert_all_free(&arena);
}

fn send_message(socket: impl AsFd, message: &[u8]) {
    assert_eq!(send(socket, message, SendFlags::empty()).unwrap(), message.len());
}

/// Sends messages, closes, and compares what comes; the receive is armed before or after.
fn messages_to_the_end(sent: &[&[u8]], expected: &[&[u8]], armed_first: bool) {
    let Some((mut driver, arena, ring)) = driver_with_ring(8, 256) else { return };
    let (ours, theirs) = message_pair();
    let (id, ours) = if armed_first {
        let id = driver.receive_datagrams(ring, ours).unwrap();
        driver.wait_timeout(Duration::ZERO).unwrap();
        (Some(id), None)
    } else {
        (None, Some(ours))
    };
    for message in sent {
        send_message(&theirs, message);
    }
    drop(theirs);
    let id = id.unwrap_or_else(|| driver.receive_datagrams(ring, ours.unwrap()).unwrap());
    let (messages, errno) = until_closed(&mut driver, id);
    assert_eq!(
        (&messages[..], errno),
        (&expected.iter().map(|it| it.to_vec()).collect::<Vec<_>>()[..], None)
    );
    finish(driver);
    assert_all_free(&arena);
}

/// The end of a connection that keeps boundaries completes like an empty message. It is told once,
/// and empty messages are told from it.
#[test]
fn the_end_of_a_connection_of_messages_comes_once() {
    for armed_first in [true, false] {
        for sent in [
            &[][..],
            &[&b"one"[..]],
            &[b"one", b"two", b"three"],
            &[b"", b"behind an empty one"],
            &[b"one", b"", b"", b"", b"behind three"],
        ] {
            messages_to_the_end(sent, sent, armed_first);
        }
        // Nothing tells these from the end: the documentation says so.
        messages_to_the_end(&[b"one", b"", b""], &[b"one"], false);
    }
}

#[test]
fn an_empty_message_on_an_open_connection_is_a_message() {
    let Some((mut driver, arena, ring)) = driver_with_ring(8, 256) else { return };
    let (ours, theirs) = message_pair();
    let id = driver.receive_datagrams(ring, ours).unwrap();
    for _ in 0..3 {
        for message in [&b""[..], b"", b"full", b""] {
            send_message(&theirs, message);
            assert_eq!(next_datagram(&mut driver, id), message);
        }
        // Several at once.
        for message in [&b""[..], b"", b"full"] {
            send_message(&theirs, message);
        }
        for message in [&b""[..], b"", b"full"] {
            assert_eq!(next_datagram(&mut driver, id), message);
        }
    }
    // A half-close is the end of this direction.
    shutdown(&theirs, Shutdown::Write).unwrap();
    assert_eq!(until_closed(&mut driver, id), (vec![], None));
    finish(driver);
    assert_all_free(&arena);
}

/// A peer with an address marks each of its messages by that.
#[test]
fn an_empty_message_of_a_named_peer_is_told_from_the_end() {
    let Some((mut driver, arena, ring)) = driver_with_ring(8, 256) else { return };
    let path = TestFile::path("messages");
    let address = SocketAddrUnix::new(path.as_ref()).unwrap();
    let kind = SocketType::SEQPACKET;
    let new = || socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
    let (listener, ours) = (new(), new());
    bind(&listener, &address).unwrap();
    listen(&listener, 1).unwrap();
    connect(&ours, &address).unwrap();
    let theirs = accept(&listener).unwrap();
    let sent = [&b"one"[..], b"", b"two", b"", b""];
    for message in sent {
        send_message(&theirs, message);
    }
    drop(theirs);
    let id = driver.receive_datagrams(ring, ours).unwrap();
    assert_eq!(until_closed(&mut driver, id), (sent.map(<[u8]>::to_vec).to_vec(), None));
    finish(driver);
    assert_all_free(&arena);
}

/// Boundaries are kept, and a message that is longer than its slot is cut and marked.
#[test]
fn messages_keep_their_boundaries_and_a_long_one_is_marked() {
    let Some((mut driver, arena, ring)) = driver_with_ring(16, 256) else { return };
    let (ours, theirs) = message_pair();
    let id = driver.receive_datagrams(ring, ours).unwrap();
    for (number, len) in [1, 100, 211, 212, 213, 1000, 3].into_iter().enumerate() {
        let message = pattern(number, len);
        send_message(&theirs, &message);
        run(&mut driver, |event| {
            let Event::Datagram { id: from, datagram, .. } = event else { panic!("{event:?}") };
            assert_eq!((from, datagram.from), (id, None));
            assert_eq!(datagram.bytes[..], message[..len.min(212)]);
            assert_eq!(datagram.is_truncated, len > 212);
            true
        });
    }
    // Many at once, more than there are slots.
    for number in 0..100 {
        send_message(&theirs, &pattern(number, number + 1));
    }
    for number in 0..100 {
        assert_eq!(next_datagram(&mut driver, id), pattern(number, number + 1));
    }
    driver.close(id).unwrap();
    assert_eq!(until_closed(&mut driver, id), (vec![], None));
    finish(driver);
    assert_all_free(&arena);
}

/// The peer goes with unread messages: the kernel tells the error before the messages that came.
/// The driver tells it after them, as for a stream.
#[test]
fn a_reset_connection_of_messages_tells_its_error_after_its_messages() {
    for armed_first in [true, false] {
        let Some((mut driver, arena, ring)) = driver_with_ring(8, 256) else { return };
        let (ours, theirs) = message_pair();
        let clone = ours.try_clone().unwrap();
        send_message(&clone, b"never read");
        let armed = armed_first.then(|| {
            let id = driver.receive_datagrams(ring, ours.try_clone().unwrap()).unwrap();
            driver.wait_timeout(Duration::ZERO).unwrap();
            id
        });
        for message in [&b"one"[..], b"", b"two"] {
            send_message(&theirs, message);
        }
        drop(theirs);
        let id = armed.unwrap_or_else(|| driver.receive_datagrams(ring, ours).unwrap());
        let (messages, errno) = until_closed(&mut driver, id);
        assert_eq!(messages, [&b"one"[..], b"", b"two"]);
        assert_eq!(errno, Some(libc::ECONNRESET));
        finish(driver);
        assert_all_free(&arena);
    }
}

/// A paused connection keeps its messages and its end until it goes on. Short messages are copied
/// out of their slots.
#[test]
fn a_paused_connection_of_messages_tells_its_end_later() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(8, 256);
    let options = BufferRing::options().copy_below(100);
    let ring = driver.register_buffer_ring(&arena, options).unwrap();
    let (ours, theirs) = message_pair();
    let id = driver.receive_datagrams(ring, ours).unwrap();
    driver.wait_timeout(Duration::ZERO).unwrap();
    driver.pause(id).unwrap();
    driver.wait_timeout(Duration::from_millis(5)).unwrap();
    for message in [&b"one"[..], b"", b"two"] {
        send_message(&theirs, message);
    }
    drop(theirs);
    driver.wait_timeout(Duration::from_millis(5)).unwrap();
    assert!(driver.next().is_none());
    driver.resume(id).unwrap();
    let (messages, errno) = until_closed(&mut driver, id);
    assert_eq!((&messages[..], errno), (&[b"one".to_vec(), vec![], b"two".to_vec()][..], None));
    finish(driver);
    assert_all_free(&arena);
}

/// An error that was pending before the receive began is one like any other.
#[test]
fn an_error_that_was_pending_before_is_survived_too() {
    let Some((mut driver, arena, ring)) = driver_with_ring(8, 256) else { return };
    let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
    let theirs = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (our_address, their_address) = (ours.local_addr().unwrap(), theirs.local_addr().unwrap());
    drop(theirs);
    ours.connect(their_address).unwrap();
    ours.send(b"nobody").unwrap();
    let id = driver.receive_datagrams(ring, ours).unwrap();
    driver.wait_timeout(Duration::from_millis(5)).unwrap();
    assert!(driver.next().is_none());
    let theirs = UdpSocket::bind(their_address).unwrap();
    theirs.send_to(b"hello", our_address).unwrap();
    assert_eq!(next_datagram(&mut driver, id), b"hello");
    finish(driver);
    assert_all_free(&arena);
}

/// The end needs a slot like a message. While all are held it waits, and nothing spins.
#[test]
fn the_end_of_messages_is_told_when_slots_come_back() {
    let Some((mut driver, arena, ring)) = driver_with_ring(2, 256) else { return };
    let (ours, theirs) = message_pair();
    let id = driver.receive_datagrams(ring, ours).unwrap();
    let mut held = Vec::new();
    for _ in 0..2 {
        send_message(&theirs, &[1; 100]);
        run(&mut driver, |event| {
            held.push(event);
            true
        });
    }
    drop(theirs);
    let before = driver.metrics();
    driver.wait_timeout(Duration::from_millis(20)).unwrap();
    assert!(driver.next().is_none());
    assert!(driver.metrics().completions - before.completions < 10, "{:?}", driver.metrics());
    drop(held);
    assert_eq!(until_closed(&mut driver, id), (vec![], None));
    finish(driver);
    assert_all_free(&arena);
}

/// The ways to send a message.
#[derive(Debug, Clone, Copy)]
enum Way {
    Plain,
    Vectored,
    Addressed,
}

/// A peer that does not read makes messages wait, and each comes whole: a send that the kernel
/// tries again does not go out as an empty message.
#[test]
fn messages_that_wait_for_their_peer_come_whole() {
    for way in [Way::Plain, Way::Vectored, Way::Addressed] {
        for (is_blocking, is_connected) in
            [(true, true), (false, true), (true, false), (false, false)]
        {
            let Some(mut driver) = driver() else { return };
            let name = format!("uring-arena waits {way:?} {is_blocking} {is_connected}");
            let name = UnixAddress::from_abstract_name(name).unwrap();
            let (theirs, ours) =
                (UnixDatagram::bind_addr(&name).unwrap(), UnixDatagram::unbound().unwrap());
            let (ours, theirs) = match way {
                Way::Addressed => {
                    if is_connected {
                        ours.connect_addr(&name).unwrap();
                    }
                    (OwnedFd::from(ours), OwnedFd::from(theirs))
                }
                _ if is_connected => message_pair(),
                _ => continue,
            };
            rustix::io::ioctl_fionbio(&ours, !is_blocking).unwrap();
            // Receiving meanwhile.
            let arena = arena(8, 4096);
            let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
            let id = driver.receive_datagrams(ring, ours).unwrap();
            driver.wait_timeout(Duration::from_millis(1)).unwrap();
            // More than the peer's queue takes.
            let mut sends = 64;
            for number in 0..sends {
                let message = bytes::Bytes::from(pattern(number, 4000 + number));
                match way {
                    Way::Plain => driver.send(id, message).unwrap(),
                    Way::Vectored => {
                        let pieces = [message.slice(..50), message.slice(50..)];
                        driver.send_vectored(id, pieces, SendOptions::new()).unwrap()
                    }
                    Way::Addressed => driver.send_to(id, message, &name).unwrap(),
                };
            }
            let setting = format!("{way:?}, blocking {is_blocking}, connected {is_connected}");
            // Until the peer reads, the driver sleeps.
            driver.wait_timeout(Duration::from_millis(20)).unwrap();
            while let Some(event) = driver.next() {
                sends -= usize::from(is_sent(event));
            }
            let before = driver.metrics().enters;
            driver.wait_timeout(Duration::from_millis(200)).unwrap();
            let enters = driver.metrics().enters - before;
            assert!(enters < 50, "{enters} calls beside a peer that does not read: {setting}");
            for number in 0..64 {
                let mut room = [0; 8192];
                let bytes = loop {
                    while let Some(event) = driver.next() {
                        sends -= usize::from(is_sent(event));
                    }
                    let flags = rustix::net::RecvFlags::DONTWAIT;
                    match rustix::net::recv(&theirs, &mut room[..], flags) {
                        Ok((len, _)) => break len,
                        Err(rustix::io::Errno::AGAIN) => {}
                        Err(error) => panic!("{error}"),
                    }
                    driver.wait_timeout(Duration::from_millis(1)).unwrap();
                };
                assert!(
                    room[..bytes] == pattern(number, 4000 + number),
                    "message {number} has {bytes} bytes: {setting}"
                );
            }
            while sends > 0 {
                driver.wait_timeout(Duration::from_millis(1)).unwrap();
                while let Some(event) = driver.next() {
                    sends -= usize::from(is_sent(event));
                }
            }
            finish(driver);
        }
    }
}

fn is_sent(event: Event) -> bool {
    match event {
        Event::Sent { result, .. } | Event::SentVectored { result, .. } => result.is_ok(),
        other => panic!("{other:?}"),
    }
}
