//! Ends on the real kernel: files that are closed and aborted, peers that never read, devices that
//! never answer, drains and drops. What cannot end costs its own memory and nothing else.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::support::driver::{build, driver, finish, run};
use crate::support::fuse::{StuckFile, until_workers_are_stuck};
use crate::support::{
    TIMEOUT, arena, assert_all_free, filled, paged_arena, pattern, read_all, stuck_pair, tcp_pair,
};
use bytes::Bytes;
use rustix::net::sockopt;
use uring_arena::{
    BufferRing, Driver, DriverError, Event, Feature, FileId, FixedArena, OperationId, Probe,
    SlotStates,
};

/// Bytes of a slot, and of a send that is zero-copy.
const SLOT: usize = 1 << 16;

/// Builds a driver with a registered arena of 32 slots, where sends are zero-copy.
fn zero_copy_driver(test: &str) -> Option<(Driver, FixedArena)> {
    let mut driver = build(Driver::builder().file_events(true))?;
    let arena = paged_arena(32, SLOT);
    let id = driver.register(&arena).unwrap();
    if !driver.arena(id).unwrap().mode().is_registered()
        || !Probe::shared().unwrap().has(Feature::SendZc)
    {
        eprintln!("SKIPPED {test}: no zero-copy sends from registered memory here");
        return None;
    }
    Some((driver, arena))
}

/// Sends three slots to a far end that does not read. The socket has taken all of them, and no
/// notification comes.
fn stuck_sends(driver: &mut Driver, arena: &FixedArena, near: TcpStream) -> FileId {
    let file = driver.add_file(near).unwrap();
    for number in 0..3 {
        driver.send(file, filled(arena, &pattern(number, SLOT))).unwrap();
    }
    let until = Instant::now() + TIMEOUT;
    let (completions, transfers) = (driver.metrics().completions, driver.metrics().transfers);
    // The results of the sends; the third one alone tells that the others are in the queue too.
    while driver.metrics().transfers < transfers + 2
        || driver.metrics().completions < completions + 3
    {
        assert!(Instant::now() < until, "the socket does not take the sends: {driver:?}");
        driver.wait_timeout(Duration::from_millis(20)).unwrap();
        assert!(driver.next().is_none());
    }
    file
}

/// Compares the free and the quarantined slots of an arena of which nobody has any other.
#[track_caller]
fn assert_quarantined(arena: &FixedArena, quarantined: usize) {
    let SlotStates { free, quarantined: lost, .. } = arena.slot_states();
    assert_eq!((free, lost), (arena.slot_count() - quarantined, quarantined));
    let mut all = Vec::new();
    arena.allocate_many(arena.slot_count(), |buffer| all.push(buffer));
    assert_eq!(all.len(), free, "free by the states, and yet not to be claimed");
}

/// Takes events until the file is closed; sorts the sends out.
fn until_closed(driver: &mut Driver, file: FileId) -> Vec<(OperationId, Option<i32>)> {
    let mut sent = Vec::new();
    run(driver, |event| match event {
        Event::Sent { id, result, .. } => {
            sent.push((id, result.err().and_then(|error| error.raw_os_error())));
            false
        }
        Event::FileClosed { id, .. } => {
            assert_eq!(id, file);
            true
        }
        other => panic!("{other:?}"),
    });
    sent
}

