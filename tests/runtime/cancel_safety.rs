//! Every future of the library dropped at every point at which it can be: after no poll, after one,
//! after two, until it is ready before it can be dropped. Whatever it had under way ends by itself,
//! and every slot comes back.

use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};
use uring_arena::tokio::Pool;
use uring_arena::{BuddyArena, BuddyGeometry, Buffer, BufferRing, FixedArena, SendOptions};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const PATIENCE: Duration = Duration::from_secs(20);

/// More polls than any future here takes; a future that takes more would be tested in part only.
const POLLS_MAX: usize = 50;

fn nz(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

fn arena() -> FixedArena {
    FixedArena::with_slot_capacity(nz(16), nz(65536)).alignment(4096).build().unwrap()
}

/// Each test on every runtime of tokio.
fn runtimes() -> [Runtime; 2] {
    let multi = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    [Builder::new_current_thread().enable_all().build().unwrap(), multi]
}

/// Polls `future` when it is woken, `polls` times at most, and drops it then. What it came to, if
/// it did.
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
    timeout(PATIENCE, polling).await.expect("a future that is never woken")
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (accepted, connected) = tokio::join!(listener.accept(), TcpStream::connect(address));
    (accepted.unwrap().0, connected.unwrap())
}

fn filled(pool: &Pool, byte: u8) -> Buffer {
    let mut buffer = pool.allocate().unwrap();
    buffer.put_bytes(byte, 65536);
    buffer
}

/// Every slot is free again, by and by.
async fn is_at_rest(arena: &FixedArena) {
    let wait = async {
        while arena.slot_states().free < 16 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("slots are missing: {:?}", arena.slot_states()));
    assert_eq!(arena.metrics().quarantined, 0);
}

#[test]
fn a_receive_that_is_dropped_loses_no_byte() -> Outcome {
    for runtime in runtimes() {
        let arena = arena();
        runtime.block_on(async {
            let pool =
                Pool::builder(arena.clone()).ring(BufferRing::options().entries(4)).build()?;
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
                received
                    .extend_from_slice(&timeout(PATIENCE, incoming.try_next()).await??.unwrap());
            }
            assert!(received == expected);
            // Dropped with bytes on their way.
            far.write_all(&[1; 100_000]).await?;
            drop(incoming);
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(is_at_rest(&arena));
    }
    Ok(())
}

#[test]
fn a_send_that_is_dropped_sends_all_or_nothing_and_gives_its_memory_back() -> Outcome {
    for runtime in runtimes() {
        for zero_copy_from in [1, usize::MAX] {
            let arena = arena();
            runtime.block_on(async {
                let pool =
                    Pool::builder(arena.clone()).ring(BufferRing::options().entries(2)).build()?;
                let (near, mut far) = tcp_pair().await;
                let (incoming, mut outgoing) = pool.split(near)?;
                let reader = tokio::spawn(async move {
                    let mut all = Vec::new();
                    far.read_to_end(&mut all).await.unwrap();
                    all
                });
                let options = SendOptions::new().zero_copy_from(zero_copy_from);
                let mut finished = 0;
                for polls in 0..POLLS_MAX {
                    let send = outgoing.send_with(filled(&pool, polls as u8), options);
                    if let Some(sent) = dropped_after(polls, send).await {
                        sent?;
                        finished = polls;
                        break;
                    }
                }
                assert!(finished > 0);
                outgoing.shutdown().await?;
                drop((incoming, outgoing));
                let all = timeout(PATIENCE, reader).await??;
                // The first was never begun; each of the others went out whole, in order.
                let pieces: Vec<u8> = all.chunks(65536).map(|piece| piece[0]).collect();
                assert!(all.chunks(65536).all(|piece| piece.iter().all(|&byte| byte == piece[0])));
                assert_eq!(all.len() % 65536, 0);
                assert_eq!(pieces, (1..=finished as u8).collect::<Vec<u8>>());
                Ok::<_, Box<dyn std::error::Error>>(())
            })?;
            runtime.block_on(is_at_rest(&arena));
        }
    }
    Ok(())
}

#[test]
fn a_file_operation_that_is_dropped_keeps_its_slot_until_it_is_over() -> Outcome {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("dropped-futures");
    for runtime in runtimes() {
        let arena = arena();
        runtime.block_on(async {
            let pool =
                Pool::builder(arena.clone()).ring(BufferRing::options().entries(2)).build()?;
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
                if let Some(read) = dropped_after(polls, file.read_at(pool.allocate()?, 0)).await {
                    assert_eq!(read?[..], [7; 65536]);
                    finished = true;
                    break;
                }
            }
            assert!(finished);
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(is_at_rest(&arena));
    }
    std::fs::remove_file(&path)?;
    Ok(())
}

#[test]
fn a_shutdown_that_is_dropped_goes_on_by_itself() -> Outcome {
    for runtime in runtimes() {
        let arena = arena();
        runtime.block_on(async {
            let mut finished = false;
            for polls in 0..POLLS_MAX {
                let pool =
                    Pool::builder(arena.clone()).ring(BufferRing::options().entries(4)).build()?;
                let (near, mut far) = tcp_pair().await;
                let incoming = pool.recv_stream(near)?;
                far.write_all(&[1; 100_000]).await?;
                let (silent, _far) = std::os::unix::net::UnixStream::pair()?;
                let silent = pool.file(silent)?;
                let read = dropped_after(1, silent.read_at(pool.allocate()?, 0)).await;
                assert!(read.is_none());
                let drained = dropped_after(polls, pool.shutdown()).await;
                drop((incoming, silent));
                is_at_rest(&arena).await;
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

/// What a dropped future leaves under way does not keep the runtime from ending, nor its end from
/// giving every slot back.
#[test]
fn a_runtime_that_ends_under_dropped_futures_loses_nothing() -> Outcome {
    for runtime in runtimes() {
        let arena = arena();
        let pool = runtime.block_on(async {
            let pool =
                Pool::builder(arena.clone()).ring(BufferRing::options().entries(4)).build()?;
            let (near, mut far) = tcp_pair().await;
            let (mut incoming, mut outgoing) = pool.split(near)?;
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
        waiting.block_on(is_at_rest(&arena));
    }
    Ok(())
}
