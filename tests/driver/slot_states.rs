//! Slots by state on the real kernel, as a driver counts them.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::support::driver::{driver, finish, run};
use crate::support::{arena, assert_all_free, nz, tcp_pair, written};
use bytes::Bytes;
use uring_arena::{
    BuddyArena, BuddyGeometry, BufferRing, Driver, Event, FileId, FixedArena, SlotState,
    SlotStates, SocketState,
};

fn fixed(slots: usize) -> FixedArena {
    arena(slots, 64)
}

/// Builds a buddy arena of 64 smallest blocks of 64 bytes.
fn buddy() -> BuddyArena {
    BuddyArena::builder(BuddyGeometry::exact(nz(4096), nz(64)).unwrap()).build().unwrap()
}

/// The free, held, posted, in-flight, frozen and quarantined slots.
type All = [usize; 6];

fn all(states: SlotStates) -> All {
    [
        states.free,
        states.held,
        states.published,
        states.in_flight,
        states.frozen,
        states.quarantined,
    ]
}

fn file_of_pipe(driver: &mut Driver) -> (FileId, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    (driver.add_file(reader).unwrap(), writer)
}

#[test]
fn a_driver_tells_all_six_apart() {
    let Some(mut driver) = driver() else { return };
    let arena = fixed(16);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(4)).unwrap();
    assert_eq!(all(driver.slot_states(&arena)), [12, 0, 4, 0, 0, 0]);
    let (mut sender, socket) = UnixStream::pair().unwrap();
    driver.receive(ring, socket).unwrap();
    let mut received = Vec::new();
    for number in 1..=3 {
        sender.write_all(&[1; 64]).unwrap();
        run(&mut driver, |event| {
            received.push(event);
            true
        });
        // This turn posts the slots that the message took.
        driver.wait_timeout(Duration::ZERO).unwrap();
        assert_eq!(all(driver.slot_states(&arena)), [12 - number, 0, 4, 0, number, 0]);
    }
    let (pipe, mut writer) = file_of_pipe(&mut driver);
    driver.read(pipe, arena.allocate().unwrap(), 0).unwrap();
    driver.wait_timeout(Duration::ZERO).unwrap();
    let held = arena.allocate().unwrap();
    assert_eq!(all(driver.slot_states(&arena)), [7, 1, 4, 1, 3, 0]);
    // The arena alone does not know of rings.
    assert_eq!(all(arena.slot_states()), [7, 6, 0, 0, 3, 0]);
    writer.write_all(b"done").unwrap();
    let mut read = None;
    run(&mut driver, |event| {
        read = Some(event);
        true
    });
    assert_eq!(all(driver.slot_states(&arena)), [7, 2, 4, 0, 3, 0]);
    drop((received, held, read));
    assert_eq!(all(driver.slot_states(&arena)), [12, 0, 4, 0, 0, 0]);
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn frozen_bytes_that_are_sent_count_once_and_come_back_as_frozen() {
    let Some(mut driver) = driver() else { return };
    let arena = buddy();
    let (ours, theirs) = tcp_pair();
    let socket = driver.add_file(ours).unwrap();
    let bytes = written(arena.allocate(nz(256)).unwrap(), &[7; 256]).freeze();
    assert_eq!(all(driver.slot_states(&arena)), [60, 0, 0, 0, 4, 0]);
    // Two slices of one block, neither at its start.
    driver.send(socket, bytes.slice(70..140)).unwrap();
    driver.send(socket, bytes.slice(200..256)).unwrap();
    assert_eq!(all(driver.slot_states(&arena)), [60, 0, 0, 4, 0, 0]);
    let mut payloads: Vec<Event> = Vec::new();
    run(&mut driver, |event| {
        payloads.push(event);
        payloads.len() == 2
    });
    assert_eq!(all(driver.slot_states(&arena)), [60, 0, 0, 0, 4, 0]);
    drop((bytes, payloads));
    assert_eq!(all(driver.slot_states(&arena)), [64, 0, 0, 0, 0, 0]);
    finish(driver);
    drop(theirs);
}

