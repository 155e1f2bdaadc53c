//! Payloads and wakers that panic inside a pool: they harm nobody but their own task.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use crate::support::runtimes::{Outcome, bomb};
use crate::support::tokio::{rings, settings, tcp_pair, until, until_all_free};
use crate::support::{TIMEOUT, TestFile, filled, paged_arena};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use uring_arena::FixedArena;
use uring_arena::tokio::{Engine, Pool, RecvStream};

struct BombWaker;

impl Wake for BombWaker {
    fn wake(self: Arc<Self>) {
        panic!("a waker panics, as this test wants");
    }
}

/// Polls a future once with a waker that panics, so that it is kept by what the future waits for.
fn poll_with_bomb<F: Future>(future: F) {
    let waker = Waker::from(Arc::new(BombWaker));
    let mut future = pin!(future);
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
}

/// Fails unless another connection of the pool receives.
async fn assert_works(stream: &mut RecvStream, peer: &mut TcpStream) {
    peer.write_all(b"other").await.unwrap();
    let other = timeout(TIMEOUT, stream.try_next()).await.expect("the pool stands still");
    assert_eq!(other.unwrap().unwrap(), "other");
}

/// Runs `test` on each runtime, with a pool of each kind, and another connection that must go on.
fn on_each_engine<F>(engines: &[Engine], test: impl Fn(Pool, FixedArena) -> F) -> Outcome
where
    F: Future<Output = Result<Pool, Box<dyn std::error::Error>>>,
{
    for (runtime, engine) in settings().filter(|(_, engine)| engines.contains(engine)) {
        for own_thread in [false, true] {
            let arena = paged_arena(16, 4096);
            runtime.block_on(async {
                let builder = Pool::builder(arena.clone()).engine(engine);
                let pool = if own_thread { builder.own_thread() } else { builder }.build()?;
                let (near, mut far) = tcp_pair().await;
                let mut stream = pool.recv_stream(near)?;
                let pool = test(pool, arena.clone()).await?;
                assert_works(&mut stream, &mut far).await;
                let report = timeout(TIMEOUT, pool.shutdown()).await??;
                assert_eq!((report.in_flight, report.quarantined), (0, 0));
                Ok::<_, Box<dyn std::error::Error>>(())
            })?;
            runtime.block_on(until_all_free(&arena));
        }
    }
    Ok(())
}

#[test]
fn a_payload_that_panics_is_sent_and_written_and_harms_nobody() -> Outcome {
    on_each_engine(&[Engine::Ring, Engine::Readiness], |pool, arena| async move {
        let (near, mut far) = tcp_pair().await;
        let (_incoming, outgoing) = pool.split(near)?;
        timeout(TIMEOUT, outgoing.send(bomb(10))).await??;
        let mut came = [0; 10];
        far.read_exact(&mut came).await?;
        // The sender itself goes on too.
        timeout(TIMEOUT, outgoing.send(filled(&arena, b"more"))).await??;
        far.read_exact(&mut came[..4]).await?;
        assert_eq!(&came[..4], b"more");
        let path = TestFile::new("panics", b"");
        let file = pool.file(path.open())?;
        timeout(TIMEOUT, file.write_at(bomb(10), 0)).await??;
        assert_eq!(std::fs::read(&path)?, [1; 10]);
        // Nobody waits for these any more.
        for _ in 0..3 {
            let write = pin!(file.write_at(bomb(10), 0));
            let mut context = Context::from_waker(Waker::noop());
            let _ = write.poll(&mut context).is_pending();
        }
        // A refused one comes back to the engine.
        let refused = timeout(TIMEOUT, file.write_at(bomb(10), u64::MAX)).await?;
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
        timeout(TIMEOUT, file.read_at(pool.try_allocate()?, 0)).await??;
        Ok(pool)
    })
}

#[cfg(feature = "io-uring")]
#[test]
fn a_waker_that_panics_harms_its_own_task_alone() -> Outcome {
    on_each_engine(&[Engine::Ring], |pool, arena| async move {
        // A stream, and one that ends.
        let (near, mut far) = tcp_pair().await;
        let mut stream = pool.recv_stream(near)?;
        poll_with_bomb(stream.try_next());
        far.write_all(b"bytes").await?;
        let (near, gone) = tcp_pair().await;
        let mut ends = pool.recv_stream(near)?;
        poll_with_bomb(ends.try_next());
        drop(gone);
        // A read that waits, and its end.
        let (near, mut peer) = tcp_pair().await;
        let socket = pool.file(near.into_std()?)?;
        let mut read = Box::pin(socket.read_at(pool.try_allocate()?, 0));
        let waker = Waker::from(Arc::new(BombWaker));
        assert!(read.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        peer.write_all(b"read").await?;
        // The bytes are there, whoever was woken for them.
        assert_eq!(timeout(TIMEOUT, stream.try_next()).await??.unwrap(), "bytes");
        assert!(timeout(TIMEOUT, ends.try_next()).await??.is_none());
        assert_eq!(timeout(TIMEOUT, read).await??[..], *b"read");
        drop(arena);
        Ok(pool)
    })
}

/// A shutdown ends everything, past every payload and waker that panics.
#[test]
fn a_shutdown_with_payloads_and_wakers_that_panic_tells_everybody() -> Outcome {
    for (runtime, engine) in rings() {
        let arena = paged_arena(16, 4096);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            // A send that is stuck, with others behind it.
            let (near, far) = tcp_pair().await;
            let (mut incoming, outgoing) = pool.split(near)?;
            timeout(TIMEOUT, outgoing.send(bomb(16 << 20))).await??;
            poll_with_bomb(outgoing.flush());
            poll_with_bomb(incoming.try_next());
            let mut streams = Vec::new();
            for number in 0..6 {
                let (near, far) = tcp_pair().await;
                let mut stream = pool.recv_stream(near)?;
                match number % 2 {
                    0 => poll_with_bomb(stream.try_next()),
                    _ => poll_with_noop(stream.try_next()),
                }
                streams.push((stream, far));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            let report = timeout(TIMEOUT, pool.shutdown()).await??;
            assert_eq!((report.in_flight, report.quarantined), (0, 0));
            for (mut stream, _far) in streams {
                let end = timeout(TIMEOUT, stream.try_next()).await?;
                assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
            }
            drop((incoming, outgoing, far));
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until("all is free", || arena.metrics().bytes_live == 0));
    }
    Ok(())
}

fn poll_with_noop<F: Future>(future: F) {
    let mut future = pin!(future);
    assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
}
