//! Sizes as plain numbers, beside the forms that cannot be zero; writing by `io::Write`.

use std::io::Write;
use std::num::NonZeroUsize;
use std::time::Duration;

use uring_arena::{AllocError, BuddyArena, BuddyGeometry, BuildError, FixedArena, PageSize};

#[test]
fn plain_sizes_build_the_same_arenas() {
    let nz = |n| NonZeroUsize::new(n).unwrap();
    let plain = FixedArena::with_sizes(3, 1000).alignment(64).build().unwrap();
    let checked = FixedArena::with_slot_capacity(nz(3), nz(1000)).alignment(64).build().unwrap();
    assert_eq!(
        (plain.slot_count(), plain.slot_capacity()),
        (checked.slot_count(), checked.slot_capacity())
    );
    let plain = BuddyArena::with_sizes(100_000, 1000).build().unwrap();
    let geometry = BuddyGeometry::nearest(nz(100_000), nz(1000)).unwrap();
    let checked = BuddyArena::builder(geometry).build().unwrap();
    assert_eq!(
        (plain.total_size(), plain.min_block_size()),
        (checked.total_size(), checked.min_block_size())
    );
    assert_eq!(BuddyArena::with_sizes(4096, 64).alignment(0).build().unwrap_err(), {
        BuildError::InvalidAlignment
    });
}

#[test]
fn a_length_of_zero_claims_the_smallest_block() {
    let arena = BuddyArena::new(4096, 256).unwrap();
    let buffer = arena.allocate_bytes(0).unwrap();
    assert_eq!((buffer.capacity(), arena.metrics().bytes_live), (1, 256));
    let timeout = Duration::from_millis(1);
    assert_eq!(arena.allocate_bytes_timeout(4096, timeout).unwrap_err(), AllocError::ArenaFull);
    assert_eq!(arena.allocate_bytes(4097).unwrap_err(), AllocError::RequestTooLarge);
    assert_eq!(arena.allocate_bytes_timeout(2048, timeout).unwrap().capacity(), 2048);
}

#[test]
fn write_takes_what_fits_and_spills_where_it_may() {
    let arena = FixedArena::new(1, 8).unwrap();
    let mut buffer = arena.allocate().unwrap();
    assert_eq!(buffer.write(b"0123456789").unwrap(), 8);
    assert_eq!(buffer.write(b"89").unwrap(), 0);
    assert!(write!(buffer, "{}", 8).is_err());
    assert_eq!(&buffer[..], b"01234567");
    let spilling = FixedArena::with_sizes(1, 8).auto_spill().build().unwrap();
    let mut buffer = spilling.allocate().unwrap();
    write!(buffer, "{:010}", 7).unwrap();
    assert_eq!(buffer.write(b"more").unwrap(), 4);
    buffer.flush().unwrap();
    assert!(buffer.is_spilled());
    assert_eq!(&buffer[..], b"0000000007more");
}

#[cfg(feature = "async-alloc")]
#[test]
fn an_arena_that_waits_serves_as_a_plain_one() {
    fn by_reference(arena: &FixedArena) -> usize {
        arena.slot_count()
    }

    let arena = FixedArena::with_sizes(2, 64).build_async().unwrap();
    assert_eq!(by_reference(&arena), 2);
    let plain: FixedArena = arena.clone().into();
    let held = plain.allocate().unwrap();
    assert_eq!(arena.slot_states().held, 1);
    drop(held);
    let buddy = BuddyArena::with_sizes(4096, 256).build_async().unwrap();
    let plain = BuddyArena::from(buddy.clone());
    let buffer = futures::executor::block_on(buddy.allocate_bytes_async(100)).unwrap();
    assert_eq!((buffer.capacity(), plain.metrics().bytes_live), (100, 256));
}

/// Returns the limit that a refusal names.
fn limit<A: std::fmt::Debug>(built: Result<A, BuildError>, too_many: usize) -> usize {
    match built.unwrap_err() {
        BuildError::TooManySlots { requested, limit } => {
            assert_eq!(requested, too_many);
            limit
        }
        error => panic!("{error}"),
    }
}

#[test]
fn the_number_of_slots_that_a_refusal_names_can_be_built() {
    let build = |count| FixedArena::with_sizes(count, 1).page_size(PageSize::Unknown).build();
    let most = limit(build(1 << 31), 1 << 31);
    assert_eq!(limit(build(most + 1), most + 1), most);
    let arena = build(most).unwrap();
    let buffer = arena.allocate().unwrap();
    assert_eq!((arena.slot_count(), buffer.capacity()), (most, 1));
}

#[test]
fn the_number_of_smallest_blocks_that_a_refusal_names_can_be_built() {
    let build = |count| BuddyArena::with_sizes(count, 1).page_size(PageSize::Unknown).build();
    let most = limit(build(1 << 31), 1 << 31);
    assert_eq!(limit(build(2 * most), 2 * most), most);
    let arena = build(most).unwrap();
    let buffer = arena.allocate_bytes(3).unwrap();
    assert_eq!((arena.total_size(), buffer.capacity()), (most, 3));
}