#[test]
fn a_drain_returns_in_time_and_says_what_is_left() {
    let Some((mut driver, arena)) = zero_copy_driver("a drain") else { return };
    let (near, _far) = stuck_pair();
    let file = stuck_sends(&mut driver, &arena, near);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(8)).unwrap();
    let (_peer, socket) = tcp_pair();
    driver.receive(ring, socket).unwrap();
    let (reader, _writer) = std::io::pipe().unwrap();
    let pipe = driver.add_file(reader).unwrap();
    driver.read(pipe, arena.allocate().unwrap(), 0).unwrap();
    driver.wait_timeout(Duration::ZERO).unwrap();
    for time in [Duration::from_millis(30), Duration::ZERO] {
        let report = driver.drain(time).unwrap();
        assert_eq!((report.receives_in_flight, report.transfers_in_flight), (0, 3), "{report:?}");
        assert_eq!((report.in_flight, report.rings_left, report.quarantined), (3, 0, 3));
        // What the peer does not hold is free, the slots of the ring above all.
        let SlotStates { free, in_flight, quarantined, .. } = driver.slot_states(&arena);
        assert_eq!((free, in_flight, quarantined), (29, 3, 0));
    }
    // The driver goes on, and its files with it.
    driver.abort_file(file).unwrap();
    assert_eq!(until_closed(&mut driver, file).len(), 3);
    assert_all_free(&arena);
    let report = driver.drain(Duration::MAX).unwrap();
    assert_eq!((report.in_flight, report.quarantined), (0, 0), "{report:?}");
}

/// A time of zero looks and does not wait. Everything that can end at once does.
#[test]
fn a_drain_without_time_cancels_everything_once() {
    for single_issuer in [true, false] {
        let Some(mut driver) = build(Driver::builder().single_issuer(single_issuer)) else {
            return;
        };
        let arena = arena(512, 64);
        let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(16)).unwrap();
        let mut peers = Vec::new();
        for _ in 0..100 {
            let (peer, socket) = UnixStream::pair().unwrap();
            driver.receive(ring, socket.try_clone().unwrap()).unwrap();
            let file = driver.add_file(socket).unwrap();
            driver.read(file, arena.allocate().unwrap(), 0).unwrap();
            peers.push(peer);
        }
        driver.accept(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        driver.receive_datagrams(ring, UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        driver.wait_timeout(Duration::ZERO).unwrap();
        let report = driver.drain(Duration::ZERO).unwrap();
        assert_eq!((report.closed, report.in_flight, report.rings_left), (102, 0, 0), "{report:?}");
        assert_all_free(&arena);
    }
}

/// A reader that stands still is left, whichever call writes to it.
#[test]
fn a_drain_leaves_every_kind_of_peer_that_does_not_read() {
    let Some((mut driver, arena)) = zero_copy_driver("peers") else { return };
    let big = || Bytes::from(vec![1; 16 << 20]);
    let (_reader, writer) = std::io::pipe().unwrap();
    let (near, _far) = UnixStream::pair().unwrap();
    let (tcp, _peer) = stuck_pair();
    let (set_not_to_block, _other) = stuck_pair();
    set_not_to_block.set_nonblocking(true).unwrap();
    let pipe = driver.add_file(writer).unwrap();
    let unix = driver.add_file(near).unwrap();
    let tcp = driver.add_file(tcp).unwrap();
    let polled = driver.add_file(set_not_to_block).unwrap();
    for file in [pipe, unix, tcp, polled] {
        driver.write(file, big(), 0).unwrap();
        if file != pipe {
            driver.send(file, big()).unwrap();
            driver.send(file, filled(&arena, &pattern(1, SLOT))).unwrap();
        }
    }
    for _ in 0..10 {
        driver.wait_timeout(Duration::from_millis(5)).unwrap();
        while driver.next().is_some() {}
    }
    assert!(driver.metrics().in_flight >= 3, "{:?}", driver.metrics());
    let report = driver.drain(TIMEOUT).unwrap();
    assert_eq!((report.in_flight, report.quarantined), (0, 0), "{report:?}");
    assert_all_free(&arena);
}

/// The drop may wait for a disk, but not for a peer. Three tries, because the machine may be busy.
#[test]
fn a_driver_dropped_with_stuck_sends_does_not_wait_for_the_peer() {
    let mut shortest = TIMEOUT;
    for _ in 0..3 {
        let Some((mut driver, arena)) = zero_copy_driver("a drop") else { return };
        let (near, _far) = stuck_pair();
        stuck_sends(&mut driver, &arena, near);
        let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(8)).unwrap();
        let (_peer, socket) = tcp_pair();
        driver.receive(ring, socket).unwrap();
        driver.wait_timeout(Duration::ZERO).unwrap();
        let start = Instant::now();
        drop(driver);
        shortest = shortest.min(start.elapsed());
        assert_quarantined(&arena, 3);
    }
    assert!(shortest < Duration::from_millis(500), "the drop took {shortest:?}");
}

