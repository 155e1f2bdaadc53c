//! One list of cases, which every adapter passes: bytes over sockets and files, futures dropped at
//! every await, timeouts, starvation, the end of a runtime in odd orders, panics, threads.
//!
//! A case that an adapter cannot pass is a [`Limit`] of it, and a row of the table in
//! docs/integrations.md.

use std::future::poll_fn;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::adapters::*;
use crate::support::runtimes::Progress;
use crate::support::{TIMEOUT, TestFile, assert_all_free, nz, pattern, read_all, tcp_pair};
use bytes::{BufMut, Bytes};
use uring_arena::{FixedArena, SlotStates};

/// Defines the tests of one adapter: the list.
macro_rules! pass {
    ($module:ident, $adapter:ident: $($case:ident),*) => {
        mod $module {
            $(
                #[test]
                fn $case() {
                    super::watched(super::$case::<super::$adapter>);
                }
            )*
        }
    };
    ($module:ident, $adapter:ident) => {
        pass!($module, $adapter:
            bytes_arrive_whole_and_leave_the_thread,
            a_file_is_written_and_read,
            reads_append_and_what_cannot_be_is_refused,
            sends_arrive_whole_and_in_order_whatever_is_dropped,
            a_send_that_is_cut_resets_its_connection,
            a_receive_is_dropped_at_every_await,
            a_file_operation_is_dropped_at_every_await,
            every_read_times_out,
            more_streams_than_slots_are_all_served,
            a_slot_that_another_thread_frees_wakes_a_starved_stream,
            a_runtime_ends_in_every_order,
            a_runtime_ends_under_a_panic,
            a_task_panics_with_operations_in_flight,
            four_threads_share_an_arena
        );
    };
}

#[cfg(feature = "compio")]
pass!(compio, Compio);
#[cfg(feature = "compio")]
pass!(compio_by_our_block_on, CompioOurs);
#[cfg(feature = "monoio")]
pass!(monoio, Monoio);
#[cfg(feature = "tokio")]
pass!(tokio_task, TokioTask);
#[cfg(feature = "tokio")]
pass!(tokio_thread, TokioThread);
#[cfg(feature = "tokio")]
pass!(tokio_readiness, TokioReadiness);
#[cfg(feature = "tokio")]
pass!(tokio_workers, TokioWorkers);
#[cfg(feature = "tokio-uring")]
pass!(tokio_uring, TokioUring);

/// The time without progress after which a case counts as hanging.
const STALLED: Duration = Duration::from_secs(30);

/// Runs a case on a thread of its own, and tells a hang from slowness.
fn watched(case: fn(Progress)) {
    let progress = Progress::default();
    let (done, end) = channel();
    let watched = progress.clone();
    let thread = std::thread::spawn(move || {
        case(watched);
        done.send(()).unwrap();
    });
    let mut seen = progress.count();
    loop {
        match end.recv_timeout(STALLED) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let now = progress.count();
                assert!(now > seen, "hangs after {seen} steps");
                seen = now;
            }
        }
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn arena(slots: usize) -> Arena {
    FixedArena::with_slot_capacity(nz(slots), nz(4096)).alignment(4096).build_async().unwrap()
}

/// Runs a future on a runtime of its own, and ends the runtime.
fn run<A: Adapter, F: Future>(future: F) -> F::Output {
    let mut runtime = A::runtime();
    A::block_on(&mut runtime, future)
}

/// Waits on this thread until `is_so` returns `true`, or for [`TIMEOUT`]. What a runtime leaves to
/// a thread or to the kernel takes a while.
fn wait_until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !is_so() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn wait_until_all_free(arena: &Arena) {
    wait_until(|| arena.metrics().bytes_live == 0);
    assert_all_free(arena);
}

/// Waits until every slot is free or quarantined, and claims every free one.
#[track_caller]
fn wait_until_accounted(arena: &Arena) {
    let sum = |states: SlotStates| states.free + states.quarantined;
    wait_until(|| sum(arena.slot_states()) == arena.slot_count());
    let states = arena.slot_states();
    assert_eq!(sum(states), arena.slot_count(), "{states:?}");
    assert_eq!(arena.metrics().quarantined as usize, states.quarantined);
    let mut claimed = Vec::new();
    assert_eq!(arena.allocate_many(states.total(), |buffer| claimed.push(buffer)), states.free);
}

