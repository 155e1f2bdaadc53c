//! Datagrams whole: where they go and come from, their details, and answers from the right address.

use std::io::{ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sockopt};
use uring_arena::{
    Address, BufferRing, BufferRingId, Datagram, DatagramDetails, Destination, Driver, DriverError,
    Event, FixedArena, SendOptions, SocketId, TransferError,
};

use crate::support::driver::{driver, finish, run};
use crate::support::{TIMEOUT, arena, assert_all_free, filled, message_pair, pattern, watched};

/// Builds a driver with a ring that has room for details.
fn with_ring(slots: usize, slot_bytes: usize) -> Option<(Driver, FixedArena, BufferRingId)> {
    let mut driver = driver()?;
    let arena = arena(slots, slot_bytes);
    let options = BufferRing::options().entries(slots / 2).datagram_details(true);
    let ring = driver.register_buffer_ring(&arena, options).unwrap();
    Some((driver, arena, ring))
}

fn next_datagram(driver: &mut Driver, id: SocketId) -> Datagram<Bytes> {
    let mut next = None;
    run(driver, |event| match event {
        Event::Datagram { id: of, datagram, .. } if of == id => {
            next = Some(datagram);
            true
        }
        Event::Sent { result, .. } => {
            result.unwrap();
            false
        }
        other => panic!("{other:?}"),
    });
    next.unwrap()
}

fn client(local: &str) -> UdpSocket {
    let client = UdpSocket::bind(local).unwrap();
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    client
}

