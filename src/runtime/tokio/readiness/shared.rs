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
    /// The slots that streams hold with bytes that nobody has asked for yet: half of all at most.
    ahead: Mutex<usize>,
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
            ahead: Mutex::new(0),
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

    /// Claims up to `wanted` slots besides the one that a receive needs in any case.
    ///
    /// Half of the arena is left for the receives of others, whatever streams hold that nobody
    /// reads.
    pub(super) fn claim_ahead(self: &Arc<Self>, wanted: usize, slots: &mut Vec<Buffer>) -> Ahead {
        let handle = self.arena.handle();
        let share = self.arena.slot_count() / 2;
        let granted = {
            let mut ahead = self.ahead.lock();
            let granted = wanted.min(share.saturating_sub(*ahead));
            *ahead += granted;
            granted
        };
        let claimed = handle.claim_slots(granted, |lease, start, _| {
            slots.push(Buffer::new(lease, start, handle.slot_bytes));
        });
        let mut held = Ahead { shared: Arc::clone(self), slots: granted };
        held.keep(claimed);
        held
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

/// The share of slots that one stream holds ahead of its reader.
pub(super) struct Ahead {
    shared: Arc<Shared>,
    slots: usize,
}

impl Ahead {
    /// Gives back all but `slots` of the share.
    pub(super) fn keep(&mut self, slots: usize) {
        let unneeded = self.slots.saturating_sub(slots);
        *self.shared.ahead.lock() -= unneeded;
        self.slots -= unneeded;
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if self.shared.is_here() {
            self.keep(0);
        }
    }
}
