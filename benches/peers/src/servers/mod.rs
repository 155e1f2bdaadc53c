//! Whole servers on tokio under clients of others: plain sockets, and the pool's engines.
//!
//! `uring-arena-peers servers` starts each server in a process of its own, drives it by
//! `redis-benchmark` (Debian package `redis-tools`), and prints medians of interleaved pairs.

mod link;
mod measure;
mod resp;

pub use link::{link, link_inside};
pub use measure::measure;
pub use resp::run;
