//! Rings that wait for slots: each is handed its slot, in its turn.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::driver::{driver, finish, run};
use crate::support::{arena, assert_all_free, tcp_pair, watched};
use bytes::Bytes;
use uring_arena::{BufferRing, Driver, Event};

fn next_bytes(driver: &mut Driver) -> Bytes {
    let mut taken = None;
    run(driver, |event| {
        let Event::Received { bytes, .. } = event else { panic!("{event:?}") };
        taken = Some(bytes);
        true
    });
    taken.unwrap()
}

/// Turns until the socket found no slot, and its ring waits for one.
fn wait_until_parked(driver: &mut Driver) {
    while driver.metrics().parked == 0 || driver.poll_now().unwrap() {
        driver.poll_now().unwrap();
        assert!(driver.next().is_none());
    }
}

#[test]
fn a_freed_slot_is_the_waiting_rings_before_the_driver_looks() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(1, 64);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(1)).unwrap();
    let (mut sender, socket) = tcp_pair();
    driver.receive(ring, socket).unwrap();
    for _ in 0..100 {
        sender.write_all(b"a").unwrap();
        let held = next_bytes(&mut driver);
        sender.write_all(b"b").unwrap();
        wait_until_parked(&mut driver);
        drop(held);
        assert!(arena.allocate().is_err(), "a newcomer overtook the ring");
        assert_eq!(next_bytes(&mut driver), "b");
    }
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_ring_that_waits_is_woken_once_and_never_overtaken() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(1, 64);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(1)).unwrap();
    let (mut sender, socket) = tcp_pair();
    driver.receive(ring, socket).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // Takes every slot that is anybody's, at any moment.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                drop(arena.allocate());
            }
        });
        for _ in 0..500 {
            sender.write_all(b"x").unwrap();
            let held = next_bytes(&mut driver);
            sender.write_all(b"y").unwrap();
            wait_until_parked(&mut driver);
            drop(held);
            assert_eq!(next_bytes(&mut driver), "y");
        }
        done.store(true, Ordering::Relaxed);
    });
    let metrics = driver.metrics();
    assert!(metrics.starved >= 500, "{metrics:?}");
    // A wake without a slot of its own would be followed by another one for the same wait.
    assert!(metrics.wakeups <= metrics.starved, "{metrics:?}");
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_ring_that_waits_no_more_hands_its_slot_on() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(1, 64);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(1)).unwrap();
    let (mut sender, socket) = tcp_pair();
    let id = driver.receive(ring, socket).unwrap();
    sender.write_all(b"a").unwrap();
    let held = next_bytes(&mut driver);
    sender.write_all(b"b").unwrap();
    wait_until_parked(&mut driver);
    drop(held);
    assert!(arena.allocate().is_err(), "the slot was granted to the ring");
    driver.close(id).unwrap();
    assert!(arena.allocate().is_ok(), "no socket of the ring waits any more");
    run(&mut driver, |event| matches!(event, Event::Closed { error: None, .. }));
    finish(driver);
    assert_all_free(&arena);
}

/// A program that waits for events is told of its own wakers' wakes, and not of the driver's.
#[test]
fn a_slot_that_is_granted_is_no_event_of_its_own() {
    watched(|| {
        let Some(mut driver) = driver() else { return };
        let arena = arena(1, 64);
        let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(1)).unwrap();
        let (mut sender, socket) = tcp_pair();
        driver.receive(ring, socket).unwrap();
        for round in 0..50 {
            sender.write_all(b"a").unwrap();
            let bytes = next_bytes(&mut driver);
            sender.write_all(b"b").unwrap();
            wait_until_parked(&mut driver);
            let holder = thread::spawn(move || drop(bytes));
            match driver.wait_event().unwrap() {
                Event::Received { bytes, .. } => assert_eq!(bytes, "b"),
                other => panic!("in round {round}: {other:?}"),
            }
            holder.join().unwrap();
        }
        assert!(driver.metrics().wakeups > 0, "it slept");
        // Its own are told still.
        driver.waker().unwrap().wake();
        assert!(matches!(driver.wait_event().unwrap(), Event::Woken));
        finish(driver);
        assert_all_free(&arena);
    });
}
