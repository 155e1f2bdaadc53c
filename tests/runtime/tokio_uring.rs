//! tokio-uring: bytes over socket and file, dropped futures, shutdown with operations in flight,
//! bad input.

use std::future::Future;
use std::io::Write;
use std::os::unix::net::UnixStream as StdStream;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use crate::support::runtimes::{Outcome, check_elsewhere, poll_once};
use crate::support::{TIMEOUT, TestFile, Wakes, assert_all_free, filled, paged_arena, pattern};
use bytes::{BufMut, Bytes};
use tokio_uring::buf::IoBuf;
use tokio_uring::fs::File;
use tokio_uring::net::{TcpListener, TcpStream, UnixStream};
use uring_arena::tokio_uring::{
    AttachError, Registered, drain, lend, read, read_at, send_all, write, write_at,
};
use uring_arena::{FixedArena, IoMemory, Loan};

fn pair() -> (StdStream, Rc<UnixStream>) {
    let (far, near) = StdStream::pair().unwrap();
    (far, Rc::new(UnixStream::from_std(near)))
}

async fn tcp_pair() -> (Rc<TcpStream>, Rc<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (accepted, connected) = tokio::join!(listener.accept(), TcpStream::connect(address));
    (Rc::new(accepted.unwrap().0), Rc::new(connected.unwrap()))
}

