//! Snapshots of a driver's counters.

use super::Driver;

/// Plain numbers of one [`Driver`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DriverMetrics {
    /// System calls made to submit and wait.
    pub enters: u64,
    /// Completions taken.
    pub completions: u64,
    /// Completions that belonged to nothing in flight; they were not acted on.
    pub unknown_completions: u64,
    /// Receives armed: first ones and further ones.
    pub armed: u64,
    /// Times that a socket found no slot ready (`ENOBUFS`) and was parked.
    pub starved: u64,
    /// Sockets parked now, waiting for slots to come back.
    pub parked: usize,
    /// Times that a freed slot woke the driver.
    pub woken: u64,
    /// Reads, writes and sends pushed: first ones and those that went on.
    pub transfers: u64,
    /// Reads, writes and sends that came short, or found a file not ready, and went on.
    pub resumed: u64,
    /// Sends that were zero-copy.
    pub zero_copy_sends: u64,
    /// Those of them whose bytes the kernel copied after all.
    pub zero_copy_sends_copied: u64,
    /// Slots that the kernel used up and told of in no completion: found, and taken back, when
    /// their ring was taken down.
    pub unreported_slots: u64,
    /// Messages copied to the heap because they were short.
    pub copied: u64,
    /// Operations that the kernel has now.
    pub in_flight: usize,
    /// Slots that lie ready in the driver's buffer rings now.
    pub published: usize,
}

impl Driver {
    /// A snapshot of the counters.
    pub fn metrics(&self) -> DriverMetrics {
        let mut metrics = self.metrics;
        metrics.in_flight = self.operations.in_flight();
        for ring in self.rings.iter() {
            let of_ring = ring.buffers.metrics();
            metrics.starved += of_ring.starved;
            metrics.copied += of_ring.copied;
            metrics.published += of_ring.published;
            metrics.parked += ring.starved.count();
        }
        metrics
    }
}
