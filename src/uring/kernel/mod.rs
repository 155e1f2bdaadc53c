//! The kernel's interface: system calls, features, limits, and the reasons for a refusal.

mod event_fd;
mod feature;
mod memlock;
mod probe;
pub(super) mod syscalls;
mod unavailable;

pub(crate) use event_fd::EventFd;
pub use feature::{Feature, MissingFeatureError};
pub use memlock::Memlock;
pub(super) use probe::SEND_ZC_REPORT_USAGE;
pub use probe::{Probe, ring_info};
pub use unavailable::UnavailableError;
pub(crate) use unavailable::{disabled_by_sysctl, room_remedy, who_forbids};