/// The ring lives on in the kernel until its last operation is over. It must not keep the sockets
/// of others open meanwhile.
#[test]
fn a_driver_dropped_with_stuck_sends_closes_its_other_files() {
    let Some((mut driver, arena)) = zero_copy_driver("other files") else { return };
    let (near, _far) = stuck_pair();
    stuck_sends(&mut driver, &arena, near);
    let (ours, mut theirs) = tcp_pair();
    driver.add_file(ours).unwrap();
    drop(driver);
    theirs.set_read_timeout(Some(TIMEOUT)).unwrap();
    assert_eq!(theirs.read(&mut [0]).unwrap(), 0, "the peer sees the end");
}

#[test]
fn an_aborted_connection_is_reset_and_gives_everything_back() {
    let Some((mut driver, arena)) = zero_copy_driver("an abort") else { return };
    let (near, mut far) = stuck_pair();
    let clone = near.try_clone().unwrap();
    let file = stuck_sends(&mut driver, &arena, near);
    // More than the socket takes: one send is half out, others wait behind it.
    for number in 0..4 {
        driver.send(file, Bytes::from(pattern(number, 8 << 20))).unwrap();
    }
    let read = driver.read(file, arena.allocate().unwrap(), 0).unwrap();
    // Another connection, which the abort does not concern.
    let (ours, theirs) = tcp_pair();
    let other = driver.add_file(ours).unwrap();
    driver.wait_timeout(Duration::from_millis(5)).unwrap();
    driver.abort_file(file).unwrap();
    // The slots stay with the kernel until it says that it is done with them.
    assert_eq!(driver.slot_states(&arena).in_flight, 4);
    assert_eq!(driver.send(file, Bytes::new()).unwrap_err().error, DriverError::UnknownFile.into());
    let (mut sent, mut read_ended) = (0, false);
    run(&mut driver, |event| match event {
        Event::Sent { result, .. } => {
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
            sent += 1;
            false
        }
        Event::Read { id, result, .. } => {
            assert!(id == read && result.is_err());
            read_ended = true;
            false
        }
        Event::FileClosed { id, .. } => id == file,
        other => panic!("{other:?}"),
    });
    assert_eq!((sent, read_ended), (7, true));
    assert_eq!(driver.abort_file(file), Err(DriverError::UnknownFile));
    assert_all_free(&arena);
    // The peer has what it had room for, then the reset. So have all duplicates.
    far.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut rest = Vec::new();
    assert_eq!(far.read_to_end(&mut rest).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert!(clone.peer_addr().is_err(), "a duplicate is connected still");
    driver.send(other, filled(&arena, b"as before")).unwrap();
    driver.close_file(other).unwrap();
    assert_eq!(until_closed(&mut driver, other).len(), 1);
    assert_eq!(read_all(theirs), b"as before");
    finish(driver);
    assert_all_free(&arena);
}

/// The orderly close waits for the peer; the program loses patience.
#[test]
fn a_file_that_is_being_closed_can_be_aborted() {
    let Some((mut driver, arena)) = zero_copy_driver("a close") else { return };
    let (near, far) = stuck_pair();
    let file = stuck_sends(&mut driver, &arena, near);
    driver.close_file(file).unwrap();
    driver.wait_timeout(Duration::from_millis(20)).unwrap();
    assert!(driver.next().is_none(), "closed, although the kernel has its memory");
    driver.abort_file(file).unwrap();
    driver.abort_file(file).unwrap();
    assert_eq!(until_closed(&mut driver, file).len(), 3);
    drop(far);
    finish(driver);
    assert_all_free(&arena);
}

/// A reset ends receives on a clone, too.
#[test]
fn an_abort_ends_a_receive_on_a_clone() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(8, 4096);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(4)).unwrap();
    let (near, _far) = stuck_pair();
    let socket = driver.receive(ring, near.try_clone().unwrap()).unwrap();
    let file = driver.add_file(near).unwrap();
    driver.send(file, Bytes::from(vec![1; 8 << 20])).unwrap();
    driver.wait_timeout(Duration::from_millis(5)).unwrap();
    driver.abort_file(file).unwrap();
    let (mut closed, mut file_closed) = (0, 0);
    run(&mut driver, |event| {
        match event {
            Event::Closed { id, error, .. } => {
                assert!(id == socket && error.is_some());
                closed += 1;
            }
            Event::FileClosed { id, .. } => {
                assert_eq!(id, file);
                file_closed += 1;
            }
            Event::Sent { result, .. } => assert!(result.is_err()),
            other => panic!("{other:?}"),
        }
        (closed, file_closed) == (1, 1)
    });
    finish(driver);
    assert_all_free(&arena);
}

