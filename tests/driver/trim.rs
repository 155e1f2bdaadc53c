//! Trimming an arena that the kernel knows: not while it is registered, or a slot is quarantined.

use crate::support::driver::{driver, finish};
use crate::support::{assert_all_free, paged_arena};
use uring_arena::{BufferRing, RegistrationMode, TrimObstacle};

const PAGE: usize = 4096;

#[test]
fn a_registered_arena_keeps_its_pages_until_it_is_unregistered() {
    let Some(mut driver) = driver() else { return };
    let arena = paged_arena(16, PAGE);
    assert_eq!(arena.trim().bytes, 16 * PAGE);
    let id = driver.register(&arena).unwrap();
    if driver.arena(id).unwrap().mode() == RegistrationMode::Unregistered {
        return eprintln!("SKIPPED: the arena cannot be registered here");
    }
    let report = arena.trim();
    let registered = TrimObstacle::Registered { registrations: 1 };
    assert_eq!((report.bytes, report.obstacle), (0, Some(registered)));
    assert!(registered.to_string().contains("unregister"));
    driver.unregister_arena(id).unwrap();
    assert_eq!((arena.trim().bytes, arena.trim().obstacle), (16 * PAGE, None));
    // Slots in a buffer ring are not free, and their pages stay.
    let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(4)).unwrap();
    assert_eq!(arena.trim().bytes, 12 * PAGE);
    driver.unregister_buffer_ring(ring).unwrap();
    finish(driver);
    assert_all_free(&arena);
}
