//! The fixed arena as a user sees it: contracts of the API, exact counts, bad input.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use crate::support::{arena, assert_all_free, nz};
use bytes::{Buf, BufMut, Bytes};
use uring_arena::{
    AllocError, ArenaBytes, Backing, Buffer, BuildError, BytesExt, Dealloc, FixedArena, InitPolicy,
    PageSize, SlotSpec,
};

#[test]
fn handed_out_types_are_small_and_may_leave_the_thread() {
    fn sendable<T: Send + Sync + 'static>() {}
    sendable::<FixedArena>();
    sendable::<Buffer>();
    sendable::<ArenaBytes>();
    assert!(size_of::<Buffer>() <= 32);
    assert!(size_of::<ArenaBytes>() <= 32);
}

#[test]
fn a_round_trip_counts_exactly() {
    let arena = arena(4, 64);
    let mut buffer = arena.allocate().unwrap();
    buffer.put_slice(b"hello");
    let bytes = buffer.freeze();
    assert_eq!(bytes, "hello");
    let clone = bytes.clone();
    drop(bytes);
    assert_eq!(arena.metrics().bytes_live, 64);
    drop(clone);
    let metrics = arena.metrics();
    assert_eq!((metrics.allocations_ok, metrics.frees, metrics.frozen), (1, 1, 1));
    assert_all_free(&arena);
}

#[test]
fn counters_carry_past_sixteen_bits() {
    let arena = arena(1, 8);
    for _ in 0..70_000 {
        let mut buffer = arena.allocate().unwrap();
        buffer.put_u8(1);
        drop(buffer.freeze());
    }
    assert_eq!(arena.metrics().frozen, 70_000);
    assert_eq!(arena.metrics().allocations_ok, 70_000);
}

#[test]
fn slots_and_sizes_follow_the_peers_rules() {
    let arena = FixedArena::with_arena_capacity(nz(4), nz(1000)).build().unwrap();
    assert_eq!((arena.slot_count(), arena.slot_capacity()), (4, 250));
    let arena = FixedArena::with_arena_capacity(nz(3), nz(1000)).alignment(64).build().unwrap();
    assert_eq!(arena.slot_capacity(), 384);
    let arena = FixedArena::with_slot_capacity(nz(3), nz(100)).alignment(4096).build().unwrap();
    assert_eq!(arena.slot_capacity(), 4096);
    for _ in 0..3 {
        let mut buffer = arena.allocate().unwrap();
        assert_eq!(buffer.as_mut_ptr().addr() % 4096, 0);
        std::mem::forget(buffer);
    }
}

#[test]
fn full_is_said_and_counted() {
    let arena = arena(2, 8);
    let held = [arena.allocate().unwrap(), arena.allocate().unwrap()];
    assert_eq!(arena.allocate().unwrap_err(), AllocError::ArenaFull);
    assert_eq!(arena.metrics().allocations_failed, 1);
    drop(held);
    assert_all_free(&arena);
}

#[test]
fn every_put_writes_big_endian_in_order() {
    let arena = arena(1, 64);
    let mut buffer = arena.allocate().unwrap();
    buffer.put_u8(1);
    buffer.put_u16(0x0203);
    buffer.put_u32_le(0x0706_0504);
    buffer.put_bytes(8, 2);
    buffer.put(&b"\x0a\x0b"[..]);
    buffer.put_i8(-1);
    let chunk = buffer.chunk_mut();
    chunk.write_byte(0, 12);
    // SAFETY: one byte was written just now.
    unsafe { buffer.advance_mut(1) };
    assert_eq!(buffer.freeze(), &[1, 2, 3, 4, 5, 6, 7, 8, 8, 10, 11, 255, 12][..]);
}

#[test]
#[should_panic(expected = "buffer full")]
fn writing_past_the_slot_panics() {
    let arena = arena(1, 4);
    arena.allocate().unwrap().put_slice(b"12345");
}

#[test]
#[should_panic(expected = "cannot advance")]
fn advancing_past_the_slot_panics() {
    let arena = arena(1, 4);
    let mut buffer = arena.allocate().unwrap();
    // SAFETY: the call panics before it counts anything as written.
    unsafe { buffer.advance_mut(5) };
}

