//! The counters of a driver, and a look at each of its sockets.

use super::SocketId;
use crate::metrics::MetricsPart;
use std::fmt;

/// A snapshot of the counters of one [`Driver`](crate::Driver).
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let Ok(mut driver) = uring_arena::Driver::builder().build() else { return Ok(()) };
/// let before = driver.metrics();
/// driver.poll_now()?;
/// let metrics = driver.metrics();
/// assert_eq!((metrics.completions - before.completions, metrics.in_flight), (0, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DriverMetrics {
    /// The system calls made to submit and wait. A turn that does not wait makes none if the ring's
    /// flags say that nothing waits in the kernel (rings with deferred completions, Linux 6.1).
    pub enters: u64,
    /// The completions taken.
    pub completions: u64,
    /// The completions of nothing that was in flight; they were not acted on.
    pub unknown_completions: u64,
    /// The payloads of the program whose drop panicked in [`drain`](crate::Driver::drain). The
    /// panic ended there, with an error in the log.
    pub contained_panics: u64,
    /// The receives and accepts armed: first ones and further ones.
    pub armed: u64,
    /// The times that a socket found no slot ready (`ENOBUFS`) and was parked.
    pub starved: u64,
    /// The sockets parked now, waiting for slots to come back.
    pub parked: usize,
    /// The accepts and receives that failed for want of a descriptor or of memory, or by an error
    /// of one connection, and were tried again.
    pub retries: u64,
    /// The times that a waker, or a slot that was granted to a waiting ring, woke the driver.
    pub wakeups: u64,
    /// The reads, writes and sends pushed: first tries and further ones.
    pub transfers: u64,
    /// The reads, writes and sends that came short, or found a file not ready, and went on.
    pub resumed: u64,
    /// The sends that were zero-copy.
    pub zero_copy_sends: u64,
    /// The zero-copy sends whose bytes the kernel copied after all.
    pub zero_copy_sends_copied: u64,
    /// The slots that the kernel used up and reported in no completion: found, and taken back, when
    /// their ring was unregistered.
    pub unreported_slots: u64,
    /// The slots that idle rings gave back, because others waited for slots of the arena.
    pub given_back: u64,
    /// The messages copied to the heap because they were short.
    pub copied: u64,
    /// The operations that the kernel has now.
    pub in_flight: usize,
    /// The slots that lie ready in the driver's buffer rings now.
    pub published: usize,
    /// The buffer rings in which no slot lies ready now.
    pub empty_rings: usize,
}

impl DriverMetrics {
    /// Adds the counters to the metrics of a driver.
    pub(crate) fn add_to(&self, part: MetricsPart) -> MetricsPart {
        part.gauge("uring_arena_driver_in_flight", "Operations in the kernel", self.in_flight)
            .gauge("uring_arena_driver_slots_ready", "Slots ready in rings", self.published)
            .gauge("uring_arena_driver_sockets_parked", "Sockets that wait for slots", self.parked)
            .gauge("uring_arena_driver_rings_empty", "Rings without a ready slot", self.empty_rings)
            .counter("uring_arena_driver_enters_total", "System calls", self.enters)
            .counter("uring_arena_driver_completions_total", "Completions", self.completions)
            .counter(
                "uring_arena_driver_unknown_completions_total",
                "Completions of nothing that was in flight",
                self.unknown_completions,
            )
            .counter(
                "uring_arena_driver_contained_panics_total",
                "Payloads whose drop panicked",
                self.contained_panics,
            )
            .counter("uring_arena_driver_armed_total", "Receives and accepts armed", self.armed)
            .counter(
                "uring_arena_driver_starved_total",
                "Times that a socket found no slot ready",
                self.starved,
            )
            .counter(
                "uring_arena_driver_retries_total",
                "Receives and accepts that failed and were tried again",
                self.retries,
            )
            .counter("uring_arena_driver_wakeups_total", "Wakes of the driver", self.wakeups)
            .counter(
                "uring_arena_driver_transfers_total",
                "Reads, writes and sends pushed",
                self.transfers,
            )
            .counter(
                "uring_arena_driver_resumed_total",
                "Reads, writes and sends that came short and went on",
                self.resumed,
            )
            .counter(
                "uring_arena_driver_zero_copy_sends_total",
                "Sends that were zero-copy",
                self.zero_copy_sends,
            )
            .counter(
                "uring_arena_driver_zero_copy_sends_copied_total",
                "Zero-copy sends whose bytes the kernel copied after all",
                self.zero_copy_sends_copied,
            )
    }
}

/// The state of a socket of a [`Driver`](crate::Driver), as a [`SocketSnapshot`] has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SocketState {
    /// A connect is under way.
    Connecting,
    /// A receive or an accept is with the kernel, or is armed on the next turn.
    Open,
    /// The socket found no slot, and waits for one.
    Starved,
    /// The program has [paused](crate::Driver::pause) the socket.
    Paused,
    /// The system lacked descriptors or memory: the socket is tried again after a while.
    Delayed,
    /// The peer has finished, and the socket may still send.
    Finished,
    /// The socket is being closed.
    Closing,
}

impl fmt::Display for SocketState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            SocketState::Connecting => "connecting",
            SocketState::Open => "open",
            SocketState::Starved => "starved",
            SocketState::Paused => "paused",
            SocketState::Delayed => "delayed",
            SocketState::Finished => "finished",
            SocketState::Closing => "closing",
        })
    }
}

/// A look at one socket of a driver: see [`Driver::sockets`](crate::Driver::sockets).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketSnapshot {
    /// The socket.
    pub id: SocketId,
    /// The number by which holders name the connection: the socket's token, or else a number of
    /// the driver's.
    pub connection: u64,
    /// The group of the buffer ring that the socket receives into. A listener has none.
    pub group: Option<u16>,
    /// The state.
    pub state: SocketState,
    /// The sends that were begun and are not over, and whatever else is queued behind them.
    pub sends: usize,
}
