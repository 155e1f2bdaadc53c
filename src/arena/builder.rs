//! The parts that both builders share: options, setters, and memory of the caller.
//!
//! # Safety
//!
//! Unsafe here: taking over memory that the caller of `from_raw` lends.
#![allow(unsafe_code)]

use crate::lease::{CoreOptions, Handle};
#[cfg(feature = "holders")]
use crate::lease::{HolderOptions, Holders};
use crate::region::{BuildError, Dealloc, PageSize, Region, RegionOptions};
use crate::slots::Allocator;
#[cfg(feature = "holders")]
use crate::sync::{Arc, thread_local};
use crate::wait::OnFree;
#[cfg(feature = "holders")]
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::NonNull;

/// The contents of a slot or block that a new owner finds.
///
/// ```
/// use uring_arena::{FixedArena, InitPolicy};
///
/// let arena = FixedArena::with_sizes(4, 64).init_policy(InitPolicy::Zero).build()?;
/// # drop(arena);
/// # Ok::<(), uring_arena::BuildError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InitPolicy {
    /// Whatever bytes lie there. No safe call shows them: reading is limited to the bytes that were
    /// written.
    #[default]
    Uninit,
    /// Zeros. The bytes that an owner may have written are scrubbed when the slot is freed, and the
    /// optimiser cannot leave that out. Memory of the caller is zeroed before its first use.
    Zero,
}

/// The options of both builders.
#[derive(Default)]
pub(super) struct BuilderOptions {
    pub(super) zero: bool,
    pub(super) spill: bool,
    pub(super) region: RegionOptions,
    /// A callback for every free, for a wake policy of the user's.
    pub(super) on_free: Option<OnFree>,
    #[cfg(feature = "holders")]
    pub(super) holders: HolderOptions,
}

impl BuilderOptions {
    /// Builds an arena of `bytes` bytes in `memory` of the caller, or else in memory of the system.
    ///
    /// Returns its handle, and the way to fault its pages in.
    pub(super) fn build(
        self,
        allocator: Allocator,
        slot_bytes: usize,
        bytes: usize,
        alignment: usize,
        memory: Option<CallerMemory>,
    ) -> Result<(Handle, PageSize), BuildError> {
        let BuilderOptions { zero, spill, region: options, on_free, .. } = self;
        let page_size = if memory.is_some() { PageSize::Unknown } else { options.page_size };
        let core = CoreOptions {
            allocator,
            slot_bytes,
            zero,
            spill,
            on_free,
            #[cfg(feature = "holders")]
            holders: HolderOptions { at_end: Some(Holders::at_end), ..self.holders },
        };
        let handle = Handle::new(core, || match memory {
            Some(memory) => memory.into_region(bytes),
            None => Region::new(bytes, alignment, &options),
        })?;
        Ok((handle, page_size))
    }
}

// The functions in them are called once, by `build`, which takes the builder.
impl UnwindSafe for BuilderOptions {}
impl RefUnwindSafe for BuilderOptions {}
impl UnwindSafe for CallerMemory {}
impl RefUnwindSafe for CallerMemory {}

/// Returns `error`, after an event with the numbers that its variant does not carry.
pub(super) fn refused(error: BuildError, request: impl fmt::Debug) -> BuildError {
    tracing::debug!(?request, %error, "an arena was not built");
    error
}

/// Returns the error of an allocator of `bytes` bytes that finds no memory.
pub(super) fn no_room(bytes: usize) -> BuildError {
    BuildError::OutOfMemory { bytes, reason: "no room for the allocator".into() }
}

impl fmt::Debug for BuilderOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuilderOptions")
            .field("zero", &self.zero)
            .field("spill", &self.spill)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// A run of the caller's memory, which an arena takes over when it is built.
///
/// A value that is dropped before leaves the memory with the caller.
pub(super) struct CallerMemory {
    start: *mut u8,
    pub(super) len: usize,
    /// Makes the region, given its start, its usable length and `len`.
    take: TakeOver,
}

