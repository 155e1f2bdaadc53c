//! A fake kernel that completes in every order and with every error, against the buffer ring.
//!
//! After each step ownership must add up: every slot is free, posted, spare or held by the user;
//! and the bytes handed out are those that the fake kernel wrote.
//!
//! # Safety
//!
//! Unsafe here: handing completions to the ring, reading its entries and writing to the slots that
//! it has posted, as a kernel would.
#![allow(unsafe_code)]

use std::collections::HashMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::entries::RingEntry;
use super::ring::BufferRing;
use super::{BufferRingOptions, Status};
use crate::buffer::ArenaBytes;
use crate::{FixedArena, InitPolicy};

const SLOT_BYTES: usize = 32;

/// One step of kernel or user.
#[derive(Debug, Clone)]
enum Step {
    Receive {
        len: usize,
        bundle: bool,
        more: bool,
    },
    Select,
    CompleteSelected {
        which: usize,
        result: i32,
    },
    /// The cancel of a worker thread whose completion names no buffer.
    LoseSelected {
        which: usize,
    },
    Error {
        errno: i32,
    },
    Foreign {
        id: u16,
        result: i32,
    },
    Refill,
    /// Entries have `1 << shift` slots from now on.
    Lengthen {
        shift: u32,
    },
    /// A bundle that brought nothing has made the next entry shorter.
    Shorten {
        bytes: u32,
    },
    /// The group is unregistered, and `selects` receives select a slot between the question how far
    /// the kernel came and the end of the group.
    Detach {
        selects: usize,
    },
    /// The slots of the group are freed, once every receive that might have one has ended.
    Release,
    /// The group is registered again.
    Attach,
    Drop {
        which: usize,
    },
    Share {
        which: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let errno = prop_oneof![
        Just(libc::ENOBUFS),
        Just(libc::ECANCELED),
        Just(libc::ECONNRESET),
        Just(libc::EINTR),
        Just(libc::EFAULT),
        Just(0)
    ];
    let result =
        prop_oneof![1..=SLOT_BYTES as i32, Just(0), errno.clone().prop_map(|errno| -errno)];
    prop_oneof![
        6 => (1..200usize, any::<bool>(), any::<bool>())
            .prop_map(|(len, bundle, more)| Step::Receive { len, bundle, more }),
        2 => Just(Step::Select),
        3 => (any::<usize>(), result.clone())
            .prop_map(|(which, result)| Step::CompleteSelected { which, result }),
        1 => any::<usize>().prop_map(|which| Step::LoseSelected { which }),
        1 => errno.prop_map(|errno| Step::Error { errno }),
        1 => (any::<u16>(), result).prop_map(|(id, result)| Step::Foreign { id, result }),
        4 => Just(Step::Refill),
        2 => (0..5u32).prop_map(|shift| Step::Lengthen { shift }),
        1 => (1..SLOT_BYTES as u32).prop_map(|bytes| Step::Shorten { bytes }),
        1 => (0..3usize).prop_map(|selects| Step::Detach { selects }),
        2 => Just(Step::Release),
        2 => Just(Step::Attach),
        5 => any::<usize>().prop_map(|which| Step::Drop { which }),
        2 => any::<usize>().prop_map(|which| Step::Share { which }),
    ]
}

struct World {
    arena: FixedArena,
    ring: BufferRing,
    kernel: FakeKernel,
    /// The bytes that the user holds, each with its expected content.
    held: Vec<(ArenaBytes, Vec<u8>)>,
}

impl World {
    fn new(slots: usize, options: BufferRingOptions, zero: bool) -> World {
        let nz = |n| std::num::NonZeroUsize::new(n).unwrap();
        let policy = if zero { InitPolicy::Zero } else { InitPolicy::Uninit };
        let arena = FixedArena::with_slot_capacity(nz(slots), nz(SLOT_BYTES))
            .init_policy(policy)
            .build()
            .unwrap();
        let mut ring = BufferRing::unregistered(&arena, options).unwrap();
        let kernel = FakeKernel::new(&ring);
        ring.refill();
        World { arena, ring, kernel, held: Vec::new() }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Receive { len, bundle, more } => {
                let (result, flags, bytes) = self.kernel.receive(len, bundle);
                let more = more && result > 0;
                let status = self.complete(result, flags | if more { F_MORE } else { 0 }, bytes);
                assert_eq!(status == Status::Armed, more);
                assert_eq!(status == Status::Starved, result == -libc::ENOBUFS);
            }
            Step::Select => self.kernel.select(),
            Step::CompleteSelected { which, result } => {
                if let Some((result, flags, bytes)) = self.kernel.complete_selected(which, result) {
                    self.complete(result, flags, bytes);
                }
            }
            Step::LoseSelected { which } => {
                if self.kernel.lose_selected(which) {
                    self.complete(-libc::ECANCELED, 0, Vec::new());
                }
            }
            Step::Error { errno } => {
                self.complete(-errno, 0, Vec::new());
            }
            Step::Foreign { id, result } => {
                // The contract excludes an id that was posted.
                if self.ring.posted.find(id).is_none() {
                    let before = self.ring.metrics.unmatched_completions;
                    self.complete(result, F_BUFFER | u32::from(id) << 16, Vec::new());
                    assert_eq!(self.ring.metrics.unmatched_completions, before + 1);
                }
            }
            Step::Refill => {
                self.ring.refill();
            }
            Step::Lengthen { shift } if !self.ring.incremental => {
                self.ring.depth.set_run(1 << shift);
            }
            Step::Shorten { bytes } if self.ring.bundles => self.kernel.shorten(bytes),
            Step::Lengthen { .. } | Step::Shorten { .. } => {}
            Step::Detach { selects } => self.detach(selects),
            Step::Release if self.ring.detached.is_some() && self.kernel.selected.is_empty() => {
                self.release();
            }
            Step::Attach if self.ring.entries.is_none() && self.ring.detached.is_none() => {
                self.attach();
            }
            Step::Release | Step::Attach => {}
            Step::Drop { which } if !self.held.is_empty() => {
                drop(self.held.swap_remove(which % self.held.len()));
            }
            Step::Share { which } if !self.held.is_empty() => {
                let (bytes, expected) = &self.held[which % self.held.len()];
                let at = bytes.len() / 2;
                let half = (bytes.slice(at..), expected[at..].to_vec());
                self.held.push(half);
            }
            Step::Drop { .. } | Step::Share { .. } => {}
        }
        self.check();
    }

