//! Resources that run out: descriptors, room in tables, slots, locked memory. Each is told, and
//! work goes on when they are back.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use std::thread;
use std::time::Duration;

use crate::support::driver::{build, driver, finish, run};
use crate::support::limits::{as_user_with_memlock, leave_descriptors, run_alone, set_descriptors};
use crate::support::{TestFile, arena, assert_all_free, filled, paged_arena, pattern, tcp_pair};
use bytes::Bytes;
use uring_arena::{
    BufferRing, BufferRingId, Driver, DriverError, Event, Feature, Probe, RegisterError,
    RegistrationMode, RingError, SendOptions, SocketError, SocketId, ring_info,
};

/// Runs a helper of this module in a process of its own, as another user who may lock so much.
fn run_with_memlock(helper: &str, bytes: u64, number: u32) {
    let prlimit = as_user_with_memlock(bytes, number);
    let prlimit: Vec<&str> = prlimit.iter().map(String::as_str).collect();
    run_alone(&format!("resources::{helper}"), &prlimit);
}

/// Hands a socket in, which is refused, and returns it.
///
/// It must be the same descriptor, still open, and its peer must not have seen it close.
fn refused(
    take: impl FnOnce(OwnedFd) -> Result<SocketId, SocketError>,
    expected: impl FnOnce(&DriverError) -> bool,
) {
    let (socket, mut peer) = UnixStream::pair().unwrap();
    let fd = socket.as_raw_fd();
    let error = take(socket.into()).unwrap_err();
    assert!(expected(&error.error), "{error}");
    assert_eq!(error.to_string(), error.error.to_string());
    let mut socket = UnixStream::from(error.socket);
    assert_eq!(socket.as_raw_fd(), fd);
    socket.write_all(b"from here").unwrap();
    peer.write_all(b"and back").unwrap();
    let mut bytes = [0; 9];
    peer.read_exact(&mut bytes).unwrap();
    socket.read_exact(&mut bytes[..8]).unwrap();
    assert_eq!(&bytes[..8], b"and back");
}

#[test]
fn a_refused_socket_comes_back_open_whatever_the_reason() {
    let (Some(mut driver), Some(mut other)) = (build(Driver::builder().operations(1)), driver())
    else {
        return;
    };
    let arena = arena(16, 64);
    let options = BufferRing::options().entries(2);
    let ring = driver.register_buffer_ring(&arena, options).unwrap();
    let theirs = other.register_buffer_ring(&arena, options).unwrap();
    let gone = driver.register_buffer_ring(&arena, options).unwrap();
    driver.unregister_buffer_ring(gone).unwrap();

    let is_other = |error: &DriverError| matches!(error, DriverError::OtherDriver { .. });
    refused(|fd| driver.receive(theirs, fd), is_other);
    refused(|fd| driver.read_pipe(theirs, fd), is_other);
    refused(|fd| driver.receive_datagrams(theirs, fd), is_other);
    let is_unknown = |error: &DriverError| *error == DriverError::UnknownRing;
    refused(|fd| driver.receive(gone, fd), is_unknown);
    refused(|fd| driver.read_pipe(gone, fd), is_unknown);
    refused(|fd| driver.receive_datagrams(gone, fd), is_unknown);
    let tiny = crate::support::arena(4, 44);
    let tiny = driver.register_buffer_ring(&tiny, options).unwrap();
    let is_small = |error: &DriverError| matches!(error, DriverError::SlotTooSmall { .. });
    refused(|fd| driver.receive_datagrams(tiny, fd), is_small);

    let _only = driver.receive(ring, UnixStream::pair().unwrap().0).unwrap();
    let is_full = |error: &DriverError| *error == DriverError::TooManyOperations { limit: 1 };
    refused(|fd| driver.receive(ring, fd), is_full);
    refused(|fd| driver.read_pipe(ring, fd), is_full);
    refused(|fd| driver.receive_datagrams(ring, fd), is_full);
    refused(|fd| driver.accept(fd), is_full);
    finish(driver);
    finish(other);
    assert_all_free(&arena);
}

