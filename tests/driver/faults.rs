//! Bad input and faults on the real kernel.
//!
//! Each is told with its value, its limit and the remedy. No slot is lost, freed early or
//! uncounted. docs/testing.md lists which test covers which fault.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::support::driver::{build, driver, finish, run};
use crate::support::limits::{as_user_with_memlock, run_alone};
use crate::support::{arena, assert_all_free, filled, paged_arena, pattern, tcp_pair};
use io_uring::{IoUring, types::Fd};
use uring_arena::{
    BufferRing, Driver, DriverError, Event, RegistrationMode, RingError, SlotStates, Status,
};

fn events(driver: &mut Driver, count: usize) -> Vec<Event> {
    let mut all = Vec::new();
    run(driver, |event| {
        all.push(event);
        all.len() == count
    });
    all
}

/// Compares free, held, posted, in-flight and frozen slots; none is quarantined or missing.
#[track_caller]
fn assert_states(states: SlotStates, expected: [usize; 5]) {
    let SlotStates { free, held, published, in_flight, frozen, quarantined, .. } = states;
    assert_eq!(([free, held, published, in_flight, frozen], quarantined), (expected, 0));
}

/// Run by [`a_driver_without_lockable_memory_works_and_says_what_it_lacks`] as another user with a
/// limit of 256 KiB.
#[test]
#[ignore = "needs a small RLIMIT_MEMLOCK and no CAP_IPC_LOCK: run by another test"]
fn helper_without_lockable_memory() {
    let Some(mut driver) = driver() else { return println!("helper finished") };
    let arena = paged_arena(64, 16384);
    let registered = driver.register(&arena).unwrap();
    let registered = driver.arena(registered).unwrap();
    assert_eq!(registered.mode(), RegistrationMode::Unregistered);
    let told = registered.refused()[0].1.to_string();
    assert!(told.contains("1048576 bytes are needed") && told.contains("262144"), "{told}");
    // Rings count too: 32,768 entries of 16 bytes are twice the limit.
    let many = crate::support::arena(65_536, 64);
    let error =
        driver.register_buffer_ring(&many, BufferRing::options().entries(32_768)).unwrap_err();
    let RingError::Memlock { entries: 32_768, memlock, .. } = error else { panic!("{error}") };
    assert_eq!(
        (memlock.needed, memlock.soft, memlock.hard),
        (524_288, Some(262_144), Some(262_144))
    );
    assert!(error.to_string().contains("LimitMEMLOCK=524288"), "{error}");
    assert_states(driver.slot_states(&many), [65_536, 0, 0, 0, 0]);
    // Transfers that fit still work, only slower.
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(16)).unwrap();
    let (ours, theirs) = tcp_pair();
    driver.receive(ring, theirs).unwrap();
    let socket = driver.add_file(ours).unwrap();
    driver.send(socket, filled(&arena, &pattern(1, 16384))).unwrap();
    let mut received = Vec::new();
    run(&mut driver, |event| {
        if let Event::Received { bytes, .. } = event {
            received.extend_from_slice(&bytes);
        }
        received.len() == 16384
    });
    assert_eq!(received, pattern(1, 16384));
    finish(driver);
    assert_all_free(&arena);
    println!("helper finished");
}

#[test]
fn a_driver_without_lockable_memory_works_and_says_what_it_lacks() {
    let prlimit = as_user_with_memlock(262_144, 0);
    let prlimit: Vec<&str> = prlimit.iter().map(String::as_str).collect();
    run_alone("faults::helper_without_lockable_memory", &prlimit);
}