    fn detach(&mut self, selects: usize) {
        if self.ring.entries.is_none() {
            return;
        }
        let head = self.kernel.head;
        (0..selects).for_each(|_| self.kernel.select());
        self.kernel.is_detached = true;
        self.ring.detach(Some(head));
    }

    /// Frees what no completion named: then nobody has a slot but the user.
    fn release(&mut self) {
        // SAFETY: the fake kernel has completed each receive that selected a slot.
        unsafe { self.ring.finish_unregister() };
        assert_eq!((self.ring.slot_count(), self.ring.count()), (0, 0));
        // Those that were selected in the last moment, and lost, are freed without being counted.
        let unreported = self.ring.metrics().unreported_slots;
        assert!(unreported <= self.kernel.lost, "{unreported} of {}", self.kernel.lost);
        self.kernel.lost = unreported;
    }

    fn attach(&mut self) {
        self.ring.attach().unwrap();
        self.kernel.attach(&self.ring);
        self.ring.refill();
        let free = self.arena.slot_states().free;
        assert!(self.ring.posted.len() > 0 || free == 0, "a ring without a slot beside free ones");
    }

    fn complete(&mut self, result: i32, flags: u32, expected: Vec<u8>) -> Status {
        // SAFETY: the fake kernel completes each receive once.
        let (mut remaining, status) = unsafe { self.ring.begin_completion(result, flags) };
        let mut at = 0;
        while let Some(bytes) = self.ring.take::<ArenaBytes>(&mut remaining) {
            let part = expected[at..at + bytes.len()].to_vec();
            at += bytes.len();
            self.held.push((bytes, part));
        }
        assert_eq!(at, expected.len(), "bytes were lost");
        status
    }

    /// Checks that each slot has one owner, and that no bytes that were handed out have changed.
    fn check(&self) {
        for (bytes, expected) in &self.held {
            assert_eq!(bytes, &expected[..]);
        }
        let mut out: Vec<u32> = self.held.iter().flat_map(|(bytes, _)| slots_of(bytes)).collect();
        // A slot of an incremental ring may be the user's and the ring's.
        out.extend(self.ring.posted.ids().map(u32::from));
        out.sort_unstable();
        if !self.ring.incremental {
            let posted: Vec<u32> = self.ring.posted.ids().map(u32::from).collect();
            let is_posted = |slot: u32| posted.contains(&slot);
            assert!(!self.held.iter().flat_map(|(bytes, _)| slots_of(bytes)).any(is_posted));
        }
        out.dedup();
        let live = self.arena.metrics().bytes_live / SLOT_BYTES;
        let spare = self.ring.slot_count() - self.ring.posted.len();
        assert_eq!(live, out.len() + spare, "a slot has no owner, or two");
    }

