//! The engines of a tokio pool: which is chosen where, and that a pool serves without io_uring.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use crate::support::runtimes::Outcome;
use crate::support::tokio::{
    read_to_the_end, runtimes, settings, tcp_pair, turns_beside, until_all_free,
};
use crate::support::{TIMEOUT, TestFile, arena, paged_arena, pattern, seccomp};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Handle, RuntimeFlavor};
use tokio::time::timeout;
use uring_arena::tokio::{Engine, Pool};

/// The three calls of io_uring, and the answers of sandboxes that forbid them.
#[cfg(feature = "io-uring")]
const CALLS: [libc::c_long; 3] =
    [libc::SYS_io_uring_setup, libc::SYS_io_uring_register, libc::SYS_io_uring_enter];
#[cfg(feature = "io-uring")]
const ANSWERS: [i32; 2] = [libc::EPERM, libc::ENOSYS];

#[cfg(feature = "io-uring")]
async fn assert_answers_datagrams(pool: &Pool) -> Outcome {
    let mut datagrams = pool.datagrams(std::net::UdpSocket::bind("127.0.0.1:0")?)?;
    let client = tokio::net::UdpSocket::bind("127.0.0.1:0").await?;
    client.send_to(b"ping", datagrams.local_addr()?).await?;
    let datagram = timeout(TIMEOUT, datagrams.recv()).await??;
    timeout(TIMEOUT, datagrams.send_to(datagram.bytes, client.local_addr()?)).await??;
    assert_eq!(timeout(TIMEOUT, client.recv(&mut [0; 8])).await??, 4);
    Ok(())
}

