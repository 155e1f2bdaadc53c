//! The buddy arena as a user sees it.
//!
//! # Safety
//!
//! Unsafe code here hands memory to arenas, and reads bytes that the policy promises to be zero.
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{Random, assert_all_free, nz};
use bytes::BufMut;
use uring_arena::{
    AllocError, BuddyArena, BuddyGeometry, BuddyHint, BuildError, Dealloc, HeapDealloc, InitPolicy,
    PageSize,
};

fn exact(total: usize, min_block: usize) -> BuddyArena {
    BuddyArena::builder(BuddyGeometry::exact(nz(total), nz(min_block)).unwrap()).build().unwrap()
}

#[test]
fn exact_geometry_is_taken_as_given_or_refused() {
    let geometry = BuddyGeometry::exact(nz(4096), nz(512)).unwrap();
    assert_eq!((geometry.total_size(), geometry.min_block_size()), (4096, 512));
    assert_eq!((geometry.max_order(), geometry.alignment()), (3, 1));
    assert_eq!(geometry, BuddyGeometry::exact(nz(4096), nz(512)).unwrap());
    for (total, min_block) in [(4096, 768), (6144, 1024), (256, 512), (3, 1), (usize::MAX, 1)] {
        assert_eq!(
            BuddyGeometry::exact(nz(total), nz(min_block)),
            Err(BuildError::InvalidGeometry)
        );
    }
    assert_eq!(BuddyGeometry::exact(nz(1), nz(1)).unwrap().max_order(), 0);
}

#[test]
fn nearest_geometry_is_rounded_up_or_overflows() {
    for ((total, min_block), expected) in [
        ((4096, 512), (4096, 512, 3)),
        ((6000, 1024), (8192, 1024, 3)),
        ((6000, 768), (8192, 1024, 3)),
        ((256, 512), (512, 512, 0)),
        ((1, 1), (1, 1, 0)),
    ] {
        let geometry = BuddyGeometry::nearest(nz(total), nz(min_block)).unwrap();
        assert_eq!(
            (geometry.total_size(), geometry.min_block_size(), geometry.max_order()),
            expected
        );
    }
    for (total, min_block) in [(usize::MAX, usize::MAX >> 1), (usize::MAX, 1), (1, usize::MAX)] {
        assert_eq!(BuddyGeometry::nearest(nz(total), nz(min_block)), Err(BuildError::SizeOverflow));
    }
}

#[test]
fn alignment_fits_the_exact_geometry_and_moves_the_nearest() {
    let exact = BuddyGeometry::exact(nz(4096), nz(512)).unwrap();
    assert_eq!(exact.with_alignment(nz(512)).unwrap().alignment(), 512);
    assert_eq!(exact.with_alignment(nz(1024)), Err(BuildError::InvalidGeometry));
    assert_eq!(exact.with_alignment(nz(3)), Err(BuildError::InvalidAlignment));
    let nearest = BuddyGeometry::nearest(nz(4096), nz(512)).unwrap();
    let moved = nearest.with_alignment(nz(1024)).unwrap();
    assert_eq!((moved.alignment(), moved.min_block_size(), moved.max_order()), (1024, 1024, 2));
    assert_eq!(nearest.with_alignment(nz(96)), Err(BuildError::InvalidAlignment));
    assert_eq!(nearest.with_alignment(nz(1 << 63)).unwrap().total_size(), 1 << 63);
}

#[test]
fn exact_gives_the_whole_block_and_nearest_what_was_asked_for() {
    let arena = exact(65536, 256);
    for (len, capacity) in [(1, 256), (256, 256), (257, 512), (5000, 8192), (65536, 65536)] {
        assert_eq!(arena.allocate(nz(len)).unwrap().capacity(), capacity);
    }
    let nearest = BuddyGeometry::nearest(nz(60_000), nz(200)).unwrap();
    let arena = BuddyArena::builder(nearest).build().unwrap();
    for len in [1, 200, 257, 5000, 65536] {
        let mut buffer = arena.allocate(nz(len)).unwrap();
        assert_eq!(buffer.capacity(), len);
        buffer.put_bytes(1, len);
        assert_eq!(buffer.freeze().len(), len);
    }
    assert_all_free(&arena);
}

