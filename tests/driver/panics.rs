//! Payloads whose drop panics: they harm nobody but their sender, wherever the driver drops them.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::driver::{driver, finish, run};
use crate::support::{TIMEOUT, assert_all_free, filled, paged_arena, tcp_pair};
use bytes::Bytes;
use uring_arena::{Driver, Event, FixedArena};

/// An owner of bytes whose drop panics, and is counted.
struct Bomb {
    bytes: Vec<u8>,
    drops: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Bomb {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::SeqCst);
        panic!("a payload panics, as this test wants");
    }
}

/// The bombs of one test.
#[derive(Default)]
struct Bombs {
    drops: Arc<AtomicUsize>,
}

impl Bombs {
    fn of(&self, bytes: usize) -> Bytes {
        Bytes::from_owner(Bomb { bytes: vec![1; bytes], drops: Arc::clone(&self.drops) })
    }

    fn drops(&self) -> usize {
        self.drops.load(Ordering::SeqCst)
    }
}

/// Begins transfers in every state: with the kernel, in the queue, over and untaken, completed and
/// untaken, and on a socket that is polled. Returns the number of bombs in them.
fn begin_all(driver: &mut Driver, arena: &FixedArena, bombs: &Bombs) -> usize {
    let (ours, theirs) = tcp_pair();
    let stuck = driver.add_file(ours).unwrap();
    driver.send(stuck, bombs.of(16 << 20)).unwrap();
    for _ in 0..3 {
        driver.send(stuck, bombs.of(10)).unwrap();
        driver.send(stuck, filled(arena, b"a slot among them")).unwrap();
    }
    let over = driver.send(stuck, bombs.of(10)).unwrap();
    driver.cancel_operation(over).unwrap();
    let (unblocking, unread) = tcp_pair();
    unblocking.set_nonblocking(true).unwrap();
    let polled = driver.add_file(unblocking).unwrap();
    driver.send(polled, bombs.of(16 << 20)).unwrap();
    let (free, read) = UnixStream::pair().unwrap();
    let done = driver.add_file(free).unwrap();
    driver.send(done, bombs.of(10)).unwrap();
    driver.read(done, arena.allocate().unwrap(), 0).unwrap();
    driver.wait_timeout(Duration::from_millis(10)).unwrap();
    // The peers stay open, and read nothing.
    std::mem::forget((theirs, unread, read));
    7
}

#[test]
fn a_drain_with_payloads_that_panic_ends_everything_and_the_driver_goes_on() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(8, 4096);
    driver.register(&arena).unwrap();
    let bombs = Bombs::default();
    let count = begin_all(&mut driver, &arena, &bombs);
    let report = driver.drain(TIMEOUT).unwrap();
    assert_eq!((report.in_flight, report.quarantined), (0, 0));
    assert_eq!(bombs.drops(), count, "each was dropped, once");
    assert_eq!(driver.metrics().contained_panics, count as u64);
    assert_all_free(&arena);
    // The driver is whole.
    driver.register(&arena).unwrap();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let socket = driver.add_file(ours).unwrap();
    driver.send(socket, filled(&arena, b"hello")).unwrap();
    run(&mut driver, |event| matches!(event, Event::Sent { result: Ok(5), .. }));
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_driver_that_is_dropped_with_payloads_that_panic_does_not_panic() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(8, 4096);
    let bombs = Bombs::default();
    let count = begin_all(&mut driver, &arena, &bombs);
    drop(driver);
    assert_eq!(bombs.drops(), count);
    assert_all_free(&arena);
    // Nor while its thread unwinds: a second panic would abort the process.
    let thread = std::thread::spawn(move || {
        let Some(mut driver) = crate::support::driver::driver() else { return };
        begin_all(&mut driver, &paged_arena(8, 4096), &bombs);
        panic!("the program panics, as this test wants");
    });
    assert!(thread.join().is_err());
}

