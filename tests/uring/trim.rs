//! Trimming an arena whose registration was lost, or refused.
#![allow(unsafe_code)] // registering is unsafe

use crate::support::paged_arena;
use uring_arena::{RegisteredArena, RegistrationMode, RegistrationPolicy, TrimObstacle};

const PAGE: usize = 4096;

#[test]
fn a_registration_that_is_lost_stays_counted() {
    let Ok(ring) = io_uring::IoUring::new(8) else { return eprintln!("SKIPPED: no io_uring") };
    let arena = paged_arena(16, PAGE);
    // SAFETY: no operation is built.
    let registered = unsafe { RegisteredArena::register(&ring, &arena, RegistrationPolicy::Best) };
    let registered = registered.unwrap();
    if registered.mode() == RegistrationMode::Unregistered {
        return eprintln!("SKIPPED: the arena cannot be registered here");
    }
    drop(registered);
    let registered = TrimObstacle::Registered { registrations: 1 };
    assert_eq!(arena.trim().obstacle, Some(registered), "the kernel has the pages still");
}

#[test]
fn a_refused_registration_is_not_counted() {
    let arena = paged_arena(16, PAGE);
    let no_ring = std::fs::File::open("/dev/null").unwrap();
    // SAFETY: no operation is built.
    let refused = unsafe { RegisteredArena::register(&no_ring, &arena, RegistrationPolicy::Best) };
    if let Ok(registered) = refused {
        assert_eq!(registered.mode(), RegistrationMode::Unregistered);
    }
    assert_eq!(arena.trim().obstacle, None);
}