/// A Unix socket has no queue of its own: what was sent arrives, and then comes the end. Of a pipe
/// only the operations end.
#[test]
fn an_abort_of_what_knows_no_reset_ends_its_operations() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(8, 4096);
    let (near, far) = UnixStream::pair().unwrap();
    let socket = driver.add_file(near).unwrap();
    driver.send(socket, Bytes::from_static(b"arrives")).unwrap();
    run(&mut driver, |event| matches!(event, Event::Sent { result: Ok(7), .. }));
    let (reader, mut writer) = std::io::pipe().unwrap();
    let pipe = driver.add_file(reader).unwrap();
    for file in [socket, pipe] {
        for _ in 0..3 {
            driver.read(file, arena.allocate().unwrap(), 0).unwrap();
        }
    }
    driver.wait_timeout(Duration::ZERO).unwrap();
    for file in [socket, pipe] {
        driver.abort_file(file).unwrap();
        let mut reads = 0;
        run(&mut driver, |event| match event {
            Event::Read { result, .. } => {
                assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
                reads += 1;
                false
            }
            Event::FileClosed { id, .. } => id == file,
            other => panic!("{other:?}"),
        });
        assert_eq!(reads, 3);
    }
    assert_eq!(read_all(far), b"arrives");
    assert_eq!(writer.write(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    finish(driver);
    assert_all_free(&arena);
}

/// A descriptor that is no connection in use is closed like any other.
#[test]
fn an_abort_closes_whatever_it_is() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(8, 4096);
    let (reset, far) = tcp_pair();
    sockopt::set_socket_linger(&far, Some(Duration::ZERO)).unwrap();
    drop(far);
    let (shut, _far) = tcp_pair();
    shut.shutdown(std::net::Shutdown::Both).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(udp.local_addr().unwrap()).unwrap();
    let udp_clone = udp.try_clone().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = std::fs::File::open("/dev/zero").unwrap();
    let all: [OwnedFd; 6] = [
        reset.into(),
        shut.into(),
        udp.into(),
        UnixStream::pair().unwrap().0.into(),
        listener.into(),
        file.into(),
    ];
    for descriptor in all {
        let id = driver.add_file(descriptor).unwrap();
        driver.read(id, arena.allocate().unwrap(), 0).unwrap();
        driver.abort_file(id).unwrap();
        let mut read = false;
        run(&mut driver, |event| match event {
            Event::Read { .. } => {
                read = true;
                false
            }
            Event::FileClosed { id: closed, .. } => closed == id,
            other => panic!("{other:?}"),
        });
        assert!(read);
    }
    // A duplicate of a datagram socket has its peer still.
    assert_eq!(udp_clone.send(b"as before").unwrap(), 9);
    finish(driver);
    assert_all_free(&arena);
}

