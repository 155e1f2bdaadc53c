//! Every future of the library, dropped after no poll, one, two, and so on until it is ready.
//!
//! The operation of a dropped future ends by itself, and every slot comes back.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::pin;
use std::task::Poll;

use crate::support::runtimes::Outcome;
use crate::support::tokio::{RingsOnly, rings, runtimes, settings, tcp_pair, until_all_free};
use crate::support::{TIMEOUT, nz, paged_arena};
use bytes::{BufMut, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Builder;
use tokio::time::timeout;
use uring_arena::tokio::{Engine, Pool};
use uring_arena::{BuddyArena, BuddyGeometry, Buffer, FixedArena, SendOptions};

/// The number of polls after which a future counts as endless: more than any here takes.
const POLLS_MAX: usize = 50;

fn arena() -> FixedArena {
    paged_arena(16, 65536)
}

/// Polls `future` when it is woken, `polls` times at most, and drops it then.
///
/// Returns its output if it became ready before.
async fn dropped_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut polled = 0;
    let polling = poll_fn(|context| {
        if polled == polls {
            return Poll::Ready(None);
        }
        polled += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polled == polls => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    timeout(TIMEOUT, polling).await.expect("a future that is never woken")
}

fn filled(pool: &Pool, byte: u8) -> Buffer {
    let mut buffer = pool.try_allocate().unwrap();
    buffer.put_bytes(byte, 65536);
    buffer
}

#[test]
fn a_receive_that_is_dropped_loses_no_byte() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = arena();
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).entries(4).build()?;
            let (near, mut far) = tcp_pair().await;
            let mut incoming = pool.recv_stream(near)?;
            let (mut expected, mut received) = (Vec::new(), Vec::new());
            let mut finished = false;
            for polls in 0..POLLS_MAX {
                let sent = vec![polls as u8; 1000 + polls];
                far.write_all(&sent).await?;
                expected.extend(sent);
                if let Some(bytes) = dropped_after(polls, incoming.try_next()).await {
                    received.extend_from_slice(&bytes?.expect("the stream goes on"));
                    finished = true;
                    break;
                }
            }
            assert!(finished);
            while received.len() < expected.len() {
                received.extend_from_slice(&timeout(TIMEOUT, incoming.try_next()).await??.unwrap());
            }
            assert!(received == expected);
            // The stream is dropped with bytes on their way.
            far.write_all(&[1; 100_000]).await?;
            drop(incoming);
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// A send that was ready is whole, and one that was dropped before queued nothing, whatever the
/// number of its polls. A dropped reservation, flush or shutdown changes neither.
#[test]
fn a_send_that_is_dropped_sends_all_or_nothing_and_gives_its_memory_back() -> Outcome {
    for (runtime, engine) in settings() {
        for zero_copy_from in [1, usize::MAX] {
            let arena = arena();
            runtime.block_on(async {
                let pool = Pool::builder(arena.clone())
                    .engine(engine)
                    .entries(2)
                    .send_bytes_max(65536)
                    .build()?;
                let (near, mut far) = tcp_pair().await;
                let (incoming, mut outgoing) = pool.split(near)?;
                let reader = tokio::spawn(async move {
                    let mut all = Vec::new();
                    far.read_to_end(&mut all).await.unwrap();
                    all
                });
                let options = SendOptions::new().zero_copy_from(zero_copy_from);
                let mut expected = Vec::new();
                for polls in 0..POLLS_MAX {
                    let send = outgoing.send_with(filled(&pool, polls as u8), options);
                    if let Some(sent) = dropped_after(polls % 4, send).await {
                        sent?;
                        expected.push(polls as u8);
                    }
                    let _ = dropped_after(polls % 3, outgoing.reserve(65536)).await;
                    let _ = dropped_after(polls % 5, outgoing.flush()).await;
                }
                assert!(expected.len() > POLLS_MAX / 4, "{} of {POLLS_MAX}", expected.len());
                let shut = dropped_after(1, outgoing.shutdown()).await;
                if let Some(shut) = shut {
                    shut?;
                }
                drop((incoming, outgoing));
                let all = timeout(TIMEOUT, reader).await??;
                let pieces: Vec<u8> = all.chunks(65536).map(|piece| piece[0]).collect();
                assert!(all.chunks(65536).all(|piece| piece.iter().all(|&byte| byte == piece[0])));
                assert_eq!((all.len() % 65536, pieces), (0, expected));
                Ok::<_, Box<dyn std::error::Error>>(())
            })?;
            runtime.block_on(until_all_free(&arena));
        }
    }
    Ok(())
}

#[test]
fn a_file_operation_that_is_dropped_keeps_its_slot_until_it_is_over() -> Outcome {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("dropped-futures");
    for (runtime, engine) in settings() {
        let arena = arena();
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).entries(2).build()?;
            let file = std::fs::File::options()
                .create(true)
                .truncate(true)
                .read(true)
                .write(true)
                .open(&path)?;
            let file = pool.file(file)?;
            let mut finished = false;
            for polls in 0..POLLS_MAX {
                let written = dropped_after(polls, file.write_at(filled(&pool, 7), 0)).await;
                if let Some(written) = written {
                    written?;
                    finished = true;
                    break;
                }
            }
            assert!(finished);
            finished = false;
            for polls in 0..POLLS_MAX {
                if let Some(read) =
                    dropped_after(polls, file.read_at(pool.try_allocate()?, 0)).await
                {
                    assert_eq!(read?[..], [7; 65536]);
                    finished = true;
                    break;
                }
            }
            assert!(finished);
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    std::fs::remove_file(&path)?;
    Ok(())
}

#[test]
fn a_shutdown_that_is_dropped_goes_on_by_itself() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = arena();
        runtime.block_on(async {
            let mut finished = false;
            for polls in 0..POLLS_MAX {
                let pool = Pool::builder(arena.clone()).engine(engine).entries(4).build()?;
                let (near, mut far) = tcp_pair().await;
                let incoming = pool.recv_stream(near)?;
                far.write_all(&[1; 100_000]).await?;
                let (silent, _far) = std::os::unix::net::UnixStream::pair()?;
                let silent = pool.file(silent)?;
                if engine == Engine::Ring {
                    let read = dropped_after(1, silent.read_at(pool.try_allocate()?, 0)).await;
                    assert!(read.is_none());
                }
                let drained = dropped_after(polls, pool.shutdown()).await;
                drop((incoming, silent));
                until_all_free(&arena).await;
                if let Some(drained) = drained {
                    assert_eq!(drained?.in_flight, 0);
                    finished = true;
                    break;
                }
            }
            assert!(finished);
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
    }
    Ok(())
}

/// A pool of both engines: the end of each begins with the first poll, though that of the other
/// takes its time.
#[test]
fn a_shutdown_that_is_dropped_ends_both_engines() -> Outcome {
    for (runtime, _) in rings() {
        let arena = arena();
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).build()?;
            // A half that is gone, and a peer that does not read: the shutdown waits for it.
            let (near, _stuck) = tokio::net::UnixStream::pair()?;
            let (incoming, half) = pool.split(near)?;
            half.send(Bytes::from(vec![1; 1 << 20])).await?;
            drop(half);
            let (near, mut far) = tcp_pair().await;
            let mut of_ring = pool.stream_on(Engine::Ring, near)?;
            far.write_all(b"hello").await?;
            assert_eq!(of_ring.try_next().await?.unwrap(), "hello");
            let other = pool.clone();
            assert!(dropped_after(1, pool.shutdown()).await.is_none());
            let told = timeout(TIMEOUT, of_ring.try_next()).await?.unwrap_err();
            assert_eq!(told.kind(), ErrorKind::BrokenPipe);
            assert!(other.shutdown().await.is_err());
            drop((incoming, of_ring));
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// A pool that was shut down before its ring has begun begins none.
#[test]
fn a_pool_that_is_shut_down_starts_no_ring() -> Outcome {
    for (runtime, _) in rings() {
        runtime.block_on(async {
            let pool = Pool::builder(arena()).build()?;
            pool.clone().shutdown().await?;
            let (near, _far) = tcp_pair().await;
            let refused = pool.stream_on(Engine::Ring, near).unwrap_err();
            assert_eq!(refused.error.kind(), ErrorKind::BrokenPipe);
            assert!(refused.socket.is_some());
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
    }
    Ok(())
}

#[test]
fn a_claim_that_is_dropped_hands_on_what_was_kept_for_it() -> Outcome {
    for runtime in runtimes() {
        let fixed = FixedArena::with_slot_capacity(nz(1), nz(64)).build_async()?;
        let geometry = BuddyGeometry::exact(nz(4096), nz(64))?;
        let buddy = BuddyArena::builder(geometry).build_async()?;
        runtime.block_on(async {
            for freed_before_the_drop in [false, true] {
                for polls in 0..3 {
                    let (held, block) = (fixed.allocate()?, buddy.allocate(nz(4096))?);
                    let (mut waiting, mut wanting) = (
                        Box::pin(fixed.allocate_async()),
                        Box::pin(buddy.allocate_async(nz(2048))),
                    );
                    for _ in 0..polls {
                        assert!(dropped_after(1, &mut waiting).await.is_none());
                        assert!(dropped_after(1, &mut wanting).await.is_none());
                    }
                    let mut held = Some((held, block));
                    if freed_before_the_drop {
                        held = None;
                    }
                    drop((waiting, wanting));
                    drop(held);
                    let all: (Buffer, Buffer) = (fixed.allocate()?, buddy.allocate(nz(4096))?);
                    drop(all);
                }
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        assert_eq!((fixed.slot_states().free, buddy.slot_states().free), (1, 64));
    }
    Ok(())
}

/// A dropped future leaves an operation under way. The runtime still ends, and every slot comes
/// back.
#[test]
fn a_runtime_that_ends_under_dropped_futures_loses_nothing() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = arena();
        let pool = runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).entries(4).build()?;
            let (near, mut far) = tcp_pair().await;
            let (mut incoming, outgoing) = pool.split(near)?;
            far.write_all(&[1; 1000]).await?;
            let _ = dropped_after(1, incoming.try_next()).await;
            let bytes: Bytes = filled(&pool, 1).freeze();
            let _ = dropped_after(1, outgoing.send(bytes.clone())).await;
            let _ = dropped_after(1, outgoing.send(bytes)).await;
            Ok::<_, Box<dyn std::error::Error>>(pool)
        })?;
        drop(runtime);
        drop(pool);
        let waiting = Builder::new_current_thread().enable_all().build()?;
        waiting.block_on(until_all_free(&arena));
    }
    Ok(())
}
