//! The end of a tokio pool: it blocks nobody, closes its connections, and loses nothing uncounted;
//! and the threads that a pool may be built on.

use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::runtimes::{Outcome, full_connection};
use crate::support::tokio::{
    RingsOnly, narrow_pair, read_to_the_end, rings, runtimes, settings, tcp_pair, until,
    until_all_free,
};
use crate::support::{TIMEOUT, paged_arena, pattern};
use bytes::{BufMut, Bytes};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{LocalSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use uring_arena::tokio::{Engine, Pool, PoolError};
use uring_arena::{FixedArena, SendOptions};

/// More than a narrow connection holds, and less than a queue takes.
const MANY: usize = 600_000;

/// A gap between two ticks of a runtime that nothing blocks, on the busiest machine.
const GAP_MAX: Duration = Duration::from_secs(3);

fn arena() -> FixedArena {
    paged_arena(64, 65536)
}

/// Runs a task that ticks until it is told to stop. Returns the longest gap between two ticks.
async fn ticking<T>(during: impl Future<Output = T>) -> (T, Duration) {
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let ticker = tokio::spawn(async move {
        let (mut longest, mut last) = (Duration::ZERO, Instant::now());
        loop {
            let is_over = timeout(Duration::from_millis(2), &mut stopped).await.is_ok();
            longest = longest.max(last.elapsed());
            last = Instant::now();
            if is_over {
                return longest;
            }
        }
    });
    tokio::task::yield_now().await;
    let output = during.await;
    drop(stop);
    (output, ticker.await.unwrap())
}

/// Peers that neither read nor answer, one of each kind of operation.
async fn stuck(pool: &Pool) -> Result<Vec<Box<dyn Send>>, Box<dyn std::error::Error>> {
    let mut kept: Vec<Box<dyn Send>> = Vec::new();
    let (near, far) = narrow_pair().await;
    let (incoming, outgoing) = pool.split(near)?;
    let mut slot = pool.try_allocate()?;
    slot.put_bytes(1, 65536);
    outgoing.send_with(slot, SendOptions::new().zero_copy_from(1)).await?;
    outgoing.send(Bytes::from(vec![2; 500_000])).await?;
    assert!(timeout(Duration::from_millis(30), outgoing.flush()).await.is_err());
    kept.push(Box::new((incoming, outgoing, far)));
    let (near, far) = UnixStream::pair()?;
    let (incoming, outgoing) = pool.split(near)?;
    outgoing.send(Bytes::from(vec![3; 900_000])).await?;
    kept.push(Box::new((incoming, outgoing, far)));
    let (silent, far) = std::os::unix::net::UnixStream::pair()?;
    let (silent, buffer) = (pool.file(silent)?, pool.try_allocate()?);
    kept.push(Box::new(tokio::spawn(async move { silent.read_at(buffer, 0).await.map(drop) })));
    kept.push(Box::new(far));
    Ok(kept)
}

#[test]
fn a_shutdown_blocks_no_other_task_and_frees_all() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = arena();
        let gap = runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let kept = stuck(&pool).await?;
            let (report, gap) = ticking(timeout(TIMEOUT, pool.shutdown())).await;
            let report = report??;
            assert_eq!((report.in_flight, report.quarantined), (0, 0));
            until_all_free(&arena).await;
            drop(kept);
            Ok::<_, Box<dyn std::error::Error>>(gap)
        })?;
        assert!(gap < GAP_MAX, "the runtime stood still for {gap:?}");
    }
    Ok(())
}

/// A task writes to a peer that does not read. A Unix socket that was shut down is not writable, so
/// that it tells nothing of the end.
#[test]
fn a_write_that_waits_is_told_of_the_end() -> Outcome {
    for (runtime, engine) in settings() {
        for own_thread in [false, true] {
            let arena = arena();
            runtime.block_on(async {
                let builder = Pool::builder(arena.clone()).engine(engine);
                let builder = if own_thread { builder.own_thread() } else { builder };
                let pool = builder.build()?;
                let mut writing = Vec::new();
                let (near, far) = UnixStream::pair()?;
                let (near_tcp, far_tcp) = narrow_pair().await;
                for halves in [pool.split(near)?, pool.split(near_tcp)?] {
                    writing.push(tokio::spawn(async move {
                        let (_incoming, mut outgoing) = halves;
                        outgoing.write_all(&vec![1; 64 * MANY]).await.unwrap_err().kind()
                    }));
                }
                sleep(Duration::from_millis(20)).await;
                timeout(TIMEOUT, pool.shutdown()).await??;
                for task in writing {
                    assert_eq!(timeout(TIMEOUT, task).await??, ErrorKind::BrokenPipe);
                }
                drop((far, far_tcp));
                Ok::<_, Box<dyn std::error::Error>>(())
            })?;
        }
    }
    Ok(())
}