#[test]
fn lengths_that_can_never_fit_are_told_from_those_that_do_not_fit_now() {
    let arena = exact(4096, 512);
    for len in [4097, 1 << 40, usize::MAX / 2 + 2, usize::MAX] {
        assert_eq!(arena.allocate(nz(len)).unwrap_err(), AllocError::RequestTooLarge);
    }
    let held: Vec<_> = (0..8).map(|_| arena.allocate(nz(512)).unwrap()).collect();
    assert_eq!(arena.allocate(nz(1)).unwrap_err(), AllocError::ArenaFull);
    assert_eq!(arena.metrics().allocations_failed, 5);
    assert_eq!(arena.metrics().largest_free_block, 0);
    assert_eq!(arena.metrics().bytes_live, 4096);
    drop(held);
    assert_all_free(&arena);
}

#[test]
fn blocks_are_aligned_and_do_not_overlap() {
    let geometry = BuddyGeometry::exact(nz(1 << 20), nz(4096)).unwrap();
    let geometry = geometry.with_alignment(nz(4096)).unwrap();
    let arena = BuddyArena::builder(geometry).build().unwrap();
    let mut held = Vec::new();
    for len in [1, 5000, 4096, 70_000, 4096, 20_000] {
        let mut buffer = arena.allocate(nz(len)).unwrap();
        assert!(buffer.as_ptr().addr().is_multiple_of(4096));
        buffer.put_bytes(held.len() as u8, buffer.capacity());
        held.push(buffer);
    }
    for (number, buffer) in held.iter().enumerate() {
        assert!(buffer.iter().all(|&byte| byte == number as u8));
    }
    drop(held);
    assert_all_free(&arena);
}

#[test]
fn metrics_count_blocks_whole() {
    let arena = exact(1 << 16, 256);
    let first = arena.allocate(nz(300)).unwrap();
    let mut second = arena.allocate(nz(40_000 / 2)).unwrap();
    second.put_slice(b"frozen");
    let frozen = second.freeze();
    let metrics = arena.metrics();
    assert_eq!((metrics.allocations_ok, metrics.frees, metrics.frozen), (2, 0, 1));
    assert_eq!((metrics.bytes_reserved, metrics.bytes_live), (1 << 16, 512 + 32768));
    assert_eq!(metrics.largest_free_block, 16384);
    drop(frozen);
    drop(first);
    let metrics = arena.metrics();
    assert_eq!((metrics.frees, metrics.bytes_live, metrics.largest_free_block), (2, 0, 1 << 16));
    assert_all_free(&arena);
}

#[test]
fn a_buffer_that_outgrows_its_block_spills_and_the_block_is_free_at_once() {
    let geometry = BuddyGeometry::exact(nz(4096), nz(4096)).unwrap();
    let arena = BuddyArena::builder(geometry).auto_spill().build().unwrap();
    let mut buffer = arena.allocate(nz(1)).unwrap();
    buffer.put_bytes(1, 4096);
    assert!(arena.allocate(nz(1)).is_err());
    buffer.put_bytes(2, 10);
    assert!(buffer.is_spilled());
    assert!(arena.allocate(nz(1)).is_ok());
    assert_eq!(buffer.freeze().len(), 4106);
    assert_eq!(arena.metrics().spills, 1);
    assert_all_free(&arena);
}

#[test]
#[should_panic]
fn without_spilling_a_full_block_panics() {
    let arena = exact(4096, 256);
    arena.allocate(nz(256)).unwrap().put_bytes(0, 257);
}

/// Checks every byte of every block, of many sizes and after earlier owners.
fn assert_zero_whatever_came_before(arena: &BuddyArena) {
    for len in [256, 700, 4096, 256, 65536, 1024, 65536] {
        let mut held: Vec<_> = std::iter::from_fn(|| arena.allocate(nz(len)).ok()).collect();
        assert!(!held.is_empty());
        for buffer in &mut held {
            let capacity = buffer.capacity();
            let start = buffer.as_mut_ptr();
            // SAFETY: the policy promises that every byte is initialised, to zero.
            unsafe { buffer.set_len(capacity) };
            assert_eq!(buffer.as_ptr(), start.cast_const());
            assert!(buffer.iter().all(|&byte| byte == 0), "block of {capacity} bytes");
            buffer.fill(0xAA);
        }
    }
}