/// An abort costs what is under way on its file. Of a thousand operations elsewhere none is asked
/// after.
#[test]
fn an_abort_asks_for_the_operations_of_its_own_file_only() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(1024, 64);
    let (reader, _writer) = std::io::pipe().unwrap();
    let pipe = driver.add_file(reader).unwrap();
    for _ in 0..1000 {
        driver.read(pipe, arena.allocate().unwrap(), 0).unwrap();
    }
    let (near, _far) = UnixStream::pair().unwrap();
    let socket = driver.add_file(near).unwrap();
    driver.read(socket, arena.allocate().unwrap(), 0).unwrap();
    driver.wait_timeout(Duration::ZERO).unwrap();
    let before = driver.metrics().completions;
    driver.abort_file(socket).unwrap();
    run(&mut driver, |event| matches!(event, Event::FileClosed { id, .. } if id == socket));
    // The read's own, and the answer to the request to cancel it.
    assert!(driver.metrics().completions - before <= 2, "{:?}", driver.metrics());
    assert_eq!(driver.metrics().in_flight, 1000);
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn an_event_tells_when_a_file_is_closed_and_its_id_is_kept_until_then() {
    let Some(mut driver) = build(Driver::builder().file_events(true)) else { return };
    let (near, mut far) = UnixStream::pair().unwrap();
    let file = driver.add_file(near).unwrap();
    driver.send(file, Bytes::from_static(b"hello")).unwrap();
    driver.close_file(file).unwrap();
    // Under way: not closed yet. The event of the send comes first.
    run(&mut driver, |event| matches!(event, Event::Sent { result: Ok(5), .. }));
    // Closed already, and the next file gets an index of its own.
    assert_eq!(read_all(&mut far), b"hello");
    let other = driver.add_file(UnixStream::pair().unwrap().0).unwrap();
    assert_ne!(other.index(), file.index());
    run(&mut driver, |event| matches!(event, Event::FileClosed { id, .. } if id == file));
    // An idle file: the event waits, and `wait` does not.
    driver.close_file(other).unwrap();
    assert!(!driver.is_idle());
    driver.wait().unwrap();
    assert!(matches!(driver.next(), Some(Event::FileClosed { id, .. }) if id == other));
    assert!(driver.is_idle() && driver.next().is_none());
    let again = driver.add_file(UnixStream::pair().unwrap().0).unwrap();
    assert_eq!(again.index(), other.index());
    finish(driver);
}

/// A program that has not asked for these events has one more to take only where it aborts.
#[test]
fn a_closed_file_has_no_event_unless_asked_for() {
    let Some(mut driver) = driver() else { return };
    let file = driver.add_file(UnixStream::pair().unwrap().0).unwrap();
    driver.close_file(file).unwrap();
    assert!(driver.is_idle() && driver.next().is_none());
    let again = driver.add_file(UnixStream::pair().unwrap().0).unwrap();
    assert_eq!(again.index(), file.index());
    driver.abort_file(again).unwrap();
    assert!(matches!(driver.next(), Some(Event::FileClosed { id, .. }) if id == again));
    assert!(driver.is_idle() && driver.next().is_none());
    finish(driver);
}

/// With `SO_LINGER` a close waits for the peer, here for ever. The driver's thread must not.
#[test]
fn a_time_to_linger_does_not_hold_the_driver() {
    let linger = |socket: &TcpStream| {
        sockopt::set_socket_linger(socket, Some(Duration::from_secs(300))).unwrap();
    };
    let fill = |socket: &TcpStream| {
        socket.set_nonblocking(true).unwrap();
        while (&mut &*socket).write(&[1; 1 << 16]).is_ok() {}
        socket.set_nonblocking(false).unwrap();
    };
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let Some(mut driver) = build(Driver::builder().file_events(true)) else {
            return done.send(()).unwrap();
        };
        let arena = arena(8, 4096);
        let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(4)).unwrap();
        let mut peers = Vec::new();
        let mut full = || {
            let (near, far) = stuck_pair();
            linger(&near);
            fill(&near);
            peers.push(far);
            near
        };
        // A file that is closed, and one that the end of the driver closes.
        let file = driver.add_file(full()).unwrap();
        driver.close_file(file).unwrap();
        run(&mut driver, |event| matches!(event, Event::FileClosed { id, .. } if id == file));
        driver.add_file(full()).unwrap();
        // A socket that is closed, and one that a drain closes.
        let socket = driver.receive(ring, full()).unwrap();
        driver.close(socket).unwrap();
        run(&mut driver, |event| matches!(event, Event::Closed { id, .. } if id == socket));
        driver.receive(ring, full()).unwrap();
        driver.drain(TIMEOUT).unwrap();
        drop(driver);
        done.send(()).unwrap();
        drop(peers);
    });
    is_done.recv_timeout(TIMEOUT).expect("a close waits for the peer");
}

