//! Giving pages back to the system: the resident memory falls, nothing that is held changes, and
//! whatever forbids it is named.
#![allow(unsafe_code)] // memory of the caller, and mincore(2)

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{assert_all_free, nz, watched, written};
use bytes::BufMut;
use uring_arena::{
    Backing, BuddyArena, FixedArena, HeapDealloc, InitPolicy, SlotSpec, TrimObstacle,
};

const PAGE: usize = 4096;

/// Counts the bytes of a range that are present (mincore(2)).
fn resident(start: *const u8, len: usize) -> usize {
    let mut pages = vec![0u8; len.div_ceil(PAGE)];
    assert_eq!(start.addr() % PAGE, 0);
    // SAFETY: the range is mapped, and there is a byte for each page.
    let answer = unsafe { libc::mincore(start.cast_mut().cast(), len, pages.as_mut_ptr()) };
    assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
    pages.iter().filter(|page| **page & 1 == 1).count() * PAGE
}

/// Returns the first byte of an arena.
fn start_of(arena: &FixedArena) -> *const u8 {
    let all: Vec<_> = std::iter::from_fn(|| arena.allocate().ok()).collect();
    all.iter().map(|buffer| buffer.as_ptr()).min().unwrap()
}

#[test]
fn free_pages_are_given_back_and_come_again_and_held_bytes_stay() {
    let arena = FixedArena::with_slot_capacity(nz(256), nz(PAGE)).alignment(PAGE).build().unwrap();
    let (start, len) = (start_of(&arena), 256 * PAGE);
    assert_eq!(resident(start, len), len);
    let held: Vec<_> = (0..100).map(|_| written(arena.allocate().unwrap(), b"stay")).collect();
    let kept: Vec<_> = held.into_iter().step_by(2).map(|buffer| buffer.freeze()).collect();
    let report = arena.trim();
    assert_eq!((report.bytes, report.obstacle), (len - kept.len() * PAGE, None));
    assert_eq!(resident(start, len), kept.len() * PAGE);
    assert!(kept.iter().all(|bytes| bytes == "stay"));
    drop(kept);
    assert_all_free(&arena);
    let mut buffer = arena.allocate().unwrap();
    buffer.put_bytes(7, PAGE);
    assert!(buffer.iter().all(|byte| *byte == 7));
    drop(buffer);
    let claims = arena.metrics().allocations_ok;
    let report = arena.trim();
    assert_eq!((report.bytes, report.obstacle), (len, None));
    assert_eq!(arena.metrics().allocations_ok, claims, "a trim counts as no claim");
    assert_eq!(resident(start, len), 0);
}

#[test]
fn slots_smaller_than_a_page_give_back_the_whole_pages_between_them() {
    let arena = FixedArena::with_slot_capacity(nz(256), nz(512)).alignment(PAGE / 8).build();
    let arena = arena.unwrap();
    // 32 slots of 512 bytes are four pages; the first slot of each word is held.
    let mut all: Vec<_> = std::iter::from_fn(|| arena.allocate().ok()).collect();
    all.retain(|buffer| buffer.slot_index().unwrap() % 32 == 0);
    let report = arena.trim();
    let words = 8;
    assert_eq!((report.bytes, report.obstacle), (words * 3 * PAGE, None));
    drop(all);
    assert_all_free(&arena);
}

#[test]
fn a_buddy_arena_gives_back_what_is_free_around_its_blocks() {
    let arena = BuddyArena::with_sizes(8 << 20, 256).alignment(PAGE).build().unwrap();
    let small = written(arena.allocate_bytes(100).unwrap(), b"stay");
    let large = arena.allocate_bytes(1 << 20).unwrap();
    let report = arena.trim();
    // The smallest block is a page.
    assert_eq!((report.bytes, report.obstacle), ((7 << 20) - PAGE, None));
    assert_eq!(&small[..], b"stay");
    drop((small, large));
    assert_all_free(&arena);
    assert_eq!(arena.trim().bytes, 8 << 20);
    assert!(arena.allocate_bytes(8 << 20).is_ok());
}