/// A half that was dropped before may go on to send for some seconds. Other tasks run meanwhile.
#[test]
fn a_shutdown_that_waits_for_a_stuck_peer_blocks_no_other_task_and_ends() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = arena();
        let gap = runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let (near, far) = narrow_pair().await;
            let (incoming, outgoing) = pool.split(near)?;
            outgoing.send(Bytes::from(vec![1; MANY])).await?;
            drop((incoming, outgoing));
            let (report, gap) = ticking(timeout(TIMEOUT, pool.shutdown())).await;
            assert_eq!(report??.in_flight, 0);
            let (received, was_reset) = read_to_the_end(far).await;
            assert!(was_reset && received.len() < MANY);
            until_all_free(&arena).await;
            Ok::<_, Box<dyn std::error::Error>>(gap)
        })?;
        assert!(gap < GAP_MAX, "the runtime stood still for {gap:?}");
    }
    Ok(())
}

#[test]
fn the_last_handle_blocks_no_task_when_it_is_dropped() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = arena();
        let gap = runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let kept = stuck(&pool).await?;
            let ((), gap) = ticking(async {
                drop(pool);
                // The peers are among them: the sends fail.
                drop(kept);
                sleep(Duration::from_millis(100)).await;
            })
            .await;
            Ok::<_, Box<dyn std::error::Error>>(gap)
        })?;
        assert!(gap < GAP_MAX, "the runtime stood still for {gap:?}");
        // The task that read is of the runtime, and keeps its file.
        drop(runtime);
        runtimes()[0].block_on(until_all_free(&arena));
    }
    Ok(())
}

