//! 6 KERNEL: pieces for a ring that the user owns. Uses the arenas and everything above them.
//!
//! Registration and its ladder, fixed and zero-copy operations, buffer rings and receiving, and
//! what the kernel can do. The pieces build entries and interpret completions; whoever owns the
//! ring pushes and reaps.

mod buffer_ring;
mod datagram;
mod descriptor;
mod direct;
mod event_fd;
mod feature;
mod fixed;
mod from_slot;
mod in_flight;
mod ladder;
mod memlock;
mod memory;
mod operation;
mod plain_lengths;
mod probe;
mod receive;
mod receive_entries;
mod reconcile;
mod refill;
mod register_options;
mod registered;
mod registration_mode;
mod ring_entries;
mod ring_options;
mod ring_registration;
mod send;
mod shadow;
mod status;
mod syscall;
mod table;
mod table_ranges;
mod unavailable;

#[cfg(test)]
mod fake_kernel;
#[cfg(test)]
mod fake_kernel_tests;

pub use buffer_ring::{BufferRing, BufferRingMetrics};
pub(crate) use datagram::DATAGRAM_HEADER_BYTES;
pub use datagram::Datagram;
pub use descriptor::Descriptor;
pub use direct::{DirectAlignment, DirectFile};
pub(crate) use event_fd::EventFd;
pub use feature::Feature;
pub use from_slot::FromSlot;
pub use in_flight::{Completion, InFlight};
pub use memlock::Memlock;
pub use memory::{Memory, Payload};
pub use operation::{Operation, Progress};
pub use probe::{Probe, ring_info};
pub(crate) use receive::Cursor;
pub use receive::Received;
pub use register_options::RegisterOptions;
pub(crate) use registered::handle_of;
pub use registered::{RegisteredArena, Registrable};
pub use registration_mode::RegistrationMode;
pub use ring_options::BufferRingOptions;
pub use send::SendOptions;
pub use status::Status;
#[allow(unused_imports)]
pub(crate) use table_ranges::TableRanges;
pub(crate) use unavailable::disabled_by_sysctl;
