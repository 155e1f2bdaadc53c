//! Copies of short messages on the heap: their bytes count against the arena that they came from.

use crate::sync::{Arc, AtomicUsize, Ordering};

/// The bytes of copies that live, of one arena.
#[derive(Debug, Default)]
pub(crate) struct CopiedBytes(AtomicUsize);

impl CopiedBytes {
    /// Returns the number of bytes that live.
    pub(crate) fn live(&self) -> usize {
        // Relaxed, as all here: a number, which orders nothing.
        self.0.load(Ordering::Relaxed)
    }

    /// Counts a copy of `bytes`. Returns `None`, and counts nothing, if more than `max` bytes would
    /// live then.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize, max: usize) -> Option<CopyCharge> {
        let mut live = self.live();
        loop {
            let after = live.checked_add(bytes).filter(|&after| after <= max)?;
            match self.0.compare_exchange(live, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(CopyCharge { bytes, counted: self.clone() }),
                Err(now) => live = now,
            }
        }
    }
}

/// The count of one copy. Its drop ends it.
#[derive(Debug)]
pub struct CopyCharge {
    bytes: usize,
    counted: Arc<CopiedBytes>,
}

impl Drop for CopyCharge {
    fn drop(&mut self) {
        self.counted.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
