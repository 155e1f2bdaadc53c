//! Four kinds of leaks, each diagnosed by the first line of the report.

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::support::driver::{driver, finish, run};
use crate::support::{assert_all_free, written};
use bytes::Bytes;
use uring_arena::{
    BufferRing, Driver, Event, FixedArena, FixedArenaBuilder, SlotState, TrackHolders,
};

const SLOT: usize = 4096;

fn tracked() -> FixedArenaBuilder {
    FixedArena::with_sizes(16, SLOT).alignment(SLOT).track_holders(TrackHolders::All)
}

/// Returns the first line of a report.
fn first_line(report: &impl std::fmt::Display) -> String {
    report.to_string().lines().next().unwrap().to_owned()
}

#[track_caller]
fn assert_tells(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in: {line}");
    }
}

/// Receives `count` messages of `bytes` bytes on each of two connections, and hands them to `keep`
/// with their token.
fn receive(
    driver: &mut Driver,
    arena: &FixedArena,
    (count, bytes): (usize, usize),
    mut keep: impl FnMut(u64, Bytes),
) -> u32 {
    let options = BufferRing::options().entries(2).copy_under_pressure(false);
    let line = line!() + 1;
    let ring = driver.register_buffer_ring(arena, options).unwrap();
    let pairs: Vec<_> = (0..2).map(|_| UnixStream::pair().unwrap()).collect();
    for (token, (mut sender, socket)) in (7..).zip(pairs) {
        driver.receive_with(ring, socket, token).unwrap();
        for _ in 0..count {
            sender.write_all(&vec![1; bytes]).unwrap();
            run(driver, |event| match event {
                Event::Received { token, bytes, .. } => {
                    keep(token, bytes);
                    true
                }
                other => panic!("{other:?}"),
            });
        }
        std::mem::forget(sender);
    }
    line
}

#[test]
fn a_forgotten_entry_of_a_map_is_named_by_its_place() {
    let arena = tracked().build().unwrap();
    let mut sessions = HashMap::new();
    let line = line!() + 2;
    for number in 0..12 {
        let buffer = written(arena.allocate().unwrap(), &[7; SLOT]);
        sessions.insert(number, buffer.freeze());
    }
    let others = [arena.allocate().unwrap(), arena.allocate().unwrap()];
    let text = first_line(&arena.holders());
    let place = format!("leaks.rs:{line} has 12 claims");
    assert_tells(&text, &[&place, "frozen", "a map or a queue"]);
    let error = (0..3).find_map(|_| arena.allocate().map(std::mem::forget).err()).unwrap();
    assert_tells(&error.report().unwrap().summary(), &[&place]);
    drop((sessions, others));
}

#[test]
fn a_slow_consumer_is_named_by_its_connection() {
    let Some(mut driver) = driver() else { return };
    let arena = tracked().build().unwrap();
    let mut queue = Vec::new();
    let line = receive(&mut driver, &arena, (6, SLOT), |token, bytes| {
        if token == 8 {
            queue.push(bytes);
        }
    });
    let holders = driver.holders(&arena);
    let text = first_line(&holders);
    assert_tells(&text, &[&format!("leaks.rs:{line} has 6 claims"), "connection 8", "slow"]);
    assert_eq!(holders.by_connection()[0].connection, Some(8), "{holders}");
    drop(queue);
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_slice_that_pins_is_named_by_what_it_wastes() {
    let Some(mut driver) = driver() else { return };
    let arena = tracked().build().unwrap();
    let mut names = Vec::new();
    receive(&mut driver, &arena, (4, 20), |_, bytes| names.push(bytes.slice(..4)));
    let holders = arena.holders();
    assert_tells(&first_line(&holders), &["160 bytes used", "short bytes", "copy"]);
    let worst = holders.by_waste()[0];
    assert_eq!((worst.used, worst.state), (Some(20), SlotState::Frozen), "{holders}");
    drop(names);
    finish(driver);
    assert_all_free(&arena);
}

#[test]
fn a_stuck_send_is_named_as_being_in_flight() {
    let Some(mut driver) = driver() else { return };
    let arena = tracked().build().unwrap();
    // The peer never reads.
    let (socket, peer) = UnixStream::pair().unwrap();
    let file = driver.add_file(socket).unwrap();
    let line = line!() + 2;
    for _ in 0..12 {
        let mut buffer = written(arena.allocate().unwrap(), &[3; SLOT]);
        buffer.label("replies");
        driver.write(file, buffer, 0).unwrap();
    }
    // Fills what the socket takes by itself.
    for _ in 0..200 {
        driver.wait_timeout(Duration::ZERO).unwrap();
        while let Some(event) = driver.next() {
            if let Event::Wrote { .. } = event {
                let Ok(buffer) = arena.allocate() else { continue };
                let mut buffer = written(buffer, &[3; SLOT]);
                buffer.label("replies");
                driver.write(file, buffer, 0).unwrap();
            }
        }
    }
    let holders = driver.holders(&arena);
    let text = first_line(&holders);
    let _ = line;
    assert_tells(&text, &["\"replies\"", "in flight", "a peer that does not read"]);
    assert_eq!(holders.by_label()[0].label.as_deref(), Some("replies"));
    drop(peer);
    finish(driver);
    assert_all_free(&arena);
}