    /// Reconciles once every receive has ended: exactly the buffers that the kernel lost are found,
    /// and the ring is whole again.
    fn reconcile(&mut self) {
        while let Some((result, flags, bytes)) = self.kernel.complete_selected(0, -libc::ECANCELED)
        {
            self.complete(result, flags, bytes);
        }
        if self.ring.entries.is_none() {
            if self.ring.detached.is_some() {
                self.release();
            }
            return;
        }
        let before = self.ring.posted.len();
        let reported = self.ring.metrics().unreported_slots;
        let taken = self.ring.take_unreported(self.kernel.head);
        assert_eq!(reported + taken as u64, self.kernel.lost);
        assert_eq!(self.ring.metrics().unreported_slots, self.kernel.lost);
        assert_eq!(self.ring.posted.len(), before - taken);
        let entries = self.ring.entries_ready();
        assert_eq!(entries, usize::from(self.kernel.posted()), "both count the same");
        self.check();
        // Every position can be posted to again, up to the limit.
        self.ring.refill();
        let (depth, run) = (self.ring.depth.slots, self.ring.depth.run());
        let is_full = self.ring.posted.taken() + run > depth;
        assert!(is_full || self.arena.slot_states().free == 0);
        self.check();
    }

    /// Drops ring and user's bytes in either order, the ring unregistered or not.
    fn end(mut self, unregistered: bool, user_first: bool) {
        if user_first {
            self.held.clear();
        }
        if unregistered {
            self.reconcile();
        }
        let posted = self.ring.posted.len();
        if !unregistered && self.ring.entries.is_some() {
            self.ring.registered = true;
        }
        drop(self.ring);
        for (bytes, expected) in self.held {
            let bytes = Bytes::from(bytes);
            assert_eq!(bytes, expected);
        }
        let metrics = self.arena.metrics();
        let lost = if unregistered { 0 } else { posted };
        assert_eq!((metrics.bytes_live / SLOT_BYTES, metrics.quarantined as usize), (lost, lost));
    }
}

proptest! {
    #[test]
    fn ownership_adds_up_whatever_the_kernel_does(
        slots in 1..70usize,
        entries_shift in 0..7u32,
        incremental: bool,
        bundles: bool,
        zero: bool,
        copy_below in prop_oneof![Just(0usize), 1..SLOT_BYTES + 2],
        steps in prop::collection::vec(step(), 1..120),
        unregistered: bool,
        user_first: bool,
    ) {
        let options = BufferRing::options()
            .entries(1 << entries_shift)
            .incremental(incremental)
            .bundles(bundles)
            .copy_below(copy_below);
        let mut world = World::new(slots, options, zero);
        for step in steps {
            world.run(step);
        }
        world.end(unregistered, user_first);
    }
}

/// Returns the slots that bytes keep.
fn slots_of(bytes: &ArenaBytes) -> impl Iterator<Item = u32> {
    let count = bytes.slot_count() as u32;
    bytes.slot_index().into_iter().flat_map(move |first| first..first + count)
}

pub(super) const F_BUFFER: u32 = 1;
pub(super) const F_MORE: u32 = 2;
const F_BUF_MORE: u32 = 16;

/// The kernel's side of a buffer ring.
pub(super) struct FakeKernel {
    entries: *mut RingEntry,
    pub(super) count: u16,
    pub(super) head: u16,
    incremental: bool,
    /// The buffers that worker threads of the kernel selected and did not complete yet.
    selected: Vec<Selected>,
    /// The number of buffers that were selected and named in no completion.
    pub(super) lost: u64,
    /// The group was unregistered: nothing more is selected.
    is_detached: bool,
    /// The bytes of entries before they were made shorter, by position.
    whole: HashMap<u16, u32>,
    /// The byte that was written last.
    next: u8,
}

struct Selected {
    address: *mut u8,
    id: u16,
    bytes: u32,
    slots: u64,
}

impl FakeKernel {
    pub(super) fn new(ring: &BufferRing) -> FakeKernel {
        FakeKernel {
            entries: ring.address() as *mut RingEntry,
            count: ring.count(),
            head: 0,
            incremental: ring.incremental,
            selected: Vec::new(),
            lost: 0,
            is_detached: false,
            whole: HashMap::new(),
            next: 0,
        }
    }

