//! The arenas that a driver's ring knows.
//!
//! # Safety
//!
//! Unsafe here: registering, whose contract the driver keeps: it owns the ring, pushes the entries
//! of its registrations to it and nowhere else, and its table says which completion is whose.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd;

use super::Driver;
use crate::error::{DriverError, RegisterError};
use crate::uring::{Feature, Probe, RegisterOptions, RegisteredArena, Registrable};

/// Entries of the table that a driver makes for its arenas: all that the kernel allows. Empty ones
/// cost the kernel eight bytes each.
const TABLE_ENTRIES: u32 = 1 << 14;

/// An arena that a [`Driver`] has registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ArenaId {
    driver: u32,
    arena: u32,
}

/// The registrations of one driver, by number. A number is not given out again.
pub(super) struct Arenas {
    arenas: Vec<Option<RegisteredArena>>,
    /// Builds operations on memory of no registered arena.
    nothing: RegisteredArena,
    probe: Probe,
    /// The ring has a sparse table; entries from here on are free.
    next_entry: Option<u32>,
}

impl Arenas {
    pub(super) fn new(probe: Probe) -> Arenas {
        Arenas {
            arenas: Vec::new(),
            nothing: RegisteredArena::nothing(probe),
            probe,
            next_entry: None,
        }
    }

    /// The arena that memory at `address` lies in, or what builds ordinary operations.
    #[inline]
    pub(super) fn of(&self, address: usize) -> &RegisteredArena {
        self.arenas.iter().flatten().find(|arena| arena.covers(address)).unwrap_or(&self.nothing)
    }
}

impl Driver {
    /// Registers an arena with the ring, so that reads, writes and zero-copy sends use its memory
    /// without pinning it again.
    ///
    /// Reads, writes and sends work without it, as ordinary ones. Takes the best mode that works;
    /// [`registered`](Self::arena) says which and why not better. Several arenas may be registered.
    ///
    /// # Errors
    ///
    /// [`RegisterError::System`] if there is no asking the kernel; otherwise none: the lowest mode
    /// always works.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use uring_arena::{Driver, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
    /// # let mut driver = match Driver::builder().build() {
    /// #     Err(error) => { eprintln!("skipped: {error}"); return Ok(()) }
    /// #     Ok(driver) => driver,
    /// # };
    /// let id = driver.register(&arena)?;
    /// let registered = driver.arena(id)?;
    /// println!("{:?}", registered.mode());
    /// for (mode, error) in registered.refused() {
    ///     println!("not {mode:?}: {error}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn register(&mut self, arena: &impl Registrable) -> Result<ArenaId, RegisterError> {
        self.register_with(arena, RegisterOptions::new())
    }

    /// As [`register`](Self::register), with a mode demanded or a ring to clone from. The place in
    /// the table is the driver's to choose: an index asked for by [`RegisterOptions::at`] is not
    /// heeded.
    ///
    /// # Errors
    ///
    /// [`RegisterError`] if the mode that was demanded does not work.
    pub fn register_with(
        &mut self,
        arena: &impl Registrable,
        options: RegisterOptions<'_>,
    ) -> Result<ArenaId, RegisterError> {
        let options = options.probe_unless_known(self.arenas.probe);
        let at = self.free_entry();
        let options = match at {
            Some(at) => options.at(at),
            None => options.not_at(),
        };
        // SAFETY: the driver keeps the contract (see the head of this file).
        let registered = unsafe { RegisteredArena::register(&self.uring, arena, options)? };
        if let Some((first, count)) = registered.entries() {
            self.arenas.next_entry = at.map(|_| first + count as u32);
        }
        self.arenas.arenas.push(Some(registered));
        Ok(ArenaId { driver: self.number, arena: self.arenas.arenas.len() as u32 - 1 })
    }

    /// The first free entry of the ring's table, which is made if need be. `None` where the kernel
    /// has no sparse tables (before 5.19).
    fn free_entry(&mut self) -> Option<u32> {
        if self.arenas.next_entry.is_none() && self.arenas.probe.has(Feature::SparseTable) {
            let made = self.uring.submitter().register_buffers_sparse(TABLE_ENTRIES);
            self.arenas.next_entry = made.is_ok().then_some(0);
        }
        self.arenas.next_entry
    }

    /// How an arena is registered.
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownArena`] if it is not one of this driver's, or was unregistered.
    pub fn arena(&self, id: ArenaId) -> Result<&RegisteredArena, DriverError> {
        let known = self.arenas.arenas.get(id.arena as usize).and_then(Option::as_ref);
        known.filter(|_| id.driver == self.number).ok_or(DriverError::UnknownArena)
    }

    /// Takes an arena off the ring. Reads, writes and sends of its memory are ordinary ones from
    /// then on; those that are under way finish as they would have.
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownArena`], or [`DriverError::System`] if the kernel does not take it
    /// off: then it stays pinned until the driver ends.
    pub fn unregister_arena(&mut self, id: ArenaId) -> Result<(), DriverError> {
        self.arena(id)?;
        // What was pushed is issued first: the kernel looks an index up when it issues the
        // operation.
        self.enter(true, None)?;
        let registered =
            self.arenas.arenas[id.arena as usize].take().ok_or(DriverError::UnknownArena)?;
        registered.unregister(&self.uring).map_err(|error| {
            tracing::error!(%error, "an arena could not be unregistered");
            DriverError::System { action: "unregistering an arena", errno: libc::EIO }
        })
    }

    /// Takes every arena off the ring; nothing is in flight.
    pub(super) fn unregister_arenas(&mut self) {
        for arena in self.arenas.arenas.drain(..).flatten() {
            if let Err(error) = arena.unregister(&self.uring) {
                tracing::error!(%error, "an arena stays registered, and pinned, until the ring ends");
            }
        }
        // Numbers are not given out again.
    }
}

impl AsRawFd for Driver {
    /// The ring's descriptor: for [`ring_info`](crate::ring_info), and to clone registrations from.
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.uring.as_raw_fd()
    }
}
