//! The metrics of a driver and of its rings as a tree, and `Debug` of both.

use std::io::Write;
use std::os::unix::net::UnixStream;

use crate::support::driver::{driver, finish, run};
use crate::support::{arena, assert_all_free};
use uring_arena::{BufferRing, Driver, Event, Metrics};

#[test]
fn the_tree_of_a_driver_has_its_rings_and_debug_shows_what_lies_ready() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(16, 64);
    let options = BufferRing::options().entries(4).group(109);
    let ring = driver.register_buffer_ring(&arena, options).unwrap();
    let (mut sender, socket) = UnixStream::pair().unwrap();
    driver.receive(ring, socket).unwrap();
    sender.write_all(b"hello").unwrap();
    let mut received = None;
    run(&mut driver, |event| {
        if let Event::Received { bytes, .. } = event {
            received = Some(bytes);
        }
        received.is_some()
    });
    let metrics = Metrics::new().with("main", &driver).with("frames", &arena);
    let [part, arena_part] = metrics.parts() else { panic!("{metrics:?}") };
    assert_eq!((part.kind(), part.name()), ("driver", "main"));
    assert_eq!(part.value("uring_arena_driver_in_flight"), Some(driver.metrics().in_flight as u64));
    let [ring_part] = part.parts() else { panic!("{metrics:?}") };
    assert_eq!((ring_part.kind(), ring_part.name()), ("ring", "109"));
    assert_eq!(ring_part.labels()[0].0, "mode");
    assert_eq!(ring_part.value("uring_arena_ring_messages_total"), Some(1));
    assert_eq!(ring_part.value("uring_arena_ring_sockets"), Some(1));
    assert_eq!(arena_part.value("uring_arena_claims_total"), Some(arena.metrics().allocations_ok));
    let mut labels_of_ring = None;
    metrics.for_each(|labels, metric| {
        if metric.name == "uring_arena_ring_messages_total" {
            labels_of_ring = Some(labels[..2].to_vec());
        }
    });
    let expected = vec![("driver", "main".to_owned())];
    assert_eq!(labels_of_ring.unwrap()[..1], expected);

    let text = format!("{driver:?}");
    let ready = driver.metrics().published;
    for part in [&format!("ready: {ready}"), "rings: 1", "in_flight: 1", "parked: 0"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // A read that waits for its pipe has its slot, which the arena cannot know.
    let (reader, mut writer) = std::io::pipe().unwrap();
    let file = driver.add_file(reader).unwrap();
    driver.read(file, arena.allocate().unwrap(), 0).unwrap();
    let in_flight = |driver: &Driver| {
        let metrics = Metrics::new().with("main", driver);
        metrics.parts()[0].value("uring_arena_driver_slots_in_flight")
    };
    driver.poll_now().unwrap();
    assert_eq!(in_flight(&driver), Some(1));
    writer.write_all(b"hello").unwrap();
    run(&mut driver, |event| matches!(event, Event::Read { .. }));
    assert_eq!(in_flight(&driver), Some(0));
    drop(received);
    finish(driver);
    assert_all_free(&arena);
}