/// Run by [`without_a_descriptor_left_the_limit_is_named`] with few descriptors.
#[test]
#[ignore = "needs a small RLIMIT_NOFILE: run by another test"]
fn helper_without_descriptors() {
    let mut drivers = Vec::new();
    let error = loop {
        match Driver::builder().build() {
            Ok(driver) => drivers.push(driver),
            Err(DriverError::Forbidden { .. } | DriverError::Unsupported { .. }) => {
                return println!("helper finished");
            }
            Err(error) => break error,
        }
        assert!(drivers.len() < 100);
    };
    assert_eq!(error, DriverError::NoRoom { entries: 256, errno: libc::EMFILE });
    assert!(
        error.to_string().contains("256 entries") && error.to_string().contains("ulimit -n"),
        "{error}"
    );
    // A driver that is dropped makes room for another.
    drop(drivers.pop());
    drop(Driver::builder().build().unwrap());
    println!("helper finished");
}

/// The first descriptor that is missing is the ring's at some limits, another part's at others.
#[test]
fn without_a_descriptor_left_the_limit_is_named() {
    for limit in 15..20 {
        run_alone("faults::helper_without_descriptors", &[&format!("--nofile={limit}:{limit}")]);
    }
}

#[test]
fn a_full_table_of_operations_is_told_and_takes_more_when_one_is_over() {
    let Some(mut driver) = build(Driver::builder().operations(2)) else { return };
    let arena = arena(8, 64);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(4)).unwrap();
    let (_first, socket) = UnixStream::pair().unwrap();
    let id = driver.receive(ring, socket).unwrap();
    driver.accept(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    let (mut third, socket) = UnixStream::pair().unwrap();
    let full = DriverError::TooManyOperations { limit: 2 };
    let refused = driver.receive(ring, socket).unwrap_err();
    assert_eq!(refused.error, full);
    assert!(full.to_string().contains("build it with more `operations`"), "{full}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(driver.accept(listener).unwrap_err().error, full);
    assert_states(driver.slot_states(&arena), [4, 0, 4, 0, 0]);
    driver.close(id).unwrap();
    run(&mut driver, |event| matches!(event, Event::Closed { .. }));
    // The refused socket is as good as before.
    driver.receive(ring, refused.socket).unwrap();
    third.write_all(b"still here").unwrap();
    run(
        &mut driver,
        |event| matches!(event, Event::Received { bytes, .. } if bytes == "still here"),
    );
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_group_that_is_taken_is_named_and_costs_nothing() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(8, 64);
    let options = BufferRing::options().entries(2).group(107);
    driver.register_buffer_ring(&arena, options).unwrap();
    for _ in 0..20 {
        let error = driver.register_buffer_ring(&arena, options).unwrap_err();
        assert_eq!(error, RingError::GroupTaken { group: 107 });
        assert!(error.to_string().contains("choose another one"), "{error}");
    }
    assert_states(driver.slot_states(&arena), [6, 0, 2, 0, 0]);
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_descriptor_that_is_closed_or_of_the_wrong_kind_is_an_error_of_its_own() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(8, 64);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(4)).unwrap();
    let wrong: [OwnedFd; 2] = [
        File::open("/proc/self/exe").unwrap().into(),
        TcpListener::bind("127.0.0.1:0").unwrap().into(),
    ];
    for (descriptor, errno) in wrong.into_iter().zip([libc::ENOTSOCK, libc::ENOTCONN]) {
        let id = driver.receive(ring, descriptor).unwrap();
        run(&mut driver, |event| {
            let Event::Closed { id: closed, error: Some(error), .. } = event else {
                panic!("{event:?}")
            };
            assert_eq!((closed, error.raw_os_error()), (id, Some(errno)));
            true
        });
    }
    let id = driver.accept(UnixStream::pair().unwrap().0).unwrap();
    run(&mut driver, |event| {
        let Event::Closed { id: closed, error: Some(error), .. } = event else {
            panic!("{event:?}")
        };
        assert_eq!((closed, error.raw_os_error()), (id, Some(libc::EINVAL)));
        true
    });
    driver.wait_timeout(Duration::ZERO).unwrap();
    assert_states(driver.slot_states(&arena), [4, 0, 4, 0, 0]);
    finish(driver);
    assert_all_free(&arena);
    // With pieces the descriptor is the program's, and may be closed when the entry is issued.
    let mut uring = IoUring::new(8).unwrap();
    // SAFETY: entries go to this ring, each completion is handed in once, and it is taken down
    // below.
    let mut ring = unsafe { BufferRing::register(&uring, &arena, BufferRing::options()) }.unwrap();
    let closed = {
        let (_, socket) = UnixStream::pair().unwrap();
        Fd(socket.as_raw_fd())
    };
    for entry in [ring.receive_multi(closed), ring.receive_once(closed), ring.read_once(closed)] {
        // SAFETY: refers to the ring's slots only.
        unsafe { uring.submission().push(&entry) }.unwrap();
        uring.submit_and_wait(1).unwrap();
        let completion = uring.completion().next().unwrap();
        // SAFETY: its completion.
        let status = unsafe { ring.complete::<bytes::Bytes>(&completion) }.status();
        assert_eq!(status, Status::Failed { errno: libc::EBADF });
    }
    assert_eq!((ring.refill(), ring.metrics().published), (4, 4), "half of the arena");
    // SAFETY: every receive has ended.
    unsafe { ring.unregister(&uring) }.unwrap();
    assert_all_free(&arena);
}