/// Writes bytes to a connection on a thread of its own, in pieces of many lengths, and ends it.
fn feed(mut to: TcpStream, bytes: Vec<u8>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let piece = rest.len().min(1 + bytes.len() % 977 + rest.len() % 5000);
            to.write_all(&rest[..piece]).unwrap();
            rest = &rest[piece..];
        }
        to.shutdown(Shutdown::Write).unwrap();
    })
}

/// Sends the bytes that it receives back, and returns them.
async fn echo<A: Adapter>(connection: &mut A::Connection, progress: &Progress) -> Vec<Bytes> {
    let mut parts = Vec::new();
    A::send_all(connection, Bytes::new()).await.unwrap();
    while let Some(bytes) = A::receive(connection).await.unwrap() {
        progress.step();
        A::send_all(connection, bytes.clone()).await.unwrap();
        if parts.len() < 4 {
            parts.push(bytes);
        }
    }
    parts
}

fn bytes_arrive_whole_and_leave_the_thread<A: Adapter>(progress: Progress) {
    let arena = arena(32);
    run::<A, _>(async {
        let session = A::attach(&arena);
        let mut peers = Vec::new();
        let mut tasks = Vec::new();
        for id in 0..4 {
            let (near, far) = tcp_pair();
            let expected = pattern(id, 100_000 + id);
            let feeding = feed(far.try_clone().unwrap(), expected.clone());
            let reading = std::thread::spawn(move || read_all(far));
            peers.push((feeding, reading, expected.clone()));
            let mut connection = A::connection(&session, near);
            let progress = progress.clone();
            tasks.push(A::spawn(async move {
                let parts = echo::<A>(&mut connection, &progress).await;
                // The first parts leave the thread, and are dropped there.
                let elsewhere = std::thread::spawn(move || {
                    let first = parts.concat();
                    assert!(first == expected[..first.len()]);
                });
                elsewhere.join().unwrap();
            }));
        }
        for task in tasks {
            assert!(task.await);
        }
        for (feeding, reading, expected) in peers {
            join::<A, _>(feeding).await;
            assert!(join::<A, _>(reading).await == expected);
        }
        A::drain(session).await;
    });
    wait_until_all_free(&arena);
}

fn a_file_is_written_and_read<A: Adapter>(progress: Progress) {
    let arena = arena(4);
    let path = TestFile::new("cases", b"");
    let expected = pattern(7, 50_000);
    run::<A, _>(async {
        let session = A::attach(&arena);
        let file = A::file(&session, path.open());
        for (at, chunk) in expected.chunks(4096).enumerate() {
            let mut buffer = arena.allocate_async().await;
            buffer.put_slice(chunk);
            A::write_at(&file, buffer.freeze(), at as u64 * 4096).await.unwrap();
            progress.step();
        }
        for (at, chunk) in expected.chunks(4096).enumerate() {
            let buffer = arena.allocate_async().await;
            let buffer = A::read_at(&file, buffer, at as u64 * 4096).await.unwrap();
            assert!(buffer.freeze() == chunk);
            progress.step();
        }
        let beyond = A::read_at(&file, arena.allocate_async().await, 1 << 20).await.unwrap();
        assert!(beyond.is_empty());
        // A directory cannot be read, and the slot is free.
        let directory = A::file(&session, std::fs::File::open(".").unwrap());
        let error = A::read_at(&directory, arena.allocate_async().await, 0).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EISDIR));
        drop((file, directory, beyond));
        A::drain(session).await;
    });
    wait_until_all_free(&arena);
}

