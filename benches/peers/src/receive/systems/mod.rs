//! The systems that receive, with the best settings that their documentation names.

mod a10;
mod bare;
mod epoll;
mod list;
mod ours;
mod runtimes;

pub use list::SYSTEMS;
pub use ours::arena;