type TakeOver = Box<dyn FnOnce(NonNull<u8>, usize, usize) -> Region + Send + Sync>;

impl CallerMemory {
    /// Notes the memory and the way to give it back.
    ///
    /// # Safety
    ///
    /// As for [`FixedArena::from_raw`](crate::FixedArena::from_raw).
    pub(super) unsafe fn new(start: *mut u8, len: usize, dealloc: impl Dealloc) -> CallerMemory {
        let take = Box::new(move |start, usable, len| {
            // SAFETY: the caller of `from_raw` lends this memory until `dealloc` is called.
            unsafe { Region::from_caller(start, usable, len, dealloc) }
        });
        CallerMemory { start, len, take }
    }

    /// Returns an error if the memory is null, or does not start on a multiple of `alignment`, a
    /// power of two.
    pub(super) fn check(&self, alignment: usize) -> Result<(), BuildError> {
        let address = self.start.addr();
        if self.start.is_null() {
            Err(BuildError::NullPointer)
        } else if !address.is_multiple_of(alignment) {
            Err(BuildError::MisalignedMemory { address, alignment })
        } else {
            Ok(())
        }
    }

    /// Takes the memory over, to use its first `usable` bytes.
    pub(super) fn into_region(self, usable: usize) -> Result<Region, BuildError> {
        let start = NonNull::new(self.start).ok_or(BuildError::NullPointer)?;
        Ok((self.take)(start, usable, self.len))
    }
}

// SAFETY: the memory may be used and given back on any thread (`from_raw`'s contract); the pointer
// is only carried here.
unsafe impl Send for CallerMemory {}
// SAFETY: a shared reference gives nothing but the address.
unsafe impl Sync for CallerMemory {}

impl fmt::Debug for CallerMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerMemory")
            .field("start", &self.start)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// Implements the setters of a builder whose field `options` is a `BuilderOptions`.