#[test]
fn a_spill_frees_the_slot_and_goes_on() {
    let arena = FixedArena::with_slot_capacity(nz(1), nz(8)).auto_spill().build().unwrap();
    let mut buffer = arena.allocate().unwrap();
    buffer.put_slice(b"12345678");
    assert!(!buffer.is_spilled());
    buffer.put_slice(b"9");
    assert!(buffer.is_spilled());
    assert!(buffer.capacity() >= 9);
    assert_eq!(buffer.slot_index(), None);
    let other = arena.allocate().expect("the slot is free at once");
    let mut expected = b"123456789".to_vec();
    for i in 0..1000u32 {
        buffer.put_u32(i);
        expected.extend_from_slice(&i.to_be_bytes());
        assert!(buffer.capacity() >= buffer.len());
    }
    assert_eq!(buffer.freeze(), expected);
    drop(other);
    let metrics = arena.metrics();
    assert_eq!((metrics.spills, metrics.frozen, metrics.frees), (1, 0, 2));
    assert_all_free(&arena);
}

#[test]
fn a_spill_keeps_the_head_room() {
    let arena = FixedArena::with_slot_capacity(nz(1), nz(16)).auto_spill().build().unwrap();
    for in_place in [false, true] {
        let mut buffer = arena.allocate().unwrap();
        buffer.reserve_headroom(4).unwrap();
        buffer.put_slice(&[7; 100]);
        assert_eq!(buffer.headroom(), 4);
        buffer.prepend(b"ab").unwrap();
        assert_eq!(buffer.headroom(), 2);
        assert!(buffer.prepend(b"abc").is_err());
        buffer.put_slice(&[9; 1000]);
        let bytes: Bytes = if in_place { buffer.freeze_in_place().into() } else { buffer.freeze() };
        assert_eq!(bytes.len(), 1102);
        assert_eq!(&bytes[..3], b"ab\x07");
        assert_eq!(bytes[1101], 9);
    }
    let mut dropped = arena.allocate().unwrap();
    dropped.put_slice(&[1; 100]);
    drop(dropped);
    assert_all_free(&arena);
}

#[test]
fn spilled_arena_bytes_share_their_heap() {
    let arena = FixedArena::with_slot_capacity(nz(1), nz(4)).auto_spill().build().unwrap();
    let mut buffer = arena.allocate().unwrap();
    buffer.put_slice(b"0123456789");
    let bytes = buffer.freeze_in_place();
    let slice = bytes.slice(2..5);
    drop(bytes);
    assert_eq!(slice, *"234");
    assert_eq!(slice.slot_index(), None);
    assert!(slice.try_into_buffer().is_err());
}

#[test]
fn head_room_takes_a_header_written_last() {
    let arena = arena(1, 16);
    let mut buffer = arena.allocate().unwrap();
    buffer.reserve_headroom(8).unwrap();
    assert_eq!(buffer.capacity(), 8);
    assert!(buffer.reserve_headroom(9).is_err());
    buffer.put_slice(b"body");
    buffer.prepend(b"head").unwrap();
    assert!(buffer.prepend(b"12345").is_err());
    assert_eq!(buffer.freeze(), "headbody");
}

#[test]
fn arena_bytes_split_like_bytes() {
    let arena = arena(1, 32);
    let mut buffer = arena.allocate().unwrap();
    buffer.put_slice(b"0123456789");
    let mut bytes = buffer.freeze_in_place();
    let back = bytes.split_off(7);
    let front = bytes.split_to(2);
    assert_eq!(
        (front.as_ref(), bytes.as_ref(), back.as_ref()),
        (&b"01"[..], &b"23456"[..], &b"789"[..])
    );
    bytes.advance(1);
    assert_eq!(bytes.get_u8(), b'3');
    assert_eq!(bytes.copy_to_bytes(3), "456");
    assert!(bytes.is_empty());
    let mut heard = std::collections::HashMap::new();
    heard.insert(front.clone(), 1);
    assert_eq!(heard.get(&b"01"[..]), Some(&1));
    assert_eq!(format!("{back:?}"), "b\"789\"");
    drop((heard, front, bytes));
    assert!(arena.allocate().is_err());
    drop(back);
    assert_all_free(&arena);
}

