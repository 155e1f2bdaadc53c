//! Forked children: what they have of a driver is a copy, and the ring is the parent's.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use io_uring::{opcode, types};
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::sockopt::{set_socket_linger, socket_linger};
use uring_arena::{
    ArenaId, BufferRing, BufferRingId, Driver, DriverError, Event, FileId, FixedArena, OperationId,
    RegisterError, RingError, SendOptions, SocketId, TransferError,
};

use crate::support::driver::{driver, finish, run};
use crate::support::fork::{Settler, in_child, mappings};
use crate::support::{TIMEOUT, arena, assert_all_free, paged_arena, tcp_pair};

/// A driver with something of every kind under way.
struct Busy {
    driver: Driver,
    arena: FixedArena,
    registered: ArenaId,
    ring: BufferRingId,
    sender: UnixStream,
    received_from: SocketId,
    pipe: std::io::PipeWriter,
    file: FileId,
    read: OperationId,
    listener: SocketId,
    event_fd: File,
    held: Vec<Bytes>,
}

impl Busy {
    fn new() -> Option<Busy> {
        let mut driver = driver()?;
        let arena = paged_arena(8, 4096);
        let registered = driver.register(&arena).unwrap();
        let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(4)).unwrap();
        let (mut sender, socket) = UnixStream::pair().unwrap();
        let received_from = driver.receive(ring, socket).unwrap();
        let (reader, pipe) = std::io::pipe().unwrap();
        let file = driver.add_file(reader).unwrap();
        let read = driver.read(file, arena.allocate().unwrap(), 0).unwrap();
        let listener = driver.accept(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let event_fd = File::from(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        driver.register_eventfd(&event_fd).unwrap();
        sender.write_all(b"before the fork").unwrap();
        let mut held = Vec::new();
        run(&mut driver, |event| {
            let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
            held.push(bytes);
            true
        });
        Some(Busy {
            driver,
            arena,
            registered,
            ring,
            sender,
            received_from,
            pipe,
            file,
            read,
            listener,
            event_fd,
            held,
        })
    }

    /// Shows that nothing happened to the driver.
    fn goes_on(mut self) {
        let before = self.driver.metrics();
        while self.driver.poll_now().unwrap() || !self.driver.is_idle() {
            let event = self.driver.next();
            assert!(event.is_none(), "{event:?}");
        }
        let _ = self.event_fd.read(&mut [0; 8]);
        self.sender.write_all(b"after it").unwrap();
        assert_eq!(self.event_fd.read(&mut [0; 8]).unwrap(), 8, "the event descriptor is told");
        self.pipe.write_all(b"a pipe").unwrap();
        let (mut received, mut read) = (false, false);
        run(&mut self.driver, |event| {
            match event {
                Event::Received { id, bytes, .. } => {
                    assert_eq!((id, &bytes[..]), (self.received_from, &b"after it"[..]));
                    received = true;
                }
                Event::Read { id, buffer, .. } => {
                    assert_eq!((id, &buffer[..]), (self.read, &b"a pipe"[..]));
                    read = true;
                }
                other => panic!("{other:?}"),
            }
            received && read
        });
        let after = self.driver.metrics();
        assert_eq!((after.unknown_completions, after.wakeups), (0, before.wakeups), "{after:?}");
        assert!(self.held.iter().all(|bytes| bytes == "before the fork"));
        self.driver.unregister_arena(self.registered).unwrap();
        drop(self.held);
        finish(self.driver);
        assert_all_free(&self.arena);
    }
}

#[test]
fn a_child_that_drops_its_copy_leaves_the_parents_driver_alone() {
    let Some(busy) = Busy::new() else { return };
    let Busy { driver, arena, held, .. } = busy;
    let mut copies = Some((driver, arena, held));
    in_child(|| {
        let (driver, arena, held) = copies.take().unwrap();
        drop(held);
        drop(driver);
        drop(arena);
    });
    let Some((driver, arena, held)) = copies else { panic!("the parent keeps its own") };
    Busy { driver, arena, held, ..busy }.goes_on();
}

#[test]
fn a_child_that_uses_its_copy_is_refused_by_name() {
    let Some(mut busy) = Busy::new() else { return };
    let parent = std::process::id();
    in_child(|| {
        let driver = &mut busy.driver;
        let other = DriverError::OtherProcess { of: parent, to: std::process::id() };
        let text = other.to_string();
        assert!(text.contains(&parent.to_string()) && text.contains("build a driver"), "{text}");
        assert_eq!(driver.wait().unwrap_err(), other);
        assert_eq!(driver.wait_timeout(Duration::MAX).unwrap_err(), other);
        assert_eq!(driver.poll_now().unwrap_err(), other);
        assert!(driver.is_idle());
        assert!(driver.next().is_none());
        assert!(driver.next_arena_bytes().is_none());
        assert_eq!(driver.register_eventfd(&busy.event_fd).unwrap_err(), other);
        assert_eq!(driver.unregister_eventfd().unwrap_err(), other);
        assert_eq!(driver.drain(Duration::MAX).unwrap_err(), other);
        assert_eq!(driver.pause(busy.received_from).unwrap_err(), other);
        assert_eq!(driver.resume(busy.received_from).unwrap_err(), other);
        assert_eq!(driver.close(busy.received_from).unwrap_err(), other);
        assert_eq!(driver.abort(busy.received_from).unwrap_err(), other);
        assert_eq!(driver.shutdown_write(busy.received_from).unwrap_err(), other);
        let refused = driver.send(busy.received_from, bytes::Bytes::new()).unwrap_err();
        assert_eq!(refused.error, TransferError::Driver(other));
        let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
        assert_eq!(driver.connect(busy.ring, nowhere, 0).unwrap_err(), other);
        assert_eq!(driver.listen(nowhere, 0).unwrap_err(), other);
        assert_eq!(driver.sync_data(busy.file).unwrap_err(), other);
        assert_eq!(driver.allocate(busy.file, 0, 1).unwrap_err(), other);
        let later = std::time::Instant::now() + std::time::Duration::from_secs(1);
        assert_eq!(driver.timer(later, 0).unwrap_err(), other);
        assert_eq!(driver.set_deadline(busy.read, later).unwrap_err(), other);
        assert_eq!(driver.wait_event().unwrap_err(), other);
        assert_eq!(driver.close(busy.listener).unwrap_err(), other);
        assert_eq!(driver.cancel_operation(busy.read).unwrap_err(), other);
        assert_eq!(driver.close_file(busy.file).unwrap_err(), other);
        assert_eq!(driver.unregister_arena(busy.registered).unwrap_err(), other);
        assert_eq!(driver.unregister_buffer_ring(busy.ring).unwrap_err(), other);
        let refused = driver.register(&busy.arena).unwrap_err();
        assert!(matches!(refused, RegisterError::OtherProcess { .. }), "{refused}");
        let refused = driver.register_buffer_ring(&busy.arena, BufferRing::options()).unwrap_err();
        assert!(matches!(refused, RingError::OtherProcess { .. }), "{refused}");
        let (socket, _peer) = UnixStream::pair().unwrap();
        assert_eq!(driver.receive(busy.ring, socket).unwrap_err().error, other);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(driver.accept(listener).unwrap_err().error, other);
        let file = driver.add_file(File::open("/dev/zero").unwrap()).unwrap();
        let refused = driver.read(file, busy.arena.allocate().unwrap(), 0).unwrap_err();
        assert_eq!(refused.error, TransferError::Driver(other));
        let refused = driver.send(busy.file, Bytes::from_static(b"no")).unwrap_err();
        assert_eq!(refused.error, TransferError::Driver(other));
        // What counts and shows works.
        let metrics = driver.metrics();
        assert!(metrics.in_flight > 0 && !format!("{driver:?}").is_empty());
        assert_eq!(driver.slot_states(&busy.arena).total(), 8);
        let waker = driver.waker().unwrap();
        waker.wake();
    });
    assert!(!busy.driver.wait_timeout(Duration::from_millis(20)).unwrap(), "the child woke it");
    busy.goes_on();
}

/// A server's driver: connects, timers, silence, syncs, addressed sends, entries of the program's.
#[test]
fn a_child_of_a_server_is_refused_by_name_and_its_copy_ends_nothing() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(16, 4096);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(4)).unwrap();
    let listener = driver.listen(SocketAddr::from(([127, 0, 0, 1], 0)), 1).unwrap();
    let socket = driver.socket(listener).unwrap().try_clone_to_owned().unwrap();
    let address = TcpListener::from(socket).local_addr().unwrap();
    let connection = driver.connect(ring, address, 2).unwrap();
    driver.set_connect_deadline(connection, Instant::now() + TIMEOUT).unwrap();
    driver.set_idle_timeout(connection, Some(TIMEOUT)).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to_udp = udp.local_addr().unwrap();
    let udp = driver.receive_datagrams(ring, udp).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let pipe = driver.add_file(writer).unwrap();
    driver.write(pipe, Bytes::from(vec![0; 1 << 20]), 0).unwrap();
    let waits = driver.sync_all(pipe).unwrap();
    let poll = opcode::PollAdd::new(types::Fd(reader.as_raw_fd()), libc::POLLPRI as u32).build();
    // SAFETY: the entry names the pipe, which outlives it.
    let pushed = unsafe { driver.push(poll, 3) }.unwrap();
    let timer = driver.timer(Instant::now() + TIMEOUT, 4).unwrap();
    driver.timer(Instant::now() + Duration::from_millis(50), 5).unwrap();
    driver.wait_timeout(Duration::from_millis(5)).unwrap();
    let parent = std::process::id();
    let mut copy = Some(driver);
    in_child(|| {
        let mut driver = copy.take().unwrap();
        let other = DriverError::OtherProcess { of: parent, to: std::process::id() };
        let now = Instant::now();
        // SAFETY: it is refused, and names nothing.
        let nop = unsafe { driver.push(opcode::Nop::new().build(), 0) };
        for answer in [
            nop.map(drop),
            driver.connect(ring, address, 0).map(drop),
            driver.set_connect_deadline(connection, now),
            driver.set_idle_timeout(connection, None),
            driver.set_deadline(waits, now),
            driver.set_deadline(pushed, now),
            driver.cancel_operation(pushed),
            driver.cancel_operation(waits),
            driver.timer(now, 0).map(drop),
            driver.sync_all(pipe).map(drop),
            driver.sync_range(pipe, 0, 0).map(drop),
            driver.allocate(pipe, 0, 1).map(drop),
            driver.shutdown_write(connection).map(drop),
            driver.abort(connection),
            driver.abort_file(pipe),
            driver.wait_event().map(drop),
        ] {
            assert_eq!(answer, Err(other));
        }
        let of_transfer = TransferError::Driver(other);
        let refused = driver.send_to(udp, Bytes::new(), to_udp).unwrap_err();
        assert_eq!(refused.error, of_transfer);
        let refused = driver.send_vectored(udp, [Bytes::new()], SendOptions::new()).unwrap_err();
        assert_eq!(refused.error, of_transfer);
        let refused = driver.write_vectored(pipe, [Bytes::new()], 0).unwrap_err();
        assert_eq!(refused.error, of_transfer);
        drop(driver);
    });
    // Everything goes on in the parent.
    let mut driver = copy.expect("the parent keeps its own");
    driver.send_to(udp, Bytes::from_static(b"to itself"), to_udp).unwrap();
    driver.send(connection, Bytes::from_static(b"hello")).unwrap();
    let (mut told, mut accepted) = (Vec::new(), None);
    run(&mut driver, |event| {
        told.push(match event {
            Event::Accepted { socket, .. } => {
                accepted = Some(socket);
                "accepted"
            }
            Event::Connected { token: 2, .. } => "connected",
            Event::Sent { result, .. } => {
                result.unwrap();
                "sent"
            }
            Event::Datagram { datagram, .. } => {
                assert_eq!(datagram.bytes, "to itself");
                "datagram"
            }
            Event::Timer { token: 5, .. } => "timer",
            other => panic!("{other:?}"),
        });
        told.len() == 6
    });
    told.sort_unstable();
    assert_eq!(told, ["accepted", "connected", "datagram", "sent", "sent", "timer"]);
    let mut text = [0; 5];
    TcpStream::from(accepted.unwrap()).read_exact(&mut text).unwrap();
    assert_eq!(&text, b"hello");
    driver.cancel_timer(timer).unwrap();
    finish(driver);
    drop(reader);
    assert_all_free(&arena);
}

