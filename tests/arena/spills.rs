//! Buffers that outgrow their slot: what fits, and what stays when there is no memory.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::BufMut;
use uring_arena::{BuddyArena, Buffer, FixedArena};

use crate::support::assert_all_free;

fn panics(call: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(call)).is_err()
}

/// Writes more than any heap has memory for, and checks that the buffer is as before.
fn check_that_too_much_changes_nothing(buffer: &mut Buffer) {
    let (before, headroom) = (buffer.to_vec(), buffer.headroom());
    let (capacity, is_spilled) = (buffer.capacity(), buffer.is_spilled());
    let most = buffer.remaining_mut();
    assert_eq!(headroom + buffer.len() + most, isize::MAX as usize, "the most bytes of a vector");
    assert!(buffer.will_fit(most) && !buffer.will_fit(most + 1));
    for count in [most, most + 1, most / 2, usize::MAX] {
        assert!(panics(|| buffer.put_bytes(0, count)));
        assert_eq!(buffer[..], before);
        assert_eq!((buffer.capacity(), buffer.is_spilled()), (capacity, is_spilled));
        assert_eq!(buffer.headroom(), headroom);
    }
}

#[test]
fn a_spill_without_memory_changes_nothing() {
    let fixed = FixedArena::with_sizes(1, 64).auto_spill().build().unwrap();
    let buddy = BuddyArena::with_sizes(64, 64).auto_spill().build().unwrap();
    for headroom in [0, 2, 64] {
        for mut buffer in [fixed.allocate().unwrap(), buddy.allocate_bytes(64).unwrap()] {
            buffer.reserve_headroom(headroom).unwrap();
            let mut written = b"abc"[..3.min(64 - headroom)].to_vec();
            buffer.put_slice(&written);
            check_that_too_much_changes_nothing(&mut buffer);
            buffer.put_slice(&[7; 100]);
            written.extend([7; 100]);
            assert!(buffer.is_spilled());
            check_that_too_much_changes_nothing(&mut buffer);
            buffer.prepend(&vec![1; headroom]).unwrap();
            check_that_too_much_changes_nothing(&mut buffer);
            assert_eq!(buffer[headroom..], written);
        }
    }
    assert_eq!(fixed.metrics().spills, 3);
    assert_all_free(&fixed);
    assert_all_free(&buddy);
}

#[test]
fn a_buffer_that_may_not_spill_has_room_for_its_slot() {
    let arena = FixedArena::new(1, 64).unwrap();
    let mut buffer = arena.allocate().unwrap();
    buffer.reserve_headroom(10).unwrap();
    buffer.put_slice(b"abc");
    assert_eq!(buffer.remaining_mut(), 64 - 10 - 3);
    assert!(buffer.will_fit(51) && !buffer.will_fit(52));
    assert!(panics(|| buffer.put_bytes(0, 52)));
    assert!(panics(|| buffer.put_slice(&[0; 52])));
    assert_eq!(&buffer[..], b"abc");
    buffer.put_bytes(9, 51);
    assert_eq!(buffer.len(), 54);
}