/// Fails unless a pool receives, sends, and reads and writes a file.
async fn assert_serves(pool: &Pool) -> Outcome {
    let (near, mut far) = tcp_pair().await;
    let (mut incoming, outgoing) = pool.split(near)?;
    let expected = pattern(1, 300_000);
    let message = expected.clone();
    let echo = tokio::spawn(async move {
        far.write_all(&message).await.unwrap();
        far.shutdown().await.unwrap();
        read_to_the_end(far).await
    });
    while let Some(bytes) = timeout(TIMEOUT, incoming.try_next()).await?? {
        timeout(TIMEOUT, outgoing.send(bytes)).await??;
    }
    drop((incoming, outgoing));
    let (echoed, was_reset) = timeout(TIMEOUT, echo).await??;
    assert!(echoed == expected && !was_reset);
    #[cfg(feature = "io-uring")]
    assert_answers_datagrams(pool).await?;
    let path = TestFile::new("engines", b"");
    let file = pool.file(path.open())?;
    timeout(TIMEOUT, file.write_at(Bytes::from(expected.clone()), 0)).await??;
    let read = timeout(TIMEOUT, file.read_exact_at(pool.allocate().await, 4096)).await??;
    assert_eq!(read[..], expected[4096..8192]);
    let ends = timeout(TIMEOUT, file.read_exact_at(pool.allocate().await, 299_000)).await?;
    assert_eq!(ends.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    Ok(())
}

/// A build without a ring serves without it, and names the feature where one is asked for.
#[cfg(not(feature = "io-uring"))]
#[test]
fn a_build_without_a_ring_names_the_feature() -> Outcome {
    for runtime in runtimes() {
        let arena = paged_arena(16, 4096);
        runtime.block_on(async {
            let pool = Pool::new(arena.clone())?;
            let choice = pool.engine();
            assert_eq!((choice.connections, choice.files), (Engine::Readiness, Engine::Readiness));
            assert!(choice.reason.contains("`io-uring`"), "{choice}");
            assert_serves(&pool).await?;
            let (near, _far) = tcp_pair().await;
            let refused = pool.stream_on(Engine::Ring, near).unwrap_err();
            assert_eq!(refused.error.kind(), ErrorKind::Unsupported);
            assert!(refused.to_string().contains("`io-uring`"), "{refused}");
            assert!(refused.socket.is_some(), "it comes back");
            timeout(TIMEOUT, pool.shutdown()).await??;
            let error = Pool::builder(arena.clone()).engine(Engine::Ring).build().unwrap_err();
            assert!(error.to_string().contains("`io-uring`"), "{error}");
            assert_eq!(std::io::Error::from(error).kind(), ErrorKind::Unsupported);
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// Whatever call of io_uring is forbidden, and however, a pool is built, serves, and says why it
/// does without. One that must have a ring is refused, or says so at once.
#[cfg(feature = "io-uring")]
#[test]
fn a_pool_serves_where_a_filter_forbids_io_uring() {
    for call in CALLS {
        for errno in ANSWERS {
            for is_one_thread in [true, false] {
                // The threads of the runtime inherit the filter.
                let test = std::thread::spawn(move || {
                    if let Err(error) = seccomp::fail_calls_on_this_thread(call, errno) {
                        return eprintln!("SKIPPED: no seccomp here: {error}");
                    }
                    let runtime = match is_one_thread {
                        true => Builder::new_current_thread().enable_all().build(),
                        false => Builder::new_multi_thread().worker_threads(2).enable_all().build(),
                    };
                    let runtime = runtime.unwrap();
                    let arena = paged_arena(16, 4096);
                    runtime.block_on(async {
                        for engine in [Engine::Auto, Engine::Readiness] {
                            let pool = Pool::builder(arena.clone()).engine(engine).build().unwrap();
                            let choice = pool.engine();
                            assert_eq!(choice.connections, Engine::Readiness, "{choice}");
                            assert_eq!(choice.files, Engine::Readiness, "{choice}");
                            if engine == Engine::Auto {
                                let text = choice.to_string();
                                assert!(text.contains("seccomp"), "the cause: {text}");
                                assert!(text.contains("profile"), "the remedy: {text}");
                            }
                            assert_serves(&pool).await.unwrap();
                            let (near, _far) = tcp_pair().await;
                            let refused = pool.stream_on(Engine::Ring, near).unwrap_err();
                            assert_eq!(refused.error.kind(), ErrorKind::Unsupported);
                            assert!(refused.socket.is_some(), "the socket comes back");
                            timeout(TIMEOUT, pool.shutdown()).await.unwrap().unwrap();
                        }
                        if call == libc::SYS_io_uring_setup {
                            let built = Pool::builder(arena.clone()).engine(Engine::Ring).build();
                            assert!(built.unwrap_err().to_string().contains("seccomp"));
                        }
                    });
                    runtime.block_on(until_all_free(&arena));
                });
                test.join().unwrap();
            }
        }
    }
}

#[test]
fn the_choice_says_what_was_asked_for_and_what_was_measured() -> Outcome {
    for runtime in runtimes() {
        let arena = paged_arena(16, 4096);
        runtime.block_on(async {
            let asked = Pool::builder(arena.clone()).engine(Engine::Readiness).build()?;
            assert_eq!(asked.engine().files, Engine::Readiness);
            assert!(asked.engine().to_string().contains("asked"), "{}", asked.engine());
            let pool = Pool::new(arena.clone())?;
            assert_eq!(pool.engine().connections, Engine::Readiness, "{}", pool.engine());
            assert_serves(&pool).await?;
            if pool.engine().files == Engine::Ring {
                // The ring that the files use takes connections too, where one asks for it.
                let (near, mut far) = tcp_pair().await;
                let mut stream = pool.stream_on(Engine::Ring, near)?;
                far.write_all(b"hello").await?;
                assert_eq!(timeout(TIMEOUT, stream.try_next()).await??.unwrap(), "hello");
                stream.write_all(b"world").await?;
                let mut answer = [0; 5];
                far.read_exact(&mut answer).await?;
                assert_eq!(&answer, b"world");
            }
            timeout(TIMEOUT, asked.shutdown()).await??;
            timeout(TIMEOUT, pool.shutdown()).await??;
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// Neither a connection nor a pool holds a slot by tokio's reactor, until bytes are handed out.
#[test]
fn an_idle_connection_holds_no_slot() -> Outcome {
    for runtime in runtimes() {
        let arena = arena(2, 64);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(Engine::Readiness).build()?;
            let mut idle = Vec::new();
            for _ in 0..50 {
                let (near, far) = UnixStream::pair()?;
                let mut stream = pool.stream(near)?;
                assert!(timeout(Duration::from_millis(1), stream.try_next()).await.is_err());
                idle.push((stream, far));
            }
            // Those that have bytes which nobody reads do not either.
            for (_, far) in &mut idle {
                far.write_all(&[7; 1000]).await?;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert_eq!(arena.metrics().bytes_live, 0);
            for (stream, _) in &mut idle {
                assert_eq!(timeout(TIMEOUT, stream.try_next()).await??.unwrap(), [7; 64][..]);
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// A stream whose peer never stops lets the other tasks of its thread run.
#[test]
fn a_busy_stream_takes_part_in_the_budget_of_its_task() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = arena(64, 64);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let (near, far) = std::os::unix::net::UnixStream::pair()?;
            let sending =
                std::thread::spawn(move || while (&far).write_all(&[7; 65536]).is_ok() {});
            let mut stream = pool.stream(near)?;
            let turns = turns_beside(async move {
                // Without a break of the program's own.
                for _ in 0..20_000 {
                    stream.try_next().await.unwrap().unwrap();
                }
            })
            .await;
            assert!(turns >= 20, "{turns} turns beside 20,000 messages");
            sending.join().unwrap();
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// A sender whose peer always reads lets the other tasks of its thread run.
#[test]
fn a_busy_sender_takes_part_in_the_budget_of_its_task() -> Outcome {
    for (runtime, engine) in settings() {
        runtime.block_on(async {
            let pool = Pool::builder(arena(64, 64)).engine(engine).build()?;
            let (near, mut far) = std::os::unix::net::UnixStream::pair()?;
            let reading = std::thread::spawn(move || std::io::copy(&mut far, &mut std::io::sink()));
            let stream = pool.stream(near)?;
            let turns = turns_beside(async move {
                // Without a break of the program's own, and with room for all.
                for _ in 0..5000 {
                    stream.send(Bytes::from_static(b"hello")).await.unwrap();
                }
            })
            .await;
            // On another thread the other task depends on the machine.
            let is_one_thread = Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread;
            assert!(turns >= 20 || !is_one_thread, "{turns} turns beside 5,000 sends");
            tokio::task::spawn_blocking(|| reading.join().unwrap()).await??;
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
    }
    Ok(())
}

/// A starved stream that nothing polls any more stops no other, and holds no slot.
#[test]
fn a_starved_stream_that_nothing_polls_stops_no_other() -> Outcome {
    for runtime in runtimes() {
        let arena = arena(1, 64);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(Engine::Readiness).build()?;
            let mut streams = Vec::new();
            for _ in 0..20 {
                let (near, mut far) = UnixStream::pair()?;
                far.write_all(&[7; 64 * 100]).await?;
                streams.push((pool.stream(near)?, far));
            }
            let held = pool.allocate().await;
            for (stream, _) in &mut streams {
                assert!(timeout(Duration::from_millis(2), stream.try_next()).await.is_err());
            }
            drop(held);
            // Only the last one is polled from here on.
            let (last, _far) = streams.last_mut().unwrap();
            for _ in 0..50 {
                assert_eq!(timeout(TIMEOUT, last.try_next()).await??.unwrap(), [7; 64][..]);
                let claimed = timeout(TIMEOUT, pool.allocate()).await?;
                drop(claimed);
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// Many streams and one slot, on tasks that all read: each gets its turn, also when the runtime of
/// the task that serves the line ends.
#[test]
fn starved_streams_of_several_runtimes_are_served_though_one_ends() -> Outcome {
    let arena = arena(1, 64);
    let pool = Pool::builder(arena.clone()).engine(Engine::Readiness).build()?;
    let [first, second] = runtimes();
    let held = arena.allocate()?;
    let read = |pool: &Pool| {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        (&far).write_all(&[7; 64 * 20]).unwrap();
        let mut stream = pool.stream(near).unwrap();
        tokio::spawn(async move {
            let _far = far;
            for _ in 0..20 {
                timeout(TIMEOUT, stream.try_next()).await.unwrap().unwrap().unwrap();
            }
        })
    };
    // Its tasks begin the line, and never come to read.
    let pool = first.block_on(async {
        for _ in 0..4 {
            drop(read(&pool));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        pool
    });
    let tasks: Vec<_> = second.block_on(async { (0..8).map(|_| read(&pool)).collect() });
    std::thread::sleep(Duration::from_millis(10));
    drop(first);
    drop(held);
    second.block_on(async {
        for task in tasks {
            timeout(TIMEOUT, task).await??;
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    second.block_on(until_all_free(&arena));
    Ok(())
}

/// A stream that receives much takes several slots by one call. Readers that stop then hold half of
/// the slots at most: others go on, and the bytes come in order.
#[test]
fn slots_that_are_received_ahead_leave_room_for_others() -> Outcome {
    for runtime in runtimes() {
        let arena = arena(64, 64);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(Engine::Readiness).build()?;
            let mut stopped = Vec::new();
            for id in 0..20 {
                let (near, mut far) = UnixStream::pair()?;
                let expected = pattern(id, 64 * 200);
                far.write_all(&expected).await?;
                let mut stream = pool.stream(near)?;
                let mut received = Vec::new();
                // Enough that the next receives take several slots.
                for _ in 0..6 {
                    received
                        .extend_from_slice(&timeout(TIMEOUT, stream.try_next()).await??.unwrap());
                }
                stopped.push((stream, far, received, expected));
            }
            let held = arena.slot_states();
            assert!(held.free < 64, "some were received ahead: {held:?}");
            assert!(held.free >= 32, "{held:?}");
            let (near, mut far) = UnixStream::pair()?;
            let mut other = pool.stream(near)?;
            for turn in 0..100u8 {
                far.write_all(&[turn; 64]).await?;
                let bytes = timeout(TIMEOUT, other.try_next()).await??.unwrap();
                assert_eq!(bytes, [turn; 64][..]);
            }
            for (mut stream, far, mut received, expected) in stopped {
                drop(far);
                while let Some(bytes) = timeout(TIMEOUT, stream.try_next()).await?? {
                    received.extend_from_slice(&bytes);
                }
                assert!(received == expected);
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// The engine's task looks twice at each wake: for what woke it, and whether it may sleep. Only one
/// of the two looks enters the kernel.
#[cfg(feature = "io-uring")]
#[test]
fn a_wake_of_a_ring_in_a_runtime_of_one_thread_enters_the_kernel_once() {
    const MESSAGES: u64 = 500;
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let arena = paged_arena(64, 4096);
        let pool = match Pool::builder(arena.clone()).engine(Engine::Ring).build() {
            Ok(pool) => pool,
            Err(error) => return eprintln!("SKIPPED: {error}"),
        };
        let (near, far) = UnixStream::pair().unwrap();
        let far = far.into_std().unwrap();
        let mut incoming = pool.recv_stream(near).unwrap();
        let mut enters = Vec::new();
        for number in 0..=MESSAGES {
            (&far).write_all(&[7; 64]).unwrap();
            let bytes = timeout(TIMEOUT, incoming.try_next()).await.unwrap().unwrap().unwrap();
            assert_eq!(bytes.len(), 64);
            drop(bytes);
            if number == 0 || number == MESSAGES {
                enters.push(pool.metrics().driver.enters);
            }
        }
        // Refills, and what else there is now and then, need no more than a few.
        let entered = enters[1] - enters[0];
        assert!((MESSAGES / 2..MESSAGES * 5 / 4).contains(&entered), "{entered} system calls");
        let report = timeout(TIMEOUT, pool.shutdown()).await.unwrap().unwrap();
        assert_eq!(report.in_flight, 0);
        drop(incoming);
        until_all_free(&arena).await;
    });
}
