//! Everything at once, at random, for as long as asked.
#![cfg(target_os = "linux")]

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "async-alloc")]
mod claims;
mod peers;
mod streams;
