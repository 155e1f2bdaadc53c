//! A table of operations in flight, for a program without one: the `user_data` of an entry names
//! its operation, and nothing else does.
//!
//! ```text
//!  63      56 55             32 31                    0
//! ┌──────────┬─────────────────┬───────────────────────┐
//! │ tag      │ index           │ generation            │   user_data
//! └──────────┴─────────────────┴───────────────────────┘
//! ```
//!
//! * `tag`: the program's number of the table, which separates its entries from others.
//! * `index`, `generation`: the key of the operation in the [`Slab`].
//!
//! # Safety
//!
//! Unsafe here: the contract of `complete`, passed on to the operation that the completion names.
#![allow(unsafe_code)]

use std::io;

use io_uring::{cqueue, squeue};

use super::operation::{Operation, Progress};
use crate::buffer::{IoMemory, Payload};
use crate::slab::{Key, Slab};

const TAG_SHIFT: u32 = 56;
const INDEX_SHIFT: u32 = 32;
const INDEX_BITS: u32 = TAG_SHIFT - INDEX_SHIFT;

/// The operations in flight on one ring, found by the `user_data` that their entries carry.
///
/// The table grows to the most operations that were ever in flight at a time, at most 2²⁴. A
/// `user_data` names nothing once its operation is over: 2³² − 1 further operations go through the
/// same entry of the table before it is used again.
///
/// **Dropping the table quarantines the memory of every operation in it.**
///
/// ```
/// # use std::num::NonZeroUsize;
/// # use io_uring::IoUring;
/// use uring_arena::{Completion, InFlight, RegisteredArena, RegistrationPolicy};
/// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
/// # let arena = uring_arena::FixedArena::with_slot_capacity(count, bytes).build()?;
/// # let Ok(mut ring) = IoUring::new(8) else { return Ok(()) };
/// # // SAFETY: entries go to `ring` only, each completion to its operation, once.
/// # let registered =
/// #     unsafe { RegisteredArena::register(&ring, &arena, RegistrationPolicy::Best)? };
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
    operations: Slab<Operation<Payload>>,
}

/// The meaning of a completion for an [`InFlight`] table.
#[derive(Debug)]
#[non_exhaustive]
pub enum Completion {
    /// An operation is finished.
    #[non_exhaustive]
    Done {
        /// The `user_data` of the operation's entry.
        user_data: u64,
        /// Bytes read, written or sent, or the error.
        result: io::Result<usize>,
        /// The memory.
        payload: Payload,
        /// `Some(true)` if the kernel copied the bytes of a zero-copy send after all. `None` if it
        /// does not report that.
        copied: Option<bool>,
    },
    /// A zero-copy send has its result, and its notification will come.
    More,
    /// The completion carries another tag: it is not of this table.
    Foreign,
    /// The completion carries the table's tag and names no operation in flight: it came before, or
    /// was made up.
    Stale,
}

impl InFlight {
    /// Creates an empty table whose entries carry `tag` in the highest byte of their `user_data`.
    ///
    /// ```
    /// let in_flight = uring_arena::InFlight::new(1);
    /// assert!(in_flight.is_empty());
    /// ```
    pub fn new(tag: u8) -> InFlight {
        InFlight { tag, operations: Slab::new(1 << INDEX_BITS) }
    }

    /// Takes an operation in. Returns its entry with the `user_data` that names the operation.
    ///
    /// The example of [`InFlight`] shows it.
    ///
    /// # Panics
    ///
    /// If 2²⁴ operations are in flight.
    pub fn begin<M: IoMemory + Into<Payload>>(
        &mut self,
        entry: squeue::Entry,
        operation: Operation<M>,
    ) -> squeue::Entry {
        let key = self.operations.insert(operation.into_any());
        let key = key.expect("2^24 operations are in flight");
        let user_data = u64::from(self.tag) << TAG_SHIFT
            | u64::from(key.index()) << INDEX_SHIFT
            | u64::from(key.generation());
        entry.user_data(user_data)
    }