#[test]
fn zero_policy_shows_no_byte_of_an_earlier_owner() {
    let geometry = BuddyGeometry::exact(nz(65536), nz(256)).unwrap();
    let arena = BuddyArena::builder(geometry).init_policy(InitPolicy::Zero).build().unwrap();
    assert_zero_whatever_came_before(&arena);

    let memory = Box::leak(vec![0xEE; 65536].into_boxed_slice());
    let arena = BuddyArena::from_static(memory, BuddyHint::min_alloc(nz(256)));
    assert_zero_whatever_came_before(&arena.init_policy(InitPolicy::Zero).build().unwrap());
}

#[test]
fn static_memory_is_cut_to_what_fits_and_not_touched_by_building() {
    for (len, hint, expected) in [
        (4096, 512, Ok((512, 3))),
        (4096, 500, Ok((512, 3))),
        (4096, 4096, Ok((4096, 0))),
        (5000, 512, Ok((512, 3))),
        (4096, 8192, Err(BuildError::ZeroUsableSlots)),
        (4096, usize::MAX, Err(BuildError::ZeroUsableSlots)),
        (0, 1, Err(BuildError::ZeroUsableSlots)),
    ] {
        let memory = Box::leak(vec![0x5A; len].into_boxed_slice());
        let start = memory.as_ptr();
        let built = BuddyArena::from_static(memory, BuddyHint::MinAlloc(nz(hint))).build();
        assert_eq!(
            built.as_ref().map(|a| (a.min_block_size(), a.max_order())).map_err(Clone::clone),
            expected
        );
        if let Ok(arena) = built {
            let mut whole = arena.allocate(nz(arena.total_size())).unwrap();
            assert_eq!(whole.as_ptr(), start);
            // SAFETY: the memory was initialised by its owner, and building leaves it alone.
            unsafe { whole.set_len(whole.capacity()) };
            assert!(whole.iter().all(|&byte| byte == 0x5A));
        }
    }
}

/// A deallocator that counts its calls and checks their length.
struct Counting {
    calls: Arc<AtomicUsize>,
    layout: Layout,
}

// SAFETY: gives the memory back to the allocator it came from.
unsafe impl Dealloc for Counting {
    unsafe fn dealloc(self, ptr: *mut u8, len: usize) {
        assert_eq!(len, self.layout.size());
        self.calls.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { HeapDealloc::new(self.layout).dealloc(ptr, len) };
    }
}