fn reads_append_and_what_cannot_be_is_refused<A: Adapter>(_: Progress) {
    if A::has(Limit::ReadsOverwrite) {
        return;
    }
    let arena = arena(4);
    let path = TestFile::new("append", &pattern(8, 10_000));
    let expected = pattern(8, 10_000);
    run::<A, _>(async {
        let session = A::attach(&arena);
        let file = A::file(&session, path.open());
        let mut buffer = arena.allocate_async().await;
        buffer.put_slice(b"head");
        let buffer = A::read_at(&file, buffer, 5908).await.unwrap();
        assert_eq!((&buffer[..4], buffer.len()), (&b"head"[..], 4096));
        assert_eq!(buffer[4..], expected[5908..]);
        let refused = A::read_at(&file, buffer, 0).await.unwrap_err();
        assert!(refused.to_string().contains("4096 bytes are all written"), "{refused}");
        if !A::IS_POOL {
            for offset in [u64::MAX, u64::MAX - 4096, i64::MAX as u64, i64::MAX as u64 - 4095] {
                let buffer = arena.allocate_async().await;
                let refused = A::read_at(&file, buffer, offset).await.unwrap_err();
                assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
                assert!(refused.to_string().contains(&offset.to_string()), "{refused}");
                let refused = A::write_at(&file, Bytes::from(vec![7; 4096]), offset).await;
                assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
            }
        }
        drop(file);
        A::drain(session).await;
    });
    wait_until_all_free(&arena);
    assert_eq!(read_all(path.open()), expected);
}

/// The number of polls after which a future counts as endless: more than any here takes.
const POLLS_MAX: usize = 50;

/// Checks that the pieces of `len` bytes came whole, each of one number, in order.
fn assert_whole(all: &[u8], len: usize) -> Vec<u8> {
    assert_eq!(all.len() % len, 0, "a send was cut");
    let is_whole = |piece: &[u8]| piece.iter().all(|&byte| byte == piece[0]);
    assert!(all.chunks(len).all(is_whole), "two sends are mixed");
    let pieces: Vec<u8> = all.chunks(len).map(|piece| piece[0]).collect();
    assert!(pieces.is_sorted(), "{pieces:?}");
    pieces
}

/// Drops sends at every await, and ones that wait for their turn. The peer reads late: so the first
/// ones fill the socket, and are in the middle when they are dropped.
fn sends_arrive_whole_and_in_order_whatever_is_dropped<A: Adapter>(progress: Progress) {
    const LEN: usize = 512 << 10;

    // monoio leaves a socket that is set not to block to its user.
    let modes = if A::has(Limit::DroppedSendsAreCut) { &[false][..] } else { &[false, true] };
    for &is_nonblocking in modes {
        let arena = FixedArena::with_slot_capacity(nz(16), nz(LEN)).build_async().unwrap();
        let all = run::<A, _>(async {
            let session = A::attach(&arena);
            let (near, far) = tcp_pair();
            near.set_nonblocking(is_nonblocking).unwrap();
            let mut connection = A::connection(&session, near);
            let reading = drop_sends::<A>(&arena, &mut connection, far, &progress).await;
            until::<A>("nothing is sent", || arena.metrics().bytes_live <= 2 * LEN).await;
            drop(connection);
            A::drain(session).await;
            reading
        });
        let all = all.join().unwrap();
        if !A::has(Limit::DroppedSendsAreCut) {
            let pieces = assert_whole(&all, LEN);
            assert!(!pieces.contains(&0) && !pieces.contains(&100), "never begun: {pieces:?}");
        }
        wait_until_all_free(&arena);
    }
}

/// Sends slots of one byte each, and drops most of the sends. Returns the thread that reads.
async fn drop_sends<A: Adapter>(
    arena: &Arena,
    connection: &mut A::Connection,
    far: TcpStream,
    progress: &Progress,
) -> JoinHandle<Vec<u8>> {
    let filled = |byte: u8| {
        let mut buffer = arena.allocate().unwrap();
        buffer.put_bytes(byte, buffer.capacity());
        buffer.freeze()
    };
    for polls in 0..8u8 {
        let send = A::send_all(connection, filled(polls));
        let send = dropped_after::<A, _>(polls.into(), send);
        let sent = timeout::<A, _>(Duration::from_millis(20), send).await.flatten();
        sent.transpose().unwrap();
        progress.step();
    }
    let reading = std::thread::spawn(move || read_all(far));
    if A::has(Limit::DroppedSendsAreCut) {
        return reading;
    }
    for polls in 0..POLLS_MAX {
        let send = A::send_all(connection, filled(100 + polls as u8));
        if dropped_after::<A, _>(polls, send).await.transpose().unwrap().is_some() {
            return reading;
        }
    }
    panic!("no send finishes");
}

