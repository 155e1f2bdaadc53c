//! The arenas that a driver's ring knows.
//!
//! # Safety
//!
//! Unsafe here: registering an arena. The driver keeps the contract: it owns the ring, pushes the
//! entries of its registrations to it and nowhere else, and its table says which completion is
//! whose.
#![allow(unsafe_code)]

use io_uring::IoUring;

use super::submitter::Submitter;
use super::{ArenaId, DriverError};
use crate::slab::Slab;
use crate::uring::{
    Feature, Probe, RegisterError, RegisterOptions, RegisteredArena, Registrable, TableRanges,
};

/// Entries of the ring's table of buffers: all that the kernel allows. An empty one costs the
/// kernel eight bytes.
const TABLE_ENTRIES: u32 = 1 << 14;

/// The registrations of one driver.
pub(super) struct Arenas {
    driver: u32,
    table: Slab<RegisteredArena>,
    /// Builds operations on memory of no registered arena.
    unregistered: RegisteredArena,
    /// The features of the kernel. `None` while it could not be asked: no descriptor or no memory
    /// was left for the rings of a probe.
    probe: Option<Probe>,
    /// The free entries of the ring's table of buffers, once it has one.
    ranges: Option<TableRanges>,
}

impl Arenas {
    pub(super) fn new(driver: u32, probe: Option<Probe>) -> Arenas {
        // Memory of no registered arena uses no feature.
        let unregistered = RegisteredArena::nothing(Probe::none());
        Arenas { driver, table: Slab::new(usize::MAX), unregistered, probe, ranges: None }
    }

    /// Finds the arena that memory at `address` lies in, or what builds ordinary operations.
    #[inline]
    pub(super) fn at(&self, address: usize) -> &RegisteredArena {
        let mut arenas = self.table.iter().map(|(_, arena)| arena);
        arenas.find(|arena| arena.covers(address)).unwrap_or(&self.unregistered)
    }

    pub(super) fn register(
        &mut self,
        arena: &impl Registrable,
        options: RegisterOptions<'_>,
        submitter: &Submitter,
    ) -> Result<ArenaId, RegisterError> {
        self.probe = self.probe.or_else(|| Probe::shared().ok());
        let options = match self.probe {
            Some(probe) => options.probe_unless_known(probe).not_at(),
            None => options.not_at(),
        };
        let uring = &submitter.uring;
        self.make_table(uring)?;
        // SAFETY: the driver keeps the contract (see the head of this file).
        let registered = unsafe {
            RegisteredArena::register_in(submitter, arena, options, self.ranges.as_mut())?
        };
        let key = self.table.insert(registered).expect("an arena has memory of its own");
        Ok(ArenaId::new(self.driver, key))
    }

    /// Makes the ring's table of buffers if it has none.
    fn make_table(&mut self, uring: &IoUring) -> Result<(), RegisterError> {
        // Without sparse tables (before 5.19) an arena has the whole table.
        let is_sparse = self.probe.is_some_and(|probe| probe.has(Feature::SparseTable));
        if self.ranges.is_some() || !is_sparse {
            return Ok(());
        }
        match uring.submitter().register_buffers_sparse(TABLE_ENTRIES) {
            Ok(()) => self.ranges = Some(TableRanges::new(TABLE_ENTRIES)),
            // An arena that took the whole table instead would leave no room for a second one.
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
                let step = "making the ring's table of buffers";
                return Err(RegisterError::system(step, &error));
            }
            Err(_) => {}
        }
        Ok(())
    }

    /// Finds the arena of an id.
    pub(super) fn by_id(&self, id: ArenaId) -> Result<&RegisteredArena, DriverError> {
        self.table.get(id.key_in(self.driver)?).ok_or(DriverError::UnknownArena)
    }

    pub(super) fn unregister(
        &mut self,
        id: ArenaId,
        submitter: &mut Submitter,
    ) -> Result<(), DriverError> {
        let key = id.key_in(self.driver)?;
        self.by_id(id)?;
        // Pushed entries are issued first: the kernel looks an index up when it issues the
        // operation. What is not pushed yet is built anew, as an ordinary operation.
        submitter.flush()?;
        let registered = self.table.remove(key).ok_or(DriverError::UnknownArena)?;
        registered.unregister_in(submitter, self.ranges.as_mut()).map_err(|error| {
            tracing::error!(%error, "an arena could not be unregistered");
            DriverError::System { action: "unregistering an arena", errno: libc::EIO }
        })
    }

    /// Unregisters every arena. Everything that was pushed is with the kernel: operations in flight
    /// keep their memory, and its pages stay pinned for them.
    pub(super) fn unregister_all(&mut self, submitter: &Submitter) {
        for key in self.table.keys() {
            let Some(arena) = self.table.remove(key) else { continue };
            if let Err(error) = arena.unregister_in(submitter, self.ranges.as_mut()) {
                tracing::error!(%error, "an arena stays registered, and pinned, until the ring ends");
            }
        }
    }
}
