//! Ordinary tokio: bytes over socket and file, dropped futures, slow readers, shutdown with
//! operations in flight, other threads.

use std::time::Duration;

use crate::support::runtimes::{Outcome, full_connection, read_empty};
use crate::support::tokio::{
    RingsOnly, rings, runtimes, settings, tcp_pair, until, until_all_free,
};
use crate::support::{TIMEOUT, TestFile, paged_arena, pattern};
use bytes::{BufMut, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};
use uring_arena::SendOptions;
use uring_arena::tokio::{Engine, Pool};

#[test]
fn many_connections_are_received_and_leave_the_thread() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = paged_arena(128, 4096);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let mut tasks = Vec::new();
            for id in 0..32 {
                let (near, mut far) = tcp_pair().await;
                let expected = pattern(id, 200_000);
                let message = expected.clone();
                tasks.push(tokio::spawn(async move { far.write_all(&message).await.unwrap() }));
                let mut incoming = pool.recv_stream(near)?;
                tasks.push(tokio::spawn(async move {
                    let (mut checked, mut parts) = (0, Vec::new());
                    while let Some(bytes) = incoming.try_next().await.unwrap() {
                        assert!(bytes == expected[checked..checked + bytes.len()]);
                        checked += bytes.len();
                        parts.push(bytes);
                        if parts.len() == 2 {
                            let parts: Vec<Bytes> = std::mem::take(&mut parts);
                            std::thread::spawn(move || drop(parts)).join().unwrap();
                        }
                    }
                    assert_eq!(checked, expected.len());
                }));
            }
            for task in tasks {
                timeout(TIMEOUT, task).await??;
            }
            let drained = pool.shutdown().await?;
            assert_eq!((drained.in_flight, drained.quarantined), (0, 0));
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

#[test]
fn a_connection_is_answered_by_copy_and_without() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = paged_arena(64, 65536);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let (near, far) = tcp_pair().await;
            let (mut incoming, mut outgoing) = pool.split(near)?;
            let expected = pattern(3, 1 << 20);
            let (mut from, mut to) = far.into_split();
            let message = expected.clone();
            let sender = tokio::spawn(async move {
                to.write_all(&message).await.unwrap();
                drop(to);
            });
            let reader = tokio::spawn(async move {
                let mut echoed = Vec::new();
                from.read_to_end(&mut echoed).await.unwrap();
                echoed
            });
            let mut turn = 0;
            while let Some(bytes) = timeout(TIMEOUT, incoming.try_next()).await?? {
                turn += 1;
                match turn % 3 {
                    0 => outgoing.write_all(&bytes).await?,
                    1 => outgoing.send(bytes).await?,
                    _ => outgoing.send_with(bytes, SendOptions::new().zero_copy_from(1)).await?,
                }
            }
            outgoing.shutdown().await?;
            drop((incoming, outgoing));
            sender.await?;
            assert!(timeout(TIMEOUT, reader).await?? == expected);
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

