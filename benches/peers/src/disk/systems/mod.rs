//! The systems that read, one file each.

mod aligned;
mod bare;
mod compio;
mod glommio;
mod monoio;
mod ours;
mod ours_driver;
mod ours_tokio_uring;
mod system;
mod tokio;
mod tokio_uring;

pub use system::{Reader, System};
use system::{Settings, open_direct, whole};