    /// Registers the group again: the kernel counts from 0.
    fn attach(&mut self, ring: &BufferRing) {
        assert!(self.selected.is_empty());
        self.entries = ring.address() as *mut RingEntry;
        (self.head, self.is_detached) = (0, false);
        self.whole.clear();
    }

    fn entry(&self, position: u16) -> *mut RingEntry {
        // SAFETY: masked, so inside the array.
        unsafe { self.entries.add(usize::from(position % self.count)) }
    }

    pub(super) fn posted(&self) -> u16 {
        // SAFETY: the ring outlives the fake, and only this thread writes it.
        let tail = unsafe { (*self.entries).tail };
        let posted = tail.wrapping_sub(self.head);
        assert!(posted <= self.count, "posted over entries that were not consumed");
        posted
    }

    fn write(&mut self, address: *mut u8, len: usize) -> Vec<u8> {
        (0..len)
            .map(|offset| {
                self.next = self.next.wrapping_add(1);
                // SAFETY: inside a posted slot, which the kernel may write.
                unsafe { address.wrapping_add(offset).write(self.next) };
                self.next
            })
            .collect()
    }

    /// Receives up to `len` bytes into one buffer, or into several. Returns the completion and the
    /// bytes.
    pub(super) fn receive(&mut self, len: usize, bundle: bool) -> (i32, u32, Vec<u8>) {
        if self.is_detached || self.posted() == 0 {
            return (-libc::ENOBUFS, 0, Vec::new());
        }
        // SAFETY: posted, so written by the ring before its tail.
        let first = unsafe { (*self.entry(self.head)).id };
        let (mut bytes, mut flags) = (Vec::new(), F_BUFFER | u32::from(first) << 16);
        while bytes.len() < len && self.posted() > 0 {
            let entry = self.entry(self.head);
            // SAFETY: as above.
            let RingEntry { address, bytes: room, .. } = unsafe { entry.read() };
            let (address, room) = (address as *mut u8, room as usize);
            let part = room.min(len - bytes.len());
            bytes.extend(self.write(address, part));
            if self.incremental && part < room {
                // SAFETY: the kernel writes the entries of an incremental ring.
                unsafe { (*entry).address += part as u64 };
                // SAFETY: as above.
                unsafe { (*entry).bytes -= part as u32 };
                flags |= F_BUF_MORE;
            } else {
                self.whole.remove(&self.head);
                self.head = self.head.wrapping_add(1);
            }
            if !bundle {
                break;
            }
        }
        (bytes.len() as i32, flags, bytes)
    }

    /// Makes the entry that is next shorter, as the beginning of a bundle does.
    fn shorten(&mut self, bytes: u32) {
        if !self.is_detached && self.posted() > 0 && !self.incremental {
            let entry = self.entry(self.head);
            // SAFETY: posted, so written by the ring before its tail.
            let before = unsafe { (*entry).bytes };
            self.whole.entry(self.head).or_insert(before);
            // SAFETY: posted: the kernel may write the entry.
            unsafe { (*entry).bytes = before.min(bytes) };
        }
    }

    /// Selects a buffer as a worker thread does, before there are bytes to put there.
    pub(super) fn select(&mut self) {
        if !self.is_detached && self.posted() > 0 && !self.incremental {
            let entry = self.entry(self.head);
            // SAFETY: posted, so written by the ring before its tail.
            let RingEntry { address, id, bytes, .. } = unsafe { entry.read() };
            let whole = self.whole.remove(&self.head).unwrap_or(bytes);
            let slots = u64::from(whole).div_ceil(SLOT_BYTES as u64);
            self.head = self.head.wrapping_add(1);
            self.selected.push(Selected { address: address as *mut u8, id, bytes, slots });
        }
    }

    /// Cancels a worker thread whose completion then names no buffer. Returns whether there was
    /// one.
    pub(super) fn lose_selected(&mut self, which: usize) -> bool {
        if self.selected.is_empty() {
            return false;
        }
        self.lost += self.selected.remove(which % self.selected.len()).slots;
        true
    }

    /// Completes a worker thread's receive, in any order, with bytes or without.
    pub(super) fn complete_selected(
        &mut self,
        which: usize,
        result: i32,
    ) -> Option<(i32, u32, Vec<u8>)> {
        if self.selected.is_empty() {
            return None;
        }
        let Selected { address, id, bytes, .. } = self.selected.remove(which % self.selected.len());
        let result = result.min(bytes as i32);
        let bytes = self.write(address, result.max(0) as usize);
        Some((result, F_BUFFER | u32::from(id) << 16, bytes))
    }
}
