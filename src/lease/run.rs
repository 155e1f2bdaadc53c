//! Runs: adjacent slots of one word that have one owner.
//!
//! A run is claimed by one exchange, and freed by one. It can be cut and joined while one value
//! owns it. Bytes that lie in several slots share a run by the count in its first header.
//!
//! # Safety
//!
//! Unsafe here: reaching the headers beside the first one, or through the address of bytes that are
//! lost, and making leases of single slots. The headers of a core's slots lie side by side, and
//! each is live while its slot is claimed.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;

#[cfg(not(uring_arena_loom))]
use super::core::Core;
use super::handle::Handle;
use super::header::{Header, HeaderLine, LINE, ZERO};
use super::holder_table::Place;
use super::lease::Lease;
#[cfg(not(uring_arena_loom))]
use super::registry;
#[cfg(not(uring_arena_loom))]
use crate::slots::Allocator;
use crate::slots::{SLOTS_PER_WORD, SlotRun};

/// The claim of one slot, or of several that are adjacent. Dropping it frees them.
// Invariants:
// 1. `first` is the header of a claimed slot of a fixed arena, and so are the `count - 1` headers
//    behind it. All are of one word.
// 2. No other lease or run has these slots, except between owners that share the run by the count
//    in its first header. The last of those alone drops the run.
pub(crate) struct Run {
    first: NonNull<Header>,
    count: u32,
}

// SAFETY: as a `Lease`: memory of the process with no tie to a thread.
unsafe impl Send for Run {}
// SAFETY: as above.
unsafe impl Sync for Run {}

impl Run {
    /// Claims up to `wanted` adjacent slots near the word `hint`, which becomes that of the run.
    /// Also returns the first byte and the index of the first slot.
    ///
    /// `None` proves nothing.
    pub(crate) fn claim(
        handle: &Handle,
        hint: &mut usize,
        wanted: u32,
        place: Place,
    ) -> Option<(Run, NonNull<u8>, u32)> {
        let SlotRun { first, count } = handle.allocator.slots().claim_run(hint, wanted)?;
        // SAFETY: just claimed, so the leases are the only ones.
        let run = unsafe { Run::own(handle, first, count, place) };
        Some((run, handle.slot_start(first), first))
    }

    /// Makes the owner of slots that were claimed together.
    ///
    /// # Safety
    ///
    /// The slots are claimed, of one word, have no lease, and are the caller's.
    unsafe fn own(handle: &Handle, first: u32, count: u32, place: Place) -> Run {
        // SAFETY: the caller's promise; leases that become pointers are not dropped.
        let header = |slot| unsafe { handle.granted_lease(slot, 0, place) }.into_raw();
        let run = Run { first: header(first), count };
        for slot in first + 1..first + count {
            header(slot);
        }
        run
    }

    /// Makes a run of one slot.
    #[inline]
    pub(crate) fn from_lease(lease: Lease) -> Run {
        debug_assert!(lease.header().has(LINE), "blocks do not run");
        Run { first: lease.into_raw(), count: 1 }
    }

    /// Returns the lease of a run of one slot, and longer runs as they are.
    #[inline]
    pub(crate) fn into_lease(self) -> Result<Lease, Run> {
        if self.count > 1 {
            return Err(self);
        }
        let this = ManuallyDrop::new(self);
        // SAFETY: the only slot of the run, which ends here.
        Ok(unsafe { Lease::from_raw(this.first) })
    }

    /// Returns the number of slots.
    #[inline]
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Returns the index of the first slot.
    pub(crate) fn index(&self) -> u32 {
        self.lease(0).index()
    }