#[test]
fn a_child_builds_a_driver_of_its_own() {
    let Some(busy) = Busy::new() else { return };
    in_child(|| {
        let busy = Busy::new().unwrap();
        // A child of the child has no part in either ring.
        in_child(|| {
            let mut driver = driver().unwrap();
            assert!(!driver.wait_timeout(Duration::from_millis(1)).unwrap());
        });
        busy.goes_on();
    });
    busy.goes_on();
}

#[test]
fn a_child_that_drops_its_copy_unmaps_nothing_else() {
    let before = mappings("anon_inode:[io_uring]");
    let Some(driver) = driver() else { return };
    let mut queues = mappings("anon_inode:[io_uring]");
    queues.retain(|address| !before.contains(address));
    assert!(!queues.is_empty());
    let mut copy = Some(driver);
    in_child(|| {
        // Drivers of other tests may have come and gone meanwhile: what is left is enough.
        let settlers: Vec<_> = queues.iter().filter_map(|&at| Settler::at(at)).collect();
        assert!(!settlers.is_empty(), "the child has the queues");
        drop(copy.take());
        settlers.iter().for_each(Settler::check);
    });
    finish(copy.unwrap());
}

#[test]
fn a_child_that_drops_its_copy_changes_no_socket() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(4, 64);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(2)).unwrap();
    let time = Some(Duration::from_secs(5));
    let lingering = |socket: TcpStream| {
        set_socket_linger(&socket, time).unwrap();
        socket
    };
    let ((received, mut peer), (sent, _other)) = (tcp_pair(), tcp_pair());
    let id = driver.receive(ring, lingering(received)).unwrap();
    let file = driver.add_file(lingering(sent)).unwrap();
    driver.wait_timeout(Duration::ZERO).unwrap();
    let mut copy = Some(driver);
    in_child(|| drop(copy.take()));
    let mut driver = copy.unwrap();
    assert_eq!(socket_linger(driver.socket(id).unwrap()).unwrap(), time);
    assert_eq!(socket_linger(driver.file(file).unwrap()).unwrap(), time);
    peer.write_all(b"hello").unwrap();
    run(&mut driver, |event| matches!(event, Event::Received { bytes, .. } if bytes == "hello"));
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_child_frees_slots_without_waking_the_parents_ring() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(1, 64);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(1)).unwrap();
    let (mut sender, socket) = UnixStream::pair().unwrap();
    driver.receive(ring, socket).unwrap();
    sender.write_all(b"a").unwrap();
    let mut held = None;
    run(&mut driver, |event| {
        let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
        held = Some(bytes);
        true
    });
    sender.write_all(b"b").unwrap();
    while driver.metrics().parked == 0 || driver.poll_now().unwrap() {
        driver.poll_now().unwrap();
        assert!(driver.next().is_none());
    }
    // The ring waits for the slot, and the child frees its copy.
    in_child(|| drop(held.take()));
    assert!(!driver.wait_timeout(Duration::from_millis(20)).unwrap());
    assert_eq!(driver.metrics().wakeups, 0);
    drop(held);
    run(&mut driver, |event| matches!(event, Event::Received { bytes, .. } if bytes == "b"));
    finish(driver);
    assert_all_free(&arena);
}
