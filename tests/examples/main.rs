//! The examples as programs: started as a user starts them, fed well and badly, and watched.
#![cfg(target_os = "linux")]

#[path = "../support/mod.rs"]
mod support;

mod command_lines;
mod ingest;
mod proxy;
mod recv_loop;
mod servers;