#[test]
fn memory_that_is_not_ours_is_left_alone() {
    let heap = FixedArena::with_sizes(64, PAGE).backing(Backing::Heap).build().unwrap();
    let memory = Box::leak(vec![0u8; 64 * PAGE].into_boxed_slice());
    let spec = SlotSpec::Count(NonZeroUsize::new(16).unwrap());
    let fixed = FixedArena::from_static(memory, spec).build().unwrap();
    let layout = std::alloc::Layout::from_size_align(64 * PAGE, PAGE).unwrap();
    // SAFETY: the layout is not of size zero.
    let raw = unsafe { std::alloc::alloc_zeroed(layout) };
    let dealloc = HeapDealloc::new(layout);
    // SAFETY: freshly allocated with this layout, and used by nothing else.
    let raw = unsafe { FixedArena::from_raw(raw, layout.size(), spec, dealloc) }.build().unwrap();
    for arena in [heap, fixed, raw] {
        let bytes = written(arena.allocate().unwrap(), b"stay");
        let report = arena.trim();
        assert_eq!((report.bytes, report.obstacle), (0, Some(TrimObstacle::NotMapped)));
        assert!(report.obstacle.unwrap().to_string().contains("Backing::Anonymous"));
        assert_eq!(&bytes[..], b"stay");
    }
}

#[test]
fn transparent_and_reserved_huge_pages_are_given_back_whole() {
    for backing in [Backing::TransparentHuge, Backing::Huge2MiB] {
        let arena = match FixedArena::with_sizes(2, 2 << 20).backing(backing).build() {
            Ok(arena) => arena,
            Err(error) => {
                eprintln!("SKIPPED: {backing:?}: {error}");
                continue;
            }
        };
        let held = written(arena.allocate().unwrap(), b"stay");
        let report = arena.trim();
        if let Some(TrimObstacle::Refused { errno: libc::EINVAL }) = report.obstacle {
            eprintln!("SKIPPED: {backing:?}: a kernel before 5.18");
            continue;
        }
        assert_eq!((report.bytes, report.obstacle), (2 << 20, None), "{backing:?}");
        assert_eq!(&held[..], b"stay");
        let second = arena.allocate().unwrap();
        drop((held, second));
        assert_all_free(&arena);
    }
}

#[test]
fn zeroed_slots_stay_zero_and_locked_pages_are_refused() {
    let builder = FixedArena::with_sizes(16, PAGE).alignment(PAGE);
    let arena = builder.init_policy(InitPolicy::Zero).build().unwrap();
    drop(written(arena.allocate().unwrap(), &[9; PAGE]));
    assert_eq!(arena.trim().bytes, 16 * PAGE);
    let mut buffer = arena.allocate().unwrap();
    assert!(buffer.spare_capacity_mut().iter().all(|byte| {
        // SAFETY: the policy promises zeros.
        unsafe { byte.assume_init() == 0 }
    }));
    drop(buffer);
    let start = start_of(&arena);
    // SAFETY: locking changes no byte.
    if unsafe { libc::mlock(start.cast(), 16 * PAGE) } != 0 {
        return eprintln!("SKIPPED: mlock: {}", std::io::Error::last_os_error());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if status.lines().any(|line| line.starts_with("VmLck:") && line.contains(" 0 kB")) {
        return eprintln!("SKIPPED: this build locks no page (a sanitizer stands before mlock)");
    }
    let report = arena.trim();
    assert_eq!(report.obstacle, Some(TrimObstacle::Refused { errno: libc::EINVAL }));
    assert!(report.obstacle.unwrap().to_string().contains("unlock"));
    assert_all_free(&arena);
}

/// Claims, waits and frees of other threads go on while the arena is trimmed again and again, and
/// nobody finds bytes of others.
#[test]
fn trims_race_with_claims_and_waits_and_lose_nothing() {
    watched(|| {
        let arena = FixedArena::with_sizes(40, PAGE).alignment(PAGE).build().unwrap();
        let buddy = BuddyArena::with_sizes(64 * PAGE, PAGE).build().unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for number in 1..4u8 {
                let (arena, buddy, is_over) = (&arena, &buddy, &is_over);
                scope.spawn(move || {
                    let mut held = Vec::new();
                    while !is_over.load(Ordering::Relaxed) {
                        for _ in 0..12 {
                            held.extend(arena.allocate_timeout(Duration::from_secs(20)));
                            held.extend(buddy.allocate_bytes_timeout(
                                3 * PAGE * usize::from(number),
                                Duration::from_millis(1),
                            ));
                        }
                        held.iter_mut().for_each(|buffer| buffer.put_bytes(number, 100));
                        std::thread::yield_now();
                        for buffer in held.drain(..) {
                            assert!(buffer.iter().all(|byte| *byte == number));
                        }
                    }
                });
            }
            for _ in 0..300 {
                assert_eq!(arena.trim().obstacle, None);
                assert_eq!(buddy.trim().obstacle, None);
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert_all_free(&arena);
        assert_all_free(&buddy);
    });
}