/// A time of zero is another thing: the close resets the connection, as the program wanted it.
#[test]
fn lingering_for_no_time_resets_the_connection_as_ever() {
    let Some(mut driver) = build(Driver::builder().file_events(true)) else { return };
    let (near, mut far) = tcp_pair();
    sockopt::set_socket_linger(&near, Some(Duration::ZERO)).unwrap();
    let file = driver.add_file(near).unwrap();
    driver.close_file(file).unwrap();
    run(&mut driver, |event| matches!(event, Event::FileClosed { .. }));
    far.set_read_timeout(Some(TIMEOUT)).unwrap();
    assert_eq!(far.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    finish(driver);
}

/// A receive that never ends: a worker of the kernel has selected its slot and waits for a device
/// that does not answer. Its ring's slots are lost, and no other ring's.
#[test]
fn a_receive_that_never_ends_costs_its_own_ring() {
    let Some(stuck) = StuckFile::mount("a receive that never ends") else { return };
    let Some(mut driver) = build(Driver::builder().multishot(false)) else { return };
    let arena = paged_arena(32, 4096);
    let options = BufferRing::options().entries(4);
    let lost = driver.register_buffer_ring(&arena, options).unwrap();
    let other = driver.register_buffer_ring(&arena, options).unwrap();
    let (_peer, socket) = tcp_pair();
    driver.receive(other, socket).unwrap();
    driver.read_pipe(lost, stuck.open()).unwrap();
    until_stuck(&mut driver, 1);
    let report = driver.drain(Duration::from_millis(60)).unwrap();
    assert_eq!((report.receives_in_flight, report.transfers_in_flight), (1, 0), "{report:?}");
    assert_eq!((report.in_flight, report.rings_left, report.quarantined), (1, 1, 4));
    assert_eq!(driver.ring_metrics(other), Err(DriverError::UnknownRing));
    let SlotStates { free, published, .. } = driver.slot_states(&arena);
    assert_eq!((free, published), (28, 4));
    drop(driver);
    assert_quarantined(&arena, 4);
    // The device answers after all: the bytes go to the slot that was kept for them.
    let mut others = Vec::new();
    arena.allocate_many(28, |buffer| others.push(filled_whole(buffer)));
    stuck.answer(0xAA);
    drop(stuck);
    assert!(others.iter().all(|buffer| buffer.iter().all(|&byte| byte == 0x55)));
}

/// Turns the driver until workers of the kernel wait for a device.
fn until_stuck(driver: &mut Driver, workers: usize) {
    until_workers_are_stuck(workers, || {
        driver.wait_timeout(Duration::from_millis(5)).unwrap();
        assert!(driver.next().is_none());
    });
}

fn filled_whole(mut buffer: uring_arena::Buffer) -> uring_arena::Buffer {
    buffer.write_all(&[0x55; 4096]).unwrap();
    buffer
}

/// The device answers between two drains: then nothing is lost.
#[test]
fn a_receive_that_ends_late_gives_its_ring_back() {
    let Some(stuck) = StuckFile::mount("a receive that ends late") else { return };
    let Some(mut driver) = build(Driver::builder().multishot(false)) else { return };
    let arena = paged_arena(8, 4096);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(4)).unwrap();
    driver.read_pipe(ring, stuck.open()).unwrap();
    until_stuck(&mut driver, 1);
    let report = driver.drain(Duration::ZERO).unwrap();
    assert_eq!((report.rings_left, report.quarantined), (1, 4), "{report:?}");
    stuck.answer(0xAA);
    // The last completion frees the slots of a group that is unregistered: no drain is needed.
    run(&mut driver, |event| matches!(event, Event::Closed { .. }));
    assert_all_free(&arena);
    let report = driver.drain(TIMEOUT).unwrap();
    assert_eq!((report.in_flight, report.rings_left, report.quarantined), (0, 0, 0), "{report:?}");
    drop(driver);
}

