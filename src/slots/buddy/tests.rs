//! Random histories against a dull model, and threads that churn.
//!
//! Held after every operation of one thread, and at the end of every history of several: no two
//! blocks overlap; a request is served exactly if an aligned free run exists; an arena with nothing
//! claimed serves its largest block.

use std::sync::atomic::{AtomicU8, Ordering};

use proptest::prelude::*;

use super::BuddyAllocator;
use crate::slots::FreeOutcome;

impl BuddyAllocator {
    pub(super) fn free(&self, first: u32, order: u32) -> FreeOutcome {
        let (word, free) = self.prepare_free(first, order, order);
        free.free(word)
    }
}

/// The smallest blocks, one flag each.
struct Model {
    claimed: Vec<bool>,
}

impl Model {
    fn runs(&self, order: u32) -> u64 {
        self.claimed.chunks(1 << order).filter(|block| block.iter().all(|claimed| !claimed)).count()
            as u64
    }

    fn set(&mut self, first: u32, order: u32, to: bool) {
        let first = first as usize;
        assert!(first.is_multiple_of(1 << order), "block of order {order} at {first}");
        for claimed in &mut self.claimed[first..first + (1 << order)] {
            assert_ne!(*claimed, to, "claimed twice or freed twice");
            *claimed = to;
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Claim(u32),
    Free(prop::sample::Index),
}

fn steps(orders: std::ops::RangeInclusive<u32>) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => orders.prop_map(Step::Claim),
        2 => any::<prop::sample::Index>().prop_map(Step::Free),
    ];
    prop::collection::vec(step, 1..if cfg!(miri) { 20 } else { 300 })
}

fn check_history(max_order: u32, steps: &[Step]) {
    let buddy = BuddyAllocator::new(max_order).unwrap();
    let mut model = Model { claimed: vec![false; 1 << max_order] };
    let mut held = Vec::new();
    for step in steps {
        match step {
            Step::Claim(order) => {
                let fits = *order <= max_order && model.runs(*order) > 0;
                let got = buddy.claim(*order);
                assert_eq!(got.is_some(), fits, "order {order} of {max_order}");
                if let Some(first) = got {
                    model.set(first, *order, true);
                    held.push((first, *order));
                }
            }
            Step::Free(index) if !held.is_empty() => {
                let (first, order) = held.swap_remove(index.index(held.len()));
                assert_eq!(buddy.free(first, order), FreeOutcome::Done);
                model.set(first, order, false);
            }
            Step::Free(_) => {}
        }
        let live = model.claimed.iter().filter(|claimed| **claimed).count() as u64;
        buddy.debug_check(live);
    }
    for order in 0..=max_order {
        assert_eq!(buddy.free_runs(order), model.runs(order), "free runs of order {order}");
    }
    let largest = (0..=max_order).rev().find(|&order| model.runs(order) > 0);
    assert_eq!(buddy.largest_free_order(), largest);
    for (first, order) in held.drain(..) {
        let _ = buddy.free(first, order);
    }
    assert_eq!(buddy.largest_free_order(), Some(max_order));
    assert_eq!(buddy.claim(max_order), Some(0), "a free arena serves its largest block");
    assert_eq!(buddy.claim(0), None);
    let _ = buddy.free(0, max_order);
    buddy.debug_check(0);
}

/// Returns how many histories are played: under Miri each takes a second.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 96 },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_history_agrees_with_the_model(max_order in 0u32..=11, steps in steps(0..=11)) {
        check_history(max_order, &steps);
    }

    #[test]
    fn small_blocks_agree_with_the_model(max_order in 4u32..=8, steps in steps(0..=4)) {
        check_history(max_order, &steps);
    }

    #[test]
    fn deep_trees_agree_with_the_model(max_order in 13u32..=15, steps in steps(0..=15)) {
        check_history(max_order, &steps[..steps.len().min(60)]);
    }
}

