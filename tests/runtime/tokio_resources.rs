//! Ordinary tokio when resources run out: a pool needs no further descriptor once it is built, and
//! gives slots that it does not use to others.

use std::time::Duration;

use crate::support::limits::{leave_descriptors, run_alone, set_descriptors};
use crate::support::runtimes::Outcome;
use crate::support::tokio::{RingsOnly, settings, tcp_pair, until_all_free};
use crate::support::{TIMEOUT, arena, nz};
use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};
use uring_arena::FixedArena;
use uring_arena::tokio::Pool;

/// Run by [`a_pool_that_starves_without_descriptors_goes_on`].
#[test]
#[ignore = "lowers a limit of the process: run by another test"]
fn helper_pool_without_descriptors() {
    for (runtime, engine) in settings() {
        let arena = arena(2, 64);
        runtime.block_on(async {
            let pool = Pool::builder(arena.clone()).engine(engine).entries(2).build().unwrap();
            let (near, mut far) = UnixStream::pair().unwrap();
            let (mut incoming, _outgoing) = pool.split(near).unwrap();
            let before = leave_descriptors(0);
            for round in 0..20u8 {
                far.write_all(&[round; 5 * 64]).await.unwrap();
                let (mut held, mut received) = (Vec::<Bytes>::new(), 0);
                while received < 5 * 64 {
                    let next = timeout(TIMEOUT, incoming.try_next()).await.unwrap();
                    let bytes = next.unwrap().unwrap();
                    assert!(bytes.iter().all(|&byte| byte == round));
                    received += bytes.len();
                    held.push(bytes);
                    // All slots are held for a while.
                    if held.len() == 2 {
                        sleep(Duration::from_millis(1)).await;
                        held.clear();
                    }
                }
            }
            set_descriptors(before);
            pool.shutdown().await.unwrap();
        });
        runtime.block_on(until_all_free(&arena));
    }
    println!("helper finished");
}

#[test]
fn a_pool_that_starves_without_descriptors_goes_on() {
    if uring_arena::Probe::shared().is_ok() {
        run_alone("tokio_resources::helper_pool_without_descriptors", &[]);
    }
}

#[test]
fn pools_share_an_arena_and_an_idle_one_gives_its_slots_back() -> Outcome {
    for (runtime, engine) in settings() {
        let arena = FixedArena::with_slot_capacity(nz(8), nz(64)).build_async()?;
        runtime.block_on(async {
            let idle = Pool::builder(arena.clone().into()).engine(engine).entries(8).build()?;
            let (near, mut silent) = tcp_pair().await;
            let mut quiet = idle.recv_stream(near)?;
            sleep(Duration::from_millis(5)).await;
            // A second pool on the arena, of which no slot is free.
            let busy = Pool::builder(arena.clone().into()).engine(engine).build()?;
            let (near, mut far) = tcp_pair().await;
            let mut incoming = busy.recv_stream(near)?;
            for round in 0..10u8 {
                far.write_all(&[round; 64]).await?;
                let next = timeout(TIMEOUT, incoming.try_next()).await?;
                assert_eq!(next?.unwrap()[..], [round; 64]);
            }
            // A task, which takes them all, one after the other.
            let mut held = Vec::new();
            while held.len() < 8 {
                held.push(timeout(TIMEOUT, arena.allocate_async()).await?);
            }
            drop(held);
            // The first pool receives, as before.
            silent.write_all(b"still here").await?;
            assert_eq!(timeout(TIMEOUT, quiet.try_next()).await??.unwrap(), "still here");
            idle.shutdown().await?;
            busy.shutdown().await?;
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        runtime.block_on(until_all_free(&arena));
    }
    Ok(())
}