/// Cuts sends to a peer that does not read: by the end of the runtime, and by `drain` after the
/// future was dropped. The peer must not take the part for the whole.
fn a_send_that_is_cut_resets_its_connection<A: Adapter>(progress: Progress) {
    const LEN: usize = 16 << 20;

    if A::IS_POOL || A::has(Limit::DroppedSendsAreCut) {
        return;
    }
    for (is_dropped, drains) in [(false, false), (true, false), (true, true)] {
        let arena = FixedArena::with_slot_capacity(nz(4), nz(LEN)).build_async().unwrap();
        let (near, mut far) = tcp_pair();
        run::<A, _>(async {
            let session = A::attach(&arena);
            let mut connection = A::connection(&session, near);
            let mut buffer = arena.allocate().unwrap();
            buffer.put_bytes(7, LEN);
            let bytes = buffer.freeze();
            if is_dropped {
                let send = A::send_all(&mut connection, bytes);
                let sent = timeout::<A, _>(Duration::from_millis(20), send).await;
                assert!(sent.is_none(), "the peer takes everything");
                drop(connection);
            } else {
                let sending =
                    A::spawn(async move { drop(A::send_all(&mut connection, bytes).await) });
                A::sleep(Duration::from_millis(20)).await;
                drop(sending);
            }
            if drains {
                let drained = timeout::<A, _>(TIMEOUT, A::drain(session)).await;
                drained.expect("drain hangs");
            }
        });
        progress.step();
        let mut received = Vec::new();
        let end = std::io::Read::read_to_end(&mut far, &mut received);
        let error = end.expect_err("the part looks like the whole");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert!(received.len() < LEN && received.iter().all(|&byte| byte == 7));
    }
}

/// A thread that writes sevens to a connection, a message every few milliseconds, until it is
/// dropped. Reads get bytes whatever dropped reads swallow.
struct Sevens(Option<JoinHandle<()>>, Arc<AtomicBool>);

impl Sevens {
    fn begin(mut to: TcpStream) -> Sevens {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                to.write_all(&[7; 1000]).unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Sevens(Some(thread), stop)
    }
}

impl Drop for Sevens {
    fn drop(&mut self) {
        self.1.store(true, Ordering::Relaxed);
        self.0.take().unwrap().join().unwrap();
    }
}

fn a_receive_is_dropped_at_every_await<A: Adapter>(progress: Progress) {
    let arena = arena(8);
    run::<A, _>(async {
        let session = A::attach(&arena);
        let (near, mut far) = tcp_pair();
        let mut connection = A::connection(&session, near);
        let (mut expected, mut received) = (Vec::new(), Vec::new());
        let sevens =
            A::has(Limit::DroppedReadsSwallow).then(|| Sevens::begin(far.try_clone().unwrap()));
        let mut has_finished = false;
        for polls in 0..POLLS_MAX {
            if sevens.is_none() {
                let message = pattern(polls, 1000 + polls);
                far.write_all(&message).unwrap();
                expected.extend(message);
            }
            if let Some(bytes) = dropped_after::<A, _>(polls, A::receive(&mut connection)).await {
                received.extend_from_slice(&bytes.unwrap().expect("the peer goes on"));
                has_finished = true;
                break;
            }
            progress.step();
        }
        assert!(has_finished);
        let swallows = sevens.is_some();
        drop(sevens);
        far.shutdown(Shutdown::Write).unwrap();
        while let Some(bytes) = A::receive(&mut connection).await.unwrap() {
            received.extend_from_slice(&bytes);
        }
        if swallows {
            assert!(received.iter().all(|&byte| byte == 7));
        } else {
            assert!(received == expected);
        }
        drop(connection);
        A::drain(session).await;
    });
    wait_until_all_free(&arena);
}