#[test]
fn a_refused_datagram_socket_is_taken_by_a_driver_that_can() {
    let Ok(probe) = Probe::shared() else { return };
    let Some(mut old) = build(Driver::builder().probe(probe.without(Feature::RecvMultishot)))
    else {
        return;
    };
    let Some(mut driver) = driver() else { return };
    let arena = arena(8, 256);
    let options = BufferRing::options().entries(2);
    let ring = old.register_buffer_ring(&arena, options).unwrap();
    let (ours, theirs) =
        (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let address = ours.local_addr().unwrap();
    let refused = old.receive_datagrams(ring, ours).unwrap_err();
    assert!(matches!(refused.error, DriverError::Unsupported { .. }), "{refused}");
    let ring = driver.register_buffer_ring(&arena, options).unwrap();
    driver.receive_datagrams(ring, refused.socket).unwrap();
    theirs.send_to(b"ping", address).unwrap();
    run(&mut driver, |event| {
        let Event::Datagram { datagram, .. } = event else { panic!("{event:?}") };
        datagram.bytes == "ping"
    });
    finish(driver);
    finish(old);
    assert_all_free(&arena);
}

#[test]
fn a_refused_listener_loses_no_connection() {
    let (Some(mut full), Some(mut driver)) = (build(Driver::builder().operations(1)), driver())
    else {
        return;
    };
    full.accept(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let _client = TcpStream::connect(address).unwrap();
    let refused = full.accept(listener).unwrap_err();
    driver.accept(refused.socket).unwrap();
    run(&mut driver, |event| matches!(event, Event::Accepted { .. }));
    finish(driver);
    finish(full);
}

/// The bytes of the queues of a driver with default options: 256 entries and 1024 completions.
const DEFAULT_QUEUES: u64 = 36_864;

/// Run by [`a_ring_without_lockable_memory_says_what_it_needs`] as another user who may lock one
/// page less than a driver needs.
#[test]
#[ignore = "needs a small RLIMIT_MEMLOCK and no CAP_IPC_LOCK: run by another test"]
fn helper_driver_without_lockable_memory() {
    let error = Driver::builder().build().unwrap_err();
    let DriverError::Memlock { entries: 256, memlock, .. } = error else { panic!("{error}") };
    let limit = DEFAULT_QUEUES - 4096;
    assert_eq!((memlock.needed, memlock.soft), (DEFAULT_QUEUES, Some(limit)));
    assert_eq!((memlock.hard, memlock.privileged), (Some(limit), false));
    let text = error.to_string();
    for part in ["256 entries", "36864 bytes are needed", "32768 bytes", "LimitMEMLOCK=36864"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Fewer entries fit.
    let driver = Driver::builder().entries(32).build().unwrap();
    // Then most of what is left is another ring's.
    let error = Driver::builder().entries(128).build().unwrap_err();
    assert!(error.to_string().contains("other rings and processes"), "{error}");
    drop(driver);
    println!("helper finished");
}

#[test]
fn a_ring_without_lockable_memory_says_what_it_needs() {
    if driver().is_some() {
        run_with_memlock("helper_driver_without_lockable_memory", DEFAULT_QUEUES - 4096, 1);
    }
}

/// Run by [`a_driver_with_memory_for_its_queues_alone_works`] as another user who may lock just
/// that.
#[test]
#[ignore = "needs a small RLIMIT_MEMLOCK and no CAP_IPC_LOCK: run by another test"]
fn helper_driver_with_memory_for_its_queues() {
    let mut driver = Driver::builder().build().unwrap();
    let arena = paged_arena(8, 4096);
    // A probe has no memory for its rings, and an arena none to be registered: the reason says so.
    let id = driver.register(&arena).unwrap();
    let registered = driver.arena(id).unwrap();
    assert_eq!(registered.mode(), RegistrationMode::Unregistered);
    let reason = registered.refused()[0].1.to_string();
    assert!(reason.contains("RLIMIT_MEMLOCK") && reason.contains("36864"), "{reason}");
    let RingError::Memlock { entries: 4, memlock, .. } =
        driver.register_buffer_ring(&arena, BufferRing::options().entries(4)).unwrap_err()
    else {
        panic!("a buffer ring needs a page");
    };
    assert_eq!((memlock.needed, memlock.soft), (4096, Some(DEFAULT_QUEUES)));
    // Reads and sends work all the same.
    let (ours, mut theirs) = tcp_pair();
    let socket = driver.add_file(ours).unwrap();
    driver.send(socket, Bytes::from(vec![7; 65_536])).unwrap();
    let reader = thread::spawn(move || theirs.read_exact(&mut [0; 65_536]).unwrap());
    run(&mut driver, |event| {
        let Event::Sent { result, .. } = event else { panic!("{event:?}") };
        result.unwrap() == 65_536
    });
    reader.join().unwrap();
    finish(driver);
    assert_all_free(&arena);
    println!("helper finished");
}

#[test]
fn a_driver_with_memory_for_its_queues_alone_works() {
    if driver().is_some() {
        run_with_memlock("helper_driver_with_memory_for_its_queues", DEFAULT_QUEUES, 2);
    }
}

/// Run by [`a_driver_built_with_its_last_descriptors_lacks_no_feature_later`]: no probe was made in
/// this process before.
#[test]
#[ignore = "lowers a limit of the process: run by another test"]
fn helper_driver_with_the_last_descriptors() {
    let (socket, _peer) = tcp_pair();
    let arena = paged_arena(8, 65_536);
    // For the ring and both ends of its pipe, and none for a probe.
    let before = leave_descriptors(3);
    let mut driver = Driver::builder().build().unwrap();
    let refused = driver.register(&arena).unwrap_err();
    assert!(matches!(refused, RegisterError::Unavailable(_)), "{refused}");
    assert!(refused.to_string().contains("ulimit -n"), "{refused}");
    set_descriptors(before);
    let id = driver.register(&arena).unwrap();
    assert_eq!(driver.arena(id).unwrap().mode(), RegistrationMode::Slots);
    let socket = driver.add_file(socket).unwrap();
    let zero_copy = SendOptions::new().zero_copy_from(1);
    driver.send_with(socket, filled(&arena, b"from its slot"), zero_copy).unwrap();
    run(&mut driver, |event| matches!(event, Event::Sent { .. }));
    assert_eq!(driver.metrics().zero_copy_sends, 1);
    finish(driver);
    assert_all_free(&arena);
    println!("helper finished");
}

#[test]
fn a_driver_built_with_its_last_descriptors_lacks_no_feature_later() {
    if driver().is_some() {
        run_alone("resources::helper_driver_with_the_last_descriptors", &[]);
    }
}

/// Run by [`a_table_of_files_is_made_as_long_as_the_limit_allows`].
#[test]
#[ignore = "lowers a limit of the process: run by another test"]
fn helper_table_of_files() {
    let mut driver = Driver::builder().build().unwrap();
    let entries = |driver: &Driver| {
        let info = ring_info(driver.as_raw_fd()).unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix("UserFiles:")).unwrap();
        line.trim().parse::<usize>().unwrap()
    };
    let file = || std::fs::File::open("/proc/self/exe").unwrap();
    let file = driver.add_file(file()).unwrap();
    assert_eq!(entries(&driver), 100, "the limit of open files, which is below 1024");
    driver.read(file, arena(1, 64).allocate().unwrap(), 0).unwrap();
    run(&mut driver, |event| matches!(event, Event::Read { result: Ok(64), .. }));
    finish(driver);
    println!("helper finished");
}

#[test]
fn a_table_of_files_is_made_as_long_as_the_limit_allows() {
    if driver().is_some() {
        run_alone("resources::helper_table_of_files", &["--nofile=100:100"]);
    }
}

/// Run by [`a_driver_that_starves_without_descriptors_goes_on`].
#[test]
#[ignore = "lowers a limit of the process: run by another test"]
fn helper_starved_without_descriptors() {
    let mut driver = Driver::builder().build().unwrap();
    let arena = arena(2, 64);
    let options = BufferRing::options().entries(2);
    let ring = driver.register_buffer_ring(&arena, options).unwrap();
    let (mut peer, socket) = UnixStream::pair().unwrap();
    let (mut writer, reader) = UnixStream::pair().unwrap();
    let file = driver.add_file(reader).unwrap();
    let before = leave_descriptors(0);
    driver.receive(ring, socket).unwrap();
    for round in 0..20u8 {
        peer.write_all(&[round; 3 * 64]).unwrap();
        let (mut held, mut received) = (Vec::new(), 0);
        run(&mut driver, |event| {
            let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
            assert!(bytes.iter().all(|&byte| byte == round));
            received += bytes.len();
            held.push(bytes);
            // All slots are held, by bytes that were handed out.
            received == 2 * 64
        });
        while driver.metrics().parked == 0 {
            driver.wait_timeout(Duration::from_millis(1)).unwrap();
            assert!(driver.next().is_none());
        }
        // From another thread, as the ring sleeps.
        let waker = driver.waker().unwrap();
        let dropper = thread::spawn(move || drop((held, waker)));
        run(&mut driver, |event| {
            let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
            received += bytes.len();
            received == 3 * 64
        });
        dropper.join().unwrap();
    }
    // Everything else works without a new descriptor too.
    driver.register(&arena).unwrap();
    driver.read(file, arena.allocate().unwrap(), 0).unwrap();
    writer.write_all(b"read").unwrap();
    run(&mut driver, |event| matches!(event, Event::Read { result: Ok(4), .. }));
    let second = driver.register_buffer_ring(&arena, options).unwrap();
    driver.unregister_buffer_ring(second).unwrap();
    finish(driver);
    set_descriptors(before);
    assert_all_free(&arena);
    println!("helper finished");
}

#[test]
fn a_driver_that_starves_without_descriptors_goes_on() {
    if driver().is_some() {
        run_alone("resources::helper_starved_without_descriptors", &[]);
    }
}

#[test]
fn absurd_numbers_are_refused_with_value_and_limit() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(8, 64);
    type Build = fn(usize) -> Result<Driver, DriverError>;
    let numbers: [(&str, usize, Build); 3] = [
        ("submission", 32_768, |number| Driver::builder().entries(number).build()),
        ("completion", 65_536, |number| Driver::builder().completion_entries(number).build()),
        ("`operations`", 1 << 28, |number| Driver::builder().operations(number).build()),
    ];
    for (what, limit, build) in numbers {
        for absurd in [0, limit + 1, u32::MAX as usize + 2, usize::MAX] {
            let text = build(absurd).map(drop).unwrap_err().to_string();
            for part in [what, &format!("{absurd} "), &format!("1 to {limit}")] {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
        // The least and the most are taken.
        drop(build(1).unwrap());
        drop(build(limit).unwrap());
    }
    for absurd in [0, 3, 32_769, 65_536, usize::MAX] {
        let options = BufferRing::options().entries(absurd);
        let error = driver.register_buffer_ring(&arena, options).unwrap_err();
        assert_eq!(error, RingError::Entries { entries: absurd, limit: 32_768 });
        assert!(error.to_string().contains("1 to 32768"), "{error}");
    }
    for entries in [1, 32_768] {
        let options = BufferRing::options().entries(entries);
        let ring = driver.register_buffer_ring(&arena, options).unwrap();
        driver.unregister_buffer_ring(ring).unwrap();
    }
    finish(driver);
    assert_all_free(&arena);
}

/// More reads, writes and sends than the submission queue holds, of which some wait behind others,
/// and the arena goes before a single turn.
#[test]
fn what_is_queued_when_its_arena_goes_is_done_all_the_same() {
    let Some(mut driver) = build(Driver::builder().entries(16)) else { return };
    let arena = paged_arena(128, 4096);
    let source = TestFile::new("queued-source", &pattern(1, 64 * 4096));
    let target = TestFile::new("queued-target", &[]);
    let (source, target) =
        (driver.add_file(source.open()).unwrap(), driver.add_file(target.open()).unwrap());
    let (ours, mut theirs) = tcp_pair();
    let socket = driver.add_file(ours).unwrap();
    let zero_copy = SendOptions::new().zero_copy_from(1);
    for _ in 0..3 {
        let id = driver.register(&arena).unwrap();
        assert_eq!(driver.arena(id).unwrap().mode(), RegistrationMode::Slots);
        for number in 0..20u64 {
            driver.read(source, arena.allocate().unwrap(), number * 4096).unwrap();
            driver.write(target, filled(&arena, &pattern(2, 4096)), number * 4096).unwrap();
            driver.send_with(socket, filled(&arena, &pattern(3, 4096)), zero_copy).unwrap();
        }
        driver.unregister_arena(id).unwrap();
        let mut left = 60;
        run(&mut driver, |event| {
            let (result, bytes) = match &event {
                Event::Read { result, buffer, offset, .. } => {
                    let from = *offset as usize;
                    assert_eq!(buffer[..], pattern(1, 64 * 4096)[from..from + 4096]);
                    (result, 4096)
                }
                Event::Wrote { result, .. } | Event::Sent { result, .. } => (result, 4096),
                other => panic!("{other:?}"),
            };
            assert_eq!(*result.as_ref().unwrap(), bytes);
            left -= 1;
            left == 0
        });
        let mut sent = vec![0; 20 * 4096];
        theirs.read_exact(&mut sent).unwrap();
        assert_eq!(sent, pattern(3, 4096).repeat(20));
    }
    finish(driver);
    assert_all_free(&arena);
}

/// Slots that lie ready in a ring.
fn published(driver: &Driver, ring: BufferRingId) -> usize {
    driver.ring_metrics(ring).unwrap().published
}

/// Receives a message into a ring, on a socket of its own that stays.
fn receive_hello(driver: &mut Driver, ring: BufferRingId) -> UnixStream {
    let (mut peer, socket) = UnixStream::pair().unwrap();
    driver.receive(ring, socket).unwrap();
    peer.write_all(b"hello").unwrap();
    run(driver, |event| matches!(event, Event::Received { bytes, .. } if bytes == "hello"));
    peer
}

#[test]
fn default_rings_share_an_arena_by_halves() {
    let (Some(mut first), Some(mut second)) = (driver(), driver()) else { return };
    let arena = arena(64, 64);
    let options = BufferRing::options;
    // Two in one driver, and one in another.
    let rings = [
        first.register_buffer_ring(&arena, options()).unwrap(),
        first.register_buffer_ring(&arena, options()).unwrap(),
    ];
    let third = second.register_buffer_ring(&arena, options()).unwrap();
    assert_eq!(rings.map(|ring| published(&first, ring)), [32, 16]);
    assert_eq!((published(&second, third), arena.slot_states().free), (8, 8));
    let held: Vec<_> = (0..8).map(|_| arena.allocate().unwrap()).collect();
    // Each receives, the last one as the first, though no slot is free.
    let mut peers: Vec<_> = rings.map(|ring| receive_hello(&mut first, ring)).into();
    peers.push(receive_hello(&mut second, third));
    drop(held);
    finish(first);
    finish(second);
    assert_all_free(&arena);
}

/// A default ring that was made in a full arena grows when it runs dry and slots are free.
#[test]
fn a_default_ring_grows_with_what_is_free() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(64, 64);
    let mut held: Vec<_> = (0..63).map(|_| arena.allocate().unwrap()).collect();
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    assert_eq!(published(&driver, ring), 1, "one at least");
    held.clear();
    let (mut peer, socket) = UnixStream::pair().unwrap();
    driver.receive(ring, socket).unwrap();
    for _ in 0..8 {
        peer.write_all(&[7; 64 * 8]).unwrap();
        let mut received = 0;
        run(&mut driver, |event| {
            let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
            received += bytes.len();
            received == 64 * 8
        });
    }
    driver.wait_timeout(Duration::ZERO).unwrap();
    assert_eq!(published(&driver, ring), 32);
    finish(driver);
    assert_all_free(&arena);
}
