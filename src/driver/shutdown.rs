//! The end: cancel, reap until nothing is in flight, unregister. What cannot be proved finished is
//! quarantined.

use std::time::{Duration, Instant};

use super::key::Key;
use super::{Driver, Event};
use crate::error::DriverError;

/// How long dropping a driver waits for what is in flight. Cancelled sockets take microseconds;
/// only a device that does not answer takes longer, and then its slots are quarantined.
const DROP_PATIENCE: Duration = Duration::from_secs(1);

/// Cancellations pushed before their completions are taken: so that these fit in their queue.
const CANCELS_AT_ONCE: usize = 64;

/// How long one round of reaping waits before it cancels anew: for what a cancellation overtook.
const ROUND: Duration = Duration::from_millis(50);

/// What [`Driver::drain`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DrainReport {
    /// Sockets that were closed.
    pub closed: usize,
    /// Bytes that came in and that nobody took.
    pub discarded_bytes: u64,
    /// Slots that the kernel used up and told of in no completion: free again, now that nothing is
    /// in flight.
    pub unreported_slots: u64,
    /// Operations that the kernel still has: none if all is well.
    pub in_flight: usize,
    /// Slots that are lost with them, for good: they and their arena's memory are never freed.
    pub quarantined: usize,
}

impl Driver {
    /// Ends everything in good order: cancels what is under way, waits until the kernel has let go
    /// of all of it, takes the buffer rings down, closes the sockets. Not longer than `patience`.
    ///
    /// Events that were not taken are dropped. What the kernel has not let go of by then stays:
    /// call this again, or drop the driver, which quarantines it.
    ///
    /// # Errors
    ///
    /// [`DriverError::System`] if the kernel refuses to go on.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use uring_arena::Driver;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut driver = match Driver::builder().build() {
    /// #     Err(error) => { eprintln!("skipped: {error}"); return Ok(()) }
    /// #     Ok(driver) => driver,
    /// # };
    /// let drained = driver.drain(Duration::from_secs(5))?;
    /// assert_eq!((drained.in_flight, drained.quarantined), (0, 0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn drain(&mut self, patience: Duration) -> Result<DrainReport, DriverError> {
        self.draining = true;
        let mut drained = DrainReport::default();
        let answer = self.reap(Instant::now() + patience, &mut drained);
        drained.in_flight = self.operations.in_flight();
        if drained.in_flight == 0 {
            let before = self.metrics.unreported_slots;
            self.unregister_rings();
            drained.unreported_slots = self.metrics.unreported_slots - before;
            self.unregister_arenas();
            self.draining = false;
        } else {
            drained.quarantined =
                self.rings.iter().map(|ring| ring.buffers.metrics().published).sum();
            drained.quarantined += self.transfers.running();
        }
        answer.map(|()| drained)
    }

    fn reap(&mut self, until: Instant, drained: &mut DrainReport) -> Result<(), DriverError> {
        self.close_idle(drained);
        let mut cancel_at = Instant::now();
        loop {
            self.discard_events(drained);
            if self.operations.in_flight() == 0 {
                // What ended while it was being cancelled is in no queue any more.
                self.close_idle(drained);
                return Ok(());
            }
            let now = Instant::now();
            if now >= until {
                return Ok(());
            }
            if now >= cancel_at {
                self.cancel_all(drained)?;
                cancel_at = Instant::now() + ROUND;
            }
            self.enter(false, Some(until.min(cancel_at)))?;
        }
    }

    /// Closes what the kernel does not have: parked sockets, and those that were to be armed again.
    fn close_idle(&mut self, drained: &mut DrainReport) {
        self.ended.clear();
        let idle: Vec<_> =
            self.operations.keys().filter(|&key| !self.operations.is_in_flight(key)).collect();
        for key in idle {
            if self.unfolding.is_none() {
                drained.closed += usize::from(self.closed(key, None).is_some());
            }
        }
    }

    fn discard_events(&mut self, drained: &mut DrainReport) {
        while let Some(event) = self.next_arena_bytes() {
            match event {
                Event::Received { bytes, .. } => drained.discarded_bytes += bytes.len() as u64,
                Event::Datagram { datagram, .. } => {
                    drained.discarded_bytes += datagram.bytes.len() as u64
                }
                Event::Accepted { socket, .. } => drop(socket),
                Event::Closed { .. } => drained.closed += 1,
                Event::Read { .. } | Event::Wrote { .. } | Event::Sent { .. } => {}
            }
        }
    }

    /// Cancels each operation by its key. One request that cancels "any" would be shorter, but the
    /// kernel then looks for its targets one after another from the start: ten thousand sockets
    /// take it seconds.
    fn cancel_all(&mut self, drained: &mut DrainReport) -> Result<(), DriverError> {
        let keys: Vec<Key> =
            self.operations.keys().filter(|&key| self.operations.is_in_flight(key)).collect();
        for keys in keys.chunks(CANCELS_AT_ONCE) {
            for &key in keys {
                if self.operations.get(key).is_some() {
                    self.cancel(key)?;
                }
            }
            self.enter(true, None)?;
            self.discard_events(drained);
        }
        Ok(())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let answer = self.drain(DROP_PATIENCE);
        match answer {
            Ok(drained) if drained.in_flight == 0 => {}
            Ok(drained) => tracing::error!(
                in_flight = drained.in_flight,
                quarantined = drained.quarantined,
                "the driver was dropped before the kernel let go: its slots are quarantined, their memory is leaked"
            ),
            Err(error) => {
                tracing::error!(%error, "the driver could not be drained: its slots are quarantined")
            }
        }
        // What is left in the rings and in the table is quarantined by its own drop.
    }
}
