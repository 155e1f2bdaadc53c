//! An arena on a ring: the ring's table knows its memory.
//!
//! # Safety
//!
//! Unsafe here: the contract of `register`, written once for every operation that it builds.
#![allow(unsafe_code)]

use std::fmt;
use std::ops::Deref;
use std::os::fd::AsRawFd;

use super::error::RegisterError;
use super::fallback;
use super::options::{RegisterOptions, Source};
use super::options::{RegistrationMode, RegistrationPolicy};
use super::table::BufferTable;
use super::table::TableRanges;
use crate::arena::{BuddyArena, FixedArena};
use crate::lease::{Handle, Trim};
use crate::region::Process;
use crate::uring::kernel::{Probe, UnavailableError, syscalls};

mod sealed {
    /// The handle behind an arena, for this crate only.
    #[allow(missing_debug_implementations)] // no other crate can name it
    pub struct Inside<'a>(pub(in crate::uring) &'a crate::lease::Handle);

    pub trait Sealed {
        fn inside(&self) -> Inside<'_>;
    }
}

/// An arena that can be registered on a ring: the arenas of this crate, and whatever derefs to one.
pub trait Registrable: sealed::Sealed {}

/// Returns the handle behind an arena of either kind.
pub(crate) fn handle_of(arena: &impl Registrable) -> &Handle {
    arena.inside().0
}

impl sealed::Sealed for FixedArena {
    fn inside(&self) -> sealed::Inside<'_> {
        sealed::Inside(self.handle())
    }
}

impl Registrable for FixedArena {}

impl sealed::Sealed for BuddyArena {
    fn inside(&self) -> sealed::Inside<'_> {
        sealed::Inside(self.handle())
    }
}

/// Blocks have no index each: a buddy arena is registered by regions.
impl Registrable for BuddyArena {}

impl<A: Deref<Target: Registrable>> sealed::Sealed for A {
    fn inside(&self) -> sealed::Inside<'_> {
        (**self).inside()
    }
}

/// The asynchronous arenas, and an `Arc` of an arena.
impl<A: Deref<Target: Registrable>> Registrable for A {}

/// An arena on a ring that the caller owns. It builds operations whose memory the ring knows
/// already.
///
/// Registered memory is pinned once, not at every operation: that pays on `O_DIRECT` files and
/// zero-copy sends. The arena may be registered on several rings ([`RegisterOptions::clone_of`]
/// makes that free), and a ring may have several arenas ([`RegisterOptions::at`]). The value holds
/// the arena open.
///
/// Dropping the value without [`unregister`](Self::unregister) is safe: the ring keeps the pages
/// pinned until it ends, and operations in flight keep their slots themselves.
///
/// ```
/// use std::num::NonZeroUsize;
/// use io_uring::IoUring;
/// use uring_arena::{FixedArena, Progress, RegisteredArena, RegistrationPolicy};
///
/// let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
/// let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
/// let Ok(mut ring) = IoUring::new(8) else { return Ok(()) };
/// // SAFETY: entries go to `ring` only, and each completion comes back to its operation once.
/// let registered = unsafe { RegisteredArena::register(&ring, &arena, RegistrationPolicy::Best)? };
///
/// let file = std::fs::File::open("/proc/self/exe")?;
/// let (entry, operation) = registered.read(&file, arena.allocate()?, 0);
/// // SAFETY: the operation keeps the memory, `file` stays open until the completion.
/// unsafe { ring.submission().push(&entry)? };
/// ring.submit_and_wait(1)?;
/// let cqe = ring.completion().next().unwrap();
/// // SAFETY: the only completion of the only entry.
/// match unsafe { operation.complete(&cqe) } {
///     Progress::Done { result, buffer, .. } => {
///         assert_eq!(result?, 4096);
///         assert_eq!(buffer.freeze()[..4], *b"\x7fELF");
///     }
///     Progress::More(_) => unreachable!("a read completes once"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
//
// Invariant: the entries that `table` names were registered over the arena's region.
pub struct RegisteredArena {
    /// `None` for operations on memory of no arena.
    handle: Option<Handle>,
    table: Option<BufferTable>,
    mode: RegistrationMode,
    refused: Vec<(RegistrationMode, RegisterError)>,
    probe: Probe,
    /// The process whose memory the kernel knows.
    process: Process,
}

