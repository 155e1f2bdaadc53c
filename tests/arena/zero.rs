//! `InitPolicy::Zero` under every writing, cutting, thawing and freezing call.

use bytes::{Buf, BufMut};
use proptest::prelude::*;

use crate::support::zero::{Arena, check, life};

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn no_owner_finds_a_byte_of_an_earlier_one((steps, end) in life(), spill in any::<bool>()) {
        for arena in Arena::both(spill) {
            check(&arena, &steps, &end, &mut |buffer, _| buffer);
        }
    }
}

/// Bytes behind what is left of frozen ones are counted from the start of the slot.
#[test]
fn a_thawed_slice_hides_nothing() {
    for arena in Arena::both(false) {
        let mut buffer = arena.claim(256);
        buffer.put_bytes(1, 100);
        let mut frozen = buffer.freeze_in_place();
        frozen.advance(90);
        let mut buffer = frozen.try_into_buffer().unwrap();
        buffer.put_bytes(2, 150);
        drop(buffer);
        arena.assert_clean();
    }
}

#[test]
fn head_room_hides_nothing() {
    for arena in Arena::both(false) {
        let mut buffer = arena.claim(256);
        buffer.reserve_headroom(200).unwrap();
        buffer.put_bytes(1, 56);
        drop(buffer);
        arena.assert_clean();
    }
}

/// A buffer whose length is set to less has written as much as before.
#[test]
#[allow(unsafe_code)]
fn a_shorter_length_hides_nothing() {
    for arena in Arena::both(false) {
        let mut buffer = arena.claim(256);
        buffer.put_bytes(1, 256);
        // SAFETY: as many bytes are written.
        unsafe { buffer.set_len(3) };
        drop(buffer);
        arena.assert_clean();
    }
}
