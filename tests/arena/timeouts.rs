//! Claims that block for a time: signals do not end it, and it may be endless.
#![cfg(target_os = "linux")]

use std::thread;
use std::time::{Duration, Instant};

use crate::support::signals::{Signals, Target};
use crate::support::{ENDLESS, arena, assert_all_free, watched};
use uring_arena::{AllocError, BuddyArena, Buffer};

/// A claim that blocks for a time.
type Claim = Box<dyn Fn(Duration) -> Result<Buffer, AllocError> + Send>;

/// Makes a full arena for each claim that waits: returns what fills it, and the claim.
fn full_arenas() -> Vec<(Buffer, Claim)> {
    let fixed = arena(1, 64);
    let buddies = || BuddyArena::new(4096, 4096).unwrap();
    let (blocks, bytes) = (buddies(), buddies());
    vec![
        (fixed.allocate().unwrap(), Box::new(move |time| fixed.allocate_timeout(time))),
        (blocks.allocate_bytes(1).unwrap(), {
            Box::new(move |time| blocks.allocate_timeout(crate::support::nz(100), time))
        }),
        (bytes.allocate_bytes(1).unwrap(), {
            Box::new(move |time| bytes.allocate_bytes_timeout(100, time))
        }),
    ]
}

#[test]
fn signals_do_not_end_a_claim_before_its_time() {
    for (held, claim) in full_arenas() {
        watched(move || {
            let signals = Signals::to(vec![Target::this_thread()]);
            let (begin, time) = (Instant::now(), Duration::from_millis(50));
            assert_eq!(claim(time).unwrap_err(), AllocError::ArenaFull);
            assert!(begin.elapsed() >= time, "{:?}", begin.elapsed());
            signals.wait_for(1);
            drop(held);
        });
    }
}

#[test]
fn a_claim_without_an_end_ends_with_a_slot() {
    for time in ENDLESS {
        for (held, claim) in full_arenas() {
            watched(move || {
                let freeing = thread::spawn(move || {
                    thread::sleep(Duration::from_millis(2));
                    drop(held);
                });
                assert!(claim(time).is_ok(), "{time:?}");
                freeing.join().unwrap();
            });
        }
    }
    let arena = arena(1, 64);
    drop(arena.allocate_timeout(Duration::MAX).unwrap());
    assert_all_free(&arena);
}