#[test]
fn a_file_is_written_and_read() -> Outcome {
    use std::os::unix::fs::OpenOptionsExt;
    let path = TestFile::path("file");
    for (runtime, engine) in settings() {
        let arena = paged_arena(8, 8192);
        let expected = pattern(5, 3 * 8192);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            std::fs::write(&path, [])?;
            let file =
                pool.file(std::fs::OpenOptions::new().read(true).write(true).open(&path)?)?;
            for (turn, chunk) in expected.chunks(8192).enumerate() {
                let mut buffer = pool.try_allocate()?;
                buffer.put_slice(chunk);
                let offset = turn as u64 * 8192;
                match turn {
                    0 => file.write_at(buffer, offset).await?,
                    1 => file.write_at(buffer.freeze(), offset).await?,
                    _ => file.write_at(buffer.freeze_in_place(), offset).await?,
                }
            }
            let reads = (0..3).map(|turn| file.read_at(pool.try_allocate().unwrap(), turn * 8192));
            for (turn, read) in reads.enumerate() {
                assert!(read.await?.freeze() == expected[turn * 8192..][..8192]);
            }
            let short = file.read_at(pool.try_allocate()?, 3 * 8192 - 10).await?;
            assert_eq!(short[..], expected[3 * 8192 - 10..]);
            assert!(file.read_at(pool.try_allocate()?, 1 << 20).await?.is_empty());
            let direct =
                std::fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&path);
            if let Ok(direct) = direct {
                let direct = pool.file(direct)?;
                assert!(
                    direct.read_at(pool.try_allocate()?, 8192).await?.freeze()
                        == expected[8192..16384]
                );
                assert!(direct.read_at(pool.try_allocate()?, 100).await.is_err(), "not aligned");
            }
            // A directory cannot be read.
            let directory = pool.file(std::fs::File::open(".")?)?;
            assert!(directory.read_at(pool.try_allocate()?, 0).await.is_err());
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

#[test]
fn a_dropped_future_loses_no_bytes() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = paged_arena(8, 4096);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let (near, mut far) = UnixStream::pair()?;
            let mut incoming = pool.recv_stream(near)?;
            for turn in 0..20u8 {
                assert!(timeout(Duration::from_millis(1), incoming.try_next()).await.is_err());
                far.write_all(&[turn]).await?;
                let bytes = timeout(TIMEOUT, incoming.try_next()).await??;
                assert_eq!(bytes.unwrap(), [turn][..]);
            }
            drop(far);
            assert!(timeout(TIMEOUT, incoming.try_next()).await??.is_none());
            assert!(incoming.try_next().await?.is_none());
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

#[test]
fn a_dropped_read_keeps_its_slot_until_the_kernel_is_done() -> Outcome {
    for (runtime, engine) in rings() {
        let arena = paged_arena(8, 4096);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).entries(1).build()?;
            let (near, mut far) = std::os::unix::net::UnixStream::pair()?;
            let silent = pool.file(near)?;
            let before = arena.metrics().bytes_live;
            let read = silent.read_at(pool.try_allocate()?, 0);
            assert!(timeout(Duration::from_millis(20), read).await.is_err());
            assert_eq!(
                arena.metrics().bytes_live,
                before + 4096,
                "the kernel may still write to the slot"
            );
            std::io::Write::write_all(&mut far, b"late")?;
            until("the read is over", || arena.metrics().bytes_live == before).await;
            drop((silent, far));
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

#[test]
fn a_stream_that_nobody_reads_leaves_slots_for_others() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = paged_arena(64, 4096);
        runtime.block_on(async {
            let pool =
                Pool::builder(arena.clone()).engine(engine).entries(16).messages_max(8).build()?;
            let (near, mut far) = tcp_pair().await;
            let mut lazy = pool.recv_stream(near)?;
            let expected = pattern(7, 500_000);
            let message = expected.clone();
            let sender = tokio::spawn(async move { far.write_all(&message).await.unwrap() });
            sleep(Duration::from_millis(50)).await;
            // Another stream goes on meanwhile.
            let (near, mut far) = tcp_pair().await;
            let mut busy = pool.recv_stream(near)?;
            for turn in 0..200u8 {
                far.write_all(&[turn]).await?;
                assert_eq!(timeout(TIMEOUT, busy.try_next()).await??.unwrap(), [turn][..]);
            }
            assert!(arena.metrics().bytes_live <= 48 * 4096, "{:?}", arena.metrics());
            // No byte of the first stream is lost.
            let mut received = Vec::new();
            while received.len() < expected.len() {
                let bytes = timeout(TIMEOUT, lazy.try_next()).await??.unwrap();
                received.extend_from_slice(&bytes);
            }
            assert!(received == expected);
            sender.await?;
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

#[test]
fn more_connections_than_slots_are_all_served() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = paged_arena(4, 1024);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let mut tasks = Vec::new();
            for id in 0..64 {
                let (near, mut far) = tcp_pair().await;
                let mut incoming = pool.recv_stream(near)?;
                let expected = pattern(id, 10_000);
                tasks.push(tokio::spawn(async move {
                    let (mut far_side, expected) = (Vec::new(), expected);
                    let sending = async {
                        far.write_all(&expected).await.unwrap();
                        drop(far);
                    };
                    let receiving = async {
                        while let Some(bytes) = incoming.try_next().await.unwrap() {
                            far_side.extend_from_slice(&bytes);
                        }
                    };
                    tokio::join!(sending, receiving);
                    assert!(far_side == expected);
                }));
            }
            for task in tasks {
                timeout(TIMEOUT, task).await??;
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

#[test]
fn shutdown_ends_everything_and_loses_nothing() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = paged_arena(64, 4096);
        let kept = runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let (near, mut far) = tcp_pair().await;
            let mut incoming = pool.recv_stream(near)?;
            far.write_all(b"kept").await?;
            let kept = timeout(TIMEOUT, incoming.try_next()).await??.unwrap();
            let (silent, _other) = std::os::unix::net::UnixStream::pair()?;
            let silent = pool.file(silent)?;
            let reading = tokio::spawn({
                let buffer = pool.try_allocate()?;
                async move { silent.read_at(buffer, 0).await.map(drop) }
            });
            let waiting = tokio::spawn(async move { incoming.try_next().await });
            sleep(Duration::from_millis(20)).await;
            let other = pool.clone();
            let drained = pool.shutdown().await?;
            assert_eq!((drained.in_flight, drained.quarantined), (0, 0));
            assert!(timeout(TIMEOUT, waiting).await??.is_err() || drained.closed > 0);
            assert!(timeout(TIMEOUT, reading).await??.is_err());
            // Later calls are told of the end.
            let (near, _far) = UnixStream::pair()?;
            assert!(timeout(TIMEOUT, other.recv_stream(near)?.try_next()).await?.is_err());
            let file = other.file(std::fs::File::open("Cargo.toml")?)?;
            assert!(timeout(TIMEOUT, file.read_at(other.try_allocate()?, 0)).await?.is_err());
            assert!(other.shutdown().await.is_err());
            Ok::<_, Box<dyn std::error::Error>>(kept)
        })?;
        assert_eq!(arena.metrics().bytes_live, 4096);
        assert_eq!(kept, "kept");
        drop(kept);
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// Two pools number their sockets, files and operations alike, and give the numbers of ended ones
/// out again.
#[test]
fn what_is_gone_or_of_another_pool_touches_nothing() -> Outcome {
    for (runtime, engine) in settings() {
        let (first, second) = (paged_arena(64, 4096), paged_arena(64, 4096));
        runtime.block_on(async {
            let (ending, pool) = (
                Pool::builder(first.clone()).engine(engine).build()?,
                Pool::builder(second.clone()).engine(engine).build()?,
            );
            let (near, far) = UnixStream::pair()?;
            let (other_stream, other_half) = ending.split(near)?;
            other_half.send(Bytes::from_static(b"first")).await?;
            let other_file = ending.file(std::fs::File::open("Cargo.toml")?)?;
            drop(other_file.read_at(ending.try_allocate()?, 0).await?);
            let (other_arena, other_pool) = (ending.try_allocate()?, ending.clone());
            ending.shutdown().await?;
            // A stream is kept whose socket has ended, and later sockets use its number.
            let (near, mut far_ended) = UnixStream::pair()?;
            let mut ended = pool.recv_stream(near)?;
            far_ended.write_all(b"last").await?;
            drop(far_ended);
            sleep(Duration::from_millis(20)).await;
            let (near, mut far_live) = UnixStream::pair()?;
            let (mut live, half) = pool.split(near)?;
            let file = pool.file(std::fs::File::open("Cargo.toml")?)?;
            half.send(Bytes::from_static(b"to far")).await?;
            // Streams and files of the ended pool are used and dropped beside live ones.
            assert!(other_half.send(Bytes::from_static(b"gone")).await.is_err());
            assert!(other_file.read_at(other_arena, 0).await.is_err());
            drop((other_stream, other_half, other_file, other_pool, far));
            assert_eq!(timeout(TIMEOUT, ended.try_next()).await??.unwrap(), "last");
            drop(ended);
            for turn in 0..100u8 {
                far_live.write_all(&[turn]).await?;
                let bytes = timeout(TIMEOUT, live.try_next()).await??.unwrap();
                assert_eq!(bytes, [turn][..]);
                half.send(bytes).await?;
                assert!(!file.read_at(pool.try_allocate()?, 0).await?.is_empty());
            }
            let mut echoed = [0; 106];
            timeout(TIMEOUT, far_live.read_exact(&mut echoed)).await??;
            assert_eq!((&echoed[..6], echoed[105]), (&b"to far"[..], 99));
            pool.shutdown().await?;
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(async { tokio::join!(until_all_free(&first), until_all_free(&second)) });
    }
    Ok(())
}

#[test]
fn a_runtime_dropped_with_everything_in_flight_loses_nothing() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = paged_arena(64, 4096);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            for _ in 0..8 {
                let (near, far) = tcp_pair().await;
                let mut incoming = pool.recv_stream(near)?;
                tokio::spawn(async move {
                    drop(incoming.try_next().await);
                    drop(far);
                });
            }
            let (silent, other) = std::os::unix::net::UnixStream::pair()?;
            let (silent, buffer) = (pool.file(silent)?, pool.try_allocate()?);
            tokio::spawn(async move {
                drop(silent.read_at(buffer, 0).await);
                drop(other);
            });
            sleep(Duration::from_millis(20)).await;
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        drop(runtime);
        let [other, _] = runtimes();
        other.block_on(until_all_free(&arena));
    }
    Ok(())
}

#[test]
fn streams_may_move_between_runtimes_and_threads() -> Outcome {
    let arena = paged_arena(64, 4096);
    let [first, second] = runtimes();
    let (mut incoming, mut far) = second.block_on(async {
        let pool = Pool::new(arena.clone())?;
        let (near, far) = std::os::unix::net::UnixStream::pair()?;
        near.set_nonblocking(true)?;
        Ok::<_, Box<dyn std::error::Error>>((pool.recv_stream(UnixStream::from_std(near)?)?, far))
    })?;
    std::io::Write::write_all(&mut far, b"moved")?;
    let moved = std::thread::spawn(move || {
        first.block_on(async {
            timeout(TIMEOUT, incoming.try_next()).await.unwrap().unwrap().unwrap()
        })
    });
    assert_eq!(moved.join().unwrap(), "moved");
    drop(far);
    second.block_on(until_all_free(&arena));
    Ok(())
}

#[test]
fn framing_works_on_top() -> Outcome {
    use futures_util::StreamExt;
    use tokio_util::codec::{FramedRead, LinesCodec};
    use tokio_util::io::StreamReader;
    for (runtime, engine) in settings() {
        let arena = paged_arena(64, 4096);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let (near, mut far) = tcp_pair().await;
            let reader = StreamReader::new(pool.recv_stream(near)?);
            let mut lines = FramedRead::new(reader, LinesCodec::new());
            let expected: Vec<String> = (0..500).map(|line| "x".repeat(line % 97)).collect();
            far.write_all((expected.join("\n") + "\n").as_bytes()).await?;
            drop(far);
            for line in &expected {
                assert_eq!(timeout(TIMEOUT, lines.next()).await?.unwrap()?, *line);
            }
            assert!(lines.next().await.is_none());
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

#[test]
fn a_reset_is_an_error_once() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = paged_arena(8, 4096);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let (near, far) = tcp_pair().await;
            let mut incoming = pool.recv_stream(near)?;
            far.set_zero_linger()?;
            drop(far);
            let error = timeout(TIMEOUT, incoming.try_next()).await?.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            assert!(incoming.try_next().await?.is_none());
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

#[test]
fn idle_connections_hold_no_memory() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = paged_arena(64, 4096);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).entries(16).build()?;
            let mut idle = Vec::new();
            for _ in 0..300 {
                let (near, far) = UnixStream::pair()?;
                idle.push((pool.recv_stream(near)?, far));
            }
            // One of the sockets sends, so all have been armed.
            let (incoming, far) = idle.last_mut().unwrap();
            far.write_all(b"x").await?;
            assert_eq!(timeout(TIMEOUT, incoming.try_next()).await??.unwrap(), "x");
            until("only the ring's slots are in use", || arena.metrics().bytes_live <= 16 * 4096)
                .await;
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

#[test]
fn frames_go_both_ways() -> Outcome {
    use futures_util::{SinkExt, StreamExt};
    use tokio_util::codec::{Framed, LinesCodec};
    use tokio_util::io::StreamReader;
    for (runtime, engine) in settings() {
        let arena = paged_arena(64, 4096);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let (near, far) = tcp_pair().await;
            let (incoming, outgoing) = pool.split(near)?;
            let both = tokio::io::join(StreamReader::new(incoming), outgoing);
            let (mut ours, mut theirs) =
                (Framed::new(both, LinesCodec::new()), Framed::new(far, LinesCodec::new()));
            for turn in 0..100 {
                let line = "y".repeat(turn * 61);
                theirs.send(&line).await?;
                let received = timeout(TIMEOUT, ours.next()).await?.unwrap()?;
                ours.send(received).await?;
                assert_eq!(timeout(TIMEOUT, theirs.next()).await?.unwrap()?, line);
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

#[test]
fn dropped_writes_and_sends_keep_their_bytes_until_the_kernel_is_done() -> Outcome {
    for (runtime, engine) in rings() {
        let arena = paged_arena(8, 4096);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).entries(1).build()?;
            let filled = || {
                let mut buffer = pool.try_allocate().unwrap();
                buffer.put_bytes(7, 4096);
                buffer
            };
            let (near, far) = full_connection();
            let file = pool.file(near.try_clone()?)?;
            let (incoming, outgoing) = pool.split(TcpStream::from_std(near)?)?;
            let short = Duration::from_millis(20);
            let before = arena.metrics().bytes_live;
            assert!(timeout(short, file.write_at(filled(), 0)).await.is_err());
            let zero_copy = SendOptions::new().zero_copy_from(1);
            outgoing.send_with(filled().freeze(), zero_copy).await?;
            assert!(timeout(short, outgoing.flush()).await.is_err());
            assert_eq!(
                arena.metrics().bytes_live,
                before + 2 * 4096,
                "the kernel may still read both"
            );
            read_empty(far);
            until("both are over", || arena.metrics().bytes_live == before).await;
            drop((incoming, outgoing, file));
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// The engine of a runtime of one thread is a task that may not change threads. Its pool ends and
/// says so, and its slots are not given out again.
#[cfg(feature = "io-uring")]
#[test]
fn a_runtime_of_one_thread_that_changes_threads_ends_its_pool() -> Outcome {
    for own_thread in [false, true] {
        let arena = paged_arena(8, 4096);
        let [runtime, _] = runtimes();
        let (mut incoming, mut far) = runtime.block_on(async {
            let builder = Pool::builder(arena.clone()).engine(Engine::Ring).entries(4);
            let pool = if own_thread { builder.own_thread().build()? } else { builder.build()? };
            let (near, far) = std::os::unix::net::UnixStream::pair()?;
            near.set_nonblocking(true)?;
            let mut incoming = pool.recv_stream(UnixStream::from_std(near)?)?;
            assert!(timeout(Duration::from_millis(10), incoming.try_next()).await.is_err());
            Ok::<_, Box<dyn std::error::Error>>((incoming, far))
        })?;
        std::io::Write::write_all(&mut far, b"moved")?;
        let elsewhere = std::thread::spawn(move || {
            let answer = runtime.block_on(async { timeout(TIMEOUT, incoming.try_next()).await });
            drop((incoming, runtime));
            answer
        });
        let answer = elsewhere.join().unwrap()?;
        if own_thread {
            assert_eq!(answer?.unwrap(), "moved");
            drop(far);
            runtimes()[0].block_on(until_all_free(&arena));
        } else {
            assert_eq!(answer.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
            assert_eq!(arena.allocate_many(8, std::mem::forget), 4, "those of the ring are lost");
        }
    }
    Ok(())
}

#[test]
fn a_batch_job_receives_all_the_same() -> Outcome {
    let [_, runtime] = runtimes();
    let arena = paged_arena(64, 4096);
    runtime.block_on(async {
        let pool = Pool::builder(arena.clone()).batch_scheduling(true).build()?;
        let (near, mut far) = tcp_pair().await;
        let mut incoming = pool.recv_stream(near)?;
        let expected = pattern(11, 300_000);
        let message = expected.clone();
        let sender = tokio::spawn(async move { far.write_all(&message).await });
        let mut received = Vec::new();
        while received.len() < expected.len() {
            received.extend_from_slice(&timeout(TIMEOUT, incoming.try_next()).await??.unwrap());
        }
        assert!(received == expected);
        sender.await??;
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    runtime.block_on(until_all_free(&arena));
    Ok(())
}
