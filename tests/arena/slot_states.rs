//! Slots by state: every slot is counted once, by what its owner does with it.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{nz, written};
use bytes::BufMut;
use uring_arena::{
    BuddyArena, BuddyGeometry, Buffer, BytesExt, FixedArena, SlotMap, SlotState, SlotStates,
};

fn fixed(slots: usize) -> FixedArena {
    FixedArena::with_slot_capacity(nz(slots), nz(64)).auto_spill().build().unwrap()
}

/// Builds a buddy arena of 64 smallest blocks of 64 bytes.
fn buddy() -> BuddyArena {
    let geometry = BuddyGeometry::exact(nz(4096), nz(64)).unwrap();
    BuddyArena::builder(geometry).auto_spill().build().unwrap()
}

/// Compares the free, held and frozen slots; no slot may have another state or be missing.
#[track_caller]
fn assert_states(states: SlotStates, total: usize, expected: (usize, usize, usize)) {
    assert_eq!((states.free, states.held, states.frozen), expected, "{states:?}");
    assert_eq!((states.published, states.in_flight, states.quarantined), (0, 0, 0), "{states:?}");
    assert_eq!(states.total(), total);
}

#[test]
fn a_slot_is_held_then_frozen_then_free_and_never_frozen_when_claimed_anew() {
    let arena = fixed(40);
    let buffers: Vec<Buffer> =
        (0..34).map(|_| written(arena.allocate().unwrap(), b"bytes")).collect();
    assert_states(arena.slot_states(), 40, (6, 34, 0));
    let mut frozen: Vec<_> = buffers.into_iter().map(Buffer::freeze_in_place).collect();
    assert_states(arena.slot_states(), 40, (6, 0, 34));
    let slice = frozen[0].slice(1..2);
    assert_states(arena.slot_states(), 40, (6, 0, 34));
    frozen.truncate(10);
    assert_states(arena.slot_states(), 40, (30, 0, 10));
    // A slot that was frozen before is not frozen when it is claimed anew, singly or in a batch.
    let mut again: Vec<Buffer> = (0..15).map(|_| arena.allocate().unwrap()).collect();
    assert_eq!(arena.allocate_many(100, |buffer| again.push(buffer)), 15);
    assert_states(arena.slot_states(), 40, (0, 30, 10));
    drop((frozen, slice, again));
    assert_states(arena.slot_states(), 40, (40, 0, 0));
}

#[test]
fn a_sole_owner_that_writes_again_holds() {
    let arena = fixed(2);
    let frozen = written(arena.allocate().unwrap(), b"ab").freeze_in_place();
    let clone = frozen.clone();
    let frozen = frozen.try_into_buffer().unwrap_err();
    assert_states(arena.slot_states(), 2, (1, 0, 1));
    drop(clone);
    let buffer = frozen.try_into_buffer().unwrap();
    assert_states(arena.slot_states(), 2, (1, 1, 0));
    let bytes = buffer.freeze();
    assert_states(arena.slot_states(), 2, (1, 0, 1));
    drop(bytes.into_owned());
    assert_states(arena.slot_states(), 2, (2, 0, 0));
}

#[test]
fn what_spilled_and_what_is_empty_hold_nothing() {
    let arena = fixed(3);
    let mut spilling = written(arena.allocate().unwrap(), b"in the slot");
    spilling.put_bytes(0, 64);
    assert!(spilling.is_spilled());
    assert_states(arena.slot_states(), 3, (3, 0, 0));
    let spilled = spilling.freeze();
    let empty = arena.allocate().unwrap().freeze();
    assert_states(arena.slot_states(), 3, (3, 0, 0));
    drop((spilled, empty));
}

#[test]
fn blocks_count_with_all_of_their_smallest_blocks() {
    let arena = buddy();
    let small = arena.allocate(nz(64)).unwrap();
    let large = written(arena.allocate(nz(1024)).unwrap(), b"large");
    assert_states(arena.slot_states(), 64, (47, 17, 0));
    let frozen = large.freeze();
    assert_states(arena.slot_states(), 64, (47, 1, 16));
    drop(frozen);
    let again = arena.allocate(nz(2048)).unwrap();
    assert_states(arena.slot_states(), 64, (31, 33, 0));
    drop((small, again));
    let whole = written(arena.allocate(nz(4096)).unwrap(), b"whole").freeze_in_place();
    assert_states(arena.slot_states(), 64, (0, 0, 64));
    assert_states(
        {
            drop(whole.try_into_buffer().unwrap());
            arena.slot_states()
        },
        64,
        (64, 0, 0),
    );
}

