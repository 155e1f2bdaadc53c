//! Forked children of a process with arenas.
#![cfg(target_os = "linux")]

use bytes::BufMut;
use uring_arena::{Backing, BuddyArena, FixedArena, InitPolicy};

use crate::support::fork::{Settler, in_child};
use crate::support::{assert_all_free, filled};

#[test]
fn a_child_drops_what_it_has_of_an_arena_that_was_kept_from_it() {
    for policy in [InitPolicy::Uninit, InitPolicy::Zero] {
        let build = || FixedArena::with_sizes(4, 4096).keep_from_children().init_policy(policy);
        let arena = build().build().unwrap();
        let mut buffer = filled(&arena, b"written");
        let in_place = filled(&arena, b"in place").freeze_in_place();
        let bytes = filled(&arena, b"bytes").freeze();
        let address = buffer.as_mut_ptr().addr() & !4095;
        let mut copies = Some((arena, buffer, in_place, bytes));
        in_child(|| {
            // A mapping of the child's own, where the arena is in the parent.
            let settler = Settler::at(address).expect("the child has the slots");
            let (arena, buffer, in_place, bytes) = copies.take().unwrap();
            drop((buffer, in_place, bytes));
            drop(arena);
            settler.check();
        });
        let (arena, mut buffer, in_place, bytes) = copies.unwrap();
        buffer.put_slice(b" on");
        assert_eq!(
            (&buffer[..], &in_place[..], &bytes[..]),
            (&b"written on"[..], &b"in place"[..], &b"bytes"[..])
        );
        drop((buffer, in_place, bytes));
        assert_all_free(&arena);
    }
}

#[test]
fn a_child_drops_what_it_has_of_a_buddy_arena_that_was_kept_from_it() {
    for policy in [InitPolicy::Uninit, InitPolicy::Zero] {
        let builder = BuddyArena::with_sizes(16_384, 4096).keep_from_children();
        let arena = builder.init_policy(policy).build().unwrap();
        let mut buffer = arena.allocate_bytes(8192).unwrap();
        buffer.put_slice(b"written");
        let address = buffer.as_mut_ptr().addr() & !4095;
        let mut copies = Some((arena, buffer));
        in_child(|| {
            let settler = Settler::at(address).expect("the child has the blocks");
            let (arena, buffer) = copies.take().unwrap();
            drop(buffer);
            drop(arena);
            settler.check();
        });
        let (arena, buffer) = copies.unwrap();
        assert_eq!(&buffer[..], b"written");
        drop(buffer);
        assert_all_free(&arena);
    }
}

#[test]
fn a_child_goes_on_with_its_copy_of_an_ordinary_arena() {
    for backing in [Backing::Anonymous, Backing::TransparentHuge, Backing::Heap] {
        let arena = FixedArena::with_sizes(2, 4096).backing(backing).build().unwrap();
        let bytes = filled(&arena, b"before").freeze();
        let mut copies = Some((arena, bytes));
        in_child(|| {
            let (arena, bytes) = copies.take().unwrap();
            assert_eq!(bytes, "before");
            drop(bytes);
            let mut both = [filled(&arena, b"of the"), filled(&arena, b"child")];
            both[0].put_slice(b" child");
            drop(both);
            assert_all_free(&arena);
        });
        let (arena, bytes) = copies.unwrap();
        assert_eq!(bytes, "before");
        drop(bytes);
        assert_all_free(&arena);
    }
}