    /// Takes a completion in.
    ///
    /// Completions of other entries, and those that came before, are recognised and change nothing.
    /// The example of [`InFlight`] shows it.
    ///
    /// # Safety
    ///
    /// `cqe` was reaped from the ring that the table's entries are pushed to. A completion that
    /// carries the `user_data` of an operation in flight is one of its entry.
    pub unsafe fn complete(&mut self, cqe: &cqueue::Entry) -> Completion {
        // SAFETY: the caller's promise.
        unsafe { self.complete_with(cqe.user_data(), cqe.result(), cqe.flags()) }
    }

    /// Takes a completion in, for a runtime that keeps only the three numbers of it.
    ///
    /// ```
    /// use uring_arena::{Completion, InFlight};
    ///
    /// let mut in_flight = InFlight::new(1);
    /// // SAFETY: nothing is in flight.
    /// let completion = unsafe { in_flight.complete_with(2 << 56, 0, 0) };
    /// assert!(matches!(completion, Completion::Foreign));
    /// ```
    ///
    /// # Safety
    ///
    /// As for [`complete`](Self::complete).
    pub unsafe fn complete_with(&mut self, user_data: u64, result: i32, flags: u32) -> Completion {
        let Some(key) = self.key(user_data) else { return Completion::Foreign };
        let Some(operation) = self.operations.get_mut(key) else { return Completion::Stale };
        // SAFETY: the key names this operation, in this generation, so the completion is of its
        // entry (the caller's promise). It is handed in once: the operation leaves the table with
        // its last completion.
        unsafe { operation.record_completion(result, flags) };
        if !operation.is_finished() {
            return Completion::More;
        }
        match self.operations.remove(key).map(Operation::finish) {
            Some(Progress::Done { result, buffer, copied }) => {
                Completion::Done { user_data, result, payload: buffer, copied }
            }
            _ => unreachable!("the operation is in the table, and finished"),
        }
    }

    /// Takes an operation out again whose entry could not be pushed, for example because the queue
    /// was full. Returns `None` if `entry` names no operation.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use uring_arena::{InFlight, RegisteredArena, RegistrationPolicy};
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = uring_arena::FixedArena::with_slot_capacity(count, bytes).build()?;
    /// # let Ok(ring) = io_uring::IoUring::new(8) else { return Ok(()) };
    /// # // SAFETY: the only entry is not pushed.
    /// # let registered =
    /// #     unsafe { RegisteredArena::register(&ring, &arena, RegistrationPolicy::Best)? };
    /// # let file = std::fs::File::open("/dev/zero")?;
    /// let mut in_flight = InFlight::new(1);
    /// let (entry, operation) = registered.read(&file, arena.allocate()?, 0);
    /// let entry = in_flight.begin(entry, operation);
    /// // SAFETY: the entry is dropped, not pushed.
    /// let payload = unsafe { in_flight.not_submitted(&entry) };
    /// assert!(payload.is_some() && in_flight.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Safety
    ///
    /// The entry was not pushed to a ring, and will not be.
    pub unsafe fn not_submitted(&mut self, entry: &squeue::Entry) -> Option<Payload> {
        let key = self.key(entry.get_user_data())?;
        let operation = self.operations.remove(key)?;
        // SAFETY: the caller's promise.
        Some(unsafe { operation.not_submitted() })
    }

    /// Returns the number of operations in flight.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Returns whether nothing is in flight. Only then may the ring end without losing memory.
    ///
    /// The example of [`not_submitted`](Self::not_submitted) shows it.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Returns the key in a `user_data`, or `None` if its tag is not this table's.
    fn key(&self, user_data: u64) -> Option<Key> {
        let index = (user_data >> INDEX_SHIFT) as u32 & ((1 << INDEX_BITS) - 1);
        ((user_data >> TAG_SHIFT) as u8 == self.tag)
            .then(|| Key::from_parts(index, user_data as u32))
    }
}
