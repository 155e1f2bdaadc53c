//! The events of drivers and rings in the log: the table of `docs/production.md`, row by row.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::registration_clone::{beside_another_threads_ring, kernel_clones};
use crate::support::driver::{driver, finish, run};
use crate::support::log::{assert_told, logged};
use crate::support::{TIMEOUT, arena, assert_all_free, paged_arena};
use uring_arena::{BufferRing, Event, Feature, RegistrationMode, SocketState};

#[test]
fn a_ring_that_starves_again_and_again_is_told_once_a_second() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(4, 64);
    let options = BufferRing::options().entries(2).copy_under_pressure(false);
    let ring = driver.register_buffer_ring(&arena, options).unwrap();
    let (mut sender, socket) = UnixStream::pair().unwrap();
    driver.receive(ring, socket).unwrap();
    let (log, most) = logged(|| {
        for _ in 0..20 {
            sender.write_all(&[1; 5 * 64]).unwrap();
            let (mut kept, mut bytes) = (Vec::new(), 0);
            run(&mut driver, |event| {
                if let Event::Received { bytes, .. } = event {
                    kept.push(bytes);
                }
                bytes = kept.iter().map(Bytes::len).sum();
                bytes == 4 * 64
            });
            // All slots are held, and bytes are left: the socket starves.
            let begin = Instant::now();
            while driver.sockets()[0].state != SocketState::Starved {
                assert!(begin.elapsed() < TIMEOUT, "nothing starves");
                driver.wait_timeout(Duration::from_millis(1)).unwrap();
                let event = driver.next();
                assert!(matches!(event, None | Some(Event::BufferRingEmpty { .. })), "{event:?}");
            }
            // One more turn, which finds nothing to post.
            driver.wait_timeout(Duration::from_millis(1)).unwrap();
            kept.clear();
            run(&mut driver, |event| matches!(event, Event::Received { .. }));
        }
    });
    let fields = ["INFO", "group=", "sockets=1", "starved=", "larger arena", "copy_below"];
    assert_told(&log, most, "a buffer ring has no slot", &fields);
    assert_told(&log, most, "a buffer ring has slots again", &["INFO", "group=", "ready="]);
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn rings_that_are_empty_from_the_start_are_told_once_a_second() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(2, 64);
    let held = [arena.allocate().unwrap(), arena.allocate().unwrap()];
    let (log, most) = logged(|| {
        for _ in 0..20 {
            let options = BufferRing::options().entries(2);
            let ring = driver.register_buffer_ring(&arena, options).unwrap();
            driver.unregister_buffer_ring(ring).unwrap();
        }
    });
    let fields = ["WARN", "group=", "slots=2", "larger arena"];
    assert_told(&log, most, "empty from the start", &fields);
    drop(held);
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_mode_that_does_not_work_is_told_with_its_error_and_the_remedy() {
    if !kernel_clones(Feature::CloneInto) {
        return;
    }
    let arena = paged_arena(8, 4096);
    beside_another_threads_ring(&arena, |mut driver, options| {
        let (log, _) = logged(|| {
            let id = driver.register_with(&arena, options).unwrap();
            assert_eq!(driver.arena(id).unwrap().mode(), RegistrationMode::Slots);
        });
        let fields = ["DEBUG", "mode=", "error=", "single_issuer(false)"];
        assert_told(&log, 1, "a registration mode does not work", &fields);
        finish(driver);
    });
}

#[test]
fn lost_slots_are_told_once_a_second() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(32, 4096);
    let id = driver.register(&arena).unwrap();
    let (reader, _writer) = std::io::pipe().unwrap();
    let (log, most) = logged(|| {
        for _ in 0..20 {
            // An operation that is made and never handed back: the kernel may still use its slot.
            let pieces = driver.arena(id).unwrap();
            drop(pieces.read(&reader, arena.allocate().unwrap(), 0));
        }
    });
    let fields = ["ERROR", "slot=", "quarantined=1", "slot_bytes=4096", "drain"];
    assert_told(&log, most, "a slot is lost", &fields);
    assert_eq!(arena.metrics().quarantined, 20);
    finish(driver);
}

#[test]
fn a_drain_tells_what_it_closed() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(4, 64);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(2)).unwrap();
    let (_peer, socket) = UnixStream::pair().unwrap();
    driver.receive(ring, socket).unwrap();
    let (log, _) = logged(|| drop(driver.drain(TIMEOUT).unwrap()));
    let fields = ["DEBUG", "closed=1", "discarded_bytes=0", "in_flight=0", "quarantined=0"];
    assert_told(&log, 1, "a driver was drained", &fields);
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_panic_that_is_contained_is_told_with_its_text() {
    struct Panicking;

    impl AsRef<[u8]> for Panicking {
        fn as_ref(&self) -> &[u8] {
            &[1; 16 << 10]
        }
    }

    impl Drop for Panicking {
        fn drop(&mut self) {
            panic!("a payload panics, as this test wants");
        }
    }

    let Some(mut driver) = driver() else { return };
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let file = driver.add_file(ours).unwrap();
    // More than the socket takes: the drain throws the last ones away.
    for _ in 0..100 {
        driver.write(file, Bytes::from_owner(Panicking), 0).unwrap();
    }
    let (log, _) = logged(|| drop(driver.drain(TIMEOUT).unwrap()));
    let contained = driver.metrics().contained_panics as usize;
    assert!(contained > 0);
    let fields = ["ERROR", "panic=\"a payload panics, as this test wants\""];
    assert_told(&log, contained, "nothing else is harmed", &fields);
    finish(driver);
}
