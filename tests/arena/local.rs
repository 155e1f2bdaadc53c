//! Batches of one thread: no slot is lost or had twice, wherever it is freed.
#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use proptest::prelude::*;
use uring_arena::{AllocError, Buffer, FixedArena, InitPolicy, LocalArena};

use crate::support::{arena, assert_all_free};

fn slot(buffer: &Buffer) -> u32 {
    buffer.slot_index().unwrap()
}

fn idle(local: &LocalArena) -> usize {
    local.counts().1
}

#[test]
fn a_batch_serves_its_own_slots_first_and_then_the_arena() {
    let arena = arena(40, 64);
    let local = LocalArena::new(&arena, 100);
    assert_eq!(local.counts(), (32, 32), "at most 32");
    assert_eq!(arena.slot_states().free, 8);
    let buffers: Vec<Buffer> = (0..40).map(|_| local.allocate().unwrap()).collect();
    let slots: BTreeSet<u32> = buffers.iter().map(slot).collect();
    assert_eq!(slots, (0..40).collect());
    assert_eq!(local.allocate().unwrap_err(), AllocError::ArenaFull);
    drop(buffers);
    assert_eq!((local.counts(), arena.slot_states().free), ((32, 32), 8));
    drop(local);
    assert_all_free(&arena);
}

#[test]
fn a_free_comes_back_to_the_batch_from_every_thread_and_in_every_form() {
    let arena = arena(8, 64);
    let local = LocalArena::new(&arena, 2);
    for round in 0..100 {
        let mut buffer = local.allocate().unwrap();
        buffer.put_u8(round);
        match round % 4 {
            0 => drop(buffer),
            1 => thread::spawn(move || drop(buffer)).join().unwrap(),
            2 => {
                let bytes = buffer.freeze();
                let clone = bytes.clone();
                drop(bytes);
                assert_eq!(idle(&local), 1);
                thread::spawn(move || assert_eq!(clone[0], round)).join().unwrap();
            }
            _ => {
                let bytes = buffer.freeze_in_place();
                let clone = bytes.clone();
                thread::spawn(move || drop(bytes)).join().unwrap();
                drop(clone);
            }
        }
        assert_eq!(local.counts(), (2, 2), "round {round}");
    }
    drop(local);
    assert_all_free(&arena);
}

#[test]
fn slots_in_use_are_the_arenas_when_the_batch_has_ended() {
    let arena = arena(8, 64);
    for elsewhere in [false, true] {
        let local = LocalArena::new(&arena, 8);
        let mut held: Vec<Buffer> = (0..5).map(|_| local.allocate().unwrap()).collect();
        // One of them is on its way back when the batch ends.
        let returned = held.pop();
        thread::spawn(move || drop(returned)).join().unwrap();
        drop(local);
        assert_eq!(arena.slot_states().free, 4);
        let free = move || drop(held);
        if elsewhere {
            thread::spawn(free).join().unwrap()
        } else {
            free()
        }
        assert_all_free(&arena);
    }
}

#[test]
fn idle_slots_are_given_back_to_those_who_wait() {
    let arena = arena(4, 64);
    let local = LocalArena::new(&arena, 4);
    let held = local.allocate().unwrap();
    let waiting = arena.clone();
    let (begun, begins) = mpsc::channel();
    let waiter = thread::spawn(move || {
        assert_eq!(waiting.allocate().unwrap_err(), AllocError::ArenaFull);
        begun.send(()).unwrap();
        let buffers: Vec<Buffer> = (0..4)
            .map(|_| waiting.allocate_timeout(Duration::from_secs(60)).expect("given back"))
            .collect();
        buffers.len()
    });
    begins.recv().unwrap();
    assert_eq!(local.give_back(), 3);
    drop(held);
    // The slot in use came back to the batch: it is given back as well.
    assert_eq!(local.give_back(), 1);
    assert_eq!(waiter.join().unwrap(), 4);
    assert_eq!(local.refill(), 4);
    drop(local);
    assert_all_free(&arena);
}

#[test]
fn what_a_batch_holds_outlives_the_arena() {
    let arena = arena(4, 64);
    let local = LocalArena::new(&arena, 4);
    drop(arena);
    let mut buffer = local.allocate().unwrap();
    buffer.put_slice(b"still here");
    let bytes = buffer.freeze();
    drop(local);
    assert_eq!(bytes, "still here");
    thread::spawn(move || drop(bytes)).join().unwrap();
}