#[test]
fn bytes_survive_a_tcp_connection_and_leave_the_thread() -> Outcome {
    let arena = paged_arena(16, 4096);
    tokio_uring::start(async {
        let registered = Registered::new(&arena)?;
        let (near, far) = tcp_pair().await;
        let message = pattern(1, 100_000);
        let expected = message.clone();
        let sender = tokio_uring::spawn({
            let arena = arena.clone();
            async move {
                for chunk in message.chunks(4096) {
                    let mut buffer = arena.allocate().unwrap();
                    buffer.put_slice(chunk);
                    let mut rest = buffer.freeze();
                    while !rest.is_empty() {
                        let (sent, bytes) = write(&far, rest).await;
                        rest = bytes.slice(sent.unwrap()..);
                    }
                }
            }
        });
        let mut received: Vec<Bytes> = Vec::new();
        let (mut total, mut checked) = (0, 0);
        let mut turn = 0;
        while total < expected.len() {
            let buffer = arena.allocate()?;
            // Each way of reading in turn.
            turn += 1;
            let (result, bytes) = match turn % 3 {
                0 => {
                    let (result, buffer) = read(&near, buffer).await;
                    (result, buffer.freeze())
                }
                1 => {
                    let (result, buffer) = registered.read(&near, buffer).await;
                    (result, buffer.freeze())
                }
                _ => {
                    let (result, loan) = near.read(lend(buffer)).await;
                    (result, loan.freeze())
                }
            };
            assert_eq!(result?, bytes.len());
            total += bytes.len();
            received.push(bytes);
            if received.len() == 4 {
                check_elsewhere(std::mem::take(&mut received), &expected[checked..total]);
                checked = total;
            }
        }
        check_elsewhere(received, &expected[checked..]);
        sender.await?;
        drain().await;
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;
    assert_all_free(&arena);
    Ok(())
}

#[test]
fn a_file_is_read_and_written_by_every_road() -> Outcome {
    let arena = paged_arena(8, 8192);
    let scratch = TestFile::path("file");
    let expected = pattern(2, 20_000);
    tokio_uring::start(async {
        let registered = Registered::new(&arena)?;
        assert_eq!(registered.slots_per_entry(), 1);
        let file = Rc::new(File::create(&scratch).await?);
        for (turn, chunk) in expected.chunks(5000).enumerate() {
            let mut buffer = arena.allocate()?;
            buffer.put_slice(chunk);
            let offset = turn as u64 * 5000;
            let written = match turn {
                0 => registered.write_at(&file, buffer, offset).await.0?,
                1 => registered.write_at(&file, buffer.freeze_in_place(), offset).await.0?,
                2 => registered.write_at(&file, buffer.freeze(), offset).await.0?,
                _ => write_at(&file, buffer, offset).await.0?,
            };
            assert_eq!(written, chunk.len());
        }
        assert_eq!(std::fs::read(&scratch)?, expected);
        let file = Rc::new(File::open(&scratch).await?);
        let mut read_back = Vec::new();
        for offset in [0, 8192, 16384] {
            let (result, buffer) = registered.read_at(&file, arena.allocate()?, offset).await;
            assert_eq!(result?, buffer.len());
            read_back.extend_from_slice(&buffer.freeze());
        }
        assert_eq!(read_back, expected);
        let (result, buffer) = read_at(&file, arena.allocate()?, 16384).await;
        assert_eq!((result?, &buffer[..]), (20_000 - 16384, &expected[16384..]));
        // A read appends to the content of its buffer, and the end of the file appends nothing.
        let (result, buffer) = registered.read_at(&file, buffer, 19_990).await;
        assert_eq!((result?, &buffer[3616..]), (10, &expected[19_990..]));
        let (result, buffer) = registered.read_at(&file, buffer, 50_000).await;
        assert_eq!((result?, buffer.len()), (0, 3626));
        registered.unregister()?;
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;
    assert_eq!(arena.metrics().bytes_live, 0);
    Ok(())
}

#[test]
fn o_direct_reads_use_the_registered_memory() -> Outcome {
    use std::os::unix::fs::OpenOptionsExt;
    let arena = paged_arena(4, 4096);
    let scratch = TestFile::path("direct");
    let expected = pattern(3, 3 * 4096);
    std::fs::write(&scratch, &expected)?;
    let open = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&scratch);
    let Ok(file) = open else { return Ok(()) }; // a file system without O_DIRECT
    tokio_uring::start(async {
        let registered = Registered::new(&arena)?;
        let file = Rc::new(File::from_std(file));
        for at in 0..3 {
            let (result, buffer) = registered.read_at(&file, arena.allocate()?, at * 4096).await;
            assert_eq!(result?, 4096);
            assert_eq!(buffer.freeze(), expected[at as usize * 4096..][..4096]);
        }
        Ok::<(), Box<dyn std::error::Error>>(())
    })
}

#[test]
fn more_slots_than_entries_share_entries() -> Outcome {
    let arena = paged_arena(2500, 4096);
    let scratch = TestFile::path("shared");
    let expected = pattern(4, 4096);
    std::fs::write(&scratch, &expected)?;
    tokio_uring::start(async {
        let registered = Registered::new(&arena)?;
        assert_eq!(registered.slots_per_entry(), 3);
        let file = Rc::new(File::open(&scratch).await?);
        let mut buffers = Vec::new();
        arena.allocate_many(2500, |buffer| buffers.push(buffer));
        assert_eq!(buffers.len(), 2500);
        let mut seen = [false; 2500];
        for buffer in buffers {
            let (result, buffer) = registered.read_at(&file, buffer, 0).await;
            assert_eq!(result?, 4096);
            seen[buffer.slot_index().unwrap() as usize] = true;
            assert_eq!(buffer.freeze(), expected);
        }
        assert!(seen.iter().all(|&seen| seen));
        Ok::<(), Box<dyn std::error::Error>>(())
    })
}

/// Polls once, so that the operation is under way.
#[test]
fn a_dropped_read_keeps_its_slot_until_the_kernel_is_done() -> Outcome {
    let arena = paged_arena(1, 4096);
    tokio_uring::start(async {
        for polled in [false, true] {
            let (mut far, near) = pair();
            let operation = read(&near, arena.allocate()?);
            if polled {
                poll_once(operation);
            } else {
                drop(operation);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(arena.allocate().is_err(), "the kernel may still write to the slot");
            far.write_all(b"late")?;
            tokio::time::timeout(Duration::from_secs(5), async {
                while arena.allocate().is_err() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
            .await?;
        }
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;
    assert_eq!(arena.metrics().quarantined, 0);
    Ok(())
}

#[test]
fn a_dropped_loan_keeps_its_slot_until_the_kernel_is_done() -> Outcome {
    let arena = paged_arena(1, 4096);
    tokio_uring::start(async {
        let (mut far, near) = pair();
        poll_once(near.read(lend(arena.allocate()?)));
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(arena.allocate().is_err(), "the kernel may still write to the slot");
        far.write_all(b"late")?;
        drain().await;
        assert!(arena.allocate().is_ok());
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;
    assert_eq!(arena.metrics().quarantined, 0);
    Ok(())
}

#[test]
fn a_read_dropped_with_its_result_frees_the_slot() -> Outcome {
    let arena = paged_arena(1, 4096);
    tokio_uring::start(async {
        let (mut far, near) = pair();
        far.write_all(b"there already")?;
        let operation = read(&near, arena.allocate()?);
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(operation);
        drain().await;
        assert!(arena.allocate().is_ok());
        Ok::<(), Box<dyn std::error::Error>>(())
    })
}

#[test]
fn drain_cancels_what_was_abandoned() -> Outcome {
    let arena = paged_arena(32, 4096);
    tokio_uring::start(async {
        let registered = Registered::new(&arena)?;
        let pairs: Vec<_> = (0..16).map(|_| pair()).collect();
        for (_, near) in &pairs {
            drop(read(near, arena.allocate()?));
            drop(registered.read(near, arena.allocate()?));
        }
        assert!(arena.allocate().is_err());
        drain().await;
        assert_eq!(arena.metrics().bytes_live, 0);
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;
    assert_eq!(arena.metrics().quarantined, 0);
    Ok(())
}

/// Runs `abandon` in a task that is aborted, and drains at once or a turn later.
fn drain_after_abort<F: Future<Output = ()> + 'static>(
    arena: &FixedArena,
    mut abandon: impl FnMut(Rc<UnixStream>) -> F,
) -> Outcome {
    for turns in 0..3 {
        let (far, near) = pair();
        tokio_uring::start(async {
            let task = tokio_uring::spawn(abandon(near));
            tokio::time::sleep(Duration::from_millis(10)).await;
            task.abort();
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            tokio::time::timeout(TIMEOUT, drain()).await?;
            Ok::<(), Box<dyn std::error::Error>>(())
        })?;
        drop(far);
        assert_all_free(arena);
    }
    Ok(())
}

#[test]
fn drain_ends_what_is_abandoned_before_and_while_it_waits() -> Outcome {
    let arena = paged_arena(8, 1 << 20);
    let claim = {
        let arena = arena.clone();
        move || filled(&arena, &[7; 1 << 20])
    };
    let read_arena = arena.clone();
    drain_after_abort(&arena, move |near| {
        let buffer = read_arena.allocate().unwrap();
        async move { drop(read(&near, buffer).await) }
    })?;
    // A loan in a method of tokio-uring, which cancels nothing itself.
    let loan_arena = arena.clone();
    drain_after_abort(&arena, move |near| {
        let buffer = loan_arena.allocate().unwrap();
        async move { drop(near.read(lend(buffer)).await) }
    })?;
    // Sends to a peer that does not read: the first is under way, the second waits for its turn.
    let sent = claim.clone();
    drain_after_abort(&arena, move |near| {
        let (first, second) = (sent(), sent().freeze());
        async move {
            let _ = tokio::join!(send_all(&near, first), send_all(&near, second));
        }
    })?;
    drain_after_abort(&arena, move |near| {
        let lent = claim().freeze();
        async move { drop(near.write_all(lend(lent)).await) }
    })
}

#[test]
fn drain_keeps_one_waker_and_waits_for_futures_that_live() -> Outcome {
    let arena = paged_arena(1, 4096);
    tokio_uring::start(async {
        let (mut far, near) = pair();
        let reading = tokio_uring::spawn(read(&near, arena.allocate()?));
        let mut draining = Box::pin(drain());
        let mut wakers = Vec::new();
        for _ in 0..100 {
            let wakes = Arc::new(Wakes::default());
            let waker = Waker::from(Arc::clone(&wakes));
            assert!(draining.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            wakers.push(wakes);
        }
        assert_eq!(wakers.iter().filter(|wakes| Arc::strong_count(wakes) > 1).count(), 1);
        // A wait that is given up leaves nothing.
        drop(draining);
        assert!(wakers.iter().all(|wakes| Arc::strong_count(wakes) == 1));
        let short = tokio::time::timeout(Duration::from_millis(10), drain()).await;
        assert!(short.is_err(), "the read lives");
        far.write_all(b"hello")?;
        let (read, buffer) = reading.await?;
        assert_eq!((read?, &buffer[..]), (5, &b"hello"[..]));
        drop(buffer);
        tokio::time::timeout(TIMEOUT, drain()).await?;
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;
    assert_all_free(&arena);
    Ok(())
}

#[test]
fn shutdown_with_operations_in_flight_quarantines_their_slots() -> Outcome {
    let arena = paged_arena(8, 4096);
    let (_far, near) = StdStream::pair()?;
    tokio_uring::start(async {
        let near = Rc::new(UnixStream::from_std(near));
        // Abandoned, forgotten in a task, lent and abandoned, lent in a task.
        drop(read(&near, arena.allocate()?));
        let operation = read(&near, arena.allocate()?);
        tokio_uring::spawn(async move { drop(operation.await) });
        poll_once(near.read(lend(arena.allocate()?)));
        let (loan, stream) = (lend(arena.allocate()?), Rc::clone(&near));
        tokio_uring::spawn(async move { drop(stream.read(loan).await) });
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;
    assert_eq!(arena.metrics().quarantined, 4);
    let mut left = 0;
    left += arena.allocate_many(8, std::mem::forget);
    assert_eq!(left, 4, "no quarantined slot is given out again");
    Ok(())
}

#[test]
fn frozen_bytes_lost_with_their_runtime_are_counted() -> Outcome {
    fn exposed<B: IoMemory + AsRef<[u8]>>(item: B) -> Loan<B> {
        tokio_uring::start(async move {
            let loan = lend(item);
            // An operation has the address from here on, and its runtime ends before the result.
            let _ = loan.stable_ptr();
            loan
        })
    }

    let arena = paged_arena(4, 64);
    let frozen = || -> Result<_, Box<dyn std::error::Error>> {
        let mut buffer = arena.allocate()?;
        buffer.put_slice(b"frozen");
        Ok(buffer.freeze_in_place())
    };
    drop(exposed(frozen()?));
    assert_eq!(arena.metrics().quarantined, 1, "ArenaBytes");
    drop(exposed(Bytes::from(frozen()?)));
    assert_eq!(arena.metrics().quarantined, 2, "Bytes");
    drop(exposed(Bytes::from(frozen()?).slice(3..)));
    assert_eq!(arena.metrics().quarantined, 3, "a part of Bytes");
    // Bytes of no arena, and empty ones, lose no slot.
    drop(exposed(Bytes::from_static(b"elsewhere")));
    drop(exposed(Bytes::from(frozen()?).slice(6..)));
    assert_eq!((arena.metrics().quarantined, arena.slot_states().quarantined), (3, 3));
    assert_eq!(arena.slot_states().free, 1);
    Ok(())
}

#[test]
fn frozen_bytes_of_an_unfinished_write_are_never_reused() -> Outcome {
    let arena = paged_arena(1, 1 << 20);
    let (_far, near) = StdStream::pair()?;
    tokio_uring::start(async {
        let near = Rc::new(UnixStream::from_std(near));
        let mut buffer = arena.allocate()?;
        buffer.put_bytes(7, 1 << 20);
        let bytes = buffer.freeze();
        // The write is larger than the socket holds and is never read, so it cannot end.
        loop {
            let mut operation = pin!(write(&near, bytes.clone()));
            let ready = operation.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
            tokio::time::sleep(Duration::from_millis(20)).await;
            if !ready
                && operation.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
            {
                break;
            }
        }
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;
    assert!(arena.allocate().is_err());
    Ok(())
}

#[test]
fn an_operation_may_outlive_its_runtime() -> Outcome {
    let arena = paged_arena(1, 4096);
    let (_far, near) = StdStream::pair()?;
    let operation = tokio_uring::start(async {
        let near = Rc::new(UnixStream::from_std(near));
        Ok::<_, Box<dyn std::error::Error>>(read(&near, arena.allocate()?))
    })?;
    drop(operation);
    assert_eq!(arena.metrics().quarantined, 1);
    Ok(())
}

#[test]
fn a_runtime_that_runs_again_goes_on_reaping() -> Outcome {
    let arena = paged_arena(1, 4096);
    let (mut far, near) = StdStream::pair()?;
    let runtime = tokio_uring::Runtime::new(&tokio_uring::builder())?;
    let near = runtime.block_on(async {
        let near = Rc::new(UnixStream::from_std(near));
        drop(read(&near, arena.allocate()?));
        Ok::<_, Box<dyn std::error::Error>>(near)
    })?;
    assert!(arena.allocate().is_err());
    far.write_all(b"x")?;
    runtime.block_on(drain());
    assert!(arena.allocate().is_ok());
    drop(near);
    Ok(())
}

#[test]
fn the_table_takes_one_arena() -> Outcome {
    let (first, second) = (paged_arena(4, 4096), paged_arena(4, 4096));
    tokio_uring::start(async {
        let registered = Registered::new(&first)?;
        assert!(matches!(Registered::new(&second), Err(AttachError::TableTaken)));
        registered.unregister()?;
        let registered = Registered::new(&second)?;
        // Memory outside of the arena takes the unregistered operation.
        let (mut far, near) = pair();
        far.write_all(b"x")?;
        let (result, buffer) = registered.read(&near, first.allocate()?).await;
        assert_eq!((result?, &buffer[..]), (1, &b"x"[..]));
        Ok::<(), Box<dyn std::error::Error>>(())
    })
}

#[test]
fn a_registration_of_another_runtime_is_not_used() -> Outcome {
    let arena = paged_arena(4, 4096);
    let first = tokio_uring::Runtime::new(&tokio_uring::builder())?;
    let second = tokio_uring::Runtime::new(&tokio_uring::builder())?;
    let registered = first.block_on(async { Registered::new(&arena) })?;
    second.block_on(async {
        let (mut far, near) = pair();
        far.write_all(b"x")?;
        let (result, _) = registered.read(&near, arena.allocate()?).await;
        assert_eq!(result?, 1);
        Ok::<(), Box<dyn std::error::Error>>(())
    })
}

/// Checks that an error says where the call belongs, and that the memory came back.
fn assert_refused<B: IoMemory>((result, memory): (std::io::Result<usize>, B), arena: &FixedArena) {
    let text = result.unwrap_err().to_string();
    assert!(text.contains("tokio_uring::start"), "{text}");
    drop(memory);
    assert_all_free(arena);
}

/// Calls everything where no tokio-uring runtime runs.
fn use_outside(arena: &FixedArena, elsewhere: Option<&Registered>) -> Outcome {
    use futures::executor::block_on;

    let (_far, near) = pair();
    let file = Rc::new(File::from_std(std::fs::File::open("Cargo.toml")?));
    assert_refused(block_on(read(&near, arena.allocate()?)), arena);
    assert_refused(block_on(read_at(&file, arena.allocate()?, 0)), arena);
    assert_refused(block_on(write(&near, filled(arena, b"x"))), arena);
    assert_refused(block_on(write_at(&file, filled(arena, b"x").freeze(), 0)), arena);
    assert_refused(block_on(send_all(&near, filled(arena, b"x").freeze_in_place())), arena);
    if let Some(elsewhere) = elsewhere {
        assert_refused(block_on(elsewhere.read(&near, arena.allocate()?)), arena);
        assert_refused(block_on(elsewhere.read_at(&file, arena.allocate()?, 0)), arena);
        assert_refused(block_on(elsewhere.write(&near, filled(arena, b"x"))), arena);
    }
    assert!(matches!(Registered::new(arena), Err(AttachError::NotInRuntime)));
    drop(lend(arena.allocate()?));
    block_on(drain());
    assert_all_free(arena);
    Ok(())
}

#[test]
fn outside_its_runtime_everything_is_an_error_and_nothing_is_lost() -> Outcome {
    let arena = paged_arena(1, 4096);
    use_outside(&arena, None)?;
    let runtime = tokio_uring::Runtime::new(&tokio_uring::builder())?;
    let (registered, inner) = runtime.block_on(async {
        Ok::<_, AttachError>((Registered::new(&arena)?, tokio::runtime::Handle::current()))
    })?;
    // Between two calls of `block_on`, also with tokio's part of the runtime entered.
    use_outside(&arena, Some(&registered))?;
    let entered = inner.enter();
    use_outside(&arena, Some(&registered))?;
    drop(entered);
    // In ordinary runtimes, and on another thread.
    for plain in crate::support::tokio::runtimes() {
        plain.block_on(async { use_outside(&arena, Some(&registered)) })?;
    }
    std::thread::scope(|scope| {
        scope.spawn(|| use_outside(&arena, None).unwrap());
    });
    // After its end.
    drop(runtime);
    use_outside(&arena, Some(&registered))?;
    assert!(registered.unregister().is_err());
    Ok(())
}

#[test]
fn errors_give_the_slot_back() -> Outcome {
    let arena = paged_arena(1, 4096);
    tokio_uring::start(async {
        let directory = Rc::new(File::open(".").await?);
        let (result, buffer) = read_at(&directory, arena.allocate()?, 0).await;
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EISDIR));
        drop(buffer);
        let (result, loan) = directory.read_at(lend(arena.allocate()?), 0).await;
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EISDIR));
        drop(loan);
        assert!(arena.allocate().is_ok());
        drain().await;
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;
    assert_eq!(arena.metrics().quarantined, 0);
    Ok(())
}
