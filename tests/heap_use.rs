//! How often the heap is asked, counted by the global allocator itself.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::num::NonZeroUsize;

use bytes::{BufMut, Bytes};
use uring_arena::{ArenaBytes, FixedArena};

thread_local! {
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.with(|asked| asked.set(asked.get() + 1));
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn asked_during(work: impl FnOnce()) -> usize {
    let before = ASKED.get();
    work();
    ASKED.get() - before
}

fn arena() -> FixedArena {
    let nz = |n| NonZeroUsize::new(n).unwrap();
    FixedArena::with_slot_capacity(nz(16), nz(4096)).build().unwrap()
}

#[test]
fn a_bytes_round_trip_asks_once() {
    let arena = arena();
    let asked = asked_during(|| {
        let mut buffer = arena.allocate().unwrap();
        buffer.put_slice(b"hello");
        let bytes = buffer.freeze();
        let clone = bytes.clone();
        let slice = clone.slice(1..);
        drop((bytes, clone, slice));
    });
    assert_eq!(asked, 1);
}

#[test]
fn an_arena_bytes_round_trip_never_asks() {
    let arena = arena();
    let asked = asked_during(|| {
        let mut buffer = arena.allocate().unwrap();
        buffer.put_slice(b"hello");
        let mut bytes = buffer.freeze_in_place();
        let clone = bytes.clone();
        let front = bytes.split_to(2);
        drop((bytes, clone));
        let mut again: ArenaBytes = front.try_into_buffer().unwrap().into();
        let tail = again.split_off(1);
        drop((tail, again));
    });
    assert_eq!(asked, 0);
}

#[test]
fn claims_batches_and_refusals_never_ask() {
    let arena = arena();
    let mut buffers = Vec::with_capacity(16);
    let asked = asked_during(|| {
        drop(arena.allocate().unwrap());
        assert_eq!(arena.allocate_many(16, |buffer| buffers.push(buffer)), 16);
        assert!(arena.allocate().is_err());
        buffers.clear();
    });
    assert_eq!(asked, 0);
}

#[test]
fn an_empty_bytes_never_asks() {
    let arena = arena();
    let asked = asked_during(|| assert_eq!(arena.allocate().unwrap().freeze(), Bytes::new()));
    assert_eq!(asked, 0);
}
