//! A table of operations in flight, for a runtime that has none: what its entries carry names the
//! operation, and nothing else does.
//!
//! ```text
//!  63      56 55          32  31   30                  0
//! ┌──────────┬──────────────┬──────┬────────────────────┐
//! │ tag      │ generation   │SHARED│ slot, or place     │   user_data
//! └──────────┴──────────────┴──────┴────────────────────┘
//! ```
//!
//! * `tag`: the caller's, to tell these entries from its own.
//! * `generation`: grows with every operation that begins at the place, so that a completion of an
//!   earlier one is recognised.
//! * a buffer has its slot alone, so its operation lives at the slot's number; of shared bytes
//!   several operations may be out, and they live at places of their own, `SHARED`.
//!
//! # Safety
//!
//! Unsafe here: the contract of `complete`, passed on to the operation that the completion names.
#![allow(unsafe_code)]

use std::io;

use io_uring::{cqueue, squeue};

use super::operation::{Operation, Progress};
use crate::buffer::{IoMemory, Payload};

const TAG_SHIFT: u32 = 56;
const GENERATION_SHIFT: u32 = 32;
const GENERATIONS: u32 = 1 << 24;
const SHARED: u32 = 1 << 31;

/// Operations in flight on one ring, found by the `user_data` that their entries carry.
///
/// Operations on a [`Buffer`](crate::Buffer) live at their slot's number: no search, no free list.
/// The table grows to the highest slot in use (arenas give out low ones first) and to the most
/// operations on shared bytes at a time; it never shrinks.
///
/// **Dropping it quarantines what is still in it.**
///
/// ```
/// # use std::num::NonZeroUsize;
/// # use io_uring::IoUring;
/// use uring_arena::{Completion, InFlight, RegisteredArena, RegistrationPolicy};
/// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
/// # let arena = uring_arena::FixedArena::with_slot_capacity(count, bytes).build()?;
/// # let Ok(mut ring) = IoUring::new(8) else { return Ok(()) };
/// # // SAFETY: entries go to `ring` only, and each completion comes back to its operation once.
/// # let registered = unsafe { RegisteredArena::register(&ring, &arena, RegistrationPolicy::Best)? };
/// # let file = std::fs::File::open("/proc/self/exe")?;
/// let mut in_flight = InFlight::new(0xA5);
/// let (entry, operation) = registered.read(&file, arena.allocate()?, 0);
/// let entry = in_flight.begin(entry, operation);
/// // SAFETY: the table keeps the memory, `file` stays open until the completion.
/// unsafe { ring.submission().push(&entry)? };
/// ring.submit_and_wait(1)?;
/// let cqe = ring.completion().next().unwrap();
/// // SAFETY: reaped from the ring that the entry was pushed to.
/// match unsafe { in_flight.complete(&cqe) } {
///     Completion::Done { result, payload, .. } => {
///         assert_eq!(result?, payload.into_buffer().unwrap().len());
///     }
///     other => panic!("{other:?}"),
/// }
/// // SAFETY: as above. The same completion again names nothing any more.
/// assert!(matches!(unsafe { in_flight.complete(&cqe) }, Completion::Stale));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct InFlight {
    tag: u8,
    slots: Vec<Place>,
    shared: Vec<Place>,
    /// Places of `shared` that are empty.
    shared_free: Vec<u32>,
    len: usize,
}

/// One place of the table. Its generation is that of the operation in it, or of the last one that
/// was.
#[derive(Debug, Default)]
struct Place {
    generation: u32,
    operation: Option<Operation<Payload>>,
}

/// What a completion was to the table.
#[derive(Debug)]
#[non_exhaustive]
pub enum Completion {
    /// An operation is finished.
    #[non_exhaustive]
    Done {
        /// The `user_data` that its entry carried.
        user_data: u64,
        /// Bytes read, written or sent, or why not.
        result: io::Result<usize>,
        /// The memory.
        payload: Payload,
        /// Whether the kernel copied the bytes of a zero-copy send after all, where it says.
        copied: Option<bool>,
    },
    /// A zero-copy send has its result; the notification is to come.
    More,
    /// The completion carries another tag: it is not of this table.
    Foreign,
    /// The completion carries the table's tag but names no operation that is in flight: it came
    /// before, or was made up.
    Stale,
}

/// The `user_data` of an operation, packed.
#[derive(Clone, Copy)]
struct Key {
    tag: u8,
    generation: u32,
    place: u32,
}

impl Key {
    fn pack(self) -> u64 {
        u64::from(self.tag) << TAG_SHIFT
            | u64::from(self.generation) << GENERATION_SHIFT
            | u64::from(self.place)
    }

    fn unpack(user_data: u64) -> Key {
        Key {
            tag: (user_data >> TAG_SHIFT) as u8,
            generation: (user_data >> GENERATION_SHIFT) as u32 % GENERATIONS,
            place: user_data as u32,
        }
    }
}