#[test]
fn only_a_sole_owner_gets_the_buffer_back() {
    let arena = arena(1, 8);
    let mut buffer = arena.allocate().unwrap();
    buffer.put_slice(b"abcd");
    let mut bytes = buffer.freeze_in_place();
    let front = bytes.split_to(2);
    let bytes = bytes.try_into_buffer().unwrap_err();
    drop(front);
    let mut buffer = bytes.try_into_buffer().unwrap();
    assert_eq!((buffer.len(), buffer.capacity(), buffer.headroom()), (2, 6, 2));
    buffer.prepend(b"X").unwrap();
    buffer.put_slice(b"Y");
    assert_eq!(buffer.freeze(), "XcdY");
    assert_all_free(&arena);
}

#[test]
fn bytes_outlive_the_arena_and_are_dropped_anywhere() {
    let arena = arena(2, 8);
    let mut buffer = arena.allocate().unwrap();
    buffer.put_slice(b"late");
    let bytes = buffer.freeze();
    let other = arena.allocate().unwrap();
    drop(arena);
    drop(other);
    std::thread::spawn(move || assert_eq!(bytes, "late")).join().unwrap();
}

#[test]
fn an_empty_freeze_holds_no_slot() {
    let arena = arena(1, 8);
    let bytes = arena.allocate().unwrap().freeze();
    assert!(bytes.is_empty());
    assert!(arena.allocate().is_ok());
}

#[test]
fn into_owned_frees_the_slot() {
    let arena = arena(1, 8);
    let mut buffer = arena.allocate().unwrap();
    buffer.put_slice(b"ab");
    let owned = buffer.freeze().into_owned();
    assert_eq!(&owned[..], b"ab");
    assert_all_free(&arena);
}

#[test]
fn allocate_many_takes_what_is_there() {
    let arena = arena(40, 8);
    let mut buffers = Vec::new();
    assert_eq!(arena.allocate_many(33, |buffer| buffers.push(buffer)), 33);
    assert_eq!(arena.allocate_many(33, |buffer| buffers.push(buffer)), 7);
    let mut indices: Vec<u32> = buffers.iter().map(|buffer| buffer.slot_index().unwrap()).collect();
    indices.sort_unstable();
    assert_eq!(indices, (0..40).collect::<Vec<u32>>());
    drop(buffers);
    assert_all_free(&arena);
}

#[test]
fn locate_knows_its_own_slices_only() {
    let arena = arena(4, 100);
    let other = self::arena(4, 100);
    let mut buffer = arena.allocate().unwrap();
    buffer.put_bytes(1, 100);
    let index = buffer.slot_index().unwrap();
    let bytes = buffer.freeze();
    for offset in [0, 1, 99] {
        let location = arena.locate(&bytes[offset..]).unwrap();
        assert_eq!((location.slot_index, location.offset), (index, offset));
        assert_eq!(other.locate(&bytes[offset..]), None);
    }
    assert_eq!(arena.locate(&bytes[..0]), None);
    assert_eq!(arena.locate(b"static"), None);
}

#[test]
fn zero_shows_nobody_an_earlier_owners_bytes() {
    let arena = FixedArena::with_slot_capacity(nz(1), nz(4096))
        .init_policy(InitPolicy::Zero)
        .build()
        .unwrap();
    let assert_clean = || {
        let mut buffer = arena.allocate().unwrap();
        // SAFETY: the policy is that a claimed slot is all zeros.
        unsafe { buffer.set_len(4096) };
        assert!(buffer.iter().all(|&byte| byte == 0));
    };
    assert_clean();
    let mut buffer = arena.allocate().unwrap();
    buffer.put_bytes(1, 4000);
    buffer.truncate(10);
    drop(buffer);
    assert_clean();
    let mut buffer = arena.allocate().unwrap();
    buffer.put_bytes(2, 4000);
    drop(buffer.freeze().slice(3..5));
    assert_clean();
    let mut buffer = arena.allocate().unwrap();
    for byte in buffer.spare_capacity_mut() {
        byte.write(3);
    }
    drop(buffer);
    assert_clean();
    let mut buffer = arena.allocate().unwrap();
    buffer.reserve_headroom(100).unwrap();
    buffer.put_bytes(4, 3000);
    buffer.prepend(&[5; 100]).unwrap();
    drop(buffer.freeze_in_place().slice(..1));
    assert_clean();
}

