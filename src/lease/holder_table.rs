//! The records of who holds which slot: see `docs/design/holders.md`.
//!
//! Without the feature `holders` only [`Place`] is left, and is nothing.
//!
//! # Safety
//!
//! Unsafe here: reading a place through a pointer, which came from a reference that lives for ever.
#![cfg_attr(feature = "holders", allow(unsafe_code))]

#[cfg(feature = "holders")]
use std::panic::Location;

/// The place in the program that makes a claim. It is nothing without the feature `holders`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place(#[cfg(feature = "holders")] &'static Location<'static>);

impl Place {
    /// Returns the place of the caller.
    #[cfg_attr(feature = "holders", track_caller)]
    #[inline(always)] // see `FixedArena::allocate`
    pub(crate) fn here() -> Place {
        Place(
            #[cfg(feature = "holders")]
            Location::caller(),
        )
    }
}

#[cfg(feature = "holders")]
pub(crate) use tracking::{HolderOptions, HolderTable};

#[cfg(feature = "holders")]
mod tracking {
    use std::any::Any;
    use std::backtrace::Backtrace;
    use std::panic::Location;
    use std::sync::OnceLock;

    use super::Place;
    use crate::sync::{
        Arc, AtomicPtr, AtomicU32, AtomicU64, Mutex, Ordering, fence, process_clock_ms,
    };

    /// The number of records that are allocated together.
    const CHUNK: usize = 32;

    /// The times that a reader tries to read a record that is being written.
    const READS_MAX: usize = if cfg!(uring_arena_loom) { 2 } else { 8 };

    /// The bytes used of a claim that was neither frozen nor received.
    const UNKNOWN: u64 = u64::MAX;

    /// The connection of a claim that is of none.
    const NONE: u64 = u64::MAX;

