//! The counts of a pool, and its events in the log.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use uring_arena::tokio::{Engine, Pool};

use crate::support::log::Log;
use crate::support::runtimes::Outcome;
use crate::support::tokio::{RingsOnly, rings, settings, until, until_all_free};
use crate::support::{TIMEOUT, paged_arena};

/// At the finest level the log has a span of each connection, and what it received and sent.
#[test]
fn a_connection_has_a_span_with_what_it_does() -> Outcome {
    for (runtime, engine) in settings() {
        let (arena, log) = (paged_arena(16, 4096), Log::default());
        let logging = tracing::subscriber::set_default(log.clone());
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).build()?;
            let (near, mut far) = UnixStream::pair()?;
            let mut stream = pool.stream(near)?;
            let spans = log.with("span connection fd=");
            assert_eq!(spans.len(), 1, "{:?}", log.with(""));
            let number = 1 + log.with("").iter().position(|event| *event == spans[0]).unwrap();
            far.write_all(b"hello").await?;
            assert_eq!(timeout(TIMEOUT, stream.try_next()).await??.unwrap(), "hello");
            stream.send(Bytes::from_static(b"answer")).await?;
            let mut text = [0; 6];
            timeout(TIMEOUT, far.read_exact(&mut text)).await??;
            drop(far);
            assert!(timeout(TIMEOUT, stream.try_next()).await??.is_none());
            for text in ["received bytes=5", "queued bytes=6", "the peer has finished"] {
                let told = log.with(text);
                assert_eq!(told.len(), 1, "{text}: {:?}", log.with(""));
                assert!(told[0].starts_with(&format!("TRACE of {number}:")), "{told:?}");
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        drop(logging);
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// The log tells the begin of a starvation with the remedy, and its end, but not each of many.
#[test]
fn starvation_is_told_when_it_begins_and_when_it_ends() -> Outcome {
    // The engine of a ring must run on the thread that the log is set for.
    for (runtime, engine) in settings().step_by(2) {
        let (arena, log) = (paged_arena(4, 4096), Log::default());
        let logging = tracing::subscriber::set_default(log.clone());
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).entries(4).build()?;
            let (near, mut far) = UnixStream::pair()?;
            let mut stream = pool.stream(near)?;
            for round in 1..=5 {
                let mut held = Vec::new();
                while held.len() < 4 {
                    far.write_all(&[round; 4096]).await?;
                    held.push(timeout(TIMEOUT, stream.try_next()).await??.unwrap());
                }
                far.write_all(b"one more").await?;
                {
                    let mut next = std::pin::pin!(stream.try_next());
                    let starving = pool.metrics().starvations;
                    let none = timeout(Duration::from_millis(20), &mut next).await;
                    assert!(none.is_err(), "no slot is free");
                    assert!(pool.metrics().starvations > starving || round > 1);
                    assert_eq!(pool.metrics().streams_starved, 1);
                    held.clear();
                    assert_eq!(timeout(TIMEOUT, next).await??.unwrap(), "one more");
                }
                until("nobody starves", || pool.metrics().streams_starved == 0).await;
            }
            until("the end is told", || !log.with("no stream waits").is_empty()).await;
            let begins = log.with("streams wait for slots");
            assert_eq!(begins.len(), 1, "{begins:?}");
            assert!(begins[0].starts_with("WARN") && begins[0].contains("slots=4"), "{begins:?}");
            assert!(begins[0].contains("more slots"), "{begins:?}");
            let ends = log.with("no stream waits");
            assert!(ends.len() == 1 && ends[0].starts_with("INFO"), "{ends:?}");
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        drop(logging);
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// Streams of a ring that nobody reads are counted and told while they are paused. What was copied
/// out of its slot for them is counted too.
#[test]
fn paused_streams_and_copies_are_counted() -> Outcome {
    for (runtime, engine) in rings() {
        assert_eq!(engine, Engine::Ring);
        let (arena, log) = (paged_arena(64, 16 << 10), Log::default());
        let logging = tracing::subscriber::set_default(log.clone());
        runtime.block_on(async {
            let builder = Pool::builder(arena.clone()).engine(engine).entries_without_copies(16);
            let pool = builder.messages_max(20).build()?;
            let (near, mut far) = UnixStream::pair()?;
            let mut stream = pool.stream(near)?;
            assert_eq!((pool.metrics().streams_paused, pool.metrics().copied), (0, 0));
            for number in 0..30u8 {
                far.write_all(&[number]).await?;
                // Each is received by itself.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            until("the stream is paused", || pool.metrics().streams_paused == 1).await;
            // Four slots are 64 KiB.
            let copied = pool.metrics().copied;
            assert!((10..=30).contains(&copied), "{copied} copies");
            let mut all = [0; 30];
            timeout(TIMEOUT, stream.read_exact(&mut all)).await??;
            assert!(all.iter().copied().eq(0..30));
            until("the stream goes on", || pool.metrics().streams_paused == 0).await;
            // A ring with a thread of its own tells another log.
            use tokio::runtime::{Handle, RuntimeFlavor};
            let is_task = Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread;
            if is_task {
                let [begin, end] = ["a stream is paused", "no stream is paused"];
                until("the end is told", || log.with(end).len() == 1).await;
                let begins = log.with(begin);
                assert!(begins.len() == 1 && begins[0].starts_with("INFO"), "{begins:?}");
                for text in ["paused=1", "slots=64", "read it"] {
                    assert!(begins[0].contains(text), "{begins:?}");
                }
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        drop(logging);
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}

/// A slot that a stream holds is recorded with the place of the pool, and with the connection.
#[cfg(feature = "holders")]
#[test]
fn holders_name_the_pool_and_the_connection_on_either_engine() -> Outcome {
    use std::os::fd::AsRawFd;
    use uring_arena::{FixedArena, TrackHolders};

    for (runtime, engine) in settings() {
        let arena = FixedArena::with_sizes(64, 4096).alignment(4096);
        let arena = arena.track_holders(TrackHolders::All).build()?;
        runtime.block_on(async {
            let line = line!() + 1;
            let pool = Pool::builder(arena.clone()).engine(engine).entries(4).build()?;
            let (near, mut far) = UnixStream::pair()?;
            let number = near.as_raw_fd() as u64;
            let mut stream = pool.stream(near)?;
            let mut held = Vec::new();
            for round in 1..=4u8 {
                far.write_all(&[round; 3000]).await?;
                held.push(timeout(TIMEOUT, stream.try_next()).await??.unwrap());
            }
            let holders = arena.holders();
            let of_pool = |holder: &&uring_arena::Holder| {
                holder.place.file().ends_with("pool_watching.rs") && holder.place.line() == line
            };
            assert_eq!(holders.iter().filter(of_pool).count(), holders.len(), "{holders}");
            let groups = holders.by_connection();
            let group = groups.iter().find(|group| group.connection == Some(number));
            let group = group.unwrap_or_else(|| panic!("no {number}: {holders}"));
            assert_eq!((group.claims, group.used), (4, 12_000), "{holders}");
            drop((held, stream));
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}
