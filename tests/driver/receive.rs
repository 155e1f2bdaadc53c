//! Receiving on the real kernel: one test for each promise.

use std::collections::HashMap;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::Duration;

use crate::support::driver::{build, driver, finish, raise_descriptors, run};
use crate::support::{arena, assert_all_free, pattern, read_all, tcp_pair};
use bytes::Bytes;
use uring_arena::{BufferRing, Driver, DriverError, Event, RingError, SocketId};

/// Receives everything from all of `expected`, which other threads send, and compares it.
fn receive_all(
    driver: &mut Driver,
    expected: HashMap<SocketId, Vec<u8>>,
    mut took: impl FnMut(Bytes),
) {
    let mut left = expected;
    let mut at: HashMap<SocketId, usize> = HashMap::new();
    run(driver, |event| {
        match event {
            Event::Received { id, bytes, .. } => {
                let done = at.entry(id).or_default();
                assert!(left[&id][*done..].starts_with(&bytes), "{id:?} differs at {done}");
                *done += bytes.len();
                took(bytes);
            }
            Event::Closed { id, error, .. } => {
                assert!(error.is_none(), "{id:?}: {error:?}");
                let expected = left.remove(&id).expect("closed once");
                assert_eq!(at.get(&id).copied().unwrap_or(0), expected.len(), "{id:?} is short");
            }
            other => panic!("{other:?}"),
        }
        left.is_empty()
    });
}

fn send_on_thread(mut socket: TcpStream, bytes: Vec<u8>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || socket.write_all(&bytes).expect("the receiver reads"))
}

#[test]
fn bytes_come_through_a_socket_as_they_were_sent() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(16, 4096);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let (sender, socket) = tcp_pair();
    let id = driver.receive(ring, socket).unwrap();
    let sent = pattern(1, 1 << 20);
    let thread = send_on_thread(sender, sent.clone());
    receive_all(&mut driver, HashMap::from([(id, sent)]), drop);
    thread.join().unwrap();
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn two_connections_never_mix() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(8, 512);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let mut expected = HashMap::new();
    let mut threads = Vec::new();
    for stream in 0..2 {
        let (sender, socket) = tcp_pair();
        let bytes = pattern(stream, 300_000 + stream);
        expected.insert(driver.receive(ring, socket).unwrap(), bytes.clone());
        threads.push(send_on_thread(sender, bytes));
    }
    receive_all(&mut driver, expected, drop);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn two_slots_serve_fifty_connections() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(2, 256);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let mut expected = HashMap::new();
    let mut threads = Vec::new();
    for stream in 0..50 {
        let (sender, socket) = tcp_pair();
        let bytes = pattern(stream, 5_000 + stream);
        expected.insert(driver.receive(ring, socket).unwrap(), bytes.clone());
        threads.push(send_on_thread(sender, bytes));
    }
    receive_all(&mut driver, expected, drop);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let metrics = driver.metrics();
    assert!(metrics.starved > 0, "{metrics:?}");
    assert_eq!(metrics.parked, 0);
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_slot_freed_on_another_thread_wakes_a_driver_that_waits_for_one() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(2, 256);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let mut expected = HashMap::new();
    let mut threads = Vec::new();
    for stream in 0..4 {
        let (sender, socket) = tcp_pair();
        let bytes = pattern(stream, 20_000);
        expected.insert(driver.receive(ring, socket).unwrap(), bytes.clone());
        threads.push(send_on_thread(sender, bytes));
    }
    let (work, queue) = mpsc::channel::<Bytes>();
    // The holder is slow and a batch behind on purpose. The driver finds every slot in use and
    // sleeps until one is dropped here.
    threads.push(std::thread::spawn(move || {
        for bytes in queue {
            std::thread::sleep(Duration::from_micros(200));
            drop(bytes);
        }
    }));
    receive_all(&mut driver, expected, |bytes| work.send(bytes).unwrap());
    drop(work);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let metrics = driver.metrics();
    assert!(metrics.wakeups > 0, "{metrics:?}");
    // A message takes one turn or two; a loop that spins while it waits takes thousands.
    assert!(metrics.enters < 4 * metrics.completions + 100, "{metrics:?}");
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn bytes_held_past_the_end_of_ring_and_driver_stay_valid() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(8, 1024);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let (mut sender, socket) = UnixStream::pair().unwrap();
    driver.receive(ring, socket).unwrap();
    sender.write_all(b"kept").unwrap();
    let mut held = None;
    run(&mut driver, |event| {
        let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
        held = Some(bytes);
        true
    });
    let held = held.unwrap();
    finish(driver);
    let metrics = arena.metrics();
    assert_eq!(metrics.bytes_live, 1024);
    drop(arena);
    sender.write_all(b"late").unwrap_err();
    assert_eq!(held, "kept");
}

