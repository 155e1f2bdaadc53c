//! compio: bytes over socket and file, dropped futures, starvation, shutdown with operations in
//! flight, bad input.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::support::runtimes::{Outcome, check_elsewhere, full_connection, poll_once, read_empty};
use crate::support::{TIMEOUT, TestFile, assert_all_free, message_pair, paged_arena, pattern};
use bytes::BufMut;
use compio::fs::File;
use compio::io::{AsyncRead, AsyncReadAt, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream, UnixStream};
use compio::runtime::Runtime;
use compio::runtime::time::{sleep, timeout};
use uring_arena::compio::{AttachError, ReceiveRing, Registered, block_on, drain, lend};
use uring_arena::{
    Buffer, BufferRing, FixedArena, RegisterError, RegistrationMode, RingError, SendOptions,
};

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (listener.accept().await.unwrap().0, connected)
}

fn pair() -> (StdStream, UnixStream) {
    let (far, near) = StdStream::pair().unwrap();
    (far, UnixStream::from_std(near).unwrap())
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    timeout(Duration::from_secs(5), async {
        while !is_so() {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("never: {what}"));
}

#[test]
fn a_stream_of_bytes_survives_and_leaves_the_thread() -> Outcome {
    let arena = paged_arena(64, 4096);
    Runtime::new()?.block_on(async {
        let ring = ReceiveRing::new(&arena, BufferRing::options().entries(16))?;
        let registered = std::rc::Rc::new(Registered::new(&arena)?);
        let (near, far) = tcp_pair().await;
        let expected = pattern(1, 1 << 20);
        let (message, sending) = (expected.clone(), arena.clone());
        let sender = compio::runtime::spawn(async move {
            for (turn, chunk) in message.chunks(4096).enumerate() {
                let mut buffer = loop {
                    match sending.allocate() {
                        Ok(buffer) => break buffer,
                        Err(_) => sleep(Duration::from_micros(100)).await,
                    }
                };
                buffer.put_slice(chunk);
                // Each way of sending in turn.
                let zero_copy_from = if turn % 2 == 0 { 1 } else { usize::MAX };
                let options = SendOptions::new().wait_all().zero_copy_from(zero_copy_from);
                let sent = if turn % 3 == 0 {
                    registered.send(&far, buffer, options).await.0
                } else {
                    registered.send(&far, buffer.freeze(), options).await.0
                };
                assert_eq!(sent.unwrap(), chunk.len());
            }
        });
        let mut incoming = ring.receive(&near);
        let (mut parts, mut checked, mut total) = (Vec::new(), 0, 0);
        while let Some(bytes) = incoming.try_next().await? {
            total += bytes.len();
            parts.push(bytes);
            if parts.len() == 8 {
                check_elsewhere(std::mem::take(&mut parts), &expected[checked..total]);
                checked = total;
            }
        }
        check_elsewhere(parts, &expected[checked..]);
        assert_eq!(total, expected.len());
        sender.await.unwrap();
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    assert_all_free(&arena);
    Ok(())
}

#[test]
fn a_file_is_read_and_written_by_every_road() -> Outcome {
    let arena = paged_arena(8, 8192);
    let path = TestFile::path("file");
    let expected = pattern(2, 20_000);
    let runtime = Runtime::new()?;
    block_on(&runtime, async {
        let registered = Registered::new(&arena)?;
        assert_eq!(registered.mode(), RegistrationMode::Slots);
        let file = File::create(&path).await?;
        for (turn, chunk) in expected.chunks(5000).enumerate() {
            let mut buffer = arena.allocate()?;
            buffer.put_slice(chunk);
            let offset = turn as u64 * 5000;
            let written = match turn % 3 {
                0 => registered.write_at(&file, buffer, offset).await.0?,
                1 => registered.write_at(&file, buffer.freeze_in_place(), offset).await.0?,
                _ => registered.write_at(&file, buffer.freeze(), offset).await.0?,
            };
            assert_eq!(written, chunk.len());
        }
        let file = File::open(&path).await?;
        let (result, buffer) = registered.read_at(&file, arena.allocate()?, 16_384).await.into();
        let read: usize = result?;
        assert_eq!((read, &buffer[..]), (20_000 - 16_384, &expected[16_384..]));
        // A read appends to the content of its buffer.
        let (result, buffer) = registered.read_at(&file, buffer, 0).await.into();
        let read: usize = result?;
        assert_eq!(read, 8192 - 3616);
        assert_eq!(buffer[3616..], expected[..read]);
        drop(buffer);
        let (result, loan) = file.read_at(lend(arena.allocate()?), 0).await.into();
        let read: usize = result?;
        assert_eq!(loan.freeze(), expected[..read]);
        registered.unregister()?;
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    assert_all_free(&arena);
    Ok(())
}

#[test]
fn a_dropped_operation_keeps_its_slot_until_the_kernel_is_done() -> Outcome {
    let arena = paged_arena(1, 4096);
    let runtime = Runtime::new()?;
    block_on(&runtime, async {
        let registered = Registered::new(&arena)?;
        // A future that was never polled never began its operation.
        let (_far, near) = pair();
        drop(registered.read_at(&near, arena.allocate()?, 0));
        assert_eq!(arena.metrics().bytes_live, 0);
        // An operation that began is cancelled, and its slot is free with the completion.
        poll_once(registered.read_at(&near, arena.allocate()?, 0));
        assert!(arena.allocate().is_err());
        until("the cancelled read is done", || arena.allocate().is_ok()).await;
        // The same holds for a loan in a method of compio.
        let (_far, mut near) = pair();
        poll_once(near.read(lend(arena.allocate()?)));
        assert!(arena.allocate().is_err());
        until("the cancelled loan is back", || arena.allocate().is_ok()).await;
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    assert_eq!(arena.metrics().quarantined, 0);
    Ok(())
}

#[test]
fn a_starved_stream_goes_on_when_slots_come_back() -> Outcome {
    let arena = paged_arena(2, 4096);
    Runtime::new()?.block_on(async {
        let ring = ReceiveRing::new(&arena, BufferRing::options().entries(2))?;
        let (mut far, near) = pair();
        let mut incoming = ring.receive(&near);
        let mut held = Vec::new();
        for turn in 0..2u8 {
            far.write_all(&[turn; 10])?;
            held.push(incoming.try_next().await?.unwrap());
        }
        far.write_all(&[9; 10])?;
        assert!(timeout(Duration::from_millis(50), incoming.try_next()).await.is_err());
        let freeing = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            drop(held);
        });
        let next = timeout(Duration::from_secs(5), incoming.try_next()).await??;
        assert_eq!(next.unwrap(), [9; 10][..]);
        freeing.join().unwrap();
        assert!(ring.metrics().starved <= 2);
        drop((ring, incoming));
        drain().await;
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    assert_all_free(&arena);
    Ok(())
}

#[test]
fn many_streams_share_few_slots() -> Outcome {
    let arena = paged_arena(4, 4096);
    Runtime::new()?.block_on(async {
        let ring = ReceiveRing::new(&arena, BufferRing::options().entries(4))?;
        let mut tasks = Vec::new();
        for id in 0..32 {
            let (near, mut far) = tcp_pair().await;
            let expected = pattern(id, 20_000);
            let message = expected.clone();
            tasks.push(compio::runtime::spawn(
                async move { far.write_all(message).await.0.unwrap() },
            ));
            let mut incoming = ring.receive(&near);
            tasks.push(compio::runtime::spawn(async move {
                let mut received = Vec::new();
                while let Some(bytes) = incoming.try_next().await.unwrap() {
                    received.extend_from_slice(&bytes);
                }
                assert!(received == expected);
            }));
        }
        for task in tasks {
            timeout(Duration::from_secs(20), task).await?.unwrap();
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    assert_all_free(&arena);
    Ok(())
}

/// Builds a ring of one slot, which the buffer holds: a stream that receives into it is starved.
fn starving_ring(
    entries: usize,
) -> Result<(FixedArena, ReceiveRing, Vec<Buffer>), Box<dyn std::error::Error>> {
    let arena = paged_arena(entries, 4096);
    let held = (0..entries).map(|_| arena.allocate().unwrap()).collect();
    let ring = ReceiveRing::new(&arena, BufferRing::options().entries(entries))?;
    Ok((arena, ring, held))
}

/// Opens a connection on which five bytes wait.
fn pair_with_data() -> (StdStream, UnixStream) {
    let (mut far, near) = pair();
    far.write_all(b"hello").unwrap();
    (far, near)
}

/// A time longer than a starved ring takes to enter the arena's queue.
const A_FEW_TURNS: Duration = Duration::from_millis(20);

/// A starved ring is handed its slot. If the slot were freed to everybody and claimed again, a
/// newcomer could take it, and the ring would wait at the end of the queue once more.
#[test]
fn a_starved_ring_is_handed_its_slot_and_never_overtaken() -> Outcome {
    Runtime::new()?.block_on(async {
        let (arena, ring, mut held) = starving_ring(1)?;
        let (mut far, near) = pair();
        let mut incoming = ring.receive(&near);
        let (taken, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let newcomer = std::thread::spawn({
            let (arena, taken, stop) = (arena.clone(), taken.clone(), stop.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    // The claim is counted while it is held, so the count is complete once the slot
                    // is handed on.
                    let buffer = arena.allocate();
                    taken.fetch_add(buffer.is_ok().into(), Ordering::SeqCst);
                    drop(buffer);
                }
            }
        });
        for round in 0..300u16 {
            far.write_all(&round.to_ne_bytes())?;
            let mut next = pin!(incoming.try_next());
            assert!(futures_util::poll!(next.as_mut()).is_pending());
            sleep(Duration::from_millis(1)).await;
            assert!(futures_util::poll!(next.as_mut()).is_pending());
            sleep(Duration::from_millis(1)).await;
            let before = taken.load(Ordering::SeqCst);
            held.clear();
            let bytes = timeout(TIMEOUT, next).await??.unwrap();
            assert_eq!(bytes, round.to_ne_bytes()[..]);
            assert_eq!(taken.load(Ordering::SeqCst), before, "overtaken in round {round}");
            drop(bytes);
            while held.is_empty() {
                held.extend(arena.allocate());
                sleep(Duration::ZERO).await;
            }
        }
        stop.store(true, Ordering::Relaxed);
        newcomer.join().unwrap();
        Ok::<_, Box<dyn std::error::Error>>(())
    })
}

#[test]
fn streams_that_stopped_waiting_give_up_the_place_of_their_ring() -> Outcome {
    Runtime::new()?.block_on(async {
        let (arena, ring, mut held) = starving_ring(2)?;
        let mut kept = Vec::new();
        for turn in 0..6 {
            let (far, near) = pair_with_data();
            let mut incoming = ring.receive(&near);
            match turn % 3 {
                0 => assert!(timeout(A_FEW_TURNS, incoming.try_next()).await.is_err()),
                1 => {
                    let (next, sleep) = (pin!(incoming.try_next()), pin!(sleep(A_FEW_TURNS)));
                    let first = futures_util::future::select(next, sleep).await;
                    assert!(matches!(first, futures_util::future::Either::Right(_)));
                }
                _ => poll_once(incoming.try_next()),
            }
            kept.push((far, incoming));
        }
        // As a stream it waits until it is dropped.
        let (_far, near) = pair_with_data();
        let mut incoming = ring.receive(&near);
        let next = pin!(futures_util::StreamExt::next(&mut incoming));
        assert!(timeout(A_FEW_TURNS, next).await.is_err());
        drop(incoming);
        // No claim waits, so a slot that comes back is free for everybody.
        held.clear();
        held.extend([arena.allocate()?, arena.allocate()?]);
        // A ring that still waits is served before later claims.
        let (_far, near) = pair_with_data();
        let mut incoming = ring.receive(&near);
        let mut next = pin!(incoming.try_next());
        assert!(timeout(A_FEW_TURNS, next.as_mut()).await.is_err());
        held.pop();
        assert!(arena.allocate().is_err());
        assert_eq!(timeout(TIMEOUT, next).await??.unwrap(), "hello");
        Ok::<_, Box<dyn std::error::Error>>(())
    })
}

#[test]
fn a_starved_stream_that_nothing_polls_stops_no_other() -> Outcome {
    Runtime::new()?.block_on(async {
        let (arena, ring, mut held) = starving_ring(2)?;
        // Streams that are polled once as a `Stream` and never again, and sockets that stay silent.
        let mut forgotten = Vec::new();
        for at in 0..8 {
            let (far, near) = if at % 2 == 0 { pair() } else { pair_with_data() };
            let mut incoming = ring.receive(&near);
            let next = pin!(futures_util::StreamExt::next(&mut incoming));
            let waiting = timeout(Duration::from_millis(2), next).await;
            assert!(waiting.is_err());
            forgotten.push((far, incoming));
        }
        let (_far, near) = pair_with_data();
        let mut incoming = ring.receive(&near);
        let mut next = pin!(incoming.try_next());
        assert!(timeout(A_FEW_TURNS, next.as_mut()).await.is_err());
        held.pop();
        assert_eq!(timeout(TIMEOUT, next.as_mut()).await??.unwrap(), "hello");
        // The ring keeps only its posted slots, not a slot for each stream.
        drop(forgotten);
        held.clear();
        until("the slots are the ring's or free", || {
            arena.metrics().bytes_live == ring.metrics().published * 4096
        })
        .await;
        Ok::<_, Box<dyn std::error::Error>>(())
    })
}

#[test]
fn a_slot_that_comes_back_sets_one_starved_stream_going() -> Outcome {
    Runtime::new()?.block_on(async {
        let (arena, ring, mut held) = starving_ring(1)?;
        let mut tasks = Vec::new();
        for _ in 0..50 {
            let (far, near) = pair_with_data();
            let mut incoming = ring.receive(&near);
            tasks.push(compio::runtime::spawn(async move {
                let bytes = incoming.try_next().await.unwrap().unwrap();
                assert_eq!(bytes, "hello");
                drop(far);
            }));
        }
        sleep(A_FEW_TURNS).await;
        assert_eq!(ring.metrics().starved, 0, "none began in vain");
        held.clear();
        for task in tasks {
            timeout(TIMEOUT, task).await?.unwrap();
        }
        let starved = ring.metrics().starved;
        assert!(starved <= 2 * 50, "{starved} receives found no slot, for 50 messages");
        drop(ring);
        drain().await;
        assert_all_free(&arena);
        Ok::<_, Box<dyn std::error::Error>>(())
    })
}

#[test]
fn a_runtime_that_ends_gives_up_the_place_of_a_starved_ring() -> Outcome {
    let runtime = Runtime::new()?;
    let (arena, kept, held) = runtime.block_on(async {
        let (arena, ring, held) = starving_ring(1)?;
        let (far, near) = pair_with_data();
        let mut incoming = ring.receive(&near);
        let next = pin!(futures_util::StreamExt::next(&mut incoming));
        assert!(timeout(A_FEW_TURNS, next).await.is_err());
        Ok::<_, Box<dyn std::error::Error>>((arena, (far, incoming), held))
    })?;
    drop(runtime);
    drop(held);
    assert!(arena.allocate().is_ok(), "kept for a ring that is gone");
    drop(kept);
    Ok(())
}

#[test]
fn short_messages_are_copied_and_starve_nobody() -> Outcome {
    let arena = paged_arena(1, 4096);
    Runtime::new()?.block_on(async {
        let ring = ReceiveRing::new(&arena, BufferRing::options().entries(1).copy_below(100))?;
        let pairs: Vec<_> = (0..4).map(|_| pair()).collect();
        let mut streams: Vec<_> = pairs.iter().map(|(_, near)| ring.receive(near)).collect();
        let mut held = Vec::new();
        for turn in 0..50u8 {
            for ((far, _), incoming) in pairs.iter().zip(&mut streams) {
                (&*far).write_all(&[turn; 50])?;
                let next = timeout(Duration::from_secs(5), incoming.try_next()).await??;
                held.push(next.unwrap());
            }
        }
        assert!(
            held.chunks(4)
                .enumerate()
                .all(|(turn, four)| four.iter().all(|bytes| **bytes == [turn as u8; 50]))
        );
        Ok::<_, Box<dyn std::error::Error>>(())
    })
}

/// The stream's ring has the settings of a driver's: bulk comes in pieces of many slots.
#[test]
fn bulk_comes_in_pieces_of_many_slots() -> Outcome {
    let arena = paged_arena(1024, 4096);
    Runtime::new()?.block_on(async {
        let ring = ReceiveRing::new(&arena, BufferRing::options())?;
        let (mut far, near) = pair();
        let expected = pattern(3, 8 << 20);
        let message = expected.clone();
        let sender = std::thread::spawn(move || far.write_all(&message).unwrap());
        let mut incoming = ring.receive(&near);
        let (mut at, mut long) = (0, 0);
        while at < expected.len() {
            let bytes = timeout(TIMEOUT, incoming.try_next()).await??.unwrap();
            assert!(expected[at..].starts_with(&bytes), "differs at {at}");
            at += bytes.len();
            long += usize::from(bytes.len() > 8 * 4096);
        }
        assert!(long > 20, "{long} long pieces");
        sender.join().unwrap();
        assert!(incoming.try_next().await?.is_none());
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    assert_all_free(&arena);
    Ok(())
}

#[test]
fn a_dropped_stream_lets_go_of_everything() -> Outcome {
    let arena = paged_arena(8, 4096);
    Runtime::new()?.block_on(async {
        let ring = ReceiveRing::new(&arena, BufferRing::options().entries(4))?;
        let (mut far, near) = pair();
        // One stream was never polled, one was polled and is silent, one has bytes that are not
        // taken.
        drop(ring.receive(&near));
        poll_once(ring.receive(&near).try_next());
        until("the first receive is cancelled", || ring.metrics().published == 4).await;
        let mut incoming = ring.receive(&near);
        poll_once(incoming.try_next());
        far.write_all(b"unread")?;
        sleep(Duration::from_millis(20)).await;
        drop((ring, incoming));
        drain().await;
        assert_eq!(arena.metrics().bytes_live, 0);
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    assert_eq!(arena.metrics().quarantined, 0);
    Ok(())
}

#[test]
fn shutdown_with_operations_in_flight_quarantines_their_slots() -> Outcome {
    let arena = paged_arena(16, 4096);
    let (far, near) = StdStream::pair()?;
    let runtime = Runtime::new()?;
    block_on(&runtime, async {
        let near = UnixStream::from_std(near)?;
        let registered = Registered::new(&arena)?;
        let ring = ReceiveRing::new(&arena, BufferRing::options().entries(4))?;
        let (operation, mut incoming) =
            (registered.read_at(&near, arena.allocate()?, 0), ring.receive(&near));
        compio::runtime::spawn(async move { drop(operation.await) }).detach();
        compio::runtime::spawn(async move { drop(incoming.try_next().await) }).detach();
        let (mut stream, loan) = (near.clone(), lend(arena.allocate()?));
        compio::runtime::spawn(async move { drop(stream.read(loan).await) }).detach();
        sleep(Duration::from_millis(20)).await;
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    drop(runtime);
    // The slots of operations that had not completed, posted slots included, are never given out
    // again.
    let metrics = arena.metrics();
    assert_eq!(metrics.bytes_live as u64, metrics.quarantined * 4096);
    assert_eq!(metrics.quarantined, 6);
    drop(far);
    Ok(())
}

/// Checks that an error says where the call belongs.
fn assert_outside<T>(result: std::io::Result<T>) {
    let error = result.err().expect("an error");
    assert!(error.to_string().contains("in no compio runtime, or not in the one"), "{error}");
}

#[test]
fn what_outlives_its_runtime_is_harmless() -> Outcome {
    let arena = paged_arena(8, 4096);
    let (registered, ring) = Runtime::new()?.block_on(async {
        let ring = ReceiveRing::new(&arena, BufferRing::options().entries(4))?;
        Ok::<_, Box<dyn std::error::Error>>((Registered::new(&arena)?, ring))
    })?;
    // The next runtime gets the same descriptor number.
    Runtime::new()?.block_on(async {
        let (_far, near) = pair();
        assert_outside(ring.receive(&near).try_next().await);
        assert_outside(registered.read_at(&near, arena.allocate()?, 0).await.0);
        assert_eq!(registered.unregister().unwrap_err(), AttachError::NotInRuntime);
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    drop(ring);
    assert_eq!(arena.metrics().quarantined, 4);
    Ok(())
}

#[test]
fn attaching_says_what_is_wrong() -> Outcome {
    let first = paged_arena(8, 4096);
    assert_eq!(Registered::new(&first).unwrap_err(), AttachError::NotInRuntime);
    let options = BufferRing::options();
    assert_eq!(ReceiveRing::new(&first, options).unwrap_err(), AttachError::NotInRuntime);
    Runtime::new()?.block_on(async {
        let registered = Registered::new(&first)?;
        let again = Registered::new(&first).unwrap_err();
        assert_eq!(again, AttachError::Register(RegisterError::TableInUse));
        registered.unregister()?;
        Registered::new(&first)?;
        let error = ReceiveRing::new(&first, options.group(1)).unwrap_err();
        assert_eq!(error, AttachError::Ring(RingError::GroupTaken { group: 1 }));
        let _ring = ReceiveRing::new(&first, options.entries(2).group(9))?;
        let error = ReceiveRing::new(&first, options.entries(2).group(9)).unwrap_err();
        assert_eq!(error, AttachError::Ring(RingError::GroupTaken { group: 9 }));
        // Several rings live side by side.
        let _second = ReceiveRing::new(&first, options.entries(2))?;
        let _third = ReceiveRing::new(&first, options.entries(2))?;
        Ok::<_, Box<dyn std::error::Error>>(())
    })
}

/// Messages would lose their boundaries in a stream, and an empty one would end it.
#[test]
fn a_socket_of_messages_is_refused_by_a_stream() -> Outcome {
    let arena = paged_arena(8, 4096);
    Runtime::new()?.block_on(async {
        let ring = ReceiveRing::new(&arena, BufferRing::options().entries(4))?;
        let datagrams: OwnedFd = std::net::UdpSocket::bind("127.0.0.1:0")?.into();
        for socket in [datagrams, message_pair().0] {
            let mut incoming = ring.receive(&Rc::new(socket));
            let error = timeout(TIMEOUT, incoming.try_next()).await?.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains("receive_datagrams"), "{error}");
            assert!(incoming.try_next().await?.is_none());
        }
        drop(ring);
        assert_all_free(&arena);
        Ok(())
    })
}

#[cfg(feature = "compio-polling")]
#[test]
fn a_runtime_on_epoll_is_refused() -> Outcome {
    use compio::driver::{DriverType, ProactorBuilder};
    let mut proactor = ProactorBuilder::new();
    proactor.driver_type(DriverType::Poll);
    let arena = paged_arena(8, 4096);
    Runtime::builder().with_proactor(proactor).build()?.block_on(async {
        assert_eq!(Registered::new(&arena).unwrap_err(), AttachError::NotOnUring);
        let error = ReceiveRing::new(&arena, BufferRing::options()).unwrap_err();
        assert_eq!(error, AttachError::NotOnUring);
    });
    Ok(())
}

#[test]
fn a_read_dropped_with_its_result_frees_the_slot() -> Outcome {
    let arena = paged_arena(1, 4096);
    Runtime::new()?.block_on(async {
        let registered = Registered::new(&arena)?;
        let (mut far, near) = pair();
        far.write_all(b"there")?;
        let mut read = Box::pin(registered.read_at(&near, arena.allocate()?, 0));
        assert!(futures_util::future::poll_immediate(read.as_mut()).await.is_none());
        // The operation completes meanwhile, and the future is not polled.
        sleep(Duration::from_millis(20)).await;
        drop(read);
        assert_all_free(&arena);
        Ok::<_, Box<dyn std::error::Error>>(())
    })
}

#[test]
fn dropped_writes_and_sends_keep_their_bytes_until_the_kernel_is_done() -> Outcome {
    let arena = paged_arena(3, 4096);
    Runtime::new()?.block_on(async {
        let registered = Registered::new(&arena)?;
        let (near, far) = full_connection();
        let near = TcpStream::from_std(near)?;
        let filled = || {
            let mut buffer = arena.allocate().unwrap();
            buffer.put_bytes(7, 4096);
            buffer
        };
        poll_once(registered.write_at(&near, filled(), 0));
        poll_once(registered.send(&near, filled().freeze(), SendOptions::new()));
        poll_once(registered.send(
            &near,
            filled().freeze_in_place(),
            SendOptions::new().zero_copy_from(1),
        ));
        assert!(arena.allocate().is_err(), "the kernel may still read all three");
        read_empty(far);
        until("each is cancelled or sent", || arena.metrics().bytes_live == 0).await;
        drop(near);
        drain().await;
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    assert_all_free(&arena);
    Ok(())
}
