//! The systems that receive, one file each, with the best settings that their documentation names.

mod a10;
mod bare;
mod compio;
mod epoll;
mod monoio;
mod ours;
mod ours_compio;
mod ours_monoio;
mod ours_tokio;
mod ours_tokio_uring;
mod system;
mod tokio;
mod tokio_uring;

pub use ours::arena;
pub use system::System;
