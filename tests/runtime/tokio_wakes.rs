//! Wakes of a tokio pool: streams that starve for slots again and again, and signals.

use std::future::poll_fn;
use std::io::Write;
use std::os::unix::net::UnixStream as StdStream;
use std::pin::pin;
use std::sync::mpsc;
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use uring_arena::tokio::{Engine, Pool, RecvStream};

use crate::support::signals::{Signals, Target};
use crate::support::tokio::{RingsOnly, settings, until_all_free};
use crate::support::{TIMEOUT, arena, number_from_env, watched};

/// Returns how often the tests that prove that no wake is lost wait for one.
fn rounds(default: u64) -> u64 {
    number_from_env("URING_ARENA_WAKES", default)
}

fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Makes a stream whose socket a thread of its own writes to until it is closed.
fn endless_stream(pool: &Pool) -> (RecvStream, JoinHandle<()>) {
    let (mut sender, socket) = StdStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    let sending = thread::spawn(move || while sender.write_all(&[7; 64]).is_ok() {});
    (pool.recv_stream(UnixStream::from_std(socket).unwrap()).unwrap(), sending)
}

/// Lets the engine of a one-thread runtime go to sleep.
async fn let_engine_sleep() {
    for _ in 0..4 {
        yield_now().await;
    }
}

#[test]
fn a_stream_that_starves_again_and_again_is_served_each_time() {
    watched(|| {
        let arena = arena(1, 64);
        let runtime = one_thread();
        runtime.block_on(async {
            let pool = Pool::new(arena.clone()).unwrap();
            let (mut stream, sending) = endless_stream(&pool);
            let (hold, held) = mpsc::channel::<Bytes>();
            let holder = thread::spawn(move || held.into_iter().for_each(drop));
            for round in 0..rounds(10_000) {
                let next = timeout(TIMEOUT, stream.try_next()).await;
                let bytes = next.unwrap_or_else(|_| panic!("round {round}: {:?}", arena.metrics()));
                let bytes = bytes.unwrap().unwrap();
                // Its slot is the only one: the stream starves.
                let mut next = pin!(stream.try_next());
                let is_pending = |next: Poll<_>| Poll::Ready(next.is_pending());
                assert!(poll_fn(|context| is_pending(next.as_mut().poll(context))).await);
                let_engine_sleep().await;
                // Freed here, or by another thread.
                if round % 2 == 0 { drop(bytes) } else { hold.send(bytes).unwrap() }
            }
            drop((stream, hold));
            pool.shutdown().await.unwrap();
            holder.join().unwrap();
            sending.join().unwrap();
        });
        runtime.block_on(until_all_free(&arena));
    });
}

#[test]
fn streams_claims_and_commands_all_get_their_wakes() {
    const STREAMS: u64 = 4;
    watched(|| {
        for (runtime, engine) in settings() {
            let arena = uring_arena::FixedArena::with_sizes(3, 64).build_async().unwrap();
            runtime.block_on(async {
                let pool =
                    Pool::builder((*arena).clone()).engine(engine).entries(2).build().unwrap();
                let mut tasks = Vec::new();
                let mut threads = Vec::new();
                for _ in 0..STREAMS {
                    let (mut stream, sending) = endless_stream(&pool);
                    threads.push(sending);
                    tasks.push(tokio::spawn(async move {
                        for _ in 0..rounds(4_000) / STREAMS {
                            let bytes = stream.try_next().await.unwrap().unwrap();
                            yield_now().await;
                            drop(bytes);
                        }
                    }));
                }
                for _ in 0..2 {
                    let arena = arena.clone();
                    tasks.push(tokio::spawn(async move {
                        for _ in 0..rounds(4_000) / STREAMS {
                            let buffer = arena.allocate_async().await;
                            yield_now().await;
                            drop(buffer);
                        }
                    }));
                }
                // Each read is a command, and wakes the engine.
                let file = pool.file(std::fs::File::open("/dev/zero").unwrap()).unwrap();
                let claims = arena.clone();
                tasks.push(tokio::spawn(async move {
                    for _ in 0..rounds(4_000) / STREAMS {
                        let buffer = claims.allocate_async().await;
                        drop(file.read_at(buffer, 0).await.unwrap());
                    }
                }));
                for task in tasks {
                    task.await.unwrap();
                }
                pool.shutdown().await.unwrap();
                threads.into_iter().for_each(|sending| sending.join().unwrap());
            });
            runtime.block_on(until_all_free(&arena));
        }
    });
}

#[test]
fn a_starved_stream_behind_silent_ones_is_served() {
    watched(|| {
        for (runtime, engine) in settings() {
            let arena = arena(8, 64);
            let sending = runtime.block_on(async {
                let pool =
                    Pool::builder(arena.clone()).engine(engine).messages_max(64).build().unwrap();
                let next = async |stream: &mut RecvStream| {
                    timeout(TIMEOUT, stream.try_next()).await.unwrap().unwrap().unwrap()
                };
                let (mut greedy, sending) = endless_stream(&pool);
                let mut held = Vec::new();
                while held.len() < 8 {
                    held.push(next(&mut greedy).await);
                }
                drop(greedy);
                let mut silent = Vec::new();
                for _ in 0..16 {
                    let (near, far) = UnixStream::pair().unwrap();
                    silent.push((pool.recv_stream(near).unwrap(), far));
                }
                let (near, mut far) = UnixStream::pair().unwrap();
                let mut wanted = pool.recv_stream(near).unwrap();
                far.write_all(b"hello").await.unwrap();
                sleep(Duration::from_millis(20)).await;
                // Two slots for seventeen sockets: the silent ones leave them to the last.
                held.truncate(6);
                assert_eq!(next(&mut wanted).await, "hello");
                sending
            });
            runtime.block_on(until_all_free(&arena));
            sending.join().unwrap();
        }
    });
}

#[cfg(feature = "io-uring")]
#[test]
fn signals_do_not_disturb_the_thread_of_a_pool() {
    watched(|| {
        let arena = arena(4, 64);
        let runtime = one_thread();
        runtime.block_on(async {
            let pool =
                Pool::builder(arena.clone()).engine(Engine::Ring).own_thread().build().unwrap();
            let (mut stream, sending) = endless_stream(&pool);
            // The threads of other tests' pools get their signals too, and are not disturbed.
            let signals = Signals::to(Target::named("uring-arena"));
            for _ in 0..500 {
                timeout(TIMEOUT, stream.try_next()).await.unwrap().unwrap().unwrap();
                sleep(Duration::from_micros(10)).await;
            }
            signals.wait_for(1);
            let report = timeout(TIMEOUT, pool.shutdown()).await.unwrap().unwrap();
            assert_eq!((report.in_flight, report.quarantined), (0, 0), "{report:?}");
            drop(stream);
            sending.join().unwrap();
        });
        runtime.block_on(until_all_free(&arena));
    });
}