/// The peer resets while a bundle is half read. The bytes before it arrive as sent, then the error,
/// once.
#[test]
fn a_reset_in_the_middle_of_a_bundle_keeps_what_came_before() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(16, 256);
    let ring = driver
        .register_buffer_ring(&arena, BufferRing::options().entries(8).bundles(true))
        .unwrap();
    let expected = pattern(3, 20_000);
    for reset_after in [1, 3, 20] {
        let (mut sender, socket) = tcp_pair();
        // Bytes that the peer never reads make its close a reset.
        (&socket).write_all(b"nobody reads this").unwrap();
        let id = driver.receive(ring, socket).unwrap();
        sender.write_all(&expected).unwrap();
        let mut sender = Some(sender);
        let (mut received, mut held, mut parts) = (Vec::new(), Vec::new(), 0);
        run(&mut driver, |event| match event {
            Event::Received { bytes, .. } => {
                received.extend_from_slice(&bytes);
                // Some bytes are held over the reset and compared afterwards.
                held.push((received.len() - bytes.len(), bytes));
                parts += 1;
                if parts == reset_after {
                    sender = None;
                }
                if held.len() > 4 {
                    held.remove(0);
                }
                false
            }
            Event::Closed { id: closed, error, .. } => {
                assert_eq!(closed, id);
                // Everything may have been read before the reset was.
                let errno = error.and_then(|error| error.raw_os_error());
                assert!(errno == Some(libc::ECONNRESET), "{errno:?}");
                true
            }
            other => panic!("{other:?}"),
        });
        assert!(parts >= reset_after);
        assert_eq!(received[..], expected[..received.len()]);
        for (at, bytes) in &held {
            assert_eq!(bytes[..], expected[*at..at + bytes.len()]);
        }
        let states = driver.slot_states(&arena);
        assert_eq!(
            (states.frozen, states.held, states.in_flight, states.quarantined),
            (held.len(), 0, 0, 0)
        );
        assert_eq!(states.total(), 16);
    }
    finish(driver);
    assert_all_free(&arena);
}

