//! Whole servers under clients of others: on tokio with plain sockets and with the pool's engines,
//! and on the driver.
//!
//! `uring-arena-peers servers` starts each server in a process of its own, drives it by
//! `redis-benchmark` (Debian package `redis-tools`), and prints medians of interleaved pairs.

mod driver;
mod link;
mod measure;
mod resp;

pub use link::{link, link_inside};
pub use measure::measure;
pub use resp::{run, serve_on};
