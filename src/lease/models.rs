//! The models of ownership: one for each race of a lease, of its bytes, and of the end of an arena,
//! named after it, over the code that ships.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BufMut;
use loom::future::block_on;
use loom::thread;

use super::{Lease, Place, Run, Trim, TrimObstacle, UnreadSlots, WaitForSlot};
use crate::sync::{Arc, Mutex, set_thread_index};
use crate::{ArenaBytes, Buffer, Dealloc, FixedArena, LocalArena, SlotSpec};

const SLOT_BYTES: usize = 8;

/// A count of the times that the memory was given back. The count lies outside of the model: each
/// run starts at zero.
struct Count(&'static AtomicUsize);

// SAFETY: the memory is static; only a number changes.
unsafe impl Dealloc for Count {
    unsafe fn dealloc(self, _: *mut u8, _: usize) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Runs `body` in every order of its threads, with an arena of `slots` slots. Asserts that the
/// memory was given back once at the end of each run.
fn model(slots: usize, body: impl Fn(FixedArena) + Send + Sync + 'static) {
    let freed: &'static AtomicUsize = Box::leak(Box::default());
    let memory = Box::leak(vec![0u8; slots * SLOT_BYTES].into_boxed_slice());
    let (start, len) = (memory.as_mut_ptr().expose_provenance(), memory.len());
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 100_000;
    builder.check(move || {
        freed.store(0, Ordering::SeqCst);
        let memory = std::ptr::with_exposed_provenance_mut(start);
        let spec = SlotSpec::Size(NonZeroUsize::new(SLOT_BYTES).unwrap());
        let arena =
            // SAFETY: leaked memory, used by one arena at a time: a run ends with the arena gone.
            unsafe { FixedArena::from_raw(memory, len, spec, Count(freed)) }.build().unwrap();
        body(arena);
        assert_eq!(freed.load(Ordering::SeqCst), 1, "the memory is given back exactly once");
    });
}

fn filled(arena: &FixedArena, value: u8) -> Buffer {
    let mut buffer = arena.allocate().unwrap();
    buffer.put_u8(value);
    buffer
}

fn bytes(arena: &FixedArena) -> ArenaBytes {
    filled(arena, 1).freeze_in_place()
}

#[test]
fn the_last_handle_against_the_last_frees() {
    // 33 slots are two words; a buffer in each.
    model(33, |arena| {
        let mut held: Vec<Buffer> = (0..33).map(|_| arena.allocate().unwrap()).collect();
        let second_word = held.pop().unwrap();
        let first_word = held.pop().unwrap();
        drop(held);
        let one = thread::spawn(move || drop(first_word));
        let two = thread::spawn(move || drop(second_word));
        drop(arena);
        one.join().unwrap();
        two.join().unwrap();
    });
}

#[test]
fn two_last_frees_of_a_closed_arena() {
    model(2, |arena| {
        let (one, two) = (filled(&arena, 1), filled(&arena, 2));
        drop(arena);
        let one = thread::spawn(move || drop(one));
        drop(two);
        one.join().unwrap();
    });
}

#[test]
fn the_last_handle_against_a_claim_and_free() {
    model(1, |arena| {
        let other = arena.clone();
        let thread = thread::spawn(move || {
            drop(filled(&other, 1));
            drop(other);
        });
        drop(arena);
        thread.join().unwrap();
    });
}

#[test]
fn a_free_against_a_claim_of_the_same_slot() {
    model(1, |arena| {
        let held = bytes(&arena);
        let other = arena.clone();
        let thread = thread::spawn(move || {
            set_thread_index(1);
            if let Ok(mut buffer) = other.allocate() {
                buffer.put_u8(2);
                assert_eq!(buffer.freeze_in_place(), [2][..]);
            }
        });
        assert_eq!(held, [1][..]);
        drop(held);
        thread.join().unwrap();
    });
}

#[test]
fn a_clone_of_bytes_against_the_last_drop() {
    model(1, |arena| {
        let mine = bytes(&arena);
        let theirs = mine.clone();
        drop(arena);
        let thread = thread::spawn(move || {
            let copy = theirs.clone();
            drop(theirs);
            assert_eq!(copy, [1][..]);
        });
        assert_eq!(mine, [1][..]);
        drop(mine);
        thread.join().unwrap();
    });
}

#[test]
fn a_thaw_against_the_drop_of_the_other_owner() {
    model(1, |arena| {
        let mine = bytes(&arena);
        let theirs = mine.clone();
        let thread = thread::spawn(move || {
            assert_eq!(theirs, [1][..]);
            drop(theirs);
        });
        // A sole owner writes: the reads of the other owner must have happened before.
        if let Ok(mut buffer) = mine.try_into_buffer() {
            buffer.put_u8(2);
        }
        thread.join().unwrap();
        drop(arena);
    });
}

fn claim(arena: &FixedArena) -> Option<Lease> {
    let (lease, _) = arena.handle().claim_slot(Place::here())?;
    Some(lease)
}

/// Claims as a task does.
fn claim_waiting(arena: &FixedArena) -> Lease {
    let free = arena.handle().try_claim_slot(Place::here()).map(|(lease, _)| lease);
    free.unwrap_or_else(|| {
        WaitForSlot::claim_or_join(arena.handle(), 0, Place::here())
            .unwrap_or_else(|wait| block_on(wait))
    })
}

#[test]
fn a_lease_that_waits_against_a_free() {
    model(1, |arena| {
        let held = claim(&arena).unwrap();
        let waiter = arena.clone();
        let thread = thread::spawn(move || drop(claim_waiting(&waiter)));
        drop(held);
        thread.join().unwrap();
    });
}

/// A ring and a task wait for one slot: the ring is handed the slot, whatever a newcomer does.
#[test]
fn a_ring_and_a_task_wait_for_one_slot() {
    model(1, |arena| {
        let held = claim(&arena).unwrap();
        let ring = WaitForSlot::join(arena.handle(), 0, Place::here());
        let waiter = arena.clone();
        let task = thread::spawn(move || drop(claim_waiting(&waiter)));
        let freeing = thread::spawn(move || drop(held));
        let posted = block_on(ring);
        assert!(claim(&arena).is_none(), "the slot is the ring's");
        drop(posted);
        task.join().unwrap();
        freeing.join().unwrap();
    });
}

/// The flag is still set when nobody waits any more, and the last handle goes while slots are
/// freed.
#[test]
fn the_last_handle_against_frees_with_a_stale_flag() {
    model(2, |arena| {
        let (first, second) = (claim(&arena).unwrap(), claim(&arena).unwrap());
        drop(WaitForSlot::join(arena.handle(), 0, Place::here()));
        let freeing = thread::spawn(move || drop(first));
        let other = thread::spawn(move || drop(second));
        drop(arena);
        freeing.join().unwrap();
        other.join().unwrap();
    });
}

/// A waiter's own handle is the last one: the waiter leaves while the slot is on its way.
#[test]
fn the_last_handle_of_a_waiter_against_its_grant() {
    model(1, |arena| {
        let held = claim(&arena).unwrap();
        let wait = WaitForSlot::join(arena.handle(), 0, Place::here());
        drop(arena);
        let freeing = thread::spawn(move || drop(held));
        drop(wait);
        freeing.join().unwrap();
    });
}

/// A slot is freed elsewhere while its owner claims: the owner finds it, now or later.
#[test]
fn a_free_elsewhere_against_claims_of_a_batch() {
    model(1, |arena| {
        let local = LocalArena::new(&arena, 1);
        let mut buffer = local.allocate().unwrap();
        buffer.put_u8(1);
        let bytes = buffer.freeze_in_place();
        let freeing = thread::spawn(move || {
            set_thread_index(1);
            assert_eq!(bytes[0], 1);
            drop(bytes);
        });
        let early = local.allocate().ok();
        freeing.join().unwrap();
        let late = if early.is_none() { local.allocate().ok() } else { None };
        let mut buffer = early.or(late).expect("the slot came back");
        buffer.put_u8(2);
        drop(buffer);
        assert_eq!(local.counts(), (1, 1));
    });
}

/// The batch ends while its slots are freed elsewhere: each is the arena's, and the memory of the
/// batch goes once.
#[test]
fn the_end_of_a_batch_against_frees_elsewhere() {
    model(2, |arena| {
        let local = LocalArena::new(&arena, 2);
        let (first, second) = (local.allocate().unwrap(), local.allocate().unwrap());
        let freeing = |buffer: Buffer, index| {
            thread::spawn(move || {
                set_thread_index(index);
                drop(buffer);
            })
        };
        let (one, other) = (freeing(first, 1), freeing(second, 2));
        drop(local);
        one.join().unwrap();
        other.join().unwrap();
        assert_eq!(arena.slot_states().free, 2);
    });
}

/// Idle slots are given back while another comes back.
#[test]
fn giving_back_against_a_free_elsewhere() {
    model(2, |arena| {
        let local = LocalArena::new(&arena, 2);
        let buffer = local.allocate().unwrap();
        let freeing = thread::spawn(move || {
            set_thread_index(1);
            drop(buffer);
        });
        let given = local.give_back();
        freeing.join().unwrap();
        assert_eq!(given + local.give_back(), 2);
        assert_eq!(arena.slot_states().free, 2);
    });
}

/// Claims both slots of an arena as one run, and makes bytes of them.
fn bytes_of_a_run(arena: &FixedArena) -> ArenaBytes {
    let (run, start, _) = Run::claim(arena.handle(), &mut 0, 2, Place::here()).unwrap();
    // SAFETY: the run owns these bytes.
    unsafe { start.write_bytes(1, 2 * SLOT_BYTES) };
    // SAFETY: written just now, and the run moves into the bytes.
    unsafe { ArenaBytes::from_run(run, start, 2 * SLOT_BYTES) }
}

#[test]
fn a_clone_of_bytes_in_two_slots_against_the_last_drop() {
    model(2, |arena| {
        let mine = bytes_of_a_run(&arena);
        let theirs = mine.slice(SLOT_BYTES..);
        drop(arena);
        let thread = thread::spawn(move || {
            let copy = theirs.clone();
            drop(theirs);
            assert_eq!(copy, [1; SLOT_BYTES][..]);
        });
        assert_eq!(mine, [1; 2 * SLOT_BYTES][..]);
        drop(mine);
        thread.join().unwrap();
    });
}

#[test]
fn a_free_of_two_slots_against_a_claim_of_either() {
    model(2, |arena| {
        let held = bytes_of_a_run(&arena);
        let other = arena.clone();
        let thread = thread::spawn(move || {
            set_thread_index(1);
            if let Some((run, ..)) = Run::claim(other.handle(), &mut 0, 2, Place::here()) {
                assert_eq!(run.count(), 2, "both are free at once");
            }
            if let Ok(mut buffer) = other.allocate() {
                buffer.put_u8(2);
                assert_eq!(buffer.freeze_in_place(), [2][..]);
            }
        });
        drop(held);
        thread.join().unwrap();
    });
}

/// Somebody waits for a slot while two are freed at once: it is served, whichever way the free
/// goes.
#[test]
fn a_wait_against_a_free_of_two_slots() {
    model(2, |arena| {
        let held = bytes_of_a_run(&arena);
        let waiter = arena.clone();
        let thread = thread::spawn(move || drop(claim_waiting(&waiter)));
        drop(held);
        thread.join().unwrap();
        drop(Run::claim(arena.handle(), &mut 0, 2, Place::here()).expect("both slots are free"));
    });
}

/// Copies are charged by two threads at once: no more than the limit, and nothing is left.
#[test]
fn two_charges_against_a_limit() {
    model(1, |arena| {
        let other = arena.clone();
        let thread = thread::spawn(move || {
            let charge = other.handle().copied.charge(6, 10);
            assert!(other.handle().copied.live() <= 10);
            charge.is_some()
        });
        let mine = arena.handle().copied.charge(6, 10);
        let kept = mine.is_some();
        drop(mine);
        assert!(thread.join().unwrap() || kept);
        assert_eq!(arena.handle().copied.live(), 0);
    });
}

/// Pages are given back while no registration has them, and no claim. All slots are free again.
#[test]
fn a_trim_against_a_registration_and_a_claim() {
    model(2, |arena| {
        let other = arena.clone();
        let thread = thread::spawn(move || {
            set_thread_index(1);
            let handle = other.handle();
            Trim(handle).pin();
            // Stands for the kernel, which has the pages of every slot, free or not.
            (0..2).for_each(|slot| handle.with_bytes_of(slot, || ()));
            Trim(handle).unpin();
            if let Ok(mut buffer) = other.allocate() {
                buffer.put_u8(2);
                assert_eq!(buffer.freeze_in_place(), [2][..]);
            }
        });
        let report = arena.trim();
        let registered = TrimObstacle::Registered { registrations: 1 };
        assert!(report.obstacle.is_none_or(|obstacle| obstacle == registered));
        thread.join().unwrap();
        assert!(arena.trim().obstacle.is_none());
        drop((arena.allocate().unwrap(), arena.allocate().unwrap()));
    });
}

/// A claim that finds the only slot taken by a trim waits, and is served.
#[test]
fn a_trim_against_a_wait() {
    model(1, |arena| {
        let waiter = arena.clone();
        let thread = thread::spawn(move || {
            set_thread_index(1);
            drop(claim_waiting(&waiter));
        });
        assert!(arena.trim().obstacle.is_none());
        thread.join().unwrap();
        drop(arena.allocate().unwrap());
    });
}

/// A high-water mark that two threads note is the higher of the two.
#[test]
fn two_notes_of_a_high_water_mark() {
    model(2, |arena| {
        let other = arena.clone();
        let thread = thread::spawn(move || other.handle().note_live_count(2));
        arena.handle().note_live_count(1);
        thread.join().unwrap();
        assert_eq!(arena.handle().live_max(), 2);
    });
}

/// One thread receives into slots that two others take: no count runs below zero, the share is
/// never exceeded, and in the end all of it is there again.
#[test]
fn one_receiver_against_two_takers_of_unread_slots() {
    loom::model(|| {
        let unread = Arc::new(UnreadSlots::new(6));
        // The messages that are received and not taken, as the lock of a queue passes them on.
        let received = Arc::new([Mutex::new(0), Mutex::new(0)]);
        let takers = [0, 1].map(|stream| {
            let (unread, received) = (unread.clone(), received.clone());
            thread::spawn(move || {
                let taken = std::mem::take(&mut *received[stream].lock());
                unread.sub(taken);
            })
        });
        for stream in [0, 1, 0] {
            let mut held = received[stream].lock();
            if unread.allows(*held + 1) {
                *held += 1;
                unread.add(1);
            }
            assert!(*held <= 2, "a third of the slots");
        }
        takers.into_iter().for_each(|taker| taker.join().unwrap());
        received.iter().for_each(|held| unread.sub(std::mem::take(&mut *held.lock())));
        assert!(unread.allows(3) && !unread.allows(4), "all slots are left");
    });
}