macro_rules! shared_setters {
    ($builder:ident) => {
        impl $builder {
            /// Lets a buffer that outgrows its slot or block move to the heap instead of panicking.
            ///
            /// The slot or block is free from that moment on.
            ///
            /// ```
            /// use bytes::BufMut;
            /// use uring_arena::{BuddyArena, FixedArena};
            ///
            /// let fixed = FixedArena::with_sizes(4, 4096).auto_spill().build()?;
            /// let buddy = BuddyArena::with_sizes(16384, 4096).auto_spill().build()?;
            /// for mut buffer in [fixed.allocate()?, buddy.allocate_bytes(4096)?] {
            ///     buffer.put_slice(&[7; 10_000]);
            ///     assert!(buffer.is_spilled());
            /// }
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn auto_spill(mut self) -> $builder {
                self.options.spill = true;
                self
            }

            /// Chooses the contents of a slot or block that a new owner finds.
            ///
            /// Default: [`InitPolicy::Uninit`](crate::InitPolicy::Uninit).
            ///
            /// ```
            /// use uring_arena::{BuddyArena, FixedArena, InitPolicy};
            ///
            /// // Both scrub when a buffer is freed.
            /// let policy = InitPolicy::Zero;
            /// let fixed = FixedArena::with_sizes(4, 4096).init_policy(policy).build()?;
            /// let buddy = BuddyArena::with_sizes(16384, 4096).init_policy(policy).build()?;
            /// # drop((fixed, buddy));
            /// # Ok::<(), uring_arena::BuildError>(())
            /// ```
            pub fn init_policy(mut self, policy: crate::InitPolicy) -> $builder {
                self.options.zero = policy == crate::InitPolicy::Zero;
                self
            }

            /// Chooses the claims that are recorded: who holds the slots, and since when.
            ///
            /// Default: [`TrackHolders::Off`](crate::TrackHolders::Off). `holders` of the arena
            /// shows the records. A record takes 64 bytes for each slot that was ever recorded, or
            /// smallest block at which a recorded block began.
            ///
            /// ```
            /// use uring_arena::{BuddyArena, FixedArena, TrackHolders};
            ///
            /// let track = TrackHolders::Sampled(64);
            /// let fixed = FixedArena::with_sizes(4, 4096).track_holders(track).build()?;
            /// let buddy = BuddyArena::with_sizes(16384, 4096).track_holders(track).build()?;
            /// # drop((fixed, buddy));
            /// # Ok::<(), uring_arena::BuildError>(())
            /// ```
            #[cfg(feature = "holders")]
            pub fn track_holders(mut self, track: crate::TrackHolders) -> $builder {
                self.options.holders.one_in = track.one_in();
                self
            }

            /// Records the backtrace of each claim that is recorded too.
            ///
            /// That takes some microseconds and some kilobytes a record.
            ///
            /// ```
            /// use uring_arena::{FixedArena, TrackHolders};
            ///
            /// let builder = FixedArena::with_sizes(4, 4096).track_holders(TrackHolders::All);
            /// let arena = builder.holder_backtraces().build()?;
            /// let held = arena.allocate()?;
            /// assert!(arena.holders().iter().next().unwrap().backtrace.is_some());
            /// # drop(held);
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            #[cfg(feature = "holders")]
            pub fn holder_backtraces(mut self) -> $builder {
                self.options.holders.backtraces = true;
                self
            }

            /// Chooses the way in which [`build`](Self::build) makes the pages present.
            ///
            /// Default: [`PageSize::Auto`](crate::PageSize::Auto). Without effect on memory of the
            /// caller, which building never touches.
            ///
            /// ```
            /// use uring_arena::{BuddyArena, FixedArena, PageSize};
            ///
            /// // Neither touches its memory now.
            /// let size = PageSize::Unknown;
            /// let fixed = FixedArena::with_sizes(4, 4096).page_size(size).build()?;
            /// let buddy = BuddyArena::with_sizes(16384, 4096).page_size(size).build()?;
            /// # drop((fixed, buddy));
            /// # Ok::<(), uring_arena::BuildError>(())
            /// ```
            pub fn page_size(mut self, page_size: crate::PageSize) -> $builder {
                self.options.region.page_size = page_size;
                self
            }

            /// Chooses the source of the memory.
            ///
            /// Default: [`Backing::Anonymous`](crate::Backing::Anonymous). Without effect on memory
            /// of the caller.
            ///
            /// ```
            /// use uring_arena::{Backing, BuddyArena, FixedArena};
            ///
            /// let fixed = FixedArena::with_sizes(4, 4096).backing(Backing::Heap).build()?;
            /// let buddy = BuddyArena::with_sizes(16384, 4096).backing(Backing::Heap).build()?;
            /// # drop((fixed, buddy));
            /// # Ok::<(), uring_arena::BuildError>(())
            /// ```
            pub fn backing(mut self, backing: crate::Backing) -> $builder {
                self.options.region.backing = backing;
                self
            }

            /// Places the memory on one NUMA node
            /// ([mbind(2)](https://man7.org/linux/man-pages/man2/mbind.2.html), Linux).
            ///
            /// Without effect on the heap and on memory of the caller.
            ///
            /// ```
            /// use uring_arena::{BuddyArena, FixedArena};
            ///
            /// // Both fail on a system without NUMA.
            /// let fixed = FixedArena::with_sizes(4, 4096).numa_node(0).build();
            /// let buddy = BuddyArena::with_sizes(16384, 4096).numa_node(0).build();
            /// assert_eq!(fixed.is_ok(), buddy.is_ok());
            /// ```
            pub fn numa_node(mut self, node: u32) -> $builder {
                self.options.region.numa_node = Some(node);
                self
            }

            /// Keeps the memory out of forked children (`MADV_DONTFORK`): fork(2) copies none of
            /// it, and a child that writes costs no page.
            ///
            /// To be recommended for an arena that is registered, and on
            /// [huge pages](crate::Backing#forked-children). Without effect on the heap and on
            /// memory of the caller.
            ///
            /// A child may drop what it has of the arena: buffers, bytes and handles. It must not
            /// read or write their memory, which is not there, and must not claim.
            ///
            /// ```
            /// use uring_arena::{BuddyArena, FixedArena};
            ///
            /// let fixed = FixedArena::with_sizes(4, 4096).keep_from_children().build()?;
            /// let buddy = BuddyArena::with_sizes(16384, 4096).keep_from_children().build()?;
            /// # drop((fixed, buddy));
            /// # Ok::<(), uring_arena::BuildError>(())
            /// ```
            pub fn keep_from_children(mut self) -> $builder {
                self.options.region.in_children = crate::region::InChildren::Absent;
                self
            }
        }
    };
}