    /// Returns the first byte of the first slot.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.lease(0).slot_start()
    }

    /// Returns the lease of one slot, to look at.
    #[inline]
    pub(crate) fn lease(&self, number: u32) -> ManuallyDrop<Lease> {
        // SAFETY: a header of the run. It is not dropped, and the run keeps its slot.
        ManuallyDrop::new(unsafe { Lease::from_raw(self.header(number)) })
    }

    fn leases(&self) -> impl Iterator<Item = ManuallyDrop<Lease>> {
        (0..self.count).map(|number| self.lease(number))
    }

    #[inline]
    fn header(&self, number: u32) -> NonNull<Header> {
        debug_assert!(number < self.count);
        // SAFETY: a header of the run (invariant 1), and those of slots are lines side by side.
        unsafe { self.first.cast::<HeaderLine>().add(number as usize) }.cast()
    }

    fn line(&self, number: u32) -> &HeaderLine {
        // SAFETY: the header of a slot begins a line, which lives while the slot is claimed.
        unsafe { self.header(number).cast::<HeaderLine>().as_ref() }
    }

    /// Cuts the run in two: keeps the first `at` slots, and returns the others.
    ///
    /// # Panics
    ///
    /// If either would be empty.
    pub(crate) fn split_off(&mut self, at: u32) -> Run {
        assert!(0 < at && at < self.count, "a run has a slot at least");
        let rest = Run { first: self.header(at), count: self.count - at };
        self.count = at;
        rest
    }

    /// Appends the slots of `next` if they lie behind these, in the same word. Returns `next`
    /// otherwise.
    pub(crate) fn join(&mut self, next: Run) -> Result<(), Run> {
        let (word, free) = self.line(0).prepared_free();
        let (next_word, next_free) = next.line(0).prepared_free();
        // The bits of a word are those of adjacent slots.
        if word != next_word || free.bit() + self.count != next_free.bit() {
            return Err(next);
        }
        self.count += ManuallyDrop::new(next).count;
        Ok(())
    }

    /// Returns whether the word has a slot behind these.
    pub(crate) fn has_next_in_word(&self) -> bool {
        let (_, free) = self.line(0).prepared_free();
        free.bit() + self.count < SLOTS_PER_WORD as u32
    }

    /// Records that all of each slot may have been written: `InitPolicy::Zero` scrubs it.
    pub(crate) fn record_written_whole(&self, slot_bytes: usize) {
        if self.lease(0).header().has(ZERO) {
            self.leases().for_each(|lease| lease.record_written(slot_bytes));
        }
    }

    /// Records that `len` bytes from a connection came into the slots whose claims are recorded.
    #[inline]
    pub(crate) fn record_receipt(&self, len: usize, connection: Option<u64>) {
        #[cfg(feature = "holders")]
        for lease in self.leases().filter(|lease| lease.header().is_tracked()) {
            lease.record_receipt(len.min(lease.slot_bytes()), connection);
        }
        #[cfg(not(feature = "holders"))]
        let _ = (len, connection);
    }

    /// Records a freeze of each slot.
    pub(crate) fn record_freeze(&self) {
        self.leases().for_each(|lease| lease.record_freeze());
    }

    /// Zeroes what may have been written, if the arena asks for it, for a claim that goes on with
    /// another owner.
    pub(crate) fn into_scrubbed(self) -> Run {
        debug_assert!(self.lease(0).header().is_unique());
        self.leases().for_each(|lease| lease.scrub_written());
        self
    }

    /// Leaks the slots, and the arena's memory with them: the kernel may still write there.
    pub(crate) fn quarantine(self) {
        self.mark_quarantined();
        std::mem::forget(self);
    }

    /// Counts the slots as lost, each once. The owner that calls this never drops its run.
    pub(crate) fn mark_quarantined(&self) {
        self.leases().for_each(|lease| lease.mark_quarantined());
    }

    /// Turns the run into a pointer, for a type that packs it, and records its length beside its
    /// slots.
    pub(crate) fn into_raw(self) -> NonNull<Header> {
        let this = ManuallyDrop::new(self);
        (0..this.count).for_each(|number| this.line(number).set_run(number, 0));
        this.line(0).set_run(0, this.count);
        this.first
    }

    /// Makes a run of a pointer.
    ///
    /// # Safety
    ///
    /// `first` came from [`into_raw`](Self::into_raw), and the run was not dropped since. If
    /// several owners share it, only the last of them drops the result.
    pub(crate) unsafe fn from_raw(first: NonNull<Header>) -> Run {
        // SAFETY: the header of a slot begins a line, which lives while the slot is claimed.
        let line = unsafe { first.cast::<HeaderLine>().as_ref() };
        Run { first, count: line.run_len() }
    }

    /// Frees the slots by one exchange of their word, if that is all there is to do.
    ///
    /// Returns `false` if nothing was freed.
    fn try_free_fast(&self) -> bool {
        if self.lease(0).header().has(ZERO) {
            return false;
        }
        #[cfg(uring_arena_loom)]
        self.leases().for_each(|lease| lease.header().bytes.with_mut(|_| ()));
        if cfg!(debug_assertions) {
            self.leases().for_each(|lease| lease.poison());
        }
        let (word, free) = self.line(0).prepared_free();
        // SAFETY: the first claim wrote the address of a word of the allocator, which lives while
        // the claims last.
        free.of_run(self.count).try_free_fast(unsafe { &*word })
    }

    /// Frees each slot by itself: it is scrubbed, or offered to those who wait.
    ///
    /// The waker of a claim that gets a slot may panic. The first panic goes on when all slots are
    /// free.
    #[cold]
    fn free_each(&self) {
        let mut first_panic = None;
        for lease in self.leases() {
            let lease = ManuallyDrop::into_inner(lease);
            let freed = catch_unwind(AssertUnwindSafe(|| drop(lease)));
            if let Err(panic) = freed {
                // The payload of a later panic may panic itself when it is dropped.
                match first_panic {
                    None => first_panic = Some(panic),
                    Some(_) => std::mem::forget(panic),
                }
            }
        }
        if let Some(panic) = first_panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // No longer what an address in these slots leads to.
        self.line(0).set_run(0, 0);
        if !self.try_free_fast() {
            self.free_each();
        }
    }
}