#[test]
fn a_driver_dropped_with_everything_in_flight_leaves_no_slot_behind_and_frees_none_early() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(8, 512);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let mut senders = Vec::new();
    for stream in 0..20 {
        let (mut sender, socket) = tcp_pair();
        driver.receive(ring, socket).unwrap();
        if stream % 2 == 0 {
            sender.write_all(&pattern(stream, 400)).unwrap();
        }
        senders.push(sender);
    }
    driver.wait().unwrap();
    let held: Vec<_> = std::iter::from_fn(|| driver.next()).take(3).collect();
    drop(driver);
    // The held bytes stay; all other slots are free, and none is quarantined.
    assert_eq!(arena.metrics().quarantined, 0);
    assert_eq!(arena.metrics().bytes_live, 512 * held.len());
    for mut sender in senders {
        // The kernel could write only if it still had a slot. These bytes would then show in memory
        // of other owners.
        let _ = sender.write_all(&[0xFF; 512]);
    }
    let mut buffers = Vec::new();
    arena.allocate_many(8, |buffer| buffers.push(buffer));
    assert_eq!(buffers.len(), 8 - held.len());
    for event in held {
        let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
        assert!(!bytes.contains(&0xFF) || bytes.len() == 400);
    }
    drop(buffers);
    assert_all_free(&arena);
}

#[test]
fn the_end_of_a_stream_closes_its_socket_once() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(4, 64);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let (sender, socket) = tcp_pair();
    let id = driver.receive(ring, socket).unwrap();
    drop(sender);
    run(&mut driver, |event| {
        let Event::Closed { id: closed, error: None, .. } = event else { panic!("{event:?}") };
        assert_eq!(closed, id);
        true
    });
    assert!(driver.socket(id).is_none());
    assert_eq!(driver.close(id), Err(DriverError::UnknownSocket));
    assert!(!driver.wait_timeout(Duration::from_millis(10)).unwrap());
    assert!(driver.next().is_none());
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_reset_connection_closes_with_its_error_after_its_bytes() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(4, 64);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let (mut sender, socket) = tcp_pair();
    // Bytes that the other end never reads make its close a reset.
    let mut unread = socket.try_clone().unwrap();
    unread.write_all(b"nobody reads this").unwrap();
    driver.receive(ring, socket).unwrap();
    sender.write_all(b"last words").unwrap();
    run(&mut driver, |event| {
        let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
        assert_eq!(bytes, "last words");
        true
    });
    drop(sender);
    run(&mut driver, |event| {
        let Event::Closed { error: Some(error), .. } = event else { panic!("{event:?}") };
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
        true
    });
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_socket_that_the_program_closes_tells_when_the_kernel_has_let_go() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(4, 64);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let (mut sender, socket) = tcp_pair();
    let id = driver.receive(ring, socket).unwrap();
    driver.wait_timeout(Duration::ZERO).unwrap();
    driver.close(id).unwrap();
    driver.close(id).unwrap();
    run(&mut driver, |event| {
        let Event::Closed { id: closed, error: None, .. } = event else { panic!("{event:?}") };
        assert_eq!(closed, id);
        true
    });
    assert_eq!(driver.metrics().in_flight, 0);
    assert_eq!(read_all(&mut sender), b"");
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_starved_socket_can_be_closed() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(1, 64);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let (mut first, socket) = tcp_pair();
    driver.receive(ring, socket).unwrap();
    first.write_all(b"takes the only slot").unwrap();
    let mut held = None;
    run(&mut driver, |event| {
        held = Some(event);
        true
    });
    let (mut sender, socket) = tcp_pair();
    sender.write_all(b"finds none").unwrap();
    let id = driver.receive(ring, socket).unwrap();
    driver.wait_timeout(Duration::from_millis(20)).unwrap();
    assert!(driver.next().is_none());
    assert_eq!(driver.metrics().parked, 1);
    driver.close(id).unwrap();
    assert!(matches!(driver.next(), Some(Event::Closed { error: None, .. })));
    assert_eq!(driver.metrics().parked, 0);
    drop(held);
    driver.wait_timeout(Duration::ZERO).unwrap();
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn the_number_of_a_closed_socket_is_not_given_out_before_its_closing_is_told() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(1, 64);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let blocking = arena.allocate();
    let (_sender, socket) = UnixStream::pair().unwrap();
    let starved = driver.receive(ring, socket).unwrap();
    driver.wait_timeout(Duration::from_millis(1)).unwrap();
    while driver.next().is_some() {}
    driver.close(starved).unwrap();
    driver.close(starved).unwrap();
    let (_sender, socket) = UnixStream::pair().unwrap();
    let other = driver.receive(ring, socket).unwrap();
    assert_ne!(other.index(), starved.index());
    driver.wait_timeout(Duration::ZERO).unwrap();
    run(
        &mut driver,
        |event| matches!(event, Event::Closed { id, error: None, .. } if id == starved),
    );
    assert!(driver.next().is_none());
    drop(blocking);
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_panic_while_events_are_taken_leaves_nothing_behind() {
    let arena = arena(8, 64);
    let (mut sender, socket) = UnixStream::pair().unwrap();
    let kept = arena.clone();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let mut driver = driver()?;
        let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
        driver.receive(ring, socket).unwrap();
        sender.write_all(&[1; 500]).unwrap();
        run(&mut driver, |_| panic!("the handler's own"));
        Some(())
    }));
    assert!(matches!(panicked, Err(_) | Ok(None)));
    assert_all_free(&kept);
}