#[test]
fn connections_are_closed_by_a_shutdown_though_their_halves_are_kept() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = arena();
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let mut kept = Vec::new();
            for sends in 0..3 {
                let (near, mut far) = tcp_pair().await;
                let (mut incoming, mut outgoing) = pool.split(near)?;
                far.write_all(b"hello").await?;
                assert_eq!(timeout(TIMEOUT, incoming.try_next()).await??.unwrap(), "hello");
                match sends {
                    0 => {}
                    1 => outgoing.write_all(b"x").await?,
                    _ => outgoing.send(Bytes::from_static(b"x")).await?,
                }
                outgoing.flush().await?;
                kept.push((incoming, outgoing, far, sends));
            }
            let file = pool.file(std::fs::File::open("Cargo.toml")?)?;
            let other = pool.clone();
            timeout(TIMEOUT, pool.shutdown()).await??;
            for (mut incoming, mut outgoing, far, sends) in kept {
                let (received, was_reset) = read_to_the_end(far).await;
                assert_eq!((received.len(), was_reset), (usize::from(sends > 0), false));
                for _ in 0..2 {
                    let late = outgoing.write_all(b"late").await.unwrap_err();
                    assert_eq!(late.kind(), ErrorKind::BrokenPipe);
                    let late = outgoing.send(Bytes::from_static(b"late")).await.unwrap_err();
                    assert!(late.to_string().contains("shut down"), "{late}");
                }
                let late = timeout(TIMEOUT, incoming.try_next()).await?.unwrap_err();
                assert_eq!(late.kind(), ErrorKind::BrokenPipe);
            }
            // A connection that the ended pool is given is closed too.
            let (near, far) = tcp_pair().await;
            let (incoming, mut outgoing) = other.split(near)?;
            assert!(outgoing.write_all(b"late").await.is_err());
            assert_eq!(read_to_the_end(far).await, (Vec::new(), false));
            drop((incoming, outgoing, file));
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// A write goes on though its future, its file and the pool are dropped.
#[test]
fn writes_that_were_begun_are_finished_though_everything_is_dropped() -> Outcome {
    for (runtime, engine) in rings() {
        let arena = arena();
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let (near, mut far) = full_connection();
            far.set_nonblocking(false)?;
            let file = pool.file(near)?;
            let mut slot = pool.try_allocate()?;
            slot.put_slice(b"the end");
            assert!(timeout(Duration::from_millis(30), file.write_at(slot, 0)).await.is_err());
            drop((file, pool));
            sleep(Duration::from_millis(30)).await;
            let received = spawn_blocking(move || {
                let mut all = Vec::new();
                far.read_to_end(&mut all).map(|_| all)
            });
            assert!(timeout(TIMEOUT, received).await???.ends_with(b"the end"));
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Fails unless a pool serves.
#[cfg(feature = "io-uring")]
async fn assert_serves(pool: Pool) {
    let (near, mut far) = tcp_pair().await;
    let (mut incoming, outgoing) = pool.split(near).unwrap();
    far.write_all(b"ping").await.unwrap();
    assert_eq!(timeout(TIMEOUT, incoming.try_next()).await.unwrap().unwrap().unwrap(), "ping");
    outgoing.send(Bytes::from_static(b"pong")).await.unwrap();
    drop((incoming, outgoing));
    timeout(TIMEOUT, pool.shutdown()).await.expect("shut down").unwrap();
    assert_eq!(read_to_the_end(far).await, (b"pong".to_vec(), false));
}

#[cfg(feature = "io-uring")]
fn ring_pool(arena: FixedArena) -> Result<Pool, PoolError> {
    Pool::builder(arena).engine(Engine::Ring).build()
}

#[cfg(feature = "io-uring")]
fn assert_refused(built: Result<Pool, PoolError>) {
    let error = built.expect_err("a pool that nothing would turn");
    assert!(matches!(error, PoolError::OtherThread), "{error}");
    let text = error.to_string();
    assert!(text.contains("own_thread") && text.contains("spawn_blocking"), "{text}");
}

/// A one-thread runtime turns its pool on the thread that is inside `block_on`, and on no other.
#[cfg(feature = "io-uring")]
#[test]
fn a_pool_that_its_thread_would_not_turn_is_refused_when_it_is_built() -> Outcome {
    let arena = arena();
    let build = |arena: &FixedArena| ring_pool(arena.clone());
    let runtime = one_thread();
    runtime.block_on(async {
        let (first, second) = (arena.clone(), arena.clone());
        // A thread for blocking work; and a task that such a thread waits for.
        assert_refused(spawn_blocking(move || build(&first)).await?);
        let handle = tokio::runtime::Handle::current();
        let nested = handle.clone();
        let built = spawn_blocking(move || nested.block_on(async { build(&second) })).await?;
        assert_refused(built);
        // Another thread that has entered the runtime, and one that drives a future by it.
        let (first, second, other) = (arena.clone(), arena.clone(), handle.clone());
        let entered = std::thread::spawn(move || {
            let _entered = other.enter();
            build(&first)
        });
        assert_refused(entered.join().unwrap());
        let driven = std::thread::spawn(move || handle.block_on(async { build(&second) }));
        assert_refused(driven.join().unwrap());
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    // A thread that turns another runtime, of either kind.
    for other in runtimes() {
        let (cloned, handle) = (arena.clone(), runtime.handle().clone());
        let built = other.block_on(async move {
            let build = async move {
                let _entered = handle.enter();
                ring_pool(cloned)
            };
            tokio::spawn(build).await
        });
        assert_refused(built?);
    }
    // Nothing turns the runtime here.
    let entered = runtime.enter();
    assert_refused(build(&arena));
    let with_thread = Pool::builder(arena.clone()).engine(Engine::Ring).own_thread().build()?;
    drop(entered);
    runtime.block_on(assert_serves(with_thread));
    runtime.block_on(until_all_free(&arena));
    Ok(())
}

#[cfg(feature = "io-uring")]
#[test]
fn a_pool_serves_wherever_it_can_be_built() -> Outcome {
    let arena = arena();
    let pool = || ring_pool(arena.clone()).unwrap();
    let runtime = one_thread();
    runtime.block_on(async {
        // In the future of `block_on`, in a task, in a task of one thread.
        assert_serves(pool()).await;
        let cloned = arena.clone();
        tokio::spawn(async move { assert_serves(ring_pool(cloned).unwrap()).await }).await?;
        let local = LocalSet::new();
        let cloned = arena.clone();
        local
            .run_until(async {
                let task = async move { assert_serves(ring_pool(cloned).unwrap()).await };
                tokio::task::spawn_local(task).await
            })
            .await?;
        // A future that is polled by another executor inside a task.
        let nested = futures::executor::block_on(async { pool() });
        assert_serves(nested).await;
        // Built on another thread with a thread of its own.
        let cloned = arena.clone();
        let built =
            spawn_blocking(move || Pool::builder(cloned).engine(Engine::Ring).own_thread().build())
                .await?;
        assert_serves(built?).await;
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    LocalSet::new().block_on(&runtime, async { assert_serves(pool()).await });
    let local = Builder::new_current_thread().enable_all().build_local(Default::default())?;
    local.block_on(async { assert_serves(pool()).await });
    // Beside threads that give the runtime tasks without a break.
    let is_over = Arc::new(AtomicUsize::new(0));
    let (handle, stop) = (runtime.handle().clone(), Arc::clone(&is_over));
    let busy = std::thread::spawn(move || {
        while stop.load(Ordering::SeqCst) == 0 {
            drop(handle.spawn(async {}));
        }
    });
    runtime.block_on(async {
        for _ in 0..20 {
            assert_serves(pool()).await;
        }
    });
    is_over.store(1, Ordering::SeqCst);
    busy.join().unwrap();
    let [_, two_threads] = runtimes();
    two_threads.block_on(async {
        let cloned = arena.clone();
        assert_serves(spawn_blocking(|| ring_pool(cloned)).await??).await;
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    let handle = two_threads.handle().clone();
    let cloned = arena.clone();
    let elsewhere = std::thread::spawn(move || {
        handle.block_on(async { assert_serves(ring_pool(cloned).unwrap()).await });
    });
    elsewhere.join().unwrap();
    runtime.block_on(assert_serves(pool()));
    // Outside of any runtime.
    let pool = pool();
    runtime.block_on(assert_serves(pool));
    runtime.block_on(until_all_free(&arena));
    Ok(())
}

/// A one-thread runtime that another thread drives or drops ends its pool: connections are closed,
/// all are told, and slots that may still be in use are counted.
#[cfg(feature = "io-uring")]
#[test]
fn a_runtime_that_is_driven_or_dropped_elsewhere_leaks_nothing_uncounted() -> Outcome {
    for is_driven in [true, false] {
        for has_traffic in [true, false] {
            let arena = arena();
            let runtime = one_thread();
            let (pool, mut incoming, outgoing, far) = runtime.block_on(async {
                let pool = Pool::builder(arena.clone()).engine(Engine::Ring).entries(8).build()?;
                let (near, far) = narrow_pair().await;
                let (mut incoming, outgoing) = pool.split(near)?;
                if has_traffic {
                    let mut slot = pool.try_allocate()?;
                    slot.put_bytes(1, 65536);
                    outgoing.send_with(slot, SendOptions::new().zero_copy_from(1)).await?;
                    outgoing.send(Bytes::from(pattern(1, MANY))).await?;
                }
                let short = Duration::from_millis(20);
                assert!(timeout(short, incoming.try_next()).await.is_err());
                let far = far.into_std()?;
                Ok::<_, Box<dyn std::error::Error>>((pool, incoming, outgoing, far))
            })?;
            let cloned = pool.clone();
            let elsewhere = std::thread::spawn(move || {
                if is_driven {
                    runtime.block_on(async {
                        // The engine has something to do.
                        let file = cloned.file(std::fs::File::open("Cargo.toml").unwrap());
                        sleep(Duration::from_millis(20)).await;
                        drop(file);
                    });
                }
                drop((runtime, cloned));
            });
            elsewhere.join().unwrap();
            let told = one_thread().block_on(async {
                let received = timeout(TIMEOUT, incoming.try_next()).await?;
                let sent = timeout(TIMEOUT, outgoing.send(Bytes::from_static(b"late"))).await?;
                assert_eq!(received.unwrap_err().kind(), ErrorKind::BrokenPipe);
                let told = sent.unwrap_err();
                assert_eq!(told.kind(), ErrorKind::BrokenPipe);
                drop((incoming, outgoing, pool));
                let (_, was_reset) = read_to_the_end(TcpStream::from_std(far)?).await;
                assert_eq!(was_reset, has_traffic, "driven {is_driven}");
                Ok::<_, Box<dyn std::error::Error>>(told)
            })?;
            assert!(!is_driven || told.to_string().contains("own_thread"), "{told}");
            let (metrics, states) = (arena.metrics(), arena.slot_states());
            assert_eq!(states.total(), 64);
            assert_eq!(states.free + states.quarantined, 64, "{states:?}");
            assert_eq!(metrics.quarantined as usize, states.quarantined, "{metrics:?}");
            assert!(states.quarantined <= 9, "those of the ring, and the zero-copy send's");
        }
    }
    Ok(())
}

/// The engine goes on while a task of its runtime keeps a handle, and ends with the runtime.
#[cfg(feature = "io-uring")]
#[test]
fn a_runtime_that_ends_tells_those_who_wait_elsewhere() -> Outcome {
    let arena = arena();
    let runtime = one_thread();
    let (mut incoming, file, buffer, _far) = runtime.block_on(async {
        let pool = ring_pool(arena.clone())?;
        let (near, far) = tcp_pair().await;
        let (silent, other) = std::os::unix::net::UnixStream::pair()?;
        let (file, buffer) = (pool.file(silent)?, pool.try_allocate()?);
        Ok::<_, Box<dyn std::error::Error>>((pool.recv_stream(near)?, file, buffer, (far, other)))
    })?;
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let waiting = std::thread::spawn(move || {
        one_thread().block_on(async move {
            let (received, read) = tokio::join!(incoming.try_next(), file.read_at(buffer, 0));
            assert_eq!(received.unwrap_err().kind(), ErrorKind::BrokenPipe);
            assert_eq!(read.unwrap_err().kind(), ErrorKind::BrokenPipe);
            count.fetch_add(1, Ordering::SeqCst);
        });
    });
    runtime.block_on(async { sleep(Duration::from_millis(30)).await });
    drop(runtime);
    one_thread().block_on(until("both are told", || told.load(Ordering::SeqCst) == 1));
    waiting.join().unwrap();
    one_thread().block_on(until_all_free(&arena));
    Ok(())
}

/// A process may end right behind its runtime.
#[test]
fn a_runtime_that_ends_waits_for_no_peer() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = arena();
        let far = runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let (near, far) = narrow_pair().await;
            let (incoming, outgoing) = pool.split(near)?;
            outgoing.send(Bytes::from(pattern(1, MANY))).await?;
            tokio::spawn(async move {
                std::future::pending::<()>().await;
                drop((incoming, outgoing, pool));
            });
            Ok::<_, Box<dyn std::error::Error>>(far.into_std()?)
        })?;
        let began = Instant::now();
        drop(runtime);
        assert!(began.elapsed() < GAP_MAX, "{:?}", began.elapsed());
        // What the kernel has is not read before: the reset is there now.
        let [other, _] = runtimes();
        other.block_on(async {
            let (received, was_reset) = read_to_the_end(TcpStream::from_std(far)?).await;
            assert!(was_reset && received.len() < MANY);
            until_all_free(&arena).await;
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
    }
    Ok(())
}

/// A program may end behind its last message: what the kernel takes at once arrives.
#[test]
fn the_last_message_arrives_though_its_runtime_ends_at_once() -> Outcome {
    const TURNS: usize = 20;
    for kind in 0..settings().count() {
        let mut arrived = 0;
        for turn in 0..TURNS {
            let (runtime, engine) = settings().nth(kind).unwrap();
            let arena = arena();
            let far = runtime.block_on(async {
                let pool = Pool::builder(arena.clone()).engine(engine).build()?;
                let (near, far) = tcp_pair().await;
                let (_incoming, outgoing) = pool.split(near)?;
                for _ in 0..turn {
                    outgoing.send(Bytes::from_static(b"first ")).await?;
                }
                outgoing.send(Bytes::from_static(b"last")).await?;
                Ok::<_, Box<dyn std::error::Error>>(far.into_std()?)
            })?;
            drop(runtime);
            let other = one_thread();
            let (received, was_reset) = other.block_on(async {
                Ok::<_, std::io::Error>(read_to_the_end(TcpStream::from_std(far)?).await)
            })?;
            let expected = [b"first ".repeat(turn), b"last".to_vec()].concat();
            assert!(expected.starts_with(&received));
            assert!(was_reset || received == expected, "cut, and nobody is told");
            arrived += usize::from(!was_reset);
            other.block_on(until_all_free(&arena));
        }
        // An engine's thread may not get to run in time on a busy machine.
        assert!(arrived >= TURNS / 2, "{arrived} of {TURNS}");
    }
    Ok(())
}

/// The memory of a write to a file is free, and written, when the last handle is gone.
#[test]
fn a_file_is_written_though_its_pool_is_dropped_at_once() -> Outcome {
    let path = crate::support::TestFile::new("dropped-pool", &[]);
    for (runtime, engine) in settings() {
        let arena = arena();
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let file = pool.file(path.open())?;
            for turn in 0..32 {
                let mut slot = pool.try_allocate()?;
                slot.put_bytes(turn as u8, 65536);
                let write = file.write_at(slot, turn * 65536);
                let mut write = std::pin::pin!(write);
                let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                let _ = write.as_mut().poll(&mut context);
            }
            drop((file, pool));
            until_all_free(&arena).await;
            let mut written = Vec::new();
            path.open().read_to_end(&mut written)?;
            assert_eq!(written.len(), 32 * 65536);
            let is_whole = |(turn, part): (usize, &[u8])| part.iter().all(|&b| b == turn as u8);
            assert!(written.chunks(65536).enumerate().all(is_whole));
            path.open().write_all(&[0xFF; 32 * 65536])?;
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
    }
    Ok(())
}