/// A driver is dropped without a drain, with every kind of operation under way. The drop waits, and
/// nothing is lost or written late.
#[test]
fn a_ring_dropped_with_everything_in_flight_gives_every_slot_back() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(64, 65536);
    driver.register(&arena).unwrap();
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(8)).unwrap();
    let incremental = driver
        .register_buffer_ring(
            &arena,
            BufferRing::options().entries(4).incremental(true).bundles(true),
        )
        .unwrap();
    let mut peers: Vec<TcpStream> = Vec::new();
    for number in 0..6 {
        let (mut peer, socket) = tcp_pair();
        driver.receive(if number % 2 == 0 { ring } else { incremental }, socket).unwrap();
        peer.write_all(&pattern(number, 1000)).unwrap();
        peers.push(peer);
    }
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    driver.receive_datagrams(ring, udp).unwrap();
    driver.accept(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    let (reader, _writer) = std::io::pipe().unwrap();
    driver.read_pipe(ring, reader.try_clone().unwrap()).unwrap();
    let pipe = driver.add_file(reader).unwrap();
    for _ in 0..4 {
        driver.read(pipe, arena.allocate().unwrap(), 0).unwrap();
    }
    let (ours, full) = tcp_pair();
    let socket = driver.add_file(ours).unwrap();
    for part in 0..16 {
        driver.send(socket, filled(&arena, &pattern(part, 65536))).unwrap();
    }
    driver.wait().unwrap();
    // Some events are taken and some are not.
    let taken: Vec<Event> = std::iter::from_fn(|| driver.next()).take(3).collect();
    let states = driver.slot_states(&arena);
    assert_eq!((states.total(), states.quarantined), (64, 0));
    assert!(states.published > 0 && states.in_flight >= 4, "{states:?}");
    drop(driver);
    drop((taken, peers, full));
    assert_all_free(&arena);
}

/// The handler of the program panics at each event in turn. Unwinding drops driver and event, and
/// every slot comes back.
#[test]
fn a_panic_at_any_event_leaves_nothing_behind() {
    let Some(_) = driver() else { return };
    let arena = paged_arena(16, 4096);
    for panic_at in 0..8 {
        let kept = arena.clone();
        let arena = arena.clone();
        let panicked = catch_unwind(AssertUnwindSafe(move || {
            let mut driver = driver().unwrap();
            driver.register(&arena).unwrap();
            let ring = driver
                .register_buffer_ring(
                    &arena,
                    BufferRing::options().entries(4).bundles(true).incremental(true),
                )
                .unwrap();
            let (ours, theirs) = tcp_pair();
            driver.receive(ring, theirs).unwrap();
            let socket = driver.add_file(ours).unwrap();
            let file = driver.add_file(File::open("/proc/self/exe").unwrap()).unwrap();
            for part in 0..4 {
                driver.read(file, arena.allocate().unwrap(), 0).unwrap();
                driver.send(socket, filled(&arena, &pattern(part, 4096))).unwrap();
            }
            let mut seen = 0;
            run(&mut driver, |_event| {
                assert!(seen < panic_at, "the handler's own");
                seen += 1;
                false
            });
        }));
        let panic = panicked.unwrap_err();
        assert!(
            panic.downcast_ref::<&str>().is_some_and(|text| text.contains("the handler's own"))
        );
        assert_all_free(&kept);
    }
}

#[test]
fn events_of_a_kind_that_nobody_wants_can_be_dropped() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(8, 64);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(4)).unwrap();
    let (mut sender, socket) = tcp_pair();
    driver.receive(ring, socket).unwrap();
    sender.write_all(&pattern(1, 2000)).unwrap();
    drop(sender);
    // The program ignores the bytes, and takes one event a turn.
    run(&mut driver, |event| matches!(event, Event::Closed { error: None, .. }));
    assert!(events_left(&mut driver) == 0);
    finish(driver);
    assert_all_free(&arena);
}

fn events_left(driver: &mut Driver) -> usize {
    std::iter::from_fn(|| driver.next()).count()
}

/// Messages that are held for good starve the socket, not the driver. Closing the socket then ends
/// all.
#[test]
fn with_every_slot_held_the_driver_still_ends_in_good_order() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(4, 64);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(2)).unwrap();
    let (mut sender, socket) = tcp_pair();
    driver.receive(ring, socket).unwrap();
    sender.write_all(&pattern(5, 1000)).unwrap();
    let held = events(&mut driver, 4);
    driver.wait_timeout(Duration::from_millis(20)).unwrap();
    assert_eq!(events_left(&mut driver), 0);
    assert_states(driver.slot_states(&arena), [0, 0, 0, 0, 4]);
    assert_eq!(driver.metrics().parked, 1);
    finish(driver);
    assert_states(arena.slot_states(), [0, 0, 0, 0, 4]);
    drop(held);
    assert_all_free(&arena);
}