#[test]
fn an_answer_comes_from_the_address_that_was_asked() {
    let Some((mut driver, arena, ring)) = with_ring(16, 2048) else { return };
    // Bound to all addresses, of both families where there are two.
    let mut servers = vec![(UdpSocket::bind("0.0.0.0:0").unwrap(), vec!["127.0.0.1", "127.0.0.2"])];
    if let Ok(both) = UdpSocket::bind("[::]:0") {
        servers.push((both, vec!["::1", "127.0.0.3"]));
    }
    for (server, asked) in servers {
        let port = server.local_addr().unwrap().port();
        DatagramDetails::new().destination().enable(&server).unwrap();
        let id = driver.receive_datagrams(ring, server).unwrap();
        for ip in asked {
            let ip: IpAddr = ip.parse().unwrap();
            let client = client(if ip.is_ipv4() { "127.0.0.9:0" } else { "[::1]:0" });
            let asked = SocketAddr::new(ip, port);
            client.send_to(b"who is it?", asked).unwrap();
            let question = next_datagram(&mut driver, id);
            assert_eq!(question.to().unwrap().to_canonical(), ip);
            assert_ne!(question.interface().unwrap(), 0);
            let destination = Destination::reply_to(&question).unwrap();
            driver.send_to(id, question.bytes, destination).unwrap();
            run(&mut driver, |event| matches!(event, Event::Sent { result: Ok(10), sent: 10, .. }));
            let mut answer = [0; 64];
            let (bytes, from) = client.recv_from(&mut answer).unwrap();
            assert_eq!((&answer[..bytes], from), (&b"who is it?"[..], asked));
        }
        driver.close(id).unwrap();
        run(&mut driver, |event| matches!(event, Event::Closed { .. }));
    }
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn marks_times_and_drops_are_told_if_asked_for() {
    let Some((mut driver, arena, ring)) = with_ring(16, 2048) else { return };
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    sockopt::set_socket_recv_buffer_size(&server, 4096).unwrap();
    let details = DatagramDetails::new().ecn().timestamps().drops();
    details.enable(&server).unwrap();
    // More than it has room for.
    let flood = client("127.0.0.1:0");
    for _ in 0..200 {
        flood.send_to(&[0; 500], address).unwrap();
    }
    let before = SystemTime::now();
    let id = driver.receive_datagrams(ring, server).unwrap();
    let mut dropped = 0;
    let mut came = 0;
    while driver.wait_timeout(Duration::from_millis(20)).unwrap() {
        while let Some(event) = driver.next() {
            let Event::Datagram { datagram, .. } = event else { panic!("{event:?}") };
            assert_eq!((datagram.to(), datagram.interface()), (None, None));
            assert_eq!(datagram.segment_bytes(), None);
            assert_eq!(datagram.ecn(), Some(0));
            assert!(datagram.timestamp().unwrap() <= SystemTime::now());
            came += 1;
        }
    }
    for bits in [2, 1, 3] {
        let sender = driver.add_file(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        let to = Destination::from(address).ecn(bits);
        driver.send_to(sender, filled(&arena, b"marked"), to).unwrap();
        let datagram = next_datagram(&mut driver, id);
        assert_eq!((datagram.ecn(), &datagram.bytes[..]), (Some(bits), &b"marked"[..]));
        assert!(datagram.timestamp().unwrap() >= before);
        dropped = dropped.max(datagram.dropped().unwrap_or(0));
    }
    assert_eq!(dropped, 200 - came);
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn many_datagrams_go_and_come_as_one() {
    let Some((mut driver, arena, ring)) = with_ring(8, 1 << 16) else { return };
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let plain = client("127.0.0.1:0");
    let addresses = [server.local_addr().unwrap(), plain.local_addr().unwrap()];
    if let Err(error) = DatagramDetails::new().segments().enable(&server) {
        return eprintln!("SKIPPED: no UDP_GRO: {error}");
    }
    let id = driver.receive_datagrams(ring, server).unwrap();
    let sender = driver.add_file(client("127.0.0.1:0")).unwrap();
    let bytes = pattern(1, 10_300);
    for address in addresses {
        let to = Destination::from(address).segments(1000);
        driver.send_to(sender, Bytes::from(bytes.clone()), to).unwrap();
    }
    let (mut came, mut sent) = (Vec::new(), 0);
    run(&mut driver, |event| {
        match event {
            Event::Datagram { id: of, datagram, .. } => {
                assert_eq!(of, id);
                // A lone one is no message of many.
                assert_eq!(datagram.segment_bytes().unwrap_or(1000), 1000);
                came.extend_from_slice(&datagram.bytes);
            }
            Event::Sent { result, .. } => {
                assert_eq!(result.unwrap(), bytes.len());
                sent += 1;
            }
            other => panic!("{other:?}"),
        }
        came.len() == bytes.len() && sent == 2
    });
    assert!(came == bytes);
    // Without the option each comes alone.
    let mut datagram = [0; 4096];
    for part in bytes.chunks(1000) {
        assert_eq!(plain.recv(&mut datagram).unwrap(), part.len());
        assert!(datagram[..part.len()] == *part);
    }
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_unix_sender_has_its_name_and_gets_an_answer() {
    let Some((mut driver, arena, ring)) = with_ring(8, 2048) else { return };
    let name = |of: &str| {
        let name = format!("uring-arena {of} {}", std::process::id());
        UnixAddress::from_abstract_name(name).unwrap()
    };
    let server = UnixDatagram::bind_addr(&name("server")).unwrap();
    let client = UnixDatagram::bind_addr(&name("client")).unwrap();
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    let id = driver.receive_datagrams(ring, server).unwrap();
    client.send_to_addr(b"hello", &name("server")).unwrap();
    let datagram = next_datagram(&mut driver, id);
    assert_eq!(datagram.from, None);
    let from = datagram.from_unix().unwrap();
    assert_eq!(from.as_abstract_name(), name("client").as_abstract_name());
    let destination = Destination::reply_to(&datagram).unwrap();
    driver.send_to(id, datagram.bytes, destination).unwrap();
    run(&mut driver, |event| matches!(event, Event::Sent { result: Ok(5), .. }));
    let mut answer = [0; 16];
    assert_eq!(client.recv(&mut answer).unwrap(), 5);
    // Nobody there: the datagram fails, and the next one goes out.
    driver.send_to(id, Bytes::from_static(b"lost"), name("nobody")).unwrap();
    driver.send_to(id, Bytes::from_static(b"found"), Address::from(name("client"))).unwrap();
    let mut results = Vec::new();
    run(&mut driver, |event| {
        let Event::Sent { result, .. } = event else { panic!("{event:?}") };
        results.push(result.map_err(|error| error.raw_os_error().unwrap()));
        results.len() == 2
    });
    assert_eq!(results, [Err(libc::ECONNREFUSED), Ok(5)]);
    assert_eq!(client.recv(&mut answer).unwrap(), 5);
    // One without a name has none.
    UnixDatagram::unbound().unwrap().send_to_addr(b"", &name("server")).unwrap();
    let datagram = next_datagram(&mut driver, id);
    assert!(datagram.from_unix().is_none() && Destination::reply_to(&datagram).is_none());
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn messages_of_a_connection_are_answered_on_their_id() {
    let Some((mut driver, arena, ring)) = with_ring(8, 2048) else { return };
    let (ours, peer) = message_pair();
    let id = driver.receive_datagrams(ring, ours).unwrap();
    rustix::net::send(&peer, b"question", rustix::net::SendFlags::empty()).unwrap();
    let question = next_datagram(&mut driver, id);
    driver.send(id, question.bytes).unwrap();
    run(&mut driver, |event| matches!(event, Event::Sent { result: Ok(8), .. }));
    let mut answer = [0; 16];
    let flags = rustix::net::RecvFlags::empty();
    let (bytes, _) = rustix::net::recv(&peer, &mut answer[..], flags).unwrap();
    assert_eq!(&answer[..bytes], b"question");
    drop(peer);
    run(&mut driver, |event| matches!(event, Event::Closed { error: None, .. }));
    finish(driver);
    assert_all_free(&arena);
}

/// A part of a message would go out as a message of its own.
#[test]
fn a_message_of_more_pieces_than_one_call_takes_is_refused_whole() {
    let Some((mut driver, arena, ring)) = with_ring(8, 2048) else { return };
    let peer = client("127.0.0.1:0");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(peer.local_addr().unwrap()).unwrap();
    let udp = driver.receive_datagrams(ring, socket.try_clone().unwrap()).unwrap();
    let file = driver.add_file(socket).unwrap();
    let (ours, theirs) = message_pair();
    let messages = driver.add_file(ours).unwrap();
    let pieces = |count| (0..count).flat_map(|_| [Bytes::from_static(b"x"), Bytes::new()]);
    let options = SendOptions::new();
    let refusals = [
        driver.send_vectored(udp, pieces(1025), options).unwrap_err(),
        driver.send_vectored(file, pieces(1025), options).unwrap_err(),
        driver.send_vectored(messages, pieces(1025), options).unwrap_err(),
        driver.write_vectored(messages, pieces(1025), 0).unwrap_err(),
    ];
    for refused in refusals {
        assert_eq!(refused.error, TransferError::TooManyPieces { pieces: 1025, limit: 1024 });
        assert_eq!(refused.memory.len(), 2050, "it comes back");
    }
    driver.send_vectored(udp, pieces(1024), options).unwrap();
    driver.send_vectored(messages, pieces(1024), options).unwrap();
    let mut sent = 0;
    run(&mut driver, |event| {
        let Event::SentVectored { result, .. } = event else { panic!("{event:?}") };
        sent += usize::from(result.unwrap() == 1024);
        sent == 2
    });
    let mut bytes = [0; 2048];
    assert_eq!(peer.recv(&mut bytes).unwrap(), 1024, "the first one");
    let flags = rustix::net::RecvFlags::DONTWAIT;
    assert_eq!(rustix::net::recv(&theirs, &mut bytes[..], flags).unwrap().0, 1024);
    assert!(rustix::net::recv(&theirs, &mut bytes[..], flags).is_err(), "and no other");
    finish(driver);
    assert_all_free(&arena);
}

/// An ICMP message about a datagram is the error of a later send, of none, or of the receive. It
/// ends nothing.
#[test]
fn sends_to_nobody_fail_alone_and_the_socket_goes_on() {
    watched(|| {
        let Some((mut driver, arena, ring)) = with_ring(32, 2048) else { return };
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = nobody.local_addr().unwrap();
        drop(nobody);
        let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
        ours.connect(address).unwrap();
        let our_address = ours.local_addr().unwrap();
        let file = driver.add_file(ours.try_clone().unwrap()).unwrap();
        let id = driver.receive_datagrams(ring, ours).unwrap();
        let (mut told, mut failed) = (0, 0);
        for round in 0..60 {
            match round % 4 {
                0 => driver.send(id, Bytes::from_static(b"nobody")).unwrap(),
                1 => driver.send(file, Bytes::from_static(b"nobody")).unwrap(),
                2 => driver.send_to(id, Bytes::from_static(b"nobody"), address).unwrap(),
                _ => driver.send_to(file, filled(&arena, b"nobody"), address).unwrap(),
            };
            run(&mut driver, |event| {
                let Event::Sent { result, sent, .. } = event else { panic!("{event:?}") };
                match result {
                    Ok(bytes) => assert_eq!((bytes, sent), (6, 6)),
                    Err(error) => {
                        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
                        failed += 1;
                    }
                }
                told += 1;
                true
            });
        }
        assert!(told == 60 && failed < 60, "{failed} of {told}");
        let back = UdpSocket::bind(address).unwrap();
        back.send_to(b"back", our_address).unwrap();
        assert_eq!(&next_datagram(&mut driver, id).bytes[..], b"back");
        driver.send(id, Bytes::from_static(b"again")).unwrap();
        run(&mut driver, |event| matches!(event, Event::Sent { .. }));
        finish(driver);
        assert_all_free(&arena);
    });
}

/// Messages that wait for room in a Unix socket's queue are cancelled, aborted, and drained.
#[test]
fn addressed_messages_to_a_peer_that_does_not_read_are_given_up() {
    watched(|| {
        let Some((mut driver, arena, ring)) = with_ring(32, 2048) else { return };
        let name = |of: &str| {
            let name = format!("uring-arena stuck {of} {}", std::process::id());
            UnixAddress::from_abstract_name(name).unwrap()
        };
        let deaf = UnixDatagram::bind_addr(&name("deaf")).unwrap();
        let ours = UnixDatagram::bind_addr(&name("ours")).unwrap();
        let id = driver.receive_datagrams(ring, ours).unwrap();
        let begin = |driver: &mut Driver, token| {
            let bytes = filled(&arena, &[7; 2048]);
            let send = driver.send_to(id, bytes, name("deaf")).unwrap();
            driver.set_token(send, token).unwrap();
            send
        };
        // The queue has a limit of datagrams, and holds few.
        let mut stuck = Vec::new();
        while stuck.is_empty() {
            let sends: Vec<_> = (0..8).map(|token| begin(&mut driver, token)).collect();
            let mut over = Vec::new();
            let until = Instant::now() + Duration::from_millis(100);
            while Instant::now() < until && over.len() < sends.len() {
                driver.wait_timeout(Duration::from_millis(10)).unwrap();
                while let Some(event) = driver.next() {
                    let Event::Sent { id, result, .. } = event else { panic!("{event:?}") };
                    assert_eq!(result.unwrap(), 2048);
                    over.push(id);
                }
            }
            stuck = sends.into_iter().filter(|id| !over.contains(id)).collect();
        }
        let first = stuck.remove(0);
        driver.set_deadline(first, Instant::now()).unwrap();
        run(&mut driver, |event| {
            let Event::Sent { id, result, .. } = event else { panic!("{event:?}") };
            assert_eq!((id, result.unwrap_err().kind()), (first, ErrorKind::TimedOut));
            true
        });
        begin(&mut driver, 9);
        driver.abort(id).unwrap();
        let mut given_up = 0;
        run(&mut driver, |event| match event {
            Event::Sent { result, .. } => {
                assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
                given_up += 1;
                false
            }
            Event::Closed { error: None, .. } => true,
            other => panic!("{other:?}"),
        });
        assert_eq!(given_up, stuck.len() + 1);
        // A drain ends the same.
        let other = driver.add_file(UnixDatagram::unbound().unwrap()).unwrap();
        driver.send_to(other, filled(&arena, b"never"), name("deaf")).unwrap();
        driver.wait_timeout(Duration::from_millis(5)).unwrap();
        finish(driver);
        drop(deaf);
        assert_all_free(&arena);
    });
}

#[test]
fn a_slot_without_room_for_details_is_refused_and_bad_destinations_fail_alone() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(8, 304);
    let options = BufferRing::options().entries(2).datagram_details(true);
    let ring = driver.register_buffer_ring(&arena, options).unwrap();
    let refused = driver.receive_datagrams(ring, UdpSocket::bind("127.0.0.1:0").unwrap());
    let error = refused.unwrap_err().error;
    assert_eq!(error, DriverError::SlotTooSmall { bytes: 304, needed: 305 });
    let socket = driver.add_file(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
    let peer = client("127.0.0.1:0");
    let good = peer.local_addr().unwrap();
    let foreign = Destination::from(good).source(Ipv4Addr::new(192, 0, 2, 1).into());
    driver.send_to(socket, Bytes::from_static(b"not from here"), foreign).unwrap();
    driver.send_to(socket, Bytes::from(vec![0; 70_000]), good).unwrap();
    driver.send_to(socket, Bytes::from_static(b""), good).unwrap();
    driver.send_to(socket, Bytes::from_static(b"good"), good).unwrap();
    // Side by side: one turn takes all of them.
    let before = driver.metrics().enters;
    let mut results = Vec::new();
    run(&mut driver, |event| {
        let Event::Sent { result, .. } = event else { panic!("{event:?}") };
        results.push(result.map_err(|error| error.raw_os_error().unwrap()));
        results.len() == 4
    });
    assert!(driver.metrics().enters <= before + 2, "{:?}", driver.metrics());
    // Whether such a source is a mistake or out of reach depends on the routes.
    assert!(results[0].is_err());
    assert_eq!(results[1..], [Err(libc::EMSGSIZE), Ok(0), Ok(4)]);
    let mut bytes = [0; 16];
    assert_eq!(peer.recv(&mut bytes).unwrap(), 0);
    assert_eq!(peer.recv(&mut bytes).unwrap(), 4);
    finish(driver);
    assert_all_free(&arena);
}

/// Marks go with datagrams of either family, also with those of IPv4 from a socket of IPv6.
#[test]
fn marks_go_with_datagrams_of_either_family() {
    let Some((mut driver, arena, ring)) = with_ring(16, 2048) else { return };
    let Ok(sender) = UdpSocket::bind("[::]:0") else { return eprintln!("SKIPPED: no IPv6") };
    let sender = driver.add_file(sender).unwrap();
    for (bound, mapped) in [("[::1]:0", None), ("127.0.0.1:0", Some(Ipv4Addr::LOCALHOST))] {
        let server = UdpSocket::bind(bound).unwrap();
        DatagramDetails::new().ecn().enable(&server).unwrap();
        let mut address = server.local_addr().unwrap();
        if let Some(ip) = mapped {
            address.set_ip(ip.to_ipv6_mapped().into());
        }
        let id = driver.receive_datagrams(ring, server).unwrap();
        for bits in [1, 2, 3, 0] {
            let to = Destination::from(address).ecn(bits);
            driver.send_to(sender, filled(&arena, b"marked"), to).unwrap();
            assert_eq!(next_datagram(&mut driver, id).ecn(), Some(bits), "to {address}");
        }
    }
    finish(driver);
    assert_all_free(&arena);
}

/// Descriptors that a Unix peer sends along do not stay open here.
#[test]
fn descriptors_that_come_along_are_closed() {
    let Some((mut driver, arena, ring)) = with_ring(16, 2048) else { return };
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let id = driver.receive_datagrams(ring, ours).unwrap();
    let (read, write) = std::io::pipe().unwrap();
    let fds = [write.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let bytes = [IoSlice::new(b"with a pipe")];
    rustix::net::sendmsg(&theirs, &bytes, &mut control, SendFlags::empty()).unwrap();
    drop(write);
    assert_eq!(next_datagram(&mut driver, id).bytes, "with a pipe");
    // The last writer is gone.
    let events = rustix::event::PollFlags::HUP;
    let mut polls = [rustix::event::PollFd::new(&read, events)];
    let wait = rustix::event::Timespec { tv_sec: TIMEOUT.as_secs() as i64, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut polls, Some(&wait)).unwrap(), 1, "it is still open");
    finish(driver);
    assert_all_free(&arena);
}