#[test]
fn the_next_owner_of_a_slot_of_a_batch_finds_zeros() {
    let arena = FixedArena::with_sizes(4, 64).init_policy(InitPolicy::Zero).build().unwrap();
    let local = LocalArena::new(&arena, 1);
    for elsewhere in [false, true, false] {
        let mut buffer = local.allocate().unwrap();
        // SAFETY: slots under `InitPolicy::Zero` are initialised.
        let seen = unsafe { std::slice::from_raw_parts(buffer.as_ptr(), 64) };
        assert_eq!(seen, [0; 64]);
        buffer.put_bytes(7, 64);
        let bytes = buffer.freeze();
        if elsewhere {
            thread::spawn(move || drop(bytes)).join().unwrap()
        } else {
            drop(bytes)
        }
        assert_eq!(idle(&local), 1);
    }
}

/// The owner claims, others free, and batches end meanwhile.
#[test]
fn batches_come_and_go_while_other_threads_free() {
    let arena = arena(64, 64);
    let (give, take) = mpsc::sync_channel::<Bytes>(32);
    let freeing = thread::spawn(move || take.into_iter().map(|bytes| bytes.len()).sum::<usize>());
    let mut sent = 0;
    for round in 0..200 {
        let local = LocalArena::new(&arena, 1 + round % 32);
        for number in 0..64 {
            let Ok(mut buffer) = local.allocate() else { continue };
            buffer.put_slice(b"12345678");
            sent += 8;
            if number % 3 == 0 {
                drop(buffer);
                sent -= 8;
            } else {
                give.send(buffer.freeze()).unwrap();
            }
            if number == 40 {
                local.give_back();
            }
        }
    }
    drop(give);
    assert_eq!(freeing.join().unwrap(), sent);
    assert_all_free(&arena);
}

#[derive(Debug, Clone)]
enum Step {
    Claim,
    Free(prop::sample::Index),
    FreeElsewhere(prop::sample::Index),
    GiveBack,
    Refill,
    Renew(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let any = any::<prop::sample::Index>;
    let step = prop_oneof![
        8 => Just(Step::Claim),
        3 => any().prop_map(Step::Free),
        3 => any().prop_map(Step::FreeElsewhere),
        1 => Just(Step::GiveBack),
        1 => Just(Step::Refill),
        1 => (0..6usize).prop_map(Step::Renew),
    ];
    prop::collection::vec(step, 1..if cfg!(miri) { 10 } else { 100 })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]

    /// Every slot is in use once, or idle, or free: after any list of steps.
    #[test]
    fn any_history_keeps_every_slot_once(steps in steps()) {
        const SLOTS: usize = 6;
        let arena = arena(SLOTS, 64);
        let mut local = LocalArena::new(&arena, 3);
        let mut held: Vec<Buffer> = Vec::new();
        for step in steps {
            match step {
                Step::Claim => match local.allocate() {
                    Ok(buffer) => held.push(buffer),
                    Err(_) => prop_assert_eq!((held.len(), idle(&local)), (SLOTS, 0)),
                },
                Step::Free(index) if !held.is_empty() => {
                    drop(held.swap_remove(index.index(held.len())));
                }
                Step::FreeElsewhere(index) if !held.is_empty() => {
                    let buffer = held.swap_remove(index.index(held.len()));
                    thread::spawn(move || drop(buffer)).join().unwrap();
                }
                Step::Free(_) | Step::FreeElsewhere(_) => {}
                Step::GiveBack => {
                    local.give_back();
                }
                Step::Refill => {
                    local.refill();
                }
                // Slots in use of the batch before are the arena's from now on.
                Step::Renew(slots) => local = LocalArena::new(&arena, slots),
            }
            let slots: BTreeSet<u32> = held.iter().map(slot).collect();
            prop_assert_eq!(slots.len(), held.len());
            let states = arena.slot_states();
            prop_assert_eq!(states.held, held.len() + idle(&local));
            prop_assert_eq!(states.total(), SLOTS);
        }
        drop((held, local));
        assert_all_free(&arena);
    }
}