impl InFlight {
    /// An empty table whose entries carry `tag` in the highest byte of their `user_data`.
    pub fn new(tag: u8) -> InFlight {
        InFlight { tag, slots: Vec::new(), shared: Vec::new(), shared_free: Vec::new(), len: 0 }
    }

    /// Takes an operation in. Gives its entry back, with the `user_data` that finds it.
    ///
    /// # Panics
    ///
    /// If 2³¹ operations on shared bytes are in flight.
    pub fn begin<M: IoMemory + Into<Payload>>(
        &mut self,
        entry: squeue::Entry,
        operation: Operation<M>,
    ) -> squeue::Entry {
        let operation = operation.into_any();
        let number = match operation.slot_alone() {
            // Another arena's slot of the same number may be in flight: then this one takes a place
            // among the shared.
            Some(slot) if slot < SHARED && self.is_vacant(slot) => slot,
            _ => self.shared_place(),
        };
        let tag = self.tag;
        let place = self.place_mut(number).expect("made room for just now");
        place.generation = (place.generation + 1) % GENERATIONS;
        place.operation = Some(operation);
        let key = Key { tag, generation: place.generation, place: number };
        self.len += 1;
        entry.user_data(key.pack())
    }

    /// Whether slot `slot`'s place has no operation; makes room for it.
    fn is_vacant(&mut self, slot: u32) -> bool {
        let at = slot as usize;
        if at >= self.slots.len() {
            self.slots.resize_with(at + 1, Place::default);
        }
        self.slots[at].operation.is_none()
    }

    fn shared_place(&mut self) -> u32 {
        if let Some(free) = self.shared_free.pop() {
            return free;
        }
        let next = u32::try_from(self.shared.len()).ok().filter(|next| *next < SHARED);
        let next = next.expect("2^31 operations on shared bytes are in flight");
        self.shared.push(Place::default());
        next | SHARED
    }

    fn place_mut(&mut self, number: u32) -> Option<&mut Place> {
        if number & SHARED == 0 {
            self.slots.get_mut(number as usize)
        } else {
            self.shared.get_mut((number & !SHARED) as usize)
        }
    }

    /// Takes a completion in.
    ///
    /// Completions of other entries, and those that came before, are recognised and change nothing.
    ///
    /// # Safety
    ///
    /// `cqe` was reaped from the ring that the table's entries are pushed to. What carries the
    /// `user_data` of an operation in flight is a completion of its entry.
    pub unsafe fn complete(&mut self, cqe: &cqueue::Entry) -> Completion {
        // SAFETY: the caller's promise.
        unsafe { self.complete_with(cqe.user_data(), cqe.result(), cqe.flags()) }
    }

    /// Takes a completion in, of which a runtime kept only the three numbers.
    ///
    /// # Safety
    ///
    /// As for [`complete`](Self::complete).
    pub unsafe fn complete_with(&mut self, user_data: u64, result: i32, flags: u32) -> Completion {
        let key = Key::unpack(user_data);
        if key.tag != self.tag {
            return Completion::Foreign;
        }
        let Some(operation) = self.take(key) else { return Completion::Stale };
        // SAFETY: the key names this operation, in this generation: its entry's completion (the
        // caller's promise), and the first with this result, because the place empties with the
        // last one.
        match unsafe { operation.complete_with(result, flags) } {
            Progress::Done { result, buffer, copied } => {
                if key.place & SHARED != 0 {
                    self.shared_free.push(key.place);
                }
                Completion::Done { user_data, result, payload: buffer, copied }
            }
            Progress::More(operation) => {
                self.put_back(key, operation);
                Completion::More
            }
        }
    }

    /// Takes an operation out again whose entry could not be pushed: the queue was full, say.
    ///
    /// `None` if `entry` names none.
    ///
    /// # Safety
    ///
    /// The entry was not pushed to a ring, and will not be.
    pub unsafe fn not_submitted(&mut self, entry: &squeue::Entry) -> Option<Payload> {
        let key = Key::unpack(entry.get_user_data());
        if key.tag != self.tag {
            return None;
        }
        let operation = self.take(key)?;
        if key.place & SHARED != 0 {
            self.shared_free.push(key.place);
        }
        // SAFETY: the caller's promise.
        Some(unsafe { operation.not_submitted() })
    }

    /// Operations in flight.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is in flight: only then may the ring end without losing memory.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn take(&mut self, key: Key) -> Option<Operation<Payload>> {
        let place = self.place_mut(key.place)?;
        if place.generation != key.generation {
            return None;
        }
        let operation = place.operation.take()?;
        self.len -= 1;
        Some(operation)
    }

    fn put_back(&mut self, key: Key, operation: Operation<Payload>) {
        if let Some(place) = self.place_mut(key.place) {
            place.operation = Some(operation);
            self.len += 1;
        }
    }
}