#[test]
fn a_completion_queue_that_overflows_loses_nothing() {
    let Some(mut driver) = build(Driver::builder().entries(2).completion_entries(2)) else {
        return;
    };
    let arena = arena(64, 128);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let mut expected = HashMap::new();
    let mut threads = Vec::new();
    for stream in 0..40 {
        let (sender, socket) = tcp_pair();
        let bytes = pattern(stream, 4_000);
        threads.push(send_on_thread(sender, bytes.clone()));
        expected.insert(driver.receive(ring, socket).unwrap(), bytes);
    }
    receive_all(&mut driver, expected, drop);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_socket_in_nonblocking_mode_waits_instead_of_spinning() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(4, 64);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let (mut sender, socket) = tcp_pair();
    socket.set_nonblocking(true).unwrap();
    driver.receive(ring, socket).unwrap();
    assert!(!driver.wait_timeout(Duration::from_millis(30)).unwrap() || driver.next().is_none());
    sender.write_all(b"later").unwrap();
    run(&mut driver, |event| {
        let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
        assert_eq!(bytes, "later");
        true
    });
    assert!(driver.metrics().enters < 20, "{:?}", driver.metrics());
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn short_messages_are_copied_and_hold_no_slot() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(2, 4096);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().copy_below(100)).unwrap();
    let (mut sender, socket) = UnixStream::pair().unwrap();
    driver.receive(ring, socket).unwrap();
    let mut held = Vec::new();
    for number in 0..50u8 {
        sender.write_all(&[number; 99]).unwrap();
        run(&mut driver, |event| {
            let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
            assert_eq!(arena.locate(&bytes), None);
            held.push(bytes);
            true
        });
    }
    assert!(held.iter().zip(0..).all(|(bytes, number)| bytes == &vec![number; 99]));
    sender.write_all(&[7; 100]).unwrap();
    run(&mut driver, |event| {
        let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
        assert!(arena.locate(&bytes).is_some());
        true
    });
    assert_eq!(driver.metrics().copied, 50);
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn what_was_copied_out_of_a_zero_arena_is_scrubbed() {
    let Some(mut driver) = driver() else { return };
    let nz = |n| std::num::NonZeroUsize::new(n).unwrap();
    let arena = uring_arena::FixedArena::with_slot_capacity(nz(1), nz(64))
        .init_policy(uring_arena::InitPolicy::Zero)
        .build()
        .unwrap();
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().copy_below(64)).unwrap();
    let (mut sender, socket) = UnixStream::pair().unwrap();
    driver.receive(ring, socket).unwrap();
    sender.write_all(b"secret of somebody").unwrap();
    run(&mut driver, |event| matches!(event, Event::Received { .. }));
    sender.write_all(&[1; 64]).unwrap();
    run(&mut driver, |event| matches!(event, Event::Received { .. }));
    finish(driver);
    let mut buffer = arena.allocate().unwrap();
    #[allow(unsafe_code, reason = "looks at what a new owner finds")]
    // SAFETY: a zero arena hands out initialised memory.
    unsafe {
        buffer.set_len(64)
    };
    assert_eq!(&buffer[..], [0; 64]);
}