/// Returns the run that the slot of `line` is in, as its first slot's distance before `line` and
/// its number of slots. A slot that is in no run is one of its own.
///
/// # Safety
///
/// `header` begins the line of a slot of a fixed arena, and the caller owns a share of that slot.
pub(super) unsafe fn run_around(header: NonNull<Header>) -> (u32, u32) {
    let line = header.cast::<HeaderLine>();
    // SAFETY: the caller's share keeps the core live, and its header begins a line.
    let offset = unsafe { line.as_ref() }.run_offset();
    // SAFETY: a line of the same core: the offset was written when the slot was in a run that began
    // there.
    let first = unsafe { line.sub(offset as usize) };
    // An offset may be of a run that has ended. One that is there now and reaches this slot has it.
    // SAFETY: as above; a line is all atomics.
    let count = unsafe { first.as_ref() }.run_len();
    if count > offset { (offset, count) } else { (0, 1) }
}

/// Counts the slots of the owner of `address` as lost for good, each once: for bytes whose owner is
/// hidden behind `Bytes`. Does nothing if `address` lies in no arena.
///
/// # Safety
///
/// The caller owned a share of the slot that holds `address`, and never gives that share up.
#[cfg(not(uring_arena_loom))]
pub(crate) unsafe fn quarantine_at(address: usize) {
    // SAFETY: the caller's promise.
    let Some((pointer, slot, count)) = (unsafe { claim_at(address) }) else { return };
    for slot in slot..slot + count {
        // SAFETY: live, and the slot exists because it is claimed.
        let header = unsafe { Core::header_at(pointer, slot) };
        // SAFETY: headers live as long as the core, and are all atomics.
        if unsafe { header.as_ref() }.mark_quarantined() {
            // SAFETY: the share keeps this core live.
            unsafe { pointer.as_ref() }.count_quarantined(slot);
        }
    }
}

/// Returns the number of slots whose owner has `address`: 1, but for bytes that lie in several
/// slots. Memory of no arena counts as one slot, and so does a block.
///
/// # Safety
///
/// The caller owns a share of the slot that holds `address`, if it lies in an arena.
#[cfg(not(uring_arena_loom))]
pub(crate) unsafe fn slots_at(address: usize) -> usize {
    // SAFETY: the caller's promise.
    unsafe { claim_at(address) }.map_or(1, |(_, _, count)| count as usize)
}

