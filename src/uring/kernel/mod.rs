//! The kernel's interface: system calls, features, limits, and the reasons for a refusal.

mod feature;
mod memlock;
mod probe;
pub(super) mod syscalls;

pub(crate) use feature::who_forbids;
pub use feature::{Feature, MissingFeatureError};
pub use memlock::Memlock;
pub(crate) use memlock::descriptors_max;
pub(super) use probe::SEND_ZC_REPORT_USAGE;
pub use probe::UnavailableError;
pub use probe::{Probe, ring_info};
pub(crate) use probe::{disabled_by_sysctl, is_refusal, kernel_has_io_uring, room_remedy};
pub(crate) use syscalls::{EventFd, PressurePipe, WakePipe, is_listening};
#[cfg(feature = "tokio")]
pub(crate) use syscalls::{limit_standstill, reset_connection};