fn a_file_operation_is_dropped_at_every_await<A: Adapter>(progress: Progress) {
    let arena = arena(4);
    let path = TestFile::new("dropped", &[7; 4096]);
    run::<A, _>(async {
        let session = A::attach(&arena);
        let file = A::file(&session, path.open());
        let is_idle = || arena.metrics().bytes_live <= 2 * 4096;
        for is_read in [true, false] {
            let mut has_finished = false;
            for polls in 0..POLLS_MAX {
                let mut buffer = arena.allocate_async().await;
                let finished = if is_read {
                    let read = dropped_after::<A, _>(polls, A::read_at(&file, buffer, 0)).await;
                    read.map(|buffer| assert_eq!(buffer.unwrap()[..], [7; 4096]))
                } else {
                    buffer.put_bytes(7, 4096);
                    let write = A::write_at(&file, buffer.freeze(), 0);
                    dropped_after::<A, _>(polls, write).await.map(Result::unwrap)
                };
                // The kernel is done soon, and the slot is free without anybody's help.
                until::<A>("the slot of a dropped operation is free", is_idle).await;
                progress.step();
                if finished.is_some() {
                    has_finished = true;
                    break;
                }
            }
            assert!(has_finished);
        }
        drop(file);
        A::drain(session).await;
    });
    wait_until_all_free(&arena);
    assert_eq!(read_all(path.open()), [7; 4096]);
}

/// Lets every read time out, more often than there are slots, and then goes on reading.
fn every_read_times_out<A: Adapter>(progress: Progress) {
    let arena = arena(4);
    run::<A, _>(async {
        let session = A::attach(&arena);
        let (near, far) = tcp_pair();
        let mut connection = A::connection(&session, near);
        for _ in 0..12 {
            let reading = A::receive(&mut connection);
            let answer = timeout::<A, _>(Duration::from_millis(3), reading).await;
            assert!(answer.is_none(), "{answer:?}");
            progress.step();
        }
        if !A::has(Limit::DroppedReadsWaitForThePeer) {
            // The runtime lives, the peer is silent, and the slots are back.
            until::<A>("the slots are back", || arena.metrics().bytes_live <= 2 * 4096).await;
        }
        assert_eq!(arena.metrics().quarantined, 0);
        // The peer goes on, and so does the stream.
        let sevens = Sevens::begin(far.try_clone().unwrap());
        let reading = A::receive(&mut connection);
        let bytes = timeout::<A, _>(TIMEOUT, reading).await.expect("never woken").unwrap();
        assert!(bytes.unwrap().iter().all(|&byte| byte == 7));
        drop(sevens);
        drop((connection, far));
        A::drain(session).await;
    });
    wait_until_all_free(&arena);
}

fn more_streams_than_slots_are_all_served<A: Adapter>(progress: Progress) {
    const STREAMS: usize = 24;

    let arena = arena(3);
    run::<A, _>(async {
        let session = A::attach(&arena);
        let mut tasks = Vec::new();
        let mut peers = Vec::new();
        for id in 0..STREAMS {
            let (near, far) = tcp_pair();
            let expected = pattern(id, 10_000);
            peers.push(feed(far, expected.clone()));
            let mut connection = A::connection(&session, near);
            let progress = progress.clone();
            tasks.push(A::spawn(async move {
                let mut received = Vec::new();
                while let Some(bytes) = A::receive(&mut connection).await.unwrap() {
                    // Held for a while, so that others starve.
                    A::sleep(Duration::from_micros(100)).await;
                    received.extend_from_slice(&bytes);
                    progress.step();
                }
                assert!(received == expected);
            }));
        }
        for task in tasks {
            assert!(task.await);
        }
        for peer in peers {
            join::<A, _>(peer).await;
        }
        A::drain(session).await;
    });
    wait_until_all_free(&arena);
}

fn a_slot_that_another_thread_frees_wakes_a_starved_stream<A: Adapter>(progress: Progress) {
    let arena = arena(3);
    run::<A, _>(async {
        let session = A::attach(&arena);
        let (near, mut far) = tcp_pair();
        let mut connection = A::connection(&session, near);
        for _ in 0..3 {
            let mut held = Vec::new();
            for _ in 0..3 {
                far.write_all(b"held").unwrap();
                held.push(A::receive(&mut connection).await.unwrap().unwrap());
            }
            far.write_all(b"late").unwrap();
            let early =
                timeout::<A, _>(Duration::from_millis(10), poll_fn(|_| Poll::Pending::<()>));
            assert!(early.await.is_none());
            assert!(arena.allocate().is_err(), "somebody has a slot");
            let freeing = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                drop(held);
            });
            let bytes = timeout::<A, _>(TIMEOUT, A::receive(&mut connection)).await;
            assert_eq!(bytes.expect("never woken").unwrap().unwrap(), "late");
            join::<A, _>(freeing).await;
            progress.step();
        }
        drop((connection, far));
        A::drain(session).await;
    });
    wait_until_all_free(&arena);
}

