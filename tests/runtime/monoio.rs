//! monoio: bytes over socket and file, dropped futures, shutdown with operations in flight.

use std::io::Write;
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use crate::support::log::Log;
use crate::support::runtimes::{Outcome, full_connection, poll_once, read_empty};
use crate::support::{TestFile, assert_all_free, paged_arena, pattern};
use bytes::{BufMut, Bytes};
use monoio::fs::File;
use monoio::io::{
    AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt, CancelableAsyncReadRent, Canceller,
};
use monoio::net::{TcpListener, TcpStream, UnixStream};
use monoio::time::TimeDriver;
use monoio::{FusionDriver, IoUringDriver, Runtime, RuntimeBuilder};
use uring_arena::monoio::{block_on, lend};

fn runtime() -> Runtime<TimeDriver<IoUringDriver>> {
    RuntimeBuilder::<IoUringDriver>::new().enable_timer().build().unwrap()
}

fn pair() -> (StdStream, UnixStream) {
    let (far, near) = StdStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    (far, UnixStream::from_std(near).unwrap())
}

#[test]
fn bytes_survive_a_tcp_connection_and_leave_the_thread() -> Outcome {
    let arena = paged_arena(8, 4096);
    let mut runtime = RuntimeBuilder::<FusionDriver>::new().build()?;
    block_on(&mut runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let connecting = monoio::spawn(TcpStream::connect(listener.local_addr()?));
        let (mut near, _) = listener.accept().await?;
        let mut far = connecting.await?;
        let expected = pattern(0, 100_000);
        let message = expected.clone();
        let sending = arena.clone();
        monoio::spawn(async move {
            for chunk in message.chunks(4096) {
                let mut buffer = sending.allocate().unwrap();
                buffer.put_slice(chunk);
                far.write_all(lend(buffer.freeze())).await.0.unwrap();
            }
        });
        let mut received: Vec<Bytes> = Vec::new();
        let mut total = 0;
        while total < expected.len() {
            let (result, loan) = near.read(lend(arena.allocate()?)).await;
            let bytes = loan.freeze();
            assert_eq!(result?, bytes.len());
            total += bytes.len();
            received.push(bytes);
            if received.len() == 4 || total == expected.len() {
                let parts = std::mem::take(&mut received);
                let len: usize = parts.iter().map(Bytes::len).sum();
                let expected = expected[total - len..total].to_vec();
                std::thread::spawn(move || assert_eq!(parts.concat(), expected)).join().unwrap();
            }
        }
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;
    assert_all_free(&arena);
    Ok(())
}

#[test]
fn a_file_is_written_and_read() -> Outcome {
    let arena = paged_arena(8, 8192);
    let path = TestFile::path("file");
    let expected = pattern(0, 8000);
    block_on(&mut runtime(), async {
        let file = File::create(&path).await?;
        let mut buffer = arena.allocate()?;
        buffer.put_slice(&expected);
        let (result, loan) = file.write_all_at(lend(buffer.freeze_in_place()), 0).await;
        result?;
        drop(loan);
        file.sync_all().await?;
        let file = File::open(&path).await?;
        let (result, loan) = file.read_at(lend(arena.allocate()?), 0).await;
        assert_eq!(result?, 8000);
        assert_eq!(loan.freeze(), expected);
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;
    assert_all_free(&arena);
    Ok(())
}

#[test]
fn a_dropped_read_keeps_its_slot_until_the_kernel_is_done() -> Outcome {
    let arena = paged_arena(1, 4096);
    block_on(&mut runtime(), async {
        let (mut far, mut near) = pair();
        poll_once(near.read(lend(arena.allocate()?)));
        assert!(arena.allocate().is_err(), "the kernel may still write to the slot");
        // monoio cancels the operation of a dropped future; the completion frees the slot.
        far.write_all(b"late")?;
        while arena.allocate().is_err() {
            monoio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;
    assert_eq!(arena.metrics().quarantined, 0);
    Ok(())
}

#[test]
fn a_cancelled_read_gives_its_loan_back() -> Outcome {
    let arena = paged_arena(1, 4096);
    // The same holds where nothing watches over the runtime.
    runtime().block_on(async {
        let (_far, mut near) = pair();
        let canceller = Canceller::new();
        let handle = canceller.handle();
        let reading = monoio::spawn(async move {
            let (result, loan) =
                near.cancelable_read(lend(arena.allocate().unwrap()), handle).await;
            (result, loan.take_back(), arena)
        });
        monoio::time::sleep(Duration::from_millis(10)).await;
        canceller.cancel();
        let (result, buffer, arena) = reading.await;
        assert!(result.is_err());
        drop(buffer);
        assert!(arena.allocate().is_ok());
        assert_eq!(arena.metrics().quarantined, 0);
    });
    Ok(())
}

#[test]
fn shutdown_with_operations_in_flight_quarantines_their_slots() -> Outcome {
    let arena = paged_arena(4, 4096);
    let mut runtime = runtime();
    let far = block_on(&mut runtime, async {
        let ((far, mut near), (far_too, mut stream)) = (pair(), pair());
        // A task that waits keeps the driver of monoio alive for ever, and the slot with it.
        let loan = lend(arena.allocate()?);
        monoio::spawn(async move { drop(stream.read(loan).await) });
        monoio::time::sleep(Duration::from_millis(10)).await;
        poll_once(near.read(lend(arena.allocate()?)));
        Ok::<_, Box<dyn std::error::Error>>((far, far_too))
    })?;
    assert_eq!(arena.metrics().quarantined, 0);
    drop(runtime);
    assert_eq!(arena.allocate_many(4, std::mem::forget), 2, "neither slot is given out again");
    drop(far);
    Ok(())
}

#[test]
fn without_our_block_on_only_seen_results_free_a_slot() -> Outcome {
    let arena = paged_arena(2, 4096);
    runtime().block_on(async {
        let (mut far, mut near) = pair();
        far.write_all(b"x").unwrap();
        let (result, loan) = near.read(lend(arena.allocate().unwrap())).await;
        assert_eq!((result.unwrap(), &loan[..]), (1, &b"x"[..]));
        drop(loan);
        assert_all_free(&arena);
        // An error has no result; the slot of the loan is free all the same.
        let directory = File::open(".").await.unwrap();
        let (result, loan) = directory.read_at(lend(arena.allocate().unwrap()), 0).await;
        assert!(result.is_err());
        drop(loan.take_back());
        assert_all_free(&arena);
        let (result, loan) = directory.read_at(lend(arena.allocate().unwrap()), 0).await;
        assert!(result.is_err());
        drop(loan);
        assert_eq!(arena.metrics().quarantined, 1);
    });
    Ok(())
}

#[test]
fn another_runtime_dropped_inside_the_session_proves_nothing() -> Outcome {
    let arena = paged_arena(1, 4096);
    let mut first = runtime();
    let _far = block_on(&mut first, async {
        let (far, mut near) = pair();
        poll_once(near.read(lend(arena.allocate().unwrap())));
        far
    });
    block_on(&mut runtime(), async { drop(first) });
    assert_eq!(arena.metrics().quarantined, 1);
    Ok(())
}

#[test]
fn a_dropped_write_keeps_its_bytes_until_the_kernel_is_done() -> Outcome {
    let arena = paged_arena(1, 4096);
    block_on(&mut runtime(), async {
        let (near, far) = full_connection();
        let mut near = TcpStream::from_std(near)?;
        let mut buffer = arena.allocate()?;
        buffer.put_bytes(7, 4096);
        poll_once(near.write(lend(buffer.freeze())));
        assert!(arena.allocate().is_err(), "the kernel may still read it");
        // The operation ends with the connection, which monoio closes later.
        read_empty(far);
        while arena.allocate().is_err() {
            monoio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;
    assert_all_free(&arena);
    Ok(())
}

#[test]
fn a_loan_comes_back_in_a_later_call_for_the_same_runtime() -> Outcome {
    let arena = paged_arena(8, 4096);
    let mut runtime = runtime();
    let lose_a_read = |runtime: &mut Runtime<TimeDriver<IoUringDriver>>| {
        block_on(runtime, async {
            let (far, mut near) = pair();
            poll_once(near.read(lend(arena.allocate().unwrap())));
            far
        })
    };
    // Many calls, each of which leaves an operation behind or nothing.
    let mut kept = Vec::new();
    for _ in 0..4 {
        kept.push(lose_a_read(&mut runtime));
        block_on(&mut runtime, async {});
    }
    block_on(&mut runtime, async {
        while arena.metrics().bytes_live > 0 {
            monoio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert_all_free(&arena);
    // The end of the runtime ends the proof, also for operations of an earlier call.
    kept.push(lose_a_read(&mut runtime));
    drop(runtime);
    assert_eq!((arena.metrics().quarantined, arena.metrics().bytes_live), (1, 4096));
    Ok(())
}

#[test]
fn a_call_of_the_runtimes_own_block_on_ends_the_proof() -> Outcome {
    let arena = paged_arena(2, 4096);
    let mut runtime = runtime();
    let _far = block_on(&mut runtime, async {
        let (far, mut near) = pair();
        poll_once(near.read(lend(arena.allocate().unwrap())));
        far
    });
    // The runtime could end after this, and nothing would tell.
    runtime.block_on(async { monoio::time::sleep(Duration::from_millis(10)).await });
    block_on(&mut runtime, async { monoio::time::sleep(Duration::from_millis(10)).await });
    assert_eq!((arena.metrics().quarantined, arena.metrics().bytes_live), (1, 4096));
    Ok(())
}

#[test]
fn a_panic_out_of_block_on_ends_the_proof() -> Outcome {
    let arena = paged_arena(2, 4096);
    let mut runtime = runtime();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        block_on(&mut runtime, async {
            let (far, mut near) = pair();
            poll_once(near.read(lend(arena.allocate().unwrap())));
            std::mem::forget(far);
            panic!("on purpose");
        })
    }));
    assert!(panic.is_err());
    drop(runtime);
    assert_eq!((arena.metrics().quarantined, arena.metrics().bytes_live), (1, 4096));
    Ok(())
}

#[test]
fn a_slot_that_is_lost_to_the_runtimes_own_block_on_is_told_once() {
    let helper = std::env::current_exe().unwrap();
    let output = std::process::Command::new(helper)
        .args(["--ignored", "--exact", "monoio::helper_that_loses_slots", "--nocapture"])
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && out.contains("helper finished"), "{out}");
}

/// Loses slots to timeouts, and finds one warning of them.
#[test]
#[ignore = "sets the log of its process: run by another test"]
fn helper_that_loses_slots() {
    let log = Log::default();
    tracing::dispatcher::set_global_default(tracing::Dispatch::new(log.clone())).unwrap();
    let arena = paged_arena(4, 4096);
    runtime().block_on(async {
        let (_far, mut near) = pair();
        for _ in 0..3 {
            poll_once(near.read(lend(arena.allocate().unwrap())));
            monoio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert_eq!(arena.metrics().quarantined, 3);
    assert_eq!(log.with("uring_arena::monoio::block_on").len(), 1, "{:?}", log.with(""));
    println!("helper finished");
}
