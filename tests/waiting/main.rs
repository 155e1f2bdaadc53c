//! Claims that wait for memory, on every kind of executor.

#[path = "../support/mod.rs"]
mod support;

mod buddy;
mod executors;
mod fixed;
mod foreign_code;
mod panics;
mod wait_policies;