impl RegisteredArena {
    /// Registers the arena on `ring`: an io_uring, or a runtime that gives its descriptor.
    ///
    /// With [`RegistrationPolicy::Best`](crate::RegistrationPolicy::Best) the registration falls
    /// back to lower modes, and [`refused`](Self::refused) says why; only mistakes of the caller
    /// are errors then. See
    /// [io_uring_register(2)](https://man7.org/linux/man-pages/man2/io_uring_register.2.html).
    ///
    /// The example of [`RegisteredArena`] shows it.
    ///
    /// # Errors
    ///
    /// [`RegisterError`]: the mode that was demanded does not work; the ring has a table already,
    /// or none to place the arena into; a `SINGLE_ISSUER` ring of another thread.
    ///
    /// # Safety
    ///
    /// For every operation that this builds, until its completion came back:
    /// 1. Its entry is pushed to this ring, once, and the descriptor in the entry is the one that
    ///    was meant.
    /// 2. Each of its completions is handed to it, once, and no other.
    /// 3. The entries of the table stay as they are while entries that were pushed may not be
    ///    issued yet.
    ///
    /// An operation may be dropped or forgotten at any time: its slot is then lost, not freed.
    pub unsafe fn register<'a>(
        ring: &impl AsRawFd,
        arena: &impl Registrable,
        options: impl Into<RegisterOptions<'a>>,
    ) -> Result<RegisteredArena, RegisterError> {
        // SAFETY: the caller's promise.
        unsafe { RegisteredArena::register_in(ring, arena, options.into(), None) }
    }

    /// Registers the arena as [`register`](Self::register) does, in entries that it allocates from
    /// `ranges`, the free entries of the ring's table. An index in `options` does not count then.
    ///
    /// # Safety
    ///
    /// As for `register`.
    pub(crate) unsafe fn register_in(
        ring: &impl AsRawFd,
        arena: &impl Registrable,
        options: RegisterOptions<'_>,
        ranges: Option<&mut TableRanges>,
    ) -> Result<RegisteredArena, RegisterError> {
        let handle = handle_of(arena);
        let probe = match options.probe.map_or_else(Probe::shared, Ok) {
            Ok(probe) => probe,
            // What is short of locked memory for a small ring has none for an arena.
            Err(error @ UnavailableError::Memlock { .. })
                if options.policy == RegistrationPolicy::Best =>
            {
                return Ok(RegisteredArena::unregistered(handle, error.into()));
            }
            Err(error) => return Err(error.into()),
        };
        // No page is given back to the system from here on (see `lease::trim`).
        Trim(handle).pin();
        let outcome = fallback::register(ring.as_raw_fd(), handle, &options, ranges, probe);
        if !matches!(&outcome, Ok(outcome) if outcome.table.is_some()) {
            Trim(handle).unpin();
        }
        let outcome = outcome?;
        for (mode, error) in &outcome.refused {
            tracing::debug!(
                %mode,
                %error,
                "a registration mode does not work, and the next one is tried: its error names the remedy"
            );
        }
        Ok(RegisteredArena {
            handle: Some(handle.clone()),
            table: outcome.table,
            mode: outcome.mode,
            refused: outcome.refused,
            probe,
            process: Process::current(),
        })
    }

    /// Creates the value of an arena that stays unregistered, because the kernel could not be asked
    /// for its features.
    fn unregistered(handle: &Handle, reason: RegisterError) -> RegisteredArena {
        RegisteredArena {
            handle: Some(handle.clone()),
            refused: vec![(RegistrationMode::Slots, reason)],
            ..RegisteredArena::nothing(Probe::none())
        }
    }

    /// Creates a value that builds ordinary operations on any memory, for a ring that has no arena
    /// registered.
    pub(crate) fn nothing(probe: Probe) -> RegisteredArena {
        RegisteredArena {
            handle: None,
            table: None,
            mode: RegistrationMode::Unregistered,
            refused: Vec::new(),
            probe,
            process: Process::current(),
        }
    }

    /// Returns the mode that was reached.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// use uring_arena::{FixedArena, RegisteredArena, RegistrationPolicy};
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
    /// # let Ok(ring) = io_uring::IoUring::new(8) else { return Ok(()) };
    ///
    /// // SAFETY: no operation is built.
    /// let registered =
    ///     unsafe { RegisteredArena::register(&ring, &arena, RegistrationPolicy::Best)? };
    /// println!("registered by {}", registered.mode());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn mode(&self) -> RegistrationMode {
        self.mode
    }

    /// Returns the better modes that were tried, each with the reason why it did not work.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// use uring_arena::{FixedArena, Probe, RegisterOptions, RegisteredArena, RegistrationMode};
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
    /// # let Ok(ring) = io_uring::IoUring::new(8) else { return Ok(()) };
    ///
    /// let old_kernel = RegisterOptions::new().probe(Probe::none());
    /// // SAFETY: no operation is built.
    /// let registered = unsafe { RegisteredArena::register(&ring, &arena, old_kernel)? };
    /// assert_eq!(registered.mode(), RegistrationMode::Unregistered);
    /// for (mode, error) in registered.refused() {
    ///     println!("not by {mode}: {error}");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn refused(&self) -> &[(RegistrationMode, RegisterError)] {
        &self.refused
    }

    /// Returns the index of the arena's first entry in the ring's table, and the number of its
    /// entries. Returns `None` if the arena is not registered.
    ///
    /// The example of [`RegisterOptions::at`] shows it.
    pub fn entries(&self) -> Option<(u32, usize)> {
        self.table.map(|table| (table.first, table.count))
    }

    /// Returns the features of the kernel that this registration uses.
    pub fn probe(&self) -> Probe {
        self.probe
    }

    /// Returns the index in the ring's table of the entry that holds these bytes.
    ///
    /// In the slot mode that is the slot's index, counted from [`RegisterOptions::at`]. Returns
    /// `None` if the bytes are not of this arena, are empty, or span two entries, or if the arena
    /// is not registered.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// use uring_arena::{FixedArena, RegisteredArena, RegistrationPolicy};
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
    /// # let Ok(ring) = io_uring::IoUring::new(8) else { return Ok(()) };
    ///
    /// // SAFETY: no operation is built.
    /// let registered =
    ///     unsafe { RegisteredArena::register(&ring, &arena, RegistrationPolicy::Best)? };
    /// assert_eq!(registered.buffer_index(b"of no arena"), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn buffer_index(&self, bytes: &[u8]) -> Option<u16> {
        self.index_of(bytes.as_ptr(), bytes.len())
    }

    #[inline]
    pub(in crate::uring) fn index_of(&self, start: *const u8, len: usize) -> Option<u16> {
        let region = &self.handle.as_ref()?.region;
        let distance = start.addr().checked_sub(region.start().addr().get())?;
        if distance >= region.len() {
            return None;
        }
        self.table?.index_of(distance, len)
    }

    /// Takes the arena off the ring: its table entries are emptied, or the table is removed if it
    /// was made for the arena.
    ///
    /// Operations in flight finish as usual, and entries that were pushed are submitted first.
    /// Entries that are pushed later, or that a submission thread of the kernel (`SQPOLL`) has not
    /// issued yet, fail with `EFAULT`. An arena that is
    /// [`Unregistered`](RegistrationMode::Unregistered) stays as it is.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// use uring_arena::{FixedArena, RegisteredArena, RegistrationPolicy};
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
    /// # let Ok(ring) = io_uring::IoUring::new(8) else { return Ok(()) };
    ///
    /// // SAFETY: no operation is built.
    /// let registered =
    ///     unsafe { RegisteredArena::register(&ring, &arena, RegistrationPolicy::Best)? };
    /// registered.unregister(&ring)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`RegisterError`]: `ring` is not the ring, or belongs to another thread;
    /// [`RegisterError::OtherProcess`] in a forked child.
    pub fn unregister(self, ring: &impl AsRawFd) -> Result<(), RegisterError> {
        if self.table.is_some() {
            syscalls::submit_pushed(ring.as_raw_fd());
        }
        self.unregister_in(ring, None)
    }

    /// Takes the arena off the ring as [`unregister`](Self::unregister) does, and frees its entries
    /// in `ranges` if that succeeds. The caller has submitted what was pushed.
    pub(crate) fn unregister_in(
        self,
        ring: &impl AsRawFd,
        ranges: Option<&mut TableRanges>,
    ) -> Result<(), RegisterError> {
        let Some(table) = self.table else { return Ok(()) };
        if let Some((of, to)) = self.process.other() {
            return Err(RegisterError::OtherProcess { of, to });
        }
        let ring = ring.as_raw_fd();
        let answer = if table.is_whole {
            syscalls::unregister_buffers(ring)
        } else {
            syscalls::clear_buffers(ring, table.first, table.count).map(drop)
        };
        answer.map_err(|error| match error.raw_os_error() {
            Some(libc::ENXIO) => RegisterError::NoTable,
            Some(libc::EEXIST) => RegisterError::WrongThread,
            _ => RegisterError::system("unregistering", &error),
        })?;
        if let Some(handle) = &self.handle {
            Trim(handle).unpin();
        }
        if let Some(ranges) = ranges {
            ranges.free(table.first, table.count);
        }
        Ok(())
    }

    /// Returns whether `address` lies in the arena.
    #[inline]
    pub(crate) fn covers(&self, address: usize) -> bool {
        self.handle.as_ref().is_some_and(|handle| handle.region.covers(address))
    }
}