/// Finds the claim that `address` lies in: its core, its first slot or smallest block, and the
/// number of its slots. Returns `None` if `address` lies in no arena.
///
/// # Safety
///
/// The caller owns a share of the slot that holds `address`.
#[cfg(not(uring_arena_loom))]
unsafe fn claim_at(address: usize) -> Option<(NonNull<Core>, u32, u32)> {
    let (core, offset) = registry::find(address)?;
    let pointer = core.cast::<Core>();
    // SAFETY: the table names cores that exist, and the share keeps this one live.
    let core = unsafe { pointer.as_ref() };
    let index = (offset / core.slot_bytes) as u32;
    match &core.allocator {
        Allocator::Slots(_) => {
            // SAFETY: live, and the slot exists because it is claimed.
            let header = unsafe { Core::header_at(pointer, index) };
            // SAFETY: the header of a slot, of which the caller has a share.
            let (before, count) = unsafe { run_around(header) };
            Some((pointer, index - before, count))
        }
        Allocator::Blocks(buddy) => {
            // The header of a block is that of its first smallest block.
            // SAFETY: live, and the allocator has only indices that have headers.
            let header_at = |first| unsafe { Core::header_at(pointer, first) };
            // SAFETY: headers live as long as the core, and are all atomics.
            let order_at = |first| unsafe { header_at(first).as_ref() }.order().into();
            Some((pointer, buddy.block_around(index, order_at).unwrap_or(index), 1))
        }
    }
}

#[cfg(all(test, not(uring_arena_loom)))]
mod tests {
    use std::num::NonZeroUsize;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::buffer::ArenaBytes;
    use crate::{FixedArena, InitPolicy};

    fn arena(slots: usize, policy: InitPolicy) -> FixedArena {
        let nz = |n| NonZeroUsize::new(n).unwrap();
        FixedArena::with_slot_capacity(nz(slots), nz(16)).init_policy(policy).build().unwrap()
    }

    fn claim(arena: &FixedArena, wanted: u32) -> Option<Run> {
        Run::claim(arena.handle(), &mut 0, wanted, Place::here()).map(|(run, ..)| run)
    }

    /// Makes bytes of all of a run, which hold its slots' numbers.
    fn bytes(run: Run) -> ArenaBytes {
        let (start, len) = (run.start(), run.count() as usize * 16);
        for at in 0..len {
            // SAFETY: inside the run's slots.
            let byte = unsafe { start.add(at) };
            // SAFETY: the run owns these bytes.
            unsafe { byte.write((run.index() as usize + at / 16) as u8) };
        }
        run.record_written_whole(16);
        // SAFETY: written just now, and the run moves into the bytes.
        unsafe { ArenaBytes::from_run(run, start, len) }
    }

    /// Loses bytes as an operation does that the kernel has for ever.
    fn lose(bytes: Bytes) {
        let address = bytes.as_ptr().addr();
        std::mem::forget(bytes);
        // SAFETY: the share of these bytes was just forgotten.
        unsafe { quarantine_at(address) };
    }

    #[test]
    #[cfg_attr(miri, ignore = "loses bytes on purpose, and Miri finds what is lost")]
    fn lost_bytes_of_several_slots_count_each_slot_once() {
        let arena = arena(40, InitPolicy::Uninit);
        let first = Bytes::from(bytes(claim(&arena, 5).unwrap()));
        let other = claim(&arena, 3).unwrap();
        lose(first.slice(35..));
        assert_eq!(arena.metrics().quarantined, 5);
        lose(first);
        assert_eq!(arena.metrics().quarantined, 5);
        drop(other);
        // A slot that was in a run once is a slot of its own again.
        let held: Vec<_> = (0..35).map(|_| arena.allocate().unwrap().freeze()).collect();
        assert!(held.iter().all(Bytes::is_empty));
        let mut single = arena.allocate().unwrap();
        bytes::BufMut::put_u8(&mut single, 1);
        lose(single.freeze());
        assert_eq!(arena.metrics().quarantined, 6);
    }

