//! The sends of a tokio pool: queued whole, in order, bounded; and told when the connection fails.

use std::future::Future;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use crate::support::runtimes::Outcome;
use crate::support::tokio::{
    RingsOnly, narrow_pair, read_to_the_end, runtimes, settings, tcp_pair, until, until_all_free,
};
use crate::support::{Random, TIMEOUT, paged_arena, pattern};
use bytes::{BufMut, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};
use uring_arena::tokio::{Engine, Pool, SendHalf};
use uring_arena::{FixedArena, SendOptions};

/// A time after which a future that is not ready waits for the peer.
const SHORT: Duration = Duration::from_millis(30);

/// More than a narrow connection holds, and less than a queue takes.
const MANY: usize = 600_000;

fn arena() -> FixedArena {
    paged_arena(64, 65536)
}

/// A piece of memory that says when it is dropped.
struct Counted(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

fn counted(bytes: Vec<u8>, live: &Arc<AtomicUsize>) -> Bytes {
    live.fetch_add(1, Ordering::SeqCst);
    Bytes::from_owner(Counted(bytes, Arc::clone(live)))
}

/// Sends `bytes` in pieces, and returns when all of it is queued.
async fn send_in_pieces(half: &SendHalf, bytes: &[u8], piece: usize) {
    for piece in bytes.chunks(piece) {
        let sent = timeout(TIMEOUT, half.send(Bytes::copy_from_slice(piece))).await;
        sent.expect("there is room").unwrap();
    }
}

/// Fails unless every call tells of a failure, with the same kind each time.
async fn assert_failed(half: &mut SendHalf, kind: ErrorKind) {
    for _ in 0..2 {
        let sent = timeout(TIMEOUT, half.send(Bytes::from_static(b"late"))).await.unwrap();
        assert_eq!(sent.unwrap_err().kind(), kind);
        assert_eq!(timeout(TIMEOUT, half.reserve(1)).await.unwrap().unwrap_err().kind(), kind);
        assert_eq!(timeout(TIMEOUT, half.flush()).await.unwrap().unwrap_err().kind(), kind);
        let wrote = timeout(TIMEOUT, half.write_all(b"late")).await.unwrap();
        assert_eq!(wrote.unwrap_err().kind(), kind);
        assert_eq!(timeout(TIMEOUT, half.shutdown()).await.unwrap().unwrap_err().kind(), kind);
    }
}

#[test]
fn sends_are_ready_when_they_are_queued_and_arrive_in_order() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = arena();
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let (near, far) = tcp_pair().await;
            let (incoming, outgoing) = pool.split(near)?;
            let expected = pattern(1, 3_000_000);
            let reader = tokio::spawn(read_to_the_end(far));
            let (mut rest, mut random) = (&expected[..], Random::new(1));
            while !rest.is_empty() {
                let len = (1 + random.below(60_000) as usize).min(rest.len());
                let (piece, behind) = rest.split_at(len);
                rest = behind;
                let options = SendOptions::new().zero_copy_from(1 << random.below(20));
                let sent = match pool.try_allocate() {
                    Ok(mut buffer) if random.one_in(2) => {
                        buffer.put_slice(piece);
                        timeout(TIMEOUT, outgoing.send_with(buffer, options)).await
                    }
                    _ => timeout(TIMEOUT, outgoing.send(Bytes::copy_from_slice(piece))).await,
                };
                sent??;
            }
            drop((incoming, outgoing));
            let (received, was_reset) = reader.await?;
            assert!(received == expected && !was_reset);
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// The peer does not read until all futures are dropped.
#[test]
fn a_send_that_is_dropped_while_it_waits_leaves_no_hole() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = arena();
        runtime.block_on(async {
            let pool =
                Pool::builder(arena.clone()).engine(engine).send_bytes_max(10_000).build()?;
            let (near, far) = narrow_pair().await;
            let (incoming, outgoing) = pool.split(near)?;
            let live = Arc::new(AtomicUsize::new(0));
            let first = pattern(2, MANY);
            outgoing.send(counted(first.clone(), &live)).await?;
            for polls in 0..5 {
                for len in [0, 1, 100, 20_000] {
                    let mut waiting = Box::pin(outgoing.send(counted(vec![b'B'; len], &live)));
                    for _ in 0..polls {
                        let ready = timeout(SHORT / 10, &mut waiting).await;
                        assert!(ready.is_err(), "{len} bytes were queued without room");
                    }
                    drop(waiting);
                    assert_eq!(live.load(Ordering::SeqCst), 1, "dropped whole, at once");
                }
            }
            let reader = tokio::spawn(read_to_the_end(far));
            timeout(TIMEOUT, outgoing.send(counted(b"CCCC".to_vec(), &live))).await??;
            drop((incoming, outgoing));
            let (received, was_reset) = reader.await?;
            assert!(received.starts_with(&first) && !was_reset);
            assert_eq!(received[MANY..], *b"CCCC", "a hole in the stream");
            until("all memory is free", || live.load(Ordering::SeqCst) == 0).await;
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

#[test]
fn what_is_queued_arrives_whatever_is_dropped() -> Outcome {
    for (runtime, engine) in settings() {
        for order in 0..3 {
            let arena = arena();
            runtime.block_on(async {
                let pool = Pool::builder(arena.clone()).engine(engine).build()?;
                let (near, far) = narrow_pair().await;
                let (incoming, outgoing) = pool.split(near)?;
                let expected = pattern(order, MANY);
                send_in_pieces(&outgoing, &expected, 30_000).await;
                // The flush is dropped as well.
                assert!(timeout(SHORT, outgoing.flush()).await.is_err());
                match order {
                    0 => drop((outgoing, incoming, pool)),
                    1 => drop((pool, incoming, outgoing)),
                    _ => drop((incoming, outgoing)),
                }
                sleep(SHORT).await;
                let (received, was_reset) = read_to_the_end(far).await;
                assert!(received == expected && !was_reset);
                Ok::<_, Box<dyn std::error::Error>>(())
            })?;
            runtime.block_on(until_all_free(&arena));
        }
    }
    Ok(())
}

#[test]
fn a_shutdown_that_is_begun_sends_the_end_behind_what_is_queued() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = arena();
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let (near, far) = narrow_pair().await;
            let (incoming, mut outgoing) = pool.split(near)?;
            let expected = pattern(4, MANY);
            send_in_pieces(&outgoing, &expected, 30_000).await;
            // Dropped before it was ready: it goes on.
            assert!(timeout(SHORT, outgoing.shutdown()).await.is_err());
            let late = outgoing.send(Bytes::from_static(b"late")).await.unwrap_err();
            assert_eq!(late.kind(), ErrorKind::BrokenPipe);
            let reader = tokio::spawn(read_to_the_end(far));
            timeout(TIMEOUT, outgoing.shutdown()).await??;
            let (received, was_reset) = reader.await?;
            assert!(received == expected && !was_reset);
            drop((incoming, outgoing));
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

#[test]
fn a_pool_that_is_shut_down_first_resets_and_says_so() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = arena();
        runtime.block_on(async {
            let pool =
                Pool::builder(arena.clone()).engine(engine).send_bytes_max(2 * MANY).build()?;
            let (near, far) = narrow_pair().await;
            let (mut incoming, mut outgoing) = pool.split(near)?;
            let live = Arc::new(AtomicUsize::new(0));
            let expected = pattern(5, MANY);
            outgoing.send(counted(expected.clone(), &live)).await?;
            let report = timeout(TIMEOUT, pool.clone().shutdown()).await??;
            assert_eq!((report.in_flight, report.quarantined), (0, 0));
            assert_eq!(live.load(Ordering::SeqCst), 0, "the memory is free");
            assert_failed(&mut outgoing, ErrorKind::BrokenPipe).await;
            let (received, was_reset) = read_to_the_end(far).await;
            assert!(was_reset && expected.starts_with(&received), "{} bytes", received.len());
            assert!(timeout(TIMEOUT, incoming.try_next()).await?.is_err());
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

#[test]
fn a_runtime_that_ends_first_resets_and_a_half_that_is_kept_says_so() -> Outcome {
    for kind in 0..settings().count() {
        for is_kept in [false, true] {
            let (runtime, engine) = settings().nth(kind).unwrap();
            let arena = arena();
            let (half, pool, far) = runtime.block_on(async {
                let pool = Pool::builder(arena.clone()).engine(engine).build()?;
                let (near, far) = narrow_pair().await;
                let (_incoming, outgoing) = pool.split(near)?;
                send_in_pieces(&outgoing, &pattern(6, MANY), 30_000).await;
                Ok::<_, Box<dyn std::error::Error>>((outgoing, pool, far.into_std()?))
            })?;
            let half = is_kept.then_some(half);
            drop(runtime);
            let [other, _] = runtimes();
            other.block_on(async {
                let (received, was_reset) = read_to_the_end(TcpStream::from_std(far)?).await;
                assert!(was_reset && pattern(6, MANY).starts_with(&received));
                if let Some(mut half) = half {
                    let sent = timeout(TIMEOUT, half.send(Bytes::from_static(b"late"))).await?;
                    assert_eq!(sent.unwrap_err().kind(), ErrorKind::BrokenPipe);
                    let shut = timeout(TIMEOUT, half.shutdown()).await?;
                    assert_eq!(shut.unwrap_err().kind(), ErrorKind::BrokenPipe);
                }
                drop(pool);
                until_all_free(&arena).await;
                Ok::<_, Box<dyn std::error::Error>>(())
            })?;
        }
    }
    Ok(())
}

/// A connection without anything left to send ends in order: what was sent is not lost to a reset.
#[test]
fn what_was_flushed_arrives_though_pool_or_runtime_end() -> Outcome {
    for kind in 0..settings().count() {
        for ended in ["runtime", "pool"] {
            let (runtime, engine) = settings().nth(kind).unwrap();
            let arena = arena();
            let expected = pattern(7, 100_000);
            let (half, far) = runtime.block_on(async {
                let pool = Pool::builder(arena.clone()).engine(engine).build()?;
                let (near, far) = tcp_pair().await;
                let (_incoming, outgoing) = pool.split(near)?;
                send_in_pieces(&outgoing, &expected, 9000).await;
                timeout(TIMEOUT, outgoing.flush()).await??;
                if ended == "pool" {
                    timeout(TIMEOUT, pool.shutdown()).await??;
                }
                Ok::<_, Box<dyn std::error::Error>>((outgoing, far.into_std()?))
            })?;
            // While the pool is there the half keeps the connection open.
            let half = (ended == "pool").then_some(half);
            drop(runtime);
            let [other, _] = runtimes();
            other.block_on(async {
                let (received, was_reset) = read_to_the_end(TcpStream::from_std(far)?).await;
                assert!(received == expected && !was_reset, "{ended} {kind}");
                drop(half);
                until_all_free(&arena).await;
                Ok::<_, Box<dyn std::error::Error>>(())
            })?;
        }
    }
    Ok(())
}

#[test]
fn an_abort_resets_and_frees_what_is_queued() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = arena();
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).send_bytes_max(MANY).build()?;
            let (near, far) = narrow_pair().await;
            let (mut incoming, mut outgoing) = pool.split(near)?;
            let live = Arc::new(AtomicUsize::new(0));
            let expected = pattern(8, MANY);
            let zero_copy = SendOptions::new().zero_copy_from(1);
            let mut slot = pool.try_allocate()?;
            slot.put_slice(&expected[..65536]);
            outgoing.send_with(slot, zero_copy).await?;
            outgoing.send(counted(expected[65536..400_000].to_vec(), &live)).await?;
            let (flushed, sent, ()) = tokio::join!(
                timeout(TIMEOUT, outgoing.flush()),
                timeout(TIMEOUT, outgoing.send(counted(vec![0; MANY], &live))),
                async {
                    sleep(SHORT).await;
                    outgoing.abort();
                }
            );
            assert_eq!(flushed?.unwrap_err().kind(), ErrorKind::ConnectionAborted);
            assert_eq!(sent?.unwrap_err().kind(), ErrorKind::ConnectionAborted);
            assert_failed(&mut outgoing, ErrorKind::ConnectionAborted).await;
            assert!(timeout(TIMEOUT, incoming.try_next()).await?.is_err());
            let (received, was_reset) = read_to_the_end(far).await;
            assert!(was_reset && expected.starts_with(&received));
            until("all memory is free", || live.load(Ordering::SeqCst) == 0).await;
            // A connection without resets ends in both directions.
            let (near, mut far) = UnixStream::pair()?;
            let (mut incoming, outgoing) = pool.split(near)?;
            outgoing.abort();
            assert_eq!(timeout(TIMEOUT, far.read(&mut [0; 8])).await??, 0);
            assert!(timeout(TIMEOUT, incoming.try_next()).await??.is_none());
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

#[test]
fn a_peer_that_resets_is_told_by_every_later_call() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = arena();
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            for told_by in ["send", "flush", "shutdown"] {
                let (near, far) = narrow_pair().await;
                let (incoming, mut outgoing) = pool.split(near)?;
                send_in_pieces(&outgoing, &pattern(9, MANY), 30_000).await;
                far.set_zero_linger()?;
                drop(far);
                let error = match told_by {
                    "flush" => timeout(TIMEOUT, outgoing.flush()).await?.unwrap_err(),
                    "shutdown" => timeout(TIMEOUT, outgoing.shutdown()).await?.unwrap_err(),
                    _ => loop {
                        let sent = outgoing.send(Bytes::from(vec![1; 50_000]));
                        if let Err(error) = timeout(TIMEOUT, sent).await? {
                            break error;
                        }
                    },
                };
                assert!(
                    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
                    "{error}"
                );
                assert_failed(&mut outgoing, error.kind()).await;
                drop(incoming);
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// The kernel tells a reset once: here to a write, while the stream is paused. What the stream has
/// is not the whole.
#[test]
fn a_stream_whose_connection_was_reset_does_not_end_in_order() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = arena();
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).messages_max(1).build()?;
            let (near, mut far) = tcp_pair().await;
            let (mut incoming, mut outgoing) = pool.split(near)?;
            // The first message pauses the stream, and the others stay in the socket.
            far.write_all(b"a part").await?;
            sleep(SHORT).await;
            far.write_all(b", and a part").await?;
            far.set_zero_linger()?;
            drop(far);
            let told = loop {
                match outgoing.write(b"x").await {
                    Ok(_) => sleep(Duration::from_millis(1)).await,
                    Err(error) => break error.kind(),
                }
            };
            assert_eq!(told, ErrorKind::ConnectionReset);
            assert_failed(&mut outgoing, told).await;
            let end = loop {
                match timeout(TIMEOUT, incoming.try_next()).await? {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("a part for the whole"),
                    Err(error) => break error.kind(),
                }
            };
            assert!(matches!(end, ErrorKind::ConnectionReset | ErrorKind::NotConnected), "{end:?}");
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// Another call on the socket is told of the reset, and nobody notes it. The half may have sent
/// nothing, or its own end as well, in which case the kernel has nothing more to tell.
#[test]
fn a_reset_that_another_call_was_told_of_is_no_end_in_order() -> Outcome {
    for (runtime, engine) in settings() {
        for is_whole in [false, true] {
            let arena = arena();
            runtime.block_on(async {
                let pool = Pool::builder(arena.clone()).engine(engine).messages_max(1).build()?;
                let (near, mut far) = tcp_pair().await;
                let near = near.into_std()?;
                let other = near.try_clone()?;
                let (mut incoming, mut outgoing) = pool.split(near)?;
                far.write_all(b"a part").await?;
                sleep(SHORT).await;
                far.write_all(b", and a part").await?;
                if is_whole {
                    // Both sides end in order.
                    far.shutdown().await?;
                    outgoing.shutdown().await?;
                    while far.read(&mut [0; 1]).await? > 0 {}
                } else {
                    far.set_zero_linger()?;
                    drop(far);
                    while other.take_error()?.is_none() {
                        sleep(Duration::from_millis(1)).await;
                    }
                }
                let end = loop {
                    match timeout(TIMEOUT, incoming.try_next()).await? {
                        Ok(Some(_)) => {}
                        Ok(None) => break None,
                        Err(error) => break Some(error.kind()),
                    }
                };
                assert_eq!(end, (!is_whole).then_some(ErrorKind::ConnectionReset));
                Ok::<_, Box<dyn std::error::Error>>(())
            })?;
            runtime.block_on(until_all_free(&arena));
        }
    }
    Ok(())
}

/// Tasks wait in order for a queue that holds one send. Some give up, before or after it is their
/// turn.
#[test]
fn senders_that_wait_are_served_in_order_and_lose_no_wake() -> Outcome {
    const SENDERS: u64 = 200;
    for (runtime, engine) in settings() {
        let arena = arena();
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).send_bytes_max(64).build()?;
            let (near, mut far) = narrow_pair().await;
            let (incoming, outgoing) = pool.split(near)?;
            let outgoing = Arc::new(outgoing);
            // The kernel's room is used up first.
            timeout(TIMEOUT, outgoing.send(Bytes::from(vec![0; MANY]))).await??;
            let (mut tasks, mut random) = (Vec::new(), Random::new(3));
            for number in 1..=SENDERS {
                let half = Arc::clone(&outgoing);
                let (gives_up, by_permit) = (random.one_in(4), random.one_in(2));
                let mut send = Box::pin(async move {
                    let bytes = Bytes::copy_from_slice(&number.to_be_bytes());
                    if by_permit {
                        half.reserve(8).await.unwrap().send(bytes).unwrap();
                    } else {
                        half.send(bytes).await.unwrap();
                    }
                });
                // Each is in line before the next one.
                let polled = send.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert!(polled.is_pending());
                let patience = Duration::from_millis(number % 50);
                tasks.push(tokio::spawn(async move {
                    if gives_up {
                        return timeout(patience, send).await.is_ok();
                    }
                    timeout(TIMEOUT, send).await.expect("served");
                    true
                }));
            }
            sleep(Duration::from_millis(40)).await;
            let reader = tokio::spawn(async move {
                let mut all = Vec::new();
                far.read_to_end(&mut all).await.unwrap();
                all
            });
            let mut expected = Vec::new();
            for (number, task) in (1..=SENDERS).zip(tasks) {
                if task.await? {
                    expected.push(number);
                }
            }
            drop((incoming, outgoing));
            let all = timeout(TIMEOUT, reader).await??;
            let numbers: Vec<u64> = all[MANY..]
                .chunks(8)
                .map(|number| u64::from_be_bytes(number.try_into().unwrap()))
                .collect();
            assert_eq!(numbers, expected);
            assert!(numbers.len() >= SENDERS as usize / 2);
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// The next in line is woken by a place that is given up, before or after that one was woken.
#[test]
fn a_place_that_is_given_up_goes_to_the_next_in_line() -> Outcome {
    for (runtime, engine) in settings() {
        runtime.block_on(async {
            let pool = Pool::builder(arena()).engine(engine).send_bytes_max(1000).build()?;
            let (near, far) = tcp_pair().await;
            let (incoming, outgoing) = pool.split(near)?;
            let outgoing = Arc::new(outgoing);
            for is_woken in [false, true] {
                let (permit, other) = (outgoing.reserve(500).await?, outgoing.reserve(200).await?);
                let mut large = Box::pin(outgoing.reserve(800));
                assert!(timeout(SHORT, &mut large).await.is_err());
                let half = Arc::clone(&outgoing);
                let small = tokio::spawn(async move { half.reserve(100).await.map(drop) });
                sleep(SHORT).await;
                assert!(!small.is_finished(), "it overtook another");
                let kept = (!is_woken).then_some(permit);
                drop(large);
                timeout(TIMEOUT, small).await???;
                drop((kept, other));
            }
            drop((incoming, outgoing, far));
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
    }
    Ok(())
}

#[test]
fn a_permit_holds_room_until_it_is_used_or_dropped() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = arena();
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).send_bytes_max(1000).build()?;
            let (near, far) = tcp_pair().await;
            let (incoming, outgoing) = pool.split(near)?;
            let permit = timeout(TIMEOUT, outgoing.reserve(600)).await??;
            let second = timeout(TIMEOUT, outgoing.reserve(400)).await??;
            // Full: a third one waits, and one behind it that would fit does not overtake it.
            let third = tokio::time::timeout(SHORT, outgoing.reserve(600));
            assert!(third.await.is_err());
            let mut large = Box::pin(outgoing.reserve(700));
            assert!(timeout(SHORT, &mut large).await.is_err());
            let mut small = Box::pin(outgoing.send(Bytes::from_static(b"small")));
            assert!(timeout(SHORT, &mut small).await.is_err());
            drop(second);
            assert!(timeout(SHORT, &mut small).await.is_err(), "it overtook another");
            // A send of fewer bytes than were reserved gives the rest back.
            permit.send(Bytes::from_static(b"first "))?;
            let large = timeout(TIMEOUT, large).await??;
            timeout(TIMEOUT, small).await??;
            let too_many = large.send(Bytes::from(vec![0; 701])).unwrap_err();
            assert_eq!(too_many.kind(), ErrorKind::InvalidInput);
            let text = too_many.to_string();
            assert!(text.contains("701") && text.contains("700"), "{text}");
            // More than the queue ever holds: alone.
            let all = timeout(TIMEOUT, outgoing.reserve(5000)).await??;
            assert!(timeout(SHORT, outgoing.reserve(1)).await.is_err());
            all.send(Bytes::from(vec![b'x'; 5000]))?;
            timeout(TIMEOUT, outgoing.send(Bytes::new())).await??;
            drop((incoming, outgoing));
            let (received, was_reset) = read_to_the_end(far).await;
            let expected = [&b"first small"[..], &[b'x'; 5000]].concat();
            assert!(received == expected && !was_reset);
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

#[test]
fn writes_and_sends_go_out_in_the_order_in_which_they_were_begun() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = arena();
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let (near, far) = narrow_pair().await;
            let (incoming, mut outgoing) = pool.split(near)?;
            let reader = tokio::spawn(read_to_the_end(far));
            let expected = pattern(10, 400_000);
            let mut random = Random::new(4);
            for piece in expected.chunks(2500) {
                match random.below(4) {
                    0 => timeout(TIMEOUT, outgoing.write_all(piece)).await??,
                    1 => {
                        let (one, two) = piece.split_at(1000);
                        let slices = [std::io::IoSlice::new(one), std::io::IoSlice::new(two)];
                        let wrote = timeout(TIMEOUT, outgoing.write_vectored(&slices)).await??;
                        timeout(TIMEOUT, outgoing.write_all(&piece[wrote..])).await??;
                    }
                    _ => {
                        let sent = outgoing.send(Bytes::copy_from_slice(piece));
                        timeout(TIMEOUT, sent).await??;
                    }
                }
            }
            drop((incoming, outgoing));
            let (received, was_reset) = reader.await?;
            assert!(received == expected && !was_reset);
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// Peers that do not read use up neither the driver's operations nor another connection's turn.
#[test]
fn stuck_peers_hold_no_other_connection_up() -> Outcome {
    const CONNECTIONS: usize = 8;
    for (runtime, engine) in settings() {
        let arena = arena();
        runtime.block_on(async {
            let pool =
                Pool::builder(arena.clone()).engine(engine).operations(CONNECTIONS).build()?;
            let mut stuck = Vec::new();
            for _ in 1..CONNECTIONS {
                let (near, far) = narrow_pair().await;
                let (incoming, outgoing) = pool.split(near)?;
                // More sends than the driver has operations.
                send_in_pieces(&outgoing, &vec![7; 300_000], 1000).await;
                stuck.push((incoming, outgoing, far));
            }
            let (near, far) = tcp_pair().await;
            let (mut incoming, mut outgoing) = pool.split(near)?;
            let echo = tokio::spawn(async move {
                let (mut from, mut to) = far.into_split();
                tokio::io::copy(&mut from, &mut to).await
            });
            for turn in 0..100u8 {
                timeout(TIMEOUT, outgoing.send(Bytes::from(vec![turn; 100]))).await??;
                let mut echoed = 0;
                while echoed < 100 {
                    let bytes = timeout(TIMEOUT, incoming.try_next()).await??.unwrap();
                    assert!(bytes.iter().all(|&byte| byte == turn));
                    echoed += bytes.len();
                }
            }
            // One more connection is refused at once, with the limit.
            let (near, _far) = tcp_pair().await;
            let refused = pool.stream_on(Engine::Ring, near);
            if engine == Engine::Ring {
                let refused = refused.unwrap_err();
                assert!(refused.to_string().contains("8 operations"), "{refused}");
                assert!(refused.socket.is_some(), "the socket comes back");
            }
            timeout(TIMEOUT, outgoing.shutdown()).await??;
            timeout(TIMEOUT, echo).await???;
            // The others go on when their peers read.
            for (incoming, outgoing, far) in stuck {
                let reader = tokio::spawn(read_to_the_end(far));
                timeout(TIMEOUT, outgoing.flush()).await??;
                drop((incoming, outgoing));
                let (received, was_reset) = reader.await?;
                assert!(received == [7; 300_000] && !was_reset);
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// As tokio's `TcpStream` does.
#[test]
fn shutting_a_reset_connection_down_is_no_error_if_nothing_is_lost() -> Outcome {
    for (runtime, engine) in settings() {
        runtime.block_on(async {
            let pool = Pool::builder(arena()).engine(engine).build()?;
            let (near, far) = tcp_pair().await;
            let (mut incoming, mut outgoing) = pool.split(near)?;
            far.set_zero_linger()?;
            drop(far);
            assert!(timeout(TIMEOUT, incoming.try_next()).await?.is_err());
            timeout(TIMEOUT, outgoing.shutdown()).await??;
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
    }
    Ok(())
}