#[test]
fn in_place_bytes_come_without_leaving_the_arena() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(4, 64);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let (mut sender, socket) = UnixStream::pair().unwrap();
    driver.receive(ring, socket).unwrap();
    sender.write_all(b"in place").unwrap();
    driver.wait().unwrap();
    let Some(Event::Received { bytes, .. }) = driver.next_arena_bytes() else {
        panic!("nothing came")
    };
    assert_eq!(bytes, b"in place"[..]);
    let mut buffer = bytes.try_into_buffer().unwrap();
    bytes::BufMut::put_slice(&mut buffer, b", and on");
    assert_eq!(&buffer[..], b"in place, and on");
    drop(buffer);
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn several_rings_share_an_arena_and_choose_groups_of_their_own() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(16, 64);
    let chosen =
        driver.register_buffer_ring(&arena, BufferRing::options().entries(4).group(1)).unwrap();
    let first = driver.register_buffer_ring(&arena, BufferRing::options().entries(4)).unwrap();
    let second = driver.register_buffer_ring(&arena, BufferRing::options().entries(4)).unwrap();
    let taken = driver.register_buffer_ring(&arena, BufferRing::options().entries(4).group(1));
    assert_eq!(taken, Err(RingError::GroupTaken { group: 1 }));
    let mut senders = Vec::new();
    for ring in [chosen, first, second] {
        let (mut sender, socket) = UnixStream::pair().unwrap();
        let id = driver.receive(ring, socket).unwrap();
        sender.write_all(b"hello").unwrap();
        run(&mut driver, |event| {
            let Event::Received { id: from, bytes, .. } = event else { panic!("{event:?}") };
            assert_eq!((from, &bytes[..]), (id, &b"hello"[..]));
            true
        });
        assert_eq!(driver.ring_metrics(ring).unwrap().received, 1);
        senders.push(sender);
    }
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_ring_is_taken_down_when_its_sockets_are_closed() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(4, 64);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().group(3)).unwrap();
    let (sender, socket) = UnixStream::pair().unwrap();
    driver.receive(ring, socket).unwrap();
    assert_eq!(driver.unregister_buffer_ring(ring), Err(DriverError::RingInUse { sockets: 1 }));
    drop(sender);
    run(&mut driver, |event| matches!(event, Event::Closed { .. }));
    driver.unregister_buffer_ring(ring).unwrap();
    assert_all_free(&arena);
    assert_eq!(driver.unregister_buffer_ring(ring), Err(DriverError::UnknownRing));
    let (_sender, socket) = UnixStream::pair().unwrap();
    assert_eq!(driver.receive(ring, socket).unwrap_err().error, DriverError::UnknownRing);
    // The group id is free again.
    driver.register_buffer_ring(&arena, BufferRing::options().group(3)).unwrap();
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn slots_by_state_add_up() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(16, 64);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(4)).unwrap();
    let (mut sender, socket) = UnixStream::pair().unwrap();
    driver.receive(ring, socket).unwrap();
    let mut held = Vec::new();
    for number in 0..10 {
        sender.write_all(&[1; 64]).unwrap();
        run(&mut driver, |event| {
            held.push(event);
            true
        });
        driver.wait_timeout(Duration::ZERO).unwrap();
        let slots = driver.slot_states(&arena);
        assert_eq!(
            (slots.frozen, slots.published, slots.quarantined),
            (number + 1, 4, 0),
            "{slots:?}"
        );
        assert_eq!((slots.free + slots.published + slots.frozen, slots.total()), (16, 16));
    }
    drop(held);
    assert_eq!(driver.slot_states(&arena).free, 12);
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn ids_of_another_driver_are_refused() {
    let (Some(mut ours), Some(mut theirs)) = (driver(), driver()) else { return };
    let arena = arena(4, 64);
    let ring = theirs.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    ours.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let (_sender, socket) = UnixStream::pair().unwrap();
    let refused = ours.receive(ring, socket).unwrap_err().error;
    assert!(matches!(refused, DriverError::OtherDriver { what: "buffer ring", .. }), "{refused}");
}

#[test]
fn absurd_sizes_are_refused_by_name() {
    let Some(mut driver) = driver() else { return };
    let small = arena(4, 64);
    let refused =
        driver.register_buffer_ring(&small, BufferRing::options().entries(48)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "48 entries: a buffer ring has a power of two of them, from 1 to 32768"
    );
    let large = arena(65_537, 1);
    let refused = driver.register_buffer_ring(&large, BufferRing::options()).unwrap_err();
    assert_eq!(refused, RingError::TooManySlots { slots: 65_537, limit: 65_536 });
    let refused = Driver::builder().entries(0).build().unwrap_err();
    let queue = "submission";
    assert_eq!(refused, DriverError::Entries { queue, entries: 0, limit: 32_768 });
    let Some(mut driver) = build(Driver::builder().operations(1)) else { return };
    let ring = driver.register_buffer_ring(&small, BufferRing::options()).unwrap();
    let _id = driver.receive(ring, UnixStream::pair().unwrap().1).unwrap();
    let refused = driver.receive(ring, UnixStream::pair().unwrap().1).unwrap_err();
    assert_eq!(refused.error, DriverError::TooManyOperations { limit: 1 });
}