    /// The choice of what is recorded.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct HolderOptions {
        /// The number of claims of which one is recorded, if any is.
        pub(crate) one_in: Option<u32>,
        pub(crate) backtraces: bool,
        /// Called with the last handle, which is of a later module.
        pub(crate) at_end: Option<fn(&dyn Any)>,
    }

    /// The records of one arena.
    pub(crate) struct HolderTable {
        chunks: Box<[OnceLock<Box<[Record; CHUNK]>>]>,
        /// One less than the claims of a slot among which one is recorded.
        mask: u32,
        /// The backtraces of claims, by slot, if they are asked for.
        backtraces: Option<Mutex<Backtraces>>,
        at_end: Option<fn(&dyn Any)>,
        /// The last snapshot at a refusal, and its time. The snapshot is of a later module.
        kept: Mutex<Option<(u64, Kept)>>,
    }

    type Kept = Arc<dyn Any + Send + Sync>;

    /// The time in which one snapshot serves all refusals.
    const KEPT_MS: u64 = 100;

    type Backtraces = std::collections::HashMap<u32, (u32, Arc<Backtrace>)>;

    /// The record of one slot.
    // Invariant: `place` is null, or came from a reference that lives for ever.
    #[repr(align(64))]
    struct Record {
        /// The number of the claim and a version, or 0 while the record is written.
        stamp: AtomicU64,
        place: AtomicPtr<Location<'static>>,
        since_ms: AtomicU64,
        used: AtomicU64,
        connection: AtomicU64,
        /// The number of the label among all, counted from 1; 0 is none.
        label: AtomicU32,
    }

    /// A record as it was read.
    #[derive(Debug, Clone)]
    pub(crate) struct RecordedHolder {
        pub(crate) place: &'static Location<'static>,
        pub(crate) age_ms: u64,
        pub(crate) used: Option<usize>,
        pub(crate) label: Option<Arc<str>>,
        pub(crate) connection: Option<u64>,
        pub(crate) backtrace: Option<Arc<Backtrace>>,
    }

    impl HolderTable {
        /// Makes a table for `slots` slots, or smallest blocks, if something is to be recorded.
        pub(crate) fn new(slots: usize, options: HolderOptions) -> Option<Box<HolderTable>> {
            let one_in = options.one_in?.checked_next_power_of_two().unwrap_or(1 << 31);
            Some(Box::new(HolderTable {
                chunks: (0..slots.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect(),
                mask: one_in - 1,
                backtraces: options.backtraces.then(|| Mutex::new(Backtraces::new())),
                at_end: options.at_end,
                kept: Mutex::new(None),
            }))
        }

        /// Tells that the last handle of the arena is gone.
        pub(crate) fn tell_of_end(&self, handle: &dyn Any) {
            if let Some(at_end) = self.at_end {
                at_end(handle);
            }
        }

        /// Returns the snapshot that is kept, or makes one if that is too old.
        pub(crate) fn kept(&self, make: impl FnOnce() -> Kept) -> Kept {
            let now_ms = process_clock_ms();
            if let Some((at_ms, kept)) = &*self.kept.lock()
                && now_ms < at_ms + KEPT_MS
            {
                return Arc::clone(kept);
            }
            // Made without the lock: two may be made at once.
            let made = make();
            let replaced = self.kept.lock().replace((now_ms, Arc::clone(&made)));
            drop(replaced);
            made
        }

        /// Returns one less than the claims of a slot among which one is recorded.
        pub(crate) fn mask(&self) -> u32 {
            self.mask
        }

        /// Returns the bits of a count of claims that are zero if the claim is to be recorded.
        ///
        /// The lowest bit is none of them, as at other rare claims: of `2 n` claims in a row two
        /// are recorded.
        pub(crate) fn due_bits(&self) -> u32 {
            self.mask << 1
        }

        /// Returns whether claim number `claims` of a slot is to be recorded.
        pub(crate) fn is_due(&self, claims: u32) -> bool {
            claims & self.due_bits() == 0
        }

        /// Returns the number of claims by which the count of slot `index` is ahead: slots that are
        /// claimed equally often are recorded at different times.
        pub(crate) fn claims_ahead(&self, index: u32) -> u32 {
            // The upper bits of a product with the golden ratio: those of neighbours lie apart, and
            // so do those of blocks, whose indices are multiples of their lengths.
            let spread = index.wrapping_mul(0x9E37_79B9) >> 16;
            (spread << 1) & self.due_bits()
        }

        /// Records a claim. The caller owns it.
        pub(crate) fn record(&self, index: u32, claims: u32, place: Place) {
            self.at(index).write(claims, |record| {
                // Relaxed, as all fields: the stamp orders them.
                let pointer = std::ptr::from_ref(place.0).cast_mut();
                record.place.store(pointer, Ordering::Relaxed);
                record.since_ms.store(process_clock_ms(), Ordering::Relaxed);
                record.used.store(UNKNOWN, Ordering::Relaxed);
                record.connection.store(NONE, Ordering::Relaxed);
                record.label.store(0, Ordering::Relaxed);
            });
            if let Some(backtraces) = &self.backtraces {
                let backtrace = Arc::new(Backtrace::force_capture());
                backtraces.lock().insert(index, (claims, backtrace));
            }
        }

        /// Records the bytes used of a claim. The caller owns it.
        pub(crate) fn record_used(&self, index: u32, claims: u32, used: usize) {
            self.at(index).write(claims, |record| {
                record.used.store(used as u64, Ordering::Relaxed);
            });
        }

        /// Records that bytes came from a connection into the slot of a claim, which counts from
        /// now on. The caller owns it.
        pub(crate) fn record_received(
            &self,
            index: u32,
            claims: u32,
            used: usize,
            connection: Option<u64>,
        ) {
            self.at(index).write(claims, |record| {
                record.since_ms.store(process_clock_ms(), Ordering::Relaxed);
                record.used.store(used as u64, Ordering::Relaxed);
                record.connection.store(connection.unwrap_or(NONE), Ordering::Relaxed);
            });
        }

        /// Records the label of a claim. The caller owns it.
        pub(crate) fn record_label(&self, index: u32, claims: u32, label: &str) {
            let number = number_of_label(label);
            self.at(index).write(claims, |record| {
                record.label.store(number, Ordering::Relaxed);
            });
        }

        /// Reads the record of claim number `claims` of a slot. Returns `None` if there is none, or
        /// if it is being written all the time.
        pub(crate) fn read(&self, index: u32, claims: u32) -> Option<RecordedHolder> {
            let chunk = self.chunks[index as usize / CHUNK].get()?;
            let mut holder = chunk[index as usize % CHUNK].read(claims)?;
            if let Some(backtraces) = &self.backtraces {
                let backtraces = backtraces.lock();
                let found = backtraces.get(&index).filter(|(of, _)| *of == claims);
                holder.backtrace = found.map(|(_, backtrace)| Arc::clone(backtrace));
            }
            Some(holder)
        }

        fn at(&self, index: u32) -> &Record {
            let chunk = &self.chunks[index as usize / CHUNK];
            let records = || Box::new(std::array::from_fn(|_| Record::new()));
            &chunk.get_or_init(records)[index as usize % CHUNK]
        }
    }

    impl Record {
        fn new() -> Record {
            Record {
                stamp: AtomicU64::new(0),
                place: AtomicPtr::new(std::ptr::null_mut()),
                since_ms: AtomicU64::new(0),
                used: AtomicU64::new(UNKNOWN),
                connection: AtomicU64::new(NONE),
                label: AtomicU32::new(0),
            }
        }

        /// Writes fields for the owner of claim number `claims`. Nobody else writes meanwhile.
        fn write(&self, claims: u32, fields: impl FnOnce(&Record)) {
            // Relaxed: only owners write, each after the one before.
            let version = (self.stamp.load(Ordering::Relaxed) as u32).wrapping_add(1).max(1);
            self.stamp.store(0, Ordering::Relaxed);
            // Release: pairs with the Acquire fence of a reader that saw one of the fields. It then
            // sees that the stamp has changed.
            fence(Ordering::Release);
            fields(self);
            // Release: pairs with the Acquire load of a reader, which then sees the fields.
            self.stamp.store(u64::from(claims) << 32 | u64::from(version), Ordering::Release);
        }

        fn read(&self, claims: u32) -> Option<RecordedHolder> {
            for _ in 0..READS_MAX {
                // Acquire: pairs with the Release of the last store of a write.
                let stamp = self.stamp.load(Ordering::Acquire);
                let place = self.place.load(Ordering::Relaxed);
                let since_ms = self.since_ms.load(Ordering::Relaxed);
                let used = self.used.load(Ordering::Relaxed);
                let connection = self.connection.load(Ordering::Relaxed);
                let label = self.label.load(Ordering::Relaxed);
                // Acquire: pairs with the Release fence of a write.
                fence(Ordering::Acquire);
                if stamp == 0 || self.stamp.load(Ordering::Relaxed) != stamp {
                    continue;
                }
                if (stamp >> 32) as u32 != claims {
                    return None;
                }
                // SAFETY: null, or from a reference that lives for ever (invariant).
                let place = unsafe { place.as_ref() }?;
                return Some(RecordedHolder {
                    place,
                    age_ms: process_clock_ms().saturating_sub(since_ms),
                    used: (used != UNKNOWN).then_some(used as usize),
                    label: label_of_number(label),
                    connection: (connection != NONE).then_some(connection),
                    backtrace: None,
                });
            }
            None
        }
    }

    /// All labels of the process. They stay for ever: there are few.
    #[cfg(not(uring_arena_loom))]
    static LABELS: Mutex<Vec<Arc<str>>> = Mutex::new(Vec::new());

    #[cfg(not(uring_arena_loom))]
    fn number_of_label(label: &str) -> u32 {
        let mut labels = LABELS.lock();
        let known = labels.iter().position(|known| **known == *label);
        let index = known.unwrap_or_else(|| {
            labels.push(label.into());
            labels.len() - 1
        });
        index as u32 + 1
    }

    #[cfg(not(uring_arena_loom))]
    fn label_of_number(number: u32) -> Option<Arc<str>> {
        let index = number.checked_sub(1)?;
        LABELS.lock().get(index as usize).cloned()
    }

    /// Models have no labels: loom's locks are of one run.
    #[cfg(uring_arena_loom)]
    fn number_of_label(_: &str) -> u32 {
        0
    }

    #[cfg(uring_arena_loom)]
    fn label_of_number(_: u32) -> Option<Arc<str>> {
        None
    }

    #[cfg(all(test, uring_arena_loom))]
    mod models {
        use loom::thread;

        use super::{HolderOptions, HolderTable, Place};
        use crate::sync::Arc;

        /// Reads a record once while `write` changes it. What is read is whole: as many bytes as
        /// the number of the connection.
        fn check(write: fn(&HolderTable)) {
            let mut builder = loom::model::Builder::new();
            builder.preemption_bound = Some(2);
            builder.check(move || {
                let options = HolderOptions { one_in: Some(1), ..HolderOptions::default() };
                let table = Arc::new(*HolderTable::new(1, options).unwrap());
                table.record(0, 1, Place::here());
                table.record_received(0, 1, 1, Some(1));
                let writer = Arc::clone(&table);
                let owner = thread::spawn(move || write(&writer));
                if let Some(holder) = table.read(0, 1) {
                    let (used, connection) = (holder.used.unwrap(), holder.connection.unwrap());
                    assert_eq!(used as u64, connection);
                }
                owner.join().unwrap();
            });
        }

        #[test]
        fn a_reader_of_a_record_against_its_owner() {
            check(|table| table.record_received(0, 1, 2, Some(2)));
        }

        #[test]
        fn a_reader_of_a_record_against_the_next_owner() {
            check(|table| table.record(0, 2, Place::here()));
        }
    }
}