/// A value that a program may drop at any place in the order.
enum Thing<A: Adapter> {
    Runtime(A::Runtime),
    Session(A::Session),
    Connection(A::Connection),
    /// Bytes that were received.
    Bytes {
        _bytes: Bytes,
    },
    /// The peer of a connection that a task receives from.
    Peer {
        _peer: TcpStream,
    },
}

/// Sets a runtime up with everything in flight, and returns its parts.
fn parts<A: Adapter>(arena: &Arena) -> Vec<Thing<A>> {
    let mut runtime = A::runtime();
    let (session, connection, bytes, far) = A::block_on(&mut runtime, async {
        let session = A::attach(arena);
        let (near, mut far) = tcp_pair();
        let mut connection = A::connection(&session, near);
        far.write_all(b"hello").unwrap();
        let bytes = A::receive(&mut connection).await.unwrap().unwrap();
        // A receive of a task, which waits; one that was dropped; a read of a file in the middle.
        let (near, silent) = tcp_pair();
        let mut waiting = A::connection(&session, near);
        drop(A::spawn(async move { drop(A::receive(&mut waiting).await) }));
        assert!(dropped_after::<A, _>(1, A::receive(&mut connection)).await.is_none());
        let file = A::file(&session, std::fs::File::open("Cargo.toml").unwrap());
        if let Ok(buffer) = arena.allocate() {
            let _ = dropped_after::<A, _>(1, A::read_at(&file, buffer, 0)).await;
        }
        (session, connection, bytes, (far, silent))
    });
    vec![
        Thing::Runtime(runtime),
        Thing::Session(session),
        Thing::Connection(connection),
        Thing::Bytes { _bytes: bytes },
        Thing::Peer { _peer: far.0 },
        Thing::Peer { _peer: far.1 },
    ]
}

fn a_runtime_ends_in_every_order<A: Adapter>(progress: Progress) {
    // Every order of the first four; the peers go last, first, and in between.
    for order in 0..24 {
        let arena = arena(8);
        let mut parts = parts::<A>(&arena);
        let mut peers = parts.split_off(4);
        let (mut radix, mut rest) = (4, order);
        if order % 3 == 0 {
            peers.clear();
        }
        while !parts.is_empty() {
            drop(parts.remove(rest % radix));
            rest /= radix;
            radix -= 1;
            if order % 3 == 1 {
                peers.pop();
            }
        }
        drop(peers);
        if !A::has(Limit::TasksOutliveTheRuntime) {
            wait_until_accounted(&arena);
        }
        progress.step();
    }
}

/// Ends a runtime while its thread unwinds: tasks may be leaked then, and prove nothing.
fn a_runtime_ends_under_a_panic<A: Adapter>(progress: Progress) {
    for _ in 0..3 {
        let arena = arena(8);
        let panic = catch_unwind(AssertUnwindSafe(|| {
            let _parts = parts::<A>(&arena);
            panic!("on purpose");
        }));
        assert!(panic.is_err());
        // Whatever is lost, the rest is of use.
        let mut claimed = Vec::new();
        arena.allocate_many(8, |buffer| claimed.push(buffer));
        assert!(!claimed.is_empty());
        drop(claimed);
        // The next runtime of this thread has nothing to do with it.
        let next = self::arena(4);
        run::<A, _>(async {
            let session = A::attach(&next);
            let (near, mut far) = tcp_pair();
            let mut connection = A::connection(&session, near);
            far.write_all(b"hello").unwrap();
            assert_eq!(A::receive(&mut connection).await.unwrap().unwrap(), "hello");
            drop(connection);
            A::drain(session).await;
        });
        wait_until_all_free(&next);
        progress.step();
    }
}

