//! An arena on a ring: the ring's table knows its memory.
//!
//! # Safety
//!
//! Unsafe here: the contract of `register`, written once for every operation that it builds.
#![allow(unsafe_code)]

use std::fmt;
use std::os::fd::AsRawFd;

use super::ladder;
use super::probe::Probe;
use super::syscall;
use super::table::Table;
use super::table_ranges::TableRanges;
use super::{RegisterOptions, RegistrationMode};
use crate::arena::{BuddyArena, FixedArena};
use crate::error::{RegisterError, UnavailableError};
use crate::lease::{ArenaRef, Handle};

mod sealed {
    /// What is behind an arena, for this crate only.
    #[allow(missing_debug_implementations)] // nobody outside can name it
    pub struct Inside<'a>(pub(in crate::uring) &'a crate::lease::Handle);

    pub trait Sealed {
        fn inside(&self) -> Inside<'_>;
    }
}

/// An arena that can be registered on a ring. Implemented by the arenas of this crate.
pub trait Registrable: sealed::Sealed {}

/// What is behind an arena of either kind.
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

/// An arena on a ring that the caller owns: builds operations whose memory the ring knows already.
///
/// Registered memory is pinned once, not at every operation: that pays on `O_DIRECT` files and
/// zero-copy sends. The arena may be registered on several rings ([`RegisterOptions::clone_of`]
/// makes that free), and a ring may have several arenas ([`RegisterOptions::at`]). Holds the arena
/// open.
///
/// Dropping this without [`unregister`](Self::unregister) is safe: the ring keeps the pages pinned
/// until it ends, and operations that are still out keep their slots themselves.
///
/// ```
/// use std::num::NonZeroUsize;
/// use io_uring::{IoUring, types};
/// use std::os::fd::AsRawFd;
/// use uring_arena::{FixedArena, Progress, RegisteredArena, RegistrationMode};
///
/// let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
/// let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
/// let Ok(mut ring) = IoUring::new(8) else { return Ok(()) };
/// // SAFETY: entries go to `ring` only, and each completion comes back to its operation once.
/// let registered = unsafe { RegisteredArena::register(&ring, &arena, RegistrationMode::Best)? };
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
///
/// Invariant: if there is a `table`, the entries that it names were registered over the arena's
/// region.
pub struct RegisteredArena {
    /// `None`: no arena at all, for operations on anybody's memory.
    handle: Option<Handle>,
    table: Option<Table>,
    mode: RegistrationMode,
    refused: Vec<(RegistrationMode, RegisterError)>,
    probe: Probe,
}

impl RegisteredArena {
    /// Registers the arena on `ring`, or a runtime's, whose descriptor it gives.
    ///
    /// Asked for [`RegistrationMode::Best`] it goes down the ladder and [`refused`](Self::refused)
    /// says why not better; only what is the caller's mistake is an error then. See
    /// [io_uring_register(2)](https://man7.org/linux/man-pages/man2/io_uring_register.2.html).
    ///
    /// # Errors
    ///
    /// [`RegisterError`]: the mode that was demanded does not work; the ring has a table already,
    /// or none to place the arena into; a `SINGLE_ISSUER` ring of another thread.
    ///
    /// # Safety
    ///
    /// For every operation that this builds, until its completion came back:
    /// 1. Its entry is pushed to this ring, once, and the descriptor that it names is the one that
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