#[test]
fn zero_does_not_trust_memory_of_the_callers() {
    let memory = Box::leak(vec![0xEEu8; 1000].into_boxed_slice());
    let arena = FixedArena::from_static(memory, SlotSpec::Count(nz(10)))
        .init_policy(InitPolicy::Zero)
        .build()
        .unwrap();
    for _ in 0..10 {
        let mut buffer = arena.allocate().unwrap();
        // SAFETY: the policy is that a claimed slot is all zeros.
        unsafe { buffer.set_len(100) };
        assert!(buffer.iter().all(|&byte| byte == 0));
        std::mem::forget(buffer);
    }
}

#[test]
fn building_does_not_touch_static_memory() {
    let memory = Box::leak(vec![0x5Au8; 100_000].into_boxed_slice());
    let address = memory.as_ptr();
    let arena = FixedArena::from_static(memory, SlotSpec::Size(nz(1000)))
        .page_size(PageSize::Auto)
        .build()
        .unwrap();
    assert_eq!(arena.slot_count(), 100);
    // SAFETY: static memory, and nobody has a buffer of the arena.
    let bytes = unsafe { std::slice::from_raw_parts(address, 100_000) };
    assert!(bytes.iter().all(|&byte| byte == 0x5A));
}

struct CountCalls(Arc<AtomicUsize>, usize);

// SAFETY: leaks the memory and counts.
unsafe impl Dealloc for CountCalls {
    unsafe fn dealloc(self, _: *mut u8, len: usize) {
        assert_eq!(len, self.1);
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn dealloc_is_called_once_after_the_last_byte_and_never_on_error() {
    let calls = Arc::new(AtomicUsize::new(0));
    let memory: &'static mut [u8] = Box::leak(vec![0u8; 1003].into_boxed_slice());
    let (start, len) = (memory.as_mut_ptr(), memory.len());
    let build = |spec, alignment| {
        // SAFETY: leaked memory, one arena at a time.
        unsafe { FixedArena::from_raw(start, len, spec, CountCalls(calls.clone(), len)) }
            .alignment(alignment)
            .build()
    };
    assert_eq!(build(SlotSpec::Count(nz(2000)), 1).unwrap_err(), BuildError::ZeroUsableSlots);
    assert_eq!(build(SlotSpec::Size(nz(2000)), 1).unwrap_err(), BuildError::SlotSizeExceedsBacking);
    assert_eq!(build(SlotSpec::Count(nz(1)), 3).unwrap_err(), BuildError::InvalidAlignment);
    let misaligned = BuildError::MisalignedMemory { address: start.addr(), alignment: 1 << 30 };
    assert_eq!(build(SlotSpec::Count(nz(1)), 1 << 30).unwrap_err(), misaligned);
    // SAFETY: a null pointer is refused.
    let null = unsafe {
        FixedArena::from_raw(
            std::ptr::null_mut(),
            9,
            SlotSpec::Count(nz(1)),
            CountCalls(calls.clone(), 9),
        )
    };
    assert_eq!(null.build().unwrap_err(), BuildError::NullPointer);
    assert_eq!(calls.load(Ordering::SeqCst), 0);

    let arena = build(SlotSpec::Count(nz(10)), 1).unwrap();
    let mut buffer = arena.allocate().unwrap();
    buffer.put_u8(1);
    let bytes = buffer.freeze();
    drop(arena.clone());
    drop(arena);
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    drop(bytes);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn a_panicking_source_loses_no_slot() {
    struct Trap;
    impl Buf for Trap {
        fn remaining(&self) -> usize {
            4
        }
        fn chunk(&self) -> &[u8] {
            panic!("trap")
        }
        fn advance(&mut self, _: usize) {}
    }
    let arena = arena(1, 64);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        arena.allocate().unwrap().put(Trap)
    }));
    assert!(caught.is_err());
    assert_all_free(&arena);
}

