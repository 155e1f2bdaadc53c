//! The kernel's interface: system calls, features, limits, and the reasons for a refusal.

mod address;
mod feature;
mod memlock;
mod probe;
pub(super) mod syscalls;

pub use address::Address;
pub(crate) use address::RawAddress;
pub(super) use address::{NAME_BYTES_MAX, ip_address, unix_address};
pub(super) use address::{RECEIVE_CONTROL_BYTES, ReceivedControl, SendControl, UDP_GRO};
pub(crate) use feature::who_forbids;
pub use feature::{Feature, MissingFeatureError};
pub use memlock::Memlock;
pub(crate) use memlock::descriptors_max;
pub(super) use probe::SEND_ZC_REPORT_USAGE;
pub use probe::UnavailableError;
#[cfg(feature = "tokio")]
pub(crate) use probe::check_calls;
pub use probe::{Probe, ring_info};
pub(crate) use probe::{disabled_by_sysctl, is_refusal, kernel_has_io_uring, room_remedy};
#[cfg(feature = "compio")]
pub(crate) use syscalls::cancel_opcode;
pub(crate) use syscalls::{
    EventFd, GrantPipe, PressurePipe, QuickClose, WaitFor, WakePipe, error_was_pending,
    has_unsent_bytes, is_at_end, is_listening, is_of_ip, listen_on, new_socket, peer_address,
    reset_connection, submit_and_wait, submit_and_wait_for_time,
};
pub(super) use syscalls::{SocketOption, is_unix_socket, set_number, socket_domain};
