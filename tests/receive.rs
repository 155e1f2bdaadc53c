//! Receiving on the real kernel: one test a claim.
#![cfg(all(feature = "io-uring", target_os = "linux"))]

mod support;

use std::io::Write;

use support::{arena, assert_home, driver, finish, pattern, run, tcp_pair};
use uring_arena::{BufferRing, Event};

#[test]
fn bytes_come_through_a_socket_as_they_were_sent() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(16, 4096);
    let ring = driver.buffer_ring(&arena, BufferRing::options()).unwrap();
    let (mut sender, socket) = tcp_pair();
    let id = driver.receive(ring, socket).unwrap();
    let sent = pattern(1, 1 << 20);
    let expected = sent.clone();
    let thread = std::thread::spawn(move || sender.write_all(&sent).unwrap());
    let mut received = Vec::new();
    run(&mut driver, |event| match event {
        Event::Received { id: from, bytes } => {
            assert_eq!(from, id);
            assert!(!bytes.is_empty() && bytes.len() <= 4096);
            received.extend_from_slice(&bytes);
            false
        }
        Event::Closed { id: from, error } => {
            assert_eq!(from, id);
            assert!(error.is_none(), "{error:?}");
            true
        }
        other => panic!("{other:?}"),
    });
    thread.join().unwrap();
    assert!(received == expected);
    finish(driver);
    assert_home(&arena);
}