#[test]
fn a_panic_in_the_middle_of_a_batch_loses_no_slot() {
    let arena = arena(40, 8);
    let mut taken = 0;
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        arena.allocate_many(40, |_| {
            taken += 1;
            assert!(taken < 35, "enough");
        })
    }));
    assert!(caught.is_err());
    assert_all_free(&arena);
}

#[test]
fn absurd_sizes_are_errors() {
    let build =
        |count, bytes| FixedArena::with_slot_capacity(nz(count), nz(bytes)).build_unfaulted();
    assert_eq!(build(usize::MAX, 2).unwrap_err(), BuildError::SizeOverflow);
    assert!(matches!(build(1, usize::MAX / 2).unwrap_err(), BuildError::OutOfMemory { .. }));
    assert!(matches!(build(1 << 40, 1).unwrap_err(), BuildError::TooManySlots { .. }));
    assert!(matches!(build(1 << 30, 1).unwrap_err(), BuildError::TooManySlots { .. }));
    let aligned = FixedArena::with_slot_capacity(nz(1), nz(usize::MAX)).alignment(4096).build();
    assert_eq!(aligned.unwrap_err(), BuildError::SizeOverflow);
    let crooked = FixedArena::with_slot_capacity(nz(1), nz(1)).alignment(0).build();
    assert_eq!(crooked.unwrap_err(), BuildError::InvalidAlignment);
    let heap = FixedArena::with_slot_capacity(nz(1), nz(isize::MAX as usize - 4096))
        .backing(Backing::Heap)
        .build();
    assert!(matches!(heap.unwrap_err(), BuildError::OutOfMemory { .. } | BuildError::SizeOverflow));
}

#[test]
fn odd_shapes_work() {
    for (count, bytes) in [(1, 1), (1_000_000, 1), (33, 3), (1, 10 << 20)] {
        let arena = arena(count, bytes);
        let buffers: Vec<Buffer> = (0..count).map(|_| arena.allocate().unwrap()).collect();
        assert!(arena.allocate().is_err());
        drop(buffers);
        assert_all_free(&arena);
    }
}

#[test]
fn more_than_four_gibibytes_can_be_addressed() {
    let arena = FixedArena::with_slot_capacity(nz(3), nz(3 << 30))
        .page_size(PageSize::Unknown)
        .build()
        .unwrap();
    let mut buffers: Vec<Buffer> = (0..3).map(|_| arena.allocate().unwrap()).collect();
    for (i, buffer) in buffers.iter_mut().enumerate() {
        buffer.put_u64(i as u64);
    }
    let frozen: Vec<Bytes> = buffers.drain(..).map(Buffer::freeze).collect();
    for (i, mut bytes) in frozen.into_iter().enumerate() {
        assert_eq!(bytes.get_u64(), i as u64);
    }
}

#[test]
fn backings_serve_or_say_what_to_do() {
    for backing in [Backing::Heap, Backing::Anonymous, Backing::TransparentHuge] {
        let arena = FixedArena::with_slot_capacity(nz(100), nz(5000))
            .alignment(4096)
            .backing(backing)
            .build()
            .unwrap();
        let mut buffer = arena.allocate().unwrap();
        buffer.put_bytes(1, 5000);
        assert_eq!(buffer.freeze().len(), 5000);
    }
    for (backing, remedy) in
        [(Backing::Huge2MiB, "vm.nr_hugepages=1"), (Backing::Huge1GiB, "hugepages-1048576kB")]
    {
        match FixedArena::with_slot_capacity(nz(4), nz(4096)).backing(backing).build() {
            Ok(_) => eprintln!(
                "skipped: {backing:?} pages are reserved here, so the error cannot be seen"
            ),
            Err(error) => assert!(error.to_string().contains(remedy), "{error}"),
        }
    }
}

#[test]
fn numa_placement_serves_or_names_the_node() {
    let build = |node| FixedArena::with_slot_capacity(nz(4), nz(4096)).numa_node(node).build();
    match build(0) {
        Ok(arena) => drop(arena.allocate().unwrap()),
        Err(error) => eprintln!("skipped: this kernel has no NUMA placement: {error}"),
    }
    for node in [999, 5000] {
        let error = build(node).unwrap_err();
        assert!(error.to_string().contains(&node.to_string()), "{error}");
    }
}