pub(super) use shared_setters;

/// The reason why an arena refused a claim.
///
/// The variants carry no numbers: a refusal is often expected, and costs no more than the search.
/// [`FixedArena::slot_states`](crate::FixedArena::slot_states) and
/// [`BuddyArena::slot_states`](crate::BuddyArena::slot_states) count the slots by state.
///
/// ```
/// use uring_arena::{AllocError, FixedArena};
///
/// let arena = FixedArena::new(1, 4096)?;
/// let held = arena.allocate()?;
/// assert_eq!(arena.allocate().unwrap_err(), AllocError::ArenaFull);
/// let states = arena.slot_states();
/// assert_eq!((states.held, states.total()), (1, 1));
/// # drop(held);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
// As wide as the word of a `Buffer` whose place it takes in a `Result`. A narrower type makes the
// compiler move that word in pieces.
#[repr(usize)]
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocError {
    /// Every slot, or every block that is large enough, is in use now. A later claim may be served.
    #[error(
        "arena is full: every slot or block that fits is in use (`slot_states` counts them); drop buffers, wait for one (`allocate_timeout`, `allocate_async`), or build a larger arena"
    )]
    ArenaFull,
    /// The arena could not serve this length even if it were empty.
    #[error(
        "request is larger than the arena can ever serve: ask for at most `total_size` bytes, or build a larger arena"
    )]
    RequestTooLarge,
}

debug_is_display!(AllocError);
into_io_error!(AllocError);

#[cfg(all(feature = "holders", not(uring_arena_loom)))]
thread_local! {
    /// The snapshot at the last claim that was refused on this thread.
    static AT_REFUSAL: RefCell<Option<Arc<Holders>>> = const { RefCell::new(None) };
}
#[cfg(all(feature = "holders", uring_arena_loom))]
thread_local! { // loom's locals have no constants
    static AT_REFUSAL: RefCell<Option<Arc<Holders>>> = RefCell::new(None);
}

/// Keeps a snapshot of the holders for a claim that was refused just now.
#[cfg(feature = "holders")]
pub(super) fn keep_report(handle: &Handle) {
    let holders = Holders::at_refusal(handle);
    let replaced = AT_REFUSAL.try_with(|kept| kept.replace(holders));
    drop(replaced);
}

#[cfg(feature = "holders")]
impl AllocError {
    /// Returns who held the memory when the last claim of this thread was refused.
    ///
    /// `None` if its arena does not [track](crate::FixedArenaBuilder::track_holders) holders. The
    /// snapshot is up to 0.1 s older than the refusal: many refusals share one.
    ///
    /// ```
    /// use uring_arena::{FixedArena, TrackHolders};
    ///
    /// let arena = FixedArena::with_sizes(1, 64).track_holders(TrackHolders::All).build()?;
    /// let held = arena.allocate()?;
    /// let error = arena.allocate().unwrap_err();
    /// let report = error.report().unwrap();
    /// assert!(report.summary().contains("1 claims, 64 of 64 bytes"));
    /// # drop(held);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn report(&self) -> Option<Arc<Holders>> {
        AT_REFUSAL.try_with(|kept| kept.borrow().clone()).ok().flatten()
    }
}

impl AllocError {
    fn kind(self) -> io::ErrorKind {
        match self {
            AllocError::ArenaFull => io::ErrorKind::OutOfMemory,
            AllocError::RequestTooLarge => io::ErrorKind::InvalidInput,
        }
    }
}