    #[test]
    fn runs_join_only_their_neighbours_in_a_word() {
        let arena = arena(64, InitPolicy::Uninit);
        let mut run = claim(&arena, 30).unwrap();
        let next = claim(&arena, 2).unwrap();
        let other_word = claim(&arena, 4).unwrap();
        let other_word = run.join(other_word).unwrap_err();
        assert!(run.has_next_in_word());
        run.join(next).map_err(|_| ()).unwrap();
        assert!(!run.has_next_in_word());
        assert!(run.join(other_word).is_err());
        assert_eq!((run.count(), run.index()), (32, 0));
        let back = run.split_off(7);
        drop(run);
        assert_eq!((back.index(), back.count(), arena.metrics().bytes_live), (7, 25, 25 * 16));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Claim(u32),
        Single,
        Split(usize, u32),
        Join(usize, usize),
        Freeze(usize),
        Slice(usize),
        DropRun(usize),
        DropBytes(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let any = any::<usize>;
        prop_oneof![
            (1..40u32).prop_map(Step::Claim),
            Just(Step::Single),
            (any(), 1..32u32).prop_map(|(which, at)| Step::Split(which, at)),
            (any(), any()).prop_map(|(which, other)| Step::Join(which, other)),
            any().prop_map(Step::Freeze),
            any().prop_map(Step::Slice),
            any().prop_map(Step::DropRun),
            any().prop_map(Step::DropBytes),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 1 } else { 256 },
            ..ProptestConfig::default()
        })]

        /// Claims, cuts, joins, shares and frees runs at random: each slot has one owner, no bytes
        /// that are held change, and all slots are free in the end.
        #[test]
        fn each_slot_of_a_run_has_one_owner(
            zero: bool,
            steps in prop::collection::vec(step(), 1..if cfg!(miri) { 8 } else { 150 }),
        ) {
            let policy = if zero { InitPolicy::Zero } else { InitPolicy::Uninit };
            let arena = arena(70, policy);
            let (mut runs, mut held) = (Vec::<Run>::new(), Vec::<ArenaBytes>::new());
            let mut hint = 0;
            for step in steps {
                match step {
                    Step::Claim(wanted) => {
                        let place = Place::here();
                        let run = Run::claim(arena.handle(), &mut hint, wanted, place);
                        runs.extend(run.map(|run| run.0));
                    }
                    Step::Single => {
                        let slot = arena.handle().claim_slot(Place::here());
                        runs.extend(slot.map(|(lease, _)| Run::from_lease(lease)));
                    }
                    Step::Split(which, at) if !runs.is_empty() => {
                        let which = which % runs.len();
                        if at < runs[which].count() {
                            let rest = runs[which].split_off(at);
                            runs.push(rest);
                        }
                    }
                    Step::Join(which, other) if runs.len() > 1 => {
                        let other = runs.swap_remove(other % runs.len());
                        let which = which % runs.len();
                        if let Err(other) = runs[which].join(other) {
                            runs.push(other);
                        }
                    }
                    Step::Freeze(which) if !runs.is_empty() => {
                        held.push(bytes(runs.swap_remove(which % runs.len())));
                    }
                    Step::Slice(which) if !held.is_empty() => {
                        let bytes = &held[which % held.len()];
                        held.push(bytes.slice(bytes.len() / 2..));
                    }
                    Step::DropRun(which) if !runs.is_empty() => {
                        drop(runs.swap_remove(which % runs.len()));
                    }
                    Step::DropBytes(which) if !held.is_empty() => {
                        drop(held.swap_remove(which % held.len()));
                    }
                    _ => {}
                }
                let slots = |first: u32, count: u32| (first..first + count).collect::<Vec<_>>();
                let mut owned: Vec<u32> = held
                    .iter()
                    .flat_map(|bytes| {
                        slots(bytes.slot_index().unwrap(), bytes.slot_count() as u32)
                    })
                    .collect();
                owned.sort_unstable();
                owned.dedup();
                let frozen = owned.len();
                owned.extend(runs.iter().flat_map(|run| slots(run.index(), run.count())));
                let all = owned.len();
                owned.sort_unstable();
                owned.dedup();
                let states = arena.slot_states();
                prop_assert_eq!((owned.len(), states.free), (all, 70 - all));
                prop_assert_eq!((states.frozen, states.held), (frozen, all - frozen));
                for bytes in &held {
                    let last = bytes.slot_index().unwrap() as usize + bytes.slot_count();
                    prop_assert_eq!(bytes.last().map_or(last - 1, |&byte| byte as usize), last - 1);
                }
            }
            drop((runs, held));
            prop_assert_eq!(arena.slot_states().free, 70);
            if zero {
                let all: Vec<_> = (0..70).map(|_| arena.allocate().unwrap()).collect();
                for mut buffer in all {
                    // SAFETY: all of a slot is initialised under `InitPolicy::Zero`.
                    unsafe { buffer.set_len(16) };
                    prop_assert_eq!(&buffer[..], &[0; 16]);
                }
            }
        }
    }
}