#[test]
fn a_slot_of_an_incremental_ring_is_published_until_the_ring_is_done_with_it() {
    let Some(mut driver) = driver() else { return };
    let arena = fixed(4);
    let ring = driver
        .register_buffer_ring(&arena, BufferRing::options().entries(2).incremental(true))
        .unwrap();
    if !driver.ring_is_incremental(ring).unwrap() {
        return eprintln!("SKIPPED: no incremental consumption (Linux 6.12)");
    }
    let (mut sender, socket) = UnixStream::pair().unwrap();
    driver.receive(ring, socket).unwrap();
    let mut held: Vec<Event> = Vec::new();
    let mut receive = |driver: &mut Driver, len: usize| {
        sender.write_all(&vec![1; len]).unwrap();
        run(driver, |event| {
            held.push(event);
            true
        });
    };
    receive(&mut driver, 24);
    assert_eq!(all(driver.slot_states(&arena)), [2, 0, 2, 0, 0, 0]);
    receive(&mut driver, 40);
    driver.wait_timeout(Duration::ZERO).unwrap();
    assert_eq!(all(driver.slot_states(&arena)), [1, 0, 2, 0, 1, 0]);
    drop(held);
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn what_is_lost_is_quarantined_whatever_it_was() {
    let Some(mut driver) = driver() else { return };
    let arena = buddy();
    let registered = driver.register(&arena).unwrap();
    // Operations are made and never handed back, so the kernel may still use their memory.
    let (reader, writer) = std::io::pipe().unwrap();
    let pieces = driver.arena(registered).unwrap();
    drop(pieces.read(&reader, arena.allocate(nz(128)).unwrap(), 0));
    assert_eq!(all(driver.slot_states(&arena)), [62, 0, 0, 0, 0, 2]);
    // Two slices far from the start of one block lose it once.
    let bytes = Bytes::from(written(arena.allocate(nz(1024)).unwrap(), &[1; 1024]));
    drop(pieces.write(&writer, bytes.slice(300..400), 0));
    drop(pieces.write(&writer, bytes.slice(900..), 0));
    drop(bytes);
    assert_eq!(all(driver.slot_states(&arena)), [46, 0, 0, 0, 0, 18]);
    assert_eq!(arena.metrics().quarantined, 2);
    finish(driver);
    assert_eq!(all(arena.slot_states()), [46, 0, 0, 0, 0, 18]);
}

#[test]
fn a_map_and_a_look_at_the_sockets_tell_who_waits() {
    let Some(mut driver) = driver() else { return };
    let arena = fixed(4);
    let options = BufferRing::options().entries(2).copy_under_pressure(false);
    let ring = driver.register_buffer_ring(&arena, options).unwrap();
    let ready = driver.slot_map(&arena);
    assert!(ready.claims().iter().all(|claim| claim.state == SlotState::Ready), "{ready:?}");
    assert_eq!((ready.claims().len(), ready.states()), (2, driver.slot_states(&arena)));

    let (mut sender, socket) = UnixStream::pair().unwrap();
    let id = driver.receive_with(ring, socket, 7).unwrap();
    let look = |driver: &Driver| {
        let [socket] = driver.sockets()[..] else { panic!("{:?}", driver.sockets()) };
        assert_eq!((socket.id, socket.connection, socket.sends), (id, 7, 0));
        assert!(socket.group.is_some());
        socket.state
    };
    assert_eq!(look(&driver), SocketState::Open);
    // More than the arena has, and all of it is kept: the socket waits for a slot.
    let mut kept = Vec::new();
    for _ in 0..6 {
        sender.write_all(&[1; 64]).unwrap();
    }
    run(&mut driver, |event| {
        if let Event::Received { bytes, .. } = event {
            kept.push(bytes);
        }
        kept.iter().map(Bytes::len).sum::<usize>() == 4 * 64
    });
    while look(&driver) != SocketState::Starved {
        driver.wait_timeout(Duration::from_millis(1)).unwrap();
        assert!(driver.next().is_none_or(|event| matches!(event, Event::BufferRingEmpty { .. })));
    }
    let map = driver.slot_map(&arena);
    assert!(map.claims().iter().all(|claim| claim.state == SlotState::Frozen), "{map:?}");
    driver.pause(id).unwrap();
    assert_eq!(look(&driver), SocketState::Paused);
    driver.close(id).unwrap();
    assert_eq!(look(&driver), SocketState::Closing);
    drop(kept);
    finish(driver);
    assert_all_free(&arena);
}
