//! Pieces for a ring that the user owns. Uses the arenas and everything below them.
//!
//! The pieces build entries and interpret completions; the owner of the ring pushes and reaps.
//!
//! * `kernel`: system calls, features, limits.
//! * `registration`: an arena in a ring's table of registered buffers.
//! * `operation`: reads, writes and sends that own their memory.
//! * `buffer_ring`: receiving into slots that the kernel chooses.

mod buffer_ring;
mod kernel;
mod operation;
mod registration;

pub use buffer_ring::{
    BufferRing, BufferRingMetrics, BufferRingOptions, Datagram, DatagramDetails, FromSlot,
    Received, RingError, Status,
};
#[cfg(feature = "tokio")]
pub(crate) use buffer_ring::{DATAGRAMS_MAX, Inbox};
pub(crate) use buffer_ring::{GROUP_FIRST, Remaining};
#[cfg(feature = "compio")]
pub(crate) use kernel::cancel_opcode;
#[cfg(feature = "tokio")]
pub(crate) use kernel::check_calls;
pub use kernel::{
    Address, Feature, Memlock, MissingFeatureError, Probe, UnavailableError, ring_info,
};
pub(crate) use kernel::{
    EventFd, GrantPipe, PressurePipe, QuickClose, RawAddress, WaitFor, WakePipe, descriptors_max,
    disabled_by_sysctl, has_unsent_bytes, is_listening, is_of_ip, is_refusal, kernel_has_io_uring,
    listen_on, new_socket, peer_address, reset_connection, room_remedy, submit_and_wait,
    submit_and_wait_for_time, who_forbids,
};
pub(crate) use operation::RANGES_MAX;
pub use operation::{
    Addressed, Completion, Descriptor, Destination, InFlight, Operation, Progress,
};
#[cfg(feature = "tokio")]
pub(crate) use operation::{send_datagram, send_datagrams};
pub use registration::{
    RegisterError, RegisterOptions, RegisteredArena, Registrable, RegistrationMode,
    RegistrationPolicy,
};
pub(crate) use registration::{TableRanges, handle_of};