#[test]
fn prefault_brings_every_page_even_of_a_heap_region_that_starts_inside_one() {
    for backing in [Backing::Anonymous, Backing::Heap] {
        let arena =
            FixedArena::with_slot_capacity(nz(777), nz(1111)).backing(backing).build().unwrap();
        let mut buffers: Vec<Buffer> = (0..777).map(|_| arena.allocate().unwrap()).collect();
        let start = buffers.iter_mut().map(|buffer| buffer.as_mut_ptr().addr()).min().unwrap();
        let end = start + 777 * 1111;
        let first_page = start / 4096 * 4096;
        let pages = end.div_ceil(4096) - first_page / 4096;
        let mut present = vec![0u8; pages];
        let answer =
            // SAFETY: asks about pages of our own; `present` has a byte for each.
            unsafe { libc::mincore(first_page as *mut _, end - first_page, present.as_mut_ptr()) };
        assert_eq!(answer, 0);
        assert!(present.iter().all(|page| page & 1 == 1), "{backing:?}");
    }
}

#[test]
fn a_forked_child_has_no_slot_memory_if_asked_so() {
    let arena =
        FixedArena::with_slot_capacity(nz(1), nz(4096)).keep_from_children().build().unwrap();
    let mut buffer = arena.allocate().unwrap();
    buffer.put_u8(1);
    let address = buffer.as_mut_ptr();
    // SAFETY: the child only asks the kernel about a page and leaves, without running any other
    // code.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut present = [0u8; 1];
        // SAFETY: asks about one page.
        let answer = unsafe { libc::mincore(address.cast(), 4096, present.as_mut_ptr()) };
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(answer == 0)) };
    }
    let mut status = 0;
    // SAFETY: waits for our own child.
    unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(libc::WEXITSTATUS(status), 0, "the child sees the slots");
}

#[test]
fn unfaulted_arenas_unwrap_in_three_ways() {
    let build = || FixedArena::with_slot_capacity(nz(4), nz(4096)).build_unfaulted().unwrap();
    drop(build().into_inner().allocate().unwrap());
    drop(build().fault_pages().allocate().unwrap());
    let (arena, buffer) = build().allocate().unwrap();
    drop(buffer);
    assert_all_free(&arena);
}

#[test]
fn threads_churn_without_mixing_or_losing_a_slot() {
    let arena = arena(64, 32);
    let barrier = Barrier::new(4);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (arena, barrier) = (arena.clone(), &barrier);
            scope.spawn(move || {
                barrier.wait();
                let mut held: Vec<(Bytes, u64)> = Vec::new();
                for i in 0..20_000u64 {
                    let mark = thread << 32 | i;
                    match arena.allocate() {
                        Ok(mut buffer) => {
                            buffer.put_u64(mark);
                            held.push((buffer.freeze(), mark));
                        }
                        Err(_) => held.clear(),
                    }
                    if held.len() > (i % 24) as usize {
                        let (bytes, mark) = held.swap_remove(i as usize % held.len());
                        assert_eq!(bytes.clone().get_u64(), mark);
                    }
                }
                for (mut bytes, mark) in held {
                    assert_eq!(bytes.get_u64(), mark);
                }
            });
        }
    });
    assert_all_free(&arena);
}

#[test]
fn handles_and_bytes_race_to_the_end_and_memory_goes_once() {
    for round in 0..2000 {
        let calls = Arc::new(AtomicUsize::new(0));
        let memory: &'static mut [u8] = Box::leak(vec![0u8; 64].into_boxed_slice());
        // SAFETY: leaked memory, used by this arena only.
        let arena = unsafe {
            FixedArena::from_raw(
                memory.as_mut_ptr(),
                64,
                SlotSpec::Count(nz(4)),
                CountCalls(calls.clone(), 64),
            )
        }
        .build()
        .unwrap();
        let mut things: Vec<Bytes> = Vec::new();
        for _ in 0..3 {
            let mut buffer = arena.allocate().unwrap();
            buffer.put_u8(round as u8);
            things.push(buffer.freeze());
        }
        std::thread::scope(|scope| {
            for thing in things {
                scope.spawn(move || drop(thing));
            }
            drop(arena);
        });
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }
}