#[test]
fn memory_of_the_callers_goes_back_once_after_the_last_byte() {
    let layout = Layout::from_size_align(10_000, 4096).unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    // SAFETY: the layout is not of size zero.
    let memory = unsafe { std::alloc::alloc(layout) };
    let dealloc = Counting { calls: calls.clone(), layout };
    let arena =
        // SAFETY: freshly allocated, used by nobody else.
        unsafe { BuddyArena::from_raw(memory, 10_000, BuddyHint::MinAlloc(nz(256)), dealloc) }
            .build()
            .unwrap();
    assert_eq!(arena.total_size(), 8192);
    let (mut small, mut large) =
        (arena.allocate(nz(10)).unwrap(), arena.allocate(nz(3000)).unwrap());
    small.put_slice(b"small");
    large.put_slice(b"large");
    let (small, large) = (small.freeze(), large.freeze());
    let slice = large.slice(1..3);
    drop(arena);
    drop(large);
    std::thread::spawn(move || drop(small)).join().unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    assert_eq!(slice, "ar");
    drop(slice);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[test]
fn after_a_build_error_the_caller_still_owns_the_memory() {
    let layout = Layout::from_size_align(8192, 4096).unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    // SAFETY: the layout is not of size zero.
    let memory = unsafe { std::alloc::alloc(layout) };
    let try_build = |ptr, len, min_block, alignment| {
        let dealloc = Counting { calls: calls.clone(), layout };
        // SAFETY: nothing is touched, because no build succeeds.
        unsafe { BuddyArena::from_raw(ptr, len, BuddyHint::MinAlloc(nz(min_block)), dealloc) }
            .alignment(alignment)
            .build()
            .unwrap_err()
    };
    let misaligned = memory.wrapping_add(256);
    let error = BuildError::MisalignedMemory { address: misaligned.addr(), alignment: 4096 };
    assert_eq!(try_build(misaligned, 4096, 4096, 4096), error);
    assert_eq!(try_build(memory, 4096, 4096, 3), BuildError::InvalidAlignment);
    assert_eq!(try_build(memory, 4096, 256, 4096), BuildError::InvalidGeometry);
    assert_eq!(try_build(memory, 100, 256, 1), BuildError::ZeroUsableSlots);
    assert_eq!(try_build(std::ptr::null_mut(), 4096, 256, 1), BuildError::NullPointer);
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    // SAFETY: allocated above with this layout.
    unsafe { std::alloc::dealloc(memory, layout) };
}

#[test]
fn sizes_beyond_the_allocator_or_the_machine_are_errors() {
    let build = |total, min_block| {
        let geometry = BuddyGeometry::exact(nz(total), nz(min_block)).unwrap();
        BuddyArena::builder(geometry)
            .page_size(PageSize::Unknown)
            .build()
            .map(|arena| arena.max_order())
    };
    let Err(BuildError::TooManySlots { requested, .. }) = build(1 << 40, 1) else { panic!() };
    assert_eq!(requested, 1 << 40);
    let Err(BuildError::OutOfMemory { bytes, .. }) = build(1 << 60, 1 << 50) else { panic!() };
    assert_eq!(bytes, 1 << 60);
}

#[test]
fn built_unfaulted_it_works_before_and_after_touching() {
    let geometry = BuddyGeometry::exact(nz(1 << 20), nz(4096)).unwrap();
    let arena = BuddyArena::builder(geometry).build_unfaulted().unwrap().into_inner();
    assert_all_free(&arena);
    let arena = BuddyArena::builder(geometry).build_unfaulted().unwrap().fault_pages();
    assert_all_free(&arena);
}

/// 64 MiB of which others use two blocks of 4 KiB: a defect of arena-alligator 0.7.
#[test]
fn a_request_that_fits_is_served_while_others_split_and_merge() {
    let arena = exact(64 << 20, 256);
    let rounds = 20_000;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..rounds {
                    drop(arena.allocate(nz(4096)).expect("4 KiB of 64 MiB"));
                }
            });
        }
        for _ in 0..rounds / 10 {
            drop(arena.allocate(nz(16 << 20)).expect("a quarter fits beside two small blocks"));
        }
    });
    assert_all_free(&arena);
}

/// Four threads claim random sizes; the content is checked when the bytes are dropped.
#[test]
fn churn_keeps_every_byte_and_leaves_the_arena_whole() {
    let rounds = if cfg!(miri) { 2 } else { 500 };
    for round in 0..rounds {
        let arena = exact(1 << 18, 256);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let arena = &arena;
                scope.spawn(move || {
                    churn(arena, (round as u64) << 8 | thread, if cfg!(miri) { 20 } else { 100 })
                });
            }
        });
        assert_all_free(&arena);
    }
}

fn churn(arena: &BuddyArena, seed: u64, steps: usize) {
    let mut source = Random::new(seed);
    let mut held = Vec::new();
    for step in 0..steps {
        let random = source.next();
        if random % 5 < 3 {
            let len = 1 + (random >> 20) as usize % (1 << ((random >> 8) % 17));
            if let Ok(mut buffer) = arena.allocate(nz(len)) {
                let mark = (seed as u8) ^ (step as u8);
                buffer.put_bytes(mark, len);
                held.push((mark, buffer.freeze()));
            }
        } else if !held.is_empty() {
            let (mark, bytes) = held.swap_remove((random >> 20) as usize % held.len());
            assert!(bytes.iter().all(|&byte| byte == mark));
        }
    }
    for (mark, bytes) in held {
        assert!(bytes.iter().all(|&byte| byte == mark));
    }
}
