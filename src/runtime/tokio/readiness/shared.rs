//! The state that all connections and files of one pool share.

use std::io;
use std::sync::OnceLock;
use std::time::Instant;

use ::tokio::runtime::Id as RuntimeId;

use super::starved::Line;
use crate::arena::FixedArena;
use crate::buffer::Buffer;
use crate::driver::DriverError;
use crate::region::Process;
use crate::runtime::tokio::engine::{EngineEnd, LAST_MOMENT};
use crate::sync::{Arc, Mutex};

/// The state of a pool's engine on tokio's reactor.
pub(crate) struct Shared {
    /// The process of the pool. A forked child has a copy of the locks, maybe taken.
    process: Process,
    arena: FixedArena,
    /// The streams that found no slot.
    line: Arc<Line>,
    /// Set when the pool is shut down.
    end: OnceLock<EngineEnd>,
    /// The runtime that ends, and the moment by which its connections are done.
    last_moment: Mutex<Option<(RuntimeId, Instant)>>,
    /// Each read and write of a file that is under way has a clone, and each task that sends.
    operations: Arc<()>,
}

impl Shared {
    pub(super) fn new(arena: FixedArena) -> Shared {
        let process = Process::current();
        Shared {
            process,
            line: Arc::new(Line::new(arena.clone(), process)),
            arena,
            end: OnceLock::new(),
            last_moment: Mutex::new(None),
            operations: Arc::new(()),
        }
    }

    pub(super) fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// Returns the mark of one operation, which a shutdown waits for until it is dropped.
    pub(super) fn operation(&self) -> Arc<()> {
        Arc::clone(&self.operations)
    }

    pub(super) fn is_here(&self) -> bool {
        self.process.is_current()
    }

    /// Fails in a forked child of the pool's process.
    #[inline]
    pub(crate) fn here(&self) -> Result<(), DriverError> {
        match self.process.other() {
            None => Ok(()),
            Some((of, to)) => Err(DriverError::OtherProcess { of, to }),
        }
    }

    /// Fails if the pool was shut down.
    #[inline]
    pub(crate) fn check_open(&self) -> io::Result<()> {
        self.here()?;
        self.end.get().map_or(Ok(()), |end| Err(end.error()))
    }

    /// Ends the pool. Returns `false` if that was done already.
    pub(super) fn end(&self) -> bool {
        self.end.set(EngineEnd::ShutDown).is_ok()
    }

    /// Claims a slot for a caller that waits if there is none: `None` proves nothing.
    #[inline]
    pub(super) fn try_claim(&self) -> Option<Buffer> {
        let handle = self.arena.handle();
        let (lease, start) = handle.try_claim_slot()?;
        Some(Buffer::new(lease, start, handle.slot_bytes))
    }

    /// Returns the moment by which the connections of a runtime that ends are done: one for all.
    pub(super) fn last_moment(&self, runtime: RuntimeId) -> Instant {
        let mut last = self.last_moment.lock();
        match *last {
            Some((known, until)) if known == runtime => until,
            _ => last.insert((runtime, Instant::now() + LAST_MOMENT)).1,
        }
    }
}