/// An event hands the payload out: its panic is the program's, and the driver goes on.
#[test]
fn a_payload_that_panics_in_the_programs_hands_leaves_the_driver_whole() {
    let Some(mut driver) = driver() else { return };
    let bombs = Bombs::default();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let socket = driver.add_file(ours).unwrap();
    for _ in 0..4 {
        driver.send(socket, bombs.of(10)).unwrap();
    }
    let mut panics = 0;
    while panics < 4 {
        driver.wait_timeout(TIMEOUT).unwrap();
        while let Some(event) = driver.next() {
            let drops = std::panic::AssertUnwindSafe(|| drop(event));
            panics += usize::from(std::panic::catch_unwind(drops).is_err());
        }
    }
    driver.close_file(socket).unwrap();
    let refused = driver.send(socket, bombs.of(10)).unwrap_err();
    let drops = std::panic::AssertUnwindSafe(|| drop(refused));
    assert!(std::panic::catch_unwind(drops).is_err());
    assert_eq!(driver.metrics().contained_panics, 0);
    finish(driver);
}

/// Claims of tasks that wait for the slots of a driver, with wakers that panic.
#[cfg(feature = "async-alloc")]
mod waiting_claims {
    use std::future::Future;
    use std::io::Write;
    use std::pin::Pin;
    use std::task::{Context, Poll, Wake, Waker};

    use super::*;
    use uring_arena::{Buffer, BufferRing};

    struct BombWaker(AtomicUsize);

    impl Wake for BombWaker {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("a waker panics, as this test wants");
        }
    }

    fn poll<F: Future + ?Sized>(claim: &mut Pin<Box<F>>, waker: &Waker) -> Poll<F::Output> {
        claim.as_mut().poll(&mut Context::from_waker(waker))
    }

    /// A slot that was granted to a ring goes to a claim when the ring needs it no more, and a slot
    /// of bytes that a drain drops does: in the driver's calls, which go on.
    #[test]
    fn a_driver_that_passes_slots_on_is_not_harmed_by_their_wakers() {
        let Some(mut driver) = driver() else { return };
        let arena = FixedArena::with_sizes(4, 64).build_async().unwrap();
        let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(1)).unwrap();
        let mut held: Vec<Buffer> = std::iter::from_fn(|| arena.allocate().ok()).collect();
        let (mut sender, socket) = UnixStream::pair().unwrap();
        let id = driver.receive(ring, socket).unwrap();
        sender.write_all(b"first").unwrap();
        let mut first = None;
        run(&mut driver, |event| {
            let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
            first = Some(bytes);
            true
        });
        sender.write_all(b"second").unwrap();
        // The ring waits in the arena's queue, and a claim behind it.
        driver.wait_timeout(Duration::from_millis(10)).unwrap();
        assert!(driver.next().is_none());
        driver.wait_timeout(Duration::from_millis(10)).unwrap();
        assert_eq!(driver.metrics().parked, 1);
        let bomb = Arc::new(BombWaker(AtomicUsize::new(0)));
        let waker = Waker::from(bomb.clone());
        let mut claim = Box::pin(arena.allocate_async());
        assert!(poll(&mut claim, &waker).is_pending());
        drop(first);
        assert_eq!(bomb.0.load(Ordering::SeqCst), 0, "the slot is the ring's");
        driver.close(id).unwrap();
        assert_eq!(bomb.0.load(Ordering::SeqCst), 1);
        let Poll::Ready(buffer) = poll(&mut claim, &waker) else { panic!("its slot is there") };
        held.push(buffer);
        run(&mut driver, |event| matches!(event, Event::Closed { error: None, .. }));
        // A write whose memory the drain drops.
        let mut claim = Box::pin(arena.allocate_async());
        assert!(poll(&mut claim, &waker).is_pending());
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let socket = driver.add_file(ours).unwrap();
        driver.send(socket, held.pop().unwrap()).unwrap();
        driver.wait_timeout(Duration::from_millis(10)).unwrap();
        finish(driver);
        assert_eq!(bomb.0.load(Ordering::SeqCst), 2);
        assert!(poll(&mut claim, &waker).is_ready());
        drop(held);
        drop(claim);
        assert_all_free(&arena);
    }
}