#[test]
fn everything_is_served_once_at_every_order() {
    let large: &[u32] = if cfg!(miri) { &[] } else { &[5, 6, 9, 10, 13, 14, 17] };
    for &max_order in [0, 1, 4].iter().chain(large) {
        let buddy = BuddyAllocator::new(max_order).unwrap();
        for order in 0..=max_order {
            let blocks = 1u32 << (max_order - order);
            let mut firsts: Vec<_> = (0..blocks).map(|_| buddy.claim(order).unwrap()).collect();
            assert_eq!(buddy.claim(order), None);
            assert_eq!(buddy.claim(0), None);
            firsts.sort_unstable();
            assert!(
                firsts.iter().enumerate().all(|(block, &first)| first == (block as u32) << order)
            );
            for first in firsts {
                let _ = buddy.free(first, order);
            }
            buddy.debug_check(0);
        }
        assert_eq!(buddy.claim(max_order + 1), None);
    }
}

/// With the header of 20 bytes of every smallest block that makes less than 8 % of a region in
/// blocks of 256 bytes.
#[test]
fn the_tree_costs_less_than_half_a_byte_per_smallest_block() {
    for max_order in [14, 16, 18, 22] {
        let buddy = BuddyAllocator::new(max_order).unwrap();
        let levels = &buddy.tree.levels;
        let hints = levels.words_total() - levels.hints_begin();
        let bytes = 8 * (levels.words_total() + hints) + buddy.caches.bytes();
        assert!((bytes as f64) < 0.45 * f64::from(1u32 << max_order), "2^{max_order}: {bytes}");
    }
}

#[test]
#[should_panic(expected = "not claimed")]
fn a_block_freed_twice_is_noticed() {
    let buddy = BuddyAllocator::new(8).unwrap();
    let first = buddy.claim(6).unwrap();
    let _ = buddy.free(first, 6);
    let _ = buddy.free(first, 6);
}

#[test]
fn waiters_stop_a_free_until_it_ignores_them() {
    let buddy = BuddyAllocator::new(12).unwrap();
    let held = [buddy.claim(0).unwrap(), buddy.claim(6).unwrap(), buddy.claim(10).unwrap()];
    buddy.set_waiters_flags();
    for (first, order) in held.into_iter().zip([0, 6, 10]) {
        assert_eq!(buddy.free(first, order), FreeOutcome::HasWaiters);
        assert_eq!(buddy.free_ignoring_waiters(first, order), FreeOutcome::Done);
    }
    buddy.clear_waiters_flags();
    let first = buddy.claim(0).unwrap();
    assert_eq!(buddy.free(first, 0), FreeOutcome::Done);
    buddy.debug_check(0);
}

#[test]
fn after_closing_each_word_drains_once() {
    let buddy = BuddyAllocator::new(12).unwrap();
    let held: Vec<_> = [0, 0, 3, 6, 6, 10, 4]
        .into_iter()
        .map(|order| (buddy.claim(order).unwrap(), order))
        .collect();
    let pending = buddy.word_count() - buddy.close();
    let drained = held
        .into_iter()
        .filter(|&(first, order)| buddy.free(first, order) == FreeOutcome::ArenaDrained)
        .count();
    assert_eq!(drained, pending);
    assert!(pending >= 3);
    let unused = BuddyAllocator::new(12).unwrap();
    assert_eq!(unused.close(), unused.word_count());
}

/// Returns the next number of a small generator: the churn costs nothing beside the claims.
fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

