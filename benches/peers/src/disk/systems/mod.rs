//! The systems that read.

mod aligned;
mod bare;
mod list;
mod ours;
mod ours_driver;
mod runtimes;

pub use list::SYSTEMS;
