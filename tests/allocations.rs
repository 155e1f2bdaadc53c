//! Heap allocations of the paths that promise a number, counted by the global allocator.
#![allow(unsafe_code)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::{BufMut, Bytes};
use uring_arena::{ArenaBytes, BuddyArena, BuildError, FixedArena, PageSize};

/// The system's allocator, with its calls counted.
struct Counted;

thread_local! {
    /// The allocations of this thread alone: the test harness has threads of its own.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    /// Their bytes.
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        let _ = BYTES.try_with(|bytes| bytes.set(bytes.get() + layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTED: Counted = Counted;

fn allocations_during(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

fn arena() -> FixedArena {
    support::arena(16, 4096)
}

#[test]
fn a_bytes_round_trip_allocates_once() {
    let arena = arena();
    let allocations = allocations_during(|| {
        let mut buffer = arena.allocate().unwrap();
        buffer.put_slice(b"hello");
        let bytes = buffer.freeze();
        let clone = bytes.clone();
        let slice = clone.slice(1..);
        drop((bytes, clone, slice));
    });
    assert_eq!(allocations, 1);
}

#[test]
fn an_arena_bytes_round_trip_never_allocates() {
    let arena = arena();
    let allocations = allocations_during(|| {
        let mut buffer = arena.allocate().unwrap();
        buffer.put_slice(b"hello");
        let mut bytes = buffer.freeze_in_place();
        let clone = bytes.clone();
        let front = bytes.split_to(2);
        drop((bytes, clone));
        let mut again: ArenaBytes = front.try_into_buffer().unwrap().into();
        let tail = again.split_off(1);
        drop((tail, again));
    });
    assert_eq!(allocations, 0);
}

#[test]
fn claims_batches_and_refusals_never_allocate() {
    let arena = arena();
    let mut buffers = Vec::with_capacity(16);
    let allocations = allocations_during(|| {
        drop(arena.allocate().unwrap());
        assert_eq!(arena.allocate_many(16, |buffer| buffers.push(buffer)), 16);
        assert!(arena.allocate().is_err());
        buffers.clear();
    });
    assert_eq!(allocations, 0);
}

#[test]
fn an_empty_bytes_never_allocates() {
    let arena = arena();
    let allocations =
        allocations_during(|| assert_eq!(arena.allocate().unwrap().freeze(), Bytes::new()));
    assert_eq!(allocations, 0);
}

#[cfg(all(feature = "io-uring", target_os = "linux"))]
#[test]
fn a_message_takes_one_allocation_as_bytes_and_none_in_place() {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use support::driver::{driver, finish};
    use uring_arena::{BufferRing, Event};

    const MESSAGES: usize = 1000;

    let Some(mut driver) = driver() else { return };
    let arena = support::arena(64, 512);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let mut pairs: Vec<_> = (0..8).map(|_| UnixStream::pair().unwrap()).collect();
    let mut senders = Vec::new();
    for (sender, socket) in pairs.drain(..) {
        driver.receive(ring, socket).unwrap();
        senders.push(sender);
    }
    for in_place in [false, true] {
        // The first round does not count: some memory is allocated once, at the first message.
        for counted in [false, true] {
            let mut received = 0;
            let before = ALLOCATIONS.get();
            while received < MESSAGES {
                for sender in &mut senders {
                    sender.write_all(&[7; 512]).unwrap();
                }
                driver.wait().unwrap();
                if in_place {
                    while let Some(event) = driver.next_arena_bytes() {
                        assert!(matches!(event, Event::Received { .. }));
                        received += 1;
                    }
                } else {
                    while let Some(event) = driver.next() {
                        assert!(matches!(event, Event::Received { .. }));
                        received += 1;
                    }
                }
            }
            let allocations = ALLOCATIONS.get() - before;
            if counted {
                assert_eq!(allocations, if in_place { 0 } else { received }, "{received} messages");
            }
        }
    }
    finish(driver);
    support::assert_all_free(&arena);
}

/// Pieces of many slots take one allocation each too, whatever their number of slots.
#[cfg(all(feature = "io-uring", target_os = "linux"))]
#[test]
fn a_piece_of_many_slots_takes_one_allocation() {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use support::driver::{driver, finish};
    use uring_arena::{BufferRing, Event};

    let Some(mut driver) = driver() else { return };
    let arena = support::paged_arena(1024, 4096);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let (mut sender, socket) = UnixStream::pair().unwrap();
    driver.receive(ring, socket).unwrap();
    let (message, mut bytes, mut pieces, mut long) = ([3; 128 << 10], 0, 0, 0);
    let mut before = 0;
    for round in 0..400 {
        // By then the entries are long, and what is allocated once is there.
        if round == 200 {
            (before, bytes, pieces) = (ALLOCATIONS.get(), 0, 0);
        }
        let mut left = sender.write(&message).unwrap();
        while left > 0 {
            driver.wait_timeout(support::TIMEOUT).unwrap();
            while let Some(event) = driver.next() {
                let Event::Received { bytes: piece, .. } = event else { panic!("{event:?}") };
                (left, bytes, pieces) = (left - piece.len(), bytes + piece.len(), pieces + 1);
                long += usize::from(piece.len() > 8 * 4096);
            }
        }
    }
    assert!(long > 100, "{long} long pieces of {pieces}, {bytes} bytes");
    assert_eq!(ALLOCATIONS.get() - before, pieces);
    finish(driver);
    support::assert_all_free(&arena);
}

/// Many connections of short messages, and a program that holds all: what is held ends at the
/// slots and the copies that may live, and so does the memory.
#[cfg(all(feature = "io-uring", target_os = "linux"))]
#[test]
fn short_messages_that_are_never_dropped_keep_memory_constant() {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use support::driver::{driver, finish, raise_descriptors};
    use uring_arena::{BufferRing, Event};

    const SOCKETS: usize = 512;
    const COPIES: usize = 32 << 10;

    if raise_descriptors(2 * SOCKETS as u64 + 64) < 2 * SOCKETS as u64 + 64 {
        return eprintln!("SKIPPED: too few descriptors for {SOCKETS} sockets");
    }
    let Some(mut driver) = driver() else { return };
    let arena = support::paged_arena(1024, 4096);
    let options = BufferRing::options().copied_bytes_max(COPIES);
    let ring = driver.register_buffer_ring(&arena, options).unwrap();
    let mut senders = Vec::new();
    for _ in 0..SOCKETS {
        let (sender, socket) = UnixStream::pair().unwrap();
        sender.set_nonblocking(true).unwrap();
        driver.receive(ring, socket).unwrap();
        senders.push(sender);
    }
    // Room for all that can come, so that the list itself does not grow.
    let most = arena.slot_count() + COPIES / 64;
    let mut held: Vec<Bytes> = Vec::with_capacity(most + SOCKETS);
    let (mut quiet_turns, mut allocated) = (0, 0);
    while quiet_turns < 200 {
        for sender in &mut senders {
            // Those that are full wait.
            let _ = sender.write(&[5; 64]);
        }
        driver.wait_timeout(Duration::from_millis(1)).unwrap();
        let before = held.len();
        while let Some(event) = driver.next() {
            let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
            held.push(bytes);
        }
        assert!(held.len() <= most, "{} pieces of at most {most}", held.len());
        assert!(arena.metrics().copied_bytes <= COPIES);
        if held.len() > before {
            (quiet_turns, allocated) = (0, BYTES.get());
        } else {
            quiet_turns += 1;
        }
    }
    let copied = driver.ring_metrics(ring).unwrap().copied;
    assert!(
        copied > 0 && held.len() > arena.slot_count() / 2,
        "{} held, {copied} copied",
        held.len()
    );
    let more = BYTES.get() - allocated;
    assert!(more < 64 << 10, "{more} bytes were allocated while nothing came");
    // As soon as there is room all go on.
    let before = held.len();
    held.clear();
    driver.wait_timeout(support::TIMEOUT).unwrap();
    while let Some(event) = driver.next() {
        assert!(matches!(event, Event::Received { .. }), "{event:?}");
        held.push(Bytes::new());
    }
    assert!(!held.is_empty(), "nothing goes on after {before} pieces were dropped");
    drop((held, senders));
    finish(driver);
    support::assert_all_free(&arena);
}

#[cfg(all(feature = "io-uring", target_os = "linux"))]
#[test]
fn the_tables_of_a_driver_cost_what_is_in_them() {
    use std::os::unix::net::UnixStream;

    use support::driver::{build, finish};
    use uring_arena::{BufferRing, Driver};

    let before = BYTES.get();
    let builder = Driver::builder().operations(16_000_000).completion_entries(65_536);
    let Some(mut driver) = build(builder) else { return };
    let built = BYTES.get() - before;
    assert!(built < 16 << 10, "{built} bytes for a driver without a single operation");
    let arena = support::paged_arena(64, 4096);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(8)).unwrap();
    driver.register(&arena).unwrap();
    let file = driver.add_file(UnixStream::pair().unwrap().0).unwrap();
    let before = BYTES.get();
    let mut peers = Vec::new();
    for _ in 0..32 {
        let (socket, peer) = UnixStream::pair().unwrap();
        driver.receive(ring, socket).unwrap();
        peers.push(peer);
        driver.read(file, arena.allocate().unwrap(), 0).unwrap();
    }
    let used = BYTES.get() - before;
    assert!(used < 64 << 10, "{used} bytes for 64 operations");
    finish(driver);
    support::assert_all_free(&arena);
}

/// More slots than an arena can have are refused before any table for them is made.
#[test]
fn too_many_slots_are_refused_before_anything_is_made() {
    let before = BYTES.get();
    for count in [1 << 25, 1 << 31, 1 << 40] {
        let built = FixedArena::with_sizes(count, 1).page_size(PageSize::Unknown).build();
        let BuildError::TooManySlots { requested, .. } = built.unwrap_err() else {
            panic!("{count} slots are no error of their number");
        };
        assert_eq!(requested, count);
        let built = BuddyArena::with_sizes(4 * count, 1).page_size(PageSize::Unknown).build();
        assert!(matches!(built.unwrap_err(), BuildError::TooManySlots { .. }));
    }
    let bytes = BYTES.get() - before;
    assert!(bytes < 1 << 16, "{bytes} bytes allocated to refuse");
}

/// Returns the bytes that the program holds for an idle connection of a pool, tokio's own apart.
#[cfg(feature = "tokio")]
fn bytes_of_an_idle_connection(engine: uring_arena::tokio::Engine) -> usize {
    use uring_arena::tokio::{Pool, Stream};

    const CONNECTIONS: usize = 400;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let pool = Pool::builder(arena()).engine(engine).build().unwrap();
        // tokio's part of each socket is there before.
        let pairs: Vec<_> =
            (0..CONNECTIONS).map(|_| tokio::net::UnixStream::pair().unwrap()).collect();
        let mut streams: Vec<(Stream, _)> = Vec::with_capacity(CONNECTIONS);
        let before = BYTES.get();
        for (near, far) in pairs {
            streams.push((pool.stream(near).unwrap(), far));
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let bytes = (BYTES.get() - before) / CONNECTIONS + size_of::<Stream>();
        assert_eq!(pool.metrics().connections, CONNECTIONS);
        bytes
    })
}

#[cfg(feature = "tokio")]
#[test]
fn an_idle_connection_takes_at_most_512_bytes() {
    use uring_arena::tokio::Engine;

    let bytes = bytes_of_an_idle_connection(Engine::Readiness);
    println!("readiness: {bytes} bytes a connection");
    assert!(bytes <= 512, "{bytes} bytes");
    if uring_arena::Probe::shared().is_ok() {
        println!("ring: {} bytes a connection", bytes_of_an_idle_connection(Engine::Ring));
    }
}