/// Claims and frees at random; `owners` shows any overlap.
fn churn(
    buddy: &BuddyAllocator,
    owners: &[AtomicU8],
    me: u8,
    seed: u64,
    steps: usize,
    orders: u64,
) {
    let mut random = seed | 1;
    let mut held: Vec<(u32, u32)> = Vec::new();
    let blocks = |first: u32, order: u32| &owners[first as usize..(first + (1 << order)) as usize];
    for _ in 0..steps {
        let roll = next(&mut random);
        if roll & 1 == 0 || held.is_empty() {
            let order = ((roll >> 8) % orders) as u32;
            if let Some(first) = buddy.claim(order) {
                for owner in blocks(first, order) {
                    assert_eq!(owner.swap(me, Ordering::Relaxed), 0, "block claimed twice");
                }
                held.push((first, order));
            }
        } else {
            let (first, order) = held.swap_remove((roll >> 8) as usize % held.len());
            for owner in blocks(first, order) {
                assert_eq!(owner.swap(0, Ordering::Relaxed), me, "block shared");
            }
            let _ = buddy.free(first, order);
        }
    }
    for (first, order) in held {
        for owner in blocks(first, order) {
            owner.store(0, Ordering::Relaxed);
        }
        let _ = buddy.free(first, order);
    }
}

#[test]
fn after_any_churn_of_four_threads_the_arena_is_whole() {
    let (rounds, steps) = if cfg!(miri) { (2, 12) } else { (3000, 120) };
    for round in 0..rounds {
        let max_order = [5, 6, 7, 9, 10, 11][round % 6];
        let buddy = BuddyAllocator::new(max_order).unwrap();
        let owners: Vec<_> = (0..1 << max_order).map(|_| AtomicU8::new(0)).collect();
        std::thread::scope(|scope| {
            for thread in 1..=4u8 {
                let (buddy, owners) = (&buddy, &owners);
                let seed = (round as u64 + 1) * 0x9E37_79B9 * u64::from(thread);
                scope.spawn(move || {
                    churn(buddy, owners, thread, seed, steps, u64::from(max_order) + 1);
                });
            }
        });
        buddy.debug_check(0);
        assert_eq!(buddy.claim(max_order), Some(0), "round {round}: the arena is not whole");
    }
}

/// A peer refuses a request that fits while other threads split and merge. Here three threads claim
/// at most a quarter of the arena each, so a smallest block always fits.
#[test]
fn a_smallest_block_is_never_refused_while_others_split_and_merge() {
    let max_order = 10;
    let buddy = BuddyAllocator::new(max_order).unwrap();
    let rounds = if cfg!(miri) { 50 } else { 200_000 };
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let buddy = &buddy;
            scope.spawn(move || {
                let mut random = thread * 77 + 1;
                for _ in 0..rounds {
                    let order = (next(&mut random) % 9) as u32;
                    if let Some(first) = buddy.claim(order) {
                        let _ = buddy.free(first, order);
                    } else {
                        assert!(order > 0, "a smallest block was refused");
                    }
                }
            });
        }
        for _ in 0..rounds {
            let first = buddy.claim(0).expect("a smallest block always fits");
            let _ = buddy.free(first, 0);
        }
    });
    buddy.debug_check(0);
}

/// Two threads move their holes about in an arena that always has one free block for each.
#[test]
fn a_hole_that_moves_is_still_found() {
    let buddy = BuddyAllocator::new(9).unwrap();
    let order = 4;
    let blocks = 1u32 << (9 - order);
    // All blocks are held but two: each thread frees one and claims one, so each always fits.
    let held: Vec<_> = (0..blocks - 1).map(|_| buddy.claim(order).unwrap()).collect();
    let rounds = if cfg!(miri) { 50 } else { 200_000 };
    let (left, right) = held.split_at(held.len() / 2);
    std::thread::scope(|scope| {
        for mine in [left, right] {
            let buddy = &buddy;
            let mut mine = mine.to_vec();
            scope.spawn(move || {
                for round in 0..rounds {
                    let slot = round % mine.len();
                    let _ = buddy.free(mine[slot], order);
                    mine[slot] = buddy.claim(order).expect("what this thread freed is free");
                }
            });
        }
    });
    buddy.debug_check(u64::from(blocks - 1) << order);
}