#[test]
fn an_accepted_connection_can_be_received_from() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(4, 64);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = driver.accept(listener).unwrap();
    let mut clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut sockets = Vec::new();
    run(&mut driver, |event| {
        let Event::Accepted { socket, .. } = event else { panic!("{event:?}") };
        sockets.push(socket);
        sockets.len() == 3
    });
    for socket in sockets {
        driver.receive(ring, socket).unwrap();
    }
    clients.iter_mut().for_each(|client| client.write_all(b"hi").unwrap());
    let mut received = 0;
    run(&mut driver, |event| {
        let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
        assert_eq!(bytes, "hi");
        received += 1;
        received == 3
    });
    driver.close(accepting).unwrap();
    run(&mut driver, |event| {
        let Event::Closed { id, error: None, .. } = event else { panic!("{event:?}") };
        assert_eq!(id, accepting);
        true
    });
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_paused_listener_leaves_connections_in_its_queue() {
    let Some(mut driver) = driver() else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let id = driver.accept(listener).unwrap();
    driver.pause(id).unwrap();
    driver.wait_timeout(Duration::from_millis(10)).unwrap();
    assert!(driver.next().is_none());
    let _client = TcpStream::connect(address).unwrap();
    driver.wait_timeout(Duration::from_millis(10)).unwrap();
    assert!(driver.next().is_none());
    driver.resume(id).unwrap();
    run(&mut driver, |event| matches!(event, Event::Accepted { id: from, .. } if from == id));
    driver.pause(id).unwrap();
    driver.close(id).unwrap();
    run(&mut driver, |event| matches!(event, Event::Closed { error: None, .. }));
    finish(driver);
}

#[test]
fn a_busy_socket_does_not_keep_a_quiet_one_waiting() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(4, 64);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let (mut busy, busy_socket) = UnixStream::pair().unwrap();
    let (mut quiet, quiet_socket) = UnixStream::pair().unwrap();
    driver.receive(ring, busy_socket).unwrap();
    let quiet_id = driver.receive(ring, quiet_socket).unwrap();
    let thread = std::thread::spawn(move || {
        // The sender ends with the driver.
        while busy.write_all(&[1; 4096]).is_ok() {}
    });
    for number in 0..20u8 {
        let mut before = 0;
        quiet.write_all(&[number]).unwrap();
        run(&mut driver, |event| {
            let Event::Received { id, .. } = event else { panic!("{event:?}") };
            before += usize::from(id != quiet_id);
            id == quiet_id
        });
        // One ringful may lie before it, and the bytes that arrived while it was starved.
        assert!(before < 200, "{before} messages of the busy one came first");
    }
    finish(driver);
    thread.join().unwrap();
    assert_all_free(&arena);
}

#[test]
fn many_idle_connections_hold_no_receive_memory() {
    // Two descriptors each; 10,000 where the limit of open files allows, beside what other tests
    // of this process have open.
    let limit = raise_descriptors(2 * 10_000 + 500);
    let count = limit.saturating_sub(500) as usize / 2;
    let Some(mut driver) = driver() else { return };
    let arena = arena(64, 4096);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(32)).unwrap();
    let mut peers = Vec::with_capacity(count);
    for _ in 0..count {
        let (peer, socket) = UnixStream::pair().unwrap();
        driver.receive(ring, socket).unwrap();
        peers.push(peer);
    }
    driver.wait_timeout(Duration::ZERO).unwrap();
    eprintln!("{count} connections");
    // Only the posted slots are claimed, ready for any socket.
    assert_eq!(arena.metrics().bytes_live, 32 * 4096);
    let mut wanted = 0;
    for (number, peer) in peers.iter_mut().enumerate().step_by(count / 20 + 1) {
        peer.write_all(&number.to_ne_bytes()).unwrap();
        wanted += 1;
    }
    run(&mut driver, |event| {
        let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
        assert_eq!(bytes.len(), 8);
        wanted -= 1;
        wanted == 0
    });
    finish(driver);
    assert_all_free(&arena);
}
