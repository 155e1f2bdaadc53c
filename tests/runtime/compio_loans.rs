//! compio: how long loans and rings are proven, what waits, and what waits keep.

#[cfg(feature = "async-alloc")]
use std::cell::RefCell;
use std::future::Future;
use std::io::Write;
use std::os::unix::net::UnixStream as StdStream;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

#[cfg(feature = "async-alloc")]
use crate::support::nz;
use crate::support::runtimes::{Outcome, poll_once};
use crate::support::{TIMEOUT, assert_all_free, filled, paged_arena};
use compio::fs::File;
use compio::io::{AsyncRead, AsyncReadAt};
use compio::net::UnixStream;
use compio::runtime::Runtime;
use compio::runtime::time::{sleep, timeout};
use futures_core::Stream;
use uring_arena::compio::{AttachError, ReceiveRing, Registered, block_on, drain, lend, send_all};
use uring_arena::{BufferRing, FixedArena, SendOptions};

fn pair() -> (StdStream, UnixStream) {
    let (far, near) = StdStream::pair().unwrap();
    (far, UnixStream::from_std(near).unwrap())
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(TIMEOUT, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[test]
fn a_loan_comes_back_in_later_calls_of_either_block_on() -> Outcome {
    let arena = paged_arena(4, 4096);
    let runtime = Runtime::new()?;
    let lose_a_read = |arena: &FixedArena| {
        let (far, mut near) = pair();
        poll_once(near.read(lend(arena.allocate().unwrap())));
        (far, near)
    };
    let first = runtime.block_on(async { lose_a_read(&arena) });
    let second = block_on(&runtime, async { lose_a_read(&arena) });
    assert_eq!(arena.metrics().bytes_live, 2 * 4096);
    runtime.block_on(until("both loans are back", || arena.metrics().bytes_live == 0));
    drop((first, second));
    assert_all_free(&arena);
    Ok(())
}

#[test]
fn a_timed_out_loan_comes_back_in_compios_own_block_on() -> Outcome {
    let arena = paged_arena(4, 4096);
    Runtime::new()?.block_on(async {
        let (mut far, mut near) = pair();
        for _ in 0..12 {
            let reading = near.read(lend(arena.allocate()?));
            assert!(timeout(Duration::from_millis(3), reading).await.is_err());
            until("the loan is back", || arena.metrics().bytes_live == 0).await;
        }
        // The end of a stream and an error set no length, and free the loan all the same.
        far.write_all(b"hello")?;
        let (read, loan) = near.read(lend(arena.allocate()?)).await.into();
        let read: usize = read?;
        assert_eq!((read, &loan[..]), (5, &b"hello"[..]));
        drop(far);
        let (read, loan) = near.read(loan).await.into();
        let read: usize = read?;
        assert_eq!((read, loan.len()), (0, 0));
        drop(loan);
        let directory = File::open(".").await?;
        let (error, loan) = directory.read_at(lend(arena.allocate()?), 0).await.into();
        let error: std::io::Result<usize> = error;
        assert!(error.is_err());
        drop(loan);
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    assert_all_free(&arena);
    Ok(())
}

#[test]
fn a_loan_that_is_read_into_again_has_the_length_of_the_last_read() -> Outcome {
    let arena = paged_arena(1, 4096);
    Runtime::new()?.block_on(async {
        let (mut far, mut near) = pair();
        let mut loan = lend(arena.allocate()?);
        for text in ["a long message", "short", "middling"] {
            far.write_all(text.as_bytes())?;
            let read: std::io::Result<usize>;
            (read, loan) = near.read(loan).await.into();
            assert_eq!((read?, &loan[..]), (text.len(), text.as_bytes()));
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    })
}

#[test]
fn drain_waits_for_loans() -> Outcome {
    let arena = paged_arena(4, 4096);
    for ours in [false, true] {
        let runtime = Runtime::new()?;
        let work = async {
            let (_far, mut near) = pair();
            poll_once(near.read(lend(arena.allocate()?)));
            timeout(TIMEOUT, drain()).await?;
            assert_all_free(&arena);
            Ok::<_, Box<dyn std::error::Error>>(())
        };
        if ours { block_on(&runtime, work)? } else { runtime.block_on(work)? }
    }
    Ok(())
}

/// A runtime that ends while its thread unwinds leaks its tasks. Their silence is no proof of its
/// life.
#[test]
fn a_runtime_that_ends_under_a_panic_proves_nothing() -> Outcome {
    let arena = paged_arena(8, 4096);
    let (_far, near) = StdStream::pair()?;
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let ring = ReceiveRing::new(&arena, BufferRing::options().entries(2)).unwrap();
            let mut near = UnixStream::from_std(near).unwrap();
            let mut incoming = ring.receive(&near);
            poll_once(incoming.try_next());
            poll_once(near.read(lend(arena.allocate().unwrap())));
        });
        panic!("on purpose");
    }));
    assert!(panic.is_err());
    // The loan and the two slots of the ring are lost, and none is given out.
    assert_eq!((arena.metrics().quarantined, arena.metrics().bytes_live), (3, 3 * 4096));
    // The next runtime gets the same descriptor number, and has nothing to do with the first.
    Runtime::new()?.block_on(async {
        let ring = ReceiveRing::new(&arena, BufferRing::options().entries(2))?;
        let (mut far, near) = pair();
        far.write_all(b"hello")?;
        assert_eq!(ring.receive(&near).try_next().await?.unwrap(), "hello");
        drop(ring);
        drain().await;
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    assert_eq!((arena.metrics().quarantined, arena.metrics().bytes_live), (3, 3 * 4096));
    Ok(())
}

/// Makes a waker whose clones and wakes can be counted.
fn counted_waker() -> (Arc<AtomicU64>, Waker) {
    struct Counted(Arc<AtomicU64>);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    let wakes = Arc::new(AtomicU64::new(0));
    (Arc::clone(&wakes), Waker::from(Arc::new(Counted(wakes))))
}

/// Polls with a waker of its own each time, as `FuturesUnordered` and `select!` do.
fn poll_with_many_wakers(mut poll: impl FnMut(&mut Context<'_>)) -> usize {
    let mut all = Vec::new();
    for _ in 0..1000 {
        let (wakes, waker) = counted_waker();
        poll(&mut Context::from_waker(&waker));
        all.push(wakes);
    }
    all.iter().filter(|wakes| Arc::strong_count(wakes) > 1).count()
}

#[test]
fn what_waits_keeps_one_waker_however_often_it_is_polled() -> Outcome {
    Runtime::new()?.block_on(async {
        let arena = paged_arena(1, 4096);
        let held = arena.allocate()?;
        let ring = ReceiveRing::new(&arena, BufferRing::options().entries(1))?;
        let (mut far, near) = pair();
        far.write_all(b"hello")?;
        // As a stream, and as the future of `try_next`.
        let mut incoming = pin!(ring.receive(&near));
        let kept = poll_with_many_wakers(|context| {
            assert!(incoming.as_mut().poll_next(context).is_pending());
        });
        assert_eq!(kept, 1);
        let mut next = Box::pin(incoming.try_next());
        let kept = poll_with_many_wakers(|context| {
            assert!(next.as_mut().poll(context).is_pending());
        });
        assert_eq!(kept, 1);
        drop(next);
        // As a wait for the last loan.
        let (_far, mut near) = pair();
        let mut reading = pin!(near.read(lend(held)));
        assert!(futures_util::poll!(reading.as_mut()).is_pending());
        let mut draining = Box::pin(drain());
        let mut kept = Vec::new();
        for _ in 0..1000 {
            let (wakes, waker) = counted_waker();
            assert!(draining.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            kept.push(wakes);
        }
        assert_eq!(kept.iter().filter(|wakes| Arc::strong_count(wakes) > 1).count(), 1);
        drop(draining);
        assert!(kept.iter().all(|wakes| Arc::strong_count(wakes) == 1));
        Ok::<_, Box<dyn std::error::Error>>(())
    })
}

#[cfg(feature = "async-alloc")]
#[test]
fn wakers_of_others_run_while_no_ring_is_in_use() -> Outcome {
    thread_local! {
        static RING: RefCell<Option<ReceiveRing>> = const { RefCell::new(None) };
    }

    /// A waker that looks at the ring.
    struct Look(AtomicU64);

    impl Wake for Look {
        fn wake(self: Arc<Self>) {
            let ring = RING.with_borrow(Clone::clone);
            self.0.fetch_add(ring.map_or(1, |ring| 1 + ring.metrics().received), Ordering::SeqCst);
        }
    }

    // A slot that is scrubbed before it is posted again, and a claim that waits for it.
    let arena = FixedArena::with_slot_capacity(nz(1), nz(4096))
        .init_policy(uring_arena::InitPolicy::Zero)
        .build_async()?;
    Runtime::new()?.block_on(async {
        let options = BufferRing::options().entries(1).copy_below(100);
        let ring = ReceiveRing::new(&arena, options)?;
        RING.set(Some(ring.clone()));
        let (mut far, near) = pair();
        let mut incoming = ring.receive(&near);
        let look = Arc::new(Look(AtomicU64::new(0)));
        let mut claiming = pin!(arena.allocate_async());
        let waker = Waker::from(Arc::clone(&look));
        assert!(claiming.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        for text in ["copied", "copied too"] {
            far.write_all(text.as_bytes())?;
            assert_eq!(timeout(TIMEOUT, incoming.try_next()).await??.unwrap(), text);
        }
        // The ring goes, and the claim gets its slot.
        RING.set(None);
        drop((incoming, ring));
        until("the claim is served", || look.0.load(Ordering::SeqCst) > 0).await;
        drop(claiming.await);
        drain().await;
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    assert_all_free(&arena);
    Ok(())
}

/// Checks that an error says where the call belongs.
#[track_caller]
fn assert_outside<T>(result: std::io::Result<T>) {
    let error = result.err().expect("an error");
    assert!(error.to_string().contains("this thread is in no compio runtime"), "{error}");
}

/// Calls everything where the runtime of `registered` and `ring` does not run.
async fn use_outside(arena: &FixedArena, registered: &Registered, ring: &ReceiveRing) {
    let (_far, near) = StdStream::pair().unwrap();
    let near = std::rc::Rc::new(near);
    assert_outside(registered.read_at(&near, arena.allocate().unwrap(), 0).await.0);
    assert_outside(registered.write_at(&near, filled(arena, b"x"), 0).await.0);
    let options = SendOptions::new();
    assert_outside(registered.send(&near, filled(arena, b"x").freeze(), options).await.0);
    assert_outside(registered.send_all(&near, filled(arena, b"x"), options).await.0);
    assert_outside(ring.receive(&near).try_next().await);
    drop(lend(arena.allocate().unwrap()));
}

#[test]
fn outside_its_runtime_everything_is_an_error_and_nothing_is_lost() -> Outcome {
    use futures::executor::block_on as block_on_elsewhere;

    let arena = paged_arena(4, 4096);
    let runtime = Runtime::new()?;
    let (registered, ring) = runtime.block_on(async {
        let ring = ReceiveRing::new(&arena, BufferRing::options().entries(1))?;
        Ok::<_, AttachError>((Registered::new(&arena)?, ring))
    })?;
    let (_far, near) = StdStream::pair()?;
    let near = std::rc::Rc::new(near);
    for _ in 0..2 {
        // Between two calls of `block_on`, in another runtime, and in none.
        Runtime::new()?.block_on(use_outside(&arena, &registered, &ring));
        block_on_elsewhere(use_outside(&arena, &registered, &ring));
        assert_outside(block_on_elsewhere(send_all(&near, filled(&arena, b"x"))).0);
        assert_eq!(Registered::new(&arena).unwrap_err(), AttachError::NotInRuntime);
        block_on_elsewhere(drain());
        assert_eq!(arena.metrics().bytes_live, 4096, "the slot that the ring has ready");
    }
    // What was made inside begins where it is polled first.
    let (read, mut incoming) = runtime.block_on(async {
        (registered.read_at(&near, arena.allocate().unwrap(), 0), ring.receive(&near))
    });
    drop(runtime);
    let (result, buffer) = block_on_elsewhere(read).into();
    assert_outside::<usize>(result);
    drop(buffer);
    // The end of a stream comes after its error.
    assert_outside(block_on_elsewhere(incoming.try_next()));
    assert!(block_on_elsewhere(incoming.try_next())?.is_none());
    block_on_elsewhere(use_outside(&arena, &registered, &ring));
    assert_eq!(registered.unregister().unwrap_err(), AttachError::NotInRuntime);
    assert_eq!(arena.metrics().bytes_live, 4096);
    Ok(())
}

#[test]
fn a_stream_that_is_under_way_when_its_runtime_ends_says_so() -> Outcome {
    let arena = paged_arena(4, 4096);
    let runtime = Runtime::new()?;
    let (mut far, near) = StdStream::pair()?;
    let mut incoming = runtime.block_on(async {
        let ring = ReceiveRing::new(&arena, BufferRing::options().entries(2))?;
        let mut incoming = ring.receive(&std::rc::Rc::new(near));
        far.write_all(b"arrived")?;
        assert_eq!(timeout(TIMEOUT, incoming.try_next()).await??.unwrap(), "arrived");
        assert!(timeout(Duration::from_millis(5), incoming.try_next()).await.is_err());
        Ok::<_, Box<dyn std::error::Error>>(incoming)
    })?;
    drop(runtime);
    assert_outside(futures::executor::block_on(incoming.try_next()));
    Ok(())
}

/// Ends runtimes while several completions of one operation lie in the queue. compio 0.12 frees an
/// operation once for each of them.
#[test]
fn a_runtime_ends_with_many_completions_of_one_receive() -> Outcome {
    for is_kept in [false, true] {
        let arena = paged_arena(64, 4096);
        let runtime = Runtime::new()?;
        let mut pairs = Vec::new();
        let streams = runtime.block_on(async {
            let ring = ReceiveRing::new(&arena, BufferRing::options().entries(32))?;
            let mut streams = Vec::new();
            for _ in 0..4 {
                let (mut far, near) = pair();
                let mut incoming = ring.receive(&near);
                far.write_all(b"first")?;
                assert_eq!(timeout(TIMEOUT, incoming.try_next()).await??.unwrap(), "first");
                poll_once(incoming.try_next());
                pairs.push(far);
                streams.push(incoming);
            }
            Ok::<_, Box<dyn std::error::Error>>(streams)
        })?;
        // The kernel goes on, and nobody looks.
        for _ in 0..4 {
            pairs.iter_mut().try_for_each(|far| far.write_all(b"more"))?;
            std::thread::sleep(Duration::from_millis(1));
        }
        if is_kept {
            drop(runtime);
            pairs.iter_mut().try_for_each(|far| far.write_all(b"late"))?;
            std::thread::sleep(Duration::from_millis(1));
            drop(streams);
        } else {
            drop(streams);
            drop(runtime);
        }
        let states = arena.slot_states();
        assert_eq!(states.free + states.quarantined, 64, "{states:?}");
    }
    Ok(())
}
