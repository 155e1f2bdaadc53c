//! Heap allocations per message: one as `Bytes` (its own box), none as `ArenaBytes`.
#![cfg(all(feature = "io-uring", target_os = "linux"))]
#![allow(unsafe_code)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;
use std::os::unix::net::UnixStream;

use support::{arena, assert_home, driver, finish};
use uring_arena::{BufferRing, Event};

/// The system's allocator, counted.
struct Counted;

thread_local! {
    /// Of this thread alone: the test harness has threads of its own.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTED: Counted = Counted;

const MESSAGES: u64 = 1000;

#[test]
fn a_message_takes_one_allocation_as_bytes_and_none_in_place() {
    let Some(mut driver) = driver() else { return };
    let arena = arena(64, 512);
    let ring = driver.register_buffer_ring(&arena, BufferRing::options()).unwrap();
    let mut pairs: Vec<_> = (0..8).map(|_| UnixStream::pair().unwrap()).collect();
    let mut senders = Vec::new();
    for (sender, socket) in pairs.drain(..) {
        driver.receive(ring, socket).unwrap();
        senders.push(sender);
    }
    for in_place in [false, true] {
        // What is allocated once, at the first message, is not a message's.
        for counted in [false, true] {
            let mut received = 0;
            let before = ALLOCATIONS.get();
            while received < MESSAGES {
                for sender in &mut senders {
                    sender.write_all(&[7; 512]).unwrap();
                }
                driver.wait().unwrap();
                if in_place {
                    while let Some(event) = driver.next_arena_bytes() {
                        assert!(matches!(event, Event::Received { .. }));
                        received += 1;
                    }
                } else {
                    while let Some(event) = driver.next() {
                        assert!(matches!(event, Event::Received { .. }));
                        received += 1;
                    }
                }
            }
            let allocations = ALLOCATIONS.get() - before;
            if counted {
                assert_eq!(allocations, if in_place { 0 } else { received }, "{received} messages");
            }
        }
    }
    finish(driver);
    assert_home(&arena);
}
