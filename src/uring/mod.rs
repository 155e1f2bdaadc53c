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
    BufferRing, BufferRingMetrics, BufferRingOptions, Datagram, FromSlot, Received, RingError,
    Status,
};
pub(crate) use buffer_ring::{DATAGRAM_HEADER_BYTES, Remaining};
#[cfg(feature = "compio")]
pub(crate) use kernel::cancel_opcode;
pub(crate) use kernel::{
    EventFd, PressurePipe, QuickClose, WakePipe, descriptors_max, disabled_by_sysctl,
    has_unsent_bytes, is_listening, is_refusal, kernel_has_io_uring, reset_connection, room_remedy,
    socket_type, who_forbids,
};
pub use kernel::{Feature, Memlock, MissingFeatureError, Probe, UnavailableError, ring_info};
#[cfg(feature = "tokio")]
pub(crate) use kernel::{
    check_calls, is_tcp_closed, limit_standstill, reset_or_shut_down, shut_down,
};
pub use operation::{
    Completion, Descriptor, DirectAlignment, DirectError, DirectFile, InFlight, Operation,
    Progress, SendOptions,
};
pub use registration::{
    RegisterError, RegisterOptions, RegisteredArena, Registrable, RegistrationMode,
    RegistrationPolicy,
};
pub(crate) use registration::{TableRanges, handle_of};
