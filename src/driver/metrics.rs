//! The counters of a driver.

/// A snapshot of the counters of one [`Driver`](crate::Driver).
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let mut driver = match uring_arena::Driver::builder().build() {
/// #     Err(error) => { eprintln!("skipped: {error}"); return Ok(()) }
/// #     Ok(driver) => driver,
/// # };
/// let before = driver.metrics();
/// driver.poll_now()?;
/// let metrics = driver.metrics();
/// assert_eq!((metrics.enters - before.enters, metrics.in_flight), (1, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DriverMetrics {
    /// System calls made to submit and wait.
    pub enters: u64,
    /// Completions taken.
    pub completions: u64,
    /// Completions of nothing that was in flight; they were not acted on.
    pub unknown_completions: u64,
    /// Receives and accepts armed: first ones and further ones.
    pub armed: u64,
    /// Times that a socket found no slot ready (`ENOBUFS`) and was parked.
    pub starved: u64,
    /// Sockets parked now, waiting for slots to come back.
    pub parked: usize,
    /// Times that a waker, or a slot that was granted to a waiting ring, woke the driver.
    pub wakeups: u64,
    /// Reads, writes and sends pushed: first tries and those that went on.
    pub transfers: u64,
    /// Reads, writes and sends that came short, or found a file not ready, and went on.
    pub resumed: u64,
    /// Sends that were zero-copy.
    pub zero_copy_sends: u64,
    /// Zero-copy sends whose bytes the kernel copied after all.
    pub zero_copy_sends_copied: u64,
    /// Slots that the kernel used up and reported in no completion: found, and taken back, when
    /// their ring was unregistered.
    pub unreported_slots: u64,
    /// Messages copied to the heap because they were short.
    pub copied: u64,
    /// Operations that the kernel has now.
    pub in_flight: usize,
    /// Slots that lie ready in the driver's buffer rings now.
    pub published: usize,
}