fn a_task_panics_with_operations_in_flight<A: Adapter>(progress: Progress) {
    if A::has(Limit::PanicsEndTheRuntime) {
        return;
    }
    let arena = arena(8);
    run::<A, _>(async {
        let session = A::attach(&arena);
        let (near, mut far) = tcp_pair();
        let mut neighbour = A::connection(&session, near);
        for round in 0..3u8 {
            let (near, silent) = tcp_pair();
            let (mut connection, file) = (
                A::connection(&session, near),
                A::file(&session, std::fs::File::open("Cargo.toml").unwrap()),
            );
            let buffer = arena.allocate_async().await;
            let panicking = A::spawn(async move {
                let mut reading = pin!(A::read_at(&file, buffer, 0));
                let mut receiving = pin!(A::receive(&mut connection));
                poll_fn(|context| {
                    let _ = reading.as_mut().poll(context);
                    let _ = receiving.as_mut().poll(context);
                    Poll::Ready(())
                })
                .await;
                panic!("on purpose");
            });
            assert!(!panicking.await);
            far.write_all(&[round]).unwrap();
            let bytes = timeout::<A, _>(TIMEOUT, A::receive(&mut neighbour)).await;
            assert_eq!(bytes.expect("never woken").unwrap().unwrap(), [round][..]);
            drop(silent);
            until::<A>("the slots are back", || arena.metrics().bytes_live <= 2 * 4096).await;
            progress.step();
        }
        drop(neighbour);
        A::drain(session).await;
    });
    wait_until_all_free(&arena);
}

fn four_threads_share_an_arena<A: Adapter>(progress: Progress) {
    let arena = arena(24);
    let mut threads = Vec::new();
    for thread in 0..4 {
        let (arena, progress) = (arena.clone(), progress.clone());
        threads.push(std::thread::spawn(move || {
            let (parts, received) = channel::<(usize, Bytes)>();
            // Bytes are compared, and freed, on yet another thread.
            let checker = std::thread::spawn(move || {
                let mut all = vec![Vec::new(); 3];
                received.into_iter().for_each(|(id, bytes)| all[id].extend_from_slice(&bytes));
                all
            });
            let expected: Vec<_> = (0..3).map(|id| pattern(10 * thread + id, 60_000)).collect();
            run::<A, _>(async {
                let session = A::attach(&arena);
                let mut tasks = Vec::new();
                for (id, expected) in expected.iter().enumerate() {
                    let (near, far) = tcp_pair();
                    let feeding = feed(far, expected.clone());
                    let mut connection = A::connection(&session, near);
                    let (parts, progress) = (parts.clone(), progress.clone());
                    let task = A::spawn(async move {
                        while let Some(bytes) = A::receive(&mut connection).await.unwrap() {
                            parts.send((id, bytes)).unwrap();
                            progress.step();
                        }
                    });
                    tasks.push((task, feeding));
                }
                for (task, feeding) in tasks {
                    assert!(task.await);
                    join::<A, _>(feeding).await;
                }
                drop(parts);
                A::drain(session).await;
            });
            assert!(checker.join().unwrap() == expected);
        }));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    wait_until_all_free(&arena);
}

/// Checks that the table of integrations states every limit, and no more.
#[test]
fn the_table_states_every_limit() {
    fn check<A: Adapter>(table: &[Vec<&str>]) {
        let column = table[0].iter().position(|cell| *cell == A::COLUMN).expect(A::COLUMN);
        for (limit, name) in Limit::ROWS {
            let row = table.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("{name}"));
            let is_limit = row[column].starts_with('–');
            assert_eq!(is_limit, A::has(limit), "{name}, {}: {}", A::COLUMN, row[column]);
        }
    }

    let page = include_str!("../../docs/integrations.md");
    let page = page.split("## What each allows").nth(1).expect("the page has the table");
    let lines = page.lines().filter(|line| line.starts_with('|'));
    let table: Vec<Vec<&str>> =
        lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect();
    #[cfg(feature = "compio")]
    check::<Compio>(&table);
    #[cfg(feature = "monoio")]
    check::<Monoio>(&table);
    #[cfg(feature = "tokio")]
    check::<TokioTask>(&table);
    #[cfg(feature = "tokio-uring")]
    check::<TokioUring>(&table);
}