impl<'a> RegisterOptions<'a> {
    /// Offers a ring that has the arena registered, to clone from. Nothing is pinned or counted
    /// again.
    ///
    /// The kernel allows a ring of a single issuer to be cloned from on that thread only. For rings
    /// of several threads, build the source with
    /// [`single_issuer(false)`](crate::DriverBuilder::single_issuer), or clone on the source's
    /// thread and hand the new ring over. A refused clone falls back to a registration of its own,
    /// unless [`RegistrationMode::Cloned`] is demanded.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use std::os::fd::AsRawFd;
    /// use uring_arena::{Driver, FixedArena, RegisterOptions};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (count, bytes) = (NonZeroUsize::new(64).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
    /// // Pins the memory, once; no thread's loop uses this driver.
    /// # if Driver::builder().build().is_err() { return Ok(()) }
    /// let mut source = Driver::builder().single_issuer(false).entries(1).build()?;
    /// let id = source.register(&arena)?;
    /// let (registered, ring) = (source.arena(id)?, source.as_raw_fd());
    /// std::thread::scope(|scope| {
    ///     for _ in 0..2 {
    ///         scope.spawn(|| {
    ///             let mut driver = Driver::builder().build().unwrap();
    ///             let options = RegisterOptions::new().clone_of(registered, &ring);
    ///             let id = driver.register_with(&arena, options).unwrap();
    ///             println!("{}", driver.arena(id).unwrap().mode());
    ///         });
    ///     }
    /// });
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn clone_of(mut self, registered: &'a RegisteredArena, ring: &impl AsRawFd) -> Self {
        let (arena, table) = (registered.handle.as_ref(), registered.table);
        self.source = Some(Source { ring: ring.as_raw_fd(), arena, table });
        self
    }
}

impl fmt::Debug for RegisteredArena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisteredArena")
            .field("mode", &self.mode)
            .field("entries", &self.entries())
            .field("refused", &self.refused)
            .finish_non_exhaustive()
    }
}