    /// As [`register`](Self::register), but the entries are allocated from `ranges`, the free
    /// entries of the ring's table: an index in `options` is not heeded then.
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
        let probe = match options.known_probe() {
            Some(probe) => probe,
            None => Probe::shared().map_err(no_probe)?,
        };
        let sealed::Inside(handle) = arena.inside();
        let reached = ladder::climb(ring.as_raw_fd(), handle, &options, ranges, probe)?;
        for (mode, error) in &reached.refused {
            tracing::debug!(?mode, %error, "registration stepped down");
        }
        Ok(RegisteredArena {
            handle: Some(handle.clone()),
            table: reached.table,
            mode: reached.mode,
            refused: reached.refused,
            probe,
        })
    }

    /// Builds ordinary operations on any memory, for a ring that has no arena registered.
    pub(crate) fn nothing(probe: Probe) -> RegisteredArena {
        RegisteredArena {
            handle: None,
            table: None,
            mode: RegistrationMode::Unregistered,
            refused: Vec::new(),
            probe,
        }
    }

    /// The mode that was reached; never [`RegistrationMode::Best`].
    pub fn mode(&self) -> RegistrationMode {
        self.mode
    }

    /// The better modes that were tried, and why each did not work.
    pub fn refused(&self) -> &[(RegistrationMode, RegisterError)] {
        &self.refused
    }

    /// The index of the arena's first entry in the ring's table, and how many it has. `None` if it
    /// is not registered.
    pub fn entries(&self) -> Option<(u32, usize)> {
        self.table.map(|table| (table.first, table.count))
    }

    /// What the kernel can do, as far as this registration believes.
    pub fn probe(&self) -> Probe {
        self.probe
    }

    /// The index in the ring's table of the entry that holds these bytes. `None` if they are not of
    /// this arena, are empty, span two entries, or if the arena is not registered.
    ///
    /// On the slot mode it is the slot's index (counted from [`RegisterOptions::at`]).
    #[inline]
    pub fn buffer_index(&self, bytes: &[u8]) -> Option<u16> {
        self.index_of(bytes.as_ptr(), bytes.len())
    }

    #[inline]
    pub(super) fn index_of(&self, start: *const u8, len: usize) -> Option<u16> {
        let region = &self.handle.as_ref()?.region;
        let distance = start.addr().checked_sub(region.start().addr().get())?;
        if distance >= region.len() {
            return None;
        }
        self.table?.index_of(distance, len)
    }

    /// Takes the arena off the ring: its table entries are emptied, or the table removed if it was
    /// made for the arena.
    ///
    /// Operations that are out finish as they would have; entries that were pushed but not issued
    /// yet fail with `EFAULT`. Unregistering an arena that is on [`RegistrationMode::Unregistered`]
    /// does nothing.
    ///
    /// # Errors
    ///
    /// [`RegisterError`]: `ring` is not the ring, or belongs to another thread.
    pub fn unregister(self, ring: &impl AsRawFd) -> Result<(), RegisterError> {
        let Some(table) = self.table else { return Ok(()) };
        let ring = ring.as_raw_fd();
        let answer = if table.is_whole {
            syscall::unregister_buffers(ring)
        } else {
            syscall::clear_buffers(ring, table.first, table.count).map(drop)
        };
        answer.map_err(|error| match error.raw_os_error() {
            Some(libc::ENXIO) => RegisterError::NoTable,
            Some(libc::EEXIST) => RegisterError::WrongThread,
            _ => RegisterError::System { step: "unregistering", reason: error.to_string() },
        })
    }

    /// As [`unregister`](Self::unregister), and frees the entries in `ranges` if that succeeds.
    #[allow(dead_code)]
    pub(crate) fn unregister_in(
        self,
        ring: &impl AsRawFd,
        ranges: Option<&mut TableRanges>,
    ) -> Result<(), RegisterError> {
        let entries = self.entries();
        self.unregister(ring)?;
        if let (Some(ranges), Some((first, count))) = (ranges, entries) {
            ranges.free(first, count);
        }
        Ok(())
    }

    pub(super) fn table(&self) -> Option<Table> {
        self.table
    }

    /// Whether `address` lies in the arena.
    #[inline]
    pub(crate) fn covers(&self, address: usize) -> bool {
        self.arena_ref().covers(address)
    }

    pub(super) fn arena_ref(&self) -> ArenaRef {
        self.handle.as_ref().map_or(ArenaRef::of_nothing(), Handle::arena_ref)
    }

    pub(super) fn is_of(&self, handle: &Handle) -> bool {
        self.handle.as_ref().is_some_and(|own| own.is_same(handle))
    }
}

fn no_probe(error: UnavailableError) -> RegisterError {
    RegisterError::System { step: "looking at what the kernel can do", reason: error.to_string() }
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