/// A read and a write that never end cost their own slots; those of buffer rings are free.
#[test]
fn transfers_that_never_end_cost_their_own_memory() {
    let Some(stuck) = StuckFile::mount("transfers that never end") else { return };
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(32, 4096);
    driver.register(&arena).unwrap();
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(8)).unwrap();
    let (_peer, socket) = tcp_pair();
    driver.receive(ring, socket).unwrap();
    let file = driver.add_file(stuck.open()).unwrap();
    driver.read(file, arena.allocate().unwrap(), 0).unwrap();
    driver.write(file, filled(&arena, &pattern(1, 4096)), 1 << 20).unwrap();
    until_stuck(&mut driver, 1);
    while stuck.waiting() < 2 {
        driver.wait_timeout(Duration::from_millis(5)).unwrap();
    }
    let report = driver.drain(Duration::from_millis(60)).unwrap();
    assert_eq!((report.receives_in_flight, report.transfers_in_flight), (0, 2), "{report:?}");
    assert_eq!((report.rings_left, report.quarantined), (0, 2));
    drop(driver);
    assert_quarantined(&arena, 2);
}

/// Nothing is in flight: a drain enters the kernel once at most, and waits for nothing.
#[test]
fn draining_without_anything_in_flight_does_not_sleep() {
    let Some(_) = driver() else { return };
    let arena = paged_arena(64, 4096);
    let mut shortest = TIMEOUT;
    for _ in 0..20 {
        let mut driver = driver().unwrap();
        driver.register(&arena).unwrap();
        let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(8)).unwrap();
        let _waker = driver.waker().unwrap();
        let (peer, socket) = tcp_pair();
        driver.receive(ring, socket).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let pipe = driver.add_file(reader).unwrap();
        driver.read(pipe, arena.allocate().unwrap(), 0).unwrap();
        driver.wait_timeout(Duration::ZERO).unwrap();
        // The peers go: everything ends by itself.
        drop((peer, writer));
        let mut ended = 0;
        run(&mut driver, |event| {
            ended += usize::from(matches!(event, Event::Closed { .. } | Event::Read { .. }));
            ended == 2
        });
        let before = driver.metrics().enters;
        assert_eq!(driver.drain(TIMEOUT).unwrap().in_flight, 0);
        assert_eq!(driver.metrics().enters, before, "nothing was to be waited for");
        let start = Instant::now();
        drop(driver);
        shortest = shortest.min(start.elapsed());
    }
    assert!(shortest < Duration::from_millis(40), "dropping an idle driver took {shortest:?}");
    assert_all_free(&arena);
}

/// The peers went just before: what is in flight ends by itself while it is being cancelled.
#[test]
fn draining_what_ends_by_itself_does_not_sleep() {
    let Some(_) = driver() else { return };
    let arena = arena(64, 4096);
    for single_issuer in [true, false] {
        let mut shortest = TIMEOUT;
        for _ in 0..20 {
            let mut driver = build(Driver::builder().single_issuer(single_issuer)).unwrap();
            let ring =
                driver.register_buffer_ring(&arena, BufferRing::options().entries(8)).unwrap();
            let (peer, socket) = tcp_pair();
            driver.receive(ring, socket).unwrap();
            let (reader, writer) = std::io::pipe().unwrap();
            let pipe = driver.add_file(reader).unwrap();
            driver.read(pipe, arena.allocate().unwrap(), 0).unwrap();
            driver.wait_timeout(Duration::ZERO).unwrap();
            drop((peer, writer));
            let start = Instant::now();
            drop(driver);
            shortest = shortest.min(start.elapsed());
        }
        assert!(shortest < Duration::from_millis(40), "the shortest drop took {shortest:?}");
    }
    assert_all_free(&arena);
}