/// Threads claim, freeze and free as fast as they can. Every slot is still counted exactly once.
#[test]
fn the_numbers_add_up_while_others_move() {
    let arena = fixed(100);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (arena, stop) = (&arena, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let buffers: Vec<_> =
                        (0..10 + thread).filter_map(|_| arena.allocate().ok()).collect();
                    let frozen: Vec<_> =
                        buffers.into_iter().map(|buffer| written(buffer, b"x").freeze()).collect();
                    drop(frozen);
                }
            });
        }
        for _ in 0..2000 {
            let states = arena.slot_states();
            assert_eq!(states.total(), 100, "{states:?}");
            assert!(states.held + states.frozen <= 33, "{states:?}");
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_states(arena.slot_states(), 100, (100, 0, 0));
}

#[cfg(feature = "async-alloc")]
#[test]
fn what_is_kept_for_a_waiter_is_held_and_not_frozen() {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    let arena = FixedArena::with_slot_capacity(nz(1), nz(64)).build_async().unwrap();
    let frozen = written(arena.allocate().unwrap(), b"bytes").freeze();
    let mut context = Context::from_waker(Waker::noop());
    let mut waiting = pin!(arena.allocate_async());
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    drop(frozen);
    assert_states(arena.slot_states(), 1, (0, 1, 0));
    let Poll::Ready(buffer) = waiting.as_mut().poll(&mut context) else { panic!("it was kept") };
    assert_states(arena.slot_states(), 1, (0, 1, 0));
    drop(buffer);
    assert_states(arena.slot_states(), 1, (1, 0, 0));
}

/// Returns the claims of a map: index, length, state.
fn claims(map: &SlotMap) -> Vec<(u32, u32, SlotState)> {
    map.claims().iter().map(|claim| (claim.first, claim.slots, claim.state)).collect()
}

#[test]
fn a_map_has_each_slot_at_its_index() {
    let arena = fixed(10);
    let mut held: Vec<Buffer> = (0..10).map(|_| arena.allocate().unwrap()).collect();
    held.sort_by_key(|buffer| buffer.slot_index());
    let frozen = written(held.remove(3), b"bytes").freeze();
    held.drain(5..);
    let map = arena.slot_map();
    assert_eq!((map.slots(), map.slot_bytes(), map.states()), (10, 64, arena.slot_states()));
    let state = |index| if index == 3 { SlotState::Frozen } else { SlotState::Held };
    assert_eq!(claims(&map), (0..6).map(|index| (index, 1, state(index))).collect::<Vec<_>>());
    // Four cells: of three slots, and the last one of what is left.
    let cells = map.cells(4);
    let counts: Vec<_> = cells.iter().map(|cell| (cell.free, cell.held, cell.frozen)).collect();
    assert_eq!(counts, [(0, 3, 0), (0, 2, 1), (3, 0, 0), (1, 0, 0)]);
    assert_eq!((map.cells(0).len(), map.cells(usize::MAX).len()), (1, 10));
    assert!(map.blocks().is_empty(), "a fixed arena has no blocks");
    drop((held, frozen));
}

#[test]
fn a_map_of_blocks_counts_them_by_size() {
    let arena = buddy();
    // One smallest block, and one of eight: the rest is free blocks of every size between.
    let (small, large) = (arena.allocate(nz(1)).unwrap(), arena.allocate(nz(512)).unwrap());
    let map = arena.slot_map();
    let mut sizes: Vec<_> = claims(&map).iter().map(|&(_, slots, state)| (slots, state)).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [(1, SlotState::Held), (8, SlotState::Held)]);
    let blocks = map.blocks();
    let bytes: Vec<usize> = blocks.iter().map(|block| block.bytes).collect();
    assert_eq!(bytes, [64, 128, 256, 512, 1024, 2048, 4096]);
    let claimed: Vec<usize> = blocks.iter().map(|block| block.claimed).collect();
    assert_eq!(claimed, [1, 0, 0, 1, 0, 0, 0]);
    let free: usize = blocks.iter().map(|block| block.free * block.bytes).sum();
    assert_eq!(free, 4096 - 64 - 512);
    let largest = blocks.iter().rev().find(|block| block.free > 0).unwrap().bytes;
    assert_eq!(largest, arena.metrics().largest_free_block);
    assert_eq!(map.cells(8).iter().map(|cell| cell.total()).collect::<Vec<_>>(), [8; 8]);
    drop((small, large));
    let free: Vec<usize> = arena.slot_map().blocks().iter().map(|block| block.free).collect();
    assert_eq!(free, [0, 0, 0, 0, 0, 0, 1]);
}
